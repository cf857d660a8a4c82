"""What a scenario may say: the models behind the reader's messages and behind `smtpbench schema`.

Each quantity is an int or a float in the unit its name says, read from the text that users write. A step is told
apart by its form (a line, a word) or by the one key that only its kind has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from smtpbench import units
from smtpbench.errors import UsageError
from smtpbench.threshold import Threshold, parse_threshold

COMMAND_LINE = re.compile(r"[A-Z][A-Z0-9-]*(?: .*)?", re.DOTALL)
ACTIONS = ("message", "tls", "close", "reset", "half-close")

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


def _schema(pattern: str, *examples: str, number: bool = False) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern, "examples": list(examples)}
    return WithJsonSchema({"anyOf": [text, {"type": "integer", "minimum": 0}]} if number else text)


_D = r"([0-9]+(\.[0-9]+)?(us|µs|ms|s|m|h))+"
_S = r"[0-9]+(\.[0-9]+)? ?(B|KB|MB|GB|KiB|MiB|GiB)?"
_R = r"[0-9]+(\.[0-9]+)? ?/ ?[smh]"

DurationNs = Annotated[int, quantity(units.parse_duration_ns), _schema(f"^{_D}$", "30s", "1m30s")]
SizesBytes = Annotated[
    tuple[int, int],
    quantity(lambda text: units.parse_range(text, units.parse_size_bytes)),
    _schema(rf"^{_S}(\.\.{_S})?$", "4KiB", "4KiB..64KiB", number=True),
]
SizeBytes = Annotated[int, quantity(units.parse_size_bytes), _schema(f"^{_S}$", "4KiB", number=True)]
Share = Annotated[float, quantity(units.parse_share), _schema(r"^[0-9]+(\.[0-9]+)? ?%$", "95%")]
RatesPerS = Annotated[
    tuple[float, float],
    quantity(lambda text: units.parse_ends(text, units.parse_rate_per_s)),
    _schema(rf"^{_R}(\.\.{_R})?$", "500/s", "10/s..500/s"),
]
Range = Annotated[
    tuple[int, int],
    quantity(lambda text: units.parse_range(text, units.parse_count)),
    _schema(r"^[0-9]+\.\.[0-9]+$", "1..1000"),
]
ThresholdText = Annotated[
    Threshold,
    quantity(parse_threshold),
    WithJsonSchema(
        {
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
    "anyOf": [
        {"type": "integer", "minimum": 2, "maximum": 559},
        {"type": "string", "pattern": "^[2-5](xx|[0-5][0-9])?$"},
    ]
}
Code = Annotated[int, BeforeValidator(_code), WithJsonSchema(_CODE_SCHEMA)]
Codes = Annotated[
    list[Code],
    BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else [value]),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_CODE_SCHEMA, {"type": "array", "items": _CODE_SCHEMA, "minItems": 1}]}),
]


class Model(BaseModel):
    """Whatever may stand in one of our files: no key that is not known, no text that is silently made a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


# -- values ------------------------------------------------------------------------------------------------------------


class Csv(Model):
    """A column of a CSV file with a header line."""

    csv: str = Field(description="the file, relative to the scenario")
    column: str | None = Field(None, description="its name in the header line; may be left out if there is only one")
    order: Literal["sequential", "random"] = "sequential"


class Lines(Model):
    """The lines of a text file."""

    lines: str = Field(description="the file, relative to the scenario")
    order: Literal["sequential", "random"] = "sequential"


class Pick(Model):
    """One of a list."""

    pick: list[str | int] = Field(min_length=1)
    weights: list[float | int] | None = Field(None, description="how often each comes up, in proportion")
    order: Literal["sequential", "random"] = "random"


class Numbers(Model):
    """A whole number of a range, its ends included."""

    range: Range
    order: Literal["sequential", "random"] = "random"


class Random(Model):
    """Random characters."""

    random: int = Field(ge=1, le=1000, description="how many characters")
    alphabet: Literal["letters", "digits", "hex", "alnum"] = "alnum"


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
]

# -- messages ----------------------------------------------------------------------------------------------------------


class Message(Model):
    """What DATA carries. One of size, eml and text."""

    size: SizesBytes | None = Field(None, description="octets of content with its header: a size, or a range of sizes")
    eml: str | None = Field(None, description="message files, a glob relative to the scenario")
    text: str | None = Field(None, description="the body as text, with {values}")
    subject: str = "smtpbench {n}"
    headers: dict[str, str] = Field(default_factory=dict, description="more header fields, with {values}")
    order: Literal["sequential", "random"] = Field("sequential", description="of eml files")


# -- steps -------------------------------------------------------------------------------------------------------------


class Send(Model):
    """A line with more to say about it than its text: CRLF is added, {values} are filled in."""

    send: str = Field(description="the line")
    expect: Codes | None = Field(None, description="reply codes taken for a yes; 2xx stands for a class")
    as_: str | None = Field(None, alias="as", description="the name it is counted and timed under")


