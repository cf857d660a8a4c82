"""The book: what is written into it is what comes out, whenever and however often it is drained."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from figures import MS, busy_recorder, sample, scribble

from smtpbench.measure.recorder import EXAMPLE_BYTES, MESSAGE_COUNTS, STEP_SAMPLES, Interval, Recorder
from smtpbench.session.context import LATE_SHIFT

OK = b"250 2.0.0 Ok\r\n"


def content(interval: Interval) -> dict[str, Any]:
    """An interval in a form that compares, whatever the order things came in."""
    data = interval.to_data()
    latencies = {}
    for metric, ok, service, response in data["latencies"]:
        kinds = {"service": service, "response": service if response is None else response}
        latencies[metric, ok] = {kind: (found[:5], sorted(zip(*found[5:], strict=True))) for kind, found in kinds.items()}
    return {**data, "replies": sorted(data["replies"]), "latencies": latencies}


def test_a_sample_tells_service_and_response_time() -> None:
    recorder = Recorder()
    recorder.samples("MAIL", "MAIL", OK, True).append(sample(7 * MS, late_us=40_000))
    latency = recorder.drain().latencies["MAIL", True]
    assert (latency.service.sum_ns, latency.response.sum_ns) == (7 * MS, 47 * MS)


@pytest.mark.parametrize(
    ("service_ns", "late_us"), [(0, 1), (1, 0), (MS, 3_600_000_000), ((1 << LATE_SHIFT) - 1, 1), (3600 * 1000 * MS, 5)]
)
def test_neither_part_of_a_sample_disturbs_the_other(service_ns: int, late_us: int) -> None:
    recorder = Recorder()
    recorder.timing("session").append(sample(service_ns, late_us))
    latency = recorder.drain().latencies["session", True]
    assert (latency.service.max_ns, latency.response.max_ns) == (service_ns, service_ns + late_us * 1000)


@pytest.mark.parametrize("late_us", [0, 5000])
@pytest.mark.parametrize("every", [1, 40, 1000])
def test_draining_in_pieces_gives_what_draining_at_once_gives(every: int, late_us: int) -> None:
    whole, pieces, total = Recorder(), Recorder(), Interval()
    scribble(whole, random.Random(5), 2000, late_us)
    draw = random.Random(5)
    for _ in range(0, 2000, every):
        scribble(pieces, draw, every, late_us)
        total.add(pieces.drain())
    assert total.attempted == 2000
    assert content(total) == content(whole.drain())


def test_lateness_that_comes_late_in_a_drain_misses_nothing() -> None:
    recorder = Recorder()
    on_time = [sample(MS)] * (2 * STEP_SAMPLES + 1)
    recorder.timing("message").extend([*on_time, sample(MS, late_us=9), *on_time])
    latency = recorder.drain().latencies["message", True]
    assert latency.service.count == latency.response.count == 2 * len(on_time) + 1
    assert latency.response.sum_ns - latency.service.sum_ns == 9000


def test_workers_add_up_to_one() -> None:
    recorders = [busy_recorder(500, seed, late_us) for seed, late_us in ((1, 0), (2, 900), (3, 0))]
    intervals = [recorder.drain() for recorder in recorders]
    forward, backward = Interval(), Interval()
    for interval in intervals:
        forward.add(Interval.from_data(json.loads(json.dumps(interval.to_data()))))
    for interval in reversed(intervals):
        backward.add(interval)
    backward.examples = forward.examples  # the first one met is kept, so here the order may show
    assert content(forward) == content(backward)
    assert forward.attempted == 1500
    assert sum(forward.replies.values()) == sum(sum(interval.replies.values()) for interval in intervals)


def test_adding_leaves_the_interval_that_was_added_alone() -> None:
    interval = busy_recorder().drain()
    before = json.dumps(interval.to_data())
    total = Interval()
    total.add(interval)
    total.add(interval)
    assert json.dumps(interval.to_data()) == before


def test_a_list_stays_the_same_for_the_life_of_the_book() -> None:
    recorder = Recorder()
    append = recorder.samples("MAIL", "MAIL", OK, True).append
    for _ in range(3):
        append(MS)
        assert recorder.drain().replies == {("MAIL", 250, "2.0.0", True): 1}
    assert recorder.drain().to_data()["replies"] == []
    assert recorder.samples("MAIL", "MAIL", b"250 2.0.0 another text\r\n", True).append == append
    assert recorder.timing("connect") is recorder.timing("connect")


def test_what_is_counted_during_a_drain_belongs_to_the_next() -> None:
    recorder = Recorder()
    total, counted = Interval(), 0
    append = recorder.samples("message", "message", OK, True).append
    for _ in range(20):
        for _ in range(3 * STEP_SAMPLES):
            append(MS)
        interval = Interval()
        for _ in recorder.drain_steps(interval):
            append(2 * MS)
            recorder.accepted += 1
            counted += 1
        total.add(interval)
    total.add(recorder.drain())
    assert total.messages["accepted"] == counted > 0
    assert total.latencies["message", True].service.count == 60 * STEP_SAMPLES + counted


def test_replies_without_a_slot_are_counted_and_not_timed() -> None:
    recorder = Recorder()
    recorder.samples("RCPT", "", OK, True).append(MS)
    recorder.timing("pipeline").append(3 * MS)
    interval = recorder.drain()
    assert interval.replies == {("RCPT", 250, "2.0.0", True): 1}
    assert list(interval.latencies) == [("pipeline", True)]


def test_replies_are_told_apart_and_share_their_slot() -> None:
    recorder = Recorder()
    for raw in (OK, b"251 2.1.5 will forward\r\n", b"450 4.2.0 later\r\n", b"?\r\n"):
        recorder.samples("RCPT", "RCPT", raw, raw.startswith(b"2")).append(MS)
    interval = recorder.drain()
    assert {key[1:]: count for key, count in interval.replies.items()} == {
        (250, "2.0.0", True): 1, (251, "2.1.5", True): 1, (450, "4.2.0", False): 1, (0, "", False): 1,
    }  # fmt: skip
    assert {key: latency.service.count for key, latency in interval.latencies.items()} == {
        ("RCPT", True): 2, ("RCPT", False): 2,
    }  # fmt: skip
    assert interval.recipients() == (2, 2)


@pytest.mark.parametrize("name", MESSAGE_COUNTS)
def test_message_counts_are_taken_once(name: str) -> None:
    recorder = Recorder()
    setattr(recorder, name, 3)
    assert recorder.drain().messages == {name: 3}
    assert recorder.drain().messages == {}


def test_one_example_of_each_refusal_is_kept() -> None:
    recorder = Recorder()
    long, hostile = b"550 5.7.1 " + b"x" * 1000, b"554-\xff\x1b[2J\r\n554 two"
    for text in (b"550 5.1.1 first\r\n", b"550 5.1.1 second\r\n", long, hostile):
        recorder.samples("RCPT", "RCPT", text, False)
    recorder.samples("RCPT", "RCPT", OK, True)
    examples = recorder.drain().examples
    assert list(examples) == ["RCPT 550 5.1.1", "RCPT 550 5.7.1", "RCPT 554"]
    assert examples["RCPT 550 5.1.1"] == "550 5.1.1 first"
    assert len(examples["RCPT 550 5.7.1"]) == EXAMPLE_BYTES
    assert examples["RCPT 554"].encode("utf-8", "surrogateescape") == hostile


def test_errors_are_counted_with_their_first_detail() -> None:
    recorder = Recorder()
    recorder.error("reset", "in the middle")
    recorder.error("reset", "elsewhere", count=4)
    recorder.error("timeout")
    interval = recorder.drain()
    assert interval.errors == {"reset": 5, "timeout": 1}
    assert interval.examples == {"reset": "in the middle"}
    recorder.error("reset", "elsewhere")
    assert recorder.drain().errors == {"reset": 1}


def test_a_server_cannot_make_the_book_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpbench.measure.recorder.REPLY_KINDS", 50)
    monkeypatch.setattr("smtpbench.measure.recorder.EXAMPLES", 20)
    recorder = Recorder()
    for number in range(500):
        recorder.samples("RCPT", "RCPT", b"550 5.%d.%d no\r\n" % (number % 7, number), False).append(MS)
    recorder.error("reset", "errors keep theirs")
    interval = recorder.drain()
    assert sum(interval.replies.values()) == 500
    assert interval.replies["RCPT", 550, "other", False] == 450
    assert len(interval.replies) == 51
    assert len(interval.examples) == 21
    assert interval.examples["reset"] == "errors keep theirs"


def test_rows_are_one_memo_for_each_ask() -> None:
    rows = Recorder(3).reply_caches
    assert rows == [{}, {}, {}]
    assert rows[0] is not rows[1]
