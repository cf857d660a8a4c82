"""The second part of a run: from the first connection to the end of the last worker.

Theory of operation
===================

1. One session connects, reads the banner and the EHLO reply, and quits (`preflight`). If it fails in a way that every other
   session would repeat, no worker is started.
2. The folder of the run is created. With `--hostile`, the process of the hostile sessions starts and learns the target.
3. The workers run: a single one in this process, several in processes of their own. About once a second, what they report is
   added to the totals, appended to the files, shown to the observer and compared with the thresholds.
4. The run ends when the workers have ended. If one is lost, the others go on, and the run is incomplete. A failed
   threshold, or the first SIGINT or SIGTERM, stops new arrivals; those in progress have the drain time to finish. A second
   signal closes all connections at once. What the server under test uses is measured from the end of the warm-up to the
   end of the last worker.
5. The hostile sessions repeat what they found, now that the target is otherwise idle.

Whatever ends the run, the record holds what was measured until then.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from smtpbench.errors import CannotRun
from smtpbench.load.hostile import HostileProcess
from smtpbench.load.job import Job, credentials_of
from smtpbench.load.lost_worker import LostWorker, planned_messages
from smtpbench.load.meter import Collector, Meter, run_in_steps
from smtpbench.load.preflight import PreflightResult, preflight
from smtpbench.load.prepare import PreparedRun
from smtpbench.load.request import Observer
from smtpbench.load.threshold_monitor import health_beside
from smtpbench.load.worker import START_DELAY_NS, Controls, Worker, make_worker
from smtpbench.load.worker_processes import WorkerProcesses
from smtpbench.measure.files import RunFiles
from smtpbench.measure.health import Health
from smtpbench.measure.server_usage import SERVER_CSV
from smtpbench.supervisor.server_record import SERVER_CSV_HEADER, ServerRecord
from smtpbench.target import resolve
from smtpbench.text import visible
from smtpbench.units import NS_PER_S

COMPLETED, INTERRUPTED, ABORTED, COULD_NOT_RUN = "completed", "interrupted", "aborted", "could-not-run"
#: A worker was lost; what it had reported is in the result.
INCOMPLETE = "incomplete"
#: How long before the measured window the sample of the server is taken that begins it: about what it takes.
_SAMPLE_NS = 3_000_000


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What was measured, and how the run ended.

    Attributes:
        prepared: What was run.
        status: COMPLETED, INTERRUPTED, ABORTED, INCOMPLETE or COULD_NOT_RUN.
        reason: Why the run did not complete; empty if it did.
        preflight: What the first session found; None if it could not be used.
        collector: Totals of all workers.
        end_ns: End of the last worker, of `time.monotonic_ns`.
        notes: Events that a reader of the result must know.
        hostile: Answer of the hostile sessions' process; None without hostile sessions.
        folder: Folder that holds the files of the run.
        write_errors: Why files of the run are incomplete or elsewhere; empty if they are not.
        sending_end_ns: When new arrivals were stopped early, of `time.monotonic_ns`; None if they were not.
        lost_workers: Workers that were lost, each with the messages of its share; None if that is a length of time.
        server: What the server under test used; None if nothing is known of it.
    """

    prepared: PreparedRun
    status: str
    reason: str
    preflight: PreflightResult | None
    collector: Collector
    end_ns: int
    notes: tuple[str, ...]
    hostile: dict[str, Any] | None
    folder: Path
    write_errors: str
    sending_end_ns: int | None = None
    lost_workers: tuple[tuple[LostWorker, int | None], ...] = ()
    server: ServerRecord | None = None

    @property
    def health(self) -> Health:
        """What the generator used, and who used its cores besides."""
        return health_beside(self.collector.health, self.server, self.prepared.request.plan)


async def execute(
    prepared: PreparedRun, observer: Observer, on_record: Callable[[RunRecord], None] = lambda record: None
) -> RunRecord:
    """Run the load and return what was measured.

    A target that cannot be used gives a record whose status is COULD_NOT_RUN.

    Args:
        prepared: What to run.
        observer: Is told of the progress.
        on_record: Called once the files of the run exist, before the load begins, and again after a death of the server.

    Raises:
        UsageError: The target is another machine, and the user did not say that it may be tested.
    """
    return await _Execution(prepared, observer, on_record).run()


