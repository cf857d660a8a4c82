"""What /proc, /sys and resource limits show of this machine. None stands for what they do not show."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_USER_HZ_FIELDS = 8  # user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)); guest time is in user


@dataclass(frozen=True, slots=True)
class Machine:
    """Settings and resources of this machine.

    Attributes:
        files_soft: Soft limit of open files.
        files_hard: Hard limit of open files.
        ports: Lowest and highest local port.
        reserved_ports: Number of reserved ports (net.ipv4.ip_local_reserved_ports).
        tw_reuse: net.ipv4.tcp_tw_reuse.
        timestamps: net.ipv4.tcp_timestamps.
        time_wait: Number of sockets in TIME_WAIT.
        tracked: Connections that netfilter tracks, and the largest number that it can track.
        somaxconn: net.core.somaxconn.
        cores: Cores of the machine.
        usable: Cores on which this process may run.
        quota_cores: Smallest CPU quota of the control groups, cores; 0 for none.
        throttled: How often a quota stopped the control group.
        governors: CPU frequency governors of the usable cores.
        memory_available_bytes: MemAvailable of /proc/meminfo.
        memory_room_bytes: Memory that is left in the control group with the least of it.
        swap_total_bytes: Size of the swap space.
        swap_used_bytes: Used swap space.
        clocksource: Clock source of the kernel; empty if it does not show one.
    """

    files_soft: int
    files_hard: int
    ports: tuple[int, int] | None = None
    reserved_ports: int = 0
    tw_reuse: int | None = None
    timestamps: int | None = None
    time_wait: int | None = None
    tracked: tuple[int, int] | None = None
    somaxconn: int | None = None
    cores: int = 1
    usable: int = 1
    quota_cores: float | None = None
    throttled: int = 0
    governors: tuple[str, ...] = ()
    memory_available_bytes: int | None = None
    memory_room_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    clocksource: str = ""


@dataclass(frozen=True, slots=True)
class ActivityCounters:
    """Counters that only grow.

    Attributes:
        ticks: Core → time in each state, as in /proc/stat.
        swapped_pages: Pages read from and written to swap.
    """

    ticks: dict[int, tuple[int, ...]]
    swapped_pages: int | None


@dataclass(frozen=True, slots=True)
class PythonBuild:
    """How this Python was built, and how it runs.

    Attributes:
        version: Version number.
        implementation: Name of the implementation, such as `cpython`.
        optimised: Whether it was built with profile-guided optimisation; None if unknown.
        debug: Whether it is a debug build.
        traced: Whether a tracer or a profiler is active.
        dev_mode: Whether it runs in development mode.
        free_threaded: Whether it was built without the global interpreter lock.
    """

    version: str
    implementation: str
    optimised: bool | None
    debug: bool
    traced: bool
    dev_mode: bool
    free_threaded: bool


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """The disk to which results would go.

    Attributes:
        folder: Folder of the results, or the nearest existing folder above it.
        free_bytes: Free space.
        write_bytes_per_s: Measured write speed, octets a second.
        error: Why it cannot be used; empty if it can.
    """

    folder: Path
    free_bytes: int
    write_bytes_per_s: float
    error: str = ""


def read_machine(root: Path = _ROOT) -> Machine:
    """Read settings and resources; `root` is the folder that holds /proc and /sys."""
    files = _SystemFiles(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    system_limit = files.number("proc/sys/fs/nr_open") or 1 << 20
    memory, usable = files.memory(), sorted(os.sched_getaffinity(0))
    total, free = memory.get("SwapTotal"), memory.get("SwapFree")
    ports = files.text("proc/sys/net/ipv4/ip_local_port_range").split()
    tracked, tracked_limit = (files.number(f"proc/sys/net/netfilter/nf_conntrack_{name}") for name in ("count", "max"))
    time_wait = re.search(r"^TCP:.* tw (\d+)", files.text("proc/net/sockstat"), re.MULTILINE)
    governors = {files.text(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor").strip() for core in usable}
    quota, throttled = files.quota()
    return Machine(
        files_soft=system_limit if soft == resource.RLIM_INFINITY else soft,
        files_hard=system_limit if hard == resource.RLIM_INFINITY else hard,
        ports=(int(ports[0]), int(ports[1])) if len(ports) == 2 and all(map(str.isdigit, ports)) else None,
        reserved_ports=count_ports(files.text("proc/sys/net/ipv4/ip_local_reserved_ports")),
        tw_reuse=files.number("proc/sys/net/ipv4/tcp_tw_reuse"),
        timestamps=files.number("proc/sys/net/ipv4/tcp_timestamps"),
        time_wait=int(time_wait[1]) if time_wait else None,
        tracked=(tracked, tracked_limit) if tracked is not None and tracked_limit else None,
        somaxconn=files.number("proc/sys/net/core/somaxconn"),
        cores=os.cpu_count() or len(usable),
        usable=len(usable),
        quota_cores=quota,
        throttled=throttled,
        governors=tuple(sorted(governors - {""})),
        memory_available_bytes=memory.get("MemAvailable"),
        memory_room_bytes=files.memory_room(),
        swap_total_bytes=total,
        swap_used_bytes=None if total is None or free is None else total - free,
        clocksource=files.text("sys/devices/system/clocksource/clocksource0/current_clocksource").strip(),
    )


class _SystemFiles:
    """Files that may be missing, unreadable or malformed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def text(self, name: str) -> str:
        """Return the text of a file; empty if it cannot be read."""
        try:
            return (self._root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def number(self, name: str) -> int | None:
        """Return the number that a file holds; None if it holds none."""
        text = self.text(name).strip()
        return int(text) if re.fullmatch(r"-?\d{1,19}", text) else None

    def memory(self) -> dict[str, int]:
        """Return /proc/meminfo, bytes."""
        found = re.findall(r"^(\w+):\s+(\d+) kB$", self.text("proc/meminfo"), re.MULTILINE)
        return {name: int(kib) * 1024 for name, kib in found}

    def groups(self, controller: str) -> list[str]:
        """Return the folders of this process's control group and of those above it, version 2 and 1 (cgroups(7))."""
        found: list[str] = []
        for line in self.text("proc/self/cgroup").splitlines():
            hierarchy, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            groups = [str(one).strip("/") for one in (PurePosixPath(path), *PurePosixPath(path).parents)]
            if (hierarchy, controllers) == ("0", ""):
                found += [f"sys/fs/cgroup/{one}" for one in groups]
            elif controller in controllers.split(","):
                found += [
                    f"sys/fs/cgroup/{base}/{one}" for one in groups for base in dict.fromkeys((controllers, controller))
                ]
        return found

    def quota(self) -> tuple[float | None, int]:
        """Return the smallest CPU quota in cores (0 for none, None if unknown), and how often it was used up."""
        found: list[float] = []
        throttled = 0
        for group in self.groups("cpu"):
            parts = self.text(f"{group}/cpu.max").split()
            if len(parts) != 2:
                pair = (self.number(f"{group}/cpu.cfs_{name}_us") for name in ("quota", "period"))
                parts = ["" if one is None else "max" if one < 0 else str(one) for one in pair]
            if parts[0] == "max":
                found.append(0.0)
            elif all(part.isdigit() and int(part) for part in parts):
                found.append(int(parts[0]) / int(parts[1]))
                stat = re.search(r"^nr_throttled (\d+)$", self.text(f"{group}/cpu.stat"), re.MULTILINE)
                throttled = max(throttled, int(stat[1]) if stat else 0)
        return min(filter(None, found), default=0.0 if found else None), throttled

    def memory_room(self) -> int | None:
        """Return the memory that the control groups still allow, bytes; None if they set no limit."""
        rooms = []
        for group in self.groups("memory"):
            for limit_name, used_name in (
                ("memory.max", "memory.current"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            ):
                limit, used = self.number(f"{group}/{limit_name}"), self.number(f"{group}/{used_name}")
                if limit is not None and used is not None and limit < 1 << 60:  # version 1 writes a huge number for no limit
                    rooms.append(max(0, limit - used))
        return min(rooms, default=None)


def count_ports(text: str) -> int:
    """Return the number of ports in a list like `8080,9000-9010`."""
    ends = (part.partition("-") for part in text.strip().split(",") if re.fullmatch(r"\d+(-\d+)?", part))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def read_counters(root: Path = _ROOT) -> ActivityCounters:
    """Read the counters of the cores on which this process may run."""
    files, usable = _SystemFiles(root), os.sched_getaffinity(0)
    lines = re.findall(r"^cpu(\d+) ([\d ]+)$", files.text("proc/stat"), re.MULTILINE)
    ticks = {int(core): tuple(map(int, rest.split()))[:_USER_HZ_FIELDS] for core, rest in lines if int(core) in usable}
    swapped = re.findall(r"^pswp(?:in|out) (\d+)$", files.text("proc/vmstat"), re.MULTILINE)
    return ActivityCounters(ticks, sum(map(int, swapped)) if swapped else None)


def read_build(configuration: Callable[[str], object] = sysconfig.get_config_var) -> PythonBuild:
    """Return how the running Python was built."""
    arguments, flags = str(configuration("CONFIG_ARGS") or ""), str(configuration("PY_CFLAGS_NODIST") or "")
    known = bool(arguments or flags)
    return PythonBuild(
        version=".".join(map(str, sys.version_info[:3])),
        implementation=sys.implementation.name,
        optimised="--enable-optimizations" in arguments or "-fprofile-use" in flags if known else None,
        debug=hasattr(sys, "gettotalrefcount") or bool(configuration("Py_DEBUG")),
        traced=sys.gettrace() is not None or sys.getprofile() is not None,
        dev_mode=sys.flags.dev_mode,
        free_threaded=bool(configuration("Py_GIL_DISABLED")),
    )


def read_disk(folder: Path, measure: Callable[[Path], float]) -> DiskInfo:
    """Return free space and speed of the disk of a folder; `measure` returns the write speed, octets a second."""
    existing = nearest_existing_folder(folder)
    try:
        free_bytes = shutil.disk_usage(existing).free
        return DiskInfo(existing, free_bytes, measure(existing))
    except OSError as error:
        return DiskInfo(existing, 0, 0.0, (error.strerror or str(error)).lower())


def nearest_existing_folder(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    absolute = folder.absolute()
    return next((one for one in (absolute, *absolute.parents) if one.is_dir()), Path("/"))
