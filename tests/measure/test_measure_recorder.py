"""The recorder: every count and every sample is in exactly one interval, however often the recorder is drained."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from figures import MS, busy_recorder, record_random, sample

from smtpbench.measure.recorder import MAX_EXAMPLE_BYTES, MESSAGE_COUNTS, SAMPLES_PER_STEP, Interval, Recorder
from smtpbench.session.context import LATE_SHIFT

OK = b"250 2.0.0 Ok\r\n"


def content(interval: Interval) -> dict[str, Any]:
    """Return an interval in a form that can be compared, whatever the order of its samples."""
    data = interval.to_data()
    latencies = {}
    for metric, ok, service, response in data["latencies"]:
        kinds = {"service": service, "response": service if response is None else response}
        latencies[metric, ok] = {kind: (found[:5], sorted(zip(*found[5:], strict=True))) for kind, found in kinds.items()}
    return {**data, "replies": sorted(data["replies"]), "latencies": latencies}


def test_a_sample_holds_service_and_response_time() -> None:
    recorder = Recorder()
    recorder.samples("MAIL", "MAIL", OK, True).append(sample(7 * MS, late_us=40_000))
    latency = recorder.drain().latencies["MAIL", True]
    assert (latency.service.sum_ns, latency.response.sum_ns) == (7 * MS, 47 * MS)


@pytest.mark.parametrize(
    ("service_ns", "late_us"), [(0, 1), (1, 0), (MS, 3_600_000_000), ((1 << LATE_SHIFT) - 1, 1), (3600 * 1000 * MS, 5)]
)
def test_parts_of_a_sample_do_not_overlap(service_ns: int, late_us: int) -> None:
    recorder = Recorder()
    recorder.timing("session").append(sample(service_ns, late_us))
    latency = recorder.drain().latencies["session", True]
    assert (latency.service.max_ns, latency.response.max_ns) == (service_ns, service_ns + late_us * 1000)


@pytest.mark.parametrize("late_us", [0, 5000])
@pytest.mark.parametrize("samples_per_drain", [1, 40, 1000])
def test_sum_of_drains_equals_a_single_drain(samples_per_drain: int, late_us: int) -> None:
    whole, pieces, total = Recorder(), Recorder(), Interval()
    record_random(whole, random.Random(5), 2000, late_us)
    draw = random.Random(5)
    for _ in range(0, 2000, samples_per_drain):
        record_random(pieces, draw, samples_per_drain, late_us)
        total.add(pieces.drain())
    assert total.attempted == 2000
    assert content(total) == content(whole.drain())


def test_late_sample_after_the_first_step_of_a_drain() -> None:
    recorder = Recorder()
    on_time = [sample(MS)] * (2 * SAMPLES_PER_STEP + 1)
    recorder.timing("message").extend([*on_time, sample(MS, late_us=9), *on_time])
    latency = recorder.drain().latencies["message", True]
    assert latency.service.count == latency.response.count == 2 * len(on_time) + 1
    assert latency.response.sum_ns - latency.service.sum_ns == 9000


def test_sum_of_workers_does_not_depend_on_their_order() -> None:
    recorders = [busy_recorder(500, seed, late_us) for seed, late_us in ((1, 0), (2, 900), (3, 0))]
    intervals = [recorder.drain() for recorder in recorders]
    forward, backward = Interval(), Interval()
    for interval in intervals:
        forward.add(Interval.from_data(json.loads(json.dumps(interval.to_data()))))
    for interval in reversed(intervals):
        backward.add(interval)
    backward.examples = forward.examples  # the first example is kept, which depends on the order
    assert content(forward) == content(backward)
    assert forward.attempted == 1500
    assert sum(forward.replies.values()) == sum(sum(interval.replies.values()) for interval in intervals)


def test_adding_does_not_change_the_added_interval() -> None:
    interval = busy_recorder().drain()
    before = json.dumps(interval.to_data())
    total = Interval()
    total.add(interval)
    total.add(interval)
    assert json.dumps(interval.to_data()) == before


def test_sample_list_is_the_same_after_a_drain() -> None:
    recorder = Recorder()
    append = recorder.samples("MAIL", "MAIL", OK, True).append
    for _ in range(3):
        append(MS)
        assert recorder.drain().replies == {("MAIL", 250, "2.0.0", True): 1}
    assert recorder.drain().to_data()["replies"] == []
    assert recorder.samples("MAIL", "MAIL", b"250 2.0.0 another text\r\n", True).append == append
    assert recorder.timing("connect") is recorder.timing("connect")


def test_counts_during_a_drain_belong_to_the_next() -> None:
    recorder = Recorder()
    total, counted = Interval(), 0
    append = recorder.samples("message", "message", OK, True).append
    for _ in range(20):
        for _ in range(3 * SAMPLES_PER_STEP):
            append(MS)
        interval = Interval()
        for _ in recorder.drain_steps(interval):
            append(2 * MS)
            recorder.accepted += 1
            counted += 1
        total.add(interval)
    total.add(recorder.drain())
    assert total.messages["accepted"] == counted > 0
    assert total.latencies["message", True].service.count == 60 * SAMPLES_PER_STEP + counted


def test_replies_without_metric_are_counted_only() -> None:
    recorder = Recorder()
    recorder.samples("RCPT", "", OK, True).append(MS)
    recorder.timing("pipeline").append(3 * MS)
    interval = recorder.drain()
    assert interval.replies == {("RCPT", 250, "2.0.0", True): 1}
    assert list(interval.latencies) == [("pipeline", True)]


def test_replies_of_different_codes_share_a_metric() -> None:
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
def test_message_counts_are_reset_by_a_drain(name: str) -> None:
    recorder = Recorder()
    setattr(recorder, name, 3)
    assert recorder.drain().messages == {name: 3}
    assert recorder.drain().messages == {}


def test_first_example_of_each_unexpected_reply_is_kept() -> None:
    recorder = Recorder()
    long, hostile = b"550 5.7.1 " + b"x" * 1000, b"554-\xff\x1b[2J\r\n554 two"
    for text in (b"550 5.1.1 first\r\n", b"550 5.1.1 second\r\n", long, hostile):
        recorder.samples("RCPT", "RCPT", text, False)
    recorder.samples("RCPT", "RCPT", OK, True)
    examples = recorder.drain().examples
    assert list(examples) == ["RCPT 550 5.1.1", "RCPT 550 5.7.1", "RCPT 554"]
    assert examples["RCPT 550 5.1.1"] == "550 5.1.1 first"
    assert len(examples["RCPT 550 5.7.1"]) == MAX_EXAMPLE_BYTES
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


def test_number_of_reply_kinds_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpbench.measure.recorder.MAX_REPLY_KINDS", 50)
    monkeypatch.setattr("smtpbench.measure.recorder.MAX_EXAMPLES", 20)
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


def test_each_expected_reply_has_its_own_cache() -> None:
    caches = Recorder(3).reply_caches
    assert caches == [{}, {}, {}]
    assert caches[0] is not caches[1]


def test_messages_accepted_after_the_sending_window_are_counted_apart() -> None:
    recorder, whole = Recorder(), Interval()
    recorder.accepted = 5
    whole.add(recorder.drain())
    recorder.accepted = 3
    recorder.end_sending()
    recorder.accepted += 4
    recorder.end_sending()  # an early end that comes after the planned one changes nothing
    whole.add(Interval.from_data(recorder.drain().to_data()))
    recorder.accepted = 2
    whole.add(recorder.drain())
    assert (whole.messages["accepted"], whole.accepted_late, whole.accepted_while_sending) == (14, 6, 8)


def test_recipients_of_lmtp_are_counted_by_their_replies_after_the_final_dot() -> None:
    recorder = Recorder(lmtp=True)
    for raw in (OK, OK, OK, b"550 5.1.1 no\r\n"):
        recorder.samples("RCPT", "RCPT", raw, raw is OK).append(MS)
    recorder.recipients_accepted, recorder.recipients_rejected = 2, 1
    interval = recorder.drain()
    assert interval.recipients() == (2, 2)
    assert Interval.from_data(json.loads(json.dumps(interval.to_data()))).recipients() == (2, 2)
    whole = Interval()
    for part in (interval, recorder.drain()):
        whole.add(part)
    assert whole.recipients() == (2, 2)


def test_recipients_of_lmtp_without_replies_after_the_final_dot_are_neither_accepted_nor_rejected() -> None:
    recorder = Recorder(lmtp=True)
    recorder.samples("RCPT", "RCPT", OK, True).append(MS)
    assert recorder.drain().recipients() == (0, 0)
