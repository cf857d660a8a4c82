"""What the processes of a server use: against the kernel's own account, with real processes, and with a fake /proc."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from cgroups import cgroup_of_version_2

from smtpbench.measure.server_usage import UsageSample
from smtpbench.supervisor import process_usage, usage
from smtpbench.supervisor.process_usage import Flow, ProcessUsage, read_usage
from smtpbench.supervisor.usage import CGROUP, PROCESSES, PSS, RSS, UsageSampler, cgroup_cpu_ns, cgroup_processes
from smtpbench.units import NS_PER_S

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
#: Functions that the programs below share: a line to standard output, a line from standard input.
_COMMON = """
import ctypes, os, resource, signal, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
def used(*whose):
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, whose))
def tell(text=""):
    sys.stdout.write(f"{text}\\n"); sys.stdout.flush()
def ask():
    sys.stdin.readline()
def fork(work):
    child = os.fork()
    if not child:
        work(); os._exit(0)
    return child
"""


class Program:
    """A small server that does as a test says, one line at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def next(self) -> str:
        """Let the program go on; return the line that it writes then."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def program(code: str) -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMON + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Program(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def measured(sampler: UsageSampler) -> UsageSample:
    sample = sampler.measure()
    assert sample is not None
    return sample


# Against the kernel ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("children", "seconds"), [(250, 0.004), (20, 0.05)])
def test_cpu_time_equals_that_of_wait4_for_children_that_live_for_a_moment(children: int, seconds: float) -> None:
    code = f"""
tell(); ask()
for _ in range({children}):
    os.waitpid(fork(lambda: burn({seconds})), 0)
tell(used(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)); ask()
"""
    with program(code) as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        before = measured(sampler)
        by_kernel_s = float(server.next())
        after = measured(sampler)
        assert sampler.source == PROCESSES
        assert after.cpu_s >= children * seconds
        # /proc rounds the two times of the children that the server has waited for, once each
        assert after.cpu_s == pytest.approx(by_kernel_s, rel=0.02, abs=2 * TICK_S)
        assert after.cpu_s - before.cpu_s == pytest.approx(by_kernel_s - before.cpu_s, rel=0.02, abs=2 * TICK_S)
        assert after.processes == 1


def test_cpu_time_of_a_living_tree_has_no_rounding_error() -> None:
    code = """
def work():
    burn(0.013); os.write(done[1], b"%.6f " % used(resource.RUSAGE_SELF)); signal.pause()
done = os.pipe()
children = [fork(work) for _ in range(20)]
found = b""
while found.count(b" ") < len(children): found += os.read(done[0], 9999)
tell(used(resource.RUSAGE_SELF) + sum(map(float, found.split()))); ask()
for child in children: os.kill(child, signal.SIGKILL)
"""
    with program(code) as server:
        by_kernel_s = float(server.line())
        sample = measured(UsageSampler(lambda: [server.pid]))
        assert sample.processes == 21
        assert sample.cpu_s == pytest.approx(by_kernel_s, rel=0.02, abs=TICK_S)  # 20 roundings would be 0.1 s
        server.next()


@pytest.mark.parametrize("way", ["signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "no_wait()"])
def test_what_the_kernel_forgets_is_kept_as_it_was_last_seen(way: str) -> None:
    code = f"""
def no_wait():
    # struct sigaction of glibc: the handler, the mask, the flags SA_NOCLDWAIT
    action = (ctypes.c_ulong * 19)(); action[17] = 2
    assert not ctypes.CDLL(None).sigaction(signal.SIGCHLD, ctypes.byref(action), None)
{way}
done, end = os.pipe(), os.pipe()
def work():
    burn(0.3); os.write(done[1], b"."); os.read(end[0], 1)
child = fork(work)
os.read(done[0], 1)
tell(); ask()
os.write(end[1], b".")
try: os.waitpid(child, 0)
except ChildProcessError: pass
tell(used(resource.RUSAGE_CHILDREN)); ask()
"""
    with program(code) as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        before = measured(sampler)
        assert float(server.next()) == 0.0
        after = measured(sampler)
        assert (before.processes, after.processes) == (2, 1)
        assert 0.3 <= before.cpu_s <= after.cpu_s <= before.cpu_s + 0.1
        assert measured(sampler).cpu_s <= before.cpu_s + 0.1  # it is kept once


def test_processes_whose_parents_ended_belong_to_the_subreaper() -> None:
    code = """
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
burn(0.2)
done, end = os.pipe(), os.pipe()
def daemon():
    os.setsid(); burn(0.25); os.write(done[1], b"."); os.read(end[0], 1)
