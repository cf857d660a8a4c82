"""The end of the mail data: RFC 5321 §4.1.1.4 and §2.3.8.

If a server accepts anything but CRLF.CRLF as the end of the mail data, the author of a message can put SMTP commands into
it, which another server relays unnoticed. This is called SMTP smuggling. Each probe therefore sends a message text with a
wrong end in it, commands after the wrong end, and CRLF.CRLF after those. A correct server replies once. Another server
replies to the commands as well.

Each probe has controls: the same texts without the wrong end. A server that replies too often there as well takes text for
commands for another reason. That is a violation of `data-desync`, and says nothing of the ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import END, HEADER, data_accepted, envelope, line, pause, raw, reply_text, script
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import Script, Step
from smtpbench.text import plural, visible

#: In place of a wrong end in a control: a line of text.
_NO_ENDING = b"\r\nx\r\n"
_SMUGGLED = b"NOOP\r\nNOOP\r\nmore"
#: Pause after a wrong end, in which a server that accepts it replies.
_WAIT_MS = 400
#: Pause between two writes, so that the server reads them one by one.
_SEGMENT_MS = 40


def _exchanges_after_data(dialogue: Dialogue) -> Sequence[Exchange]:
    at = next(at for at, exchange in enumerate(dialogue.exchanges) if exchange.sent.startswith(b"DATA"))
    return dialogue.exchanges[at + 1 :]


def _count_replies(dialogue: Dialogue) -> int:
    """Return the number of replies from the message text on, without the reply to QUIT."""
    behind = _exchanges_after_data(dialogue)
    return sum(len(exchange.replies) for exchange in behind) - any(221 in exchange.codes for exchange in behind)


def _wrong_end_scripts(endings: Sequence[bytes], target_info: TargetInfo) -> Sequence[Script]:
    """Return two sessions for each ending: with commands after it, and with a pause after it. Two controls follow.

    Some servers reject commands that arrive early, and so need the pause to show that they accept the ending.
    """
    endings = (*endings, _NO_ENDING)
    begin = (*envelope(target_info), line("DATA"))
    with_commands = [raw(HEADER + b"text" + ending + _SMUGGLED + END) for ending in endings]
    with_pause = [(raw(HEADER + b"text" + ending, 0), pause(_WAIT_MS), raw(END)) for ending in endings]
    *commands, first_control = [script(target_info, *begin, step) for step in with_commands]
    *pauses, second_control = [script(target_info, *begin, *steps) for steps in with_pause]
    return [*commands, *pauses, first_control, second_control]


def _evaluate_single_reply(endings: Sequence[bytes], dialogues: Sequence[Dialogue]) -> Verdict:
    sessions = 2 * len(endings)
    for dialogue_index, control in enumerate(dialogues[sessions:], sessions):
        if data_accepted(control) and _count_replies(control) > 1:
            return r.inconclusive("the server reads any message text as commands, see data-desync", dialogue_index)
    for dialogue_index, dialogue in enumerate(dialogues[:sessions]):
        if not data_accepted(dialogue):
            return r.inconclusive(reply_text("DATA", dialogue.exchange_of(b"DATA")), dialogue_index)
        ending, text, replies = (
            endings[dialogue_index % len(endings)],
            _exchanges_after_data(dialogue)[0],
            _count_replies(dialogue),
        )
        if text.code // 100 != 2:
            continue
        if dialogue_index >= len(endings):
            return r.violated(f"{visible(ending)} ended the message: the server replied {text.code} to it", dialogue_index)
        if replies > 1:
            actual = f"{visible(ending)} ended the message: the server sent {plural(replies, 'reply')} instead of 1"
            return r.violated(actual, dialogue_index)
    return r.PASSED


def _wrong_end_rule(id_: str, name: str, section: str, what: str, *endings: bytes) -> Rule:
    return Rule(
        id_,
        name,
        section,
        r.SECURITY,
        f"Only CRLF.CRLF ends the message text. {what} is part of the text.",
        "one reply, after CRLF.CRLF",
        needs=("recipient",),
        probe=lambda target_info: _wrong_end_scripts(endings, target_info),
        evaluate=lambda target_info, dialogues: _evaluate_single_reply(endings, dialogues),
    )


# -- texts that servers have read as commands --------------------------------------------------------------------

_LONG_LINE = b"x" * 70_000


def _confusing_text_scripts(target_info: TargetInfo) -> Sequence[Script]:
    rest = b"\r\n" + _SMUGGLED + END

    def with_pauses(*parts: bytes) -> tuple[Step, ...]:
        steps: list[Step] = []
        for part in parts:
            steps += [raw(part, 0), pause(_SEGMENT_MS)]
        return (*steps, raw(rest))

    texts = (
        (raw(HEADER + _LONG_LINE + rest),),
        with_pauses(b"..\r\n"),
        with_pauses(HEADER + b"text\r\n", b".", b".\r\n"),
        (raw(HEADER + b"text\r\n.\n" + rest),),
        (raw(HEADER + b"text\n.\r" + rest),),
        (raw(HEADER + b"\xff\xfe\x80\0" * 300 + rest),),
        (raw(HEADER + b"text" + rest),),
    )
    return [script(target_info, *envelope(target_info), line("DATA"), *text) for text in texts]


_CONFUSING_TEXTS = (
    "a line of 70,000 octets", "a line of two dots in its own TCP segment at the start", "a stuffed dot in two TCP segments",
    "a dot before a bare LF", "a dot before a bare CR", "binary octets", "a line of plain text",
)  # fmt: skip


def _evaluate_text_not_executed(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    # the last dialogue has plain text: where that is read as commands, nothing else is to blame
    for dialogue_index, dialogue in ((len(dialogues) - 1, dialogues[-1]), *enumerate(dialogues)):
        if not data_accepted(dialogue):
            return r.inconclusive(reply_text("DATA", dialogue.exchange_of(b"DATA")), dialogue_index)
        replies = _count_replies(dialogue)
        if replies > 1 and 421 not in [received.reply.code for received in dialogue.replies()]:
            actual = (
                f"the server read the message text as commands after {_CONFUSING_TEXTS[dialogue_index]}: "
                f"it sent {plural(replies, 'reply')} instead of 1"
            )
            return r.violated(actual, dialogue_index)
    return r.PASSED


def _empty_text_scripts(target_info: TargetInfo) -> Sequence[Script]:
    begin = (*envelope(target_info), line("DATA"))
    return [script(target_info, *begin, raw(b".\r\n")), script(target_info, *begin, raw(b".\r\nNOOP\r\n", 2))]


def _evaluate_empty_text(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        end = dialogue.exchange_of(b".\r\n")
        if not data_accepted(dialogue) or end is None:
            return r.inconclusive(reply_text("DATA", dialogue.exchange_of(b"DATA")), dialogue_index)
        if not end.codes and not dialogue.closed_without_221:
            return r.violated("the server did not reply to the end of an empty message", dialogue_index)
        if dialogue_index and len(end.codes) == 1 and end.code // 100 == 2 and not dialogue.closed_without_221:
            actual = f"the server replied {end.code} to an empty message, and not to the command after it"
            return r.violated(actual, dialogue_index)
    return r.PASSED


RULES = (
    _wrong_end_rule("R51", "eod-lf-lf", "RFC 5321 §4.1.1.4", "LF.LF", b"\n.\n"),
    _wrong_end_rule("R52", "eod-lf-crlf", "RFC 5321 §4.1.1.4", "LF.CRLF", b"\n.\r\n"),
    _wrong_end_rule("R53", "eod-crlf-lf", "RFC 5321 §2.3.8", "CRLF.LF", b"\r\n.\n"),
    _wrong_end_rule("R54", "eod-cr", "RFC 5321 §2.3.8", "A dot next to a bare CR", b"\r.\r", b"\r.\r\n", b"\r\n.\r"),
    _wrong_end_rule(
        "R55",
        "eod-odd",
        "RFC 5321 §2.3.8",
        "A dot with anything else on its line",
        b"\r\n. \r\n",
        b"\r\n.\0\r\n",
        b"\r\n\0.\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n.\r\r\n",
    ),
    Rule(
        "R56",
        "data-desync",
        "RFC 5321 §4.1.1.4",
        r.SECURITY,
        "Everything up to CRLF.CRLF is part of the message. Even if the server rejects the text, it must not execute any "
        "line "
        "of it as a command.",
        "one reply to the whole text, or 421 and a closed connection",
        needs=("recipient",),
        probe=_confusing_text_scripts,
        evaluate=_evaluate_text_not_executed,
        allows_close=True,
    ),
    Rule(
        "R82",
        "empty-message",
        "RFC 5321 §4.1.1.4",
        r.VIOLATION,
        "A message text may be empty. A line with only a dot directly after the 354 reply ends it, and the server must "
        "reply.",
        "a reply to the dot, and replies to the commands after it",
        needs=("recipient",),
        probe=_empty_text_scripts,
        evaluate=_evaluate_empty_text,
    ),
)
