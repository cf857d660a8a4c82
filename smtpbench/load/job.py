"""A job: all that a worker must know to make the same script and reach the same server; plain data for a pipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from smtpbench.engine.connection import Route
from smtpbench.engine.pacing import Stage
from smtpbench.load.plan import LoadPlan
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import load_text
from smtpbench.session import script as s
from smtpbench.session.script import Script
from smtpbench.target import Trust, parse_target, tls_context


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is given.

    path, text: the scenario file and what stood in it when the run began. started: ISO 8601; goes into the messages.
    family, address, server_name: where to connect, found once for the run.
    message_bytes: overrides the message's size. domains: those whose arrivals are counted apart too. password: for AUTH;
    never shown.
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
    domains: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)

    def to_json(self) -> str:
        """One line; it holds the password, so it goes to a worker's standard input and nowhere else."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job of a line of `to_json`."""
        values = json.loads(text)
        plan = values.pop("plan")
        plan["stages"] = tuple(Stage(**stage) for stage in plan["stages"])
        address = values.pop("address")
        values["domains"] = tuple(values["domains"])
        return cls(**values, plan=LoadPlan(**plan), address=address if isinstance(address, str) else tuple(address))


def compile_job(job: Job) -> Script:
    """The job's script. Raises ScenarioError."""
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
    )
    return compile_scenario(load_text(job.text, Path(job.path)), options)


def speaks_tls(script: Script) -> bool:
    """Whether a script needs a TLS context."""
    return script.implicit_tls or any(step.kind in (s.STARTTLS, s.TLS) for step in script.steps)


def credentials_of(job: Job) -> tuple[str, str] | None:
    """User and password, where the job has both."""
    user = parse_target(job.target).user
    return (user, job.password) if user and job.password is not None else None


def trust_of(job: Job) -> Trust:
    """How the job checks TLS."""
    paths = [None if path is None else Path(path) for path in (job.ca, job.certificate, job.key)]
    return Trust(paths[0], job.insecure, job.server_name, paths[1], paths[2])


def prepare(job: Job) -> tuple[Script, Route, tuple[str, str] | None]:
    """Everything a worker needs: script, route and credentials. Raises ScenarioError or UsageError."""
    script = compile_job(job)
    context = tls_context(trust_of(job)) if speaks_tls(script) else None
    return script, Route(job.family, job.address, context, job.server_name), credentials_of(job)
