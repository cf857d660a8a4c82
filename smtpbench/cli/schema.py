"""`smtpbench schema`."""

from __future__ import annotations

import json
from enum import StrEnum
from importlib.resources import files
from typing import Annotated

import typer


class What(StrEnum):
    """What there is a schema of."""

    SCENARIO = "scenario"
    RESULT = "result"
    JUDGEMENT = "judgement"


def command(
    what: Annotated[
        What, typer.Argument(help="Of scenario files, of run's result.json, or of check's and fuzz's.")
    ] = What.SCENARIO,
) -> None:
    """Print the JSON Schema of scenario files, for an editor, or of results, for a program.

    \b
      smtpbench schema > scenario.schema.json
      smtpbench schema result
    """
    if what is not What.SCENARIO:
        typer.echo(files("smtpbench.measure").joinpath(f"{what}.schema.json").read_text(encoding="utf-8"), nl=False)
        return
    from smtpbench.scenario.model import Scenario

    schema = Scenario.model_json_schema(by_alias=True)
    schema |= {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "smtpbench scenario"}
    typer.echo(json.dumps(schema, indent=2))
