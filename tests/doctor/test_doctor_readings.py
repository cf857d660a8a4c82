"""Readings from a /proc and a /sys that a test wrote, or that are not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtpbench.doctor.readings import nearest, ports_in, read_build, read_disk, read_machine, read_moment

CORE = min(os.sched_getaffinity(0))


def written(root: Path, **files: str) -> Path:
    """A tree of files; `__` stands for a slash in their names."""
    for name, text in files.items():
        place = root / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def test_a_machine(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        proc__sys__net__ipv4__ip_local_port_range="32768\t60999\n",
        proc__sys__net__ipv4__ip_local_reserved_ports="40000,50000-50009\n",
        proc__sys__net__ipv4__tcp_tw_reuse="2\n",
        proc__sys__net__ipv4__tcp_timestamps="1\n",
        proc__sys__net__core__somaxconn="4096\n",
        proc__sys__net__netfilter__nf_conntrack_count="7\n",
        proc__sys__net__netfilter__nf_conntrack_max="262144\n",
        proc__net__sockstat="sockets: used 35\nTCP: inuse 16 orphan 0 tw 313 alloc 16 mem 83\nUDP: inuse 0 mem 0\n",
        proc__meminfo="MemTotal: 2048 kB\nMemAvailable:    1024 kB\nSwapTotal:  100 kB\nSwapFree:  60 kB\n",
        sys__devices__system__clocksource__clocksource0__current_clocksource="tsc\n",
        **{f"sys__devices__system__cpu__cpu{CORE}__cpufreq__scaling_governor": "powersave\n"},
    )
    read = read_machine(root)
    assert (read.ports, read.reserved_ports, read.tw_reuse, read.timestamps) == ((32768, 60999), 11, 2, 1)
    assert (read.time_wait, read.tracked, read.somaxconn) == (313, (7, 262_144), 4096)
    assert (read.memory_available_bytes, read.swap_total_bytes, read.swap_used_bytes) == (1 << 20, 102_400, 40_960)
    assert (read.clocksource, read.governors) == ("tsc", ("powersave",))


@pytest.mark.parametrize("text", [None, "", "nonsense\n", "-1 -1 -1\n", "\0\xff"])
def test_what_is_missing_or_odd_is_not_told(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        names = ("proc__meminfo", "proc__net__sockstat", "proc__self__cgroup", "proc__stat", "proc__vmstat")
        settings = ("proc__sys__net__ipv4__ip_local_port_range", "proc__sys__net__core__somaxconn")
        written(tmp_path, **dict.fromkeys((*names, *settings), text))
    read = read_machine(tmp_path)
    assert (read.ports, read.somaxconn, read.time_wait, read.memory_available_bytes) == (None, None, None, None)
    assert (read.quota_cores, read.memory_room_bytes, read.tracked, read.swap_used_bytes) == (None, None, None, None)
    assert read.files_hard > 0
    assert read_moment(tmp_path).ticks == {}


def test_the_least_quota_of_the_groups_of_version_2(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        proc__self__cgroup="0::/a.slice/b.scope\n",
        **{
            "sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a.slice/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/a.slice/cpu.stat": "nr_periods 9\nnr_throttled 4\n",
            "sys/fs/cgroup/a.slice/memory.max": "1000000\n",
            "sys/fs/cgroup/a.slice/memory.current": "400000\n",
            "sys/fs/cgroup/a.slice/b.scope/memory.max": "max\n",
        },
    )
    read = read_machine(root)
    assert (read.quota_cores, read.throttled, read.memory_room_bytes) == (1.5, 4, 600_000)


def test_the_quota_of_version_1(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "4096\n",
    }
    root = written(tmp_path, proc__self__cgroup="5:cpu,cpuacct:/box\n4:memory:/box\n", **files)
    assert read_machine(root).quota_cores == 0.5
    assert read_machine(root).memory_room_bytes is None
    (root / "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us").write_text("-1\n")
    assert read_machine(root).quota_cores == 0


def test_a_moment(tmp_path: Path) -> None:
    stat = f"cpu  1 2 3 4 5 6 7 8 9 10\ncpu{CORE} 1 2 3 4 5 6 7 8 9 10\ncpu9999 1 1 1 1 1 1 1 1 0 0\nintr 5 5\n"
    moment = read_moment(written(tmp_path, proc__stat=stat, proc__vmstat="pswpin 3\npswpout 4\nother 9\n"))
    assert (moment.ticks, moment.paged) == ({CORE: (1, 2, 3, 4, 5, 6, 7, 8)}, 7)


@pytest.mark.parametrize(("text", "count"), [("", 0), ("\n", 0), ("8080", 1), ("8080,9000-9010\n", 12), ("x,5", 1)])
def test_reserved_ports(text: str, count: int) -> None:
    assert ports_in(text) == count


@pytest.mark.parametrize(
    ("variables", "optimised"),
    [
        ({"CONFIG_ARGS": "'--enable-optimizations' '--with-lto'"}, True),
        ({"CONFIG_ARGS": "'--prefix=/usr'"}, False),
        ({"PY_CFLAGS_NODIST": "-fprofile-use"}, True),
        ({}, None),
    ],
)
def test_how_python_was_made(variables: dict[str, str], optimised: bool | None) -> None:
    assert read_build(variables.get).optimised is optimised


def test_the_nearest_folder(tmp_path: Path) -> None:
    assert nearest(tmp_path / "not" / "yet") == tmp_path
    assert read_disk(tmp_path / "not" / "yet", lambda folder: 5.0).folder == tmp_path

    def refuse(folder: Path) -> float:
        raise OSError(30, "Read-only file system")

    assert read_disk(tmp_path, refuse).trouble == "read-only file system"
