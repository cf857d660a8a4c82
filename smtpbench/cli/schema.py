"""`smtpbench schema`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from smtpbench.measure.schema import schema_text


class Kind(StrEnum):
    """Kinds of documents that have a schema."""

    SCENARIO = "scenario"
    COMPARISON = "comparison"
    RESULT = "result"
    JUDGEMENT = "judgement"
    COMPARED = "compared"
    CAPACITY = "capacity"


def command(
    kind: Annotated[
        Kind,
        typer.Argument(
            metavar="KIND",
            help="Document: scenario and comparison for files that you write; result, judgement, compared and capacity for "
            "result.json of run, of check and fuzz, of compare and diff, and of capacity.",
        ),
    ] = Kind.SCENARIO,
) -> None:
    """Print the JSON Schema of scenario or comparison files, for an editor, or of results, for a program.

    \b
    Scenario files:
      smtpbench schema > scenario.schema.json
    Comparison files:
      smtpbench schema comparison > comparison.schema.json
    Results of `smtpbench run`:
      smtpbench schema result
    """
    if kind not in (Kind.SCENARIO, Kind.COMPARISON):
        typer.echo(schema_text(kind), nl=False)
        return
    from smtpbench.scenario.comparison import Comparison
    from smtpbench.scenario.model import Scenario

    model = Scenario if kind is Kind.SCENARIO else Comparison
    schema = model.model_json_schema(by_alias=True)
    schema |= {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"smtpbench {kind}"}
    typer.echo(json.dumps(schema, indent=2))