class Raw(Model):
    """Exact octets: nothing added, nothing filled in. Escapes: \\r \\n \\t \\0 \\\\ \\xNN."""

    raw: str = Field(description="octets, one a character up to U+00FF")
    replies: int | None = Field(None, ge=0, le=1000, description="replies to wait for; 1 if it ends a line, else 0")
    expect: Codes | None = None
    as_: str | None = Field(None, alias="as")
    split: list[int] = Field(default_factory=list, description="offsets at which a new segment begins")
    tls: bool = Field(False, description="a TLS handshake follows if it is answered 220, as behind STARTTLS")


class Auth(Model):
    """AUTH with other credentials than the target's, for those that must be refused."""

    auth: str = Field(description="the mechanism")
    user: str = ""
    password: str = ""


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
    """Steps said again and again. The outermost one is what arrivals are made of."""

    repeat: Passes
    steps: list[ScenarioStep] = Field(min_length=1)


class Pipeline(Model):
    """Commands in one write, timed as a group (RFC 2920)."""

    pipeline: list[PipelineItem] = Field(min_length=2)


def _command(value: Any) -> Any:
    if isinstance(value, str) and (not COMMAND_LINE.fullmatch(value) or "\n" in value or "\r" in value):
        raise PydanticCustomError("step", "{what}", {"what": f"{value!r} is no SMTP command, as all in a pipeline"})
    return value


PipelineItem = Annotated[
    Annotated[str, BeforeValidator(_command), Tag("line")] | Annotated[Send, Tag("send")],
    Discriminator(_kind({"send": "send"}, "line")),
]


class Pause(Model):
    """Silence."""

    pause: DurationNs


class Branch(Model):
    """One way to go on."""

    weight: float | int = Field(1, ge=0)
    steps: list[ScenarioStep] = Field(default_factory=list)


class Choose(Model):
    """One of several ways, drawn for each arrival."""

    choose: list[Branch] = Field(min_length=1)


class MessageStep(Model):
    """The message, with content of its own."""

    message: Message


class Bdat(Model):
    """The message by BDAT, in chunks (RFC 3030)."""

    bdat: SizesBytes


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
]

# -- load --------------------------------------------------------------------------------------------------------------


class LoadStage(Model):
    """A stretch of the schedule."""

    for_: DurationNs = Field(alias="for", description="how long")
    rate: RatesPerS = Field(description="arrivals: a rate, or from one to another")


class Load(Model):
    """How much of it; every option of `smtpbench run` with the same name overrides it."""

    connections: int | None = Field(None, ge=1, le=1_000_000)
    messages: int | None = Field(None, ge=1, description="arrivals in all: passes of the repeat, or sessions")
    duration: DurationNs | None = None
    rate: RatesPerS | None = Field(None, description="the open model: arrivals on a schedule")
    stages: list[LoadStage] | None = Field(None, min_length=1, description="the open model in stages")
    arrivals: Literal["uniform", "poisson"] | None = None
    when_busy: Literal["wait", "drop"] | None = Field(None, alias="when-busy")
    warmup: DurationNs | None = None
    drain: DurationNs | None = None
    timeout: DurationNs | None = Field(None, description="for one reply")
    workers: int | None = Field(None, ge=1, le=256)
    seed: int | None = Field(None, ge=0)


class FindingMetadata(Model):
    """What a scenario shows, where it was written by `check` or `fuzz`; `smtpbench replay` reads it."""

    version: Literal[1]
    rule: str
    severity: str = ""
    actual: str = Field("", description="what the server did, when it was found")
    by: Literal["check", "fuzz"]
    cause: str = Field("", description="what tells it from other findings of its rule")
    take: int = Field(0, ge=0, description="which of the rule's own dialogues this is")
    reproducibility: str = ""
    recipient: str = ""
    sender: str = ""
    seed: int | None = None
    found: str = ""
    target: str = ""
    peer: str = Field("", description="the second target, of a divergence")
    banner: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    dialogue: list[str] = Field(default_factory=list, description="what was said and heard, made visible")


class FixtureFile(Model):
    """What is known of a target, for `check`, `fuzz` and `replay`; options of the same name win."""

    recipient: str = Field("", description="a mailbox it takes mail for")
    sender: str = Field("", description="whom mail comes from")
    target: str | None = Field(None, description="its URL, which says whether it is LMTP or TLS and who logs in")
    password_file: str | None = Field(None, alias="password-file", description="relative to this file")
    ca: str | None = Field(None, description="PEM file of the certificate authorities to trust, relative to this file")
    insecure: bool = False

    def beside(self, folder: Path) -> Self:
        """The same with its paths made absolute, from the folder that they are relative to."""
        names = ("password_file", "ca")
        return self.model_copy(update={name: str(folder / text) for name in names if (text := getattr(self, name))})


class Scenario(Model):
    """A scripted SMTP session, its values, its message and its load."""

    name: str | None = Field(None, min_length=1, max_length=100)
    about: str | None = Field(None, description="one sentence for whoever lists scenarios")
    session: list[ScenarioStep] = Field(min_length=1, description="the dialogue, as one would type it")
    values: dict[str, Value] = Field(default_factory=dict)
    message: Message = Field(default_factory=Message)  # type: ignore[arg-type]  # pydantic fills in the defaults
    load: Load = Field(default_factory=Load)  # type: ignore[arg-type]  # as above
    thresholds: list[ThresholdText] = Field(default_factory=list, description="what must hold, or exit code 99")
    finding: FindingMetadata | None = None
