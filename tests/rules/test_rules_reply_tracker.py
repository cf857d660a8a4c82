"""The reply tracker: which replies are due, and which violations it reports."""

from __future__ import annotations

import pytest

from smtpbench.engine import api
from smtpbench.rules.reply_tracker import ReplyTracker, Violation, find_violations, match_replies
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.transcript import CLIENT, EVENT, SERVER, Transcript
from smtpbench.smtp.reply import Reply

HELLO = b"220 mx.example\r\n", b"EHLO c.example\r\n", b"250 mx.example\r\n"
MAIL = b"MAIL FROM:<a@b.example>\r\n", b"250 ok\r\n"
RCPT = b"RCPT TO:<c@d.example>\r\n", b"250 ok\r\n"
DATA = b"DATA\r\n", b"354 go\r\n"
QUIT = b"QUIT\r\n", b"221 bye\r\n"


def transcript(*octets: bytes, end_reason: str = api.ENDED) -> Transcript:
    """Return a transcript: a greeting, then client and server in turn. b"" stands for nothing, `*tls` for an event."""
    result = Transcript()
    who = SERVER
    for at, piece in enumerate(octets):
        if piece.startswith(b"*"):
            result.add(at, EVENT, piece[1:])
            continue
        if piece:
            result.add(at, who, piece)
        who = CLIENT if who == SERVER else SERVER
    result.add(len(octets), EVENT, end_reason.encode())
    return result


def rules(*octets: bytes, end_reason: str = api.ENDED) -> list[str]:
    return [violation.rule for violation in find_violations(Dialogue.of(transcript(*octets, end_reason=end_reason)))]


def test_correct_session_has_no_violations() -> None:
    text = b"Subject: x\r\n\r\n..dots\r\n.\r\n"
    assert rules(*HELLO, *MAIL, *RCPT, *DATA, text, b"250 queued\r\n", *QUIT, end_reason=api.CLOSED) == []


