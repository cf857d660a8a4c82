"""Readings of /proc and /sys trees that the test writes, or that do not exist."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtpbench.doctor.system_info import (
    count_ports,
    nearest_existing_folder,
    read_build,
    read_counters,
    read_disk,
    read_machine,
)

CORE = min(os.sched_getaffinity(0))


def write_tree(root: Path, **files: str) -> Path:
    """Write files and return the root; `__` stands for a slash in their names."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_settings_are_read(tmp_path: Path) -> None:
    root = write_tree(
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
    machine = read_machine(root)
    assert (machine.ports, machine.reserved_ports, machine.tw_reuse, machine.timestamps) == ((32768, 60999), 11, 2, 1)
    assert (machine.time_wait, machine.tracked, machine.somaxconn) == (313, (7, 262_144), 4096)
    assert (machine.memory_available_bytes, machine.swap_total_bytes, machine.swap_used_bytes) == (1 << 20, 102_400, 40_960)
    assert (machine.clocksource, machine.governors) == ("tsc", ("powersave",))


@pytest.mark.parametrize("text", [None, "", "nonsense\n", "-1 -1 -1\n", "\0\xff"])
def test_missing_or_malformed_files_give_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        names = ("proc__meminfo", "proc__net__sockstat", "proc__self__cgroup", "proc__stat", "proc__vmstat")
        settings = ("proc__sys__net__ipv4__ip_local_port_range", "proc__sys__net__core__somaxconn")
        write_tree(tmp_path, **dict.fromkeys((*names, *settings), text))
    machine = read_machine(tmp_path)
    assert (machine.ports, machine.somaxconn, machine.time_wait, machine.memory_available_bytes) == (None, None, None, None)
    assert (machine.quota_cores, machine.memory_room_bytes, machine.tracked, machine.swap_used_bytes) == (
        None,
        None,
        None,
        None,
    )
    assert machine.files_hard > 0
    assert read_counters(tmp_path).ticks == {}


def test_smallest_quota_of_version_2_groups(tmp_path: Path) -> None:
    root = write_tree(
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
    machine = read_machine(root)
    assert (machine.quota_cores, machine.throttled, machine.memory_room_bytes) == (1.5, 4, 600_000)


def test_quota_of_version_1_groups(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "4096\n",
    }
    root = write_tree(tmp_path, proc__self__cgroup="5:cpu,cpuacct:/box\n4:memory:/box\n", **files)
    assert read_machine(root).quota_cores == 0.5
    assert read_machine(root).memory_room_bytes is None
    (root / "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us").write_text("-1\n")
    assert read_machine(root).quota_cores == 0


def test_counters_of_usable_cores_are_read(tmp_path: Path) -> None:
    stat = f"cpu  1 2 3 4 5 6 7 8 9 10\ncpu{CORE} 1 2 3 4 5 6 7 8 9 10\ncpu9999 1 1 1 1 1 1 1 1 0 0\nintr 5 5\n"
    counters = read_counters(write_tree(tmp_path, proc__stat=stat, proc__vmstat="pswpin 3\npswpout 4\nother 9\n"))
    assert (counters.ticks, counters.swapped_pages) == ({CORE: (1, 2, 3, 4, 5, 6, 7, 8)}, 7)


@pytest.mark.parametrize(("text", "count"), [("", 0), ("\n", 0), ("8080", 1), ("8080,9000-9010\n", 12), ("x,5", 1)])
def test_ports_of_a_list_are_counted(text: str, count: int) -> None:
    assert count_ports(text) == count


@pytest.mark.parametrize(
    ("variables", "optimised"),
    [
        ({"CONFIG_ARGS": "'--enable-optimizations' '--with-lto'"}, True),
        ({"CONFIG_ARGS": "'--prefix=/usr'"}, False),
        ({"PY_CFLAGS_NODIST": "-fprofile-use"}, True),
        ({}, None),
    ],
)
def test_profile_guided_builds_are_recognised(variables: dict[str, str], optimised: bool | None) -> None:
    assert read_build(variables.get).optimised is optimised


def test_nearest_existing_folder_is_measured(tmp_path: Path) -> None:
    assert nearest_existing_folder(tmp_path / "not" / "yet") == tmp_path
    assert read_disk(tmp_path / "not" / "yet", lambda folder: 5.0).folder == tmp_path

    def refuse(folder: Path) -> float:
        raise OSError(30, "Read-only file system")

    assert read_disk(tmp_path, refuse).error == "read-only file system"
