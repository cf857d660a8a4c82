"""A run, from the scenario to the saved result.

Everything is checked before the first connection; one session goes ahead (`preflight`); then the workers run. Whatever
ends the run (its plan, Ctrl-C, a disk that is full, a target that is gone), what was measured until then is saved.
"""

from __future__ import annotations

import math
import secrets
import signal
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import trio

from smtpbench.engine.api import NEVER
from smtpbench.errors import CannotRun
from smtpbench.load.hostile import Hostile, section
from smtpbench.load.job import Job, compile_job, credentials_of, prepare, speaks_tls
from smtpbench.load.meter import Collector, Meter, run_in_steps
from smtpbench.load.plan import LoadPlan
from smtpbench.load.preflight import PreflightResult, preflight
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.load.worker import HEAD_START_NS, Controls, Worker
from smtpbench.load.worker_processes import WorkerProcesses
from smtpbench.measure import result as results
from smtpbench.measure.files import RunFiles, Tick
from smtpbench.measure.health import raise_descriptor_limit
from smtpbench.measure.recorder import Interval
from smtpbench.scenario.domains import possible_domains
from smtpbench.scenario.load import ScenarioFile
from smtpbench.session.script import Script
from smtpbench.smtp.reply import ReplyReader
from smtpbench.target import Target, Trust, resolve, tls_context
from smtpbench.text import visible
from smtpbench.units import NS_PER_S

#: Descriptors that are not connections: files, pipes, epolls.
SPARE_DESCRIPTORS = 64

