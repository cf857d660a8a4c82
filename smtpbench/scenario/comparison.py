"""Comparison files: which candidates there are, how each is started and reached, and what is compared.

name: with TLS or without
scenario: relay                   # a shipped one, or a file beside this one
load: {connections: 20, duration: 5s}
repeats: 12
candidates:
  plain: {target: "smtp://127.0.0.1:2525"}
  tls:
    target: smtp://127.0.0.1:2526?tls=starttls
    ca: ca.pem
    start: exec ./server --tls
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, WithJsonSchema

from smtpbench.scenario.load import checked
from smtpbench.scenario.model import DurationNs, FixtureFile, Load, Model, Share, SizeBytes, quantity
from smtpbench.scenario.reader import Document, parse, read_text
from smtpbench.threshold import Metric, parse_metric

#: What is compared where nobody says: throughput, the message and the whole transaction, and what went wrong.
METRICS = ("throughput", "message.p50", "message.p99", "transaction.p50", "transaction.p99", "rejected", "failed")
REPEATS = 12

#: A candidate's name is a folder's too.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,39}$")]
MetricText = Annotated[
    Metric,
    quantity(parse_metric),
    WithJsonSchema({"x-type": "metric", "type": "string", "examples": ["throughput", "message.p99", "failed"]}),
]


class CandidateSpec(FixtureFile):
    """One candidate: a target, how it is started, and what differs in how it is loaded."""

    about: str = Field("", description="One sentence on what is different about this candidate.")
    start: str = Field("", description="Shell command that runs the server, in the folder of this file.")
    stop: str = Field("", description="Shell command that stops the server, if ending the process of `start` is not enough.")
    ready: DurationNs = Field(
        30 * 10**9, description="Time within which the server must greet.", json_schema_extra={"default": "30s"}
    )
    load: Load = Field(default_factory=Load, description="What differs from the load of the comparison.")  # type: ignore[arg-type]  # pydantic fills in the defaults
    size: SizeBytes | None = Field(None, description="Message size, instead of that of the comparison.")


class Comparison(Model):
    """What is compared, and how often."""

    name: str | None = Field(
        None, min_length=1, max_length=100, description="Name in results; without one, the name of the file."
    )
    about: str = Field("", description="One sentence on the question.")
    scenario: str = Field(description="Name of a shipped scenario, or a scenario file; its path is relative to this file.")
    load: Load = Field(default_factory=Load, description="What differs from the load of the scenario.")  # type: ignore[arg-type]  # as above
    size: SizeBytes | None = Field(None, description="Message size, instead of that of the scenario.")
    repeats: int = Field(REPEATS, ge=1, le=1000, description="Runs of each candidate.")
    confidence: Share = Field(
        0.95, description="Simultaneous confidence level of all intervals.", json_schema_extra={"default": "95%"}
    )
    least: Share = Field(0.01, description="Smallest relative change to report.", json_schema_extra={"default": "1%"})
    metrics: list[MetricText] = Field(
        [parse_metric(text) for text in METRICS],
        min_length=1,
        description="Metrics to compare.",
        json_schema_extra={"default": list(METRICS)},
    )
    check: bool = Field(False, description="Check each candidate against the protocol rules as well.")
    candidates: dict[Name, CandidateSpec] = Field(
        min_length=2, description="The servers to compare, by name. The others are compared with the first."
    )


def overlaid(load: Load, other: Load) -> Load:
    """A load with what another one says; how long and how fast are each said by one of them alone."""
    said = {name: getattr(other, name) for name in other.model_fields_set}
    if said.keys() & {"messages", "duration", "stages"}:
        said = {"messages": None, "duration": None, **said}
    if said.keys() & {"rate", "stages"}:
        said = {"rate": None, "stages": None, **said}
    return load.model_copy(update=said)


def read(path: Path) -> Document:
    """A comparison file as it stands. Raises ScenarioError where it is not YAML."""
    return parse(read_text(path), str(path))


def check(document: Document, folder: Path) -> Comparison:
    """What a document says, its paths made absolute from the folder. Raises ScenarioError with every mistake in it."""
    parts: dict[str, type[Model]] = {"load": Load, "candidates": CandidateSpec}
    found = checked(document, Comparison, "a comparison is a mapping with `scenario` and `candidates`", parts)
    return found.model_copy(update={"candidates": {name: one.beside(folder) for name, one in found.candidates.items()}})
