"""A run does not grow: what it keeps after an hour is what it keeps after minutes, without help of the garbage collector."""

from __future__ import annotations

import gc
import io
import random
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from figures import MS, sample

from smtpbench.load.meter import Collector, Meter
from smtpbench.load.plan import LoadPlan
from smtpbench.load.recorders import Recorders
from smtpbench.load.silence import ReplyMonitor
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.files import TIMELINE, TIMELINE_COLUMNS, RunFiles, csv_line
from smtpbench.measure.saved import RUN, Saved
from smtpbench.report.html.timeline import time_section
from smtpbench.report.terminal.progress import NONE, progress_display
from smtpbench.report.terminal.run_progress import RunProgress
from smtpbench.threshold import parse_threshold
from smtpbench.units import NS_PER_S

RUN_S = 900


class SimulatedRun:
    """A worker with six metrics, of which each second has some samples, and everything that its seconds pass through."""

    def __init__(self, folder: Path) -> None:
        self.recorders = Recorders(0)
        self.scheduler = SimpleNamespace(
            late_ns=[], waited=0, sessions=[], busy=0, waiting=0, connections_peak=1, unanswered=lambda now_ns: iter(())
        )
        shard = SimpleNamespace(take_read_delays=lambda: [1000, 20_000], clock_steps=0)
        self.worker: Any = SimpleNamespace(
            scheduler=self.scheduler, recorders=self.recorders, shard=shard, start_ns=0,
            reply_monitor=ReplyMonitor(self.recorders),
        )  # fmt: skip
        self.plan = LoadPlan(duration_ns=RUN_S * NS_PER_S, workers=1)
        self.meter, self.collector = Meter(0), Collector(self.plan, 0)
        self.files = RunFiles(folder, datetime(2026, 1, 2, tzinfo=UTC))
        self.progress = RunProgress(progress_display(NONE, "relay", io.StringIO()), float(RUN_S), None)
        self.monitor = ThresholdMonitor([parse_threshold("message.p99<1s")], grace_ns=0)
        self._draw = random.Random(1)

    async def second(self, number: int) -> None:
        """Count, report and show one second; every third one has no reply although one is due."""
        now_ns = (number + 1) * NS_PER_S
        if number % 3:
            for verb in ("MAIL", "RCPT", "DATA", "message", "transaction", "connect"):
                samples = self.recorders.steady.samples(verb, verb, b"250 2.0.0 Ok\r\n", ok=True)
                samples += [sample(self._draw.randrange(1, 20) * MS // 10, 10 * self._draw.randrange(3)) for _ in range(2)]
            self.recorders.steady.accepted += 2
            self.scheduler.late_ns += [20_000, 30_000]
        waiting = [] if number % 3 else [SimpleNamespace(waiting_since_ns=now_ns - NS_PER_S + 7, transfer=None)]
        for tenth in range(9, -1, -1):
            self.worker.reply_monitor.look(now_ns - tenth * NS_PER_S // 10, waiting)
        self.collector.add(await self.meter.read(self.worker, now_ns, 0))
        tick = self.collector.flush()
        assert tick is not None
        for _ in self.files.add_steps(tick):
            pass
        self.progress.tick(tick, self.collector.totals)
        assert not self.monitor.abort_reason(self.collector, self.plan, tick.end_s)


async def test_run_keeps_nothing_of_its_seconds(tmp_path: Path) -> None:
    run = SimulatedRun(tmp_path)
    gc.collect()
    gc.disable()  # as good as disabled is what it is during a run
    try:
        for number in range(RUN_S // 3):
            await run.second(number)
        tracemalloc.start()
        for number in range(RUN_S // 3, RUN_S):
            await run.second(number)
        growth_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(run.collector.silences()) == RUN_S // 3
    assert run.collector.totals.messages["accepted"] == 2 * (RUN_S - RUN_S // 3)
    assert growth_bytes < 50_000


def test_report_of_a_long_run_keeps_few_octets_a_second(tmp_path: Path) -> None:
    seconds = 10_000
    with (tmp_path / TIMELINE).open("w") as out:
        out.write(csv_line(TIMELINE_COLUMNS))
        for number in range(1, seconds + 1):
            values = [number % 7 + at + 0.25 for at in range(len(TIMELINE_COLUMNS) - 2)]
            out.write(csv_line((f"{number}.00", "steady", *values)))
    run = Saved(RUN, {}, tmp_path / "result.json")
    tracemalloc.start()
    section = time_section([run], [run.timeline()])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(section.blocks) >= 4
    assert peak_bytes < 500 * seconds
