"""The first part of a run: check everything that can be checked without the network."""

from __future__ import annotations

import math
import secrets
import ssl
from dataclasses import dataclass, field, replace
from datetime import datetime

from smtpbench.errors import CannotRun
from smtpbench.load.job import Job, compile_job, needs_tls
from smtpbench.load.plan import LoadPlan
from smtpbench.load.request import RunRequest
from smtpbench.measure.health import raise_descriptor_limit
from smtpbench.scenario.corpus import Corpora, ReportFiles
from smtpbench.scenario.domains import possible_domains
from smtpbench.session.script import Script
from smtpbench.target import tls_context
from smtpbench.text import plural

#: Open files of a process that are not connections: files, pipes, epoll descriptors.
SPARE_DESCRIPTORS = 64


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run that can begin.

    Attributes:
        request: What was asked for.
        started: Start of the run, with time zone.
        job: Job of the workers; its address is unknown until the first connection.
        script: Compiled scenario.
        tls: TLS context of the client; None if the script does not use TLS.
        corpora: The prepared message files; close them after the run.
    """

    request: RunRequest
    started: datetime
    job: Job
    script: Script
    tls: ssl.SSLContext | None
    corpora: Corpora = field(default_factory=Corpora)


def prepare(request: RunRequest, started: datetime, report_files: ReportFiles = lambda done, total: None) -> PreparedRun:
    """Compile the scenario and check it, the thresholds, the certificates and the limits of this machine.

    Args:
        request: What was asked for.
        started: Start of the run.
        report_files: Receives the progress of preparing message files.

    Raises:
        UsageError: The scenario, a threshold or a certificate cannot be used.
        CannotRun: This machine does not allow enough open files.
    """
    job = _make_job(request, started)
    corpora = Corpora(report=report_files)
    script = compile_job(job, corpora)
    request.monitor.check_metrics(script)
    if request.monitor.domains:
        request.monitor.check_domains(possible_domains(request.file, job.run_id))
    _check_descriptors(request.plan)
    tls = tls_context(request.trust) if needs_tls(script) else None
    return PreparedRun(request, started, replace(job, corpora=corpora.descriptors), script, tls, corpora)


def _make_job(request: RunRequest, started: datetime) -> Job:
    trust = request.trust
    ca, certificate, key = (None if path is None else str(path) for path in (trust.ca, trust.certificate, trust.key))
    return Job(
        path=str(request.file.path),
        text=request.file.text,
        target=request.target.url,
        run_id=f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        started=started.isoformat(),
        plan=request.plan,
        family=0,
        address="",
        ca=ca,
        insecure=trust.insecure,
        certificate=certificate,
        key=key,
        message_bytes=request.message_bytes,
        allow_files=request.file.allow_files,
        domains=request.monitor.domains,
        password=request.password,
    )


def _check_descriptors(plan: LoadPlan) -> None:
    limit = raise_descriptor_limit()
    needed = math.ceil(plan.connections / plan.workers) + SPARE_DESCRIPTORS
    if needed > limit:
        raise CannotRun(
            f"{plural(plan.connections, 'connection')}: each worker needs {needed:,} open files, and this machine allows "
            f"{limit:,} per process; raise the hard limit (`ulimit -Hn`), or use fewer connections or more --workers"
        )
