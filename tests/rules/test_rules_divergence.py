"""Where two servers differ: the first difference a client could act on, and none in words or segments."""

from __future__ import annotations

from test_rules_reply_tracker import HELLO, QUIT, transcript

from smtpbench.engine import api
from smtpbench.rules.divergence import find_divergence
from smtpbench.session.dialogue import Dialogue


def difference(one: tuple[bytes, ...], other: tuple[bytes, ...], fates: tuple[str, str] = (api.ENDED, api.ENDED)) -> str:
    wrong = find_divergence(
        *(
            Dialogue.of(transcript(*octets, end_reason=end_reason))
            for octets, end_reason in zip((one, other), fates, strict=True)
        )
    )
    return wrong.actual if wrong else ""


def test_words_and_codes_of_one_class_are_no_difference() -> None:
    assert (
        difference((*HELLO, b"VRFY x\r\n", b"250 x\r\n", *QUIT), (*HELLO, b"VRFY x\r\n", b"252 who knows\r\n", *QUIT)) == ""
    )


def test_the_first_difference_is_told() -> None:
    assert difference((*HELLO, b"VRFY x\r\n", b"550 no\r\n"), (*HELLO, b"VRFY x\r\n", b"252 ok\r\n")) == (
        "VRFY was answered 5yz by the first and 2yz by the second"
    )
    assert difference((*HELLO, b"NOOP\r\n", b"250 a\r\n250 b\r\n"), (*HELLO, b"NOOP\r\n", b"250 a\r\n")) == (
        "the first alone gave a reply after NOOP"
    )
    fates = (api.TIMEOUT, api.CLOSED)
    assert difference((*HELLO, b"NOOP\r\n"), (*HELLO, b"NOOP\r\n"), fates) == "the first fell silent, the second hung up"


def test_who_does_not_greet_cannot_be_compared() -> None:
    assert difference((b"",), HELLO) == ""
