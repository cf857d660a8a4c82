"""From a worker's book to the run's totals: a worker's `Meter` reports once a second, the run's `Collector` adds up.

A report is plain data, so it is the same whether the worker is this process or another one at the end of a pipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from smtpbench.load.plan import LoadPlan
from smtpbench.load.worker import Worker
from smtpbench.measure.files import Tick
from smtpbench.measure.health import Health, cpu_times_s, cpu_wait_s, peak_rss_bytes
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval
from smtpbench.units import NS_PER_MS, NS_PER_S

WARMUP, STEADY, DRAIN = "warmup", "steady", "drain"


_INTERVALS = ("warmup", "baseline", "steady")


@dataclass(slots=True)
class WorkerReport:
    """What one worker did since its last report.

    end_ns, length_ns: the stretch, on the monotonic clock. warmup, quiet, book: what was counted in each. domains: what was
    counted apart, and belongs to quiet and book as well: by domain, each one's part of both.
    """

    worker: int
    end_ns: int
    length_ns: int
    warmup: Interval
    baseline: Interval
    steady: Interval
    connections_open: int
    busy: int
    waiting: int
    waited: int
    cpu_user_s: float
    cpu_system_s: float
    cpu_wait_s: float
    lag_ns: int
    late: Histogram
    connections_peak: int
    rss_bytes: int
    domains: dict[str, tuple[Interval, Interval]] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Data that JSON holds; `from_data` reads it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        apart = {domain: [part.to_data() for part in parts] for domain, parts in self.domains.items()}
        return values | {name: getattr(self, name).to_data() for name in (*_INTERVALS, "late")} | {"domains": apart}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> WorkerReport:
        """The report of a `to_data`."""
        read: dict[str, Any] = {name: Interval.from_data(data[name]) for name in _INTERVALS}
        read["domains"] = {domain: tuple(map(Interval.from_data, parts)) for domain, parts in data["domains"].items()}
        return cls(**(data | read | {"late": Histogram.from_data(data["late"])}))


class Meter:
    """Turns a worker's state into reports."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._last_ns = 0
        self._last_cpu_s = (*cpu_times_s(), cpu_wait_s())
        self._last_waited = 0

    async def read(self, worker: Worker, now_ns: int, lag_ns: int) -> WorkerReport:
        """A report of everything since the last one. The worker's loop goes on while it is made."""
        scheduler = worker.scheduler
        cpu_s = (*cpu_times_s(), cpu_wait_s())
        late_ns, scheduler.late_ns = scheduler.late_ns, []
        length_ns = now_ns - (self._last_ns or worker.start_ns)
        waited = scheduler.waited - self._last_waited
        user_s, system_s, wait_s = (now - before for now, before in zip(cpu_s, self._last_cpu_s, strict=True))
        self._last_ns, self._last_cpu_s, self._last_waited = now_ns, cpu_s, scheduler.waited
        report = WorkerReport(
            self._worker, now_ns, length_ns, Interval(), Interval(), Interval(), len(scheduler.sessions), scheduler.busy,
            scheduler.waiting, waited, user_s, system_s, wait_s, lag_ns, Histogram.of(late_ns), scheduler.connections_peak,
            peak_rss_bytes(),
        )  # fmt: skip
        recorders = worker.recorders
        await run_in_steps(recorders.warmup.drain_steps(report.warmup))
        await run_in_steps(recorders.baseline.drain_steps(report.baseline))
        await run_in_steps(recorders.steady.drain_steps(report.steady))
        for domain, apart in recorders.by_domain.items():
            parts = report.domains[domain] = Interval(), Interval()
            for recorder, interval in zip(apart, parts, strict=True):
                await run_in_steps(recorder.drain_steps(interval))
        return report


async def run_in_steps(steps: Iterator[None]) -> None:
    """Do something in its steps and let the loop run between them."""
    for _ in steps:
        await trio.lowlevel.checkpoint()


