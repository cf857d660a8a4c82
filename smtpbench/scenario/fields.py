"""Field types of scenario and comparison files: quantities, reply codes, and the base class of all models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

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


class TextType(NamedTuple):
    """Text of a certain form; the schema names it by `x-type`.

    Attributes:
        form: How it is written.
        examples: Some that are valid.
    """

    form: str
    examples: tuple[str, ...]


TEXT_TYPES: Mapping[str, TextType] = {
    "duration": TextType("A number and `us`, `ms`, `s`, `m` or `h`; several may be joined.", ("30s", "1m30s")),
    "size": TextType("A number of octets, or a number and `KB`, `MB`, `KiB` or `MiB`.", ("4KiB",)),
    "sizes": TextType("A size, or a range of sizes, from which each message draws one.", ("4KiB", "4KiB..64KiB")),
    "rates": TextType("Events per `s`, `m` or `h`, or a range from the first rate to the last.", ("500/s", "10/s..500/s")),
    "share": TextType("A percentage.", ("95%",)),
    "range": TextType("Two whole numbers, the first and the last.", ("1..1000",)),
    "reply code": TextType("A reply code, or a class of codes.", ("250", "2xx")),
    "reply codes": TextType("A reply code or class, or a list of them.", ("250", "[250, 251]")),
}


def _text_schema(kind: str, pattern: str, *, number: bool = False) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern, "examples": list(TEXT_TYPES[kind].examples)}
    return WithJsonSchema({"x-type": kind, **({"anyOf": [text, {"type": "integer", "minimum": 0}]} if number else text)})


_DURATION = r"([0-9]+(\.[0-9]+)?(us|µs|ms|s|m|h))+"
_SIZE = r"[0-9]+(\.[0-9]+)? ?(B|KB|MB|GB|KiB|MiB|GiB)?"
_RATE = r"[0-9]+(\.[0-9]+)? ?/ ?[smh]"

DurationNs = Annotated[int, quantity(units.parse_duration_ns), _text_schema("duration", f"^{_DURATION}$")]
SizesBytes = Annotated[
    tuple[int, int],
    quantity(lambda text: units.parse_range(text, units.parse_size_bytes)),
    _text_schema("sizes", rf"^{_SIZE}(\.\.{_SIZE})?$", number=True),
]
SizeBytes = Annotated[int, quantity(units.parse_size_bytes), _text_schema("size", f"^{_SIZE}$", number=True)]
Share = Annotated[float, quantity(units.parse_share), _text_schema("share", r"^[0-9]+(\.[0-9]+)? ?%$")]
RatesPerS = Annotated[
    tuple[float, float],
    quantity(lambda text: units.parse_ends(text, units.parse_rate_per_s)),
    _text_schema("rates", rf"^{_RATE}(\.\.{_RATE})?$"),
]
Range = Annotated[
    tuple[int, int],
    quantity(lambda text: units.parse_range(text, units.parse_count)),
    _text_schema("range", r"^[0-9]+\.\.[0-9]+$"),
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


def _check_one_line(value: Any) -> Any:
    if isinstance(value, str) and ("\r" in value or "\n" in value):
        raise PydanticCustomError("address", "{text}", {"text": "an address must not contain a line end"})
    return value


#: An address that becomes a part of a command; a line end in it would begin another command.
Address = Annotated[str, BeforeValidator(_check_one_line)]


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
