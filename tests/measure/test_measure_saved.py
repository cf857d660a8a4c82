"""Saved results are read back: complete, truncated, and damaged ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from figures import busy_recorder, result_of, tick

from smtpbench.errors import UsageError
from smtpbench.measure import result as results
from smtpbench.measure.files import HLOG, TIMELINE, RunFiles
from smtpbench.measure.recorder import Interval
from smtpbench.measure.saved import CHECK, RUN, SCHEMAS, load, totals_of


def run_folder(folder: Path, seconds: int = 3) -> Interval:
    """Write the files of a run to a folder; return what the run counted."""
    files, totals = RunFiles(folder, datetime(2026, 1, 2, tzinfo=UTC)), Interval()
    for number in range(seconds):
        interval = busy_recorder(50, late_us=900).drain()
        for _ in files.add_steps(tick(interval, end_s=number + 1.0)):
            pass
        totals.add(interval)
    results.save(result_of(totals), folder)
    return totals


def test_files_of_a_run_are_read_back(tmp_path: Path) -> None:
    totals = run_folder(tmp_path / "one")
    saved = load(tmp_path / "one")
    assert (saved.kind, saved.label, saved.folder) == (RUN, "one", tmp_path / "one")
    timeline_rows = saved.timeline()
    assert [row["t_s"] for row in timeline_rows] == [1.0, 2.0, 3.0]
    assert {row["phase"] for row in timeline_rows} == {"steady"}
    for ok in (True, False):
        seconds = list(saved.seconds("message", "service", ok=ok))
        assert [second.start_s for second in seconds] == [0.0, 1.0, 2.0]
        assert sum(second.histogram.count for second in seconds) == totals.latencies["message", ok].service.count
    assert list(saved.seconds("messag")) == []


def test_missing_and_damaged_values_are_left_out(tmp_path: Path) -> None:
    run_folder(tmp_path)
    saved = load(tmp_path)
    whole = (tmp_path / HLOG).read_text()
    (tmp_path / HLOG).write_text("Tag=message.response,no,1,2,x\n" + whole[: len(whole) - 40])
    (tmp_path / TIMELINE).write_text("t_s,phase,accepted\n1,steady,nan\n2,steady,\n3,steady,7,8,9\n")
    assert 0 < len(list(saved.seconds("message"))) <= 3
    assert [row["accepted"] for row in saved.timeline()] == [None, None, 7.0]
    (tmp_path / HLOG).unlink()
    (tmp_path / TIMELINE).unlink()
    assert (list(saved.seconds("message")), list(saved.timeline())) == ([], [])


@pytest.mark.parametrize("kind", list(SCHEMAS))
def test_kind_of_a_result_follows_from_its_schema(tmp_path: Path, kind: str) -> None:
    schema, sections = SCHEMAS[kind]
    result: dict[str, Any] = {"schema": schema, **{name: {} for name in sections}}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(result))
    assert (load(path).kind, load(path).label) == (kind, "mine")
    del result[sections[0]]
    path.write_text(json.dumps(result))
    with pytest.raises(UsageError, match=f"missing: {sections[0]}"):
        load(path)


def test_unknown_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"schema": SCHEMAS[CHECK][0].replace("1", "9\x1b")}))
    with pytest.raises(UsageError, match=r"unknown version smtpbench-check/9\\x1b"):
        load(path)


def test_totals_of_a_result_equal_those_it_was_built_from(tmp_path: Path) -> None:
    totals = run_folder(tmp_path)
    result = load(tmp_path).result
    read = totals_of(result)
    assert read.messages == totals.messages
    assert read.errors == totals.errors
    assert read.recipients() == totals.recipients()
    for key, latency in totals.latencies.items():
        for time in ("service", "response"):
            found, expected = getattr(read.latencies[key], time), getattr(latency, time)
            assert found.percentiles_ms([50, 99, 100]) == expected.percentiles_ms([50, 99, 100])
            assert (found.count, found.min_ns, found.max_ns) == (expected.count, expected.min_ns, expected.max_ns)
            assert found.sum_ns == pytest.approx(expected.sum_ns)
    del result["latency"]["message"]["service"]["histogram"]
    assert ("message", True) not in totals_of(result).latencies


def test_totals_of_an_lmtp_result_have_its_recipients(tmp_path: Path) -> None:
    run_folder(tmp_path, seconds=20)
    result = load(tmp_path).result
    refused = totals_of(result).recipients()[1]
    result["recipients"] = {"accepted": 7, "rejected": refused + 2}
    assert totals_of(result).recipients() == (7, refused + 2)
