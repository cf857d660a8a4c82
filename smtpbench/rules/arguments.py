"""Arguments and sizes: RFC 5321 §4.1.1.11, §4.1.2, §4.1.3, §4.5.1, §4.5.3.1 and appendix F.2, RFC 1870.

Whether an address is wanted is a server's own affair (550 and its kind); whether it can be read is the protocol's. So only
the codes of syntax count: 500, 501 and 555. Where a plain address of the same kind is refused too, nothing can be told.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import (
    END,
    HEADER,
    NOOP,
    accepted,
    envelope,
    hello,
    line,
    mail,
    message,
    opening,
    oversize,
    pause,
    probing,
    raw,
    rcpt,
    ready_for_text,
    refused,
    said_of,
    script,
)  # fmt: skip
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script
from smtpbench.smtp.command import (
    COMMAND_LINE_BYTES,
    LOCAL_PART_BYTES,
    MESSAGE_BYTES,
    PATH_BYTES,
    RECIPIENTS,
    TEXT_LINE_BYTES,
)

_SYNTAX = (500, 501, 555)
_OVERLONG_BYTES = 4_000_000
_WAIT_MS = 300


def _mails(*texts: str) -> r.Probe:
    """MAIL with each of these arguments, each in a session of its own; `{sender}` is the sender."""

    def probe(target_info: TargetInfo) -> Sequence[Script]:
        return [
            script(target_info, *opening(target_info), line("MAIL FROM:" + text.replace("{sender}", target_info.sender)))
            for text in texts
        ]

    return probe


def _taken(what: str, verb: bytes = b"MAIL") -> r.Evaluate:
    """What may not be taken, is."""

    def judge(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        for dialogue_index, dialogue in enumerate(dialogues):
            exchange = dialogue.exchange_of(verb)
            if accepted(exchange):
                return r.violated(f"{what} was {said_of(exchange)}", dialogue_index)
        return r.PASSED

    return judge


def _unread(what: str, verb: bytes = b"MAIL") -> r.Evaluate:
    """What must be understood, is refused as if it were not. The first dialogue is the control, which is plain."""

    def judge(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        control = dialogues[0].exchange_of(verb)
        if not accepted(control):
            return r.inconclusive(f"a plain {verb.decode()} was not taken: {said_of(control)}")
        for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
            exchange = dialogue.exchange_of(verb)
            if exchange is not None and exchange.code in _SYNTAX:
                return r.violated(f"{what} was answered {exchange.code}", dialogue_index)
        return r.PASSED

    return judge


# -- paths and parameters -----------------------------------------------------------------------------------------


def _null_sender(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"MAIL")
    if not refused(exchange) or exchange is None or exchange.code // 100 == 4:
        return r.PASSED if accepted(exchange) else r.inconclusive(f"MAIL FROM:<> was {said_of(exchange)}")
    if target_info.login or exchange.code == 530:
        return r.inconclusive(f"MAIL FROM:<> was {said_of(exchange)}, by a server for submission")
    return r.violated(f"MAIL FROM:<> was {said_of(exchange)}")


def _postmaster(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"RCPT")
    if exchange is not None and exchange.code in (*_SYNTAX, 553):
        return r.violated(f"RCPT TO:<Postmaster> was answered {exchange.code}")
    return (
        r.PASSED
        if accepted(exchange)
        else r.inconclusive(f"RCPT TO:<Postmaster> was {said_of(exchange)}, as by a host that only relays")
    )


def _to_postmaster(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), mail(target_info), line("RCPT TO:<Postmaster>"))]


def _labels(length: int) -> str:
    """A domain name of this many octets."""
    name = "example"
    while len(name) < length:
        name = "d" * min(60, length - len(name) - 1) + "." + name
    return name if len(name) == length and not name.startswith(".") else "d" * (length - 8) + ".example"


def _longest_paths(target_info: TargetInfo) -> Sequence[Script]:
    local = "l" * LOCAL_PART_BYTES
    paths = ("l@d.example", f"{local}@d.example", f"{local}@{_labels(PATH_BYTES - LOCAL_PART_BYTES - 3)}")
    return [script(target_info, *opening(target_info), line(f"MAIL FROM:<{path}>")) for path in paths]


def _literals(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, *opening(target_info), line(f"MAIL FROM:<{path}>"))
        for path in (target_info.sender, "a@[127.0.0.1]", "a@[IPv6:::1]")
    ]


def _routes(target_info: TargetInfo) -> Sequence[Script]:
    paths = (target_info.sender, f"@relay.example:{target_info.sender}", f"@one.example,@two.example:{target_info.sender}")
    return [script(target_info, *opening(target_info), line(f"MAIL FROM:<{path}>")) for path in paths]


# -- sizes --------------------------------------------------------------------------------------------------------


def _long_noops(target_info: TargetInfo) -> Sequence[Script]:
    full = b"NOOP " + b"x" * (COMMAND_LINE_BYTES - 7)
    return [
        script(target_info, *opening(target_info), line(b"NOOP x")),
        script(target_info, *opening(target_info), line(full), NOOP),
    ]


def _longest_command(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    control, full = dialogues[0].exchange_of(b"NOOP"), dialogues[1].exchange_of(b"NOOP")
    if not accepted(control):
        return r.inconclusive(f"NOOP with an argument was {said_of(control)}")
    if refused(full):
        return r.violated(f"a command line of {COMMAND_LINE_BYTES} octets was {said_of(full)}", 1)
    return r.passed_unless(
        full is not None and not full.codes, f"a command line of {COMMAND_LINE_BYTES} octets got no reply", 1
    )


def _text(target_info: TargetInfo, body: bytes) -> Script:
    return script(target_info, *envelope(target_info), line("DATA"), message(body))


def _long_texts(target_info: TargetInfo) -> Sequence[Script]:
    return [_text(target_info, b"text"), _text(target_info, b"x" * (TEXT_LINE_BYTES - 2))]


def _large_texts(target_info: TargetInfo) -> Sequence[Script]:
    lines, rest = divmod(MESSAGE_BYTES - len(HEADER) - 2, 64)
    return [_text(target_info, b"text"), _text(target_info, (b"x" * 62 + b"\r\n") * lines + b"x" * rest)]


def _text_taken(what: str) -> r.Evaluate:
    """A message that must be taken, where a small one is."""

    def judge(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        control, exchange = (dialogue.exchange_of(HEADER[:5]) for dialogue in dialogues)
        if not (ready_for_text(dialogues[0]) and accepted(control)):
            return r.inconclusive(f"a small message was not taken: {said_of(control)}")
        if exchange is not None and exchange.code // 100 == 5:
            return r.violated(f"{what} was {said_of(exchange)}", 1)
        return r.PASSED if accepted(exchange) else r.inconclusive(f"{what} was {said_of(exchange)}", 1)

    return judge


def _many_recipients(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), mail(target_info), *[rcpt(target_info)] * RECIPIENTS)]


def _hundred_taken(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchanges = [exchange for exchange in dialogues[0].exchanges if exchange.sent.startswith(b"RCPT")]
    if not exchanges or not accepted(exchanges[0]):
        return r.inconclusive(f"RCPT was not taken: {said_of(exchanges[0] if exchanges else None)}")
    for at, exchange in enumerate(exchanges, 1):
        if not accepted(exchange):
            what = f"recipient {at} of one message was {said_of(exchange)}"
            return r.violated(what) if exchange.code in (452, 552) else r.inconclusive(what)
    return r.PASSED


def _overlong(target_info: TargetInfo) -> Sequence[Script]:
    """A line that does not end for a long time; what ends it, in the other two, is an argument that would be right."""
    blank = b" " * _OVERLONG_BYTES
    verb = b"LHLO" if target_info.lmtp else b"EHLO"
    arguments = (
        b"MAIL FROM:" + blank,
        b"<" + target_info.sender.encode() + b">\r\n",
        verb + blank,
        target_info.client.encode() + b"\r\n",
    )

    def ended(head: bytes, tail: bytes) -> Script:
        return script(target_info, *opening(target_info), raw(head, 0), pause(_WAIT_MS), raw(tail), pause(_WAIT_MS), NOOP)

    return [ended(b"VRFY " + b"x" * _OVERLONG_BYTES, b"\r\n"), ended(*arguments[:2]), ended(*arguments[2:])]


def _in_step(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        at = next((at for at, exchange in enumerate(dialogue.exchanges) if len(exchange.sent) > _OVERLONG_BYTES), None)
        if at is None or dialogue.closed_without_221:
            continue
        behind = dialogue.exchanges[at : at + 2]
        codes = [code for exchange in behind for code in exchange.codes]
        if dialogue_index and codes and codes[-1] // 100 == 2:
            size = f"{_OVERLONG_BYTES:,} octets"
            return r.violated(
                f"the end of a command line of {size} was read: {codes[-1]}; no limit stopped it", dialogue_index
            )
        if len(codes) > 1 and 421 not in codes:
            return r.violated(f"one line of {_OVERLONG_BYTES:,} octets got {len(codes)} replies", dialogue_index)
        if dialogue.end_reason == api.TIMEOUT:
            return r.violated(f"after a line of {_OVERLONG_BYTES:,} octets came no reply", dialogue_index)
    return r.PASSED


def _oversize(target_info: TargetInfo) -> Sequence[Script]:
    body = oversize(target_info)
    if not body:
        return []
    begin = (*envelope(target_info), line("DATA"))
    apart = (raw(body, 0), pause(_WAIT_MS), raw(b"NOOP\r\n.\r\n"))
    return [script(target_info, *begin, *apart, NOOP), script(target_info, *begin, raw(body + END[2:]), NOOP)]


def _refused_at_the_end(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not dialogues:
        limit = f"its limit of {target_info.limit_bytes:,} octets is too high to be tried"
        return r.inconclusive(limit if target_info.limit_bytes else "it names no limit")
    for dialogue_index, dialogue in enumerate(dialogues):
        if not ready_for_text(dialogue):
            return r.inconclusive("DATA was not answered 354", dialogue_index)
        if dialogue.closed_without_221:
            continue
        at = next(at for at, exchange in enumerate(dialogue.exchanges) if len(exchange.sent) > target_info.limit_bytes)
        text, *after = dialogue.exchanges[at:]
        if dialogue_index == 0 and text.codes:
            return r.violated(f"{text.code} came before the end of an oversize message", dialogue_index)
        end = after[0] if dialogue_index == 0 and after else text
        noop = dialogue.exchange_of(b"NOOP\r\n", 1 if dialogue_index == 0 else 0)
        if accepted(end):
            return r.violated(f"a message beyond the limit was {said_of(end)}", dialogue_index)
        if not end.codes:
            return r.violated("the end of an oversize message got no reply", dialogue_index)
        if noop is not None and not noop.codes:
            return r.violated(f"after {end.code} for an oversize message the next command got no reply", dialogue_index)
    return r.PASSED


def _declared(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), mail(target_info, f"SIZE={target_info.limit_bytes + 1}"))]


def _declared_too_much(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not target_info.limit_bytes:
        return r.inconclusive("it names no limit")
    exchange = dialogues[0].exchange_of(b"MAIL")
    return r.passed_unless(accepted(exchange), f"MAIL with a SIZE above the limit was {said_of(exchange)}")


def _size_keyword(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    text = target_info.extensions.get("SIZE", "").strip()
    return r.passed_unless(
        bool(text) and not (text.isdecimal() and len(text) <= 20), "the parameter of SIZE is no number of up to 20 digits"
    )


def _underdeclared(target_info: TargetInfo) -> Sequence[Script]:
    steps = (
        *opening(target_info),
        mail(target_info, "SIZE=60"),
        rcpt(target_info),
        line("DATA"),
        message(b"NOOP\r\n" * 40),
        NOOP,
    )
    return [script(target_info, *steps)]


def _framed_by_the_dot(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not ready_for_text(dialogues[0]):
        return r.inconclusive("DATA was not answered 354")
    text, noop = dialogues[0].exchange_of(HEADER[:5]), dialogues[0].exchange_of(b"NOOP")
    replies = sum(len(exchange.codes) for exchange in (text, noop) if exchange is not None)
    return r.passed_unless(replies > 2, f"a text longer than its declared SIZE was answered {replies - 1} times")


def _bare_lf(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), raw(b"NOOP\n", 0), pause(_WAIT_MS), raw(b"NOOP\r\n"))]


def _lf_taken(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"NOOP\n")
    return r.passed_unless(accepted(exchange), "a command that ends in a bare LF was answered 250")


RULES = (
    Rule(
        "R37",
        "null-sender",
        "RFC 5321 §4.5.5",
        r.VIOLATION,
        "The null reverse-path is a sender like any other.",
        "250 to MAIL FROM:<>",
        probe=_mails("<>"),
        evaluate=_null_sender,
    ),
    Rule(
        "R38",
        "postmaster",
        "RFC 5321 §4.5.1",
        r.VIOLATION,
        "Who takes mail takes it for Postmaster, written without a domain and in any case.",
        "250 to RCPT TO:<Postmaster>",
        probe=_to_postmaster,
        evaluate=_postmaster,
    ),
    Rule(
        "R39",
        "path-brackets",
        "RFC 5321 §4.1.2",
        r.WARNING,
        "A path stands in angle brackets.",
        "501",
        probe=_mails("{sender}"),
        evaluate=_taken("a path without brackets"),
    ),
    Rule(
        "R40",
        "control-octet",
        "RFC 5321 §4.1.2",
        r.WARNING,
        "A mailbox holds no control characters.",
        "501",
        probe=_mails("<a\0b@client.example>", "<a\x07b@client.example>", "<a@cli\x01ent.example>"),
        evaluate=_taken("a mailbox with a control character"),
    ),
    Rule(
        "R41",
        "bad-param-555",
        "RFC 5321 §4.1.1.11",
        r.VIOLATION,
        "A parameter of MAIL that is not known, or that no offered extension has, is refused.",
        "555",
        probe=_mails("<{sender}> FOO=1", "<{sender}> X-NO-SUCH"),
        evaluate=_taken("an unknown parameter of MAIL"),
    ),
    Rule(
        "R42",
        "command-512",
        "RFC 5321 §4.5.3.1.4",
        r.VIOLATION,
        "A command line of 512 octets, CRLF included, is read.",
        "the reply that a short line gets",
        probe=_long_noops,
        evaluate=_longest_command,
    ),
    Rule(
        "R43",
        "min-sizes",
        "RFC 5321 §4.5.3.1.3",
        r.VIOLATION,
        "A local part of 64 octets, and a path of 256, are read.",
        "any reply but one about syntax",
        probe=_longest_paths,
        evaluate=_unread("a path of the full length"),
    ),
    Rule(
        "R44",
        "text-1000",
        "RFC 5321 §4.5.3.1.6",
        r.VIOLATION,
        "A line of text of 1000 octets, CRLF included, is taken.",
        "250 to the message",
        needs=("recipient",),
        probe=_long_texts,
        evaluate=_text_taken("a line of 1000 octets"),
    ),
    Rule(
        "R45",
        "message-64K",
        "RFC 5321 §4.5.3.1.7",
        r.VIOLATION,
        "A message of 64 KiB, header included, is taken.",
        "250 to the message",
        needs=("recipient",),
        probe=_large_texts,
        evaluate=_text_taken("a message of 64 KiB"),
    ),
    Rule(
        "R46",
        "rcpt-100",
        "RFC 5321 §4.5.3.1.8",
        r.VIOLATION,
        "A message may have 100 recipients.",
        "250 to 100 times RCPT",
        needs=("recipient",),
        probe=_many_recipients,
        evaluate=_hundred_taken,
    ),
    Rule(
        "R47",
        "literal",
        "RFC 5321 §4.1.3",
        r.VIOLATION,
        "An address literal may stand where a domain may.",
        "any reply but one about syntax",
        probe=_literals,
        evaluate=_unread("an address literal"),
    ),
    Rule(
        "R48",
        "source-route",
        "RFC 5321 §F.2",
        r.VIOLATION,
        "A source route is read, and may then be ignored or refused.",
        "any reply but one about syntax",
        probe=_routes,
        evaluate=_unread("a source route"),
    ),
    Rule(
        "R49",
        "overlong-resync",
        "RFC 5321 §4.5.3.1.9",
        r.VIOLATION,
        "A command line has a limit: beyond it a server keeps nothing, gives one reply to the whole line, and reads on "
        "behind it.",
        "one refusal, or 421 and the end of the connection",
        probe=_overlong,
        evaluate=_in_step,
        exclusive=True,
    ),
    Rule(
        "R50",
        "lf-command",
        "RFC 5321 §2.3.8",
        r.WARNING,
        "A command ends in CRLF, and not in a bare LF.",
        "no reply to LF, or a refusal",
        probe=_bare_lf,
        evaluate=_lf_taken,
    ),
    Rule(
        "R57",
        "oversize-clean",
        "RFC 5321 §4.2.5",
        r.VIOLATION,
        "A message beyond the limit is refused when its end has come, once, and the session goes on.",
        "552 to the end of the data, then replies as before; or the end of the connection",
        needs=("recipient", "SIZE"),
        probe=_oversize,
        evaluate=_refused_at_the_end,
        exclusive=True,
    ),
    Rule(
        "R61",
        "size-argument",
        "RFC 1870 §3",
        r.VIOLATION,
        "SIZE is offered with a number of up to 20 digits, or with none.",
        "SIZE and a number",
        needs=("SIZE",),
        probe=probing(lambda target_info: (hello(target_info),)),
        evaluate=_size_keyword,
    ),
    Rule(
        "R62",
        "size-552",
        "RFC 1870 §6.1",
        r.ADVICE,
        "MAIL with a SIZE above the limit is refused at once.",
        "552",
        needs=("SIZE",),
        probe=_declared,
        evaluate=_declared_too_much,
    ),
    Rule(
        "R63",
        "size-framing",
        "RFC 1870 §6.3",
        r.VIOLATION,
        "The declared SIZE is an estimate: only the dot ends a text.",
        "one reply to the whole text",
        needs=("recipient", "SIZE"),
        probe=_underdeclared,
        evaluate=_framed_by_the_dot,
    ),
)