os.waitpid(fork(lambda: fork(daemon)), 0)
os.read(done[0], 1)
tell(); ask()
os.write(end[1], b"."); os.wait()
tell(used(resource.RUSAGE_CHILDREN)); ask()
"""
    with program(code) as helper:
        helper.line()
        sampler = UsageSampler(reaper=helper.pid)
        before = measured(sampler)
        assert before.processes == 1
        assert 0.25 <= before.cpu_s < 0.35  # without the helper's own 0.2 s
        by_kernel_s = float(helper.next())
        after = measured(sampler)
        assert after.processes == 0
        assert after.cpu_s == pytest.approx(by_kernel_s, rel=0.02, abs=2 * TICK_S)


def test_server_that_is_gone_keeps_its_counters_and_holds_nothing() -> None:
    with program("burn(0.2); tell(); ask()") as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        before = measured(sampler)
        server.process.kill()
        server.process.wait()
        after = measured(sampler)
    assert after.cpu_s >= before.cpu_s >= 0.2
    assert (after.processes, after.threads, after.fds, after.memory_bytes) == (0, 0, 0, None)
    assert after.minor_faults == before.minor_faults


def test_threads_descriptors_faults_and_switches_are_those_of_the_tree() -> None:
    code = """
import threading
tell(); ask()
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
end = threading.Event()
threads = [threading.Thread(target=end.wait) for _ in range(5)]
for thread in threads: thread.start()
memory = bytearray(b"x") * 8_000_000
for _ in range(50): time.sleep(0)
tell(); ask(); end.set()
"""
    with program(code) as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        before = measured(sampler)
        server.next()
        after = measured(sampler)
        assert before.fds is not None
        assert after.fds == before.fds + 100
        assert (before.threads, after.threads) == (1, 6)
        assert before.minor_faults is not None
        assert after.minor_faults is not None
        assert after.minor_faults - before.minor_faults >= 8_000_000 // resource.getpagesize()
        assert before.voluntary_switches is not None
        assert after.voluntary_switches is not None
        assert after.voluntary_switches > before.voluntary_switches
        assert after.read_bytes is not None
        server.next()


def test_octets_written_by_a_child_that_has_ended_are_counted(tmp_path: Path) -> None:
    size = 3_000_000
    code = f"""
tell(); ask()
def work():
    with open({str(tmp_path / "file")!r}, "wb") as out:
        out.write(bytes({size})); out.flush(); os.fsync(out.fileno())
os.waitpid(fork(work), 0)
tell(dict(line.split(": ") for line in open("/proc/self/io"))["write_bytes"]); ask()
"""
    with program(code) as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        before = measured(sampler)
        by_kernel_bytes = int(server.next())
        after = measured(sampler)
    assert before.write_bytes is not None
    assert after.write_bytes == by_kernel_bytes  # 0 in a folder that is no disk


@pytest.mark.skipif(os.geteuid() != 0, reason="a process of another user is needed")
def test_what_may_not_be_read_is_not_known() -> None:
    code = """
