"""Divergences: the first difference that a client could act on. Texts, codes within a class and segments may differ."""

from __future__ import annotations

from test_rules_reply_tracker import HELLO, QUIT, transcript

from smtpbench.engine import api
from smtpbench.rules.divergence import find_divergence
from smtpbench.session.dialogue import Dialogue


def divergence(
    first: tuple[bytes, ...], second: tuple[bytes, ...], end_reasons: tuple[str, str] = (api.ENDED, api.ENDED)
) -> str:
    violation = find_divergence(
        Dialogue.of(transcript(*first, end_reason=end_reasons[0])),
        Dialogue.of(transcript(*second, end_reason=end_reasons[1])),
    )
    return violation.actual if violation else ""


def test_texts_and_codes_of_one_class_may_differ() -> None:
    first = (*HELLO, b"VRFY x\r\n", b"250 x\r\n", *QUIT)
    second = (*HELLO, b"VRFY x\r\n", b"252 who knows\r\n", *QUIT)
    assert divergence(first, second) == ""


def test_first_divergence_is_reported() -> None:
    assert divergence((*HELLO, b"VRFY x\r\n", b"550 no\r\n"), (*HELLO, b"VRFY x\r\n", b"252 ok\r\n")) == (
        "the first server replied 5yz to VRFY, the second replied 2yz"
    )
    assert divergence((*HELLO, b"NOOP\r\n", b"250 a\r\n250 b\r\n"), (*HELLO, b"NOOP\r\n", b"250 a\r\n")) == (
        "only the first server replied after NOOP"
    )
    end_reasons = (api.TIMEOUT, api.CLOSED)
    assert divergence((*HELLO, b"NOOP\r\n"), (*HELLO, b"NOOP\r\n"), end_reasons) == (
        "the first server stopped replying, the second closed the connection"
    )


def test_server_without_greeting_is_not_compared() -> None:
    assert divergence((b"",), HELLO) == ""
