"""The JSON Schemas of results."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

#: Name of a schema in `smtpbench schema NAME` → its file beside this module.
_FILES: Final = {
    "result": "result.schema.json",
    "judgement": "check_fuzz.schema.json",
    "compared": "comparison.schema.json",
    "capacity": "capacity.schema.json",
}


def schema_text(name: str) -> str:
    """Return the schema that `smtpbench schema NAME` prints: `result`, `judgement`, `compared` or `capacity`."""
    return files(__package__).joinpath(_FILES[name]).read_text(encoding="utf-8")
