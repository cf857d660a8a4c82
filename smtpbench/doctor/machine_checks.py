"""Diagnoses of what the settings and resources of a machine allow. Pure functions."""

from __future__ import annotations

from smtpbench.doctor.diagnosis import BAD, OK, WARN, Diagnosis, grade, unknown
from smtpbench.doctor.system_info import ActivityCounters, DiskInfo, Machine, PythonBuild
from smtpbench.load.prepare import SPARE_DESCRIPTORS
from smtpbench.sink.serve import BACKLOG
from smtpbench.text import plural
from smtpbench.units import format_bytes

#: TCP_TIMEWAIT_LEN of Linux (include/net/tcp.h). No setting changes it; tcp_fin_timeout is about FIN-WAIT-2.
TIME_WAIT_S = 60
#: Seconds after which a port in TIME_WAIT may be reused (Documentation/networking/ip-sysctl.rst, tcp_tw_reuse).
REUSE_S = 1
_REUSE_NEVER, _REUSE_ALWAYS, _REUSE_LOOPBACK = 0, 1, 2
#: Clock sources that a process reads without a system call.
_FAST_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource", "timebase")
_MIB, _GIB = 1 << 20, 1 << 30
#: An idle worker takes about 50 MiB, and 2 KiB for each connection.
_WORKER_BYTES = 64 * _MIB
_FEW_FILES, _ENOUGH_FILES = 512, 4096
_FEW_PORTS, _ENOUGH_PORTS = 2048, 16_384
_SHORT_QUEUE, _LONG_QUEUE = 128, 1024
_ENOUGH_TRACKED = 65_536


def machine_diagnoses(machine: Machine) -> list[Diagnosis]:
    """Return the diagnoses of settings and resources, which need no measurement."""
    return [
        _files(machine), _ports(machine), *_tracking(machine), _listening(machine), _cores(machine), _quota(machine),
        _governor(machine), _memory(machine), _swap(machine),
    ]  # fmt: skip


def _files(machine: Machine) -> Diagnosis:
    connections = max(0, machine.files_hard - SPARE_DESCRIPTORS)
    verdict = grade(-machine.files_hard, -_ENOUGH_FILES + 1, -_FEW_FILES + 1)
    return Diagnosis(
        "open files",
        verdict,
        f"{machine.files_soft:,} soft, {machine.files_hard:,} hard",
        f"at most {plural(connections, 'connection')} in one worker; a run raises the soft limit to the hard limit itself",
        "" if verdict == OK else "raise the hard limit (`ulimit -Hn`, /etc/security/limits.conf, LimitNOFILE=, "
        "docker run --ulimit nofile=…), or use more --workers",
        {"soft": machine.files_soft, "hard": machine.files_hard, "connections_a_worker": connections},
    )  # fmt: skip


def _ports(machine: Machine) -> Diagnosis:
    name = "local ports"
    if machine.ports is None:
        return unknown(name, "number of connections to one target, open at once and opened a minute")
    low, high = machine.ports
    ports = max(0, high - low + 1 - machine.reserved_ports)
    a_minute = ports * 60 // TIME_WAIT_S
    reuse = machine.tw_reuse if machine.timestamps != 0 else _REUSE_NEVER  # without timestamps no port is reused
    reused = f"closed ports are reused after {REUSE_S} s (tcp_tw_reuse)"
    opened = f"at most {a_minute:,} connections a minute to one target: a closed one keeps its port for {TIME_WAIT_S} s"
    if reuse == _REUSE_ALWAYS:
        opened = reused
    elif reuse == _REUSE_LOOPBACK:
        opened = f"on loopback, {reused}; to other machines {opened}"
    elif reuse is None:
        opened += ", if tcp_tw_reuse is off, which is unknown here"
    verdict = grade(-ports, -_ENOUGH_PORTS + 1, -_FEW_PORTS + 1)
    waiting = "" if machine.time_wait is None else f", {plural(machine.time_wait, 'socket')} in TIME_WAIT"
    if machine.time_wait is not None and reuse not in (_REUSE_ALWAYS, _REUSE_LOOPBACK) and machine.time_wait > ports // 2:
        verdict = max(verdict, WARN, key=(OK, WARN, BAD).index)
    return Diagnosis(
        name,
        verdict,
        f"{ports:,} ({low}-{high}){waiting}",
        f"at most {plural(ports, 'connection')} to one target at once; {opened}",
        "" if verdict == OK else "widen net.ipv4.ip_local_port_range (1024 65000), set net.ipv4.tcp_tw_reuse=1, or "
        "send several messages on a connection with `repeat`",
        {
            "ports": ports, "tw_reuse": machine.tw_reuse, "time_wait_now": machine.time_wait,
            "connections_a_minute_to_one_target": None if reuse == _REUSE_ALWAYS else a_minute,
        },
    )  # fmt: skip


