"""The state table, and the octets of messages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpbench.smtp import command, state
from smtpbench.smtp.content import header, normalise_line_ends, stuff_dots, unstuff_dots


def test_every_state_in_the_table_can_be_reached() -> None:
    reached = {state.CONNECTED}
    for _ in state.STATES:
        reached |= {to for (at, _, _), to in state.TRANSITIONS.items() if at in reached}
    assert reached | {state.CLOSED} == set(state.STATES)
    for (at, verb, reply_class), to in state.TRANSITIONS.items():
        assert at in state.STATES
        assert to in state.STATES
        assert verb in command.EXPECTED or verb in (state.BANNER, state.MESSAGE)
        assert reply_class in (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("dialogue", "end"),
    [
        ("banner 220 EHLO 250 MAIL 250 RCPT 250 DATA 354 message 250", state.READY),
        ("banner 220 MAIL 503", state.GREETED),
        ("banner 220 EHLO 250 MAIL 250 RCPT 250 RSET 250", state.READY),
        ("banner 220 EHLO 250 MAIL 250 EHLO 250", state.READY),
        ("banner 220 EHLO 250 MAIL 250 RCPT 550", state.MAIL),
        ("banner 220 EHLO 250 STARTTLS 220", state.GREETED),
        ("banner 220 EHLO 250 MAIL 250 RCPT 250 BDAT 250 BDAT 452", state.READY),
        ("banner 554 QUIT 221", state.CLOSED),
        ("banner 220 NOOP 421", state.CLOSED),
    ],
)
def test_state_after_a_dialogue(dialogue: str, end: str) -> None:
    at: str = state.CONNECTED
    tokens = dialogue.split()
    for verb, code in zip(tokens[::2], tokens[1::2], strict=True):
        at = state.after(at, verb, int(code))
    assert at == end


@given(st.lists(st.sampled_from([b".", b"..", b"x", b"", b".x", b"a.b"]), max_size=6))
def test_dot_stuffing_is_reversible_and_leaves_no_end_of_data(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    stuffed = stuff_dots(content)
    assert unstuff_dots(stuffed) == content
    assert not re.search(rb"(^|\r\n)\.\r\n", stuffed)


@given(st.binary(max_size=40))
def test_normalised_lines_end_in_crlf_and_normalising_again_changes_nothing(content: bytes) -> None:
    once = normalise_line_ends(content)
    assert normalise_line_ends(once) == once
    assert once.count(b"\r\n") == once.count(b"\n") == once.count(b"\r")
    assert once == b"" or once.endswith(b"\r\n")


def test_header_with_a_line_end_or_an_invalid_name_is_refused() -> None:
    assert header("X-A", "b") == b"X-A: b\r\n"
    for name, value in (("X A", "b"), ("X:A", "b"), ("", "b"), ("X-A", "b\r\nBcc: x")):
        with pytest.raises(ValueError, match=r"name of a header|line end"):
            header(name, value)
