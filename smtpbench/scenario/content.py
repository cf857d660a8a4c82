"""Models of values and messages in scenario files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from smtpbench.scenario.fields import Model, Range, SizesBytes, tag_by_key


class Csv(Model):
    """A column of a CSV file with a header line."""

    csv: str = Field(
        description="CSV file with a header line; its path is relative to the scenario, in whose folder it must be."
    )
    column: str | None = Field(None, description="Name of the column. It may be left out if there is only one.")
    order: Literal["sequential", "random"] = Field("sequential", description="Order in which the rows are taken.")


class Lines(Model):
    """The lines of a text file."""

    lines: str = Field(description="Text file; its path is relative to the scenario, in whose folder it must be.")
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


_Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, (int, float)) else value)]
VALUE_KEYS = {"csv": "csv", "lines": "lines", "pick": "pick", "range": "range", "random": "random"}
Value = Annotated[
    Annotated[_Text, Tag("text")]
    | Annotated[Csv, Tag("csv")]
    | Annotated[Lines, Tag("lines")]
    | Annotated[Pick, Tag("pick")]
    | Annotated[Numbers, Tag("range")]
    | Annotated[Random, Tag("random")],
    Discriminator(tag_by_key(VALUE_KEYS, "text")),
    Field(json_schema_extra={"x-type": "value"}),
]


class Message(Model):
    """Content of the messages. Give one of `size`, `eml` and `text`."""

    size: SizesBytes | None = Field(
        None, description="Size of a generated message with its header: a size, or a range of sizes."
    )
    eml: str | None = Field(
        None,
        description="Message files to send: a file name or a pattern such as `mails/*.eml`, relative to the scenario, in "
        "whose folder they must be. Each message of an mbox file counts as a file.",
    )
    text: str | None = Field(None, description="Body of the message as text, with {values}.")
    subject: str = Field("smtpbench {n}", description="Subject of a generated message, with {values}.")
    headers: dict[str, str] = Field(default_factory=dict, description="Further header fields by their names, with {values}.")
    order: Literal["sequential", "random"] = Field("sequential", description="Order in which the files of `eml` are sent.")
