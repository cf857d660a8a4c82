"""Comparison files: the candidates, how each is started and reached, and what is compared.

name: with TLS or without
scenario: relay                   # a shipped scenario, or a file relative to this one
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

from smtpbench.scenario.fields import DurationNs, Model, Share, SizeBytes, quantity
from smtpbench.scenario.file_access import FileAccess
from smtpbench.scenario.load import check_files, validate_document
from smtpbench.scenario.model import FixtureFile, Load
from smtpbench.scenario.reader import Document, parse, read_text
from smtpbench.threshold import Metric, parse_metric

#: Metrics of a comparison that names none: throughput, latency of messages and transactions, and failures.
DEFAULT_METRICS = ("throughput", "message.p50", "message.p99", "transaction.p50", "transaction.p99", "rejected", "failed")
#: Metric that is compared as well, without being asked for, where all candidates have it.
SERVER_METRIC = "server.cpu_ms_per_message"
REPEATS = 12

#: Name of a candidate, which is also the name of its folders.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,39}$")]
MetricText = Annotated[
    Metric,
    quantity(parse_metric),
    WithJsonSchema({"x-type": "metric", "type": "string", "examples": ["throughput", "message.p99", "failed"]}),
]


class CandidateSpec(FixtureFile):
    """One candidate: its target, how it is started, and how its load differs."""

    about: str = Field("", description="One sentence on what is different about this candidate.")
    start: str = Field("", description="Shell command that runs the server, in the folder of this file.")
    stop: str = Field("", description="Shell command that stops the server, if ending the process of `start` is not enough.")
    ready: DurationNs = Field(
        30 * 10**9, description="Time within which the server must greet.", json_schema_extra={"default": "30s"}
    )
    ready_when: str = Field(
        "greets",
        alias="ready-when",
        description="What makes it ready: `greets`, `port` (it accepts connections), `text:TEXT` (in its output) or "
        "`file:PATH` (exists).",
    )
    server_log: list[str] = Field(
        default_factory=list, alias="server-log", description="Log files of the server to watch, relative to this file."
    )
    log_pattern: str = Field(
        "", alias="log-pattern", description="Regular expression for lines of its output and logs that speak of an error."
    )
    watch: str = Field(
        "",
        description="Processes of a server that runs already: `pid:N`, `cgroup:PATH`, `unit:NAME` or `none`; without it, "
        "the process that listens on a loopback target.",
    )
    load: Load = Field(default_factory=Load, description="What differs from the load of the comparison.")  # type: ignore[arg-type]  # pydantic fills in the defaults
    size: SizeBytes | None = Field(None, description="Message size, instead of that of the comparison.")


class Comparison(Model):
    """A comparison of servers or of settings."""

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
        [parse_metric(text) for text in DEFAULT_METRICS],
        min_length=1,
        description="Metrics to compare. Without this key, the CPU time of the server for a message "
        f"(`{SERVER_METRIC}`) is compared too, where it is known of all candidates.",
        json_schema_extra={"default": list(DEFAULT_METRICS)},
    )
    check: bool = Field(False, description="Check each candidate against the protocol rules as well.")
    candidates: dict[Name, CandidateSpec] = Field(
        min_length=2, description="The servers to compare, by name. The others are compared with the first."
    )


def overlaid(load: Load, other: Load) -> Load:
    """Return a load with the settings of another one over it. Length and rate are each taken from one of them only."""
    given = {name: getattr(other, name) for name in other.model_fields_set}
    if given.keys() & {"messages", "duration", "stages"}:
        given = {"messages": None, "duration": None, **given}
    if given.keys() & {"rate", "stages"}:
        given = {"rate": None, "stages": None, **given}
    return load.model_copy(update=given)


def read_comparison(path: Path) -> Document:
    """Read a comparison file without validating it. Raises ScenarioError if it is not YAML."""
    return parse(read_text(path), str(path))


def validate_comparison(document: Document, folder: Path, *, allow_files: bool = False) -> Comparison:
    """Return the comparison in a document.

    Args:
        document: The document.
        folder: Folder to which its paths are relative; they become absolute.
        allow_files: Whether it may name files outside this folder.

    Raises:
        ScenarioError: The document has mistakes; the error holds all of them.
    """
    model_by_key: dict[str, type[Model]] = {"load": Load, "candidates": CandidateSpec}
    comparison = validate_document(
        document,
        Comparison,
        "a comparison needs the keys `scenario` and `candidates`",
        model_by_key,
    )
    fixtures: dict[tuple[str, ...], FixtureFile] = {("candidates", name): one for name, one in comparison.candidates.items()}
    check_files(document, fixtures, FileAccess(folder.resolve(), allow_files))
    candidates = {name: one.with_absolute_paths(folder) for name, one in comparison.candidates.items()}
    return comparison.model_copy(update={"candidates": candidates})