def test_replies_due_depend_on_earlier_replies() -> None:
    tracker = ReplyTracker()
    assert tracker.replies_due == 1
    tracker.received(Reply(220, b"220 x\r\n"))
    tracker.sent(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\ntext\r\n.\r\nNOOP\r\n")
    codes = {250: b"250 ok\r\n", 354: b"354 go\r\n", 550: b"550 no\r\n"}
    due = []
    for code in (250, 250, 354, 250, 250):
        due.append(tracker.replies_due)
        tracker.received(Reply(code, codes[code]))
    assert due == [2, 1, 1, 1, 1]
    assert tracker.replies_due == 0
    tracker.close(api.ENDED)
    assert tracker.violations == []


def test_text_after_rejected_data_is_read_as_commands() -> None:
    tracker = ReplyTracker()
    tracker.received(Reply(220, b"220 x\r\n"))
    tracker.sent(b"DATA\r\nNOOP\r\n")
    tracker.received(Reply(503, b"503 no\r\n"))
    assert tracker.replies_due == 1


@pytest.mark.parametrize(
    ("ending", "rule"),
    [
        (b"\n.\n", "eod-lf-lf"), (b"\n.\r\n", "eod-lf-crlf"), (b"\r\n.\n", "eod-crlf-lf"), (b"\r.\r", "eod-cr"),
        (b"\r\n.\0\r\n", "eod-odd"), (b"xx", "data-desync"),
    ],
)  # fmt: skip
def test_replies_to_lines_of_a_text_are_reported(ending: bytes, rule: str) -> None:
    text = b"text" + ending + b"NOOP\r\n.\r\n"
    many = b"250 queued\r\n250 ok\r\n500 what\r\n"
    assert rules(*HELLO, *MAIL, *RCPT, *DATA, text, many, *QUIT) == [rule]
    early = (b"text" + ending, b"250 queued\r\n", b"\r\n.\r\n", b"500 what\r\n")
    assert rules(*HELLO, *MAIL, *RCPT, *DATA, *early, *QUIT)[0] == rule


def test_violations_that_follow_from_an_extra_reply_are_not_reported() -> None:
    text = b"text\n.\nNOOP\r\n.\r\nRCPT TO:<x@y.example>\r\n"
    many = b"250 queued\r\n250 ok\r\n500 what\r\n503 no\r\n"
    assert rules(*HELLO, *MAIL, *RCPT, *DATA, text, many) == ["eod-lf-lf"]


def test_reply_before_the_end_of_a_text_is_allowed_only_if_the_server_closes() -> None:
    begin = (*HELLO, *MAIL, *RCPT, *DATA, b"text\nmore", b"451 bare LF\r\n")
    assert rules(*begin, end_reason=api.CLOSED) == []
    assert rules(*begin, b"x\r\n", b"500 what\r\n") == ["data-desync"]


@pytest.mark.parametrize(
    ("dialogue", "rule"),
    [
        ((*RCPT,), "rcpt-first"),
        ((*MAIL, b"RSET\r\n", b"250 ok\r\n", *RCPT), "rset-clears"),
        ((b"MAIL FROM:<\r\n", b"501 no\r\n", *RCPT), "bad-mail-state"),
        ((*MAIL, *MAIL), "nested-mail"),
        ((*MAIL, b"AUTH PLAIN\r\n", b"334 \r\n"), "auth-order"),
        ((*MAIL, *DATA, b".\r\n", b"250 taken\r\n"), "no-rcpt"),
        ((b"RSET\r\n", b"500 what\r\n"), "rset-250"),
        ((b"NOOP\r\n", b"502 no\r\n"), "noop-250"),
        ((b"QUIT\r\n", b"500 what\r\n"), "quit"),
        ((b"EHLO c.example\r\n", b"503 again\r\n"), "re-ehlo"),
        ((*MAIL, b"VRFY x\r\n", b"252 no\r\n", RCPT[0], b"503 no\r\n"), "no-side-effect"),
        ((b"NOOP\r\n", b"250 ok\r\n250 more\r\n"), "one-reply"),
        ((b"BDAT 0 LAST\r\n", b"250 ok\r\n"), "bdat-reject"),
        ((b"STARTTLS\r\nNOOP\r\n", b"220 go\r\n", b"*tls", b"", b"250 ok\r\n"), "tls-inject"),
        ((b"STARTTLS\r\nX", b"220 go\r\n", b"*tls", b"EHLO c.example\r\n", b"500 what\r\n"), "tls-partial"),
    ],
)  # fmt: skip
def test_command_accepted_or_refused_out_of_order_is_reported(dialogue: tuple[bytes, ...], rule: str) -> None:
    assert rules(*HELLO, *dialogue) == [rule]


def test_success_out_of_order_moves_the_state_of_the_server() -> None:
    before_ehlo = (HELLO[0], *MAIL, *RCPT, *DATA, b".\r\n", b"250 taken\r\n")
    assert rules(*before_ehlo) == []


def test_missing_reply_is_reported() -> None:
    assert find_violations(Dialogue.of(transcript(*HELLO, b"NOOP\r\n", end_reason=api.TIMEOUT))) == [
        Violation("health", "the server did not reply to NOOP in state 'ready'", "no reply to NOOP", "hang")
    ]
    assert (
        rules(*HELLO, b"AUTH PLAIN AAAA\r\n", end_reason=api.TIMEOUT) == []
    )  # many servers delay the reply to a failed login
    assert rules(*HELLO, b"NOOP\r\n", end_reason=api.CLOSED) == []


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"NOOP\r\r\n", b"x" * 600 + b"\r\n", b"DATA\t\r\n", b" NOOP\r\n", b"BDAT x\r\n"]
)
def test_ambiguous_octets_make_the_tracker_lenient(line: bytes) -> None:
    assert rules(*HELLO, line, b"250 ok\r\n500 a\r\n500 b\r\n", end_reason=api.TIMEOUT) == []


def test_chunk_is_not_read_as_commands_unless_bdat_is_unknown() -> None:
    chunk = b"BDAT 12 LAST\r\nNOOP\r\nNOOP\r\n"
    assert rules(*HELLO, *MAIL, *RCPT, chunk, b"250 taken\r\n") == []
    assert rules(*HELLO, *MAIL, *RCPT, chunk, b"250 taken\r\n250 ok\r\n") == ["one-reply"]
    assert rules(*HELLO, *MAIL, *RCPT, chunk, b"500 what\r\n250 ok\r\n250 ok\r\n") == []
    # Exim knows BDAT, refuses it where it does not offer CHUNKING, and reads the chunk as commands
    refused = chunk, b"503 BDAT command used when CHUNKING not advertised\r\n", b"QUIT\r\n", b"500 what\r\n250 ok\r\n"
    offers = b"220 mx.example\r\n", b"EHLO c.example\r\n", b"250-mx.example\r\n250 CHUNKING\r\n"
    assert rules(*HELLO, *MAIL, *RCPT, *refused) == []
    assert rules(*offers, *MAIL, *RCPT, *refused) == ["one-reply"]


def test_tls_alert_in_place_of_a_handshake_is_not_a_reply() -> None:
    alert = b"\x15\x03\x03\x00\x02\x02\n"
    begun = (*HELLO, b"STARTTLS\r\n", b"220 go\r\n", b"QUIT\r\n", alert)
    assert rules(*begun) == []
    assert [exchange.codes for exchange in Dialogue.of(transcript(*begun)).exchanges] == [[220], [250], [220], []]


