"""Delayed acknowledgements: a second mode 40 ms above the first is named, other shapes are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.saved import RUN, Saved
from smtpbench.report.reading.delayed_ack import delayed_ack_note, delayed_replies_of
from smtpbench.report.reading.notes import all_notes_of, notes_of

MS = 1_000_000
FAST = [index * 5_000 for index in range(1, 201)]  # up to 1 ms
LATE = [40 * MS + index * 60_000 for index in range(60)]  # 40 to 43.5 ms


def saved_run(samples_ns: list[int], metric: str = "EHLO", **load: Any) -> Saved:
    """Return a run in which one metric has these service times."""
    edges = {"min_ms": min(samples_ns) / MS, "max_ms": max(samples_ns) / MS}
    service = {"count": len(samples_ns), "histogram": Histogram.of(samples_ns).encode(), **edges}
    target = {"url": "smtp://192.0.2.1:25"}
    result = {"latency": {metric: {"service": service}}, "load": load, "target": target, "notes": ["own"]}
    return Saved(RUN, result, Path())


def test_a_second_mode_at_40_ms_is_a_delayed_acknowledgement() -> None:
    (delayed,) = delayed_replies_of(saved_run(FAST + LATE))
    assert (delayed.metric, delayed.replies) == ("EHLO", 60)
    assert delayed.share == pytest.approx(60 / 260)
    note = delayed_ack_note(saved_run(FAST + LATE))
    assert note.startswith("40 ms steps: delayed acknowledgement.")
    assert "EHLO 23 %" in note
    assert "--quickack" in note


@pytest.mark.parametrize(
    "samples_ns",
    [
        pytest.param(FAST, id="all fast"),
        pytest.param(LATE * 4, id="all at 40 ms: a server that takes so long"),
        pytest.param(FAST + LATE[:4], id="too few to tell"),
        pytest.param(FAST * 30 + LATE, id="too small a share"),
        pytest.param([index * 400_000 for index in range(1, 300)], id="evenly up to 120 ms"),
        pytest.param(FAST + [30 * MS + index * 200_000 for index in range(100)], id="a mode from 30 to 50 ms"),
        pytest.param(FAST + LATE + [60 * MS + index * 200_000 for index in range(60)], id="40 ms is on the way to more"),
        pytest.param(FAST + [value + 30 * MS for value in LATE], id="a mode at 70 ms"),
    ],
)
def test_other_shapes_are_not(samples_ns: list[int]) -> None:
    assert delayed_ack_note(saved_run(samples_ns)) == ""


def test_times_that_are_no_single_replys_are_left_out() -> None:
    assert delayed_replies_of(saved_run(FAST + LATE, "session")) == []
    assert delayed_replies_of(saved_run(FAST + LATE, "RCPT")) != []


def test_a_client_that_acknowledges_at_once_and_a_unix_socket_are_no_reason() -> None:
    assert delayed_ack_note(saved_run(FAST + LATE, quickack=True)) == ""
    local = saved_run(FAST + LATE)
    local.result["target"]["url"] = "lmtp+unix:///run/lmtp"
    assert delayed_ack_note(local) == ""


def test_the_note_follows_those_of_the_result() -> None:
    saved = saved_run(FAST + LATE)
    assert notes_of(saved)[0] == "own"
    assert notes_of(saved)[1].startswith("40 ms steps")
    assert all_notes_of(saved) == notes_of(saved)


@pytest.mark.parametrize("value", ["", "no histogram", None, 7])
def test_a_result_without_its_histogram_has_no_note(value: object) -> None:
    saved = saved_run(FAST + LATE)
    saved.result["latency"]["EHLO"]["service"]["histogram"] = value
    assert delayed_ack_note(saved) == ""
