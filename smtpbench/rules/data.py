"""Where a message ends: RFC 5321 §4.1.1.4 and §2.3.8, and what becomes of the session if a server thinks otherwise.

A server that takes anything but CRLF.CRLF as the end of the data lets whoever writes a message write commands too, which
another server passes on unseen: SMTP smuggling. So each probe puts a doubtful end into a text, commands behind it, and
the true end behind those. A server that keeps the rule answers once; one that does not answers the commands as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import END, HEADER, envelope, line, pause, raw, ready_for_text, said_of, script
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import Script, Step
from smtpbench.text import visible

_SMUGGLED = b"NOOP\r\nNOOP\r\nmore"
#: How long a text that is not at its end is left alone, for a server that takes it as ended to say so.
_WAIT_MS = 400
#: Between two writes that a server shall read one by one.
_SEGMENT_MS = 40


def _behind_data(dialogue: Dialogue) -> Sequence[Exchange]:
    at = next(at for at, exchange in enumerate(dialogue.exchanges) if exchange.sent.startswith(b"DATA"))
    return dialogue.exchanges[at + 1 :]


def _answers(dialogue: Dialogue) -> int:
    """How many replies came from the text on, those to QUIT left out."""
    behind = _behind_data(dialogue)
    return sum(len(exchange.replies) for exchange in behind) - any(221 in exchange.codes for exchange in behind)


def _doubtful_ends(endings: Sequence[bytes], target_info: TargetInfo) -> Sequence[Script]:
    """Each ending twice: with commands behind it, and with silence behind it (some servers refuse what is pipelined)."""
    begin = (*envelope(target_info), line("DATA"))
    together = [raw(HEADER + b"text" + ending + _SMUGGLED + END) for ending in endings]
    apart = [(raw(HEADER + b"text" + ending, 0), pause(_WAIT_MS), raw(END)) for ending in endings]
    return [script(target_info, *begin, step) for step in together] + [
        script(target_info, *begin, *steps) for steps in apart
    ]


def _ended_early(endings: Sequence[bytes], dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if not ready_for_text(dialogue):
            return r.inconclusive("DATA was not answered 354", dialogue_index)
        ending, text, answers = endings[dialogue_index % len(endings)], _behind_data(dialogue)[0], _answers(dialogue)
        if text.code // 100 != 2:
            continue
        if dialogue_index >= len(endings):
            return r.violated(f"{visible(ending)} ended the message: {text.code} came before its end", dialogue_index)
        if answers > 1:
            return r.violated(
                f"{visible(ending)} ended the message: {answers} replies came where one was due", dialogue_index
            )
    return r.PASSED


def _ending(id_: str, name: str, section: str, what: str, *endings: bytes) -> Rule:
    return Rule(
        id_, name, section, r.SECURITY,
        f"Only CRLF.CRLF ends the text of a message: {what} is part of the text.",
        "one reply, to the end of the data",
        needs=("recipient",),
        probe=lambda target_info: _doubtful_ends(endings, target_info),
        evaluate=lambda target_info, dialogues: _ended_early(endings, dialogues),
    )  # fmt: skip


# -- texts that a server may lose its place in -------------------------------------------------------------------

_LONG_LINE = b"x" * 70_000


def _confusing(target_info: TargetInfo) -> Sequence[Script]:
    rest = b"\r\n" + _SMUGGLED + END

    def apart(*parts: bytes) -> tuple[Step, ...]:
        steps: list[Step] = []
        for part in parts:
            steps += [raw(part, 0), pause(_SEGMENT_MS)]
        return (*steps, raw(rest))

    texts = (
        (raw(HEADER + _LONG_LINE + rest),),
        apart(b"..\r\n"),
        apart(HEADER + b"text\r\n", b".", b".\r\n"),
        (raw(HEADER + b"text\r\n.\n" + rest),),
        (raw(HEADER + b"text\n.\r" + rest),),
        (raw(HEADER + b"\xff\xfe\x80\0" * 300 + rest),),
    )
    return [script(target_info, *envelope(target_info), line("DATA"), *text) for text in texts]


_CONFUSION = (
    "a line of 70,000 octets", "two dots that come first, in a segment of their own", "a stuffed dot that is cut in two",
    "a dot before a bare LF", "a dot before a bare CR", "octets that are not text",
)  # fmt: skip


def _lost_its_place(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if not ready_for_text(dialogue):
            return r.inconclusive("DATA was not answered 354", dialogue_index)
        answers = _answers(dialogue)
        if answers > 1 and 421 not in [one.reply.code for one in dialogue.replies()]:
            return r.violated(
                f"after {_CONFUSION[dialogue_index]} the text was answered {answers} times, as if it were commands",
                dialogue_index,
            )
    return r.PASSED


def _without_a_text(target_info: TargetInfo) -> Sequence[Script]:
    begin = (*envelope(target_info), line("DATA"))
    return [script(target_info, *begin, raw(b".\r\n")), script(target_info, *begin, raw(b".\r\nNOOP\r\n", 2))]


def _empty_is_a_message(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        end = dialogue.exchange_of(b".\r\n")
        if not ready_for_text(dialogue) or end is None:
            return r.inconclusive("DATA was not answered 354", dialogue_index)
        if not end.codes and not dialogue.closed_without_221:
            return r.violated("a message without an octet got no reply", dialogue_index)
        if dialogue_index and len(end.codes) == 1 and end.code // 100 == 2 and not dialogue.closed_without_221:
            return r.violated(f"the command behind an empty message got no reply: it was {said_of(end)}", dialogue_index)
    return r.PASSED


RULES = (
    _ending("R51", "eod-lf-lf", "RFC 5321 §4.1.1.4", "LF.LF", b"\n.\n"),
    _ending("R52", "eod-lf-crlf", "RFC 5321 §4.1.1.4", "LF.CRLF", b"\n.\r\n"),
    _ending("R53", "eod-crlf-lf", "RFC 5321 §2.3.8", "CRLF.LF", b"\r\n.\n"),
    _ending("R54", "eod-cr", "RFC 5321 §2.3.8", "a dot beside a bare CR", b"\r.\r", b"\r.\r\n", b"\r\n.\r"),
    _ending(
        "R55", "eod-odd", "RFC 5321 §2.3.8", "a dot with anything else on its line",
        b"\r\n. \r\n", b"\r\n.\0\r\n", b"\r\n\0.\r\n", b"\r\r\n.\r\r\n", b"\r\n.\r\r\n",
    ),
    Rule(
        "R56", "data-desync", "RFC 5321 §4.1.1.4", r.SECURITY,
        "Whatever a server thinks of a text, none of its lines is a command: all up to CRLF.CRLF belongs to the message.",
        "one reply to the whole text, or 421 and the end of the connection",
        needs=("recipient",), probe=_confusing, evaluate=_lost_its_place,
    ),
    Rule(
        "R82", "empty-message", "RFC 5321 §4.1.1.4", r.VIOLATION,
        "A text may be empty: a dot alone, right behind DATA's 354, is the end of the data and is answered.",
        "a reply to the dot, then replies to the commands behind it",
        needs=("recipient",), probe=_without_a_text, evaluate=_empty_is_a_message,
    ),
)  # fmt: skip
