"""A job: what a worker needs to compile the same script and to reach the same server, as plain data for a pipe."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from smtpbench.engine.connection import Route
from smtpbench.engine.pacing import Stage
from smtpbench.load.plan import LoadPlan
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.corpus import Corpora
from smtpbench.scenario.load import load_text
from smtpbench.session import script as s
from smtpbench.session.script import Script
from smtpbench.target import Trust, parse_target, tls_context


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is given.

    Attributes:
        path: Scenario file.
        text: Content of the scenario file when the run began.
        target: URL of the target.
        run_id: Identifier of the run; every message carries it.
        started: Start of the run, ISO 8601; goes into the messages.
        plan: Load of the whole run.
        family: Address family of `address`.
        address: Address that the first session used.
        server_name: Name for SNI and certificate.
        ca: PEM file of trusted certificates; None for those of the system.
        insecure: Whether certificates are not verified.
        certificate: PEM file of the client's certificate.
        key: PEM file of the client's key.
        message_bytes: Size of each message, octets; None for the size in the scenario.
        allow_files: Whether the scenario may name files outside its folder.
        domains: Recipient domains that are counted separately too.
        corpora: Pattern of message files → descriptor of the file that holds these messages, prepared.
        password: Password for AUTH; never shown.
    """

    path: str
    text: str
    target: str
    run_id: str
    started: str
    plan: LoadPlan
    family: int
    address: Any
    server_name: str | None = None
    ca: str | None = None
    insecure: bool = False
    certificate: str | None = None
    key: str | None = None
    message_bytes: int | None = None
    allow_files: bool = False
    domains: tuple[str, ...] = ()
    corpora: dict[str, int] = field(default_factory=dict)
    password: str | None = field(default=None, repr=False)

    def to_json(self) -> str:
        """Return the job as one line. It holds the password, so it goes to a worker's standard input and nowhere else."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that `to_json` wrote."""
        values = json.loads(text)
        plan = values.pop("plan")
        plan["stages"] = tuple(Stage(**stage) for stage in plan["stages"])
        address = values.pop("address")
        values["domains"] = tuple(values["domains"])
        return cls(**values, plan=LoadPlan(**plan), address=address if isinstance(address, str) else tuple(address))


def compile_job(job: Job, corpora: Corpora | None = None) -> Script:
    """Compile the scenario of a job. Raises ScenarioError.

    Args:
        job: The job.
        corpora: Where message files are kept, once they are prepared; None for those that the job refers to.
    """
    target = parse_target(job.target)
    options = CompileOptions(
        run_id=job.run_id,
        seed=job.plan.seed,
        lmtp=target.lmtp,
        implicit_tls=target.implicit_tls,
        starttls=target.starttls,
        credentials=bool(target.user) and job.password is not None,
        message_bytes=job.message_bytes,
        now=datetime.fromisoformat(job.started),
        corpora=Corpora(job.corpora) if corpora is None else corpora,
    )
    return compile_scenario(load_text(job.text, Path(job.path), allow_files=job.allow_files), options)


def needs_tls(script: Script) -> bool:
    """Return whether a script needs a TLS context."""
    return script.implicit_tls or any(step.kind in (s.STARTTLS, s.TLS) for step in script.steps)


def credentials_of(job: Job) -> tuple[str, str] | None:
    """Return user and password; None if one of them is missing."""
    user = parse_target(job.target).user
    return (user, job.password) if user and job.password is not None else None


def trust_of(job: Job) -> Trust:
    """Return the TLS settings of a job."""
    ca, certificate, key = (None if path is None else Path(path) for path in (job.ca, job.certificate, job.key))
    return Trust(ca, job.insecure, job.server_name, certificate, key)


def route_of(job: Job, script: Script) -> Route:
    """Return the way to the server. Raises UsageError for certificates that cannot be used."""
    context = tls_context(trust_of(job)) if needs_tls(script) else None
    quickack = job.plan.quickack and job.family != socket.AF_UNIX
    return Route(job.family, job.address, context, job.server_name, quickack)
