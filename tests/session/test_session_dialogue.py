"""Dialogues: transcripts cut into turns, nothing repaired."""

from __future__ import annotations

from smtpbench.session.dialogue import Dialogue
from smtpbench.session.transcript import CLIENT, EVENT, SERVER, Transcript


def tape(*entries: tuple[str, bytes]) -> Transcript:
    transcript = Transcript()
    for at_ns, (who, data) in enumerate(entries):
        transcript.add(at_ns, who, data)
    return transcript


def test_replies_stand_at_the_write_they_came_after() -> None:
    dialogue = Dialogue.of(tape(
        (SERVER, b"220 x\r\n"), (CLIENT, b"EHLO y\r\n"), (SERVER, b"250-x\r\n"), (SERVER, b"250 DSN\r\n250 more\r\n"),
        (CLIENT, b"quit\r\n"), (SERVER, b"221 b"), (EVENT, b"closed"),
    ))  # fmt: skip
    assert [turn.codes for turn in dialogue.turns] == [[220], [250, 250], []]
    assert dialogue.turns[2].rest == b"221 b"
    assert dialogue.fate == "closed"
    assert dialogue.closed_by_server
    quit_turn = dialogue.after(b"QUIT")
    assert quit_turn is dialogue.turns[2]
    assert dialogue.last_code == 250


def test_what_came_before_tls_does_not_run_into_what_comes_inside() -> None:
    dialogue = Dialogue.of(tape(
        (SERVER, b"220 x\r\n"), (CLIENT, b"STARTTLS\r\n"), (SERVER, b"220 go\r\n250"), (EVENT, b"tls"),
        (SERVER, b"250 in\r\n"), (CLIENT, b"EHLO y\r\n"), (SERVER, b"250 x\r\n"), (EVENT, b"ended"),
    ))  # fmt: skip
    starttls = dialogue.turns[1]
    assert [(one.reply.code, one.tls) for one in starttls.heard] == [(220, False), (250, True)]
    assert dialogue.turns[2].tls
    assert not dialogue.closed_by_server


def test_silence() -> None:
    dialogue = Dialogue.of(tape((EVENT, b"connect_refused")))
    assert not dialogue.began
    assert (dialogue.banner, dialogue.last_code, dialogue.after(b"EHLO")) == (None, 0, None)


def test_a_reply_without_a_code_is_kept() -> None:
    dialogue = Dialogue.of(tape((SERVER, b"220 x\r\n"), (CLIENT, b"NOOP\r\n"), (SERVER, b"what?\r\n")))
    assert dialogue.turns[1].codes == [0]
    assert [one.reply.raw for one in dialogue.replies()] == [b"220 x\r\n", b"what?\r\n"]
