"""What one process has used and holds, read from /proc.

psutil reads the same files, but not the times of children, page faults or the size of a folder of descriptors, and it takes
five times as long for the others. Sixty processes must be read once a second without a loss to the load generator.

The CPU time is that of the clock of the process, which has nanoseconds; /proc/PID/stat has hundredths of a second, which for
many processes that live for a moment is no figure.

Sources: proc(5); clock_getcpuclockid(3) and `MAKE_PROCESS_CPUCLOCK` of the kernel's `posix-timers_types.h`.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from smtpbench.units import NS_PER_S

_PROC: Final = "/proc"
_TICK_NS: Final = NS_PER_S // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_SCHED_CLOCK: Final = 2
_SIGCHLD_MASK: Final = 1 << 16
_READ_BYTES: Final = 1 << 16


@dataclass(slots=True)
class Flow:
    """Counters that a process hands to the one that waits for it when it ends, so that their sum is preserved.

    Attributes:
        cpu_ns: CPU time, nanoseconds.
        system_ns: The part of it that the kernel used.
        minor_faults: Page faults that took no disk access.
        major_faults: Page faults that took one.
        read_bytes: Octets read from disks.
        write_bytes: Octets written to disks.
    """

    cpu_ns: int = 0
    system_ns: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    read_bytes: int = 0
    write_bytes: int = 0

    def add(self, other: Flow) -> None:
        """Add the counters of another."""
        self.cpu_ns += other.cpu_ns
        self.system_ns += other.system_ns
        self.minor_faults += other.minor_faults
        self.major_faults += other.major_faults
        self.read_bytes += other.read_bytes
        self.write_bytes += other.write_bytes


@dataclass(slots=True)
class ProcessUsage:
    """What a process has used and holds.

    Attributes:
        pid: The process.
        started: When it was started, clock ticks after the boot; with `pid` it names a process for good.
        parent: Its parent.
        flow: What it used itself, and what the children used that it has waited for.
        children_ns: The part of the CPU time that is that of those children.
        ended: Whether it has ended and its parent has not waited for it.
        ignores_children: Whether it ignores SIGCHLD, so that the kernel forgets what its children used.
        threads: Threads that exist.
        rss_bytes: Resident set size.
        fds: Open file descriptors; None if they cannot be read.
        has_io: Whether the octets of disks could be read.
        voluntary_switches: Context switches by waiting, of the threads that exist; None if they cannot be read.
        involuntary_switches: Context switches of threads whose time was up; None if they cannot be read.
    """

    pid: int
    started: int
    parent: int
    flow: Flow
    children_ns: int = 0
    ended: bool = False
    ignores_children: bool = False
    threads: int = 0
    rss_bytes: int = 0
    fds: int | None = None
    has_io: bool = False
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None


def processes() -> set[int]:
    """Return the numbers of all processes that are visible."""
    return {int(name) for name in os.listdir(_PROC) if name.isdigit()}


def read_name(pid: int) -> str:
    """Return the command of a process, at most 15 characters; empty if it has ended."""
    with suppress(OSError):
        return _read(f"{_PROC}/{pid}/comm").decode("utf-8", "replace").rstrip("\n")
    return ""


def read_parent(pid: int) -> int | None:
    """Return the parent of a process; None if it has ended."""
    fields = _stat_fields(pid)
    return None if fields is None else int(fields[1])


def read_usage(pid: int, before: ProcessUsage | None = None) -> ProcessUsage | None:
    """Return what a process has used; None if it has ended.

    Args:
        pid: The process.
        before: What it had used when it was last read. If it has not run since then, nothing else can have changed.
    """
    clock_ns = _cpu_clock_ns(pid)  # first: what the process does after this is seen the next time
    if before is not None and not before.ended and clock_ns == before.flow.cpu_ns - before.children_ns:
        return before
    fields = _stat_fields(pid)
    if fields is None:
        return None
    ended = fields[0] in (b"Z", b"X")
    user, system, children_user, children_system = (int(field) * _TICK_NS for field in fields[11:15])
    own_ns = user + system if clock_ns is None else clock_ns
    # both are rounded down; the clock is divided as they are
    own_system = own_ns * system // (user + system) if user + system else own_ns // 2
    children_ns = children_user + children_system
    flow = Flow(
        cpu_ns=own_ns + children_ns,
        system_ns=own_system + children_system,
        minor_faults=int(fields[7]) + int(fields[8]),
        major_faults=int(fields[9]) + int(fields[10]),
    )
    usage = ProcessUsage(pid, int(fields[19]), int(fields[1]), flow, children_ns, ended)
    read_bytes = _io_bytes(f"{_PROC}/{pid}/io")
    if read_bytes is not None:
        flow.read_bytes, flow.write_bytes = read_bytes
        usage.has_io = True
    if not ended:
        usage.threads = int(fields[17])
        usage.rss_bytes = int(fields[21]) * _PAGE_BYTES
        usage.fds = _count_descriptors(pid)
    _read_status(usage)
    return usage


def read_children_flow(pid: int) -> Flow | None:
    """Return what the children used that a process has waited for, without what it used itself; None if it has ended."""
    fields = _stat_fields(pid)
    if fields is None:
        return None
    children_user, children_system = (int(field) * _TICK_NS for field in fields[13:15])
    whole, own = _io_bytes(f"{_PROC}/{pid}/io"), _io_bytes(f"{_PROC}/{pid}/task/{pid}/io")
    read_bytes, write_bytes = (0, 0) if whole is None or own is None else (whole[0] - own[0], whole[1] - own[1])
    return Flow(children_user + children_system, children_system, int(fields[8]), int(fields[10]), read_bytes, write_bytes)


def read_pss_bytes(pid: int) -> int | None:
    """Return the proportional set size of a process: pages that it shares count in parts. None if it has ended.

    Raises:
        PermissionError: It belongs to another user.
    """
    try:
        text = _read(f"{_PROC}/{pid}/smaps_rollup")
    except PermissionError:
        raise
    except OSError:
        return None
    _, found, rest = text.partition(b"\nPss:")
    return int(rest.split(None, 1)[0]) * 1024 if found else None


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


def _stat_fields(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the state on, which is field 3 of proc(5)."""
    with suppress(OSError):
        # the name before may contain blanks and parentheses
        return _read(f"{_PROC}/{pid}/stat").rpartition(b") ")[2].split()
    return None


