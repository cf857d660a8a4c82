"""Dialogues: transcripts divided into exchanges, nothing repaired."""

from __future__ import annotations

from smtpbench.session.dialogue import Dialogue
from smtpbench.session.transcript import CLIENT, EVENT, SERVER, Transcript


def transcript(*entries: tuple[str, bytes]) -> Transcript:
    transcript = Transcript()
    for at_ns, (who, data) in enumerate(entries):
        transcript.add(at_ns, who, data)
    return transcript


def test_replies_belong_to_the_write_before_them() -> None:
    dialogue = Dialogue.of(transcript(
        (SERVER, b"220 x\r\n"), (CLIENT, b"EHLO y\r\n"), (SERVER, b"250-x\r\n"), (SERVER, b"250 DSN\r\n250 more\r\n"),
        (CLIENT, b"quit\r\n"), (SERVER, b"221 b"), (EVENT, b"closed"),
    ))  # fmt: skip
    assert [exchange.codes for exchange in dialogue.exchanges] == [[220], [250, 250], []]
    assert dialogue.exchanges[2].incomplete == b"221 b"
    assert dialogue.end_reason == "closed"
    assert dialogue.closed_by_server
    quit_exchange = dialogue.exchange_of(b"QUIT")
    assert quit_exchange is dialogue.exchanges[2]
    assert dialogue.last_code == 250


def test_octets_before_tls_are_not_joined_with_octets_inside() -> None:
    dialogue = Dialogue.of(transcript(
        (SERVER, b"220 x\r\n"), (CLIENT, b"STARTTLS\r\n"), (SERVER, b"220 go\r\n250"), (EVENT, b"tls"),
        (SERVER, b"250 in\r\n"), (CLIENT, b"EHLO y\r\n"), (SERVER, b"250 x\r\n"), (EVENT, b"ended"),
    ))  # fmt: skip
    starttls = dialogue.exchanges[1]
    assert [(one.reply.code, one.tls) for one in starttls.replies] == [(220, False), (250, True)]
    assert dialogue.exchanges[2].tls
    assert not dialogue.closed_by_server


def test_dialogue_without_a_reply() -> None:
    dialogue = Dialogue.of(transcript((EVENT, b"connect_refused")))
    assert not dialogue.greeted
    assert (dialogue.banner, dialogue.last_code, dialogue.exchange_of(b"EHLO")) == (None, 0, None)


def test_reply_without_a_code_is_kept() -> None:
    dialogue = Dialogue.of(transcript((SERVER, b"220 x\r\n"), (CLIENT, b"NOOP\r\n"), (SERVER, b"what?\r\n")))
    assert dialogue.exchanges[1].codes == [0]
    assert [one.reply.raw for one in dialogue.replies()] == [b"220 x\r\n", b"what?\r\n"]
