"""What the processes of a server use: samples of the whole tree, with the children that live only for a moment.

Theory of operation
===================

CPU time is counted in one of two ways:

- From a control group that holds only the server (`cpu.stat`, or `cpuacct.usage` of version 1). The kernel's count is exact.
- From the processes. When a process ends and its parent waits for it, the kernel adds its times to the children's times of
  the parent. The sum over the tree of own times and children's times therefore loses nothing, however short a process lives.
  The subreaper of a server that smtpbench started waits for those whose parents ended earlier; its children's times are part
  of the sum, its own times are not. What a process takes with it is kept as it was last seen: where its parent ignores
  SIGCHLD, or where nobody of the tree waits for it.

Page faults and octets of disks are passed on in the same way. Context switches are not: those of processes that ended are
kept as they were last seen. Memory, descriptors and threads are those of the processes that exist.

A process may end while the others are read. A parent is therefore read before its children: the sum may then lack the
process for one sample, and no counter counts it twice. No counter of a sample is less than that of the one before.

Memory is the proportional set size, which counts shared pages once, if it can be read for every process of the first sample.
Otherwise it is the resident set size. The two are never mixed. Reading the proportional set size makes the kernel walk all
pages of a process, so it is read less often: it may take 1/500 of a core, and all other samples 1/200.

Sources: `wait_task_zombie` in the kernel's `exit.c`; proc(5); cgroups(7).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from smtpbench.measure.server_usage import UsageSample
from smtpbench.supervisor import process_usage
from smtpbench.supervisor.process_usage import Flow, ProcessUsage
from smtpbench.units import NS_PER_S

CGROUP, PROCESSES = "cgroup", "processes"
PSS, RSS = "pss", "rss"

#: Time between two samples, seconds.
INTERVAL_S: Final = 1.0
#: Share of a core that samples may take; a server of thousands of processes is sampled less often.
_MAX_SHARE: Final = 1 / 200
#: Share of a core that reading the proportional set size may take.
_MAX_PSS_SHARE: Final = 1 / 500
#: The proportional set size is part of a sample of a certain moment if reading it last took at most so long.
_QUICK_PSS_NS: Final = 3_000_000
#: Processes that are read before the event loop runs again.
_PROCESSES_PER_STEP: Final = 8
_SHELLS: Final = frozenset({"sh", "dash", "bash", "ash", "busybox"})
#: Below this, the times of children that /proc rounds to hundredths of a second say nothing.
_ROUNDING_NS: Final = 40_000_000


class UsageSampler:
    """Samples what the processes of a server use.

    Args:
        roots: Called for each sample: the first processes of the server. All their descendants belong to it.
        reaper: Process whose children all belong to the server, and which does not itself: its subreaper.
        cgroup: Folder of a control group that holds the server and nothing else; None to count the processes.
        restarts: Called for each sample: how often the server was started again.

    Attributes:
        source: How CPU time is counted: CGROUP or PROCESSES.
        memory: Which memory is read: PSS or RSS; empty before the first sample of `run`.
        cost_ns: CPU time of the samples of `run` so far, nanoseconds.
    """

    def __init__(
        self,
        roots: Callable[[], Iterable[int]] = lambda: (),
        *,
        reaper: int | None = None,
        cgroup: Path | None = None,
        restarts: Callable[[], int] = lambda: 0,
    ) -> None:
        self._roots = roots
        self._reaper = reaper
        self._cgroup = cgroup
        self._restarts = restarts
        self._known_roots: frozenset[int] = frozenset()
        self._members: dict[int, ProcessUsage] = {}
        self._others: set[int] = set()
        self._reaped: Flow | None = None
        self._kept = Flow()
        self._kept_switches = [0, 0]
        self._last: UsageSample | None = None
        self._samples = 0
        self._name = ""
        self._pss_cost_ns = 0
        self.source = CGROUP if cgroup is not None and cgroup_cpu_ns(cgroup) is not None else PROCESSES
        self.memory = ""
        self.cost_ns = 0

    @property
    def pids(self) -> list[int]:
        """The processes of the server in the last sample that had not ended."""
        return [one.pid for one in self._members.values() if not one.ended]

    @property
    def name(self) -> str:
        """Command of the first process, a shell that started another one left out; empty if none was seen."""
        if not self._name:
            names = [name for pid in self._by_age(self.pids) if (name := process_usage.read_name(pid))]
            self._name = next((name for name in names if name not in _SHELLS), "".join(names[:1]))
        return self._name

    @property
    def cores(self) -> frozenset[int]:
        """The cores that the processes of the last sample may run on; empty if that is not known."""
        found: set[int] = set()
        for pid in self.pids:
            with suppress(OSError):
                found |= os.sched_getaffinity(pid)
        return frozenset(found)

    def measure(self) -> UsageSample | None:
        """Return a sample of this moment; None if the server was never seen.

        The proportional set size is left out where reading it would delay the event loop.
        """
        steps = self._steps()
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                sample: UsageSample | None = stop.value
                break
        if sample is not None and self.memory == PSS and sample.processes and self._pss_cost_ns <= _QUICK_PSS_NS:
            sample = replace(sample, memory_bytes=_pss_of(self.pids)[0])
        return sample

    async def run(self, add: Callable[[UsageSample], None]) -> None:
        """Take a sample about once a second until cancelled; the event loop runs between its parts.

        Args:
            add: Called with every sample.
        """
        pss_due_ns = 0
        due = trio.current_time()
        while True:
            before_ns = self.cost_ns
            sample = await self._sample()
            if sample is not None and sample.processes and self.memory != RSS and sample.at_ns >= pss_due_ns:
                started_ns = time.monotonic_ns()
                memory_bytes, pss_cost_ns = await trio.to_thread.run_sync(_pss_of, self.pids, abandon_on_cancel=True)
                if not self.memory:
                    self.memory = RSS if memory_bytes is None else PSS
                self._pss_cost_ns = pss_cost_ns
                pss_due_ns = started_ns + max(round(INTERVAL_S * NS_PER_S) // 2, round(pss_cost_ns / _MAX_PSS_SHARE))
                self.cost_ns += pss_cost_ns
                before_ns += pss_cost_ns
                rss_bytes = self._rss_bytes() if self.memory == RSS else None
                sample = replace(sample, memory_bytes=memory_bytes if self.memory == PSS else rss_bytes)
            if sample is not None:
                add(sample)
            due = max(due + max(INTERVAL_S, (self.cost_ns - before_ns) / _MAX_SHARE / NS_PER_S), trio.current_time())
            await trio.sleep_until(due)

    async def _sample(self) -> UsageSample | None:
        steps = self._steps()
        while True:
            started_ns = time.thread_time_ns()
            try:
                next(steps)
            except StopIteration as stop:
                sample: UsageSample | None = stop.value
                return sample
            finally:
                self.cost_ns += time.thread_time_ns() - started_ns
            await trio.lowlevel.checkpoint()

    def _steps(self) -> Generator[None, None, UsageSample | None]:
        """Take a sample in small steps. One that another overtook returns None."""
        number = self._samples
        reaped = Flow() if self._reaper is None else process_usage.read_children_flow(self._reaper)
        found: dict[int, ProcessUsage] = {}
        for count, pid in enumerate(self._find(), 1):
            usage = process_usage.read_usage(pid, self._members.get(pid))
            if usage is not None:
                found[pid] = usage
            if count % _PROCESSES_PER_STEP == 0:
                yield
                if self._samples != number:
                    return None
        self._samples += 1
        vanished = [one for pid, one in self._members.items() if pid not in found or found[pid].started != one.started]
        self._keep(vanished, found)
        self._members = found
        self._reaped = reaped if reaped is not None else self._reaped
        if not found and self._last is None and not (self._reaped and self._reaped.cpu_ns):
            return None
        self._last = self._make_sample()
        return self._last

    def _find(self) -> list[int]:
        """Return the processes of the server, parents first."""
        if self._cgroup is not None:
            return self._by_age(cgroup_processes(self._cgroup) or ())
        roots = frozenset(self._roots())
        if roots != self._known_roots:
            self._known_roots = roots
            self._others.clear()  # a process that did not belong to the server may do now
        existing = process_usage.processes()
        self._others &= existing
        members = {pid for pid in self._members if pid in existing} | (roots & existing)
        parents = {}
        for pid in existing - members - self._others:
            parent = process_usage.read_parent(pid)
            if parent is not None and pid != self._reaper:
                parents[pid] = parent
        belonging = members | self._members.keys() | ({self._reaper} if self._reaper is not None else set())
        grew = True
        while grew:
            new = {pid for pid, parent in parents.items() if parent in belonging and pid not in members}
            members |= new
            belonging |= new
            grew = bool(new)
        self._others |= parents.keys() - members
        return self._by_age(members)

    def _by_age(self, pids: Iterable[int]) -> list[int]:
        """Return processes in the order of their start, as far as it is known; a parent is older than its children."""
        return sorted(pids, key=lambda pid: (self._members[pid].started if pid in self._members else math.inf, pid))

    def _keep(self, vanished: list[ProcessUsage], found: Mapping[int, ProcessUsage]) -> None:
        """Keep what processes that are gone took with them."""
        by_waiter: dict[int, list[ProcessUsage]] = {}
        for one in vanished:
            self._kept_switches[0] += one.voluntary_switches or 0
            self._kept_switches[1] += one.involuntary_switches or 0
            waiter = self._waiter(one, found)
            if waiter is None or waiter.ignores_children:
                self._kept.add(one.flow)
            elif waiter.pid:
                by_waiter.setdefault(waiter.pid, []).append(one)
        for pid, ended in by_waiter.items():
            before = self._members[pid]
            if sum(one.flow.cpu_ns for one in ended) <= _ROUNDING_NS or found[pid].children_ns > before.children_ns:
                continue
            again = process_usage.read_usage(pid)  # it may have waited for them after it was read
            if again is None or again.children_ns == before.children_ns:
                for one in ended:  # it lets the kernel forget its children in another way, SA_NOCLDWAIT
                    self._kept.add(one.flow)

    def _waiter(self, usage: ProcessUsage, found: Mapping[int, ProcessUsage]) -> ProcessUsage | None:
        """Return the process that has waited for one that is gone; one with the number 0 for the subreaper; else None."""
        seen = {usage.pid}
        parent = usage.parent
        while parent != self._reaper and parent in self._members and parent not in seen:
            before, now = self._members[parent], found.get(parent)
            if now is not None and now.started == before.started:
                return now
            seen.add(parent)
            parent = before.parent
        return None if self._reaper is None else _SUBREAPER

    def _rss_bytes(self) -> int:
        return sum(one.rss_bytes for one in self._members.values())

    def _make_sample(self) -> UsageSample:
        everything = list(self._members.values())
        alive = [one for one in everything if not one.ended]
        flow = Flow()
        for part in (*(one.flow for one in everything), self._kept, self._reaped or Flow()):
            flow.add(part)
        cpu_ns, system_ns = flow.cpu_ns, flow.system_ns
        exact = cgroup_cpu_ns(self._cgroup) if self.source == CGROUP and self._cgroup is not None else None
        if exact is not None:
            cpu_ns, system_ns = exact
        elif self.source == CGROUP:  # it was removed with its last process
            cpu_ns = system_ns = 0
        last = self._last or _NOTHING
        last_user_ns, last_system_ns = _times_ns(last)
        cpu_ns = max(cpu_ns, last_user_ns + last_system_ns)
        system_ns = min(max(system_ns, last_system_ns), cpu_ns - last_user_ns)
        voluntary = [one.voluntary_switches for one in everything if one.voluntary_switches is not None]
        involuntary = [one.involuntary_switches for one in everything if one.involuntary_switches is not None]
        fds = [one.fds for one in alive if one.fds is not None]
        has_io = all(one.has_io for one in everything)
        return UsageSample(
            at_ns=time.monotonic_ns(),
            cpu_user_s=(cpu_ns - system_ns) / NS_PER_S,
            cpu_system_s=system_ns / NS_PER_S,
            memory_bytes=self._rss_bytes() if self.memory == RSS and alive else None,
            processes=len(alive),
            threads=sum(one.threads for one in alive),
            fds=sum(fds) if len(fds) == len(alive) else None,
            minor_faults=_not_less(flow.minor_faults, last.minor_faults),
            major_faults=_not_less(flow.major_faults, last.major_faults),
            read_bytes=_not_less(flow.read_bytes, last.read_bytes) if has_io else None,
            write_bytes=_not_less(flow.write_bytes, last.write_bytes) if has_io else None,
            voluntary_switches=_not_less(sum(voluntary) + self._kept_switches[0], last.voluntary_switches),
            involuntary_switches=_not_less(sum(involuntary) + self._kept_switches[1], last.involuntary_switches),
            restarts=self._restarts(),
            rss_bytes=self._rss_bytes() if alive else None,
        )


#: Comes before the first sample.
_NOTHING: Final = UsageSample(0, 0.0, 0.0)
#: Stands for the subreaper, which waits for every process and passes everything on.
_SUBREAPER: Final = ProcessUsage(0, 0, 0, Flow())


def _times_ns(sample: UsageSample) -> tuple[int, int]:
    return round(sample.cpu_user_s * NS_PER_S), round(sample.cpu_system_s * NS_PER_S)


def _not_less(value: int, before: int | None) -> int:
    """Return a counter, or what it was before if it seems to have decreased."""
    return value if before is None else max(value, before)


def _pss_of(pids: Iterable[int]) -> tuple[int | None, int]:
    """Return the proportional set size of processes and the CPU time that it took; None for a size that cannot be read."""
    started_ns = time.thread_time_ns()
    total = 0
    with suppress(PermissionError):
        for pid in pids:
            total += process_usage.read_pss_bytes(pid) or 0
        return total, time.thread_time_ns() - started_ns
    return None, time.thread_time_ns() - started_ns


def cgroup_cpu_ns(folder: Path) -> tuple[int, int] | None:
    """Return the CPU time of a control group and the part of the kernel, nanoseconds; None if it does not count it."""
    with suppress(OSError, ValueError):
        values = dict(line.split() for line in (folder / "cpu.stat").read_text(encoding="ascii").splitlines())
        if "usage_usec" in values:
            return int(values["usage_usec"]) * 1000, int(values["system_usec"]) * 1000
    with suppress(OSError, ValueError):
        usage, system = (int((folder / name).read_text(encoding="ascii")) for name in ("cpuacct.usage", "cpuacct.usage_sys"))
        return usage, min(system, usage)
    return None


def cgroup_processes(folder: Path) -> set[int] | None:
    """Return the processes of a control group and of those below it; None if it does not exist."""
    try:
        found = {int(pid) for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split()}
        below = [one for one in folder.iterdir() if one.is_dir()]
    except (OSError, ValueError):
        return None
    for one in below:
        found |= cgroup_processes(one) or set()
    return found
