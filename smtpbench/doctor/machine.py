"""Judging what a machine's settings and room allow. Pure: from readings to diagnoses."""

from __future__ import annotations

from smtpbench.doctor.diagnosis import BAD, OK, WARN, Diagnosis, graded, unknown
from smtpbench.doctor.readings import Build, Disk, Machine, Moment
from smtpbench.load.prepare import SPARE_DESCRIPTORS
from smtpbench.sink.serve import BACKLOG
from smtpbench.units import format_bytes

#: TCP_TIMEWAIT_LEN of Linux (include/net/tcp.h), which no setting changes: tcp_fin_timeout is another state's.
TIME_WAIT_S = 60
#: How soon a port in TIME_WAIT is taken again where that is allowed (Documentation/networking/ip-sysctl.rst, tcp_tw_reuse).
REUSE_S = 1
_REUSE_NEVER, _REUSE_ALWAYS, _REUSE_LOOPBACK = 0, 1, 2
#: Clock sources that a process reads without asking the kernel.
_FAST_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource", "timebase")
_MIB, _GIB = 1 << 20, 1 << 30
#: A worker at rest takes about 50 MiB, and a connection 2 KiB more.
_WORKER_BYTES = 64 * _MIB
_FEW_FILES, _MANY_FILES = 512, 4096
_FEW_PORTS, _MANY_PORTS = 2048, 16_384
_SHORT_QUEUE, _LONG_QUEUE = 128, 1024
_FEW_TRACKED = 65_536


def machine_diagnoses(machine: Machine) -> list[Diagnosis]:
    """Of everything that a machine tells of itself without a trial."""
    return [
        _files(machine), _ports(machine), *_tracking(machine), _listening(machine), _cores(machine), _quota(machine),
        _governor(machine), _memory(machine), _swap(machine),
    ]  # fmt: skip


def _files(machine: Machine) -> Diagnosis:
    connections = max(0, machine.files_hard - SPARE_DESCRIPTORS)
    verdict = graded(-machine.files_hard, -_MANY_FILES + 1, -_FEW_FILES + 1)
    return Diagnosis(
        "open files",
        verdict,
        f"{machine.files_soft:,} soft, {machine.files_hard:,} hard",
        f"at most {connections:,} connections in one worker: a run raises the soft limit to the hard one itself",
        "" if verdict == OK else "raise the hard limit: `ulimit -Hn`, /etc/security/limits.conf, LimitNOFILE=, "
        "docker run --ulimit nofile=…; or take more --workers",
        {"soft": machine.files_soft, "hard": machine.files_hard, "connections_a_worker": connections},
    )  # fmt: skip


def _ports(machine: Machine) -> Diagnosis:
    name = "local ports"
    if machine.ports is None:
        return unknown(name, "how many connections to one target may be open, or come and go, at once")
    low, high = machine.ports
    ports = max(0, high - low + 1 - machine.reserved_ports)
    a_minute = ports * 60 // TIME_WAIT_S
    reuse = machine.tw_reuse if machine.timestamps != 0 else _REUSE_NEVER  # without time stamps none is taken again
    again = f"is taken again after {REUSE_S} s (tcp_tw_reuse)"
    rest = f"at most {a_minute:,} connections a minute to one target, because a closed one keeps its port {TIME_WAIT_S} s"
    if reuse == _REUSE_ALWAYS:
        rest = f"a port that was closed {again}"
    elif reuse == _REUSE_LOOPBACK:
        rest = f"to this machine a port that was closed {again}; to another one {rest}"
    elif reuse is None:
        rest += ", if tcp_tw_reuse is off, which cannot be told"
    verdict = graded(-ports, -_MANY_PORTS + 1, -_FEW_PORTS + 1)
    waiting = "" if machine.time_wait is None else f", {machine.time_wait:,} sockets in TIME_WAIT now"
    if machine.time_wait is not None and reuse not in (_REUSE_ALWAYS, _REUSE_LOOPBACK) and machine.time_wait > ports // 2:
        verdict = max(verdict, WARN, key=(OK, WARN, BAD).index)
    return Diagnosis(
        name,
        verdict,
        f"{ports:,} ({low}-{high}){waiting}",
        f"at most {ports:,} open to one target at once; {rest}",
        "" if verdict == OK else "widen net.ipv4.ip_local_port_range (1024 65000), set net.ipv4.tcp_tw_reuse=1, or keep "
        "connections open with a `repeat`",
        {
            "ports": ports, "tw_reuse": machine.tw_reuse, "time_wait_now": machine.time_wait,
            "connections_a_minute_to_one_target": None if reuse == _REUSE_ALWAYS else a_minute,
        },
    )  # fmt: skip


