"""The command line: commands and their summaries. The module of a command is imported only when the command is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from smtpbench import __version__
from smtpbench.cli import completion
from smtpbench.cli.exit_codes import EXIT_CODES, exit_code_of
from smtpbench.cli.help import Command, HelpSection, entry_of, write_sections
from smtpbench.cli.option_groups import with_separate_options
from smtpbench.errors import UsageError
from smtpbench.text import did_you_mean, visible

#: Command → its summary in `smtpbench --help`; `smtpbench.cli.<command>` holds its function `command`.
COMMANDS = {
    "run": "Load a mail server with a scenario and measure it.",
    "check": "Check a server against the protocol rules.",
    "fuzz": "Send mutated sessions to a server and report what breaks it.",
    "compare": "Compare servers or settings by runs that take turns.",
    "capacity": "Find the highest rate that meets your objectives.",
    "diff": "Compare saved results.",
    "report": "Show saved results, or export them for CI and other tools.",
    "replay": "Replay findings and report which are fixed.",
    "rules": "List the protocol rules, or explain one.",
    "sink": "Run a test mail server that accepts everything, or misbehaves on request.",
    "doctor": "Examine this machine, and a target, before a run.",
    "demo": "Run a scenario against the built-in sink.",
    "validate": "Check scenario files and describe them.",
    "schema": "Print the JSON Schema of scenario files or of results.",
}


def _show_completion(shell: str = "") -> None:
    typer.echo(completion.script_of(shell), nl=False)


def _install_completion(shell: str = "") -> None:
    shell, written = completion.install(shell)
    typer.echo(f"completion for {shell} was written to {' and '.join(map(str, written))}; start a new shell to use it")


#: Options whose value may be left out, which typer does not support.
_COMPLETION_OPTIONS = {"--show-completion": _show_completion, "--install-completion": _install_completion}


class LazyGroup(TyperGroup):
    """A group that lists its commands from a table, and imports the one that is called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:
            args = ["--help"]
        elif args[0] == "help":
            args = [*args[1:2], "--help"]
        elif args[0] in _COMPLETION_OPTIONS:
            _COMPLETION_OPTIONS[args[0]](*args[1:2])
            raise typer.Exit
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command with its summary and without its options, whose module is not imported for a list."""
        return TyperCommand(name=cmd_name, help=COMMANDS[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, Any, list[str]]:
        name, *rest = args
        if name not in COMMANDS:
            hint = did_you_mean(name, COMMANDS) or "; `smtpbench --help` lists them"
            raise UsageError(f"there is no command '{visible(name)}'{hint}")
        return name, load(name), rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, the commands and the exit codes; typer would shorten the summaries."""
        options = [entry_of(one) for one in self.get_params(ctx)]
        write_sections(
            formatter,
            [
                HelpSection("Options", [(one.heading, one.description) for one in options]),
                HelpSection("Commands", list(COMMANDS.items())),
                HelpSection("Exit codes", [(str(one.code), one.name) for one in EXIT_CODES]),
            ],
        )


def load(name: str) -> Any:
    """Import the module of a command, and return the command with its options."""
    module = importlib.import_module(f"smtpbench.cli.{name}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    single.command(name, cls=Command)(with_separate_options(module.command))
    command: Any = typer.main.get_command(single)
    command.sections = getattr(module, "HELP_SECTIONS", ())
    return command


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    epilog="`smtpbench help COMMAND` describes a command and shows examples.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smtpbench {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    show_completion: Annotated[
        bool, typer.Option("--show-completion", help="Print the completion script for bash, zsh or fish.")
    ] = False,
    install_completion: Annotated[
        bool, typer.Option("--install-completion", help="Install the completion script for bash, zsh or fish.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Load-test, check and fuzz SMTP and LMTP servers."""


def main() -> None:
    """Run the command line; the entry point of the program."""
    if completion.VARIABLE in os.environ:
        sys.exit(exit_code_of(lambda: completion.answer(COMMANDS)))
    sys.exit(exit_code_of(lambda: call(sys.argv[1:])))


def call(arguments: Sequence[str]) -> None:
    """Run the command that the arguments name. Raises the errors that `cli.exit_codes` turns into messages."""
    command: Any = typer.main.get_command(app)
    # typer would remove colours from what is not a terminal; `report.terminal.tables.wants_color` has decided by then
    with command.make_context("smtpbench", list(arguments), color=True) as context:
        command.invoke(context)


if __name__ == "__main__":
    main()
