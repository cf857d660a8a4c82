"""Where a message ends: RFC 5321 §4.1.1.4 and §2.3.8, and what becomes of the session if a server thinks otherwise.

A server that takes anything but CRLF.CRLF as the end of the data lets whoever writes a message write commands too, which
another server passes on unseen: SMTP smuggling. So each probe puts a doubtful end into a text, commands behind it, and
the true end behind those. A server that keeps the rule answers once; one that does not answers the commands as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.rules import rule as r
from smtpbench.rules.lines import END, HEADER, envelope, line, raw, ready_for_text, script
from smtpbench.rules.offer import Offer
from smtpbench.rules.rule import Judgement, Rule
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script

_SMUGGLED = b"NOOP\r\nNOOP\r\n"


def _ends(*endings: bytes, offer: Offer) -> Sequence[Script]:
    return [
        script(offer, *envelope(offer), line("DATA"), raw(HEADER + b"text" + ending + _SMUGGLED + b"more" + END))
        for ending in endings
    ]


def _one_answer(*endings: bytes, offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    """Broken where one of the texts was answered more than once."""
    for take, (ending, dialogue) in enumerate(zip(endings, dialogues, strict=True)):
        if not ready_for_text(dialogue):
            return r.unclear("DATA was not answered 354", take)
        text = next(turn for turn in dialogue.turns if turn.said.startswith(HEADER))
        behind = dialogue.turns[dialogue.turns.index(text) :]
        answers = sum(len(turn.heard) for turn in behind)
        if answers > 2 and text.code // 100 == 2:  # one for the text and one for QUIT
            return r.broken(f"{ending!r} ended the message: {answers - 1} replies came where one was due", take)
    return r.HELD


def _ending(id_: str, name: str, section: str, what: str, *endings: bytes) -> Rule:
    return Rule(
        id_, name, section, r.SECURITY,
        f"Only CRLF.CRLF ends the text of a message: {what} is part of the text.",
        "one reply, to the end of the data",
        needs=("recipient",),
        probe=lambda offer: _ends(*endings, offer=offer),
        judge=lambda offer, dialogues: _one_answer(*endings, offer=offer, dialogues=dialogues),
    )  # fmt: skip


RULES = (
    _ending("R51", "eod-lf-lf", "RFC 5321 §4.1.1.4", "LF.LF", b"\n.\n"),
    _ending("R52", "eod-lf-crlf", "RFC 5321 §4.1.1.4", "LF.CRLF", b"\n.\r\n"),
    _ending("R53", "eod-crlf-lf", "RFC 5321 §2.3.8", "CRLF.LF", b"\r\n.\n"),
    _ending("R54", "eod-cr", "RFC 5321 §2.3.8", "a dot beside a bare CR", b"\r.\r", b"\r.\r\n", b"\r\n.\r"),
    _ending(
        "R55", "eod-odd", "RFC 5321 §2.3.8", "a dot with anything else on its line",
        b"\r\n. \r\n", b"\r\n.\0\r\n", b"\r\n\0.\r\n", b"\r\r\n.\r\r\n", b"\r\n.\r\r\n",
    ),
)  # fmt: skip