@pytest.mark.parametrize("code", [b"554", b"521", b"421"])
def test_refusal_of_a_group_that_is_closed_late_is_no_hang(code: bytes) -> None:
    refusal = code + b" synchronization error\r\n"
    group = b"NOOP\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
    assert rules(*HELLO, group, refusal, end_reason=api.TIMEOUT) == []
    assert rules(*HELLO, group, refusal, end_reason=api.CLOSED) == []


def test_hang_after_an_answered_refusal_is_reported() -> None:
    refused = b"MAIL FROM:<a@b.example>\r\n", b"554 no\r\n"
    assert rules(*HELLO, *refused, b"NOOP\r\n", b"", end_reason=api.TIMEOUT) == ["health"]
    assert rules(*HELLO, b"NOOP\r\nNOOP\r\nNOOP\r\n", b"554 no\r\n250 ok\r\n", end_reason=api.TIMEOUT) == ["health"]


@pytest.mark.parametrize(
    ("last", "expected"), [((b"NOOP\r\n", b"554 sync\r\n"), True), ((b"VRFY x\r\n", b"550 no\r\n"), False), (QUIT, True)]
)
def test_close_with_a_reply_is_told_from_a_crash(last: tuple[bytes, bytes], expected: bool) -> None:
    assert Dialogue.of(transcript(*HELLO, *last, end_reason=api.CLOSED)).closed_with_reply is expected
    unanswered = transcript(*HELLO, *last, b"NOOP\r\n", b"", end_reason=api.CLOSED)
    assert not Dialogue.of(unanswered).closed_with_reply


@pytest.mark.parametrize(
    ("first", "reply", "expected"),
    [
        (b"EHLO c.example\r\n", b"500 what\r\n", ["tls-partial"]),
        (b"EHLO \xff\r\n", b"500 what\r\n", []),
        (b"eHLO c.example\r\n", b"500 what\r\n", []),
        (b"LHLO c.example\r\n", b"500 what\r\n", []),
        (b"VRFY x\r\n", b"502 no\r\n", []),
        (b"NOOP\r\n", b"503 EHLO first\r\n", []),
    ],
)
def test_first_command_inside_tls_must_be_clean_to_be_judged(first: bytes, reply: bytes, expected: list[str]) -> None:
    assert rules(*HELLO, b"STARTTLS\r\nX", b"220 go\r\n", b"*tls", first, reply) == expected


def test_reply_stands_with_the_write_that_it_answers() -> None:
    octets = (*HELLO, b"MAIL FROM:<a@b.example>\r\nRCPT", b"", b" TO:<c@d.example>\r\n", b"250 late\r\n550 no\r\n", *QUIT)
    dialogue = match_replies(Dialogue.of(transcript(*octets)))
    assert [exchange.codes for exchange in dialogue.exchanges] == [[220], [250], [250], [550], [221]]


def test_reply_after_data_in_one_write_stands_with_its_part() -> None:
    octets = (*HELLO, *MAIL, *RCPT, b"DATA\r\n", b"", b"text\r\n.\r\nNOOP\r\n", b"354 go\r\n250 queued\r\n250 ok\r\n", *QUIT)
    dialogue = match_replies(Dialogue.of(transcript(*octets)))
    assert [exchange.codes for exchange in dialogue.exchanges[-3:]] == [[354], [250, 250], [221]]


def test_replies_stay_where_they_came_if_one_is_missing() -> None:
    octets = (*HELLO, b"NOOP\r\nNOOP\r\n", b"250 one\r\n", b"QUIT\r\n", b"221 bye\r\n")
    dialogue = match_replies(Dialogue.of(transcript(*octets)))
    assert [exchange.codes for exchange in dialogue.exchanges] == [[220], [250], [250], [221]]


def test_reply_that_answers_nothing_stays_where_it_came() -> None:
    dialogue = match_replies(Dialogue.of(transcript(*HELLO, b"NOOP\r\n", b"250 ok\r\n250 again\r\n", *QUIT)))
    assert [exchange.codes for exchange in dialogue.exchanges] == [[220], [250], [250, 250], [221]]


def test_reply_after_a_half_close_is_not_judged() -> None:
    refused = b"500 what\r\n"
    assert rules(*HELLO, b"NOOP\r\n", refused, end_reason=api.CLOSED) == ["noop-250"]
    assert rules(*HELLO, b"NOOP\r\n", b"*half-close", refused, end_reason=api.CLOSED) == []