def _tracking(machine: Machine) -> list[Diagnosis]:
    """Only where netfilter tracks connections."""
    if machine.tracked is None:
        return []
    now, most = machine.tracked
    verdict = BAD if now > 0.9 * most else WARN if now > 0.5 * most or most < _FEW_TRACKED else OK
    return [
        Diagnosis(
            "connection tracking",
            verdict,
            f"{now:,} of {most:,} entries",
            f"beyond {most:,} connections, those closed in the last two minutes included, packets are dropped",
            "" if verdict == OK else "raise net.netfilter.nf_conntrack_max, or do not track the target's port",
            {"now": now, "most": most},
        )
    ]


def _listening(machine: Machine) -> Diagnosis:
    name = "listen queue"
    if machine.somaxconn is None:
        return unknown(name, "how many connections a server here may have in its queue")
    queue = min(machine.somaxconn, BACKLOG)
    verdict = graded(-queue, -_LONG_QUEUE + 1, -_SHORT_QUEUE + 1)
    return Diagnosis(
        name,
        verdict,
        f"net.core.somaxconn {machine.somaxconn:,}",
        f"a server here, `smtpbench sink` too, takes a burst of {queue:,} connections; others try again after a second",
        "" if verdict == OK else f"set net.core.somaxconn={BACKLOG} before the server starts",
        {"somaxconn": machine.somaxconn, "queue": queue},
    )


def _cores(machine: Machine) -> Diagnosis:
    usable = machine.usable
    verdict = WARN if usable < 2 else OK
    some = f"{usable} of {machine.cores}" if usable != machine.cores else f"{usable}"
    beside = "the generator and a target on this machine take turns" if usable < 2 else "a target on this machine needs some"
    return Diagnosis(
        "cores",
        verdict,
        some,
        f"a worker uses one core: up to --workers {usable}; {beside}",
        "" if verdict == OK else "give it a second core, or test a target elsewhere",
        {"cores": machine.cores, "usable": usable},
    )


def _quota(machine: Machine) -> Diagnosis:
    name = "CPU quota"
    if machine.quota_cores is None:
        return unknown(name, "whether a control group stops this process when it has used its share")
    if not machine.quota_cores:
        return Diagnosis(name, OK, "none", figures={"quota_cores": None, "throttled": machine.throttled})
    return Diagnosis(
        name,
        BAD if machine.quota_cores < 1 else WARN,
        f"{machine.quota_cores:.4g} cores, used up {machine.throttled:,} times so far",
        "who has used it up stands still until the next period, which looks like tens of milliseconds of latency",
        "take the limit away (docker run without --cpus, no resources.limits.cpu), or pin to whole cores instead",
        {"quota_cores": machine.quota_cores, "throttled": machine.throttled},
    )


def _governor(machine: Machine) -> Diagnosis:
    name = "CPU governor"
    if not machine.governors:
        return unknown(name, "whether cores slow down at rest; virtual machines and containers hide it")
    steady = machine.governors == ("performance",)
    return Diagnosis(
        name,
        OK if steady else WARN,
        ", ".join(machine.governors),
        "" if steady else "cores slow down at rest: at a low rate the same message takes longer than at a high one",
        "" if steady else "cpupower frequency-set -g performance",
        {"governors": list(machine.governors)},
    )


def _memory(machine: Machine) -> Diagnosis:
    name = "memory"
    known = [one for one in (machine.memory_available_bytes, machine.memory_room_bytes) if one is not None]
    if not known:
        return unknown(name, "how many workers there is room for")
    room = min(known)
    verdict = graded(-room, -8 * _WORKER_BYTES + 1, -2 * _WORKER_BYTES + 1)
    narrow = machine.memory_room_bytes is not None and machine.memory_room_bytes == room
    return Diagnosis(
        name,
        verdict,
        f"{format_bytes(room)} available" + (" in this control group" if narrow else ""),
        f"room for about {room // _WORKER_BYTES:,} workers, at {format_bytes(_WORKER_BYTES)} each",
        "" if verdict == OK else "end what else runs, or raise the limit: the kernel kills somebody where memory ends",
        {"available_bytes": room},
    )  # fmt: skip


def _swap(machine: Machine) -> Diagnosis:
    name = "swap"
    used, total = machine.swap_used_bytes, machine.swap_total_bytes
    if used is None or total is None:
        return unknown(name, "whether memory that is needed lies on a disk")
    verdict = WARN if used > 64 * _MIB else OK
    return Diagnosis(
        name,
        verdict,
        f"{format_bytes(used)} of {format_bytes(total)} used" if total else "none",
        "" if verdict == OK else "what was swapped out comes back at a disk's speed, in the midst of a measurement",
        "" if verdict == OK else "free memory, then swapoff -a && swapon -a",
        {"total_bytes": total, "used_bytes": used},
    )


_IDLE, _IOWAIT, _STEAL = 3, 4, 7


