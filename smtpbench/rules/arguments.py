"""Arguments and sizes: RFC 5321 §4.1.1.11, §4.1.2, §4.1.3, §4.5.1, §4.5.3.1 and appendix F.2, RFC 1870.

A server may reject any address by policy (550 and similar codes), but it must be able to parse it. So only the codes of
syntax errors count: 500, 501 and 555. If the server rejects an ordinary address as well, the rule is inconclusive.
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
    data_accepted,
    envelope,
    hello,
    line,
    mail,
    message,
    opening,
    oversize,
    pause,
    probe_of,
    raw,
    rcpt,
    refused,
    reply_text,
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
from smtpbench.text import plural

_SYNTAX_ERRORS = (500, 501, 555)
_OVERLONG_BYTES = 4_000_000
_WAIT_MS = 300


def _mail_probe(*texts: str) -> r.Probe:
    """Return a probe that sends MAIL with each of these arguments, one a session. `{sender}` stands for the sender."""

    def probe(target_info: TargetInfo) -> Sequence[Script]:
        return [
            script(target_info, *opening(target_info), line("MAIL FROM:" + text.replace("{sender}", target_info.sender)))
            for text in texts
        ]

    return probe


def _must_be_rejected(what: str, verb: bytes = b"MAIL") -> r.Evaluate:
    """Return an evaluation: the server must not accept this command."""

    def evaluate(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        for dialogue_index, dialogue in enumerate(dialogues):
            exchange = dialogue.exchange_of(verb)
            if accepted(exchange):
                return r.violated(reply_text(what, exchange), dialogue_index)
        return r.PASSED

    return evaluate


def _must_be_parsed(what: str, verb: bytes = b"MAIL") -> r.Evaluate:
    """Return an evaluation: the server must be able to parse this command. The first dialogue is an ordinary command."""

    def evaluate(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        control = dialogues[0].exchange_of(verb)
        if not accepted(control):
            return r.inconclusive(reply_text(f"an ordinary {verb.decode()}", control))
        for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
            exchange = dialogue.exchange_of(verb)
            if exchange is not None and exchange.code in _SYNTAX_ERRORS:
                return r.violated(reply_text(what, exchange), dialogue_index)
        return r.PASSED

    return evaluate


# -- paths and parameters -----------------------------------------------------------------------------------------


def _evaluate_null_sender(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"MAIL")
    if not refused(exchange) or exchange is None or exchange.code // 100 == 4:
        return r.PASSED if accepted(exchange) else r.inconclusive(reply_text("MAIL FROM:<>", exchange))
    if target_info.login or exchange.code == 530:
        return r.inconclusive(f"{reply_text('MAIL FROM:<>', exchange)}, as a submission server may")
    return r.violated(reply_text("MAIL FROM:<>", exchange))


def _evaluate_postmaster(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"RCPT")
    if exchange is not None and exchange.code in (*_SYNTAX_ERRORS, 553):
        return r.violated(reply_text("RCPT TO:<Postmaster>", exchange))
    if accepted(exchange):
        return r.PASSED
    return r.inconclusive(f"{reply_text('RCPT TO:<Postmaster>', exchange)}, as a server may that only relays")


def _postmaster_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), mail(target_info), line("RCPT TO:<Postmaster>"))]


def _domain_name(length: int) -> str:
    """Return a domain name of this many octets."""
    name = "example"
    while len(name) < length:
        name = "d" * min(60, length - len(name) - 1) + "." + name
    return name if len(name) == length and not name.startswith(".") else "d" * (length - 8) + ".example"


def _longest_path_scripts(target_info: TargetInfo) -> Sequence[Script]:
    local = "l" * LOCAL_PART_BYTES
    paths = ("l@d.example", f"{local}@d.example", f"{local}@{_domain_name(PATH_BYTES - LOCAL_PART_BYTES - 3)}")
    return [script(target_info, *opening(target_info), line(f"MAIL FROM:<{path}>")) for path in paths]


def _address_literal_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, *opening(target_info), line(f"MAIL FROM:<{path}>"))
        for path in (target_info.sender, "a@[127.0.0.1]", "a@[IPv6:::1]")
    ]


def _source_route_scripts(target_info: TargetInfo) -> Sequence[Script]:
    paths = (target_info.sender, f"@relay.example:{target_info.sender}", f"@one.example,@two.example:{target_info.sender}")
    return [script(target_info, *opening(target_info), line(f"MAIL FROM:<{path}>")) for path in paths]


# -- sizes --------------------------------------------------------------------------------------------------------


def _longest_command_scripts(target_info: TargetInfo) -> Sequence[Script]:
    full = b"NOOP " + b"x" * (COMMAND_LINE_BYTES - 7)
    return [
        script(target_info, *opening(target_info), line(b"NOOP x")),
        script(target_info, *opening(target_info), line(full), NOOP),
    ]


def _evaluate_longest_command(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    control, full = dialogues[0].exchange_of(b"NOOP"), dialogues[1].exchange_of(b"NOOP")
    if not accepted(control):
        return r.inconclusive(reply_text("NOOP with an argument", control))
    if refused(full):
        return r.violated(reply_text(f"a command line of {COMMAND_LINE_BYTES} octets", full), 1)
    return r.violated_if(
        full is not None and not full.codes, reply_text(f"a command line of {COMMAND_LINE_BYTES} octets", full), 1
    )


def _message_script(target_info: TargetInfo, body: bytes) -> Script:
    return script(target_info, *envelope(target_info), line("DATA"), message(body))


def _long_line_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [_message_script(target_info, b"text"), _message_script(target_info, b"x" * (TEXT_LINE_BYTES - 2))]


def _large_message_scripts(target_info: TargetInfo) -> Sequence[Script]:
    lines, rest = divmod(MESSAGE_BYTES - len(HEADER) - 2, 64)
    return [_message_script(target_info, b"text"), _message_script(target_info, (b"x" * 62 + b"\r\n") * lines + b"x" * rest)]


def _message_must_be_accepted(what: str) -> r.Evaluate:
    """Return an evaluation: the server must accept this message if it accepts a small one."""

    def evaluate(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        control, exchange = (dialogue.exchange_of(HEADER[:5]) for dialogue in dialogues)
        if not (data_accepted(dialogues[0]) and accepted(control)):
            return r.inconclusive(reply_text("a small message", control))
        if exchange is not None and exchange.code // 100 == 5:
            return r.violated(reply_text(what, exchange), 1)
        return r.PASSED if accepted(exchange) else r.inconclusive(reply_text(what, exchange), 1)

    return evaluate


def _many_recipients_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), mail(target_info), *[rcpt(target_info)] * RECIPIENTS)]


def _evaluate_many_recipients(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchanges = [exchange for exchange in dialogues[0].exchanges if exchange.sent.startswith(b"RCPT")]
    if not exchanges or not accepted(exchanges[0]):
        return r.inconclusive(reply_text("RCPT", exchanges[0] if exchanges else None))
    for number, exchange in enumerate(exchanges, 1):
        if not accepted(exchange):
            actual = reply_text(f"recipient {number} of one message", exchange)
            return r.violated(actual) if exchange.code in (452, 552) else r.inconclusive(actual)
    return r.PASSED


def _overlong_line_scripts(target_info: TargetInfo) -> Sequence[Script]:
    """Return sessions with very long command lines. Two of the lines end with an argument that would be valid by itself."""
    blank = b" " * _OVERLONG_BYTES
    verb = b"LHLO" if target_info.lmtp else b"EHLO"
    arguments = (
        b"MAIL FROM:" + blank,
        b"<" + target_info.sender.encode() + b">\r\n",
        verb + blank,
        target_info.client.encode() + b"\r\n",
    )

    def overlong_script(head: bytes, tail: bytes) -> Script:
        return script(target_info, *opening(target_info), raw(head, 0), pause(_WAIT_MS), raw(tail), pause(_WAIT_MS), NOOP)

    return [
        overlong_script(b"VRFY " + b"x" * _OVERLONG_BYTES, b"\r\n"),
        overlong_script(*arguments[:2]),
        overlong_script(*arguments[2:]),
    ]


def _evaluate_overlong_lines(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        index = next(
            (index for index, exchange in enumerate(dialogue.exchanges) if len(exchange.sent) > _OVERLONG_BYTES), None
        )
        if index is None or dialogue.closed_without_221:
            continue
        exchanges = dialogue.exchanges[index : index + 2]
        codes = [code for exchange in exchanges for code in exchange.codes]
        if dialogue_index and codes and codes[-1] // 100 == 2:
            actual = (
                f"the server replied {codes[-1]} to a command line of {_OVERLONG_BYTES:,} octets: it has no length limit"
            )
            return r.violated(actual, dialogue_index)
        if len(codes) > 1 and 421 not in codes:
            actual = f"the server sent {plural(len(codes), 'reply')} to one line of {_OVERLONG_BYTES:,} octets"
            return r.violated(actual, dialogue_index)
        if dialogue.end_reason == api.TIMEOUT:
            return r.violated(f"the server did not reply to a line of {_OVERLONG_BYTES:,} octets", dialogue_index)
    return r.PASSED


def _oversize_scripts(target_info: TargetInfo) -> Sequence[Script]:
    body = oversize(target_info)
    if not body:
        return []
    begin = (*envelope(target_info), line("DATA"))
    with_pause = (raw(body, 0), pause(_WAIT_MS), raw(b"NOOP\r\n.\r\n"))
    return [script(target_info, *begin, *with_pause, NOOP), script(target_info, *begin, raw(body + END[2:]), NOOP)]


def _evaluate_oversize(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not target_info.limit_bytes:
        return r.inconclusive("the server announces no size limit")
    if not dialogues:
        return r.inconclusive(f"the size limit of {target_info.limit_bytes:,} octets is too high to test")
    for dialogue_index, dialogue in enumerate(dialogues):
        if not data_accepted(dialogue):
            return r.inconclusive(reply_text("DATA", dialogue.exchange_of(b"DATA")), dialogue_index)
        if dialogue.closed_without_221:
            continue
        sizes = enumerate(len(exchange.sent) for exchange in dialogue.exchanges)
        index = next((index for index, size in sizes if size > target_info.limit_bytes), None)
        if index is None:
            continue  # a finding of another server, whose limit is lower
        text, *after = dialogue.exchanges[index:]
        if dialogue_index == 0 and text.codes:
            actual = f"the server replied {text.code} before the end of a message above the size limit"
            return r.violated(actual, dialogue_index)
        end = after[0] if dialogue_index == 0 and after else text
        noop = dialogue.exchange_of(b"NOOP\r\n", 1 if dialogue_index == 0 else 0)
        if accepted(end):
            return r.violated(reply_text("a message above the size limit", end), dialogue_index)
        if not end.codes:
            return r.violated(reply_text("the end of a message above the size limit", end), dialogue_index)
        if noop is not None and not noop.codes:
            actual = f"after {end.code} for a message above the size limit, the server did not reply to the next command"
            return r.violated(actual, dialogue_index)
    return r.PASSED


def _declared_size_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), mail(target_info, f"SIZE={target_info.limit_bytes + 1}"))]


def _evaluate_declared_size(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not target_info.limit_bytes:
        return r.inconclusive("the server announces no size limit")
    exchange = dialogues[0].exchange_of(b"MAIL")
    return r.violated_if(accepted(exchange), reply_text("MAIL with a SIZE above the limit", exchange))


def _evaluate_size_keyword(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    text = target_info.extensions.get("SIZE", "").strip()
    return r.violated_if(
        bool(text) and not (text.isdecimal() and len(text) <= 20),
        "the parameter of SIZE is not a number of at most 20 digits",
    )


def _understated_size_scripts(target_info: TargetInfo) -> Sequence[Script]:
    steps = (
        *opening(target_info),
        mail(target_info, "SIZE=60"),
        rcpt(target_info),
        line("DATA"),
        message(b"NOOP\r\n" * 40),
        NOOP,
    )
    return [script(target_info, *steps)]


def _evaluate_understated_size(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not data_accepted(dialogues[0]):
        return r.inconclusive(reply_text("DATA", dialogues[0].exchange_of(b"DATA")))
    text, noop = dialogues[0].exchange_of(HEADER[:5]), dialogues[0].exchange_of(b"NOOP")
    replies = sum(len(exchange.codes) for exchange in (text, noop) if exchange is not None)
    actual = f"the server sent {plural(replies - 1, 'reply')} to one message text that is longer than its declared SIZE"
    return r.violated_if(replies > 2, actual)


def _bare_lf_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), raw(b"NOOP\n", 0), pause(_WAIT_MS), raw(b"NOOP\r\n"))]


def _evaluate_bare_lf(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"NOOP\n")
    return r.violated_if(accepted(exchange), reply_text("a command that ends with a bare LF", exchange))


RULES = (
    Rule(
        "R37",
        "null-sender",
        "RFC 5321 §4.5.5",
        r.VIOLATION,
        "The server must accept the null reverse-path in MAIL.",
        "250 to MAIL FROM:<>",
        probe=_mail_probe("<>"),
        evaluate=_evaluate_null_sender,
    ),
    Rule(
        "R38",
        "postmaster",
        "RFC 5321 §4.5.1",
        r.VIOLATION,
        "A server that accepts mail must accept mail for Postmaster, written without a domain and in upper or lower case.",
        "250 to RCPT TO:<Postmaster>",
        probe=_postmaster_scripts,
        evaluate=_evaluate_postmaster,
    ),
    Rule(
        "R39",
        "path-brackets",
        "RFC 5321 §4.1.2",
        r.WARNING,
        "A path must be in angle brackets. The server must reject one without them.",
        "501 to MAIL",
        probe=_mail_probe("{sender}"),
        evaluate=_must_be_rejected("a path without brackets"),
    ),
    Rule(
        "R40",
        "control-octet",
        "RFC 5321 §4.1.2",
        r.WARNING,
        "The server must reject a mailbox that contains control characters.",
        "501 to MAIL",
        probe=_mail_probe("<a\0b@client.example>", "<a\x07b@client.example>", "<a@cli\x01ent.example>"),
        evaluate=_must_be_rejected("a mailbox with a control character"),
    ),
    Rule(
        "R41",
        "bad-param-555",
        "RFC 5321 §4.1.1.11",
        r.VIOLATION,
        "The server must reject MAIL with a parameter that is unknown or that belongs to no offered extension.",
        "555 to MAIL",
        probe=_mail_probe("<{sender}> FOO=1", "<{sender}> X-NO-SUCH"),
        evaluate=_must_be_rejected("an unknown parameter of MAIL"),
    ),
    Rule(
        "R42",
        "command-512",
        "RFC 5321 §4.5.3.1.4",
        r.VIOLATION,
        "The server must accept command lines of up to 512 octets, CRLF included.",
        "the same reply as to a short line",
        probe=_longest_command_scripts,
        evaluate=_evaluate_longest_command,
    ),
    Rule(
        "R43",
        "min-sizes",
        "RFC 5321 §4.5.3.1.3",
        r.VIOLATION,
        "The server must accept a local part of 64 octets and a path of 256 octets.",
        "any reply except a syntax error (500, 501, 555)",
        probe=_longest_path_scripts,
        evaluate=_must_be_parsed("a path of the full length"),
    ),
    Rule(
        "R44",
        "text-1000",
        "RFC 5321 §4.5.3.1.6",
        r.VIOLATION,
        "The server must accept message text lines of up to 1000 octets, CRLF included.",
        "250 to the message",
        needs=("recipient",),
        probe=_long_line_scripts,
        evaluate=_message_must_be_accepted("a line of 1000 octets"),
    ),
    Rule(
        "R45",
        "message-64K",
        "RFC 5321 §4.5.3.1.7",
        r.VIOLATION,
        "The server must accept a message of 64 KiB, header included.",
        "250 to the message",
        needs=("recipient",),
        probe=_large_message_scripts,
        evaluate=_message_must_be_accepted("a message of 64 KiB"),
    ),
    Rule(
        "R46",
        "rcpt-100",
        "RFC 5321 §4.5.3.1.8",
        r.VIOLATION,
        "The server must accept 100 recipients in one message.",
        "250 to each of 100 RCPT commands",
        needs=("recipient",),
        probe=_many_recipients_scripts,
        evaluate=_evaluate_many_recipients,
    ),
    Rule(
        "R47",
        "literal",
        "RFC 5321 §4.1.3",
        r.VIOLATION,
        "The server must recognize an address literal in place of a domain.",
        "any reply except a syntax error (500, 501, 555)",
        probe=_address_literal_scripts,
        evaluate=_must_be_parsed("an address literal"),
    ),
    Rule(
        "R48",
        "source-route",
        "RFC 5321 §F.2",
        r.VIOLATION,
        "The server must recognize a source route. It may ignore it, or reject the address.",
        "any reply except a syntax error (500, 501, 555)",
        probe=_source_route_scripts,
        evaluate=_must_be_parsed("a source route"),
    ),
    Rule(
        "R49",
        "overlong-resync",
        "RFC 5321 §4.5.3.1.9",
        r.VIOLATION,
        "The server must limit the length of command lines. It must send one reply to a line that is too long, and then "
        "read "
        "the next command after the end of that line.",
        "one error reply, or 421 and a closed connection",
        probe=_overlong_line_scripts,
        evaluate=_evaluate_overlong_lines,
        exclusive=True,
        allows_close=True,
    ),
    Rule(
        "R50",
        "lf-command",
        "RFC 5321 §2.3.8",
        r.WARNING,
        "A command line ends with CRLF. The server must not accept a bare LF as its end.",
        "no reply to the line that ends with LF, or an error reply",
        probe=_bare_lf_scripts,
        evaluate=_evaluate_bare_lf,
    ),
    Rule(
        "R57",
        "oversize-clean",
        "RFC 5321 §4.2.5",
        r.VIOLATION,
        "The server must reject a message above its size limit with one reply after the end of the data, and then continue "
        "the "
        "session.",
        "552 after the end of the data, then replies to further commands; or a closed connection",
        needs=("recipient", "SIZE"),
        probe=_oversize_scripts,
        evaluate=_evaluate_oversize,
        evaluates_single=True,
        exclusive=True,
        allows_close=True,
    ),
    Rule(
        "R61",
        "size-argument",
        "RFC 1870 §3",
        r.VIOLATION,
        "The SIZE keyword has a number of at most 20 digits as parameter, or none.",
        "SIZE, or SIZE and a number",
        needs=("SIZE",),
        probe=probe_of(lambda target_info: (hello(target_info),)),
        evaluate=_evaluate_size_keyword,
    ),
    Rule(
        "R62",
        "size-552",
        "RFC 1870 §6.1",
        r.ADVICE,
        "The server should reject MAIL with a SIZE above its limit at once.",
        "552 to MAIL",
        needs=("SIZE",),
        probe=_declared_size_scripts,
        evaluate=_evaluate_declared_size,
    ),
    Rule(
        "R63",
        "size-framing",
        "RFC 1870 §6.3",
        r.VIOLATION,
        "The declared SIZE is an estimate. Only CRLF.CRLF ends the message text, whatever its length.",
        "one reply to the whole text",
        needs=("recipient", "SIZE"),
        probe=_understated_size_scripts,
        evaluate=_evaluate_understated_size,
    ),
)
