"""Models of the steps of a session in scenario files.

A step is recognised by its form (a line, a word) or by the one key that only its kind has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from smtpbench.scenario.content import Message
from smtpbench.scenario.fields import Codes, DurationNs, Model, SizesBytes, tag_by_key

COMMAND_LINE = re.compile(r"[A-Z][A-Z0-9-]*(?: .*)?", re.DOTALL)
#: Steps of one word → what they do.
ACTIONS: Mapping[str, str] = {
    "message": "Send the content of the message and its end, after DATA.",
    "tls": "Start a TLS handshake, without STARTTLS before it.",
    "close": "Close the connection.",
    "reset": "Close the connection with a TCP reset.",
    "half-close": "Close the writing side of the connection; inside TLS with close_notify.",
    "fin": "Close the writing side of the TCP connection; inside TLS without close_notify.",
}

#: Largest number of steps of a script, with inner repeats unrolled.
MAX_STEPS = 100_000
#: Number of iterations of `repeat: forever`.
FOREVER = 1 << 60


class Send(Model):
    """A command line with options. CRLF is added and {values} are filled in."""

    send: str = Field(description="The line, without CRLF.")
    expect: Codes | None = Field(
        None, description="Reply codes that count as success; `2xx` stands for all codes that begin with 2."
    )
    as_: str | None = Field(None, alias="as", description="Name under which its replies and its latency are recorded.")


class Raw(Model):
    """Exact octets: nothing is added and nothing is filled in. Escapes: \\r \\n \\t \\0 \\\\ \\xNN."""

    raw: str = Field(description="The octets, one a character up to U+00FF.")
    replies: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Number of replies to wait for: 1 if the octets end a line, otherwise 0, unless given here.",
    )
    expect: Codes | None = Field(None, description="Reply codes that count as success.")
    as_: str | None = Field(None, alias="as", description="Name under which its replies and its latency are recorded.")
    split: list[int] = Field(default_factory=list, description="Offsets at which a new TCP segment begins.")
    tls: bool = Field(False, description="Start a TLS handshake after the reply 220, as after STARTTLS.")


class Auth(Model):
    """AUTH with other credentials than those of the target, for a login that must be refused."""

    auth: str = Field(description="SASL mechanism, such as PLAIN.")
    user: str = Field("", description="User name.")
    password: str = Field("", description="Password.")


def _parse_iterations(value: Any) -> int:
    if value == "forever":
        return FOREVER
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PydanticCustomError(
            "step", "{text}", {"text": f"{value!r} is not a number of iterations; use 1 or more, or `forever`"}
        )
    return value


Iterations = Annotated[
    int,
    BeforeValidator(_parse_iterations),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "forever"}]}),
]


class Repeat(Model):
    """Steps that are repeated on one connection. Each iteration of the outermost repeat is one arrival."""

    repeat: Iterations = Field(description="Number of iterations on a connection, or `forever`.")
    steps: list[ScenarioStep] = Field(min_length=1, description="The steps to repeat.")


class Pipeline(Model):
    """Commands that are sent in one write and timed as a group (RFC 2920)."""

    pipeline: list[PipelineItem] = Field(min_length=2, description="Command lines, or mappings with `send`.")


def _check_pipelined_command(value: Any) -> Any:
    if isinstance(value, str) and (not COMMAND_LINE.fullmatch(value) or "\n" in value or "\r" in value):
        raise PydanticCustomError(
            "step", "{text}", {"text": f"{value!r} is not an SMTP command; a pipeline may contain commands only"}
        )
    return value


PipelineItem = Annotated[
    Annotated[str, BeforeValidator(_check_pipelined_command), Tag("line")] | Annotated[Send, Tag("send")],
    Discriminator(tag_by_key({"send": "send"}, "line")),
]


class Pause(Model):
    """A time in which nothing is sent."""

    pause: DurationNs = Field(description="How long.")


class Branch(Model):
    """One alternative of a `choose`."""

    weight: float | int = Field(1, ge=0, description="How often it is chosen, in proportion to the other weights.")
    steps: list[ScenarioStep] = Field(default_factory=list, description="Its steps; without any, nothing is sent.")


class Choose(Model):
    """One of several alternatives, drawn for each arrival."""

    choose: list[Branch] = Field(min_length=1, description="The alternatives.")


class MessageStep(Model):
    """The message after DATA, with other content than `message` of the scenario."""

    message: Message = Field(description="Its content.")


class Bdat(Model):
    """The message by BDAT, in chunks (RFC 3030)."""

    bdat: SizesBytes = Field(description="Size of each chunk, or a range of sizes.")


def _check_line(value: str) -> str:
    if COMMAND_LINE.fullmatch(value):
        if "\n" in value or "\r" in value:
            raise PydanticCustomError(
                "step", "{text}", {"text": "a command must be one line; use {raw: …} for other octets"}
            )
        return value
    if value in ACTIONS:
        return value
    raise PydanticCustomError(
        "step",
        "{text}",
        {"text": f"{value!r} is not an SMTP command (upper case) or an action; actions: {', '.join(ACTIONS)}"},
    )


Line = Annotated[
    str,
    BeforeValidator(_check_line),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": "^[A-Z][A-Z0-9-]*( .*)?$"}, {"enum": list(ACTIONS)}]}),
]
STEP_KEYS = {
    "send": "send", "raw": "raw", "repeat": "repeat", "pipeline": "pipeline", "pause": "pause", "choose": "choose",
    "message": "message", "bdat": "bdat", "auth": "auth",
}  # fmt: skip
ScenarioStep = Annotated[
    Annotated[Line, Tag("line")]
    | Annotated[Send, Tag("send")]
    | Annotated[Raw, Tag("raw")]
    | Annotated[Repeat, Tag("repeat")]
    | Annotated[Pipeline, Tag("pipeline")]
    | Annotated[Pause, Tag("pause")]
    | Annotated[Choose, Tag("choose")]
    | Annotated[MessageStep, Tag("message")]
    | Annotated[Bdat, Tag("bdat")]
    | Annotated[Auth, Tag("auth")],
    Discriminator(tag_by_key(STEP_KEYS, "line")),
    Field(json_schema_extra={"x-type": "step"}),
]
