"""Arguments and sizes: RFC 5321 §4.1.1.11, §4.1.2, §4.1.3, §4.5.1, §4.5.3.1 and appendix F.2, RFC 1870.

Whether an address is wanted is a server's own affair (550 and its kind); whether it can be read is the protocol's. So only
the codes of syntax count: 500, 501 and 555. Where a plain address of the same kind is refused too, nothing can be told.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.lines import (
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
from smtpbench.rules.offer import Offer
from smtpbench.rules.rule import Judgement, Rule
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

    def probe(offer: Offer) -> Sequence[Script]:
        return [
            script(offer, *opening(offer), line("MAIL FROM:" + text.replace("{sender}", offer.sender))) for text in texts
        ]

    return probe


def _taken(what: str, verb: bytes = b"MAIL") -> r.Judge:
    """What may not be taken, is."""

    def judge(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
        for take, dialogue in enumerate(dialogues):
            turn = dialogue.after(verb)
            if accepted(turn):
                return r.broken(f"{what} was {said_of(turn)}", take)
        return r.HELD

    return judge


def _unread(what: str, verb: bytes = b"MAIL") -> r.Judge:
    """What must be understood, is refused as if it were not. The first dialogue is the control, which is plain."""

    def judge(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
        control = dialogues[0].after(verb)
        if not accepted(control):
            return r.unclear(f"a plain {verb.decode()} was not taken: {said_of(control)}")
        for take, dialogue in enumerate(dialogues[1:], 1):
            turn = dialogue.after(verb)
            if turn is not None and turn.code in _SYNTAX:
                return r.broken(f"{what} was answered {turn.code}", take)
        return r.HELD

    return judge


# -- paths and parameters -----------------------------------------------------------------------------------------


def _null_sender(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turn = dialogues[0].after(b"MAIL")
    if not refused(turn) or turn is None or turn.code // 100 == 4:
        return r.HELD if accepted(turn) else r.unclear(f"MAIL FROM:<> was {said_of(turn)}")
    if offer.login or turn.code == 530:
        return r.unclear(f"MAIL FROM:<> was {said_of(turn)}, by a server for submission")
    return r.broken(f"MAIL FROM:<> was {said_of(turn)}")


def _postmaster(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turn = dialogues[0].after(b"RCPT")
    if turn is not None and turn.code in (*_SYNTAX, 553):
        return r.broken(f"RCPT TO:<Postmaster> was answered {turn.code}")
    return (
        r.HELD if accepted(turn) else r.unclear(f"RCPT TO:<Postmaster> was {said_of(turn)}, as by a host that only relays")
    )


def _to_postmaster(offer: Offer) -> Sequence[Script]:
    return [script(offer, *opening(offer), mail(offer), line("RCPT TO:<Postmaster>"))]


def _labels(length: int) -> str:
    """A domain name of this many octets."""
    name = "example"
    while len(name) < length:
        name = "d" * min(60, length - len(name) - 1) + "." + name
    return name if len(name) == length and not name.startswith(".") else "d" * (length - 8) + ".example"


def _longest_paths(offer: Offer) -> Sequence[Script]:
    local = "l" * LOCAL_PART_BYTES
    paths = ("l@d.example", f"{local}@d.example", f"{local}@{_labels(PATH_BYTES - LOCAL_PART_BYTES - 3)}")
    return [script(offer, *opening(offer), line(f"MAIL FROM:<{path}>")) for path in paths]


def _literals(offer: Offer) -> Sequence[Script]:
    return [
        script(offer, *opening(offer), line(f"MAIL FROM:<{path}>"))
        for path in (offer.sender, "a@[127.0.0.1]", "a@[IPv6:::1]")
    ]


def _routes(offer: Offer) -> Sequence[Script]:
    paths = (offer.sender, f"@relay.example:{offer.sender}", f"@one.example,@two.example:{offer.sender}")
    return [script(offer, *opening(offer), line(f"MAIL FROM:<{path}>")) for path in paths]


# -- sizes --------------------------------------------------------------------------------------------------------


def _long_noops(offer: Offer) -> Sequence[Script]:
    full = b"NOOP " + b"x" * (COMMAND_LINE_BYTES - 7)
    return [script(offer, *opening(offer), line(b"NOOP x")), script(offer, *opening(offer), line(full), NOOP)]


def _longest_command(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    control, full = dialogues[0].after(b"NOOP"), dialogues[1].after(b"NOOP")
    if not accepted(control):
        return r.unclear(f"NOOP with an argument was {said_of(control)}")
    if refused(full):
        return r.broken(f"a command line of {COMMAND_LINE_BYTES} octets was {said_of(full)}", 1)
    return r.held_unless(
        full is not None and not full.codes, f"a command line of {COMMAND_LINE_BYTES} octets got no reply", 1
    )


def _text(offer: Offer, body: bytes) -> Script:
    return script(offer, *envelope(offer), line("DATA"), message(body))


def _long_texts(offer: Offer) -> Sequence[Script]:
    return [_text(offer, b"text"), _text(offer, b"x" * (TEXT_LINE_BYTES - 2))]


def _large_texts(offer: Offer) -> Sequence[Script]:
    lines, rest = divmod(MESSAGE_BYTES - len(HEADER) - 2, 64)
    return [_text(offer, b"text"), _text(offer, (b"x" * 62 + b"\r\n") * lines + b"x" * rest)]


def _text_taken(what: str) -> r.Judge:
    """A message that must be taken, where a small one is."""

    def judge(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
        control, turn = (dialogue.after(HEADER[:5]) for dialogue in dialogues)
        if not (ready_for_text(dialogues[0]) and accepted(control)):
            return r.unclear(f"a small message was not taken: {said_of(control)}")
        if turn is not None and turn.code // 100 == 5:
            return r.broken(f"{what} was {said_of(turn)}", 1)
        return r.HELD if accepted(turn) else r.unclear(f"{what} was {said_of(turn)}", 1)

    return judge


def _many_recipients(offer: Offer) -> Sequence[Script]:
    return [script(offer, *opening(offer), mail(offer), *[rcpt(offer)] * RECIPIENTS)]


def _hundred_taken(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turns = [turn for turn in dialogues[0].turns if turn.said.startswith(b"RCPT")]
    if not turns or not accepted(turns[0]):
        return r.unclear(f"RCPT was not taken: {said_of(turns[0] if turns else None)}")
    for at, turn in enumerate(turns, 1):
        if not accepted(turn):
            what = f"recipient {at} of one message was {said_of(turn)}"
            return r.broken(what) if turn.code in (452, 552) else r.unclear(what)
    return r.HELD


def _overlong(offer: Offer) -> Sequence[Script]:
    """A line that does not end for a long time; what ends it, in the other two, is an argument that would be right."""
    blank = b" " * _OVERLONG_BYTES
    verb = b"LHLO" if offer.lmtp else b"EHLO"
    arguments = b"MAIL FROM:" + blank, b"<" + offer.sender.encode() + b">\r\n", verb + blank, offer.client.encode() + b"\r\n"

    def ended(head: bytes, tail: bytes) -> Script:
        return script(offer, *opening(offer), raw(head, 0), pause(_WAIT_MS), raw(tail), pause(_WAIT_MS), NOOP)

    return [ended(b"VRFY " + b"x" * _OVERLONG_BYTES, b"\r\n"), ended(*arguments[:2]), ended(*arguments[2:])]


def _in_step(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        at = next((at for at, turn in enumerate(dialogue.turns) if len(turn.said) > _OVERLONG_BYTES), None)
        if at is None or dialogue.hung_up:
            continue
        behind = dialogue.turns[at : at + 2]
        codes = [code for turn in behind for code in turn.codes]
        if take and codes and codes[-1] // 100 == 2:
            size = f"{_OVERLONG_BYTES:,} octets"
            return r.broken(f"the end of a command line of {size} was read: {codes[-1]}; no limit stopped it", take)
        if len(codes) > 1 and 421 not in codes:
            return r.broken(f"one line of {_OVERLONG_BYTES:,} octets got {len(codes)} replies", take)
        if dialogue.fate == api.TIMEOUT:
            return r.broken(f"after a line of {_OVERLONG_BYTES:,} octets came no reply", take)
    return r.HELD


def _oversize(offer: Offer) -> Sequence[Script]:
    body = oversize(offer)
    if not body:
        return []
    begin = (*envelope(offer), line("DATA"))
    apart = (raw(body, 0), pause(_WAIT_MS), raw(b"NOOP\r\n.\r\n"))
    return [script(offer, *begin, *apart, NOOP), script(offer, *begin, raw(body + END[2:]), NOOP)]


def _refused_at_the_end(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    if not dialogues:
        limit = f"its limit of {offer.limit_bytes:,} octets is too high to be tried"
        return r.unclear(limit if offer.limit_bytes else "it names no limit")
    for take, dialogue in enumerate(dialogues):
        if not ready_for_text(dialogue):
            return r.unclear("DATA was not answered 354", take)
        if dialogue.hung_up:
            continue
        at = next(at for at, turn in enumerate(dialogue.turns) if len(turn.said) > offer.limit_bytes)
        text, *after = dialogue.turns[at:]
        if take == 0 and text.codes:
            return r.broken(f"{text.code} came before the end of an oversize message", take)
        end = after[0] if take == 0 and after else text
        noop = dialogue.after(b"NOOP\r\n", 1 if take == 0 else 0)
        if accepted(end):
            return r.broken(f"a message beyond the limit was {said_of(end)}", take)
        if not end.codes:
            return r.broken("the end of an oversize message got no reply", take)
        if noop is not None and not noop.codes:
            return r.broken(f"after {end.code} for an oversize message the next command got no reply", take)
    return r.HELD


def _declared(offer: Offer) -> Sequence[Script]:
    return [script(offer, *opening(offer), mail(offer, f"SIZE={offer.limit_bytes + 1}"))]


def _declared_too_much(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    if not offer.limit_bytes:
        return r.unclear("it names no limit")
    turn = dialogues[0].after(b"MAIL")
    return r.held_unless(accepted(turn), f"MAIL with a SIZE above the limit was {said_of(turn)}")


def _size_keyword(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    text = offer.extensions.get("SIZE", "").strip()
    return r.held_unless(
        bool(text) and not (text.isdecimal() and len(text) <= 20), "the parameter of SIZE is no number of up to 20 digits"
    )


def _underdeclared(offer: Offer) -> Sequence[Script]:
    steps = (*opening(offer), mail(offer, "SIZE=60"), rcpt(offer), line("DATA"), message(b"NOOP\r\n" * 40), NOOP)
    return [script(offer, *steps)]


def _framed_by_the_dot(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    if not ready_for_text(dialogues[0]):
        return r.unclear("DATA was not answered 354")
    text, noop = dialogues[0].after(HEADER[:5]), dialogues[0].after(b"NOOP")
    replies = sum(len(turn.codes) for turn in (text, noop) if turn is not None)
    return r.held_unless(replies > 2, f"a text longer than its declared SIZE was answered {replies - 1} times")


def _bare_lf(offer: Offer) -> Sequence[Script]:
    return [script(offer, *opening(offer), raw(b"NOOP\n", 0), pause(_WAIT_MS), raw(b"NOOP\r\n"))]


def _lf_taken(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turn = dialogues[0].after(b"NOOP\n")
    return r.held_unless(accepted(turn), "a command that ends in a bare LF was answered 250")


RULES = (
    Rule(
        "R37", "null-sender", "RFC 5321 §4.5.5", r.VIOLATION, "The null reverse-path is a sender like any other.",
        "250 to MAIL FROM:<>", probe=_mails("<>"), judge=_null_sender,
    ),
    Rule(
        "R38", "postmaster", "RFC 5321 §4.5.1", r.VIOLATION,
        "Who takes mail takes it for Postmaster, written without a domain and in any case.", "250 to RCPT TO:<Postmaster>",
        probe=_to_postmaster, judge=_postmaster,
    ),
    Rule(
        "R39", "path-brackets", "RFC 5321 §4.1.2", r.WARNING, "A path stands in angle brackets.", "501",
        probe=_mails("{sender}"), judge=_taken("a path without brackets"),
    ),
    Rule(
        "R40", "control-octet", "RFC 5321 §4.1.2", r.WARNING, "A mailbox holds no control characters.", "501",
        probe=_mails("<a\0b@client.example>", "<a\x07b@client.example>", "<a@cli\x01ent.example>"),
        judge=_taken("a mailbox with a control character"),
    ),
    Rule(
        "R41", "bad-param-555", "RFC 5321 §4.1.1.11", r.VIOLATION,
        "A parameter of MAIL that is not known, or that no offered extension has, is refused.", "555",
        probe=_mails("<{sender}> FOO=1", "<{sender}> X-NO-SUCH"), judge=_taken("an unknown parameter of MAIL"),
    ),
    Rule(
        "R42", "command-512", "RFC 5321 §4.5.3.1.4", r.VIOLATION, "A command line of 512 octets, CRLF included, is read.",
        "the reply that a short line gets", probe=_long_noops, judge=_longest_command,
    ),
    Rule(
        "R43", "min-sizes", "RFC 5321 §4.5.3.1.3", r.VIOLATION, "A local part of 64 octets, and a path of 256, are read.",
        "any reply but one about syntax", probe=_longest_paths, judge=_unread("a path of the full length"),
    ),
    Rule(
        "R44", "text-1000", "RFC 5321 §4.5.3.1.6", r.VIOLATION, "A line of text of 1000 octets, CRLF included, is taken.",
        "250 to the message", needs=("recipient",), probe=_long_texts, judge=_text_taken("a line of 1000 octets"),
    ),
    Rule(
        "R45", "message-64K", "RFC 5321 §4.5.3.1.7", r.VIOLATION, "A message of 64 KiB, header included, is taken.",
        "250 to the message", needs=("recipient",), probe=_large_texts, judge=_text_taken("a message of 64 KiB"),
    ),
    Rule(
        "R46", "rcpt-100", "RFC 5321 §4.5.3.1.8", r.VIOLATION, "A message may have 100 recipients.", "250 to 100 times RCPT",
        needs=("recipient",), probe=_many_recipients, judge=_hundred_taken,
    ),
    Rule(
        "R47", "literal", "RFC 5321 §4.1.3", r.VIOLATION, "An address literal may stand where a domain may.",
        "any reply but one about syntax", probe=_literals, judge=_unread("an address literal"),
    ),
    Rule(
        "R48", "source-route", "RFC 5321 §F.2", r.VIOLATION, "A source route is read, and may then be ignored or refused.",
        "any reply but one about syntax", probe=_routes, judge=_unread("a source route"),
    ),
    Rule(
        "R49", "overlong-resync", "RFC 5321 §4.5.3.1.9", r.VIOLATION,
        "A command line has a limit: beyond it a server keeps nothing, gives one reply to the whole line, and reads on "
        "behind it.",
        "one refusal, or 421 and the end of the connection", probe=_overlong, judge=_in_step, alone=True,
    ),
    Rule(
        "R50", "lf-command", "RFC 5321 §2.3.8", r.WARNING, "A command ends in CRLF, and not in a bare LF.",
        "no reply to LF, or a refusal", probe=_bare_lf, judge=_lf_taken,
    ),
    Rule(
        "R57", "oversize-clean", "RFC 5321 §4.2.5", r.VIOLATION,
        "A message beyond the limit is refused when its end has come, once, and the session goes on.",
        "552 to the end of the data, then replies as before; or the end of the connection",
        needs=("recipient", "SIZE"), probe=_oversize, judge=_refused_at_the_end, alone=True,
    ),
    Rule(
        "R61", "size-argument", "RFC 1870 §3", r.VIOLATION,
        "SIZE is offered with a number of up to 20 digits, or with none.",
        "SIZE and a number", needs=("SIZE",), probe=probing(lambda offer: (hello(offer),)), judge=_size_keyword,
    ),
    Rule(
        "R62", "size-552", "RFC 1870 §6.1", r.ADVICE, "MAIL with a SIZE above the limit is refused at once.", "552",
        needs=("SIZE",), probe=_declared, judge=_declared_too_much,
    ),
    Rule(
        "R63", "size-framing", "RFC 1870 §6.3", r.VIOLATION, "The declared SIZE is an estimate: only the dot ends a text.",
        "one reply to the whole text", needs=("recipient", "SIZE"), probe=_underdeclared, judge=_framed_by_the_dot,
    ),
)  # fmt: skip
