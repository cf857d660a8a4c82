"""Comparison of saved results: refusals, notes and differences."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import saved_results
from figures import result_of, sample, tick
from jsonschema import Draft202012Validator

from smtpbench.errors import UsageError
from smtpbench.measure import result as results
from smtpbench.measure.comparison import any_worse, is_worse
from smtpbench.measure.files import RunFiles
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.measure.saved import Saved, load
from smtpbench.measure.schema import schema_text
from smtpbench.measure.server_usage import SERVER_CSV
from smtpbench.report.reading.comparison import compared_metrics_of
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


def add_server(
    folder: Path, cpu_ms: float, *, seconds: int = 22, offset_s: float = 0.4, seed: int = 1, **figures: Any
) -> Path:
    """Write `server.csv` of a server that takes so much CPU time for each of 50 messages a second, and `server`."""
    draw = random.Random(seed)
    lines = ["end_s,cpu_user_share,cpu_system_share,memory_bytes,fds,threads,read_bytes,write_bytes,restarts\n"]
    for second in range(seconds + 1):
        share = 50 * cpu_ms / 1000 * draw.gauss(1, 0.01)
        lines.append(f"{second + offset_s:.3f},{share:.5f},0,{1_000_000 + second},{10 + second},3,,512,0\n")
    (folder / SERVER_CSV).write_text("".join(lines))
    result = load(folder).result
    server = saved_results.server(cpu_ms_per_message=cpu_ms, **figures)
    results.save({**result, "server": server}, folder)
    return folder


CPU = parse_metric("server.cpu_ms_per_message")


def test_parts_have_what_the_server_used_in_them(tmp_path: Path) -> None:
    saved = load(add_server(saved_run(tmp_path / "a", 5.0), 4.0))
    assert part_values(saved, CPU, 10) == [pytest.approx(4.0, rel=0.03)] * 10
    cpu_ms = part_values(saved, parse_metric("server.cpu_s"), 10)
    assert sum(value or 0 for value in cpu_ms) == pytest.approx(19 * 50 * 4.0, rel=0.01)
    fds = part_values(saved, parse_metric("server.fds_max"), 10)
    assert fds == sorted(fds, key=lambda value: value or 0)
    assert part_values(saved, parse_metric("server.read_bytes"), 10) == [None] * 10  # they are not known
    assert part_values(saved, parse_metric("server.write_bytes"), 10)[:9] == [pytest.approx(512 * 2)] * 9
    assert part_values(saved, parse_metric("server.rss_growth"), 10) == [None] * 10


def test_parts_beyond_the_end_of_server_csv_have_no_value(tmp_path: Path) -> None:
    saved = load(add_server(saved_run(tmp_path / "a", 5.0), 4.0, seconds=11))
    values = part_values(saved, CPU, 10)
    assert [value is None for value in values] == [False] * 4 + [True] * 6
    (saved.folder / SERVER_CSV).unlink()
    assert part_values(saved, CPU, 10) == [None] * 10


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "no difference shown"), (1.5, "more"), (0.7, "less")])
def test_cpu_time_of_the_server_is_compared_where_all_runs_have_it(tmp_path: Path, factor: float, verdict: str) -> None:
    before = add_server(saved_run(tmp_path / "a", 5.0), 4.0)
    after = add_server(saved_run(tmp_path / "b", 5.0, seed=2), 4.0 * factor, seed=2)
    options: dict[str, Any] = {"confidence": 0.95, "least": 0.01, "force": False, "seed": 3, "optional_metrics": [CPU]}
    result = diff(load_candidates([before, after]), METRICS, **options)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(result)))] == []
    (entry,) = [one for one in result["differences"] if one["metric"] == CPU.text]
    assert (entry["verdict"], entry["better"], entry["unit"]) == (verdict, "lower", "ms")
    assert is_worse(entry) is (verdict == "more")
    old = saved_run(tmp_path / "old", 5.0)
    result = diff(load_candidates([before, old]), METRICS, **options)
    assert CPU.text not in [one["metric"] for one in result["differences"]]


def test_several_runs_give_one_value_of_the_server_each(tmp_path: Path) -> None:
    for side, cpu_ms in (("a", 4.0), ("b", 5.0)):
        for number in range(6):
            folder = saved_run(tmp_path / side / str(number), 5.0, seconds=4, seed=number)
            growth = 1e6 * number if side == "a" else -1e6
            add_server(folder, cpu_ms + number / 100, seconds=4, fds_max=50 + number, rss_growth_bytes_per_hour=growth)
    metrics = [parse_metric(f"server.{name}") for name in ("cpu_ms_per_message", "fds_max", "rss_max", "rss_growth")]
    options: dict[str, Any] = {"confidence": 0.95, "least": 0.01, "force": False, "seed": 3}
    result = diff(load_candidates([tmp_path / "a", tmp_path / "b"]), metrics, **options)
    found = {one["metric"].removeprefix("server."): one for one in result["differences"]}
    assert {name: one["verdict"] for name, one in found.items()} == {
        "cpu_ms_per_message": "more", "fds_max": "no difference shown", "rss_max": "no difference shown",
        "rss_growth": "less",
    }  # fmt: skip
    assert (found["rss_max"]["relative"], found["rss_growth"]["relative"]) == (True, False)
    texts = {one.metric: one.change_text for one in compared_metrics_of(Saved("comparison", result, tmp_path))}
    assert texts["server.rss_growth"].startswith("-")
    assert "MiB/h [" in texts["server.rss_growth"]
