"""`smtpbench rules`."""

from __future__ import annotations

from typing import Annotated

import typer

from smtpbench.rules.register import RULES, find


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="RULE", help="Rule to explain, by name or number.  [default: list all]")
    ] = None,
) -> None:
    """List the protocol rules that `check` and `fuzz` apply, or explain one.

    \b
    All rules, with severity and source:
      smtpbench rules
    What one rule requires, and how it is checked:
      smtpbench rules eod-lf-crlf
    """
    if name is None:
        for rule in RULES:
            typer.echo(f"{rule.id}  {rule.name:<20} {rule.severity:<10} {rule.section}")
        return
    (rule,) = find([name])
    methods = [text for text, there in (("a probe", rule.probe), ("every dialogue", rule.invariant)) if there]
    typer.echo(f"{rule.name} ({rule.id}), {rule.severity}, {rule.section}\n")
    typer.echo(f"  required:   {rule.requirement}")
    typer.echo(f"  expected:   {rule.expected}")
    typer.echo(f"  checked in: {' and '.join(methods)}")
    if rule.needs:
        typer.echo(f"  needs:      {', '.join(rule.needs)}")
