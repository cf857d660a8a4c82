"""The client's reply cache: replies that never repeat are recognised by code and enhanced code, and by nothing less."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes import ClientFeed, FakeRecorder, command_step, message_step, repeated, transaction

from smtpbench.engine import api
from smtpbench.session import reply_cache
from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.smtp.reply import PREFIX_BYTES, ReplyReader, enhanced_code

OPENING = (b"220 s.example\r\n", b"250 s.example\r\n")
MESSAGES = 200


def pipelined() -> Script:
    """EHLO, then groups of MAIL, RCPT and DATA with their messages, then QUIT."""
    expected = (ExpectedReply("MAIL", (2,)), ExpectedReply("RCPT", (2,)), ExpectedReply("DATA", (3,)))
    group = Step(
        s.GROUP, b"MAIL\r\nRCPT\r\nDATA\r\n", expected_replies=expected, metric="pipeline",
        on_unexpected=s.ABORT_TRANSACTION, abort_target=3,
    )  # fmt: skip
    steps = (command_step(b"EHLO c"), group, message_step(abort_target=3), command_step(b"QUIT", 221))
    return Script.of("pipelined", steps, loop_start=1, teardown=3, iterations=2 * MESSAGES)


def two_messages() -> Script:
    """EHLO, two transactions and QUIT, on a connection of their own."""
    steps = (command_step(b"EHLO c"), *transaction(1), *transaction(5), command_step(b"QUIT", 221))
    return Script.of("two messages", steps, teardown=len(steps) - 1)


def random_id(number: int) -> bytes:
    """Return an id whose digits all change from one number to the next."""
    return b"%016x" % (number * 0x9E3779B97F4A7C15 % 2**64)


def replies_of(style: str, number: int) -> tuple[bytes, ...]:
    """Return the replies to MAIL, RCPT, DATA and the message, which differ for each number."""
    unique = random_id(number)
    envelope = {
        "ids": (b"250 2.1.0 Ok\r\n", b"250 2.1.5 Ok\r\n", b"354 go\r\n"),
        "addresses": (b"250 2.1.0 <%s@b>... ok\r\n" % unique, b"250 2.1.5 <%s@b>... ok\r\n" % unique, b"354 go\r\n"),
        "no enhanced codes": (b"250 %s\r\n" % unique, b"250 %s\r\n" % unique, b"354 %s go\r\n" % unique),
        "several lines": (
            b"250-2.1.0 %s\r\n250 2.1.0 Ok\r\n" % unique,
            b"250-a\r\n250-%s\r\n250 b\r\n" % unique,
            b"354 go\r\n",
        ),
    }[style]
    return (*envelope, b"250 2.0.0 %s accepted\r\n" % unique)


STYLES = ("ids", "addresses", "no enhanced codes", "several lines")


@pytest.fixture
def reads() -> Iterator[list[bytes]]:
    """The reads that were parsed."""
    parsed: list[bytes] = []
    feed = ReplyReader.feed

    def recording(reader: ReplyReader, data: bytes) -> object:
        parsed.append(data)
        return feed(reader, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplyReader, "feed", recording)
        yield parsed


@pytest.mark.parametrize("style", STYLES)
def test_replies_that_never_repeat_are_parsed_once(style: str, reads: list[bytes]) -> None:
    feed = ClientFeed(repeated(iterations=2 * MESSAGES), iterations=2 * MESSAGES)
    feed.receive_each(*OPENING)
    for number in range(MESSAGES):
        feed.receive_each(*replies_of(style, number))
        if number == 0:
            reads.clear()
    assert reads == []
    assert feed.recorder.messages == {"accepted": MESSAGES}
    assert feed.recorder.codes("RCPT") == {"250": MESSAGES}
    assert feed.session.pending_action == 0


@pytest.mark.parametrize("style", ["ids", "addresses", "no enhanced codes"])
def test_groups_of_replies_that_never_repeat_are_parsed_once(style: str, reads: list[bytes]) -> None:
    feed = ClientFeed(pipelined(), iterations=2 * MESSAGES)
    feed.receive_each(*OPENING)
    for number in range(MESSAGES):
        *group, accepted = replies_of(style, number)
        feed.receive_each(b"".join(group), accepted)
        if number == 0:
            reads.clear()
    assert reads == []
    assert feed.recorder.messages == {"accepted": MESSAGES}
    assert feed.recorder.codes("DATA") == {"354": MESSAGES}


@pytest.mark.parametrize("style", STYLES)
def test_latency_ends_when_the_kernel_received_the_reply(style: str) -> None:
    feed = ClientFeed(repeated(iterations=20), iterations=20)
    feed.receive_each(*OPENING)
    for number in range(10):
        for reply in replies_of(style, number):
            feed.session.received_ns = feed.session.sent_ns + 7
            feed.session.receive(reply, feed.session.sent_ns + 9_000)
    for metric in ("MAIL", "RCPT", "DATA", "message"):
        assert feed.recorder.service_ns(metric) == [7] * 10


ODD_REPLIES = (
    b"550 5.1.1 <x@b>... no\r\n",
    b"451 2.1.5 later\r\n",
    b"250 2.1.5 ok\r\n250 2.1.5 one too many\r\n",
    b"250-2.1.5 two\r\n250 2.1.5 lines\r\n",
    b"250-2.1.5 two\r\n550 2.1.5 codes\r\n",
    b"250\r\n",
    b"250x\r\n",
    b"2500 ok\r\n",
    b"250 2.1.5 no line end",
)


@pytest.mark.parametrize("odd", ODD_REPLIES)
@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("script", [repeated, pipelined])
def test_an_odd_reply_among_cached_ones_is_treated_as_without_a_cache(
    odd: bytes, at: int, script: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = []
    for max_entries in (64, 0):
        monkeypatch.setattr(reply_cache, "_MAX_ENTRIES", max_entries)
        steps = pipelined() if script is pipelined else repeated(iterations=2 * MESSAGES)
        feed = ClientFeed(steps, iterations=2 * MESSAGES)
        feed.receive_each(*OPENING)
        for number in range(100):
            replies = list(replies_of("addresses", number))
            if number == 99:
                replies[at] = odd
            if script is pipelined:
                replies = [b"".join(replies[:3]), replies[3]]
            feed.receive_each(*replies)
        codes = {verb: feed.recorder.codes(verb) for verb in ("MAIL", "RCPT", "DATA", "message")}
        outcomes.append((list(feed.sent), feed.recorder.messages, feed.recorder.errors, codes, feed.session.pending_action))
    assert outcomes[0] == outcomes[1]


def test_sessions_of_their_own_connections_are_parsed_once(reads: list[bytes]) -> None:
    script, recorder = two_messages(), FakeRecorder()
    for number in range(10):
        feed = ClientFeed(script, recorder=recorder)
        feed.receive_each(*OPENING, *replies_of("addresses", 2 * number), *replies_of("ids", 2 * number + 1))
        assert feed.receive(b"221 bye\r\n") == b""
        assert feed.session.pending_action == api.CLOSE
        if number == 1:
            reads.clear()
    assert reads == []
    assert recorder.messages == {"accepted": 20}
    assert recorder.timings["transaction", True] == [4_000_000] * 20
    assert recorder.timings["session", True] == [12_000_000] * 10


@pytest.mark.parametrize("odd", ODD_REPLIES)
@pytest.mark.parametrize("at", range(11))
def test_an_odd_reply_in_a_session_of_its_own_connection_is_treated_as_without_a_cache(
    odd: bytes, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = []
    for max_entries in (64, 0):
        monkeypatch.setattr(reply_cache, "_MAX_ENTRIES", max_entries)
        script, recorder = two_messages(), FakeRecorder()
        for number in range(5):
            feed = ClientFeed(script, recorder=recorder)
            replies = [*OPENING, *replies_of("ids", 2 * number), *replies_of("ids", 2 * number + 1), b"221 bye\r\n"]
            if number == 4:
                replies[at] = odd
            feed.receive_each(*replies)
            feed.lose_connection(api.CLOSED)
        outcomes.append(
            (list(feed.sent), recorder.messages, recorder.errors, dict(recorder.replies), dict(recorder.timings))
        )
    assert outcomes[0] == outcomes[1]


def test_timeout_that_a_message_in_parts_has_extended_ends_with_its_reply() -> None:
    script, recorder = two_messages(), FakeRecorder()
    for _ in range(2):
        feed = ClientFeed(script, recorder=recorder)
        feed.receive_each(*OPENING, *replies_of("ids", 1)[:3])
        feed.write_progressed()
        feed.write_progressed(finished=True)
        feed.session.octets_acknowledged(feed.now_ns + 500_000_000)
        assert feed.session.timeout_ns > feed.session.context.timeout_ns
        feed.receive(b"250 2.0.0 accepted\r\n")
        assert feed.session.timeout_ns == feed.session.context.timeout_ns


def test_statuses_tell_replies_with_different_enhanced_codes_apart() -> None:
    texts = (
        b"2.1.0",
        b"2.1.5",
        b"2.1.55",
        b"2.1.555",
        b"2.1.5555",
        b"2.1.5x",
        b"2.1",
        b"5.1.1",
        b"3.1.0",
        b"ok",
        b"",
        b"2.111.111",
    )
    replies = [
        code + end
        for code in (b"250 ", b"251 ", b"550 ", b"250-")
        for text in texts
        for end in (text + b"\r\n", text + b" a\r\n")
    ]
    replies = [reply + b"250 x\r\n" if reply[3:4] == b"-" else reply for reply in replies]
    groups: dict[bytes, set[tuple[bytes, str]]] = {}
    for reply in replies:
        key = reply_cache.status(reply)
        assert key
        assert len(key) < PREFIX_BYTES
        groups.setdefault(key, set()).add((reply[:3], enhanced_code(reply)))
    assert all(len(meanings) == 1 for meanings in groups.values())
    assert len(groups) > 20


def test_statuses_of_a_group_need_a_whole_reply_of_one_line_for_each_command() -> None:
    assert reply_cache.statuses(b"250 2.1.0 a\r\n250 b\r\n354 c\r\n", 3) == b"250 2.1.0|250 |354 "
    for data in (
        b"250 a\r\n250 b\r\n",
        b"250 a\r\n250-b\r\n250 c\r\n",
        b"250 a\r\n250 b\r\n354 c\r\n250",
        b"250 a\n\n250 b\r\n",
        b"",
    ):
        assert reply_cache.statuses(data, 3) == b""


def test_the_cache_stays_bounded() -> None:
    feed = ClientFeed(repeated(iterations=5000), iterations=5000)
    feed.receive_each(*OPENING)
    for number in range(2000):
        for reply in replies_of("addresses", number):
            feed.receive(reply.replace(b"250 2.1", b"250 2.%d" % (number % 900)))
    for cache in feed.recorder.reply_caches:
        assert len(cache) < 200
        assert len(cache.get(reply_cache.PREFIXES, ())) < 200
