"""Configuration files of the sink: which rules it applies, and when it stalls.

on: [RCPT=delay:20ms, "message=450 4.2.1 full@5%"]
stall: 4s..5s
greylist: 30s
seed: 7
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from smtpbench.errors import ScenarioError, UsageError
from smtpbench.scenario.fields import Model, quantity
from smtpbench.scenario.load import validate_document
from smtpbench.scenario.reader import parse, read_text
from smtpbench.units import parse_duration_ns, parse_range

_KEYS = "a sink configuration has the keys `on`, `stall`, `greylist` and `seed`"


def _text_of(parse_text: Callable[[str], object]) -> BeforeValidator:
    """Return a validator that keeps the text if it can be parsed."""

    def checked_text(text: str) -> str:
        parse_text(text)
        return text

    return quantity(checked_text)


class SinkConfig(Model):
    """What a configuration file of the sink may contain. Times stay text, as the options of `smtpbench sink` are."""

    on: list[str] = Field(default=[], description="Rules, VERB=ACTION[@SHARE], tried in order.")
    stall: Annotated[str, _text_of(lambda text: parse_range(text, parse_duration_ns))] | None = Field(
        None, description="Window after the first MAIL in which there are no replies, such as 4s..5s."
    )
    greylist: Annotated[str, _text_of(parse_duration_ns)] | None = Field(
        None, description="Time for which a new pair of sender and recipient gets 450, such as 30s."
    )
    seed: int = Field(0, ge=0, description="Random seed of shares and delays.")


def load_sink_config(path: Path, check_rule: Callable[[str], object]) -> dict[str, Any]:
    """Read a configuration file; return its keys and values as plain data.

    Args:
        path: The file.
        check_rule: Raises UsageError for a text that is not a rule.

    Raises:
        ScenarioError: The file is wrong; every mistake has its line and column.
    """
    document = parse(read_text(path), str(path), if_empty=_KEYS)
    config = validate_document(document, SinkConfig, _KEYS, model_by_key={})
    for index, rule in enumerate(config.on):
        try:
            check_rule(rule)
        except UsageError as error:
            document.problem(("on", index), str(error))
    if document.problems:
        raise ScenarioError(document.problems)
    return config.model_dump()
