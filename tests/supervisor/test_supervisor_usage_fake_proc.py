"""What the processes of a server use, with a fake /proc: each case of processes that come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from usage_samples import measured

from smtpbench.supervisor import process_usage
from smtpbench.supervisor.process_usage import Flow, ProcessUsage
from smtpbench.supervisor.usage import PSS, UsageSampler
from smtpbench.units import NS_PER_S


class FakeProc:
    """Processes that a test changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.processes: dict[int, ProcessUsage] = {}
        self.reaped_on_reading: set[int] = set()
        monkeypatch.setattr(process_usage, "processes", lambda: set(self.processes))
        monkeypatch.setattr(process_usage, "read_usage", self._read)
        monkeypatch.setattr(process_usage, "read_parent", lambda pid: self.processes[pid].parent)

    def add(self, pid: int, parent: int, cpu_s: float = 0.0, *, started: int = 0) -> ProcessUsage:
        found = self.processes[pid] = ProcessUsage(
            pid, started or pid, parent, Flow(cpu_ns=round(cpu_s * NS_PER_S)), threads=1, fds=3, has_io=True,
            voluntary_switches=1, involuntary_switches=1,
        )  # fmt: skip
        return found

    def reap(self, pid: int, by: int) -> None:
        """Let a process end and another one wait for it."""
        ended, waiter = self.processes.pop(pid), self.processes[by]
        waiter.flow.add(ended.flow)
        waiter.children_ns += ended.flow.cpu_ns

    def _read(self, pid: int, before: ProcessUsage | None = None) -> ProcessUsage | None:
        found = self.processes.get(pid)
        if pid in self.reaped_on_reading:
            self.reap(pid, by=self.processes[pid].parent)
            found = None
        if found is None:
            return None
        return ProcessUsage(**{
            name: getattr(found, name) for name in ProcessUsage.__slots__ if name != "flow"
        }, flow=Flow(**{name: getattr(found.flow, name) for name in Flow.__slots__}))  # fmt: skip


@pytest.fixture
def proc(monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    return FakeProc(monkeypatch)


def test_only_descendants_belong_to_the_server(proc: FakeProc) -> None:
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1), (21, 20), (5, 12)):
        proc.add(pid, parent, 1.0)
    sampler = UsageSampler(lambda: [10])
    assert measured(sampler).cpu_s == 4.0
    assert sorted(sampler.pids) == [5, 10, 11, 12]


def test_child_that_was_waited_for_is_not_counted_twice(proc: FakeProc) -> None:
    proc.add(10, 1, 1.0)
    proc.add(11, 10, 2.0)
    sampler = UsageSampler(lambda: [10])
    assert measured(sampler).cpu_s == 3.0
    proc.reap(11, by=10)
    assert [measured(sampler).cpu_s for _ in range(3)] == [3.0, 3.0, 3.0]


def test_child_that_ends_while_the_tree_is_read_is_counted_once(proc: FakeProc) -> None:
    proc.add(10, 1, 1.0)
    proc.add(11, 10, 2.0)
    sampler = UsageSampler(lambda: [10])
    assert measured(sampler).cpu_s == 3.0
    proc.reaped_on_reading = {11}  # after its parent was read
    assert measured(sampler).cpu_s == 3.0
    proc.reaped_on_reading = set()
    proc.processes[10].flow.cpu_ns += NS_PER_S
    assert measured(sampler).cpu_s == 4.0


def test_daemon_that_left_the_tree_stays_counted(proc: FakeProc) -> None:
    proc.add(10, 1, 1.0)
    proc.add(11, 10, 2.0)
    sampler = UsageSampler(lambda: [10])
    measured(sampler)
    proc.processes[11].parent = 1
    proc.processes[11].flow.cpu_ns += NS_PER_S
    assert measured(sampler).cpu_s == 4.0
    del proc.processes[11]
    assert measured(sampler).cpu_s == 4.0
    assert measured(sampler).processes == 1


def test_number_that_is_used_again_is_another_process(proc: FakeProc) -> None:
    proc.add(10, 1, 1.0)
    proc.add(11, 10, 2.0)
    sampler = UsageSampler(lambda: [10])
    measured(sampler)
    proc.reap(11, by=10)
    proc.add(11, 10, 0.5, started=99)
    assert measured(sampler).cpu_s == 3.5


def test_new_first_process_is_found_although_it_was_there_before(proc: FakeProc) -> None:
    proc.add(10, 1, 1.0)
    proc.add(30, 1, 4.0)
    proc.add(31, 30, 2.0)
    roots = [10]
    sampler = UsageSampler(lambda: roots)
    assert measured(sampler).processes == 1
    del proc.processes[10]
    roots[:] = [30]
    sample = measured(sampler)
    assert (sample.processes, sample.cpu_s) == (2, 7.0)


def test_zombie_is_counted_and_holds_nothing(proc: FakeProc) -> None:
    proc.add(10, 1, 1.0)
    proc.add(11, 10, 2.0).ended = True
    sample = measured(UsageSampler(lambda: [10]))
    assert (sample.cpu_s, sample.processes) == (3.0, 1)


def test_value_that_one_process_hides_is_not_known(proc: FakeProc) -> None:
    proc.add(10, 1)
    hidden = proc.add(11, 10)
    hidden.fds, hidden.has_io = None, False
    sample = measured(UsageSampler(lambda: [10]))
    assert (sample.fds, sample.read_bytes, sample.write_bytes) == (None, None, None)
    assert sample.threads == 2


def test_sample_that_another_overtook_is_dropped(proc: FakeProc) -> None:
    for pid in range(10, 40):
        proc.add(pid, pid - 1, 1.0)
    sampler = UsageSampler(lambda: [10])
    steps = sampler._steps()
    next(steps)
    assert measured(sampler).cpu_s == 30.0
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value is None


def test_server_that_was_never_seen_gives_no_sample(proc: FakeProc) -> None:
    assert UsageSampler(lambda: [10]).measure() is None


def test_restarts_are_part_of_a_sample(proc: FakeProc) -> None:
    proc.add(10, 1)
    assert measured(UsageSampler(lambda: [10], restarts=lambda: 3)).restarts == 3


async def test_tree_that_takes_long_to_read_is_sampled_less_often(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    spent_ns = 0

    def thread_time_ns() -> int:
        nonlocal spent_ns
        spent_ns += 25_000_000  # every sample seems to take 25 ms
        return spent_ns

    async def run_here(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(time, "thread_time_ns", thread_time_ns)
    monkeypatch.setattr(process_usage, "read_pss_bytes", lambda pid: 1000)
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)  # the clock does not wait for a thread
    proc.add(10, 1)
    sampler = UsageSampler(lambda: [10])
    with trio.move_on_after(60):
        times: list[float] = []
        await sampler.run(lambda sample: times.append(trio.current_time()))
    gaps = [round(after - before) for before, after in pairwise(times)]
    assert set(gaps) == {5}  # 25 ms are half a percent of 5 s
    assert sampler.memory == PSS
