"""`smtpbench rules`."""

from __future__ import annotations

from typing import Annotated

import typer

from smtpbench.rules.register import RULES, find


def command(
    name: Annotated[str | None, typer.Argument(help="A rule to explain, by name or number.")] = None,
) -> None:
    """List the protocol rules that are known, or explain one.

    \b
      smtpbench rules
      smtpbench rules eod-lf-crlf
    """
    if name is None:
        for rule in RULES:
            typer.echo(f"{rule.id}  {rule.name:<20} {rule.severity:<10} {rule.section}")
        return
    (rule,) = find([name])
    kinds = [kind for kind, there in (("a probe", rule.probe), ("read in every dialogue", rule.invariant)) if there]
    typer.echo(f"{rule.name} ({rule.id}), {rule.severity}, {rule.section}\n")
    typer.echo(f"  required: {rule.requirement}")
    typer.echo(f"  expected: {rule.expected}")
    typer.echo(f"  tried by: {' and '.join(kinds)}")
    if rule.needs:
        typer.echo(f"  needs:    {', '.join(rule.needs)}")
