"""Field types of scenario and comparison files: quantities, reply codes, and the base class of all models."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from smtpbench import units
from smtpbench.errors import UsageError
from smtpbench.threshold import Threshold, parse_threshold


def quantity(parse: Callable[[str], Any]) -> BeforeValidator:
    """Return a validator that parses the text of a field; its UsageError becomes a mistake with a position."""

    def read(value: Any) -> Any:
        try:
            return parse(str(value))
        except UsageError as error:
            raise PydanticCustomError("quantity", "{text}", {"text": str(error)}) from None

    return BeforeValidator(read)


def _text_schema(kind: str, pattern: str, *examples: str, number: bool = False) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern, "examples": list(examples)}
    return WithJsonSchema({"x-type": kind, **({"anyOf": [text, {"type": "integer", "minimum": 0}]} if number else text)})


_DURATION = r"([0-9]+(\.[0-9]+)?(us|µs|ms|s|m|h))+"
_SIZE = r"[0-9]+(\.[0-9]+)? ?(B|KB|MB|GB|KiB|MiB|GiB)?"
_RATE = r"[0-9]+(\.[0-9]+)? ?/ ?[smh]"

DurationNs = Annotated[int, quantity(units.parse_duration_ns), _text_schema("duration", f"^{_DURATION}$", "30s", "1m30s")]
SizesBytes = Annotated[
    tuple[int, int],
    quantity(lambda text: units.parse_range(text, units.parse_size_bytes)),
    _text_schema("sizes", rf"^{_SIZE}(\.\.{_SIZE})?$", "4KiB", "4KiB..64KiB", number=True),
]
SizeBytes = Annotated[int, quantity(units.parse_size_bytes), _text_schema("size", f"^{_SIZE}$", "4KiB", number=True)]
Share = Annotated[float, quantity(units.parse_share), _text_schema("share", r"^[0-9]+(\.[0-9]+)? ?%$", "95%")]
RatesPerS = Annotated[
    tuple[float, float],
    quantity(lambda text: units.parse_ends(text, units.parse_rate_per_s)),
    _text_schema("rates", rf"^{_RATE}(\.\.{_RATE})?$", "500/s", "10/s..500/s"),
]
Range = Annotated[
    tuple[int, int],
    quantity(lambda text: units.parse_range(text, units.parse_count)),
    _text_schema("range", r"^[0-9]+\.\.[0-9]+$", "1..1000"),
]
ThresholdText = Annotated[
    Threshold,
    quantity(parse_threshold),
    WithJsonSchema(
        {
            "x-type": "threshold",
            "type": "string",
            "examples": ["message.p99 < 200ms", "failed < 0.1%", "throughput > 450/s", "failed@gmail.example < 1%"],
        }
    ),
]


def _parse_code(value: Any) -> int:
    text = str(value).lower()
    if isinstance(value, bool) or not re.fullmatch(r"[2-5](?:xx|[0-5][0-9])?", text):
        raise PydanticCustomError("code", "{text}", {"text": f"{value!r} is not a reply code; write one like 250 or 2xx"})
    return int(text[0]) if len(text) == 1 or text.endswith("xx") else int(text)


_CODE_SCHEMA = {
    "x-type": "reply code",
    "anyOf": [
        {"type": "integer", "minimum": 2, "maximum": 559},
        {"type": "string", "pattern": "^[2-5](xx|[0-5][0-9])?$"},
    ],
}
Code = Annotated[int, BeforeValidator(_parse_code), WithJsonSchema(_CODE_SCHEMA)]
Codes = Annotated[
    list[Code],
    BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else [value]),
    Field(min_length=1),
    WithJsonSchema(
        {"x-type": "reply codes", "anyOf": [_CODE_SCHEMA, {"type": "array", "items": _CODE_SCHEMA, "minItems": 1}]}
    ),
]


class Model(BaseModel):
    """Base class of all models: unknown keys are refused, and text is not converted to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


def tag_by_key(keys: dict[str, str], default: str) -> Callable[[Any], str | None]:
    """Return a discriminator: the tag of the first known key of a mapping, or `default` for text."""

    def decide(value: Any) -> str | None:
        if isinstance(value, str):
            return default
        if isinstance(value, dict):
            return next((tag for key, tag in keys.items() if key in value), None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return default if default == "text" else None
        return getattr(type(value), "__name__", "").lower() or None

    return decide
