"""A worker: the share of one process in a run, from its first arrival to the end of its drain time.

A single worker runs inside the main process; several run in processes of their own (see `worker_processes`). A worker
reports what it measured once a second. Its controls stop it early.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.engine.shard import Shard
from smtpbench.load.domains import domain_of
from smtpbench.load.job import Job, compile_job, credentials_of, route_of
from smtpbench.load.plan import LoadPlan
from smtpbench.load.recorders import Recorders, RecordersByDomain
from smtpbench.load.scheduler import ArrivalScheduler, ClosedModel, OpenModel
from smtpbench.load.silence import ReplyMonitor
from smtpbench.session.context import SessionContext
from smtpbench.session.script import Script
from smtpbench.units import NS_PER_S

#: Interval at which the lag of the event loop is measured.
LAG_CHECK_S = 0.1
#: A worker reports after this many measurements of the lag.
LAG_CHECKS_PER_TICK = 10
#: Time from the start command to the first arrival: every worker receives the command before it, so that none begins late.
START_DELAY_NS = 100_000_000
#: During a run the garbage collector runs rarely: a session creates no cycles, and each collection pauses the loop.
GC_THRESHOLDS = (50_000, 20, 100)


@dataclass
class Controls:
    """Ways to end a run early.

    Attributes:
        drain: Set it to stop new arrivals and let those in progress finish.
        stop: Set it to close all connections.
    """

    drain: trio.Event = field(default_factory=trio.Event)
    stop: trio.Event = field(default_factory=trio.Event)


OnTick = Callable[["Worker", int, int], Awaitable[None]]


class Worker:
    """The share of one process in a plan.

    Args:
        script: Compiled scenario.
        route: Way to the server.
        plan: Load of the whole run.
        number: Number of this worker, from 0.
        credentials: User and password for AUTH.
        domains: Recipient domains that are counted separately too.

    Attributes:
        plan: Load of the whole run.
        recorders: What was counted.
        shard: Event loop of the connections.
        scheduler: Source of the arrivals; exists once the worker runs.
        reply_monitor: Notes when no reply comes.
        start_ns: When the first arrival may begin, of `time.monotonic_ns`.
        end_ns: When the last arrival was over, of `time.monotonic_ns`.
    """

    def __init__(
        self,
        script: Script,
        route: Route,
        plan: LoadPlan,
        number: int,
        credentials: tuple[str, str] | None,
        domains: Sequence[str] = (),
    ) -> None:
        self.plan = plan
        self.recorders = (
            RecordersByDomain(script.reply_count, domains, domain_of(script), lmtp=script.lmtp)
            if domains
            else Recorders(script.reply_count, lmtp=script.lmtp)
        )
        self.shard = Shard(alone=True, note_read_delays=True)
        self.start_ns = 0
        self.end_ns = 0
        self.reply_monitor = ReplyMonitor(self.recorders)
        self._measure_ns = 0
        self._script = script
        self._route = route
        self._number = number
        self._credentials = credentials
        self._finished = trio.Event()
        self.scheduler: ArrivalScheduler

    async def run(self, start_ns: int, controls: Controls, on_tick: OnTick) -> None:
        """Issue the arrivals of this worker, and return when all are over or interrupted.

        Args:
            start_ns: When the first arrival may begin, of `time.monotonic_ns`.
            controls: Ways to end the run early.
            on_tick: Awaited about once a second and once at the end, with the worker, the time (ns) and the longest lag of
                the event loop since the last call (ns).
        """
        self.start_ns = start_ns
        self._measure_ns = start_ns + self.plan.warmup_ns
        self.reply_monitor = ReplyMonitor(self.recorders, start_ns)
        self.recorders.set_phases(self._measure_ns, self._measure_ns + self.plan.baseline_ns)
        self.scheduler = self._make_scheduler()
        self.scheduler.context = SessionContext(self._script, self.scheduler, self.plan.timeout_ns, self._credentials)
        thresholds = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLDS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.shard.run)
            nursery.start_soon(self._tick, on_tick)
            nursery.start_soon(self._interrupt_after_drain)
            nursery.start_soon(self._handle_drain, controls)
            nursery.start_soon(self._handle_stop, controls)
            self.shard.call_at(start_ns, self.scheduler.start)
            if self.plan.sending_ns != api.NEVER:
                self.shard.call_at(self._measure_ns + self.plan.sending_ns, lambda now_ns: self.recorders.end_sending())
            await self._finished.wait()
            self.end_ns = time.monotonic_ns()
            self.reply_monitor.look(self.end_ns, self.scheduler.sessions)
            nursery.cancel_scope.cancel()
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        await on_tick(self, self.end_ns, 0)

    def _make_scheduler(self) -> ArrivalScheduler:
        plan, number = self.plan, self._number
        shared = (self.shard, self._route, plan.connections_of(number), self.recorders, self._finished.set)
        if plan.open_model:
            return OpenModel(*shared, arrivals=plan.schedule(number), start_ns=self.start_ns, drop=plan.drop)
        return ClosedModel(
            *shared,
            numbers=plan.numbers(number),
            end_ns=api.NEVER if plan.issuing_ns == api.NEVER else self.start_ns + plan.issuing_ns,
            warmup_numbers=plan.warmup_numbers(number) if plan.warmup_ns else None,
            measure_ns=self._measure_ns,
        )

    async def _interrupt_after_drain(self) -> None:
        """Interrupt the sessions that have not finished when the drain time after the last arrival is over."""
        if self.plan.issuing_ns != api.NEVER:
            await self._sleep_until(self.start_ns + self.plan.issuing_ns + self.plan.drain_ns)
            self._interrupt()

    async def _handle_drain(self, controls: Controls) -> None:
        await controls.drain.wait()
        self.recorders.end_sending()
        self.scheduler.stop_arrivals(time.monotonic_ns())
        await trio.sleep(self.plan.drain_ns / NS_PER_S)
        self._interrupt()

    async def _handle_stop(self, controls: Controls) -> None:
        await controls.stop.wait()
        self._interrupt()

    def _interrupt(self) -> None:
        for session in self.scheduler.interrupt(time.monotonic_ns()):
            self.shard.stop(session.connection)
        self._finished.set()

    async def _tick(self, on_tick: OnTick) -> None:
        await self._sleep_until(self.start_ns)
        checks, lag_ns = 0, 0
        due = trio.current_time()
        while True:
            due += LAG_CHECK_S
            await trio.sleep_until(due)
            lag_ns = max(lag_ns, round((trio.current_time() - due) * NS_PER_S))
            self.reply_monitor.look(time.monotonic_ns(), self.scheduler.sessions)
            checks += 1
            if checks % LAG_CHECKS_PER_TICK == 0:
                with trio.CancelScope(shield=True):  # what was taken from the recorders must reach the report
                    await on_tick(self, time.monotonic_ns(), lag_ns)
                lag_ns = 0

    @staticmethod
    async def _sleep_until(when_ns: int) -> None:
        await trio.sleep(max(0.0, (when_ns - time.monotonic_ns()) / NS_PER_S))


def make_worker(job: Job, number: int) -> Worker:
    """Return worker `number` of a job, ready to run. Raises ScenarioError and UsageError.

    All that costs CPU time before the first arrival is done here, so that it is not counted as the run's.
    """
    script = compile_job(job)
    worker = Worker(script, route_of(job, script), job.plan, number, credentials_of(job), job.domains)
    # without freeze, every collection would traverse everything that was imported, and find nothing
    gc.collect()
    gc.freeze()
    return worker