class Collector:
    """The run's totals: the sum of all reports, of all workers.

    totals, warmup: what was counted in the measured window and before it. quiet, beside: the totals' two parts, before the
    first hostile session and beside them. domains: the totals' parts that were counted apart, by domain. health: what the
    generator used for it.
    """

    def __init__(self, plan: LoadPlan, start_ns: int) -> None:
        self._plan = plan
        self.start_ns = start_ns
        self.totals = Interval()
        self.warmup = Interval()
        self.baseline = Interval()
        self.beside = Interval()
        self.domains: dict[str, Interval] = {}
        self.health = Health()
        self._pending: list[WorkerReport] = []
        self._flushed_ns = start_ns
        # worker → seconds of its steady reports: of CPU, of waiting for a core, and by the clock
        self._busy: dict[int, tuple[float, float, float]] = {}
        self._peaks: dict[int, tuple[int, int]] = {}

    def restart(self, start_ns: int) -> None:
        """The workers begin at start_ns, not when the collector was made."""
        self.start_ns = self._flushed_ns = start_ns

    def phase(self, at_ns: int) -> str:
        """Which part of the run a moment lies in."""
        after_ns = at_ns - self.start_ns
        if after_ns <= self._plan.warmup_ns:
            return WARMUP
        return STEADY if after_ns <= self._plan.issuing_ns + NS_PER_S // 2 else DRAIN

    def add(self, report: WorkerReport) -> None:
        """Take a worker's report."""
        for _ in self.add_steps(report):
            pass

    def add_steps(self, report: WorkerReport) -> Iterator[None]:
        """The same in steps, so that a loop may run between them."""
        for domain, (baseline, recorder) in report.domains.items():
            mine = self.domains.setdefault(domain, Interval())
            for whole, part in ((report.baseline, baseline), (report.steady, recorder)):
                whole.add(part)
                mine.add(part)
            yield
        self._pending.append(report)
        if self._plan.baseline_ns:
            self.baseline.add(report.baseline)
            self.beside.add(report.steady)
        report.steady.add(report.baseline)
        self.totals.add(report.steady)
        self.warmup.add(report.warmup)
        health = self.health
        if self.phase(report.end_ns) != WARMUP:
            health.cpu_user_s += report.cpu_user_s
            health.cpu_system_s += report.cpu_system_s
            health.late.add(report.late)
            health.loop_lag_max_ms = max(health.loop_lag_max_ms, report.lag_ns / NS_PER_MS)
            health.waited += report.waited
        if self.phase(report.end_ns) == STEADY:
            cpu_s, wait_s, wall_s = self._busy.get(report.worker, (0.0, 0.0, 0.0))
            cpu_s += report.cpu_user_s + report.cpu_system_s
            self._busy[report.worker] = cpu_s, wait_s + report.cpu_wait_s, wall_s + report.length_ns / NS_PER_S
            health.busiest_share = max(cpu / wall if wall else 0.0 for cpu, _, wall in self._busy.values())
            health.starved_share = max(wait / wall if wall else 0.0 for _, wait, wall in self._busy.values())
        self._peaks[report.worker] = report.connections_peak, report.rss_bytes
        health.connections_peak = sum(peak for peak, _ in self._peaks.values())
        health.peak_rss_bytes = sum(rss for _, rss in self._peaks.values())

    def flush(self) -> Tick | None:
        """Everything reported since the last flush as one stretch of the timeline; None where there was nothing."""
        pending, self._pending = self._pending, []
        if not pending:
            return None
        parts = [part for report in pending for part in (report.warmup, report.steady) if part.counted]
        both = parts[0] if len(parts) == 1 else Interval()
        if len(parts) != 1:
            for part in parts or [report.steady for report in pending]:
                both.add(part)
        measured: Interval | None = None
        if any(report.warmup.counted for report in pending):
            measured = Interval()
            for report in pending:
                measured.add(report.steady)
        latest = {report.worker: report for report in pending}.values()
        end_ns = max(report.end_ns for report in pending)
        length_s = max(end_ns - self._flushed_ns, 1) / NS_PER_S
        self._flushed_ns = end_ns
        return Tick(
            end_s=(end_ns - self.start_ns) / NS_PER_S,
            length_s=length_s,
            phase=self.phase(end_ns),
            interval=both,
            measured=measured,
            connections_open=sum(report.connections_open for report in latest),
            busy=sum(report.busy for report in latest),
            waiting=sum(report.waiting for report in latest),
            cpu_share=sum(report.cpu_user_s + report.cpu_system_s for report in pending) / length_s,
            lag_ms=max(report.lag_ns for report in pending) / NS_PER_MS,
        )
