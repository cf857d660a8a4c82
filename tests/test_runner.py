"""The test helper that compares message counts: it must be able to fail."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from runner import Done, planned_arrivals

OPEN: dict[str, Any] = {
    "model": "open", "arrivals": None, "arrival_process": "uniform", "warmup_s": 0.0, "duration_s": 2.0,
    "stages": [{"rate_from_per_s": 2.5, "rate_to_per_s": 2.5, "duration_s": 2.0}],
}  # fmt: skip
RESULT: dict[str, Any] = {
    "outcome": {"status": "completed"}, "load": OPEN, "messages": {"attempted": 5, "accepted": 4, "failed": 1},
    "warmup": {"messages": {"attempted": 1, "accepted": 1, "failed": 0}},
}  # fmt: skip
TIMELINE = "t_s,phase,accepted,failed\n1,warmup,1,0\n1,steady,3,0\n2,steady,1,1\n"
SINK = {"messages": {"accepted": 5}}


def done(folder: Path, timeline: str = TIMELINE, **messages: int) -> Done:
    (folder / "timeline.csv").write_text(timeline)
    result = copy.deepcopy(RESULT)
    result["messages"].update(messages)
    return Done(0, "", "", result, folder)


def test_counts_that_agree_are_not_reported(tmp_path: Path) -> None:
    assert done(tmp_path).miscounted(SINK) == []


@pytest.mark.parametrize(
    ("changes", "sink", "found"),
    [
        ({"attempted": 4}, SINK, "attempted: 4, planned: 5"),
        ({"accepted": 3}, None, "accepted: 3, timeline: 4"),
        ({}, {"messages": {"accepted": 4}}, "accepted: 5, sink: 4"),
    ],
)
def test_each_disagreement_is_reported(tmp_path: Path, changes: Any, sink: Any, found: str) -> None:
    assert done(tmp_path, **changes).miscounted(sink) == [found]


def test_row_that_is_missing_in_the_timeline_is_reported(tmp_path: Path) -> None:
    assert done(tmp_path, TIMELINE.replace("2,steady,1,1\n", "")).miscounted() != []


@pytest.mark.parametrize(
    ("changes", "planned"),
    [
        ({}, 5), ({"arrivals": 7}, 7), ({"model": "closed", "stages": []}, None), ({"arrival_process": "poisson"}, None),
        ({"warmup_s": 1.0}, None), ({"stages": [{"rate_from_per_s": 1.0, "rate_to_per_s": 9.0}]}, None),
    ],
)  # fmt: skip
def test_number_of_planned_arrivals(changes: dict[str, Any], planned: int | None) -> None:
    assert planned_arrivals(OPEN | changes) == planned
