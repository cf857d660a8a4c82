"""A result that a killed command leaves: written as it comes, and completed from the other files of its folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
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
from smtpbench.measure.saved import load as read_saved
from smtpbench.units import NS_PER_MS


@pytest.fixture
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run writes before its load begins."""
    path = run_folder(tmp_path_factory.mktemp("whole"), seconds=1, samples=1)
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def write_run(folder: Path, result: dict[str, Any], phases: Sequence[str] = ("warmup", "steady", "steady")) -> None:
    files = RunFiles(folder, datetime.now(UTC))
    for second, phase in enumerate(phases, 1):
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
    saved = read_saved(tmp_path)
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


@pytest.mark.parametrize(
    ("load", "phases", "sending_s", "accepted_in_time"),
    [
        # killed in the drain
        ({"duration_s": 3.0, "sending_s": 3.0}, ("warmup", "steady", "steady", "steady", "drain", "drain"), 3.0, 30),
        # killed while sending
        ({"duration_s": 30.0, "sending_s": 30.0}, ("warmup", "steady", "steady"), 2.0, 20),
        # open model that a number of arrivals ends: its phases do not know when
        ({"duration_s": 3e7, "sending_s": 2.0}, ("warmup", "steady", "steady", "steady"), 2.0, 20),
        # closed model with a number and a length: 0 was written before the load began
        ({"duration_s": 2.0, "sending_s": 0.0}, ("warmup", "steady", "steady", "drain"), 2.0, 20),
        # closed model that a number of arrivals ends: it sends until the last
        ({"duration_s": None, "sending_s": 0.0}, ("warmup", "steady", "steady", "steady"), 3.0, 30),
    ],
)  # fmt: skip
def test_killed_run_tells_sending_from_draining(
    tmp_path: Path, before: dict[str, Any], load: dict[str, Any], phases: tuple[str, ...], sending_s: float,
    accepted_in_time: int,
) -> None:  # fmt: skip
    before["load"] |= {**load, "warmup_s": 1.0}
    before["thresholds"] = [{"threshold": "throughput > 9.9/s", "unit": "per_s", "value": None, "passed": False}]
    write_run(tmp_path, before, phases)
    result = read_saved(tmp_path).result
    window_s = len(phases) - 1.0
    assert {name: result["load"][name] for name in ("window_s", "sending_s", "draining_s")} == {
        "window_s": window_s, "sending_s": sending_s, "draining_s": window_s - sending_s,
    }  # fmt: skip
    assert result["throughput"] == {"messages_per_s": accepted_in_time / sending_s, "messages": accepted_in_time}
    assert (result["thresholds"][0]["value"], result["thresholds"][0]["passed"]) == (10, True)
    assert result["messages"]["accepted"] == 10 * window_s


def test_run_that_was_killed_before_its_first_second_has_no_figures(tmp_path: Path, before: dict[str, Any]) -> None:
    save_partial(before, tmp_path)
    saved = read_saved(tmp_path)
    assert saved.result["outcome"]["status"] == "killed"
    assert saved.result["messages"]["attempted"] == 0


def test_finished_result_comes_before_what_was_found_so_far(tmp_path: Path, before: dict[str, Any]) -> None:
    save_partial(before, tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(before))
    assert read_saved(tmp_path).result["outcome"]["status"] == "completed"


def test_folder_without_either_is_refused(tmp_path: Path, before: dict[str, Any]) -> None:
    save_partial(before, tmp_path)
    remove_partial(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="no such file"):
        read_saved(tmp_path)


def test_folder_that_cannot_be_written_does_not_end_a_command(tmp_path: Path, before: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("")
    save_partial(before, tmp_path / "file")
    assert not (tmp_path / PARTIAL).exists()