def activity_diagnoses(before: Moment, after: Moment) -> list[Diagnosis]:
    """What else went on between two moments."""
    shares = _shares(before, after)
    if shares is None:
        return [
            unknown("other load", "what else uses these cores"),
            unknown("stolen time", "whether the host gives this machine's cores to others"),
        ]
    busy_cores, steal, cores = shares
    busy = busy_cores / cores
    found = [
        Diagnosis(
            "other load",
            graded(busy, 0.1, 0.5),
            f"{busy_cores:.2f} of {cores} cores busy",
            "" if busy < 0.1 else f"a run finds {cores - busy_cores:.2f} cores free, and waits for them now and then",
            "" if busy < 0.1 else "end what else runs (top shows it), and ask again",
            {"busy_cores": busy_cores},
        ),
        Diagnosis(
            "stolen time",
            graded(steal, 0.01, 0.05),
            f"{steal:.1%}",
            "" if steal < 0.01 else "the host runs others on these cores: latencies hold pauses that no server made",
            "" if steal < 0.01 else "use a machine with cores of its own",
            {"steal_share": steal},
        ),
    ]
    if before.paged is not None and after.paged is not None and after.paged > before.paged:
        pages = after.paged - before.paged
        figures = {"pages": pages}
        found.append(
            Diagnosis("swapping", BAD, f"{pages:,} pages meanwhile", "memory is short now", "free memory first", figures)
        )
    return found


def _shares(before: Moment, after: Moment) -> tuple[float, float, int] | None:
    """Cores that others kept busy, the share that was stolen, and how many cores there are; None without counters."""
    parts = [
        [max(0, late - early) for late, early in zip(after.ticks[core], before.ticks[core], strict=False)]
        for core in before.ticks.keys() & after.ticks.keys()
    ]
    sums = [sum(part) for part in parts]
    if not parts or any(len(part) <= _STEAL for part in parts) or not all(sums):
        return None
    busy = sum((total - part[_IDLE] - part[_IOWAIT] - part[_STEAL]) / total for part, total in zip(parts, sums, strict=True))
    return busy, sum(part[_STEAL] for part in parts) / sum(sums), len(parts)


def build_diagnosis(build: Build) -> Diagnosis:
    """Of the Python."""
    slow = [
        words
        for wrong, words in (
            (build.debug, "built for debugging"),
            (build.traced, "traced or profiled"),
            (build.dev_mode, "in development mode (-X dev, PYTHONDEVMODE)"),
            (build.free_threaded, "built without the global lock, which makes one thread slower"),
            (build.optimised is False, "built without profile-guided optimisation"),
        )
        if wrong
    ]
    grave = build.debug or build.traced
    implementation = "" if build.implementation == "cpython" else f"{build.implementation} "
    return Diagnosis(
        "Python",
        BAD if grave else WARN if slow else OK,
        f"{implementation}{build.version}" + (f", {', '.join(slow)}" if slow else ""),
        "a worker drives fewer messages on its core" if slow else "",
        "use the distribution's Python, or one built with --enable-optimizations" if slow else "",
        {"version": build.version, "optimised": build.optimised, "debug": build.debug},
    )


def clock_diagnosis(source: str, step_ns: int, read_ns: float) -> Diagnosis:
    """Of the monotonic clock: its source where the kernel names one, the least step seen, and what a read costs."""
    slow_source = bool(source) and source not in _FAST_CLOCKS
    verdict = max(
        graded(read_ns, 500, 5000), graded(step_ns, 10_000, 1_000_000), WARN if slow_source else OK,
        key=(OK, WARN, BAD).index,
    )  # fmt: skip
    return Diagnosis(
        "clock",
        verdict,
        f"{source or 'source not told'}, steps of {step_ns:,} ns, {read_ns:.0f} ns a read",
        "" if verdict == OK else "each time stamp asks the kernel, or is coarser than the latencies it measures",
        "" if verdict == OK else "boot with clocksource=tsc where the processor's is stable; virtual machines: kvm-clock",
        {"source": source, "step_ns": step_ns, "read_ns": read_ns},
    )


def disk_diagnosis(disk: Disk, run_bytes_per_s: float) -> Diagnosis:
    """Of where results go. run_bytes_per_s: what the trial's run wrote, 0 where there was none."""
    name = "results folder"
    if disk.trouble:
        return Diagnosis(
            name, BAD, f"{disk.folder}: {disk.trouble}", "results go to a temporary folder", "name another one with --out",
            {"free_bytes": disk.free_bytes, "write_bytes_per_s": None},
        )  # fmt: skip
    verdict = max(
        graded(-disk.free_bytes, -_GIB + 1, -64 * _MIB + 1),
        graded(-disk.write_bytes_per_s, -4 * _MIB, -_MIB / 4),
        key=(OK, WARN, BAD).index,
    )
    lasts = ""
    if run_bytes_per_s:
        hours = disk.free_bytes / run_bytes_per_s / 3600
        lasts = f"a run writes about {format_bytes(run_bytes_per_s)} a second: room for {hours:,.0f} hours"
    return Diagnosis(
        name,
        verdict,
        f"{disk.folder}: {format_bytes(disk.free_bytes)} free, {format_bytes(disk.write_bytes_per_s)}/s written",
        lasts,
        "" if verdict == OK else "make room, or name another folder with --out",
        {"free_bytes": disk.free_bytes, "write_bytes_per_s": disk.write_bytes_per_s},
    )
