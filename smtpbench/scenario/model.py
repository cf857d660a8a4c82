"""Models of scenario files: what the keys may hold. They give the messages of the reader and `smtpbench schema`.

Each quantity is an integer or a float in the unit that its name ends with, parsed from the text that users write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from smtpbench.scenario.content import Message, Value
from smtpbench.scenario.fields import Address, DurationNs, Model, RatesPerS, ThresholdText
from smtpbench.scenario.steps import ScenarioStep


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
    timeout: DurationNs | None = Field(
        None,
        description="Limit for each wait: to connect, for one reply, for progress while a message is sent.",
    )
    workers: int | None = Field(None, ge=1, le=256, description="Processes that share the load.")
    seed: int | None = Field(None, ge=0, description="Random seed; the same seed repeats the run.")


class GrowthMetadata(Model):
    """What a server holds more and more of, or uses for nothing, in a finding of growth."""

    resource: Literal["memory", "descriptors", "threads", "cpu"] = Field(description="What grows; `cpu` for a busy loop.")
    per_session: int = Field(1, alias="per-session", ge=1, description="Cases in one session.")
    each: float = Field(0.0, description="By how much it grows for each case: bytes, descriptors or threads.")


class FindingMetadata(Model):
    """The finding that a scenario shows. `check` and `fuzz` write it, `replay` reads it."""

    version: Literal[1] = Field(description="Version of this mapping.")
    rule: str = Field(description="Name of the rule that was broken.")
    severity: str = Field("", description="Severity of the violation.")
    actual: str = Field("", description="What the server did when the finding was made.")
    by: Literal["check", "fuzz"] = Field(description="Command that made the finding.")
    cause: str = Field("", description="What distinguishes it from other findings of the same rule.")
    take: int = Field(0, ge=0, description="Number of the dialogue among those of the rule, from 0.")
    reproducibility: str = Field("", description="In how many attempts it was seen, such as `2 of 2`.")
    recipient: Address = Field("", description="Recipient that was used.")
    sender: Address = Field("", description="Envelope sender that was used.")
    seed: int | None = Field(None, description="Random seed of the fuzz campaign.")
    found: str = Field("", description="When it was found, ISO 8601.")
    target: str = Field("", description="URL of the target.")
    peer: str = Field("", description="URL of the second target, if two were compared.")
    banner: str = Field("", description="Greeting of the target.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of smtpbench and of Python.")
    death: dict[str, Any] | None = Field(
        None, description="How the server's process ended, like an element of `server.deaths` of a result."
    )
    log_lines: list[str] = Field(
        default_factory=list, description="Error lines in the server's log while the session ran alone."
    )
    growth: GrowthMetadata | None = Field(None, description="What grows, if the finding is that the server grows.")
    dialogue: list[str] = Field(default_factory=list, description="The dialogue; control characters are spelled out.")


class FixtureFile(Model):
    """Facts about a target for `check`, `fuzz` and `replay`. Options of the same name override them."""

    recipient: Address = Field("", description="A recipient address that the server accepts.")
    sender: Address = Field("", description="Envelope sender (MAIL FROM).")
    aliases: list[Address] = Field(
        default_factory=list, description="Further recipient addresses that the server accepts, for `fuzz`."
    )
    unknown_recipient: Address = Field(
        "", alias="unknown-recipient", description="A recipient address that the server refuses, for `fuzz`."
    )
    target: str | None = Field(None, description="URL of the target, such as `smtp://user@127.0.0.1:2525`.")
    password_file: str | None = Field(
        None, alias="password-file", description="File whose first line is the password; its path is relative to this file."
    )
    ca: str | None = Field(
        None, description="PEM file of the certificate authorities to trust; its path is relative to this file."
    )
    insecure: bool = Field(False, description="Accept any certificate.")

    def with_absolute_paths(self, folder: Path) -> Self:
        """Return a copy whose paths are absolute; `folder` is the folder to which they are relative."""
        paths = {name: getattr(self, name) for name in ("password_file", "ca")}
        return self.model_copy(update={name: str(folder / path) for name, path in paths.items() if path})


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
