"""A result that a killed command leaves: written as it comes, and completed from the other files of its folder."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from saved_results import run_folder

from smtpbench.errors import UsageError
from smtpbench.measure.files import RunFiles, Tick
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.partial import PARTIAL, REASONS, remove_partial, save_partial
from smtpbench.measure.recorder import Interval, Latency
from smtpbench.measure.saved import load
from smtpbench.units import NS_PER_MS


@pytest.fixture
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run writes before its load begins."""
    path = run_folder(tmp_path_factory.mktemp("whole"), seconds=1, samples=1)
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def write_run(folder: Path, result: dict[str, Any]) -> None:
    files = RunFiles(folder, datetime.now(UTC))
    for second, phase in enumerate(("warmup", "steady", "steady"), 1):
        histogram = Histogram.of([second * NS_PER_MS])
        interval = Interval(
            Counter(accepted=10, failed=second), latencies={("message", True): Latency(histogram, histogram)},
            errors=Counter(reset=second),
        )  # fmt: skip
        measured = Interval() if phase == "warmup" else None
        for _ in files.add_steps(Tick(float(second), 1.0, phase, interval, 4, 1, 0, 0.1, 2.0, measured)):
            pass
    save_partial(result, folder)


def test_killed_run_has_the_counts_and_latencies_of_its_files(tmp_path: Path, before: dict[str, Any]) -> None:
    before["load"]["warmup_s"] = 1.0
    before["thresholds"] = [
        {"threshold": "failed < 1%", "unit": "share", "value": None, "passed": False, "margin_share": None},
        {"threshold": "replies.RCPT.5xx < 1", "unit": "count", "value": None, "passed": False, "margin_share": None},
    ]
    write_run(tmp_path, before)
    saved = load(tmp_path)
    assert saved.kind == "run"
    assert saved.result["outcome"] == {"status": "killed", "reason": REASONS["killed"]}
    assert saved.result["messages"] == {
        "attempted": 25, "accepted": 20, "rejected": 0, "failed": 5, "dropped": 0, "interrupted": 0,
    }  # fmt: skip
    assert saved.result["warmup"]["messages"]["attempted"] == 11
    assert saved.result["load"]["window_s"] == 2.0
    assert saved.result["throughput"]["messages_per_s"] == 10
    assert saved.result["latency"]["message"]["service"]["count"] == 2
    assert saved.result["latency"]["message"]["service"]["max_ms"] == pytest.approx(3.0, rel=0.01)
    assert saved.result["errors"] == {"unknown": 5}
    failed, replies = saved.result["thresholds"]
    assert (failed["value"], failed["passed"]) == (0.2, False)
    assert (replies["value"], replies["passed"]) == (None, False), "what was not written does not pass"


def test_run_that_was_killed_before_its_first_second_has_no_figures(tmp_path: Path, before: dict[str, Any]) -> None:
    save_partial(before, tmp_path)
    saved = load(tmp_path)
    assert saved.result["outcome"]["status"] == "killed"
    assert saved.result["messages"]["attempted"] == 0


def test_finished_result_comes_before_what_was_found_so_far(tmp_path: Path, before: dict[str, Any]) -> None:
    save_partial(before, tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(before))
    assert load(tmp_path).result["outcome"]["status"] == "completed"


def test_folder_without_either_is_refused(tmp_path: Path, before: dict[str, Any]) -> None:
    save_partial(before, tmp_path)
    remove_partial(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="no such file"):
        load(tmp_path)


def test_folder_that_cannot_be_written_does_not_end_a_command(tmp_path: Path, before: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("")
    save_partial(before, tmp_path / "file")
    assert not (tmp_path / PARTIAL).exists()
