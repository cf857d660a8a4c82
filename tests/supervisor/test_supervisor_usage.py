"""What the processes of a server use: against the kernel's own account, with real processes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cgroups import cgroup_of_version_2
from usage_samples import first_samples, measured

from smtpbench.supervisor import process_usage, usage
from smtpbench.supervisor.process_usage import read_usage
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
    monkeypatch.setattr(usage, "INTERVAL_S", 0.01)
    with program("held = bytearray(b'x') * 30_000_000; tell(); ask()") as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        samples = await first_samples(sampler, 2)
        rss = read_usage(server.pid)
    assert sampler.memory == PSS
    assert sampler.cost_ns > 0
    assert samples[0].memory_bytes is not None
    assert rss is not None
    assert 30_000_000 < samples[0].memory_bytes <= rss.rss_bytes


async def test_resident_set_size_is_used_throughout_where_the_other_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(usage, "INTERVAL_S", 0.01)
    monkeypatch.setattr(process_usage, "read_pss_bytes", refuse)
    with program("tell(); ask()") as server:
        server.line()
        sampler = UsageSampler(lambda: [server.pid])
        samples = await first_samples(sampler, 3)
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


# Files of /proc -------------------------------------------------------------------------------------------------------


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
