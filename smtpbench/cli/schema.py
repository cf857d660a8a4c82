"""`smtpbench schema`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from smtpbench.measure.schema import schema_text


class What(StrEnum):
    """What there is a schema of."""

    SCENARIO = "scenario"
    COMPARISON = "comparison"
    RESULT = "result"
    JUDGEMENT = "judgement"
    COMPARED = "compared"
    CAPACITY = "capacity"


def command(
    what: Annotated[
        What,
        typer.Argument(
            help="Of scenario or comparison files; of the result.json of run, check and fuzz, compare, capacity."
        ),
    ] = What.SCENARIO,
) -> None:
    """Print the JSON Schema of scenario and comparison files, for an editor, or of results, for a program.

    \b
      smtpbench schema > scenario.schema.json
      smtpbench schema comparison > comparison.schema.json
      smtpbench schema result
    """
    if what not in (What.SCENARIO, What.COMPARISON):
        typer.echo(schema_text(what), nl=False)
        return
    from smtpbench.scenario.comparison import Comparison
    from smtpbench.scenario.model import Scenario

    model = Scenario if what is What.SCENARIO else Comparison
    schema = model.model_json_schema(by_alias=True)
    schema |= {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"smtpbench {what}"}
    typer.echo(json.dumps(schema, indent=2))
