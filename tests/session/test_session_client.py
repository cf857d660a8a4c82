"""The client session, fed with octets and times."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial

import pytest
from fakes import ClientFeed, command_step, message_step, repeated, transaction

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.context import LATE_SHIFT, WAIT
from smtpbench.session.sasl_exchange import MAX_RESPONSES, MAX_TIMEOUTS
from smtpbench.session.script import ExpectedReply, Script, Step

GREETING_AND_EHLO = (b"220 s.example\r\n", b"250 s.example\r\n")
MESSAGE_ACCEPTED = (b"250 2.1.0 ok\r\n", b"250 2.1.5 ok\r\n", b"354 go\r\n", b"250 2.0.0 queued\r\n")


def test_each_message_of_a_script_is_counted() -> None:
    feed = ClientFeed(repeated(), iterations=2)
    sent = feed.receive_each(*GREETING_AND_EHLO, *MESSAGE_ACCEPTED * 3, b"221 bye\r\n")
    assert sent[:6] == [
        b"EHLO c.example\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<r0@b.example>\r\n", b"DATA\r\n",
        b"x\r\n.\r\n", b"MAIL FROM:<a@b.example>\r\n",
    ]  # fmt: skip
    assert sent[-2:] == [b"QUIT\r\n", b""]
    assert feed.session.pending_action == api.CLOSE
    feed.lose_connection(api.ENDED)
    assert feed.recorder.messages == {"accepted": 3}
    assert not feed.recorder.errors
    assert feed.scheduler.ended == [feed.session]
    assert feed.recorder.codes("MAIL") == {"250": 3}
    assert feed.recorder.service_ns("MAIL") == [1_000_000] * 3
    assert feed.recorder.timings["transaction", True] == [4_000_000] * 3
    assert len(feed.recorder.timings["session", True]) == 1


def test_cached_parsed_and_split_replies_give_the_same_session() -> None:
    """Replies come whole, in pieces, or to a session with a transcript: commands and counts are the same."""
    replies = (
        *GREETING_AND_EHLO,
        *MESSAGE_ACCEPTED,
        MESSAGE_ACCEPTED[0],
        b"550 5.1.1 no\r\n",
        b"250 reset\r\n",
        *MESSAGE_ACCEPTED * 2,
        b"221 bye\r\n",
    )
    outcomes = []
    for transcript in (False, True):
        for piece in (1, 2, 1000):
            feed = ClientFeed(repeated(), iterations=3, transcript=transcript)
            for reply in replies:
                for at in range(0, len(reply), piece):
                    feed.receive(reply[at : at + piece])
            codes = {verb: feed.recorder.codes(verb) for verb in ("MAIL", "RCPT", "DATA", "message", "RSET", "QUIT")}
            outcomes.append((list(feed.sent), feed.recorder.messages, codes, feed.session.pending_action))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert outcomes[0][1] == {"accepted": 3, "rejected": 1}
    assert outcomes[0][2]["RCPT"] == {"250": 3, "550": 1}


def test_replies_with_different_codes_share_no_cache_entry() -> None:
    feed = ClientFeed(repeated(), iterations=9)
    feed.receive_each(
        *GREETING_AND_EHLO,
        *MESSAGE_ACCEPTED,
        b"250 2.1.0 ok\r\n",
        b"250 2.1.5 ok\r\n",
        b"354 go\r\n",
        b"451 2.0.0 queued\r\n",
    )
    assert feed.recorder.messages == {"accepted": 1, "rejected": 1}


@pytest.mark.parametrize(
    ("replies", "sent", "messages"),
    [
        pytest.param([b"452 full\r\n"], b"MAIL FROM:<a@b.example>\r\n", {"rejected": 1}, id="MAIL refused: next iteration"),
        pytest.param([b"250 ok\r\n", b"550 no\r\n", b"550 no\r\n"], b"RSET\r\n", {"rejected": 1}, id="all RCPT refused"),
        pytest.param(
            [b"250 ok\r\n", b"550 no\r\n", b"250 ok\r\n"], b"DATA\r\n", {}, id="one RCPT refused: DATA follows"
        ),
        pytest.param(
            [b"250 ok\r\n", b"250 ok\r\n", b"550 no\r\n"], b"DATA\r\n", {}, id="the last RCPT refused: DATA follows"
        ),
        pytest.param(
            [b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"554 no\r\n"], b"RSET\r\n", {"rejected": 1}, id="DATA refused"
        ),
        pytest.param(
            [b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"554 spam\r\n"],
            b"MAIL FROM:<a@b.example>\r\n",
            {"rejected": 1},
            id="message refused: no RSET",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("warm", [False, True])
def test_refusal_rejects_one_message_and_keeps_the_connection(
    replies: list[bytes], sent: bytes, messages: dict[str, int], warm: bool
) -> None:
    feed = ClientFeed(repeated(rcpts=2), iterations=3)
    feed.receive_each(*GREETING_AND_EHLO)
    if warm:  # the same with every reply cached
        feed.receive_each(b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 ok\r\n")
    assert feed.receive_each(*replies)[-1] == sent
    feed.recorder.accepted -= warm
    assert feed.recorder.messages == messages
    assert feed.session.pending_action == api.NOTHING


def test_next_transaction_begins_after_the_recovering_rset() -> None:
    feed = ClientFeed(repeated(), iterations=3)
    for _ in range(3):  # a cached RSET reply must not lead to the wrong step
        feed.receive_each(*(GREETING_AND_EHLO if not feed.recorder.rejected else ()), b"250 ok\r\n")
        assert feed.receive(b"550 no\r\n") == b"RSET\r\n"
        assert feed.receive(b"250 ok\r\n") == b"MAIL FROM:<a@b.example>\r\n"
    assert feed.recorder.rejected == 3


@pytest.mark.parametrize(
    ("received", "error", "messages"),
    [
        ([b"554 go away\r\n"], "banner_refused", {"failed": 1}),
        ([b"421 busy\r\n"], "closed_421", {"failed": 1}),
        ([b"\xff\xfe what\r\n"], "malformed_reply", {"failed": 1}),
        ([b"220 s\r\n", b"500 no ehlo\r\n"], "ehlo_refused", {"failed": 1}),
        ([*GREETING_AND_EHLO, b"hello there\r\n"], "malformed_reply", {"failed": 1}),
        ([*GREETING_AND_EHLO, b"421 4.3.2 closing\r\n"], "closed_421", {"rejected": 1}),
        ([*GREETING_AND_EHLO, b"2" * 70_000], "reply_too_long", {"failed": 1}),
        ([*GREETING_AND_EHLO, b"250-more\r\n" * 120_000], "reply_too_long", {"failed": 1}),
    ],
)
def test_fatal_reply_ends_the_session_with_its_error(received: list[bytes], error: str, messages: dict[str, int]) -> None:
    feed = ClientFeed(repeated(), iterations=3)
    feed.receive_each(*received)
    if feed.sent and feed.sent[-1] == b"QUIT\r\n":
        feed.receive(b"221 bye\r\n")
    assert feed.session.pending_action == api.CLOSE
    assert feed.recorder.errors == {error: 1}
    assert feed.recorder.messages == messages
    assert feed.session.broken
    feed.lose_connection(api.ENDED)
    assert len(feed.scheduler.ended) == 1


@pytest.mark.parametrize("reason", [api.CLOSED, api.CONNECTION_RESET, api.TIMEOUT, api.CONNECT_REFUSED, api.TLS_FAILED])
def test_lost_connection_fails_the_open_message(reason: str) -> None:
    feed = ClientFeed(repeated(), iterations=3)
    feed.receive_each(*GREETING_AND_EHLO, *MESSAGE_ACCEPTED, b"250 ok\r\n")
    feed.lose_connection(reason)
    assert feed.recorder.messages == {"accepted": 1, "failed": 1}
    assert feed.recorder.errors == {reason: 1}


def test_stopped_session_counts_its_message_as_interrupted() -> None:
    feed = ClientFeed(repeated(), iterations=3)
    feed.receive_each(*GREETING_AND_EHLO, b"250 ok\r\n")
    feed.lose_connection(api.STOPPED)
    assert feed.recorder.messages == {"interrupted": 1}
    assert not feed.recorder.errors


def test_reply_without_a_command_is_an_unsolicited_reply() -> None:
    feed = ClientFeed(repeated(), iterations=3)
    assert feed.receive_each(*GREETING_AND_EHLO)[-1].startswith(b"MAIL")
    assert feed.receive(b"250 ok\r\n250 and another\r\n") == b"RCPT TO:<r0@b.example>\r\n"
    assert feed.recorder.errors == {"unsolicited_reply": 1}
    assert feed.receive(b"250 ok\r\n") == b"DATA\r\n"


class TestGroups:
    GROUP = Step(
        s.GROUP,
        b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n",
        expected_replies=(ExpectedReply("MAIL", (2,)), ExpectedReply("RCPT", (2,)), ExpectedReply("DATA", (3,))),
        metric="pipeline",
        on_unexpected=s.ABORT_TRANSACTION,
        abort_target=3,
    )
    SCRIPT = Script.of(
        "pipelined",
        (command_step(b"EHLO c"), GROUP, message_step(abort_target=3), command_step(b"QUIT", 221)),
        loop_start=1,
        teardown=3,
        iterations=99,
    )
    ALL_OK = b"250 ok\r\n250 ok\r\n354 go\r\n"

    def test_group_is_timed_as_one(self) -> None:
        for pieces in ([self.ALL_OK], [self.ALL_OK[:9], self.ALL_OK[9:]], [b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"]):
            feed = ClientFeed(self.SCRIPT, iterations=3)
            feed.receive_each(*GREETING_AND_EHLO)
            for _ in range(3):
                assert feed.receive_each(*pieces)[-1] == b"x\r\n.\r\n"
                assert feed.receive(b"250 ok\r\n") == self.GROUP.wire
            assert feed.recorder.timings["pipeline", True] == [len(pieces) * 1_000_000] * 3
            assert feed.recorder.codes("RCPT") == {"250": 3}
            assert feed.recorder.service_ns("RCPT") == []
            assert feed.recorder.messages == {"accepted": 3}

    @pytest.mark.parametrize(
        ("replies", "sent"),
        [
            (b"451 no\r\n503 no\r\n503 no\r\n", GROUP.wire),
            (b"250 ok\r\n550 no\r\n503 no\r\n", b"RSET\r\n"),
            (b"250 ok\r\n550 no\r\n354 go\r\n", b".\r\n"),
            (b"250 ok\r\n250 ok\r\n451 no\r\n", b"RSET\r\n"),
        ],
    )
    def test_refusal_inside_a_group(self, replies: bytes, sent: bytes) -> None:
        feed = ClientFeed(self.SCRIPT, iterations=3)
        feed.receive_each(*GREETING_AND_EHLO, self.ALL_OK, b"250 ok\r\n")
        assert feed.receive(replies) == sent
        assert feed.recorder.messages == {"accepted": 1, "rejected": 1}
        if sent != self.GROUP.wire:
            assert feed.receive(b"554 no\r\n" if sent == b".\r\n" else b"250 ok\r\n") == self.GROUP.wire

    def test_reply_beyond_the_group_is_unsolicited(self) -> None:
        feed = ClientFeed(self.SCRIPT, iterations=3)
        feed.receive_each(*GREETING_AND_EHLO, self.ALL_OK, b"250 ok\r\n")
        assert feed.receive(self.ALL_OK + b"250 what\r\n") == b"x\r\n.\r\n"
        assert feed.recorder.errors == {"unsolicited_reply": 1}


class TestTls:
    SCRIPT = Script.of(
        "starttls",
        (
            command_step(b"EHLO c"),
            Step(
                s.STARTTLS,
                b"STARTTLS\r\n",
                expected_replies=(ExpectedReply("STARTTLS", (220,)),),
                metric="STARTTLS",
                on_unexpected=s.ABORT_SESSION,
            ),
            command_step(b"EHLO c"),
            command_step(b"QUIT", 221),
        ),
        teardown=3,
    )

    def test_starttls_begins_the_handshake(self) -> None:
        feed = ClientFeed(self.SCRIPT)
        assert feed.receive_each(*GREETING_AND_EHLO)[-1] == b"STARTTLS\r\n"
        assert feed.receive(b"220 go\r\n") == b""
        assert feed.session.pending_action == api.START_TLS
        assert feed.tls_started() == b"EHLO c\r\n"
        assert len(feed.recorder.timings["tls", True]) == 1

    def test_refused_starttls_ends_the_session(self) -> None:
        feed = ClientFeed(self.SCRIPT)
        assert feed.receive_each(*GREETING_AND_EHLO, b"454 no\r\n")[-1] == b"QUIT\r\n"
        assert feed.recorder.errors == {"starttls_refused": 1}

    @pytest.mark.parametrize(("behind", "error"), [(b"250 x\r\n", "unsolicited_reply"), (b"250", "injected_before_tls")])
    def test_octets_behind_the_220_are_not_carried_into_tls(self, behind: bytes, error: str) -> None:
        feed = ClientFeed(self.SCRIPT)
        feed.receive_each(*GREETING_AND_EHLO, b"220 go\r\n" + behind)
        assert feed.recorder.errors == {error: 1}
        assert feed.tls_started() == b"EHLO c\r\n"
        assert feed.receive(b"250 ok\r\n") == b"QUIT\r\n"

    def test_implicit_tls_begins_before_the_greeting(self) -> None:
        feed = ClientFeed(repeated(implicit_tls=True))
        assert feed.session.pending_action == api.START_TLS
        assert feed.tls_started() == b""
        assert feed.receive(GREETING_AND_EHLO[0]) == b"EHLO c.example\r\n"


class TestAuth:
    @staticmethod
    def script(mechanism: str) -> Script:
        step = Step(
            s.AUTH,
            expected_replies=(ExpectedReply("AUTH", (2,)),),
            metric="AUTH",
            mechanism=mechanism,
            on_unexpected=s.ABORT_SESSION,
        )
        return Script.of("auth", (command_step(b"EHLO c"), step, command_step(b"QUIT", 221)), teardown=2)

    def test_plain_sends_an_initial_response_that_the_transcript_hides(self) -> None:
        feed = ClientFeed(self.script("PLAIN"), credentials=("u", "secret"), transcript=True)
        sent = feed.receive_each(*GREETING_AND_EHLO)[-1]
        assert sent == b"AUTH PLAIN " + base64.b64encode(b"\0u\0secret") + b"\r\n"
        assert feed.receive(b"235 welcome\r\n") == b"QUIT\r\n"
        assert feed.session.transcript is not None
        assert sent[11:-2] not in b"".join(entry.data for entry in feed.session.transcript.entries)

    def test_login_answers_two_challenges(self) -> None:
        feed = ClientFeed(self.script("LOGIN"), credentials=("u", "secret"))
        sent = feed.receive_each(*GREETING_AND_EHLO, b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n")
        assert sent[-3:] == [b"AUTH LOGIN\r\n", base64.b64encode(b"u") + b"\r\n", base64.b64encode(b"secret") + b"\r\n"]
        assert feed.receive(b"235 welcome\r\n") == b"QUIT\r\n"
        assert feed.recorder.codes("AUTH") == {"334": 2, "235": 1}
        assert len(feed.recorder.service_ns("AUTH")) == 1

    @pytest.mark.parametrize("challenge", [b"334 !!!\r\n", b"334\r\n"])
    def test_invalid_or_empty_challenge_is_answered_with_one_line(self, challenge: bytes) -> None:
        feed = ClientFeed(self.script("CRAM-MD5"), credentials=("u", "secret"))
        sent = feed.receive_each(*GREETING_AND_EHLO, challenge)[-1]
        assert sent.endswith(b"\r\n")
        assert feed.receive(b"501 cancelled\r\n") == b"QUIT\r\n"
        assert feed.recorder.errors == {"auth_refused": 1}

    @pytest.mark.parametrize("challenge", [b"334 \r\n", b"334 YQ==\r\n", b"334 !!!\r\n"])
    @pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"])
    def test_exchange_without_an_end_ends_the_session(self, mechanism: str, challenge: bytes) -> None:
        feed = ClientFeed(self.script(mechanism), credentials=("u", "secret"))
        feed.receive_each(*GREETING_AND_EHLO)
        sent: list[bytes] = []
        while feed.session.pending_action != api.CLOSE and len(sent) < 20:
            sent.append(feed.receive(challenge))
        assert feed.session.pending_action == api.CLOSE
        assert len(sent) <= MAX_RESPONSES + 1

    def test_exchange_whose_challenges_come_shortly_before_the_timeout_has_a_limit(self) -> None:
        feed = ClientFeed(self.script("LOGIN"), credentials=("u", "secret"))
        feed.receive_each(*GREETING_AND_EHLO)
        begun_ns = feed.now_ns
        while feed.session.pending_action != api.CLOSE:
            feed.now_ns = feed.session.deadline_ns - 2_000_000
            feed.receive(b"334 YQ==\r\n")
        assert feed.now_ns - begun_ns <= (MAX_TIMEOUTS + 1) * feed.session.context.timeout_ns
        assert feed.recorder.errors == {"sasl_endless": 1}
        assert feed.recorder.errors == {"sasl_endless": 1}

    def test_challenge_beyond_the_mechanism_is_cancelled(self) -> None:
        feed = ClientFeed(self.script("LOGIN"), credentials=("u", "secret"))
        assert feed.receive_each(*GREETING_AND_EHLO, b"334 YQ==\r\n", b"334 YQ==\r\n", b"334 YQ==\r\n")[-1] == b"*\r\n"


class TestLmtp:
    def test_one_reply_is_expected_for_each_accepted_recipient(self) -> None:
        feed = ClientFeed(repeated(rcpts=3, lmtp=True), iterations=2)
        for _ in range(2):
            feed.receive_each(*(GREETING_AND_EHLO if not feed.recorder.accepted else ()))
            sent = feed.receive_each(b"250 ok\r\n", b"250 ok\r\n", b"550 no\r\n", b"250 ok\r\n", b"354 go\r\n")
            assert sent[-1] == b"x\r\n.\r\n"
            assert feed.receive(b"250 one\r\n") == b""
            assert feed.receive(b"452 full\r\n").startswith(b"MAIL")
        assert feed.recorder.messages == {"accepted": 2}
        assert feed.recorder.codes("message") == {"250": 2, "452": 2}
        assert (feed.recorder.recipients_accepted, feed.recorder.recipients_rejected) == (2, 2)

    @pytest.mark.parametrize(
        ("end", "error"),
        [
            pytest.param(lambda feed: feed.receive(b"421 closing\r\n"), "closed_421", id="421"),
            pytest.param(lambda feed: feed.receive(b"what\r\n"), "malformed_reply", id="malformed"),
            pytest.param(lambda feed: feed.lose_connection(api.CLOSED), "closed", id="closed"),
            pytest.param(lambda feed: feed.lose_connection(api.TIMEOUT), "timeout", id="timeout"),
            pytest.param(lambda feed: feed.lose_connection(api.STOPPED), "", id="stopped"),
        ],
    )
    @pytest.mark.parametrize(("reply", "message"), [(b"250 one\r\n", "accepted"), (b"452 full\r\n", "")])
    def test_message_that_was_accepted_for_one_recipient_is_accepted_however_the_session_ends(
        self, reply: bytes, message: str, end: Callable[[ClientFeed], object], error: str
    ) -> None:
        feed = ClientFeed(repeated(rcpts=3, lmtp=True), iterations=2)
        feed.receive_each(*GREETING_AND_EHLO, b"250 ok\r\n", *(b"250 ok\r\n",) * 3, b"354 go\r\n", reply)
        end(feed)
        assert set(feed.recorder.messages) == {message or {"": "interrupted", "closed_421": "rejected"}.get(error, "failed")}
        assert set(feed.recorder.errors) == ({error} if error else set())
        assert feed.recorder.recipients_accepted == (message == "accepted")


def test_lateness_is_stored_above_the_service_time() -> None:
    feed = ClientFeed(repeated(), iterations=1, late_ns=7_000_000)
    feed.receive_each(*GREETING_AND_EHLO, *MESSAGE_ACCEPTED)
    (sample,) = (v for (verb, *_), found in feed.recorder.replies.items() if verb == "DATA" for v in found)
    # 7 ms before the connection, then 3 ms until the iteration began
    assert (sample >> LATE_SHIFT, sample & (1 << LATE_SHIFT) - 1) == (10_000, 1_000_000)


def test_session_waits_for_an_arrival_resumes_and_finishes() -> None:
    feed = ClientFeed(repeated(), at_end=WAIT)
    feed.receive_each(*GREETING_AND_EHLO, *MESSAGE_ACCEPTED)
    assert feed.session.deadline_ns >= api.NEVER
    feed.session.assign(5, feed.now_ns, feed.recorder)
    assert feed.session.resume(feed.now_ns) == b"MAIL FROM:<a@b.example>\r\n"
    feed.receive_each(*MESSAGE_ACCEPTED)
    assert feed.session.finish_waiting(feed.now_ns) == b"QUIT\r\n"
    feed.receive(b"221 bye\r\n")
    feed.lose_connection(api.ENDED)
    assert feed.recorder.messages == {"accepted": 2}
    assert not feed.recorder.errors


@pytest.mark.parametrize("teardown", [b"", b"421 idle too long\r\n"])
def test_connection_closed_while_idle_fails_no_message(teardown: bytes) -> None:
    feed = ClientFeed(repeated(), at_end=WAIT)
    feed.receive_each(*GREETING_AND_EHLO, *MESSAGE_ACCEPTED)
    if teardown:
        feed.receive(teardown)
    feed.lose_connection(api.CLOSED)
    assert feed.recorder.messages == {"accepted": 1}
    assert feed.recorder.errors == {"closed_idle": 1}


def test_script_that_continues_on_unexpected_replies_is_sent_to_its_end() -> None:
    steps = (
        command_step(b"XYZZY"),
        command_step(b"NOOP"),
        Step(s.COMMAND, b"half a line"),
        command_step(b" of it", 5),
        command_step(b"QUIT", 221),
    )
    feed = ClientFeed(Script.of("raw", steps), transcript=True)
    sent = feed.receive_each(b"220 s\r\n", b"500 what\r\n", b"garbage\r\n", b"250 ok\r\n", b"221 bye\r\n")
    assert sent == [b"XYZZY\r\n", b"NOOP\r\n", b"half a line of it\r\n", b"QUIT\r\n", b""]
    assert list(feed.sent)[2:4] == [b"half a line", b" of it\r\n"]  # two segments, not one
    assert feed.session.transcript is not None
    assert feed.session.transcript.received() == b"220 s\r\n500 what\r\ngarbage\r\n250 ok\r\n221 bye\r\n"


def test_steps_that_the_engine_performs() -> None:
    steps = (
        Step(s.PAUSE, pause_ns=5), command_step(b"NOOP"), Step(s.HALF_CLOSE), Step(s.PAUSE, pause_ns=5), Step(s.RESET),
    )  # fmt: skip
    feed = ClientFeed(Script.of("engine", steps))
    assert feed.receive(b"220 s\r\n") == b""
    assert (feed.session.pending_action, feed.session.wake_ns) == (api.SLEEP, feed.now_ns + 5)
    assert feed.receive(b"250 early\r\n") == b""
    assert feed.recorder.errors == {"unsolicited_reply": 1}
    assert feed.wake() == b"NOOP\r\n"
    feed.receive(b"250 ok\r\n")
    assert feed.session.pending_action == api.HALF_CLOSE
    feed.wake()
    assert feed.session.pending_action == api.SLEEP
    feed.wake()
    assert feed.session.pending_action == api.RESET


def _drawn(draw: float, n: int, at: int) -> float:
    return draw


def test_choose_follows_the_draw() -> None:
    steps = (
        Step(s.CHOOSE, targets=(1, 3), weights=(3.0, 1.0)),
        command_step(b"NOOP"),
        Step(s.JUMP, targets=(4,)),
        command_step(b"HELP"),
        *transaction(4),
        command_step(b"QUIT", 221),
    )
    for draw, sent in ((0.0, b"NOOP\r\n"), (0.74, b"NOOP\r\n"), (0.75, b"HELP\r\n"), (0.999, b"HELP\r\n")):
        feed = ClientFeed(Script.of("choose", steps, draw=partial(_drawn, draw)))
        assert feed.receive(b"220 s\r\n") == sent
        assert feed.receive(b"250 ok\r\n").startswith(b"MAIL")


def test_session_has_a_deadline_whatever_its_replies_do() -> None:
    group = Step(s.COMMAND, b"NOOP\r\n" * 100, expected_replies=(ExpectedReply("NOOP", s.ANY),) * 100, metric="pipeline")
    feed = ClientFeed(Script.of("slow", (group,)), transcript=True)
    feed.session.session_deadline_ns = feed.now_ns + 5_000_000
    feed.receive(b"220 s\r\n")
    for _ in range(50):
        feed.receive(b"250 ok\r\n")
    assert feed.session.deadline_ns < feed.now_ns


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda feed: feed.lose_connection(api.CLOSED), id="closed"),
        pytest.param(lambda feed: feed.lose_connection(api.CONNECTION_RESET), id="reset"),
        pytest.param(lambda feed: feed.receive(b"421 4.7.0 enough\r\n"), id="421"),
    ],
)
def test_message_that_was_not_offered_has_not_failed_when_the_connection_ends(end: Callable[[ClientFeed], object]) -> None:
    feed = ClientFeed(repeated(), iterations=5)
    feed.receive_each(*GREETING_AND_EHLO, *MESSAGE_ACCEPTED * 2)  # the MAIL of the third message is under way
    end(feed)
    assert feed.session.given_back
    assert feed.recorder.messages == {"accepted": 2}
    assert feed.recorder.errors == {"closed_idle": 1}
    assert not feed.session.broken


def test_421_in_the_read_of_the_last_reply_fails_no_message() -> None:
    feed = ClientFeed(repeated(), iterations=5)
    feed.receive_each(*GREETING_AND_EHLO, *MESSAGE_ACCEPTED[:3])
    feed.receive(MESSAGE_ACCEPTED[3] + b"421 4.7.0 enough\r\n")
    assert feed.session.given_back
    assert feed.session.pending_action == api.CLOSE
    assert feed.recorder.messages == {"accepted": 1}


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        pytest.param(GREETING_AND_EHLO, "closed", id="first message"),
        pytest.param((*GREETING_AND_EHLO, *MESSAGE_ACCEPTED, b"250 ok\r\n"), "closed", id="MAIL was accepted"),
        pytest.param((*GREETING_AND_EHLO, *MESSAGE_ACCEPTED, b"250"), "closed", id="in the middle of a reply"),
    ],
)
def test_message_that_was_offered_fails_when_the_connection_ends(replies: tuple[bytes, ...], error: str) -> None:
    feed = ClientFeed(repeated(), iterations=5)
    feed.receive_each(*replies)
    feed.lose_connection(api.CLOSED)
    assert not feed.session.given_back
    assert feed.recorder.messages["failed"] == 1
    assert feed.recorder.errors == {error: 1}


def test_message_that_times_out_is_not_given_back() -> None:
    feed = ClientFeed(repeated(), iterations=5)
    feed.receive_each(*GREETING_AND_EHLO, *MESSAGE_ACCEPTED)
    feed.lose_connection(api.TIMEOUT)
    assert feed.recorder.messages == {"accepted": 1, "failed": 1}


@pytest.mark.parametrize("piece", [1, 1000])
def test_reply_with_different_codes_is_an_error_each_time_and_its_last_line_decides(piece: int) -> None:
    feed = ClientFeed(repeated(rcpts=2), iterations=3)
    feed.receive_each(*GREETING_AND_EHLO)
    for _ in range(3):
        replies = (b"550-2.1.0 a\r\n250 2.1.0 b\r\n", b"250-2.1.5 a\r\n550 5.1.1 b\r\n", *MESSAGE_ACCEPTED[1:])
        for reply in replies:
            for at in range(0, len(reply), piece):
                feed.receive(reply[at : at + piece])
    assert feed.recorder.errors == {"mixed_reply_codes": 6}
    assert feed.recorder.messages == {"accepted": 3}
    assert feed.recorder.codes("MAIL") == {"250": 3}
    assert feed.recorder.codes("RCPT") == {"550": 3, "250": 3}
    assert "550-2.1.0 a" in feed.recorder.details[0]


def test_group_with_a_reply_of_different_codes_is_not_cached() -> None:
    feed = ClientFeed(TestGroups.SCRIPT, iterations=3)
    feed.receive_each(*GREETING_AND_EHLO)
    for _ in range(3):
        assert feed.receive(b"250 ok\r\n550-no\r\n250 yes\r\n354 go\r\n") == b"x\r\n.\r\n"
        feed.receive(b"250 ok\r\n")
    assert feed.recorder.errors == {"mixed_reply_codes": 3}
    assert feed.recorder.messages == {"accepted": 3}


def test_message_whose_reply_begins_with_250_and_ends_with_550_is_rejected() -> None:
    feed = ClientFeed(repeated(), iterations=2)
    feed.receive_each(*GREETING_AND_EHLO, *MESSAGE_ACCEPTED[:3], b"250-a\r\n550 b\r\n")
    assert feed.recorder.messages == {"rejected": 1}


def test_reply_whose_last_line_has_no_code_is_an_error() -> None:
    feed = ClientFeed(repeated(), iterations=2)
    feed.receive_each(*GREETING_AND_EHLO)
    assert feed.receive(b"250-a\r\nnonsense\r\n").startswith(b"RCPT")
    assert feed.recorder.errors == {"malformed_reply": 1}
