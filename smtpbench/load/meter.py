"""From the recorders of the workers to the totals of the run.

A worker's `Meter` makes a report once a second, and the run's `Collector` adds the reports. A report is plain data, so it
is the same whether the worker runs in this process or in another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from smtpbench.load.plan import LoadPlan
from smtpbench.load.silence import SilenceMonitor, Tenth
from smtpbench.load.worker import Worker
from smtpbench.measure.files import Tick
from smtpbench.measure.health import Health, cpu_times_s, cpu_wait_s, peak_rss_bytes
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import SAMPLES_PER_STEP, Interval, Recorder
from smtpbench.units import NS_PER_MS, NS_PER_S

WARMUP, STEADY, DRAIN = "warmup", "steady", "drain"

#: Arrivals in progress that one step looks at.
_PENDING_PER_STEP = 500
_INTERVALS = ("warmup", "baseline", "steady", "pending")
_HISTOGRAMS = ("late", "read_delay")
#: Reads of which one is a sample of the read delay: a sample costs a hundredth of the CPU time of a message.
READS_PER_SAMPLE = 8


@dataclass(slots=True)
class WorkerReport:
    """What one worker did since its last report.

    Attributes:
        worker: Number of the worker.
        end_ns: End of the reported time, of `time.monotonic_ns`.
        length_ns: Length of the reported time.
        warmup: What the recorder of the warm-up counted.
        baseline: What the recorder of the baseline counted.
        steady: What the recorder of the steady phase counted.
        connections_open: Open connections at the end.
        busy: Connections that an arrival occupied at the end.
        waiting: Arrivals that waited for a connection at the end.
        waited: Arrivals that found no free connection.
        cpu_user_s: User CPU time.
        cpu_system_s: System CPU time.
        cpu_wait_s: Time in which the worker was ready to run and had no core.
        lag_ns: Longest lag of the event loop.
        late: How late arrivals began that had a free connection.
        connections_peak: Most connections open at once since the start.
        rss_bytes: Most memory in use since the start.
        read_delay: How long after the kernel had received octets they were read; one of `READS_PER_SAMPLE`, and the longest.
        clock_steps: How often the time of the machine was set since the start.
        pending: What is known of the measured arrivals that are in progress: lower bounds of latencies, and as failed and as
            waits the messages that waited for a reply for longer than the drain time.
        tenths: Whether replies came, for each tenth of a second.
        domains: Recipient domain → its part of the baseline and of the steady phase, which the attributes of these names do
            not include.
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
    read_delay: Histogram = field(default_factory=Histogram)
    clock_steps: int = 0
    pending: Interval = field(default_factory=Interval)
    tenths: list[Tenth] = field(default_factory=list)
    domains: dict[str, tuple[Interval, Interval]] = field(default_factory=dict)

    @property
    def measured_messages(self) -> int:
        """Messages of the measured window, before a `Collector` has added the report."""
        parts = (self.baseline, self.steady, *(part for both in self.domains.values() for part in both))
        return sum(part.attempted for part in parts)

    def to_data(self) -> dict[str, Any]:
        """Return the report as data for JSON; `from_data` reads it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        by_domain = {domain: [part.to_data() for part in parts] for domain, parts in self.domains.items()}
        return (
            values | {name: getattr(self, name).to_data() for name in (*_INTERVALS, *_HISTOGRAMS)} | {"domains": by_domain}
        )

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> WorkerReport:
        """Return the report that `to_data` wrote."""
        read: dict[str, Any] = {name: Interval.from_data(data[name]) for name in _INTERVALS}
        read["tenths"] = [Tenth(*tenth) for tenth in data["tenths"]]
        read["domains"] = {domain: tuple(map(Interval.from_data, parts)) for domain, parts in data["domains"].items()}
        return cls(**(data | read | {name: Histogram.from_data(data[name]) for name in _HISTOGRAMS}))


class Meter:
    """Makes the reports of a worker.

    Args:
        worker: Number of the worker.
    """

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._last_ns = 0
        self._last_cpu_s = (*cpu_times_s(), cpu_wait_s())
        self._last_waited = 0

    def begin(self) -> None:
        """Count CPU time from now on if there was no report yet, as the work before is not part of the load."""
        if not self._last_ns:
            self._last_cpu_s = (*cpu_times_s(), cpu_wait_s())

    async def read(self, worker: Worker, now_ns: int, lag_ns: int) -> WorkerReport:
        """Return a report of everything since the last one. The worker's event loop runs while it is made."""
        scheduler = worker.scheduler
        cpu_s = (*cpu_times_s(), cpu_wait_s())
        late_ns, scheduler.late_ns = scheduler.late_ns, []
        length_ns = now_ns - (self._last_ns or worker.start_ns)
        waited = scheduler.waited - self._last_waited
        user_s, system_s, wait_s = (now - before for now, before in zip(cpu_s, self._last_cpu_s, strict=True))
        self._last_ns, self._last_cpu_s, self._last_waited = now_ns, cpu_s, scheduler.waited
        report = WorkerReport(
            worker=self._worker,
            end_ns=now_ns,
            length_ns=length_ns,
            warmup=Interval(),
            baseline=Interval(),
            steady=Interval(),
            connections_open=len(scheduler.sessions),
            busy=scheduler.busy,
            waiting=scheduler.waiting,
            waited=waited,
            cpu_user_s=user_s,
            cpu_system_s=system_s,
            cpu_wait_s=wait_s,
            lag_ns=lag_ns,
            late=Histogram.of(late_ns),
            connections_peak=scheduler.connections_peak,
            rss_bytes=peak_rss_bytes(),
            tenths=worker.reply_monitor.take(),
            clock_steps=worker.shard.clock_steps,
        )
        recorders = worker.recorders
        await run_in_steps(_read_delay_steps(report.read_delay, worker.shard.take_read_delays()))
        await run_in_steps(_pending_steps(report, worker, now_ns))
        await run_in_steps(recorders.warmup.drain_steps(report.warmup))
        await run_in_steps(recorders.baseline.drain_steps(report.baseline))
        await run_in_steps(recorders.steady.drain_steps(report.steady))
        for domain, of_domain in recorders.by_domain.items():
            parts = report.domains[domain] = Interval(), Interval()
            for recorder, interval in zip(of_domain, parts, strict=True):
                await run_in_steps(recorder.drain_steps(interval))
        return report


