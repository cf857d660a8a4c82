"""Resources that the server under test used, as samples of its whole process tree."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UsageSample:
    """What the server's processes have used up to a moment, and what they hold at that moment.

    Counters include processes that have ended. A value that cannot be read is None; it is never estimated.

    Attributes:
        at_ns: The moment, of `time.monotonic_ns`.
        cpu_user_s: User CPU time, seconds.
        cpu_system_s: System CPU time, seconds.
        memory_bytes: Memory in use: the proportional set size (PSS) where it can be read, else the resident set size.
        rss_bytes: Resident set size, which takes less to read; shared pages count once for each process.
        processes: Processes that exist.
        threads: Threads that exist.
        fds: Open file descriptors.
        minor_faults: Page faults that took no disk access.
        major_faults: Page faults that took one.
        read_bytes: Octets read from disks.
        write_bytes: Octets written to disks.
        fsyncs: Calls that wait for a disk.
        voluntary_switches: Context switches of processes that waited.
        involuntary_switches: Context switches of processes whose time was up.
        restarts: How often the server was started again.
    """

    at_ns: int
    cpu_user_s: float
    cpu_system_s: float
    memory_bytes: int | None = None
    processes: int = 0
    threads: int | None = None
    fds: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None
    fsyncs: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    restarts: int = 0
    rss_bytes: int | None = None

    @property
    def cpu_s(self) -> float:
        """User and system CPU time, seconds."""
        return self.cpu_user_s + self.cpu_system_s
