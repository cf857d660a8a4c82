"""Saved results against each other: what is refused, what is told, what is found."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from importlib.resources import files
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
from smtpbench.study.diff import diff, part_values, sides_of
from smtpbench.threshold import parse_metric

SCHEMA = json.loads(files("smtpbench.measure").joinpath("compared.schema.json").read_text(encoding="utf-8"))
METRICS = [parse_metric(text) for text in ("throughput", "message.p50", "failed", "replies.RCPT.4xx")]
MS = 1_000_000


def saved_run(folder: Path, ms: float, *, seconds: int = 22, seed: int = 1, change: dict[str, Any] | None = None) -> Path:
    """A run of a message time of about so many milliseconds, two of its seconds being warm-up."""
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


def compared(*paths: Path, force: bool = False) -> dict[str, Any]:
    result = diff(sides_of(paths), METRICS, confidence=0.95, least=0.01, force=force, seed=3)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(result)))] == []
    return result


def words(result: dict[str, Any]) -> dict[str, str]:
    return {entry["metric"]: entry["verdict"] for entry in result["differences"]}


def test_two_runs_by_their_parts(tmp_path: Path) -> None:
    result = compared(saved_run(tmp_path / "old", 10), saved_run(tmp_path / "new", 11, seed=2))
    assert words(result) == {
        "throughput": "no difference shown", "message.p50": "slower", "failed": "no difference shown",
        "replies.RCPT.4xx": "cannot tell",
    }  # fmt: skip
    assert result["plan"]["repeats"] == 19
    assert result["name"] == "new against old"
    assert "not whether the next would" in result["plan"]["method"]
    assert any_worse(result)


def test_a_run_against_itself(tmp_path: Path) -> None:
    one = saved_run(tmp_path / "one", 10)
    result = compared(one, one)
    assert set(words(result).values()) == {"no difference shown", "cannot tell"}
    assert [side["name"] for side in result["candidates"]] == ["one", "one (2)"]
    assert not any_worse(result)


def test_the_parts_leave_the_warm_up_out_and_add_up(tmp_path: Path) -> None:
    saved = load(saved_run(tmp_path, 10))
    assert part_values(saved, parse_metric("message.count"), 19) == [50.0] * 19
    assert part_values(saved, parse_metric("throughput"), 19) == [pytest.approx(50.0)] * 19
    assert sum(value or 0 for value in part_values(saved, parse_metric("message.count"), 4)) == 19 * 50
    assert part_values(saved, parse_metric("RCPT.p50"), 3) == [None] * 3


def test_several_runs_a_side(tmp_path: Path) -> None:
    for number in range(6):
        saved_run(tmp_path / "old" / str(number), 10, seconds=4, seed=number)
        saved_run(tmp_path / "new" / str(number), 9, seconds=4, seed=number + 50)
    result = compared(tmp_path / "old", tmp_path / "new")
    assert words(result)["message.p50"] == "faster"
    assert result["plan"]["repeats"] == 6
    assert result["candidates"][0]["runs"] == [str(tmp_path / "old" / str(number)) for number in range(6)]
    few = compared(tmp_path / "old" / "1", tmp_path / "new")
    assert "5 are the least that shows anything" in few["plan"]["method"]
    assert set(words(few).values()) == {"cannot tell"}


def test_runs_that_are_too_short_show_nothing(tmp_path: Path) -> None:
    result = compared(saved_run(tmp_path / "a", 10, seconds=4), saved_run(tmp_path / "b", 20, seconds=4))
    assert set(words(result).values()) == {"cannot tell"}
    assert "too short" in result["plan"]["method"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scenario/sha256": "f" * 64}, "ran another scenario"),
        ({"load/model": "closed"}, "another load model"),
        ({"load/stages": [{"duration_s": 1, "rate_from_per_s": 7, "rate_to_per_s": 7}]}, "another rate"),
        ({"load/message_bytes": 9}, "another message size"),
        ({"outcome": {"status": "interrupted", "reason": ""}}, "was not completed"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    one, other = saved_run(tmp_path / "a", 10), saved_run(tmp_path / "b", 10, change=change)
    with pytest.raises(UsageError, match=f"b {why}|b ran with {why}"):
        compared(one, other)
    assert any(why in note for note in compared(one, other, force=True)["notes"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"load/connections": 99}, "number of connections"),
        ({"machine": {"cpu": "another", "cores": 1, "memory_bytes": 1, "kernel": "k"}}, "another machine"),
        ({"outcome": {"status": "aborted", "reason": ""}}, "was aborted"),
    ],
)
def test_what_a_reader_must_know_is_told(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    result = compared(saved_run(tmp_path / "a", 10), saved_run(tmp_path / "b", 10, change=change))
    assert any(why in note for note in result["notes"])


def test_where_the_generator_was_limited_nothing_is_said(tmp_path: Path) -> None:
    change = {"generator/limited": True, "generator/limited_reasons": ["its core was 99% busy"]}
    result = compared(saved_run(tmp_path / "a", 10), saved_run(tmp_path / "b", 20, change=change))
    assert set(words(result).values()) == {"cannot tell"}
    assert any("generator was the bottleneck" in note for note in result["notes"])


def verdict(path: Path, kind: str = "check", **verdicts: str) -> Path:
    rules = {name.replace("_", "-"): {"verdict": verdict} for name, verdict in verdicts.items()}
    result = {
        "schema": f"smtpbench-{kind}/1", "kind": kind, "target": {"url": "smtp://127.0.0.1:1", "banner": "220 x"},
        "rules": rules, "generator": {"limited": False}, "machine": {}, "versions": {}, "cases": {},
    }  # fmt: skip
    path.write_text(json.dumps(result))
    return path


@pytest.mark.parametrize("kind", ["check", "fuzz"])
def test_rules_are_compared(tmp_path: Path, kind: str) -> None:
    old = verdict(tmp_path / "old.json", kind, eod_lf_lf="violation", auth_order="pass", re_ehlo="violation")
    new = verdict(tmp_path / "new.json", kind, eod_lf_lf="pass", auth_order="violation", re_ehlo="violation")
    result = diff(sides_of([old, new]), [], confidence=0.95, least=0.01, force=False)
    assert {entry["rule"]: entry["verdicts"] for entry in result["rule_differences"]} == {
        "eod-lf-lf": {"old": "violation", "new": "pass"}, "auth-order": {"old": "pass", "new": "violation"},
    }  # fmt: skip
    assert any_worse(result)
    assert not any_worse(diff(sides_of([old, old]), [], confidence=0.95, least=0.01, force=False))


def test_sides_of_other_kinds_are_refused(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", 10)
    check = verdict(tmp_path / "check.json")
    with pytest.raises(UsageError, match="results of different kinds"):
        sides_of([run, check])
    with pytest.raises(UsageError, match=r"no result\.json in it"):
        sides_of([tmp_path / "run", (tmp_path / "empty").mkdir() or tmp_path / "empty"])  # type: ignore[func-returns-value]  # None, so the path
    (tmp_path / "run" / "result.json").write_text(json.dumps(compared(saved_run(tmp_path / "b", 10), tmp_path / "b")))
    with pytest.raises(UsageError, match="a comparison is a reading already"):
        sides_of([run, run])