def _read_delay_steps(histogram: Histogram, delays_ns: list[int]) -> Iterator[None]:
    if delays_ns:
        histogram.record([max(delays_ns)])
    samples_ns = delays_ns[::READS_PER_SAMPLE]
    for first in range(0, len(samples_ns), SAMPLES_PER_STEP):
        histogram.record(samples_ns[first : first + SAMPLES_PER_STEP])
        yield


def _pending_steps(report: WorkerReport, worker: Worker, now_ns: int) -> Iterator[None]:
    """Note in a report what is known of the arrivals in progress, in small steps."""
    pending = Recorder()
    count = 0
    for count, (recorder, samples) in enumerate(worker.scheduler.unanswered(now_ns)):
        if recorder is not worker.recorders.warmup:
            pending.censor(samples)
        if count % _PENDING_PER_STEP == 0:
            yield
    for session in list(worker.scheduler.sessions):
        since_ns = session.waiting_since_ns
        if since_ns and now_ns - since_ns > worker.plan.drain_ns and session.recorder is not worker.recorders.warmup:
            pending.failed += session.messages_open
            pending.censor((), [now_ns - since_ns] * session.messages_open)
    yield from pending.drain_steps(report.pending)


async def run_in_steps(steps: Iterator[None]) -> None:
    """Run an iterator to its end, and let the event loop run between its steps."""
    for _ in steps:
        await trio.lowlevel.checkpoint()


