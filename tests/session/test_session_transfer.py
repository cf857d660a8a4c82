"""Writes that the kernel takes in parts: the time of the transfer, and what begins when the last octet was taken."""

from __future__ import annotations

import pytest
from fakes import ClientFeed, command_step, repeated

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step

UNTIL_DATA = (b"220 s\r\n", b"250 s\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")
MS = 1_000_000  # each call of a feed takes one


def in_transfer(**options: object) -> ClientFeed:
    """A session whose message the kernel takes in parts."""
    feed = ClientFeed(repeated(), iterations=1, **options)  # type: ignore[arg-type]  # options of the feed
    feed.receive_each(*UNTIL_DATA)
    feed.write_progressed()
    return feed


def test_transfer_is_a_metric_of_its_own_and_message_begins_with_the_last_octet() -> None:
    feed = in_transfer()
    for _ in range(5):
        feed.write_progressed()
    feed.write_progressed(finished=True)
    feed.receive(b"250 ok\r\n")
    assert feed.recorder.timings["transfer", True] == [7 * MS]
    assert feed.recorder.service_ns("message") == [MS]
    assert feed.recorder.timings["transaction", True] == [11 * MS]


def test_message_taken_at_once_has_no_transfer() -> None:
    feed = ClientFeed(repeated(), iterations=1)
    feed.receive_each(*UNTIL_DATA, b"250 ok\r\n")
    assert feed.recorder.timings["transfer", True] == []
    assert feed.recorder.service_ns("message") == [MS]


def test_each_bdat_chunk_has_its_transfer() -> None:
    chunks = (
        Step(s.COMMAND, b"BDAT 2\r\nxx", expected_replies=(ExpectedReply("BDAT", (2,)),), metric="BDAT"),
        Step(s.MESSAGE, b"BDAT 2 LAST\r\nxx", expected_replies=(ExpectedReply("message", (2,)),), metric="message"),
    )
    feed = ClientFeed(Script.of("chunks", (*chunks, command_step(b"QUIT", 221)), teardown=2))
    feed.receive(b"220 s\r\n")
    for _ in chunks:
        feed.write_progressed()
        feed.write_progressed(finished=True)
        feed.receive(b"250 ok\r\n")
    assert feed.recorder.timings["transfer", True] == [2 * MS] * 2
    assert feed.recorder.service_ns("BDAT") == feed.recorder.service_ns("message") == [MS]


def test_command_written_in_parts_is_timed_from_its_last_octet_and_is_no_transfer() -> None:
    group = Step(s.GROUP, b"NOOP\r\n" * 2, expected_replies=(ExpectedReply("NOOP", (2,)),) * 2, metric="pipeline")
    feed = ClientFeed(Script.of("group", (group, command_step(b"QUIT", 221)), teardown=1))
    feed.receive(b"220 s\r\n")
    feed.write_progressed()
    feed.write_progressed(finished=True)
    feed.receive(b"250 ok\r\n250 ok\r\n")
    assert feed.recorder.timings["pipeline", True] == [MS]
    assert feed.recorder.timings["transfer", True] == []


def test_reply_before_the_end_of_the_transfer_is_taken_and_the_next_command_is_timed_from_its_last_octet() -> None:
    feed = in_transfer()
    feed.scheduler.iterations = 1
    assert feed.receive(b"552 too big\r\n").startswith(b"MAIL")
    feed.write_progressed()
    feed.write_progressed(finished=True)  # of the rest, and of MAIL behind it
    feed.receive(b"250 ok\r\n")
    assert feed.recorder.timings["transfer", True] == []
    assert feed.recorder.messages == {"rejected": 1}
    assert feed.recorder.service_ns("MAIL") == [MS, MS]


def test_transfer_that_never_ends_is_a_lower_bound_of_the_transfer() -> None:
    feed = in_transfer(late_ns=0)
    feed.write_progressed()
    feed.lose_connection(api.TIMEOUT)
    bounds = {sample.metric: sample.service_ns for sample in feed.recorder.censored}
    assert bounds == {"transfer": 3 * MS, "message": None, "transaction": 3 * MS}


@pytest.mark.parametrize("finished", [False, True])
def test_session_waits_since_the_last_progress(finished: bool) -> None:
    feed = in_transfer()
    feed.write_progressed(finished=finished)
    assert feed.session.waiting_since_ns == feed.now_ns


TIMEOUT = 1000 * MS  # of a feed


def test_timeout_begins_anew_with_each_progress_and_with_the_last_octet() -> None:
    feed = in_transfer()
    for _ in range(5):
        feed.now_ns += TIMEOUT - 2 * MS
        assert feed.session.deadline_ns > feed.now_ns
        feed.write_progressed()
        assert feed.session.deadline_ns == feed.now_ns + TIMEOUT
    feed.write_progressed(finished=True)
    assert feed.session.deadline_ns == feed.now_ns + TIMEOUT
    feed.now_ns += TIMEOUT - 2 * MS
    feed.session.octets_acknowledged(feed.now_ns)  # what the kernel has taken is still on its way
    assert feed.session.deadline_ns == feed.now_ns + TIMEOUT
    feed.now_ns += TIMEOUT - 2 * MS
    feed.receive(b"250 o")  # a part of a reply does not extend it
    assert feed.session.deadline_ns == feed.now_ns + MS


def test_each_wait_has_the_whole_timeout() -> None:
    feed = ClientFeed(repeated(), iterations=1)
    for reply in (*UNTIL_DATA, b"250 ok\r\n", b"221 bye\r\n"):
        assert feed.session.deadline_ns == feed.now_ns + TIMEOUT
        feed.now_ns += TIMEOUT - 2 * MS
        feed.receive(reply)


def test_transfer_that_stops_is_a_timeout_while_sending() -> None:
    feed = in_transfer()
    feed.lose_connection(api.TIMEOUT)
    assert feed.recorder.errors == {"timeout": 1}
    assert feed.recorder.details == ["while sending (message)"]


def test_pause_behind_a_slow_write_keeps_its_time() -> None:
    steps = (Step(s.COMMAND, b"x" * 10), Step(s.PAUSE, pause_ns=5 * TIMEOUT), command_step(b"QUIT", 221))
    feed = ClientFeed(Script.of("pause", steps, teardown=2))
    feed.receive(b"220 s\r\n")
    feed.write_progressed()
    feed.write_progressed(finished=True)
    assert feed.session.deadline_ns == feed.session.wake_ns + TIMEOUT


def test_transfer_of_a_few_octets_at_a_time_ends_after_all() -> None:
    feed = in_transfer()
    begun_ns = feed.now_ns
    for _ in range(1000):
        feed.now_ns += TIMEOUT - 2 * MS
        if feed.session.deadline_ns < feed.now_ns:
            break
        feed.session.octets_acknowledged(feed.now_ns)
    else:
        pytest.fail("it goes on for ever")
    assert feed.now_ns - begun_ns > 40 * TIMEOUT  # what is in transfer is 300,000 octets


@pytest.mark.parametrize("piece", [b"2", b"250-more\r\n", b"250 "])
def test_octets_of_a_reply_that_trickle_in_do_not_extend_its_timeout(piece: bytes) -> None:
    feed = ClientFeed(repeated(), iterations=1)
    feed.receive_each(*UNTIL_DATA[:2])
    deadline_ns = feed.session.deadline_ns
    for _ in range(3):
        feed.now_ns += TIMEOUT // 4
        feed.receive(piece)
    assert feed.session.deadline_ns == deadline_ns