def _cpu_clock_ns(pid: int) -> int | None:
    with suppress(OSError):
        return time.clock_gettime_ns((~pid << 3) | _SCHED_CLOCK)
    return None


def _io_bytes(path: str) -> tuple[int, int] | None:
    """Return the octets read from and written to disks; None if they cannot be read."""
    with suppress(OSError):
        values = dict(line.split(b": ") for line in _read(path).splitlines())
        return int(values[b"read_bytes"]), int(values[b"write_bytes"])
    return None


def _count_descriptors(pid: int) -> int | None:
    with suppress(OSError):
        folder = f"{_PROC}/{pid}/fd"
        # the size of the folder is their number since Linux 6.2; before, it was 0
        return os.stat(folder).st_size or len(os.listdir(folder))
    return None


def _read_status(usage: ProcessUsage) -> None:
    with suppress(OSError):
        voluntary = involuntary = 0
        text = _read(f"{_PROC}/{usage.pid}/status")
        usage.ignores_children = bool(int(_value(text, b"SigIgn"), 16) & _SIGCHLD_MASK)
        texts = [text]
        if usage.threads > 1:
            folder = f"{_PROC}/{usage.pid}/task"
            texts = []
            for thread in os.listdir(folder):
                with suppress(FileNotFoundError, ProcessLookupError):
                    texts.append(_read(f"{folder}/{thread}/status"))
        for one in texts:
            voluntary += int(_value(one, b"voluntary_ctxt_switches"))
            involuntary += int(_value(one, b"nonvoluntary_ctxt_switches"))
        usage.voluntary_switches, usage.involuntary_switches = voluntary, involuntary


def _value(text: bytes, name: bytes) -> bytes:
    """Return a value of /proc/PID/status; 0 if there is none."""
    return text.partition(b"\n" + name + b":")[2].split(None, 1)[0] if b"\n" + name + b":" in text else b"0"
