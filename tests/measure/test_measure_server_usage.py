"""`server` of a result, and `server.csv`: of samples, and back."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from smtpbench.measure.schema import schema_text
from smtpbench.measure.server_usage import (
    MAX_LOG_LINES,
    SERVER_COLUMNS,
    MeasuredServer,
    UsageSample,
    UsageWindow,
    rebuilt_section,
    samples_of,
    server_line,
    usage_section,
)
from smtpbench.units import NS_PER_S

SERVER = MeasuredServer("smtpbench", "master", "cgroup", "pss")
MIB = 2**20


def sample(at_s: float, cpu_s: float = 0.0, **values: Any) -> UsageSample:
    return UsageSample(round(at_s * NS_PER_S), cpu_s * 0.75, cpu_s * 0.25, **values)


def window_of(*samples: UsageSample) -> UsageWindow:
    window = UsageWindow()
    for one in samples:
        window.add(one)
    return window


def section_of(*samples: UsageSample, messages: int | None = None, **values: Any) -> dict[str, Any]:
    section = usage_section(SERVER, window_of(*samples), messages=messages, cores=2, **values)
    assert section is not None
    return section


def test_what_was_used_is_the_growth_of_the_counters_and_what_was_held_the_most() -> None:
    found = section_of(
        sample(10, 3.0, memory_bytes=5, processes=2, threads=4, fds=9, minor_faults=100, read_bytes=0, write_bytes=7,
               voluntary_switches=10, involuntary_switches=1),
        sample(11, 3.5, memory_bytes=9, processes=7, threads=3, fds=20),
        sample(14, 7.0, memory_bytes=6, processes=3, threads=5, fds=8, minor_faults=150, read_bytes=4, write_bytes=7,
               voluntary_switches=40, involuntary_switches=3),
        messages=500,
    )  # fmt: skip
    assert {name: value for name, value in found.items() if value is not None} == {
        "started_by": "smtpbench", "name": "master", "source": "cgroup", "memory": "pss", "window_s": 4.0, "cpu_s": 4.0,
        "cpu_user_s": 3.0, "cpu_system_s": 1.0, "cpu_ms_per_message": 8.0, "cores_share": 0.5, "rss_max_bytes": 9,
        "fds_max": 20, "threads_max": 5, "processes_max": 7, "minor_faults": 50, "read_bytes": 4, "write_bytes": 0,
        "voluntary_switches": 30, "involuntary_switches": 2, "restarts": 0, "deaths": [], "log_lines": [],
        "log_lines_dropped": 0,
    }  # fmt: skip


def test_what_could_not_be_read_is_null() -> None:
    found = section_of(sample(0, fds=None, read_bytes=3), sample(1, read_bytes=None))
    assert [found[name] for name in ("fds_max", "read_bytes", "fsyncs", "rss_max_bytes", "cpu_ms_per_message")] == [None] * 5


@pytest.mark.parametrize("messages", [None, 0])
def test_without_messages_there_is_no_cost_of_one(messages: int | None) -> None:
    assert section_of(sample(0), sample(1, 1.0), messages=messages)["cpu_ms_per_message"] is None


def test_growth_is_a_slope_per_hour_with_its_interval() -> None:
    found = section_of(*(sample(at, memory_bytes=50 * MIB + at * 4096) for at in range(30)))
    assert found["rss_growth_bytes_per_hour"] == pytest.approx(4096 * 3600)
    low, high = found["rss_growth_interval_bytes_per_hour"]
    assert low < 4096 * 3600 < high


def test_growth_of_a_short_time_is_not_known() -> None:
    found = section_of(*(sample(at, memory_bytes=at) for at in range(9)))
    assert (found["rss_growth_bytes_per_hour"], found["rss_growth_interval_bytes_per_hour"]) == (None, None)


def test_growth_is_that_between_two_restarts() -> None:
    before = [sample(at, memory_bytes=90 * MIB) for at in range(12)]
    after = [sample(20 + at, memory_bytes=10 * MIB + at * MIB, restarts=1) for at in range(15)]
    found = section_of(*before, *after)
    assert found["rss_growth_bytes_per_hour"] == pytest.approx(3600 * MIB)
    assert found["restarts"] == 1


def test_lines_that_are_too_many_are_counted() -> None:
    lines = [{"at_s": 1.0, "source": "output", "text": str(number)} for number in range(MAX_LOG_LINES + 20)]
    found = section_of(sample(0), sample(1), log_lines=lines)
    assert (len(found["log_lines"]), found["log_lines_dropped"]) == (MAX_LOG_LINES, 20)
    assert found["log_lines"][0]["text"] == "0"


def test_nothing_is_said_of_a_server_of_which_nothing_is_known() -> None:
    assert usage_section(SERVER, UsageWindow()) is None


@pytest.mark.parametrize("schema", ["result", "judgement"])
def test_section_is_valid_by_the_schemas(schema: str) -> None:
    death = {
        "at_s": 1.5, "how": "signal 6 (SIGABRT)", "exit_status": None, "signal": 6, "cause": "AddressSanitizer: f < g",
        "report": {"kind": "AddressSanitizer", "summary": "overflow", "frames": ["f", "g"], "lines": ["=1="]},
        "last_output": ["x"], "core_file": "", "restarted_by": "smtpbench",
    }  # fmt: skip
    lines = [{"at_s": 1.0, "source": "output", "text": "panic"}]
    full = section_of(
        *(sample(at, at, memory_bytes=at, fds=1, threads=1) for at in range(20)), messages=1, deaths=[death], log_lines=lines
    )
    empty = usage_section(MeasuredServer(memory=""), UsageWindow(), deaths=[death])
    known = json.loads(schema_text(schema))
    server = known["properties"]["server"]
    strict = json.loads(json.dumps(server).replace('"type": "object"', '"additionalProperties": false, "type": "object"'))
    for section in (full, empty):
        Draft202012Validator(strict).validate(section)


# server.csv -----------------------------------------------------------------------------------------------------------


def test_a_row_holds_what_was_used_since_the_row_before() -> None:
    before = sample(100, 2.0, read_bytes=10, minor_faults=5, restarts=0)
    now = sample(102, 3.0, memory_bytes=7, processes=2, threads=3, fds=None, read_bytes=14, minor_faults=6, restarts=1)
    cells = server_line(before, now, 99 * NS_PER_S).rstrip("\n").split(",")
    assert {name: cell for name, cell in zip(SERVER_COLUMNS, cells, strict=True) if cell} == {
        "end_s": "3.000", "cpu_user_share": "0.3750", "cpu_system_share": "0.1250", "memory_bytes": "7", "processes": "2",
        "threads": "3", "read_bytes": "4", "minor_faults": "1", "restarts": "1",
    }  # fmt: skip


def rows_of(samples: list[UsageSample]) -> list[dict[str, float | None]]:
    lines = [server_line(before, now, 0) for before, now in pairwise(samples)]
    return [
        {name: float(cell) if cell else None for name, cell in row.items()} for row in csv.DictReader(lines, SERVER_COLUMNS)
    ]


@pytest.mark.parametrize("warmup_s", [0, 3])
def test_a_result_is_rebuilt_from_the_rows(warmup_s: int) -> None:
    samples = [
        sample(at, at * 0.5, memory_bytes=MIB * (10 + at), processes=4, threads=4, fds=40 + at, minor_faults=at * 7,
               major_faults=0, read_bytes=at, write_bytes=at * 1000, voluntary_switches=at, involuntary_switches=0)
        for at in range(20)
    ]  # fmt: skip
    whole = section_of(*samples[warmup_s:], messages=100)
    rebuilt = rebuilt_section(whole, rows_of(samples), from_s=warmup_s, messages=100)
    assert rebuilt is not None
    own = {"cores_share", "rss_growth_bytes_per_hour", "rss_growth_interval_bytes_per_hour"}
    assert {name: rebuilt[name] for name in rebuilt.keys() - own} == {name: whole[name] for name in whole.keys() - own}
    assert rebuilt["rss_growth_bytes_per_hour"] == pytest.approx(whole["rss_growth_bytes_per_hour"])


def test_cells_that_are_empty_make_a_counter_unknown() -> None:
    server_rows = rows_of([sample(0, read_bytes=0), sample(1, read_bytes=5), sample(2)])
    first, *_, last = samples_of(server_rows)
    assert (first.read_bytes, last.read_bytes) == (0, None)
    (only,) = samples_of([{"cpu_user_share": 1.0}])
    assert only.cpu_s == 0


def test_rows_of_a_run_that_was_killed_in_its_warm_up_give_no_figures() -> None:
    whole = section_of(sample(0), sample(1))
    rebuilt = rebuilt_section(whole, rows_of([sample(at, at) for at in range(3)]), from_s=10, messages=0)
    assert rebuilt is not None
    assert (rebuilt["cpu_s"], rebuilt["window_s"]) == (None, 0.0)
