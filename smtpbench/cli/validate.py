"""`smtpbench validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smtpbench.cli.options import AllowFiles
from smtpbench.cli.scenario_file import open_scenario
from smtpbench.errors import ScenarioError, UsageError
from smtpbench.load.settings import Overrides, make_plan
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import find_scenario
from smtpbench.text import plural, printable, visible

#: Longest description of a scenario that is shown.
_ABOUT_CHARACTERS = 1000


def command(
    files: Annotated[list[str], typer.Argument(metavar="SCENARIO", help="Scenario file, or name of a shipped scenario.")],
    allow_files: AllowFiles = False,
) -> None:
    """Check scenario files and describe them; each error is shown with its line and column.

    \b
    A file of your own:
      smtpbench validate my.yaml
    Shipped scenarios:
      smtpbench validate relay submission
    """
    problems: list[str] = []
    for name in files:
        try:
            typer.echo(f"ok  {_describe(find_scenario(name), allow_files)}")
        except ScenarioError as error:
            problems += map(str, error.problems)
        except UsageError as error:
            problems.append(f"{name}: {error}")
    for problem in problems:
        typer.echo(printable(problem), err=True)
    if problems:
        raise typer.Exit(ScenarioError.exit_code)


def _describe(path: Path, allow_files: bool) -> str:
    """Return what a scenario does, in a line or two. Raises ScenarioError."""
    file = open_scenario(path, allow_files=allow_files)
    script = compile_scenario(file, CompileOptions())
    plan = make_plan(file.scenario.load, Overrides())
    model = "open model" if plan.open_model else "closed model"
    arrival = "iteration" if script.repeats else "session"
    counts = f"{plural(len(script.steps), 'step')}, {plural(script.messages(0), 'message')} in each {arrival}"
    about = f"\n    {visible(file.scenario.about, _ABOUT_CHARACTERS)}" if file.scenario.about else ""
    name = f"{visible(str(path), _ABOUT_CHARACTERS)}: {visible(file.name)}"
    return f"{name}, {counts}, {model}, {plural(plan.connections, 'connection')}{about}"
