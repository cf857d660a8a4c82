"""Invariants that depend on the command that a reply answers."""

from __future__ import annotations

import pytest
from test_rules_reply_tracker import HELLO, MAIL, transcript

from smtpbench.rules.register import BY_NAME
from smtpbench.rules.reply_tracker import verbs_answered
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue

_INFO = TargetInfo(keywords_before_tls={"ENHANCEDSTATUSCODES": ""})
_EHLO_REPLY = b"250-mx.example\r\n250 ENHANCEDSTATUSCODES\r\n"


def violation(rule: str, *octets: bytes) -> str:
    invariant = BY_NAME[rule].invariant
    assert invariant is not None
    return invariant(_INFO, Dialogue.of(transcript(*octets)))


def test_late_reply_to_ehlo_needs_no_enhanced_code() -> None:
    injected = b"STARTTLS\r\nEHLO x.example\r\n"
    late = b"502 5.5.1 no\r\n" + _EHLO_REPLY + b"503 5.5.1 no\r\n"
    assert violation("enhanced-code", *HELLO, injected, b"", b"DATA\r\n", late) == ""
    assert violation("enhanced-code", *HELLO, b"NOOP\r\nEHLO x.example\r\nRSET\r\n", b"", b"NOOP\r\n",
                     b"250 2.0.0 ok\r\n" + _EHLO_REPLY + b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n") == ""  # fmt: skip


@pytest.mark.parametrize("rule", ["enhanced-code", "enhanced-multiline"])
def test_reply_whose_command_cannot_be_told_is_not_judged(rule: str) -> None:
    ambiguous = b"RCPT TO:<a@b.example>\r\r\n", b"501 5.5.2 no\r\n"
    assert violation(rule, *HELLO, *ambiguous, b"DATA\r\n", b"250-2.0.0 a\r\n250 2.0.1 b\r\n250 a\r\n") == ""


def test_reply_without_an_enhanced_code_is_still_found() -> None:
    assert violation("enhanced-code", *HELLO, *MAIL) == "the reply 250 after MAIL has no enhanced status code"
    assert violation("enhanced-code", *HELLO, b"NOOP\r\nRSET\r\n", b"250 2.0.0 ok\r\n250 ok\r\n")
    assert violation("enhanced-code", *HELLO, b"RSET\r\n", b"250 5.0.0 ok\r\n")


def test_late_reply_is_not_taken_for_the_reply_to_ehlo() -> None:
    late = b"250 Ok, go on\r\n250 mx.example\r\n"
    assert violation("ehlo-grammar", *HELLO, b"NOOP\r\n", b"", b"EHLO c.example\r\n", late) == ""
    assert violation("ehlo-grammar", *HELLO, b"EHLO c.example\r\n", b"250 -\r\n")


def test_verbs_answered_follow_tls() -> None:
    dialogue = Dialogue.of(
        transcript(*HELLO, b"STARTTLS\r\n", b"220 go\r\n", b"*tls", b"EHLO c.example\r\n", b"250 x.example\r\n")
    )
    assert verbs_answered(dialogue) == ["banner", "EHLO", "STARTTLS", "EHLO"]