COMPLETED, INTERRUPTED, ABORTED, COULD_NOT_RUN = "completed", "interrupted", "aborted", "could-not-run"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for, checked as far as it can be without the network.

    out: the run's folder. password: for AUTH. authorized: whether the target may be another machine. hostile: the share of
    sessions that are mutated, from 0 to 1. watch: the thresholds.
    """

    file: ScenarioFile
    target: Target
    plan: LoadPlan
    out: Path
    trust: Trust = field(default_factory=Trust)
    password: str | None = field(default=None, repr=False)
    authorized: bool = False
    message_bytes: int | None = None
    hostile: float = 0.0
    watch: ThresholdMonitor = field(default_factory=ThresholdMonitor)


class Observer(Protocol):
    """Who watches a run."""

    def tick(self, tick: Tick, totals: Interval) -> None:
        """About a second has passed."""

    def notify(self, text: str) -> None:
        """Something happened that the user should know now."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A result, and where it was saved: None where no disk took it. interrupted: by a signal.

    findings: how many of the hostile sessions' findings count.
    """

    result: dict[str, Any]
    saved: Path | None
    interrupted: bool
    findings: int = 0


async def run(request: RunRequest, observer: Observer) -> RunResult:
    """Do what is asked. Raises UsageError and CannotRun; the latter after a result that says so was saved."""
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    job = Job(
        path=str(request.file.path), text=request.file.text, target=request.target.url, run_id=run_id,
        started=started.isoformat(), plan=request.plan, family=0, address="", password=request.password,
        insecure=request.trust.insecure, message_bytes=request.message_bytes, domains=request.watch.domains,
        **{name: None if (path := getattr(request.trust, name)) is None else str(path)
           for name in ("ca", "certificate", "key")},
    )  # fmt: skip
    script = compile_job(job)
    request.watch.check(script)
    if request.watch.domains:
        request.watch.check_domains(possible_domains(request.file, run_id))
    _check_descriptors(request.plan)
    context = tls_context(request.trust) if speaks_tls(script) else None
    run = _Run(request, script, started, observer)
    try:
        routes = resolve(request.target, context, request.trust, authorized=request.authorized)
        found = await preflight(script, routes, request.target.url, request.plan.timeout_ns, credentials_of(job))
    except CannotRun as error:
        run.save(COULD_NOT_RUN, str(error), run_id, None)
        raise
    if found.trouble:
        observer.notify(f"before the run, {visible(found.trouble)}")
    job = replace(job, family=int(found.route.family), address=found.route.address, server_name=found.route.server_name)
    return await run.go(job, found)


def _check_descriptors(plan: LoadPlan) -> None:
    limit = raise_descriptor_limit()
    wanted = math.ceil(plan.connections / plan.workers) + SPARE_DESCRIPTORS
    if wanted > limit:
        raise CannotRun(
            f"{plan.connections:,} connections need {wanted:,} open files in one process, and this machine allows "
            f"{limit:,}: raise the hard limit (`ulimit -Hn`), or take fewer connections or more --workers"
        )


class _Run:
    """A run under way."""

    def __init__(self, request: RunRequest, script: Script, started: datetime, observer: Observer) -> None:
        self._request = request
        self._script = script
        self._started = started
        self._observer = observer
        self._controls = Controls()
        self._collector = Collector(request.plan, time.monotonic_ns())
        self._files: RunFiles | None = None
        self._signals = 0
        self._broken = ""
        self._notes: list[str] = []
        self._end_ns = 0
        self._hostile = Hostile(request.hostile) if request.hostile else None

    async def go(self, job: Job, found: PreflightResult) -> RunResult:
        """Run the workers, then save."""
        self._files = RunFiles(self._request.out, self._started)
        self._end_ns = self._collector.start_ns
        outcome, reason = COMPLETED, ""
        if self._hostile is not None:
            self._observer.notify("hostile sessions are prepared")
        async with trio.open_nursery() as nursery:
            await nursery.start(self._mind_signals)
            try:
                if self._hostile is not None:
                    folder = self._request.out / "findings"
                    await self._hostile.start(job, authorized=self._request.authorized, folder=folder)
                if job.plan.workers == 1:
                    await self._alone(job)
                else:
                    await self._together(job)
                if self._hostile is not None:
                    await self._confirm(self._hostile)
            except CannotRun as error:
                outcome, reason = COULD_NOT_RUN, str(error)
            finally:
                if self._hostile is not None:
                    await self._hostile.close()
            nursery.cancel_scope.cancel()
        await self._flush()
        if self._signals:
            outcome, reason = INTERRUPTED, "by a signal"
        elif self._broken and outcome == COMPLETED:
            outcome, reason = ABORTED, self._broken
        finished = self.save(outcome, reason, job.run_id, found)
        if outcome == COULD_NOT_RUN:
            raise CannotRun(reason)
        return finished

    async def _confirm(self, hostile: Hostile) -> None:
        """The hostile sessions end; what they found is said again while nothing else is. A second signal cuts that off."""
        self._observer.notify("the load is over; what the hostile sessions found is tried again")
        async with trio.open_nursery() as nursery:

            async def kill() -> None:
                await self._controls.stop.wait()
                await hostile.close()

            nursery.start_soon(kill)
            try:
                await hostile.end()
            except CannotRun as error:
                self._notes.append(f"{error}; what they found is lost.")
            nursery.cancel_scope.cancel()

    async def _alone(self, job: Job) -> None:
        script, route, credentials = prepare(job)
        worker = Worker(script, route, job.plan, 0, credentials, job.domains)
        worker.make_ready()
        meter = Meter(0)

        async def tick(worker: Worker, now_ns: int, lag_ns: int) -> None:
            report = await meter.read(worker, now_ns, lag_ns)
            await trio.lowlevel.checkpoint()
            await run_in_steps(self._collector.add_steps(report))
            await self._flush()

        self._collector.restart(time.monotonic_ns() + HEAD_START_NS)
        await worker.run(self._collector.start_ns, self._controls, tick)
        self._end_ns = worker.end_ns

    async def _together(self, job: Job) -> None:
        fleet = WorkerProcesses(job, self._controls, self._collector.add)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush_now_and_then)
            await fleet.run(self._collector.restart)
            nursery.cancel_scope.cancel()
        self._end_ns = fleet.end_ns or time.monotonic_ns()
        self._notes += fleet.failures

    async def _flush_now_and_then(self) -> None:
        while True:
            await trio.sleep(1)
            await self._flush()

    async def _flush(self) -> None:
        tick = self._collector.flush()
        if tick is not None:
            if self._files is not None:
                await run_in_steps(self._files.add_steps(tick))
            self._observer.tick(tick, self._collector.totals)
            if not self._broken:
                self._broken = self._request.watch.failed(self._collector, self._request.plan, tick.end_s)
                if self._broken:
                    self._observer.notify(f"ending: {visible(self._broken)}")
                    self._controls.drain.set()
            if self._hostile is not None:
                await self._hostile.follow(self._collector.beside)

    async def _mind_signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                self._signals += 1
                if self._signals == 1:
                    drain_s = self._request.plan.drain_ns / NS_PER_S
                    self._observer.notify(f"ending: what is under way has {drain_s:g} s; press Ctrl-C again to stop now")
                    self._controls.drain.set()
                else:
                    self._controls.stop.set()

    def save(self, outcome: str, reason: str, run_id: str, found: PreflightResult | None) -> RunResult:
        """Build the result and write it where there is room for it."""
        result = self._build(outcome, reason, run_id, found)
        saved: Path | None = None
        trouble = self._files.trouble if self._files else ""
        if trouble:
            self._observer.notify(f"not everything could be saved: {visible(trouble)}")
        try:
            saved = results.save(result, self._files.folder if self._files else self._request.out)
            if self._hostile is not None:
                for place in ("findings", "candidates"):
                    results.save_findings(self._hostile.answer.get(place, []), saved.parent / place)
        except OSError as error:
            self._observer.notify(f"the result could not be saved: {visible(error.strerror or str(error))}")
        else:
            if saved.parent != self._request.out:
                self._observer.notify(f"{self._request.out} could not be written; the result is in {saved}")
        new = self._hostile.answer.get("new", 0) if self._hostile is not None else 0
        return RunResult(result, saved, outcome == INTERRUPTED, new)

    def _build(self, outcome: str, reason: str, run_id: str, found: PreflightResult | None) -> dict[str, Any]:
        request, collector = self._request, self._collector
        window_ns = max(0, self._end_ns - collector.start_ns - request.plan.warmup_ns)
        collector.totals.examples = {visible(what): visible(said) for what, said in collector.totals.examples.items()}
        return (
            results.build(
                run_id=run_id,
                started=self._started.isoformat(timespec="milliseconds"),
                scenario=request.file.to_data(),
                target={
                    "url": request.target.url,
                    "banner": visible(found.banner.rstrip(b"\r\n")) if found else "",
                    "ehlo": _lines(found.ehlo) if found else [],
                },
                load=_load(request.plan, request.message_bytes),
                seed=request.plan.seed,
                outcome={"status": outcome, "reason": visible(reason)},
                totals=collector.totals,
                warmup=collector.warmup,
                health=collector.health,
                window_s=window_ns / NS_PER_S,
                notes=[*_caveats(request.plan, self._script, found), *self._notes],
            )
            | {"thresholds": request.watch.verdicts(collector, request.plan, window_ns / NS_PER_S)}
            | self._beside()
            | self._apart(window_ns / NS_PER_S)
        )

    def _apart(self, window_s: float) -> dict[str, Any]:
        """What a run whose thresholds name domains has more."""
        counted = {domain: self._collector.domains.get(domain, Interval()) for domain in self._request.watch.domains}
        return {"domains": results.domains_section(counted, window_s)} if counted else {}

    def _beside(self) -> dict[str, Any]:
        """What a run with hostile sessions has more."""
        collector, plan = self._collector, self._request.plan
        if self._hostile is None:
            return {}
        ended_ns = self._end_ns - collector.start_ns - plan.warmup_ns
        quiet_ns = min(max(0, ended_ns), plan.baseline_ns)
        windows_s = quiet_ns / NS_PER_S, max(0, ended_ns - quiet_ns) / NS_PER_S
        parts = collector.baseline, collector.beside
        return {"hostile": section(self._hostile.share, self._hostile.answer, *parts, windows_s)}


def _lines(raw: bytes) -> list[str]:
    return [visible(line) for reply in ReplyReader().feed(raw) for line in reply.lines]


def _load(plan: LoadPlan, message_bytes: int | None) -> dict[str, Any]:
    """The plan as the result tells it."""
    stages = [
        {"duration_s": s.duration_ns / NS_PER_S, "rate_from_per_s": s.rate_from_per_s, "rate_to_per_s": s.rate_to_per_s}
        for s in plan.stages
    ]
    return {
        "model": "open" if plan.open_model else "closed",
        "connections": plan.connections,
        "arrivals": plan.arrivals,
        "duration_s": None if plan.issuing_ns == NEVER else (plan.issuing_ns - plan.warmup_ns) / NS_PER_S,
        "stages": stages,
        "arrival_process": ("poisson" if plan.poisson else "uniform") if plan.open_model else None,
        "when_busy": ("drop" if plan.drop else "wait") if plan.open_model else None,
        "warmup_s": plan.warmup_ns / NS_PER_S,
        "drain_s": plan.drain_ns / NS_PER_S,
        "timeout_s": plan.timeout_ns / NS_PER_S,
        "workers": plan.workers,
        "message_bytes": message_bytes,
    }


def _caveats(plan: LoadPlan, script: Script, found: PreflightResult | None) -> list[str]:
    """What a reader must know to read the figures right."""
    notes = []
    if not plan.open_model:
        notes.append(
            "Closed model: a slow server is sent less, so its latency is not safe from coordinated omission; "
            "use a rate for latency."
        )
    if found and found.trouble:
        notes.append(f"Before the run, {visible(found.trouble)}.")
    pipelines = any(len(step.expected_replies) > 1 for step in script.steps)
    if found and found.ehlo and pipelines and b"PIPELINING" not in found.ehlo.upper():
        notes.append("The scenario pipelines, and the server did not offer PIPELINING.")
    return notes
