"""A worker: one process's share of a run, from its first arrival to its drained end.

It runs inside the main process where there is one worker, and in a process of its own where there are more (see
`fleet`). It tells what it measured once a second, and it can be told to drain or to stop.
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
from smtpbench.load.plan import LoadPlan
from smtpbench.load.recorders import Recorders, RecordersByDomain
from smtpbench.load.scheduler import ArrivalScheduler, ClosedModel, OpenModel
from smtpbench.session.context import SessionContext
from smtpbench.session.script import Script
from smtpbench.units import NS_PER_S

#: How often the event loop's lag is looked at, and how many looks make a tick.
PULSE_S = 0.1
PULSES_A_TICK = 10
#: From the word "go" to the first arrival: time for every worker to hear it and to tidy up, so that nobody begins late.
HEAD_START_NS = 100_000_000
#: While a run goes on the collector looks for cycles rarely: a session makes none, and each look is a pause.
GC_THRESHOLDS = (50_000, 20, 100)


@dataclass
class Controls:
    """How a run is ended before its time.

    drain: issue nothing more, let what is under way end. stop: cut it off.
    """

    drain: trio.Event = field(default_factory=trio.Event)
    stop: trio.Event = field(default_factory=trio.Event)


OnTick = Callable[["Worker", int, int], Awaitable[None]]


class Worker:
    """One process's share of a plan.

    domains: those whose arrivals are counted apart too. books: what was counted. The times are of `time.monotonic_ns`.
    """

    def __init__(
        self, script: Script, route: Route, plan: LoadPlan, worker: int, credentials: tuple[str, str] | None,
        domains: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.plan = plan
        self.recorders = (
            RecordersByDomain(script.reply_count, domains, domain_of(script)) if domains else Recorders(script.reply_count)
        )
        self.shard = Shard(alone=True)
        self.start_ns = 0
        self.end_ns = 0
        self._measure_ns = 0
        self._script = script
        self._route = route
        self._number = worker
        self._credentials = credentials
        self._finished = trio.Event()
        self.scheduler: ArrivalScheduler

    @staticmethod
    def make_ready() -> None:
        """What costs CPU before the run and is no part of it: call it before the run's CPU is counted."""
        # the collector would walk over everything that was imported, again and again, and find nothing
        gc.collect()
        gc.freeze()

    def _make_scheduler(self) -> ArrivalScheduler:
        plan, worker = self.plan, self._number
        shard, route, connections = self.shard, self._route, plan.connections_of(worker)
        if plan.open_model:
            return OpenModel(
                shard, route, connections, self.recorders, self._finished.set,
                arrivals=plan.schedule(worker), start_ns=self.start_ns, drop=plan.drop,
            )  # fmt: skip
        end_ns = api.NEVER if plan.issuing_ns == api.NEVER else self.start_ns + plan.issuing_ns
        return ClosedModel(
            shard, route, connections, self.recorders, self._finished.set, numbers=plan.numbers(worker), end_ns=end_ns,
            warmup_numbers=plan.warmup_numbers(worker) if plan.warmup_ns else None, measure_ns=self._measure_ns,
        )  # fmt: skip

    async def run(self, start_ns: int, controls: Controls, on_tick: OnTick) -> None:
        """Issue the plan's arrivals from start_ns on and return when all are over, or cut off.

        on_tick(worker, now_ns, lag_ns): awaited about once a second and once at the end; lag_ns is the worst lag of the
        event loop since the last call.
        """
        self.start_ns = start_ns
        self._measure_ns = start_ns + self.plan.warmup_ns
        self.recorders.begin(self._measure_ns, self._measure_ns + self.plan.baseline_ns)
        self.scheduler = self._make_scheduler()
        self.scheduler.context = SessionContext(self._script, self.scheduler, self.plan.timeout_ns, self._credentials)
        thresholds = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLDS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.shard.run)
            nursery.start_soon(self._tick, on_tick)
            nursery.start_soon(self._end_in_time)
            nursery.start_soon(self._obey, controls)
            self.shard.call_at(start_ns, self.scheduler.start)
            await self._finished.wait()
            self.end_ns = time.monotonic_ns()
            nursery.cancel_scope.cancel()
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        await on_tick(self, self.end_ns, 0)

    async def _end_in_time(self) -> None:
        """After the last arrival may have begun, what is under way has the drain's time."""
        if self.plan.issuing_ns != api.NEVER:
            await self._sleep_until(self.start_ns + self.plan.issuing_ns + self.plan.drain_ns)
            self._cut()

    async def _obey(self, controls: Controls) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey_stop, controls)
            await controls.drain.wait()
            self.scheduler.stop_arrivals(time.monotonic_ns())
            await trio.sleep(self.plan.drain_ns / NS_PER_S)
            self._cut()

    async def _obey_stop(self, controls: Controls) -> None:
        await controls.stop.wait()
        self._cut()

    def _cut(self) -> None:
        for session in self.scheduler.interrupt():
            self.shard.stop(session.connection)
        self._finished.set()

    async def _tick(self, on_tick: OnTick) -> None:
        await self._sleep_until(self.start_ns)
        pulses, lag_ns = 0, 0
        due = trio.current_time()
        while True:
            due += PULSE_S
            await trio.sleep_until(due)
            lag_ns = max(lag_ns, round((trio.current_time() - due) * NS_PER_S))
            pulses += 1
            if pulses % PULSES_A_TICK == 0:
                with trio.CancelScope(shield=True):  # what was taken from the book must reach the report
                    await on_tick(self, time.monotonic_ns(), lag_ns)
                lag_ns = 0

    @staticmethod
    async def _sleep_until(when_ns: int) -> None:
        await trio.sleep(max(0.0, (when_ns - time.monotonic_ns()) / NS_PER_S))
