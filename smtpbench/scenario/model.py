"""What a scenario may say: the models behind the reader's messages and behind `smtpbench schema`.

Each quantity is an int or a float in the unit its name says, read from the text that users write. A step is told
apart by its form (a line, a word) or by the one key that only its kind has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from smtpbench import units
from smtpbench.errors import UsageError
from smtpbench.threshold import Threshold, parse_threshold

COMMAND_LINE = re.compile(r"[A-Z][A-Z0-9-]*(?: .*)?", re.DOTALL)
#: Steps of one word → what they do.
ACTIONS: Mapping[str, str] = {
    "message": "Send the content of the message and its end, after DATA.",
    "tls": "Start a TLS handshake, without STARTTLS before it.",
    "close": "Close the connection.",
    "reset": "Close the connection with a TCP reset.",
    "half-close": "Close the writing side of the connection.",
}

#: An unrolled repeat, or a whole script, has no more steps than this.
MAX_STEPS = 100_000
FOREVER = 1 << 60


def quantity(parse: Callable[[str], Any]) -> BeforeValidator:
    """What makes a field's text a quantity; its UsageError becomes a mistake with a place."""

    def read(value: Any) -> Any:
        try:
            return parse(str(value))
        except UsageError as error:
            raise PydanticCustomError("quantity", "{what}", {"what": str(error)}) from None

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


def _schema(kind: str, pattern: str, *, number: bool = False) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern, "examples": list(TEXT_TYPES[kind].examples)}
    return WithJsonSchema({"x-type": kind, **({"anyOf": [text, {"type": "integer", "minimum": 0}]} if number else text)})


_D = r"([0-9]+(\.[0-9]+)?(us|µs|ms|s|m|h))+"
_S = r"[0-9]+(\.[0-9]+)? ?(B|KB|MB|GB|KiB|MiB|GiB)?"
_R = r"[0-9]+(\.[0-9]+)? ?/ ?[smh]"

DurationNs = Annotated[int, quantity(units.parse_duration_ns), _schema("duration", f"^{_D}$")]
SizesBytes = Annotated[
    tuple[int, int],
    quantity(lambda text: units.parse_range(text, units.parse_size_bytes)),
    _schema("sizes", rf"^{_S}(\.\.{_S})?$", number=True),
]
SizeBytes = Annotated[int, quantity(units.parse_size_bytes), _schema("size", f"^{_S}$", number=True)]
Share = Annotated[float, quantity(units.parse_share), _schema("share", r"^[0-9]+(\.[0-9]+)? ?%$")]
RatesPerS = Annotated[
    tuple[float, float],
    quantity(lambda text: units.parse_ends(text, units.parse_rate_per_s)),
    _schema("rates", rf"^{_R}(\.\.{_R})?$"),
]
Range = Annotated[
    tuple[int, int],
    quantity(lambda text: units.parse_range(text, units.parse_count)),
    _schema("range", r"^[0-9]+\.\.[0-9]+$"),
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


def _code(value: Any) -> int:
    text = str(value).lower()
    if isinstance(value, bool) or not re.fullmatch(r"[2-5](?:xx|[0-5][0-9])?", text):
        raise PydanticCustomError("code", "{what}", {"what": f"{value!r} is no reply code: write 250, or 2xx"})
    return int(text[0]) if len(text) == 1 or text.endswith("xx") else int(text)


_CODE_SCHEMA = {
    "x-type": "reply code",
    "anyOf": [
        {"type": "integer", "minimum": 2, "maximum": 559},
        {"type": "string", "pattern": "^[2-5](xx|[0-5][0-9])?$"},
    ],
}
Code = Annotated[int, BeforeValidator(_code), WithJsonSchema(_CODE_SCHEMA)]
Codes = Annotated[
    list[Code],
    BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else [value]),
    Field(min_length=1),
    WithJsonSchema(
        {"x-type": "reply codes", "anyOf": [_CODE_SCHEMA, {"type": "array", "items": _CODE_SCHEMA, "minItems": 1}]}
    ),
]