def _tracking(machine: Machine) -> list[Diagnosis]:
    """Return a diagnosis if netfilter tracks connections, or none."""
    if machine.tracked is None:
        return []
    now, limit = machine.tracked
    verdict = BAD if now > 0.9 * limit else WARN if now > 0.5 * limit or limit < _ENOUGH_TRACKED else OK
    return [
        Diagnosis(
            "connection tracking",
            verdict,
            f"{now:,} of {limit:,} entries",
            f"packets are dropped beyond {limit:,} connections, including those closed in the last two minutes",
            "" if verdict == OK else "raise net.netfilter.nf_conntrack_max, or exempt the port of the target from tracking",
            {"now": now, "most": limit},
        )
    ]


def _listening(machine: Machine) -> Diagnosis:
    name = "listen queue"
    if machine.somaxconn is None:
        return unknown(name, "number of connections in the listen queue of a server on this machine")
    queue = min(machine.somaxconn, BACKLOG)
    verdict = grade(-queue, -_LONG_QUEUE + 1, -_SHORT_QUEUE + 1)
    return Diagnosis(
        name,
        verdict,
        f"net.core.somaxconn {machine.somaxconn:,}",
        f"a server on this machine, also `smtpbench sink`, accepts a burst of {queue:,} connections; more retry after 1 s",
        "" if verdict == OK else f"set net.core.somaxconn={BACKLOG} before the server starts",
        {"somaxconn": machine.somaxconn, "queue": queue},
    )


def _cores(machine: Machine) -> Diagnosis:
    usable = machine.usable
    verdict = WARN if usable < 2 else OK
    value = f"{usable} of {machine.cores}" if usable != machine.cores else f"{usable}"
    shared = "the generator and a target on this machine take turns" if usable < 2 else "a target on this machine needs some"
    return Diagnosis(
        "cores",
        verdict,
        value,
        f"a worker uses one core, so --workers {usable} at most; {shared}",
        "" if verdict == OK else "add a core, or test a target on another machine",
        {"cores": machine.cores, "usable": usable},
    )


def _quota(machine: Machine) -> Diagnosis:
    name = "CPU quota"
    if machine.quota_cores is None:
        return unknown(name, "whether a control group limits the CPU time of this process")
    if not machine.quota_cores:
        return Diagnosis(name, OK, "none", figures={"quota_cores": None, "throttled": machine.throttled})
    cores = "1 core" if machine.quota_cores == 1 else f"{machine.quota_cores:.4g} cores"
    return Diagnosis(
        name,
        BAD if machine.quota_cores < 1 else WARN,
        f"{cores}, used up {plural(machine.throttled, 'time')}",
        "a process that used up its quota stops until the next period, which adds tens of milliseconds of latency",
        "remove the quota (docker run without --cpus, no resources.limits.cpu), or use whole cores instead (--cpuset-cpus)",
        {"quota_cores": machine.quota_cores, "throttled": machine.throttled},
    )


