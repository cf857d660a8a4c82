"""Comparison of saved results: refusals, notes and differences."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from figures import result_of, sample, tick
from jsonschema import Draft202012Validator

from smtpbench.errors import UsageError
from smtpbench.measure import result as results
from smtpbench.measure.comparison import any_worse
from smtpbench.measure.files import RunFiles
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.measure.saved import load
from smtpbench.measure.schema import schema_text
from smtpbench.study.diff import diff, load_candidates, part_values
from smtpbench.threshold import parse_metric

SCHEMA = json.loads(schema_text("compared"))
METRICS = [parse_metric(text) for text in ("throughput", "message.p50", "failed", "replies.RCPT.4xx")]
MS = 1_000_000


def saved_run(folder: Path, ms: float, *, seconds: int = 22, seed: int = 1, change: dict[str, Any] | None = None) -> Path:
    """Return the folder of a run with this message latency, milliseconds; the first two seconds are warm-up."""
    draw, totals = random.Random(seed), Interval()
    files = RunFiles(folder, datetime(2026, 1, 2, tzinfo=UTC))
    for second in range(1, seconds + 1):
        recorder = Recorder()
        for _ in range(50):
            recorder.samples("message", "message", b"250 2.0.0 Ok\r\n", True).append(
                sample(int(draw.gauss(ms, ms / 50) * MS))
            )
            recorder.accepted += 1
        interval = recorder.drain()
        warm = second <= 2
        measured = Interval() if warm else None
        for _ in files.add_steps(
            tick(interval, end_s=float(second), phase="warmup" if warm else "steady", measured=measured)
        ):
            pass
        if not warm:
            totals.add(interval)
    result = result_of(totals)
    for path, value in (change or {}).items():
        part, _, key = path.rpartition("/")
        (result[part] if part else result)[key] = value
    results.save(result, folder)
    return folder


def diff_of(*paths: Path, force: bool = False) -> dict[str, Any]:
    result = diff(load_candidates(paths), METRICS, confidence=0.95, least=0.01, force=force, seed=3)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(result)))] == []
    return result


def verdicts_by_metric(result: dict[str, Any]) -> dict[str, str]:
    return {entry["metric"]: entry["verdict"] for entry in result["differences"]}


def test_two_runs_are_compared_by_parts_of_their_windows(tmp_path: Path) -> None:
    result = diff_of(saved_run(tmp_path / "old", 10), saved_run(tmp_path / "new", 11, seed=2))
    assert verdicts_by_metric(result) == {
        "throughput": "no difference shown", "message.p50": "slower", "failed": "no difference shown",
        "replies.RCPT.4xx": "cannot tell",
    }  # fmt: skip
    assert result["plan"]["repeats"] == 19
    assert result["name"] == "new against old"
    assert "not whether the next do" in result["plan"]["method"]
    assert any_worse(result)


def test_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    one = saved_run(tmp_path / "one", 10)
    result = diff_of(one, one)
    assert set(verdicts_by_metric(result).values()) == {"no difference shown", "cannot tell"}
    assert [one["name"] for one in result["candidates"]] == ["one", "one (2)"]
    assert not any_worse(result)


def test_parts_exclude_the_warm_up_and_add_up_to_the_window(tmp_path: Path) -> None:
    saved = load(saved_run(tmp_path, 10))
    assert part_values(saved, parse_metric("message.count"), 19) == [50.0] * 19
    assert part_values(saved, parse_metric("throughput"), 19) == [pytest.approx(50.0)] * 19
    assert sum(value or 0 for value in part_values(saved, parse_metric("message.count"), 4)) == 19 * 50
    assert part_values(saved, parse_metric("RCPT.p50"), 3) == [None] * 3


def test_several_runs_of_each_candidate_give_one_value_a_run(tmp_path: Path) -> None:
    for number in range(6):
        saved_run(tmp_path / "old" / str(number), 10, seconds=4, seed=number)
        saved_run(tmp_path / "new" / str(number), 9, seconds=4, seed=number + 50)
    result = diff_of(tmp_path / "old", tmp_path / "new")
    assert verdicts_by_metric(result)["message.p50"] == "faster"
    assert result["plan"]["repeats"] == 6
    assert result["candidates"][0]["runs"] == [str(tmp_path / "old" / str(number)) for number in range(6)]
    few = diff_of(tmp_path / "old" / "1", tmp_path / "new")
    assert "At least 5 runs of each candidate are needed; one has 1." in few["plan"]["method"]
    assert set(verdicts_by_metric(few).values()) == {"cannot tell"}


def test_runs_that_are_too_short_are_inconclusive(tmp_path: Path) -> None:
    result = diff_of(saved_run(tmp_path / "a", 10, seconds=4), saved_run(tmp_path / "b", 20, seconds=4))
    assert set(verdicts_by_metric(result).values()) == {"cannot tell"}
    assert "too short" in result["plan"]["method"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scenario/sha256": "f" * 64}, "has a different scenario"),
        ({"load/model": "closed"}, "different load model"),
        ({"load/stages": [{"duration_s": 1, "rate_from_per_s": 7, "rate_to_per_s": 7}]}, "different rate"),
        ({"load/message_bytes": 9}, "different message size"),
        ({"outcome": {"status": "interrupted", "reason": ""}}, "was not completed"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_unless_forced(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    one, other = saved_run(tmp_path / "a", 10), saved_run(tmp_path / "b", 10, change=change)
    with pytest.raises(UsageError, match=f"b {why}|b has a {why}"):
        diff_of(one, other)
    assert any(why in note for note in diff_of(one, other, force=True)["notes"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"load/connections": 99}, "number of connections"),
        ({"machine": {"cpu": "another", "cores": 1, "memory_bytes": 1, "kernel": "k"}}, "different machine"),
        ({"outcome": {"status": "aborted", "reason": ""}}, "was aborted"),
    ],
)
def test_differences_of_set_up_are_noted(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    result = diff_of(saved_run(tmp_path / "a", 10), saved_run(tmp_path / "b", 10, change=change))
    assert any(why in note for note in result["notes"])


def test_runs_with_a_limited_generator_are_inconclusive(tmp_path: Path) -> None:
    change = {
        "generator/limited": True, "generator/limited_reasons": ["its core was 99% busy"],
        "generator/busiest_worker_share": 0.99, "generator/late_p50_ms": 40.0, "generator/late_p99_ms": 90.0,
    }  # fmt: skip
    result = diff_of(saved_run(tmp_path / "a", 10), saved_run(tmp_path / "b", 20, change=change))
    verdicts = verdicts_by_metric(result)
    counts = {name for name in verdicts if name in ("rejected", "failed")}
    assert {verdicts[name] for name in verdicts if name not in counts} == {"cannot tell"}
    assert {verdicts[name] for name in counts} <= {"no difference shown", "more", "fewer"}
    assert any("generator was the bottleneck" in note for note in result["notes"])


def saved_verdicts(path: Path, kind: str = "check", **verdicts: str) -> Path:
    rules = {name.replace("_", "-"): {"verdict": verdict} for name, verdict in verdicts.items()}
    result = {
        "schema": f"smtpbench-{kind}/1", "kind": kind, "target": {"url": "smtp://127.0.0.1:1", "banner": "220 x"},
        "rules": rules, "generator": {"limited": False}, "machine": {}, "versions": {}, "cases": {},
    }  # fmt: skip
    path.write_text(json.dumps(result))
    return path


@pytest.mark.parametrize("kind", ["check", "fuzz"])
def test_rules_are_diff_of(tmp_path: Path, kind: str) -> None:
    old = saved_verdicts(tmp_path / "old.json", kind, eod_lf_lf="violation", auth_order="pass", re_ehlo="violation")
    new = saved_verdicts(tmp_path / "new.json", kind, eod_lf_lf="pass", auth_order="violation", re_ehlo="violation")
    result = diff(load_candidates([old, new]), [], confidence=0.95, least=0.01, force=False)
    assert {entry["rule"]: entry["verdicts"] for entry in result["rule_differences"]} == {
        "eod-lf-lf": {"old": "violation", "new": "pass"}, "auth-order": {"old": "pass", "new": "violation"},
    }  # fmt: skip
    assert any_worse(result)
    assert not any_worse(diff(load_candidates([old, old]), [], confidence=0.95, least=0.01, force=False))


def test_results_of_different_kinds_are_refused(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", 10)
    check = saved_verdicts(tmp_path / "check.json")
    with pytest.raises(UsageError, match="results of different kinds cannot be compared"):
        load_candidates([run, check])
    with pytest.raises(UsageError, match=r"no result\.json in this folder"):
        load_candidates([tmp_path / "run", (tmp_path / "empty").mkdir() or tmp_path / "empty"])  # type: ignore[func-returns-value]  # None, so the path
    (tmp_path / "run" / "result.json").write_text(json.dumps(diff_of(saved_run(tmp_path / "b", 10), tmp_path / "b")))
    with pytest.raises(UsageError, match="cannot compare comparison results"):
        load_candidates([run, run])
