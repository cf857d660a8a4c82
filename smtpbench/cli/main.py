"""The command line: names, help and exit codes. A command's module is imported only when it is called.

Exit codes stand in `cli.ending`.
"""

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
from smtpbench.cli.exit_codes import ended
from smtpbench.errors import UsageError
from smtpbench.text import did_you_mean, visible

#: name → what `smtpbench --help` says of it; `smtpbench.cli.<name>` holds its `command`.
COMMANDS = {
    "run": "Load a mail server with a scenario and measure it.",
    "check": "Try a server against the protocol's rules.",
    "fuzz": "Mutate a scenario by the thousand and show what breaks a server.",
    "compare": "Run candidates in turns; say what differs, how surely.",
    "capacity": "Find the highest rate that holds your objectives.",
    "diff": "Hold saved results against each other.",
    "report": "Show saved results, or write them for CI and others.",
    "replay": "Say findings again: STILL THERE, FIXED or CANNOT TELL.",
    "rules": "List the protocol rules, or explain one.",
    "sink": "Run a mail server that takes all, or misbehaves.",
    "doctor": "Look at this machine, and a target, before a run.",
    "demo": "Run the relay scenario against the built-in sink.",
    "validate": "Check scenario files and say what they do.",
    "schema": "Print the JSON Schema of scenario files or of results.",
}


def _show_completion(shell: str = "") -> None:
    typer.echo(completion.script_of(shell), nl=False)


def _install_completion(shell: str = "") -> None:
    shell, written = completion.install(shell)
    typer.echo(f"completion for {shell} is in {' and '.join(map(str, written))}; a new shell has it")


#: Options that may have a value or none, which typer does not know.
_COMPLETION = {"--show-completion": _show_completion, "--install-completion": _install_completion}


class LazyGroup(TyperGroup):
    """A group that lists its commands from a table, and imports the one that is called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:
            args = ["--help"]
        elif args[0] == "help":
            args = [*args[1:2], "--help"]
        elif args[0] in _COMPLETION:
            _COMPLETION[args[0]](*args[1:2])
            raise typer.Exit
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command for the list of commands, without its options."""
        return TyperCommand(name=cmd_name, help=COMMANDS[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, Any, list[str]]:
        name, *rest = args
        if name not in COMMANDS:
            hint = did_you_mean(name, COMMANDS) or "; `smtpbench --help` lists them"
            raise UsageError(f"there is no command '{visible(name)}'{hint}")
        return name, load(name), rest


class OneCommand(TyperCommand):
    """A command that is named in each of its usage errors."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            if getattr(error, "ctx", None) is None:
                vars(error)["ctx"] = ctx
            raise


def load(name: str) -> Any:
    """The command of that name, with its options; imports its module."""
    module = importlib.import_module(f"smtpbench.cli.{name}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    single.command(name, cls=OneCommand)(module.command)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    epilog="Exit codes: 0 fine, 1 findings, 2 a mistake in the call or the scenario, 3 could not run, 70 a bug here, "
    "99 a threshold failed, 130 interrupted (what there was is saved), 141 nobody reads the output. "
    "`smtpbench help COMMAND` has examples.",
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
        bool, typer.Option("--show-completion", help="Print the completion for bash, zsh or fish.")
    ] = False,
    install_completion: Annotated[
        bool, typer.Option("--install-completion", help="Install the completion of that shell.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    """Load-test and judge SMTP and LMTP servers, with figures that can be trusted."""


def main() -> None:
    """The entry point."""
    if completion.VARIABLE in os.environ:
        sys.exit(ended(lambda: completion.answer(COMMANDS)))
    sys.exit(ended(lambda: call(sys.argv[1:])))


def call(arguments: Sequence[str]) -> None:
    """Do what the arguments say. Raises what `cli.ending` makes messages and exit codes of."""
    command: Any = typer.main.get_command(app)
    # typer would take colours out of what is no terminal: `report.console.wants_color` has decided by then
    with command.make_context("smtpbench", list(arguments), color=True) as context:
        command.invoke(context)


if __name__ == "__main__":
    main()
