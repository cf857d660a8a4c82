"""How commands open a scenario: its warnings are shown before anything is sent."""

from __future__ import annotations

from pathlib import Path

import typer

from smtpbench.scenario.csv_header import header_warnings
from smtpbench.scenario.load import ScenarioFile, find_scenario, load_scenario
from smtpbench.text import printable


def open_scenario(name: str | Path, *, allow_files: bool = False) -> ScenarioFile:
    """Load a scenario, given by a path or by the name of a shipped one, and print its warnings on standard error.

    Args:
        name: The path or the name.
        allow_files: Whether it may name files outside its folder.

    Raises:
        UsageError: There is no such scenario.
        ScenarioError: The scenario has mistakes.
    """
    path = name if isinstance(name, Path) else find_scenario(name)
    file = load_scenario(path, allow_files=allow_files)
    print_warnings(file)
    return file


def print_warnings(file: ScenarioFile) -> None:
    """Print the warnings about a scenario on standard error."""
    for warning in header_warnings(file):
        typer.echo(printable(str(warning)), err=True)