class Model(BaseModel):
    """Whatever may stand in one of our files: no key that is not known, no text that is silently made a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


# -- values ------------------------------------------------------------------------------------------------------------


class Csv(Model):
    """A column of a CSV file with a header line."""

    csv: str = Field(description="CSV file with a header line; its path is relative to the scenario.")
    column: str | None = Field(None, description="Name of the column. It may be left out if there is only one.")
    order: Literal["sequential", "random"] = Field("sequential", description="Order in which the rows are taken.")


class Lines(Model):
    """The lines of a text file."""

    lines: str = Field(description="Text file; its path is relative to the scenario.")
    order: Literal["sequential", "random"] = Field("sequential", description="Order in which the lines are taken.")


class Pick(Model):
    """One of a list."""

    pick: list[str | int] = Field(min_length=1, description="The values to choose from.")
    weights: list[float | int] | None = Field(
        None, description="How often each value comes up, in proportion; one weight a value."
    )
    order: Literal["sequential", "random"] = Field("random", description="Order in which the values are taken.")


class Numbers(Model):
    """A whole number of a range, its ends included."""

    range: Range = Field(description="First and last number.")
    order: Literal["sequential", "random"] = Field("random", description="Order in which the numbers are taken.")


class Random(Model):
    """Random characters."""

    random: int = Field(ge=1, le=1000, description="Number of characters.")
    alphabet: Literal["letters", "digits", "hex", "alnum"] = Field("alnum", description="Characters to draw from.")


def _kind(keys: dict[str, str], default: str) -> Callable[[Any], str | None]:
    def decide(value: Any) -> str | None:
        if isinstance(value, str):
            return default
        if isinstance(value, dict):
            return next((tag for key, tag in keys.items() if key in value), None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return default if default == "text" else None
        return getattr(type(value), "__name__", "").lower() or None

    return decide


_Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, (int, float)) else value)]
VALUE_KEYS = {"csv": "csv", "lines": "lines", "pick": "pick", "range": "range", "random": "random"}
Value = Annotated[
    Annotated[_Text, Tag("text")]
    | Annotated[Csv, Tag("csv")]
    | Annotated[Lines, Tag("lines")]
    | Annotated[Pick, Tag("pick")]
    | Annotated[Numbers, Tag("range")]
    | Annotated[Random, Tag("random")],
    Discriminator(_kind(VALUE_KEYS, "text")),
    Field(json_schema_extra={"x-type": "value"}),
]

# -- messages ----------------------------------------------------------------------------------------------------------


class Message(Model):
    """Content of the messages. Give one of `size`, `eml` and `text`."""

    size: SizesBytes | None = Field(
        None, description="Size of a generated message with its header: a size, or a range of sizes."
    )
    eml: str | None = Field(
        None, description="Message files to send: a file name or a pattern such as `mails/*.eml`, relative to the scenario."
    )
    text: str | None = Field(None, description="Body of the message as text, with {values}.")
    subject: str = Field("smtpbench {n}", description="Subject of a generated message, with {values}.")
    headers: dict[str, str] = Field(default_factory=dict, description="Further header fields by their names, with {values}.")
    order: Literal["sequential", "random"] = Field("sequential", description="Order in which the files of `eml` are sent.")


# -- steps -------------------------------------------------------------------------------------------------------------


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


def _passes(value: Any) -> int:
    if value == "forever":
        return FOREVER
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PydanticCustomError("step", "{what}", {"what": "a number of passes is wanted, 1 or more, or `forever`"})
    return value


Passes = Annotated[
    int,
    BeforeValidator(_passes),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "forever"}]}),
]


class Repeat(Model):
    """Steps that are repeated on one connection. Each iteration of the outermost repeat is one arrival."""

    repeat: Passes = Field(description="Number of iterations on a connection, or `forever`.")
    steps: list[ScenarioStep] = Field(min_length=1, description="The steps to repeat.")


class Pipeline(Model):
    """Commands that are sent in one write and timed as a group (RFC 2920)."""

    pipeline: list[PipelineItem] = Field(min_length=2, description="Command lines, or mappings with `send`.")


def _command(value: Any) -> Any:
    if isinstance(value, str) and (not COMMAND_LINE.fullmatch(value) or "\n" in value or "\r" in value):
        raise PydanticCustomError("step", "{what}", {"what": f"{value!r} is no SMTP command, as all in a pipeline"})
    return value


PipelineItem = Annotated[
    Annotated[str, BeforeValidator(_command), Tag("line")] | Annotated[Send, Tag("send")],
    Discriminator(_kind({"send": "send"}, "line")),
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


def _line(value: str) -> str:
    if COMMAND_LINE.fullmatch(value):
        if "\n" in value or "\r" in value:
            raise PydanticCustomError("step", "{what}", {"what": "a command is one line; other octets go in {raw: …}"})
        return value
    if value in ACTIONS:
        return value
    raise PydanticCustomError(
        "step",
        "{what}",
        {"what": f"{value!r} is neither an SMTP command (upper case) nor an action ({', '.join(ACTIONS)})"},
    )


Line = Annotated[
    str,
    BeforeValidator(_line),
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
    Discriminator(_kind(STEP_KEYS, "line")),
    Field(json_schema_extra={"x-type": "step"}),
]

# -- load --------------------------------------------------------------------------------------------------------------


class LoadStage(Model):
    """A part of the schedule of arrivals."""

    for_: DurationNs = Field(alias="for", description="How long the stage lasts.")
    rate: RatesPerS = Field(
        description="Arrival rate; a range means a rate that changes evenly from the first to the second."
    )


class Load(Model):
    """The load. Each option of `smtpbench run` with the same name overrides it."""

    connections: int | None = Field(
        None, ge=1, le=1_000_000, description="Limit of connections that are open at the same time."
    )
    messages: int | None = Field(
        None,
        ge=1,
        description="Number of arrivals in all: iterations of the outermost `repeat`, or sessions without one.",
    )
    duration: DurationNs | None = Field(None, description="Time after which no new arrivals start, warm-up not counted.")
    rate: RatesPerS | None = Field(None, description="Open model: arrival rate, or a range that it runs through.")
    stages: list[LoadStage] | None = Field(
        None, min_length=1, description="Open model: arrival rates, one stage after the other."
    )
    arrivals: Literal["uniform", "poisson"] | None = Field(
        None, description="Open model: equal or exponentially distributed times between arrivals."
    )
    when_busy: Literal["wait", "drop"] | None = Field(
        None, alias="when-busy", description="Open model: what an arrival does if no connection is free."
    )
    warmup: DurationNs | None = Field(None, description="Time at the start that is not measured.")
    drain: DurationNs | None = Field(None, description="Grace period for messages that are under way at the end.")
    timeout: DurationNs | None = Field(None, description="Limit for one reply.")
    workers: int | None = Field(None, ge=1, le=256, description="Processes that share the load.")
    seed: int | None = Field(None, ge=0, description="Random seed; the same seed repeats the run.")


class FindingMetadata(Model):
    """The finding that a scenario shows. `check` and `fuzz` write it, `replay` reads it."""

    version: Literal[1] = Field(description="Version of this mapping.")
    rule: str = Field(description="Name of the rule that was broken.")
    severity: str = Field("", description="Severity of the rule.")
    actual: str = Field("", description="What the server did when the finding was made.")
    by: Literal["check", "fuzz"] = Field(description="Command that made the finding.")
    cause: str = Field("", description="What distinguishes it from other findings of the same rule.")
    take: int = Field(0, ge=0, description="Number of the dialogue among those of the rule, from 0.")
    reproducibility: str = Field("", description="In how many attempts it was seen, such as `2 of 2`.")
    recipient: str = Field("", description="Recipient that was used.")
    sender: str = Field("", description="Envelope sender that was used.")
    seed: int | None = Field(None, description="Random seed of the fuzz campaign.")
    found: str = Field("", description="When it was found, ISO 8601.")
    target: str = Field("", description="URL of the target.")
    peer: str = Field("", description="URL of the second target, if two were compared.")
    banner: str = Field("", description="Greeting of the target.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of smtpbench and of Python.")
    dialogue: list[str] = Field(default_factory=list, description="The dialogue; control characters are spelled out.")


class FixtureFile(Model):
    """Facts about a target for `check`, `fuzz` and `replay`. Options of the same name override them."""

    recipient: str = Field("", description="A recipient address that the server accepts.")
    sender: str = Field("", description="Envelope sender (MAIL FROM).")
    target: str | None = Field(None, description="URL of the target, such as `smtp://user@127.0.0.1:2525`.")
    password_file: str | None = Field(
        None, alias="password-file", description="File whose first line is the password; its path is relative to this file."
    )
    ca: str | None = Field(
        None, description="PEM file of the certificate authorities to trust; its path is relative to this file."
    )
    insecure: bool = Field(False, description="Accept any certificate.")

    def beside(self, folder: Path) -> Self:
        """The same with its paths made absolute, from the folder that they are relative to."""
        names = ("password_file", "ca")
        return self.model_copy(update={name: str(folder / text) for name in names if (text := getattr(self, name))})


class Scenario(Model):
    """A scripted SMTP session with its values, its message, its load and its thresholds."""

    name: str | None = Field(
        None, min_length=1, max_length=100, description="Name in results; without one, the name of the file."
    )
    about: str | None = Field(None, description="One sentence on what the scenario is for.")
    session: list[ScenarioStep] = Field(min_length=1, description="The steps of a session, in order.")
    values: dict[str, Value] = Field(
        default_factory=dict, description="Values by name; `{name}` in a step or in the message stands for one."
    )
    message: Message = Field(default_factory=Message, description="Content of the messages.")  # type: ignore[arg-type]  # pydantic fills in the defaults
    load: Load = Field(default_factory=Load, description="The load, unless options say otherwise.")  # type: ignore[arg-type]  # as above
    thresholds: list[ThresholdText] = Field(
        default_factory=list, description="Conditions on metrics. If one fails, the exit code of `run` is 99."
    )
    finding: FindingMetadata | None = Field(
        None, description="The finding that this scenario shows; `check` and `fuzz` write it."
    )
