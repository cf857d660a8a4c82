"""The command line: names, help and exit codes. A command's module is imported only when it is called.

Exit codes: 0 fine · 1 findings · 2 usage or scenario error · 3 could not run · 99 a threshold failed · 130 interrupted,
what there was is saved.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from smtpbench import __version__
from smtpbench.errors import SmtpbenchError

#: name → what `smtpbench --help` says of it; `smtpbench.cli.<name>` holds its `command`.
COMMANDS = {
    "run": "Load a mail server with a scenario and measure it.",
    "check": "Try a server against the protocol's rules.",
    "fuzz": "Mutate a scenario by the thousand and show what breaks a server.",
    "compare": "Run candidates in turns and say what differs, and how sure that is.",
    "diff": "Hold saved results against each other.",
    "replay": "Say findings again: STILL THERE, FIXED or CANNOT TELL.",
    "rules": "List the protocol rules, or explain one.",
    "sink": "Run a mail server that takes everything, or misbehaves on request.",
    "doctor": "Look at this machine, and a target, before a run.",
    "demo": "Run the relay scenario against the built-in sink.",
    "validate": "Check scenario files and say what they do.",
    "schema": "Print the JSON Schema of scenario files or of results.",
}


class LazyGroup(TyperGroup):
    """A group that lists its commands from a table, and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in sys.argv[1:] and not ctx.resilient_parsing:
            return TyperCommand(name=cmd_name, help=COMMANDS[cmd_name])  # it is only being listed
        module = importlib.import_module(f"smtpbench.cli.{cmd_name}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(cmd_name)(module.command)
        return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
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
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    """Load-test and judge SMTP and LMTP servers, with figures that can be trusted."""


def main() -> None:
    """The entry point: every error of ours is one message on stderr and its own exit code."""
    try:
        app()
    except SmtpbenchError as error:
        print(f"smtpbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
