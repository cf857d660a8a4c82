"""What this machine tells of itself: /proc, /sys and limits, read and nothing more. None is what it does not tell."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_USER_HZ_FIELDS = 8  # user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)); guest time is in user


@dataclass(frozen=True, slots=True)
class Machine:
    """Settings and room.

    ports: lowest and highest local port. reserved_ports: those of them that are kept back. tw_reuse: net.ipv4.tcp_tw_reuse.
    time_wait: sockets in TIME_WAIT now. tracked: connections that netfilter tracks now, and may at most. cores, usable: of
    the machine, and those this process may run on. quota_cores: the least of its control groups' CPU quotas, 0 where there
    is none; throttled: how often they stopped it. memory_room_bytes: until the least of its control groups' memory limits.
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
class Moment:
    """Counters that only grow. ticks: by core, of each kind of time in /proc/stat. paged: pages from and to swap."""

    ticks: dict[int, tuple[int, ...]]
    paged: int | None


@dataclass(frozen=True, slots=True)
class Build:
    """How this Python was made. optimised: with profile-guided optimisation, None where it does not tell."""

    version: str
    implementation: str
    optimised: bool | None
    debug: bool
    traced: bool
    dev_mode: bool
    free_threaded: bool


@dataclass(frozen=True, slots=True)
class Disk:
    """Where results go. folder: that which would hold them, or the nearest above it that is there."""

    folder: Path
    free_bytes: int
    write_bytes_per_s: float
    trouble: str = ""


