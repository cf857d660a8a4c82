"""Verdicts on a machine, from invented readings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smtpbench.doctor.diagnosis import BAD, NOT_AVAILABLE, OK, UNKNOWN, WARN, Diagnosis, worst
from smtpbench.doctor.machine_checks import (
    activity_diagnoses,
    build_diagnosis,
    clock_diagnosis,
    disk_diagnosis,
    machine_diagnoses,
)
from smtpbench.doctor.system_info import ActivityCounters, DiskInfo, Machine, PythonBuild

MIB, GIB = 1 << 20, 1 << 30
HEALTHY = Machine(
    files_soft=1024, files_hard=1_048_576, ports=(32768, 60999), tw_reuse=2, timestamps=1, time_wait=10,
    tracked=(100, 262_144), somaxconn=4096, cores=8, usable=8, quota_cores=0.0, governors=("performance",),
    memory_available_bytes=8 * GIB, swap_total_bytes=GIB, swap_used_bytes=0, clocksource="tsc",
)  # fmt: skip


def diagnosis_of(name: str, **changes: Any) -> Diagnosis:
    """Return one diagnosis of a healthy machine with these changes."""
    return next(one for one in machine_diagnoses(replace(HEALTHY, **changes)) if one.name == name)


def test_healthy_machine_has_no_advice() -> None:
    diagnoses = machine_diagnoses(HEALTHY)
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
def test_verdict_depends_on_the_reading(name: str, changes: dict[str, Any], verdict: str) -> None:
    one = diagnosis_of(name, **changes)
    assert one.verdict == verdict
    if verdict in (WARN, BAD):
        assert one.advice
        assert one.limits
    if verdict == UNKNOWN:
        assert one.value == NOT_AVAILABLE


def test_container_without_readings_gives_unknown() -> None:
    diagnoses = machine_diagnoses(Machine(files_soft=1024, files_hard=4096))
    assert {one.verdict for one in diagnoses} <= {OK, WARN, UNKNOWN}
    assert "connection tracking" not in {one.name for one in diagnoses}


def test_limits_are_given_in_figures() -> None:
    assert "at most 936 connections" in diagnosis_of("open files", files_hard=1000).limits
    other_machine = "28,232 connections a minute to one target"
    never = diagnosis_of("local ports", tw_reuse=0)
    assert never.limits.startswith("at most 28,232 connections to one target at once; at most")
    assert other_machine in never.limits
    assert never.figures["connections_a_minute_to_one_target"] == 28_232
    loopback = diagnosis_of("local ports", tw_reuse=2)
    assert "on loopback, closed ports are reused after 1 s" in loopback.limits
    assert other_machine in loopback.limits
    always = diagnosis_of("local ports", tw_reuse=1)
    assert "a minute" not in always.limits
    assert always.figures["connections_a_minute_to_one_target"] is None
    # without timestamps no port in TIME_WAIT is reused, whatever the setting
    assert "reused" not in diagnosis_of("local ports", tw_reuse=1, timestamps=0).limits
    assert "a burst of 4,096" in diagnosis_of("listen queue", somaxconn=100_000).limits  # the sink asks for no longer queue
    assert diagnosis_of("cores", cores=8, usable=3).value == "3 of 8"
    assert "1.5 cores, used up 12 times" in diagnosis_of("CPU quota", quota_cores=1.5, throttled=12).value
    assert "in this control group" in diagnosis_of("memory", memory_room_bytes=700 * MIB).value


def counters(*cores: tuple[int, ...], swapped: int | None = 0) -> ActivityCounters:
    return ActivityCounters(dict(enumerate(cores)), swapped)


ZERO = (0, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("after", "other", "stolen"),
    [
        (counters((1, 0, 1, 98, 0, 0, 0, 0), (*ZERO[:3], 100, *ZERO[4:])), OK, OK),
        (counters((30, 0, 5, 65, 0, 0, 0, 0), (*ZERO[:3], 100, *ZERO[4:])), WARN, OK),
        (counters((60, 0, 10, 20, 10, 0, 0, 0), (40, 10, 0, 50, 0, 0, 0, 0)), BAD, OK),
        (counters((0, 0, 0, 97, 0, 0, 0, 3), (0, 0, 0, 99, 0, 0, 0, 1)), OK, WARN),
        (counters((0, 0, 0, 80, 0, 0, 0, 20), (0, 0, 0, 100, 0, 0, 0, 0)), OK, BAD),
        (counters(), UNKNOWN, UNKNOWN),
        (counters((5, 0, 5, 90), (5, 0, 5, 90)), UNKNOWN, UNKNOWN),
    ],
)
def test_other_load_and_stolen_time(after: ActivityCounters, other: str, stolen: str) -> None:
    load, steal = activity_diagnoses(counters(ZERO, ZERO), after)
    assert (load.verdict, steal.verdict) == (other, stolen)


def test_other_load_in_cores() -> None:
    load, _ = activity_diagnoses(counters(ZERO, ZERO), counters((60, 0, 10, 20, 10, 0, 0, 0), (40, 10, 0, 50, 0, 0, 0, 0)))
    assert load.value == "1.20 of 2 cores busy"
    assert "0.80 cores are free" in load.limits


def test_swapping_is_reported() -> None:
    idle = (0, 0, 0, 100, 0, 0, 0, 0)
    names = [one.name for one in activity_diagnoses(counters(ZERO, swapped=5), counters(idle, swapped=5))]
    assert "swapping" not in names
    (*_, swapping) = activity_diagnoses(counters(ZERO, swapped=5), counters(idle, swapped=25))
    assert (swapping.name, swapping.verdict, swapping.value) == ("swapping", BAD, "20 pages moved during the observation")


GOOD_BUILD = PythonBuild("3.11.7", "cpython", optimised=True, debug=False, traced=False, dev_mode=False, free_threaded=False)


@pytest.mark.parametrize(
    ("changes", "verdict", "text"),
    [
        ({}, OK, "3.11.7"),
        ({"optimised": None}, OK, "3.11.7"),
        ({"optimised": False}, WARN, "without profile-guided"),
        ({"dev_mode": True}, WARN, "development mode"),
        ({"free_threaded": True}, WARN, "global interpreter lock"),
        ({"debug": True}, BAD, "debugging"),
        ({"traced": True}, BAD, "traced"),
        ({"implementation": "pypy"}, OK, "pypy 3.11.7"),
    ],
)
def test_python_builds(changes: dict[str, Any], verdict: str, text: str) -> None:
    one = build_diagnosis(replace(GOOD_BUILD, **changes))
    assert one.verdict == verdict
    assert text in one.value


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
    ("free_bytes", "speed", "error", "verdict"),
    [
        (10 * GIB, 100.0 * MIB, "", OK),
        (500 * MIB, 100.0 * MIB, "", WARN),
        (30 * MIB, 100.0 * MIB, "", BAD),
        (10 * GIB, 2.0 * MIB, "", WARN),
        (10 * GIB, 0.1 * MIB, "", BAD),
        (0, 0.0, "read-only file system", BAD),
    ],
)
def test_disks(free_bytes: int, speed: float, error: str, verdict: str) -> None:
    one = disk_diagnosis(DiskInfo(Path("/results"), free_bytes, speed, error), 20 * 1024.0)
    assert one.verdict == verdict
    assert error in one.value


def test_room_on_the_disk_is_given_in_hours() -> None:
    assert "room for 2 hours" in disk_diagnosis(DiskInfo(Path("/r"), 7200 * MIB, 1.0), float(MIB)).limits
    assert disk_diagnosis(DiskInfo(Path("/r"), 7200 * MIB, 1.0), 0.0).limits == ""
