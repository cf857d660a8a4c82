"""The state table, SASL on both sides, and the octets of messages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpbench.errors import UsageError
from smtpbench.smtp import command, sasl, state
from smtpbench.smtp.content import header, normalise_line_ends, stuff_dots, unstuff_dots


def test_the_table_is_closed_and_every_state_can_be_reached() -> None:
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
def test_dialogues(dialogue: str, end: str) -> None:
    at: str = state.CONNECTED
    words = dialogue.split()
    for verb, code in zip(words[::2], words[1::2], strict=True):
        at = state.after(at, verb, int(code))
    assert at == end


@pytest.mark.parametrize("mechanism", sasl.MECHANISMS)
@pytest.mark.parametrize(("password", "welcome"), [("secret", True), ("wrong", False), ("", False)])
def test_both_sides_of_sasl_agree(mechanism: str, password: str, welcome: bool) -> None:
    client = sasl.client_exchange(mechanism, "ann", password)
    server = sasl.MECHANISMS[mechanism].server(sasl.Accounts({"ann": "secret"}), lambda: "nonce")
    verdict = server.step(client.initial_response())
    for _ in range(4):
        if isinstance(verdict, bool):
            break
        verdict = server.step(client.respond(verdict))
    assert verdict is welcome
    assert password == "" or password not in repr(client) + repr(server)


@pytest.mark.parametrize("user", ["", "bob", "__class__", "x" * 10_000])
@pytest.mark.parametrize("mechanism", sasl.MECHANISMS)
def test_nobody_gets_in_without_an_account(mechanism: str, user: str) -> None:
    client = sasl.client_exchange(mechanism, user, "")
    server = sasl.MECHANISMS[mechanism].server(sasl.Accounts({"ann": "secret"}), lambda: "nonce")
    verdict = server.step(client.initial_response())
    for _ in range(4):
        verdict = server.step(client.respond(verdict)) if isinstance(verdict, bytes) else verdict
    assert verdict is False


def test_cram_md5_is_that_of_rfc_2195() -> None:
    client = sasl.client_exchange("CRAM-MD5", "tim", "tanstaaftanstaaf")
    answer = client.respond(b"<1896.697170952@postoffice.reston.mci.net>")
    assert answer == b"tim b913a602c7eda7a495b4e6e7334d3890"


def test_an_unknown_mechanism_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="PLAIN"):
        sasl.client_exchange("SCRAM-SHA-1", "u", "p")
    with pytest.raises(UsageError, match="NUL"):
        sasl.client_exchange("PLAIN", "u\0v", "p")


@given(st.lists(st.sampled_from([b".", b"..", b"x", b"", b".x", b"a.b"]), max_size=6))
def test_stuffing_is_undone_and_hides_every_end(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    stuffed = stuff_dots(content)
    assert unstuff_dots(stuffed) == content
    assert not re.search(rb"(^|\r\n)\.\r\n", stuffed)


@given(st.binary(max_size=40))
def test_normalised_lines_end_in_crlf_and_stay_as_they_are(content: bytes) -> None:
    once = normalise_line_ends(content)
    assert normalise_line_ends(once) == once
    assert once.count(b"\r\n") == once.count(b"\n") == once.count(b"\r")
    assert once == b"" or once.endswith(b"\r\n")


def test_headers_cannot_be_broken_out_of() -> None:
    assert header("X-A", "b") == b"X-A: b\r\n"
    for name, value in (("X A", "b"), ("X:A", "b"), ("", "b"), ("X-A", "b\r\nBcc: x")):
        with pytest.raises(ValueError, match=r"name of a header|line end"):
            header(name, value)