def read_machine(root: Path = _ROOT) -> Machine:
    """All of it. root: where /proc and /sys stand."""
    read = _Reader(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = read.number("proc/sys/fs/nr_open") or 1 << 20
    memory, usable = read.memory(), sorted(os.sched_getaffinity(0))
    total, free = memory.get("SwapTotal"), memory.get("SwapFree")
    ports = read.text("proc/sys/net/ipv4/ip_local_port_range").split()
    count, tracked = (read.number(f"proc/sys/net/netfilter/nf_conntrack_{name}") for name in ("count", "max"))
    time_wait = re.search(r"^TCP:.* tw (\d+)", read.text("proc/net/sockstat"), re.MULTILINE)
    governors = {read.text(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor").strip() for core in usable}
    quota, throttled = read.quota()
    return Machine(
        files_soft=most if soft == resource.RLIM_INFINITY else soft,
        files_hard=most if hard == resource.RLIM_INFINITY else hard,
        ports=(int(ports[0]), int(ports[1])) if len(ports) == 2 and all(map(str.isdigit, ports)) else None,
        reserved_ports=ports_in(read.text("proc/sys/net/ipv4/ip_local_reserved_ports")),
        tw_reuse=read.number("proc/sys/net/ipv4/tcp_tw_reuse"),
        timestamps=read.number("proc/sys/net/ipv4/tcp_timestamps"),
        time_wait=int(time_wait[1]) if time_wait else None,
        tracked=(count, tracked) if count is not None and tracked else None,
        somaxconn=read.number("proc/sys/net/core/somaxconn"),
        cores=os.cpu_count() or len(usable),
        usable=len(usable),
        quota_cores=quota,
        throttled=throttled,
        governors=tuple(sorted(governors - {""})),
        memory_available_bytes=memory.get("MemAvailable"),
        memory_room_bytes=read.memory_room(),
        swap_total_bytes=total,
        swap_used_bytes=None if total is None or free is None else total - free,
        clocksource=read.text("sys/devices/system/clocksource/clocksource0/current_clocksource").strip(),
    )


class _Reader:
    """Files that may be missing, forbidden or odd."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def text(self, name: str) -> str:
        """Its text; empty where it cannot be read."""
        try:
            return (self._root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def number(self, name: str) -> int | None:
        """The number that it holds."""
        text = self.text(name).strip()
        return int(text) if re.fullmatch(r"-?\d{1,19}", text) else None

    def memory(self) -> dict[str, int]:
        """/proc/meminfo, in bytes."""
        found = re.findall(r"^(\w+):\s+(\d+) kB$", self.text("proc/meminfo"), re.MULTILINE)
        return {name: int(kib) * 1024 for name, kib in found}

    def groups(self, controller: str) -> list[str]:
        """This process's control group and those above it, as folders (cgroups(7)); of version 2, else of version 1."""
        found: list[str] = []
        for line in self.text("proc/self/cgroup").splitlines():
            number, _, rest = line.partition(":")
            names, _, place = rest.partition(":")
            path = PurePosixPath(place)
            above = [str(one).strip("/") for one in (path, *path.parents)]
            if (number, names) == ("0", ""):
                found += [f"sys/fs/cgroup/{one}" for one in above]
            elif controller in names.split(","):
                found += [f"sys/fs/cgroup/{base}/{one}" for one in above for base in dict.fromkeys((names, controller))]
        return found

    def quota(self) -> tuple[float | None, int]:
        """The least quota in cores, 0 for none, None where nothing tells; and how often it was used up."""
        found: list[float] = []
        throttled = 0
        for group in self.groups("cpu"):
            words = self.text(f"{group}/cpu.max").split()
            if len(words) != 2:
                pair = (self.number(f"{group}/cpu.cfs_{name}_us") for name in ("quota", "period"))
                words = ["" if one is None else "max" if one < 0 else str(one) for one in pair]
            if words[0] == "max":
                found.append(0.0)
            elif all(word.isdigit() and int(word) for word in words):
                found.append(int(words[0]) / int(words[1]))
                stat = re.search(r"^nr_throttled (\d+)$", self.text(f"{group}/cpu.stat"), re.MULTILINE)
                throttled = max(throttled, int(stat[1]) if stat else 0)
        return min(filter(None, found), default=0.0 if found else None), throttled

    def memory_room(self) -> int | None:
        """How much its control groups still allow; None where they set no limit."""
        rooms = []
        for group in self.groups("memory"):
            for limit_name, used_name in (
                ("memory.max", "memory.current"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            ):
                limit, used = self.number(f"{group}/{limit_name}"), self.number(f"{group}/{used_name}")
                if limit is not None and used is not None and limit < 1 << 60:  # version 1 writes a huge one for none
                    rooms.append(max(0, limit - used))
        return min(rooms, default=None)


def ports_in(text: str) -> int:
    """How many ports a list like `8080,9000-9010` names."""
    ends = (part.partition("-") for part in text.strip().split(",") if re.fullmatch(r"\d+(-\d+)?", part))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def read_moment(root: Path = _ROOT) -> Moment:
    """The counters now, of the cores that this process may run on."""
    read, usable = _Reader(root), os.sched_getaffinity(0)
    lines = re.findall(r"^cpu(\d+) ([\d ]+)$", read.text("proc/stat"), re.MULTILINE)
    ticks = {int(core): tuple(map(int, rest.split()))[:_USER_HZ_FIELDS] for core, rest in lines if int(core) in usable}
    paged = re.findall(r"^pswp(?:in|out) (\d+)$", read.text("proc/vmstat"), re.MULTILINE)
    return Moment(ticks, sum(map(int, paged)) if paged else None)


def read_build(configuration: Callable[[str], object] = sysconfig.get_config_var) -> Build:
    """Of the Python that this runs in."""
    arguments, flags = str(configuration("CONFIG_ARGS") or ""), str(configuration("PY_CFLAGS_NODIST") or "")
    told = bool(arguments or flags)
    return Build(
        version=".".join(map(str, sys.version_info[:3])),
        implementation=sys.implementation.name,
        optimised="--enable-optimizations" in arguments or "-fprofile-use" in flags if told else None,
        debug=hasattr(sys, "gettotalrefcount") or bool(configuration("Py_DEBUG")),
        traced=sys.gettrace() is not None or sys.getprofile() is not None,
        dev_mode=sys.flags.dev_mode,
        free_threaded=bool(configuration("Py_GIL_DISABLED")),
    )


def read_disk(folder: Path, write: Callable[[Path], float]) -> Disk:
    """Of the folder that results would go to. write: writes something there and tells how fast, in bytes a second."""
    place = nearest(folder)
    try:
        free_bytes = shutil.disk_usage(place).free
        return Disk(place, free_bytes, write(place))
    except OSError as error:
        return Disk(place, 0, 0.0, (error.strerror or str(error)).lower())


def nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    whole = folder.absolute()
    return next((one for one in _upwards(whole) if one.is_dir()), Path("/"))


def _upwards(folder: Path) -> Iterable[Path]:
    return (folder, *folder.parents)