class _Execution:
    """State of a run in progress."""

    def __init__(self, prepared: PreparedRun, observer: Observer, on_record: Callable[[RunRecord], None]) -> None:
        self._on_record = on_record
        request = prepared.request
        self._prepared = prepared
        self._plan = request.plan
        self._observer = observer
        self._controls = Controls()
        self._collector = Collector(request.plan, time.monotonic_ns())
        self._end_ns = self._collector.start_ns
        self._files: RunFiles | None = None
        self._preflight: PreflightResult | None = None
        self._hostile = HostileProcess(request.hostile) if request.hostile else None
        self._signals = 0
        self._abort_reason = ""
        self._notes: list[str] = []
        self._sending_end_ns: int | None = None
        self._lost: list[tuple[LostWorker, int | None]] = []
        self._server: ServerRecord | None = None

    async def run(self) -> RunRecord:
        try:
            job = await self._open_first_session()
        except CannotRun as error:
            return self._record(COULD_NOT_RUN, str(error))
        self._open_files()
        self._on_record(self._record(INTERRUPTED, ""))
        status, reason = await self._run_all(job)
        await self._flush()
        lost = "; ".join(worker.describe(planned) for worker, planned in self._lost)
        if self._signals:
            return self._record(INTERRUPTED, "by a signal" + (f"; {lost}" if lost else ""))
        if lost and status == COMPLETED:
            return self._record(INCOMPLETE, "; ".join(filter(None, (lost, self._abort_reason))))
        if self._abort_reason and status == COMPLETED:
            return self._record(ABORTED, self._abort_reason)
        return self._record(status, reason)

    def _record(self, status: str, reason: str) -> RunRecord:
        files = self._files
        return RunRecord(
            prepared=self._prepared,
            status=status,
            reason=reason,
            preflight=self._preflight,
            collector=self._collector,
            end_ns=self._end_ns,
            notes=tuple(self._notes),
            hostile=self._hostile.answer if self._hostile else None,
            folder=files.folder if files else self._prepared.request.out,
            write_errors=files.errors if files else "",
            sending_end_ns=self._sending_end_ns,
            lost_workers=tuple(self._lost),
            server=self._server,
        )

    def _open_files(self) -> None:
        request, server = self._prepared.request, self._prepared.request.server
        if server is None:
            self._files = RunFiles(request.out, self._prepared.started)
        else:
            files = self._files = RunFiles(request.out, self._prepared.started, SERVER_CSV_HEADER)
            self._server = ServerRecord(server, partial(files.append, SERVER_CSV))

    async def _open_first_session(self) -> Job:
        """Return the job with the address that answered. Raises CannotRun and UsageError."""
        request, job = self._prepared.request, self._prepared.job
        routes = resolve(request.target, self._prepared.tls, request.trust, authorized=request.authorized)
        credentials = credentials_of(job)
        found = await preflight(self._prepared.script, routes, request.target.url, request.plan.timeout_ns, credentials)
        self._preflight = found
        if found.warning:
            self._observer.notify(f"before the run, {visible(found.warning)}")
        route = found.route
        return replace(job, family=int(route.family), address=route.address, server_name=route.server_name)

    async def _run_all(self, job: Job) -> tuple[str, str]:
        """Run the workers and the hostile sessions; return status and reason."""
        status, reason = COMPLETED, ""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._handle_signals)
            try:
                if self._hostile is not None:
                    await self._start_hostile(self._hostile, job)
                if job.plan.workers == 1:
                    await self._run_here(job)
                else:
                    await self._run_in_processes(job)
                if self._hostile is not None:
                    await self._confirm_findings(self._hostile)
            except CannotRun as error:
                status, reason = COULD_NOT_RUN, str(error)
            finally:
                if self._hostile is not None:
                    await self._hostile.close()
            nursery.cancel_scope.cancel()
        return status, reason

    async def _start_hostile(self, hostile: HostileProcess, job: Job) -> None:
        request = self._prepared.request
        self._observer.notify("preparing the hostile sessions")
        await hostile.start(job, authorized=request.authorized, folder=request.out / "findings")

    async def _confirm_findings(self, hostile: HostileProcess) -> None:
        """Let the hostile sessions end and confirm their findings on the idle target; a second signal stops that."""
        self._observer.notify("the load has ended; confirming the findings of the hostile sessions")
        async with trio.open_nursery() as nursery:

            async def close_on_stop() -> None:
                await self._controls.stop.wait()
                await hostile.close()

            nursery.start_soon(close_on_stop)
            try:
                await hostile.finish()
            except CannotRun as error:
                self._notes.append(f"{error}; their findings are lost.")
            nursery.cancel_scope.cancel()

    async def _run_here(self, job: Job) -> None:
        worker = make_worker(job, 0)
        meter = Meter(0)

        async def on_tick(worker: Worker, now_ns: int, lag_ns: int) -> None:
            report = await meter.read(worker, now_ns, lag_ns)
            if worker.end_ns:  # after the report: what the last sample costs is not the load's
                self._end_server_window()
            await trio.lowlevel.checkpoint()
            await run_in_steps(self._collector.add_steps(report))
            await self._flush()

        async with trio.open_nursery() as nursery:
            self._restart(time.monotonic_ns() + START_DELAY_NS, nursery, meter.begin)
            await worker.run(self._collector.start_ns, self._controls, on_tick)
            nursery.cancel_scope.cancel()
        self._end_ns = worker.end_ns

    def _restart(self, start_ns: int, nursery: trio.Nursery, on_server_window: Callable[[], None] = lambda: None) -> None:
        """Set the time at which the workers begin, and begin the measured window of the server with that of the workers.

        Args:
            start_ns: When the workers begin, of `time.monotonic_ns`.
            nursery: Waits for the window of the server.
            on_server_window: Called when that window has begun.
        """
        self._collector.restart(start_ns)
        if self._server is not None:
            self._server.start_ns = start_ns
            at_ns = start_ns + self._plan.warmup_ns
            nursery.start_soon(self._begin_server_window, self._server, at_ns, on_server_window)

    @staticmethod
    async def _begin_server_window(server: ServerRecord, at_ns: int, on_begin: Callable[[], None]) -> None:
        await trio.sleep(max(0.0, (at_ns - _SAMPLE_NS - time.monotonic_ns()) / NS_PER_S))
        server.begin()
        on_begin()

    def _end_server_window(self) -> None:
        if self._server is not None and self._server.begun:
            self._server.end()

    async def _run_in_processes(self, job: Job) -> None:
        processes = WorkerProcesses(job, self._controls, self._collector.add)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush_every_second)
            await processes.run(partial(self._restart, nursery=nursery))
            self._end_server_window()
            nursery.cancel_scope.cancel()
        if not processes.started:  # raised here, because a nursery would wrap it
            raise CannotRun("every worker process failed: " + "; ".join(one.cause for one in processes.lost))
        self._end_ns = processes.end_ns or time.monotonic_ns()
        ended_early = self._controls.drain.is_set() or self._controls.stop.is_set()
        for worker in sorted(processes.lost, key=lambda one: one.number):
            planned = None
            if not ended_early:
                planned = await trio.to_thread.run_sync(planned_messages, job.plan, self._prepared.script, worker.number)
            self._lost.append((worker, planned))

    async def _flush_every_second(self) -> None:
        while True:
            await trio.sleep(1)
            await self._flush()

    async def _flush(self) -> None:
        """Write and show what was reported since the last call, and check the thresholds."""
        tick = self._collector.flush()
        if tick is None:
            return
        if self._server is not None:
            self._server.flush()
            if self._server.has_new_deaths():
                self._on_record(self._record(INTERRUPTED, ""))
        if self._files is not None:
            await run_in_steps(self._files.add_steps(tick))
        self._observer.tick(tick, self._collector.totals)
        if not self._abort_reason:
            self._check_thresholds(tick.end_s)
        if self._hostile is not None:
            await self._hostile.set_allowance(self._collector.with_hostile)

    def _check_thresholds(self, end_s: float) -> None:
        self._abort_reason = self._prepared.request.monitor.abort_reason(self._collector, self._plan, end_s, self._server)
        if self._abort_reason:
            self._observer.notify(f"stopping: {visible(self._abort_reason)}")
            self._stop_arrivals()

    def _stop_arrivals(self) -> None:
        self._sending_end_ns = self._sending_end_ns or time.monotonic_ns()
        self._controls.drain.set()

    async def _handle_signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                self._signals += 1
                if self._signals == 1:
                    drain_s = self._plan.drain_ns / NS_PER_S
                    self._observer.notify(
                        f"stopping: messages in progress have {drain_s:g} s to finish; press Ctrl-C again to stop at once"
                    )
                    self._stop_arrivals()
                else:
                    self._controls.stop.set()
