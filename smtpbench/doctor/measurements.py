"""Measurements of this machine: delays of timers, and the cost of a clock read, of a message and of a write.

Each of them takes at most a few seconds.
"""

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
from smtpbench.load.silent_observer import SilentObserver
from smtpbench.measure.histogram import Histogram
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.target import parse_target
from smtpbench.units import NS_PER_MS, NS_PER_S

#: One timer each millisecond for one second, like the arrivals of an open model at 1,000/s.
TIMER_COUNT = 1000
#: The sample run: long enough to measure one second or more after its warm-up.
SAMPLE_NS = 2 * NS_PER_S
SAMPLE_WARMUP_NS = NS_PER_S // 2
SAMPLE_CONNECTIONS = 50
SAMPLE_MESSAGE_BYTES = 1024
#: Octets written to measure a disk, in one write and one fsync.
DISK_TEST_BYTES = 8 * 1024 * 1024
_CLOCK_READS, _CLOCK_BATCHES = 1000, 20
#: Time after which the test server ends by itself, if this process was killed.
_SINK_LIFETIME = "30s"


@dataclass(frozen=True, slots=True)
class ClockTiming:
    """The monotonic clock.

    Attributes:
        step_ns: Smallest difference between two reads, nanoseconds.
        read_ns: Time that a read takes in Python, nanoseconds.
    """

    step_ns: int
    read_ns: float


@dataclass(frozen=True, slots=True)
class MessageCost:
    """What a run against the built-in sink cost its only worker.

    Attributes:
        messages: Messages accepted.
        window_s: Length of the measured window, seconds.
        cpu_us: CPU time of one message, microseconds.
        busy_share: Share of its core that the worker used.
        starved_share: Share of the time for which the worker waited for a core.
        rss_bytes: Largest resident memory of the worker.
        written_bytes_per_s: Octets a second written into the folder of the run.
        interrupted: Whether a signal ended the run.
        error: Why there was no such run; empty otherwise.
    """

    messages: int = 0
    window_s: float = 0.0
    cpu_us: float = 0.0
    busy_share: float = 0.0
    starved_share: float = 0.0
    rss_bytes: int = 0
    written_bytes_per_s: float = 0.0
    interrupted: bool = False
    error: str = ""


def measure_clock() -> ClockTiming:
    """Measure the monotonic clock by many reads."""
    batches = [[time.monotonic_ns() for _ in range(_CLOCK_READS)] for _ in range(_CLOCK_BATCHES)]
    # the fastest batch: other processes may have had the core during the rest
    took_ns = min(reads[-1] - reads[0] for reads in batches)
    steps = [after - before for reads in batches for before, after in pairwise(reads) if after > before]
    return ClockTiming(min(steps, default=took_ns), took_ns / _CLOCK_READS)


async def measure_timers(count: int = TIMER_COUNT, every_ns: int = NS_PER_MS) -> Histogram:
    """Return how late the event loop makes calls that are due in sequence, nanoseconds.

    Args:
        count: Number of calls.
        every_ns: Time between two calls, nanoseconds.
    """
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


def measure_disk_speed(folder: Path) -> float:
    """Return the octets a second that reach the disk of a folder. Raises OSError."""
    block = os.urandom(DISK_TEST_BYTES)
    with tempfile.TemporaryFile(dir=folder) as out:
        started = time.monotonic()
        out.write(block)
        out.flush()
        os.fsync(out.fileno())
        return DISK_TEST_BYTES / max(time.monotonic() - started, 1e-9)


async def measure_message_cost() -> MessageCost:
    """Measure the cost of a message: send for two seconds to a sink, a process of its own on a free loopback port."""
    try:
        async with _sink() as address:
            with tempfile.TemporaryDirectory(prefix="smtpbench-doctor-") as folder:
                return await _sample_run(address, Path(folder))
    except (CannotRun, OSError) as error:
        return MessageCost(error=str(error))


async def _sample_run(address: str, folder: Path) -> MessageCost:
    plan = LoadPlan(SAMPLE_CONNECTIONS, duration_ns=SAMPLE_NS, warmup_ns=SAMPLE_WARMUP_NS, drain_ns=NS_PER_S)
    file = load_scenario(find_scenario("relay"))
    request = RunRequest(file, parse_target(f"smtp://{address}"), plan, folder, message_bytes=SAMPLE_MESSAGE_BYTES)
    done = await run(request, SilentObserver())
    generator, window_s = done.result["generator"], done.result["load"]["window_s"]
    messages = done.result["messages"]["accepted"]
    if not messages:
        return MessageCost(interrupted=done.interrupted, error="the built-in sink accepted no message")
    written_bytes = sum(file.stat().st_size for file in _files_written_during_run(folder))
    return MessageCost(
        messages=messages,
        window_s=window_s,
        cpu_us=generator["cpu_s"] / messages * 1e6,
        busy_share=generator["busiest_worker_share"],
        starved_share=generator["starved_worker_share"],
        rss_bytes=generator["peak_rss_bytes"],
        written_bytes_per_s=written_bytes / window_s,
        interrupted=done.interrupted,
    )


def _files_written_during_run(folder: Path) -> list[Path]:
    """Return the files that grow during a run."""
    return [file for file in folder.iterdir() if file.name != "result.json"]


@asynccontextmanager
async def _sink() -> AsyncIterator[str]:
    """Run a sink while the context lasts and return its address. Raises CannotRun, OSError."""
    command = ["sink", "--listen", "127.0.0.1:0", "--ready-json", "--duration", _SINK_LIFETIME]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "smtpbench.cli.main", *command],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await anext(lines(process.stdout), b"")
        if not line:
            raise CannotRun("the built-in sink did not start; run `smtpbench sink` to see why")
        yield json.loads(line)["listening"][0]
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