def _governor(machine: Machine) -> Diagnosis:
    name = "CPU governor"
    if not machine.governors:
        return unknown(name, "whether idle cores slow down; virtual machines and containers do not show it")
    steady = machine.governors == ("performance",)
    return Diagnosis(
        name,
        OK if steady else WARN,
        ", ".join(machine.governors),
        "" if steady else "idle cores slow down, so a message takes longer at a low rate than at a high rate",
        "" if steady else "run `cpupower frequency-set -g performance`",
        {"governors": list(machine.governors)},
    )


def _memory(machine: Machine) -> Diagnosis:
    name = "memory"
    known = [one for one in (machine.memory_available_bytes, machine.memory_room_bytes) if one is not None]
    if not known:
        return unknown(name, "number of workers that fit into memory")
    room = min(known)
    verdict = grade(-room, -8 * _WORKER_BYTES + 1, -2 * _WORKER_BYTES + 1)
    group_limit = machine.memory_room_bytes is not None and machine.memory_room_bytes == room
    return Diagnosis(
        name,
        verdict,
        f"{format_bytes(room)} available" + (" in this control group" if group_limit else ""),
        f"room for about {plural(room // _WORKER_BYTES, 'worker')} of {format_bytes(_WORKER_BYTES)}",
        "" if verdict == OK else "stop other processes, or raise the limit; the kernel kills a process when memory runs out",
        {"available_bytes": room},
    )  # fmt: skip


def _swap(machine: Machine) -> Diagnosis:
    name = "swap"
    used, total = machine.swap_used_bytes, machine.swap_total_bytes
    if used is None or total is None:
        return unknown(name, "whether memory in use was moved to a disk")
    verdict = WARN if used > 64 * _MIB else OK
    return Diagnosis(
        name,
        verdict,
        f"{format_bytes(used)} of {format_bytes(total)} used" if total else "none",
        "" if verdict == OK else "swapped memory is read back at the speed of a disk during a measurement",
        "" if verdict == OK else "free memory, then run `swapoff -a && swapon -a`",
        {"total_bytes": total, "used_bytes": used},
    )


_IDLE, _IOWAIT, _STEAL = 3, 4, 7


def activity_diagnoses(before: ActivityCounters, after: ActivityCounters) -> list[Diagnosis]:
    """Return the diagnoses of what other processes did between two reads of the counters."""
    shares = _shares(before, after)
    if shares is None:
        return [
            unknown("other load", "CPU time of other processes"),
            unknown("stolen time", "CPU time that the host gives to other virtual machines"),
        ]
    busy_cores, steal, cores = shares
    busy = busy_cores / cores
    found = [
        Diagnosis(
            "other load",
            grade(busy, 0.1, 0.5),
            f"{busy_cores:.2f} of {cores} cores busy",
            "" if busy < 0.1 else f"{cores - busy_cores:.2f} cores are free for a run, which sometimes waits for them",
            "" if busy < 0.1 else "stop other processes (see `top`), then run doctor again",
            {"busy_cores": busy_cores},
        ),
        Diagnosis(
            "stolen time",
            grade(steal, 0.01, 0.05),
            f"{steal:.1%}",
            ""
            if steal < 0.01
            else "the host runs other machines on these cores; latencies contain pauses that the server did not cause",
            "" if steal < 0.01 else "use a machine with dedicated cores",
            {"steal_share": steal},
        ),
    ]
    if before.swapped_pages is not None and after.swapped_pages is not None and after.swapped_pages > before.swapped_pages:
        pages = after.swapped_pages - before.swapped_pages
        figures = {"pages": pages}
        found.append(
            Diagnosis(
                "swapping",
                BAD,
                f"{plural(pages, 'page')} moved during the observation",
                "memory is short",
                "free memory first",
                figures,
            )
        )
    return found


