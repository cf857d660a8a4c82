"""`smtpbench validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smtpbench.errors import ScenarioError, UsageError
from smtpbench.load.settings import Overrides, make_plan
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import find_scenario, load_scenario


def command(files: Annotated[list[str], typer.Argument(help="Scenario files, or names of shipped ones.")]) -> None:
    """Check scenario files and say what they do; every mistake comes with its line and column.

    \b
      smtpbench validate my.yaml
      smtpbench validate relay submission
    """
    problems: list[str] = []
    for wanted in files:
        try:
            typer.echo(f"ok  {_describe(find_scenario(wanted))}")
        except ScenarioError as error:
            problems += map(str, error.problems)
        except UsageError as error:
            problems.append(f"{wanted}: {error}")
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(ScenarioError.exit_code)


def _describe(path: Path) -> str:
    """One line on a scenario that can be run."""
    file = load_scenario(path)
    script = compile_scenario(file, CompileOptions())
    plan = make_plan(file.scenario.load, Overrides())
    model = "open model" if plan.open_model else "closed model"
    arrival = "pass of its repeat" if script.repeats else "session"
    counts = f"{len(script.steps)} steps, {script.messages(0)} messages a {arrival}"
    about = f"\n    {file.scenario.about}" if file.scenario.about else ""
    return f"{path}: {file.name}, {counts}, {model}, {plan.connections} connections{about}"