class Collector:
    """The totals of the run: the sum of all reports of all workers.

    Args:
        plan: Load of the run.
        start_ns: Start of the run, of `time.monotonic_ns`.

    Attributes:
        start_ns: When the workers begin, of `time.monotonic_ns`.
        totals: What was counted after the warm-up.
        warmup: What was counted in the warm-up.
        baseline: The part of the totals before the first hostile session.
        with_hostile: The part of the totals since the first hostile session.
        domains: Recipient domain → its part of the totals.
        health: What the generator used.
    """

    def __init__(self, plan: LoadPlan, start_ns: int) -> None:
        self._plan = plan
        self.start_ns = start_ns
        self.totals = Interval()
        self.warmup = Interval()
        self.baseline = Interval()
        self.with_hostile = Interval()
        self.domains: dict[str, Interval] = {}
        self.health = Health()
        self._pending: list[WorkerReport] = []
        self._flushed_ns = start_ns
        # worker → seconds in its steady phase: of CPU time, of waiting for a core, and of the clock
        self._core_use_s: dict[int, tuple[float, float, float]] = {}
        self._peaks: dict[int, tuple[int, int]] = {}
        self._in_progress: dict[int, Interval] = {}
        self._silence = SilenceMonitor()

    def restart(self, start_ns: int) -> None:
        """Set the time at which the workers begin."""
        self.start_ns = self._flushed_ns = start_ns

    def phase(self, at_ns: int) -> str:
        """Return the phase of the run at a time of `time.monotonic_ns`: WARMUP, STEADY or DRAIN."""
        after_ns = at_ns - self.start_ns
        if after_ns <= self._plan.warmup_ns:
            return WARMUP
        return STEADY if after_ns <= self._plan.issuing_ns + NS_PER_S // 2 else DRAIN

    def add(self, report: WorkerReport) -> None:
        """Add the report of a worker."""
        for _ in self.add_steps(report):
            pass

    def add_steps(self, report: WorkerReport) -> Iterator[None]:
        """Add the report of a worker in small steps, so that an event loop can run between them."""
        for domain, (baseline, steady) in report.domains.items():
            of_domain = self.domains.setdefault(domain, Interval())
            for whole, part in ((report.baseline, baseline), (report.steady, steady)):
                whole.add(part)
                of_domain.add(part)
            yield
        self._pending.append(report)
        if self._plan.baseline_ns:
            self.baseline.add(report.baseline)
            self.with_hostile.add(report.steady)
        report.steady.add(report.baseline)
        self.totals.add(report.steady)
        self.warmup.add(report.warmup)
        self._add_health(report)
        self._silence.add(report.tenths)
        self._in_progress[report.worker] = report.pending

    def with_pending(self) -> Interval:
        """Return the totals with what is known of the arrivals that are in progress."""
        whole = Interval()
        for part in (self.totals, *self._in_progress.values()):
            whole.add(part)
        return whole

    def _add_health(self, report: WorkerReport) -> None:
        health, phase = self.health, self.phase(report.end_ns)
        if phase != WARMUP:
            health.cpu_user_s += report.cpu_user_s
            health.cpu_system_s += report.cpu_system_s
            health.late.add(report.late)
            health.read_delay.add(report.read_delay)
            health.loop_lag_max_ms = max(health.loop_lag_max_ms, report.lag_ns / NS_PER_MS)
            health.waited += report.waited
            health.waited_by_worker[report.worker] += report.waited
        if phase == STEADY:
            cpu_s, wait_s, wall_s = self._core_use_s.get(report.worker, (0.0, 0.0, 0.0))
            cpu_s += report.cpu_user_s + report.cpu_system_s
            self._core_use_s[report.worker] = cpu_s, wait_s + report.cpu_wait_s, wall_s + report.length_ns / NS_PER_S
            health.busiest_share = max(cpu / wall if wall else 0.0 for cpu, _, wall in self._core_use_s.values())
            health.starved_share = max(wait / wall if wall else 0.0 for _, wait, wall in self._core_use_s.values())
        self._peaks[report.worker] = report.connections_peak, report.rss_bytes
        health.clock_steps = max(health.clock_steps, report.clock_steps)
        health.connections_peak = sum(peak for peak, _ in self._peaks.values())
        health.peak_rss_bytes = sum(rss for _, rss in self._peaks.values())

    def silences(self) -> list[tuple[float, float]]:
        """Return when the server did not answer although a reply was due: (from, to), seconds after the start."""
        whole = Interval()  # with the warm-up, which may hold all that is known of how fast the server usually is
        whole.add(self.totals)
        whole.add(self.warmup)
        return self._silence.found(whole)

    def flush(self) -> Tick | None:
        """Return the sum of all reports since the last flush as one tick of the timeline; None without reports."""
        pending, self._pending = self._pending, []
        if not pending:
            return None
        parts = [part for report in pending for part in (report.warmup, report.steady) if part.has_data]
        both = parts[0] if len(parts) == 1 else Interval()
        if len(parts) != 1:
            for part in parts or [report.steady for report in pending]:
                both.add(part)
        measured, warmup = None, None
        if any(report.warmup.has_data for report in pending):
            measured, warmup = Interval(), Interval()
            for report in pending:
                measured.add(report.steady)
                warmup.add(report.warmup)
        latest = list({report.worker: report for report in pending}.values())
        end_ns = max(report.end_ns for report in pending)
        length_s = max(end_ns - self._flushed_ns, 1) / NS_PER_S
        # reports are late by some milliseconds: without a measured arrival, the phase is that of most of the time
        has_measured = any(report.steady.has_data for report in pending)
        phase = self.phase(end_ns if has_measured else (self._flushed_ns + end_ns) // 2)
        self._flushed_ns = end_ns
        return Tick(
            end_s=(end_ns - self.start_ns) / NS_PER_S,
            length_s=length_s,
            phase=phase,
            interval=both,
            measured=measured,
            warmup=warmup,
            connections_open=sum(report.connections_open for report in latest),
            busy=sum(report.busy for report in latest),
            waiting=sum(report.waiting for report in latest),
            cpu_share=sum(report.cpu_user_s + report.cpu_system_s for report in pending) / length_s,
            lag_ms=max(report.lag_ns for report in pending) / NS_PER_MS,
        )
