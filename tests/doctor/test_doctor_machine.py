"""Every verdict on a machine, from readings that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smtpbench.doctor.diagnosis import BAD, CANNOT_BE_TOLD, OK, UNKNOWN, WARN, Diagnosis, worst
from smtpbench.doctor.machine import (
    activity_diagnoses,
    build_diagnosis,
    clock_diagnosis,
    disk_diagnosis,
    machine_diagnoses,
)
from smtpbench.doctor.readings import Build, Disk, Machine, Moment

MIB, GIB = 1 << 20, 1 << 30
WELL = Machine(
    files_soft=1024, files_hard=1_048_576, ports=(32768, 60999), tw_reuse=2, timestamps=1, time_wait=10,
    tracked=(100, 262_144), somaxconn=4096, cores=8, usable=8, quota_cores=0.0, governors=("performance",),
    memory_available_bytes=8 * GIB, swap_total_bytes=GIB, swap_used_bytes=0, clocksource="tsc",
)  # fmt: skip


def found(name: str, **changes: Any) -> Diagnosis:
    """What is said of one thing on a machine that is well but for the changes."""
    return next(one for one in machine_diagnoses(replace(WELL, **changes)) if one.name == name)


def test_a_machine_that_is_well() -> None:
    diagnoses = machine_diagnoses(WELL)
    assert [one.verdict for one in diagnoses] == [OK] * len(diagnoses)
    assert not any(one.advice for one in diagnoses)
    assert worst(diagnoses) == OK


@pytest.mark.parametrize(
    ("name", "changes", "verdict"),
    [
        ("open files", {"files_hard": 4096}, OK),
        ("open files", {"files_hard": 4095}, WARN),
        ("open files", {"files_hard": 511}, BAD),
        ("open files", {"files_soft": 64, "files_hard": 64}, BAD),
        ("local ports", {"ports": (50_000, 60_000)}, WARN),
        ("local ports", {"ports": (60_000, 60_999)}, BAD),
        ("local ports", {"reserved_ports": 27_000}, BAD),
        ("local ports", {"tw_reuse": 0, "time_wait": 20_000}, WARN),
        ("local ports", {"tw_reuse": 1, "time_wait": 20_000}, OK),
        ("local ports", {"ports": None}, UNKNOWN),
        ("connection tracking", {"tracked": (200_000, 262_144)}, WARN),
        ("connection tracking", {"tracked": (10, 8192)}, WARN),
        ("connection tracking", {"tracked": (262_000, 262_144)}, BAD),
        ("listen queue", {"somaxconn": 128}, WARN),
        ("listen queue", {"somaxconn": 127}, BAD),
        ("listen queue", {"somaxconn": None}, UNKNOWN),
        ("cores", {"usable": 2}, OK),
        ("cores", {"usable": 1}, WARN),
        ("CPU quota", {"quota_cores": 1.5, "throttled": 12}, WARN),
        ("CPU quota", {"quota_cores": 0.5}, BAD),
        ("CPU quota", {"quota_cores": None}, UNKNOWN),
        ("CPU governor", {"governors": ("ondemand", "performance")}, WARN),
        ("CPU governor", {"governors": ()}, UNKNOWN),
        ("memory", {"memory_available_bytes": 400 * MIB}, WARN),
        ("memory", {"memory_room_bytes": 100 * MIB}, BAD),
        ("memory", {"memory_available_bytes": None}, UNKNOWN),
        ("swap", {"swap_used_bytes": 100 * MIB}, WARN),
        ("swap", {"swap_total_bytes": 0}, OK),
        ("swap", {"swap_total_bytes": None}, UNKNOWN),
    ],
)
def test_each_verdict(name: str, changes: dict[str, Any], verdict: str) -> None:
    one = found(name, **changes)
    assert one.verdict == verdict
    if verdict in (WARN, BAD):
        assert one.advice
        assert one.limits
    if verdict == UNKNOWN:
        assert one.value == CANNOT_BE_TOLD


def test_a_container_that_tells_nothing_breaks_nothing() -> None:
    diagnoses = machine_diagnoses(Machine(files_soft=1024, files_hard=4096))
    assert {one.verdict for one in diagnoses} <= {OK, WARN, UNKNOWN}
    assert "connection tracking" not in {one.name for one in diagnoses}


def test_the_limits_are_plain_figures() -> None:
    assert "at most 936 connections" in found("open files", files_hard=1000).limits
    away = "28,232 connections a minute to one target"
    never = found("local ports", tw_reuse=0)
    assert never.limits.startswith("at most 28,232 open to one target at once; at most")
    assert away in never.limits
    assert never.figures["connections_a_minute_to_one_target"] == 28_232
    loopback = found("local ports", tw_reuse=2)
    assert "to this machine a port that was closed is taken again after 1 s" in loopback.limits
    assert away in loopback.limits
    always = found("local ports", tw_reuse=1)
    assert "a minute" not in always.limits
    assert always.figures["connections_a_minute_to_one_target"] is None
    # without time stamps no port in TIME_WAIT is taken again, whatever is set
    assert "taken again" not in found("local ports", tw_reuse=1, timestamps=0).limits
    assert "a burst of 4,096" in found("listen queue", somaxconn=100_000).limits  # the sink asks for no more
    assert found("cores", cores=8, usable=3).value == "3 of 8"
    assert "1.5 cores, used up 12 times" in found("CPU quota", quota_cores=1.5, throttled=12).value
    assert "in this control group" in found("memory", memory_room_bytes=700 * MIB).value


def moment(*cores: tuple[int, ...], paged: int | None = 0) -> Moment:
    return Moment(dict(enumerate(cores)), paged)


REST = (0, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("after", "other", "stolen"),
    [
        (moment((1, 0, 1, 98, 0, 0, 0, 0), (*REST[:3], 100, *REST[4:])), OK, OK),
        (moment((30, 0, 5, 65, 0, 0, 0, 0), (*REST[:3], 100, *REST[4:])), WARN, OK),
        (moment((60, 0, 10, 20, 10, 0, 0, 0), (40, 10, 0, 50, 0, 0, 0, 0)), BAD, OK),
        (moment((0, 0, 0, 97, 0, 0, 0, 3), (0, 0, 0, 99, 0, 0, 0, 1)), OK, WARN),
        (moment((0, 0, 0, 80, 0, 0, 0, 20), (0, 0, 0, 100, 0, 0, 0, 0)), OK, BAD),
        (moment(), UNKNOWN, UNKNOWN),
        (moment((5, 0, 5, 90), (5, 0, 5, 90)), UNKNOWN, UNKNOWN),
    ],
)
def test_what_else_goes_on(after: Moment, other: str, stolen: str) -> None:
    load, steal = activity_diagnoses(moment(REST, REST), after)
    assert (load.verdict, steal.verdict) == (other, stolen)


def test_other_load_in_cores() -> None:
    load, _ = activity_diagnoses(moment(REST, REST), moment((60, 0, 10, 20, 10, 0, 0, 0), (40, 10, 0, 50, 0, 0, 0, 0)))
    assert load.value == "1.20 of 2 cores busy"
    assert "0.80 cores free" in load.limits


def test_pages_that_move_are_told() -> None:
    idle = (0, 0, 0, 100, 0, 0, 0, 0)
    names = [one.name for one in activity_diagnoses(moment(REST, paged=5), moment(idle, paged=5))]
    assert "swapping" not in names
    (*_, swapping) = activity_diagnoses(moment(REST, paged=5), moment(idle, paged=25))
    assert (swapping.name, swapping.verdict, swapping.value) == ("swapping", BAD, "20 pages meanwhile")


GOOD_BUILD = Build("3.11.7", "cpython", optimised=True, debug=False, traced=False, dev_mode=False, free_threaded=False)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, OK, "3.11.7"),
        ({"optimised": None}, OK, "3.11.7"),
        ({"optimised": False}, WARN, "without profile-guided"),
        ({"dev_mode": True}, WARN, "development mode"),
        ({"free_threaded": True}, WARN, "global lock"),
        ({"debug": True}, BAD, "debugging"),
        ({"traced": True}, BAD, "traced"),
        ({"implementation": "pypy"}, OK, "pypy 3.11.7"),
    ],
)
def test_pythons(changes: dict[str, Any], verdict: str, words: str) -> None:
    one = build_diagnosis(replace(GOOD_BUILD, **changes))
    assert one.verdict == verdict
    assert words in one.value


@pytest.mark.parametrize(
    ("source", "step_ns", "read_ns", "verdict"),
    [
        ("tsc", 40, 60.0, OK),
        ("", 40, 60.0, OK),
        ("hpet", 100, 300.0, WARN),
        ("tsc", 40, 900.0, WARN),
        ("tsc", 20_000, 60.0, WARN),
        ("jiffies", 4_000_000, 60.0, BAD),
        ("acpi_pm", 280, 6000.0, BAD),
    ],
)
def test_clocks(source: str, step_ns: int, read_ns: float, verdict: str) -> None:
    assert clock_diagnosis(source, step_ns, read_ns).verdict == verdict


@pytest.mark.parametrize(
    ("free_bytes", "speed", "trouble", "verdict"),
    [
        (10 * GIB, 100.0 * MIB, "", OK),
        (500 * MIB, 100.0 * MIB, "", WARN),
        (30 * MIB, 100.0 * MIB, "", BAD),
        (10 * GIB, 2.0 * MIB, "", WARN),
        (10 * GIB, 0.1 * MIB, "", BAD),
        (0, 0.0, "read-only file system", BAD),
    ],
)
def test_disks(free_bytes: int, speed: float, trouble: str, verdict: str) -> None:
    one = disk_diagnosis(Disk(Path("/results"), free_bytes, speed, trouble), 20 * 1024.0)
    assert one.verdict == verdict
    assert trouble in one.value


def test_how_long_a_disk_lasts() -> None:
    assert "room for 2 hours" in disk_diagnosis(Disk(Path("/r"), 7200 * MIB, 1.0), float(MIB)).limits
    assert disk_diagnosis(Disk(Path("/r"), 7200 * MIB, 1.0), 0.0).limits == ""