import json
from smtpbench.supervisor.usage import UsageSampler
os.setresuid(65534, 65534, 65534)
sample = UsageSampler(lambda: [int(sys.argv[1])]).measure()
print(json.dumps([sample.processes, sample.fds, sample.read_bytes, sample.cpu_s > 0]))
"""
    with program("burn(0.05); tell(); ask()") as server:
        server.line()
        done = subprocess.run(
            [sys.executable, "-c", _COMMON + code, str(server.pid)], capture_output=True, text=True, check=True
        )
    fds = 3 if os.stat("/proc/self/fd").st_size else None  # their number needs no permission since Linux 6.2
    assert json.loads(done.stdout) == [1, fds, None, True]


async def test_memory_is_the_proportional_set_size_and_samples_come_each_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples: list[UsageSample] = []
    enough = trio.Event()

    def add(sample: UsageSample) -> None:
        samples.append(sample)
        if len(samples) == 2:
            enough.set()

    monkeypatch.setattr(usage, "INTERVAL_S", 0.01)
    with program("held = bytearray(b'x') * 30_000_000; tell(); ask()") as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sampler.run, add)
            await enough.wait()
            nursery.cancel_scope.cancel()
        rss = read_usage(server.pid)
    assert sampler.memory == PSS
    assert sampler.cost_ns > 0
    assert samples[0].memory_bytes is not None
    assert rss is not None
    assert 30_000_000 < samples[0].memory_bytes <= rss.rss_bytes


async def test_resident_set_size_is_used_throughout_where_the_other_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples: list[UsageSample] = []
    enough = trio.Event()

    def add(sample: UsageSample) -> None:
        samples.append(sample)
        if len(samples) == 3:
            enough.set()

    def refuse(pid: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(usage, "INTERVAL_S", 0.01)
    monkeypatch.setattr(process_usage, "read_pss_bytes", refuse)
    with program("tell(); ask()") as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sampler.run, add)
            await enough.wait()
            nursery.cancel_scope.cancel()
        expected = read_usage(server.pid)
    assert sampler.memory == RSS
    assert expected is not None
    assert [sample.memory_bytes for sample in samples] == [expected.rss_bytes] * 3


# Control groups -------------------------------------------------------------------------------------------------------


def test_cpu_time_of_a_control_group_of_version_2(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnice_usec 0\n")
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    sampler = UsageSampler(cgroup=tmp_path)
    sample = measured(sampler)
    assert sampler.source == CGROUP
    assert (sample.cpu_user_s, sample.cpu_system_s, sample.processes) == (3.0, 2.0, 1)
    (tmp_path / "cpu.stat").unlink()
    (tmp_path / "cgroup.procs").unlink()
    after = measured(sampler)  # the group was removed with its last process
    assert (after.cpu_user_s, after.cpu_system_s, after.processes) == (3.0, 2.0, 0)


def test_cpu_time_of_a_control_group_of_version_1(tmp_path: Path) -> None:
    for name, value in (("cpuacct.usage", 7 * NS_PER_S), ("cpuacct.usage_sys", 3 * NS_PER_S)):
        (tmp_path / name).write_text(f"{value}\n")
    assert cgroup_cpu_ns(tmp_path) == (7 * NS_PER_S, 3 * NS_PER_S)


def test_processes_of_a_control_group_include_those_below_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder, pids in ((tmp_path, "1\n2\n"), (tmp_path / "a", ""), (tmp_path / "a" / "b", "7\n")):
        (folder / "cgroup.procs").write_text(pids)
    assert cgroup_processes(tmp_path) == {1, 2, 7}
    assert cgroup_processes(tmp_path / "none") is None


def test_group_that_counts_no_cpu_time_leaves_the_processes_to_count(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert UsageSampler(cgroup=tmp_path).source == PROCESSES


def test_control_group_and_processes_agree() -> None:
    code = """
tell(); ask()
for _ in range(30): os.waitpid(fork(lambda: burn(0.01)), 0)
tell(); ask()
"""
    with program(code) as server, cgroup_of_version_2() as folder:
        server.line()
        by_group, by_processes = UsageSampler(cgroup=folder), UsageSampler(lambda: [server.pid])
        first = measured(by_processes)
        (folder / "cgroup.procs").write_text(str(server.pid))
        server.next()
        group, processes = measured(by_group), measured(by_processes)
        assert group.processes == processes.processes == 1
        assert group.cpu_s >= 0.3
        assert processes.cpu_s - first.cpu_s == pytest.approx(group.cpu_s, rel=0.02, abs=2 * TICK_S)
        server.process.kill()
        server.process.wait()


# A fake /proc ---------------------------------------------------------------------------------------------------------


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


def test_name_with_parentheses_does_not_shift_the_fields() -> None:
    name = b"x) R 1 (y"
    code = f"ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0); tell(); ask()"
    with program(code) as server:
        server.line()
        found = read_usage(server.pid)
        assert found is not None
        assert found.parent == os.getpid()


# Cost -----------------------------------------------------------------------------------------------------------------


def test_process_that_has_not_run_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "children = [fork(signal.pause) for _ in range(20)]; tell(); ask(); [os.kill(one, 9) for one in children]"
    read: list[str] = []

    def counted(path: str) -> bytes:
        read.append(path)
        return original(path)

    original = process_usage._read
    monkeypatch.setattr(process_usage, "_read", counted)
    with program(code) as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        # a child may still be on its way to its pause
        samples = [measured(sampler) for _ in range(50)]
        of_tree = {f"/proc/{pid}/stat" for pid in sampler.pids}
        read.clear()
        samples.append(measured(sampler))
        assert len(of_tree) == 21
        assert len(of_tree & set(read)) <= 2
        assert samples[-1].processes == 21
        assert samples[-1].fds == samples[-2].fds
        server.next()


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
