"""What is measured and not read: how late timers are, what a clock read, a message and a write cost. Seconds each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import trio

from smtpbench.engine.pipe import lines
from smtpbench.engine.shard import Shard
from smtpbench.errors import CannotRun
from smtpbench.load.plan import LoadPlan
from smtpbench.load.run import RunRequest, run
from smtpbench.measure.files import Tick
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.target import parse_target
from smtpbench.units import NS_PER_MS, NS_PER_S

#: A timer each millisecond for a second: as an open model's arrivals at 1,000/s.
TIMERS = 1000
#: The message trial: long enough for a second of it to be warm.
TRIAL_NS = 2 * NS_PER_S
TRIAL_WARMUP_NS = NS_PER_S // 2
TRIAL_CONNECTIONS = 50
TRIAL_MESSAGE_BYTES = 1024
#: What is written to try a disk; in one piece, and then to the disk itself.
WRITTEN_BYTES = 8 * 1024 * 1024
_CLOCK_READS, _CLOCK_BATCHES = 1000, 20
#: No sink of ours outlives its doctor by more than this.
_SINK_LIFE = "30s"


@dataclass(frozen=True, slots=True)
class Clock:
    """The monotonic clock. step_ns: the least by which two reads differ. read_ns: what one costs, seen from Python."""

    step_ns: int
    read_ns: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run against the built-in sink cost its one worker.

    cpu_us: of one message. starved_share: of the time, how long it waited for a core. written_bytes_per_s: into the run's
    folder. trouble: why there was no such run.
    """

    messages: int = 0
    window_s: float = 0.0
    cpu_us: float = 0.0
    busy_share: float = 0.0
    starved_share: float = 0.0
    rss_bytes: int = 0
    written_bytes_per_s: float = 0.0
    interrupted: bool = False
    trouble: str = ""


def time_clock() -> Clock:
    """Read it many times."""
    batches = [[time.monotonic_ns() for _ in range(_CLOCK_READS)] for _ in range(_CLOCK_BATCHES)]
    # the fastest batch: others may have had the core during the rest
    took_ns = min(reads[-1] - reads[0] for reads in batches)
    steps = [after - before for reads in batches for before, after in pairwise(reads) if after > before]
    return Clock(min(steps, default=took_ns), took_ns / _CLOCK_READS)


async def time_timers(count: int = TIMERS, every_ns: int = NS_PER_MS) -> Histogram:
    """How late a shard makes calls that are due one after the other: nanoseconds."""
    shard, done = Shard(alone=True), trio.Event()
    late_ns: list[int] = []

    def due(when_ns: int) -> None:
        def call(now_ns: int) -> None:
            late_ns.append(max(0, time.monotonic_ns() - when_ns))
            if len(late_ns) == count:
                done.set()

        shard.call_at(when_ns, call)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        begin_ns = time.monotonic_ns() + 10 * NS_PER_MS
        for number in range(count):
            due(begin_ns + number * every_ns)
        await done.wait()
        nursery.cancel_scope.cancel()
    return Histogram.of(late_ns)


def write_speed(folder: Path) -> float:
    """Bytes a second that reach the disk. Raises OSError."""
    block = os.urandom(WRITTEN_BYTES)
    with tempfile.TemporaryFile(dir=folder) as out:
        began = time.monotonic()
        out.write(block)
        out.flush()
        os.fsync(out.fileno())
        return WRITTEN_BYTES / max(time.monotonic() - began, 1e-9)


class _Silent:
    """Nobody watches this run."""

    def tick(self, tick: Tick, totals: Interval) -> None:
        pass

    def notify(self, text: str) -> None:
        pass


async def cost_of_a_message() -> Cost:
    """Send for two seconds to a sink of our own, a process on a free loopback port."""
    try:
        async with _sink() as address:
            with tempfile.TemporaryDirectory(prefix="smtpbench-doctor-") as folder:
                return await _load(address, Path(folder))
    except (CannotRun, OSError) as error:
        return Cost(trouble=str(error))


async def _load(address: str, folder: Path) -> Cost:
    plan = LoadPlan(TRIAL_CONNECTIONS, duration_ns=TRIAL_NS, warmup_ns=TRIAL_WARMUP_NS, drain_ns=NS_PER_S)
    file = load_scenario(find_scenario("relay"))
    request = RunRequest(file, parse_target(f"smtp://{address}"), plan, folder, message_bytes=TRIAL_MESSAGE_BYTES)
    outcome = await run(request, _Silent())
    generator, window_s = outcome.result["generator"], outcome.result["load"]["window_s"]
    messages = outcome.result["messages"]["accepted"]
    if not messages:
        return Cost(interrupted=outcome.interrupted, trouble="no message got through to the built-in sink")
    written_bytes = sum(file.stat().st_size for file in _ongoing(folder))
    return Cost(
        messages=messages,
        window_s=window_s,
        cpu_us=generator["cpu_s"] / messages * 1e6,
        busy_share=generator["busiest_worker_share"],
        starved_share=generator["starved_worker_share"],
        rss_bytes=generator["peak_rss_bytes"],
        written_bytes_per_s=written_bytes / window_s,
        interrupted=outcome.interrupted,
    )


def _ongoing(folder: Path) -> list[Path]:
    """The files that grow while a run goes on."""
    return [file for file in folder.iterdir() if file.name != "result.json"]


@asynccontextmanager
async def _sink() -> AsyncIterator[str]:
    """The address of a sink that runs meanwhile. Raises CannotRun, OSError."""
    command = ["sink", "--listen", "127.0.0.1:0", "--ready-json", "--duration", _SINK_LIFE]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "smtpbench.cli.main", *command],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await anext(lines(process.stdout), b"")
        if not line:
            raise CannotRun("the built-in sink did not start; `smtpbench sink` says why")
        yield json.loads(line)["listening"][0]
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