def _shares(before: ActivityCounters, after: ActivityCounters) -> tuple[float, float, int] | None:
    """Return the cores that were busy, the share that was stolen, and the number of cores; None without counters."""
    parts = [
        [max(0, late - early) for late, early in zip(after.ticks[core], before.ticks[core], strict=False)]
        for core in before.ticks.keys() & after.ticks.keys()
    ]
    sums = [sum(part) for part in parts]
    if not parts or any(len(part) <= _STEAL for part in parts) or not all(sums):
        return None
    busy = sum((total - part[_IDLE] - part[_IOWAIT] - part[_STEAL]) / total for part, total in zip(parts, sums, strict=True))
    return busy, sum(part[_STEAL] for part in parts) / sum(sums), len(parts)


def build_diagnosis(build: PythonBuild) -> Diagnosis:
    """Return the diagnosis of the Python that runs smtpbench."""
    slow = [
        reason
        for applies, reason in (
            (build.debug, "built for debugging"),
            (build.traced, "traced or profiled"),
            (build.dev_mode, "in development mode (-X dev, PYTHONDEVMODE)"),
            (build.free_threaded, "built without the global interpreter lock, which slows down a single thread"),
            (build.optimised is False, "built without profile-guided optimisation"),
        )
        if applies
    ]
    unusable = build.debug or build.traced
    implementation = "" if build.implementation == "cpython" else f"{build.implementation} "
    return Diagnosis(
        "Python",
        BAD if unusable else WARN if slow else OK,
        f"{implementation}{build.version}" + (f", {', '.join(slow)}" if slow else ""),
        "a worker sends fewer messages on its core" if slow else "",
        "use the Python of the distribution, or one built with --enable-optimizations" if slow else "",
        {"version": build.version, "optimised": build.optimised, "debug": build.debug},
    )


def clock_diagnosis(source: str, step_ns: int, read_ns: float) -> Diagnosis:
    """Return the diagnosis of the monotonic clock.

    Args:
        source: Clock source of the kernel; empty if unknown.
        step_ns: Smallest difference between two reads, nanoseconds.
        read_ns: Time of one read, nanoseconds.
    """
    slow_source = bool(source) and source not in _FAST_CLOCKS
    verdict = max(
        grade(read_ns, 500, 5000), grade(step_ns, 10_000, 1_000_000), WARN if slow_source else OK,
        key=(OK, WARN, BAD).index,
    )  # fmt: skip
    return Diagnosis(
        "clock",
        verdict,
        f"{source or 'source unknown'}, steps of {step_ns:,} ns, {read_ns:.0f} ns a read",
        "" if verdict == OK else "each timestamp takes a system call, or is coarser than the latencies it measures",
        "" if verdict == OK else "boot with clocksource=tsc if the TSC is stable; in a virtual machine use kvm-clock",
        {"source": source, "step_ns": step_ns, "read_ns": read_ns},
    )


def disk_diagnosis(disk: DiskInfo, run_bytes_per_s: float) -> Diagnosis:
    """Return the diagnosis of the results folder; `run_bytes_per_s` is what a run writes, 0 if unknown."""
    name = "results folder"
    if disk.error:
        return Diagnosis(
            name, BAD, f"{disk.folder}: {disk.error}", "results go to a temporary folder", "use another folder with --out",
            {"free_bytes": disk.free_bytes, "write_bytes_per_s": None},
        )  # fmt: skip
    verdict = max(
        grade(-disk.free_bytes, -_GIB + 1, -64 * _MIB + 1),
        grade(-disk.write_bytes_per_s, -4 * _MIB, -_MIB / 4),
        key=(OK, WARN, BAD).index,
    )
    room = ""
    if run_bytes_per_s:
        hours = disk.free_bytes / run_bytes_per_s / 3600
        room = f"room for {plural(round(hours), 'hour')} of a run that writes about {format_bytes(run_bytes_per_s)}/s"
    return Diagnosis(
        name,
        verdict,
        f"{disk.folder}: {format_bytes(disk.free_bytes)} free, {format_bytes(disk.write_bytes_per_s)}/s written",
        room,
        "" if verdict == OK else "free space, or use another folder with --out",
        {"free_bytes": disk.free_bytes, "write_bytes_per_s": disk.write_bytes_per_s},
    )
