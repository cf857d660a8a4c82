"""Replies: RFC 5321 §4.2, §4.1.1.1 and §4.5.3.1.5, RFC 2034 §4.

Most of these rules are invariants, which are evaluated on every dialogue. Their probes only cause replies that are often
wrong: replies that repeat long or unusual input, error replies, and replies of several lines.

Where a requirement depends on the command that a reply answers, the reply tracker says which one that is. A write and the
replies after it do not tell: one write may hold several commands, and a server may reply late.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import QUIET_PERIOD, accepted, hello, line, opening, pause, reply_text, script
from smtpbench.rules.reply_tracker import verbs_answered
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange, ReceivedReply
from smtpbench.session.script import Script
from smtpbench.smtp.command import REPLY_LINE_BYTES, Refusal, parse_hello, verb_of
from smtpbench.smtp.reply import enhanced_code
from smtpbench.smtp.state import BANNER
from smtpbench.text import plural

_CODE = re.compile(rb"([0-9]{3})(?:[ -]|$)")
_CLEAN = re.compile(rb"(?:[2-5][0-5][0-9](?:[ -][\t\x20-\x7e]*)?\r\n)+")
_KEYWORD_LINE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*(?: [\x21-\x7e]+)*")
#: Codes that RFC 5321, 1870, 1985, 2645, 3207, 3461, 4954, 5248, 6531, 7372, 7504 and 8689 define.
_DEFINED_CODES = frozenset({
    211, 214, 220, 221, 235, 250, 251, 252, 253, 334, 354, 421, 422, 430, 432, 450, 451, 452, 453, 454, 455, 458, 459,
    500, 501, 502, 503, 504, 521, 523, 524, 525, 530, 533, 534, 535, 538, 550, 551, 552, 553, 554, 555, 556,
})  # fmt: skip


def _lines(received: ReceivedReply) -> list[bytes]:
    """Return the lines of a reply without LF. A CR at the end of a line is kept."""
    return received.reply.raw.split(b"\n")[:-1]


@lru_cache(maxsize=4096)
def _is_clean(raw: bytes) -> bool:
    """Return whether every line of a reply is well-formed, as nearly all are."""
    return _CLEAN.fullmatch(raw) is not None and max(map(len, raw.split(b"\n"))) < REPLY_LINE_BYTES


def _unclean_lines(dialogue: Dialogue) -> Iterator[tuple[Exchange, bytes]]:
    """Yield the lines of the replies that are not well-formed."""
    for exchange in dialogue.exchanges:
        for received in exchange.replies:
            if not _is_clean(received.reply.raw):
                for text in _lines(received):
                    yield exchange, text


def _after(exchange: Exchange) -> str:
    """Return which reply is meant, for the text of a violation."""
    return f"after {verb_of(exchange.sent) or 'what was sent'}" if exchange.sent else "in the greeting"


_HELLO = frozenset({"EHLO", "HELO", "LHLO"})


def _verb_answered(target_info: TargetInfo, dialogue: Dialogue, received: ReceivedReply) -> str:
    """Return the verb or event that a reply answers; empty if that cannot be told."""
    verbs = verbs_answered(dialogue, lmtp=target_info.lmtp)
    return next((verb for one, verb in zip(dialogue.replies(), verbs, strict=True) if one is received), "")


def _find_syntax_error(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, text in _unclean_lines(dialogue):
        match = _CODE.match(text.removesuffix(b"\r"))
        if match is None:
            return f"a reply line {_after(exchange)} does not begin with a code and a space or hyphen"
        if match[1][1:2] > b"5" and match[1][:1] in b"2345":
            return f"the second digit of the code {match[1].decode()} {_after(exchange)} is above 5"
    return ""


def _find_code_out_of_range(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, text in _unclean_lines(dialogue):
        match = _CODE.match(text.removesuffix(b"\r"))
        if match is not None and match[1][:1] not in b"2345":
            return f"the code {match[1].decode()} {_after(exchange)} begins with {match[1][:1].decode()}"
    return ""


def _find_different_codes(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange in dialogue.exchanges:
        for received in exchange.replies:
            codes = [text[:3].decode("latin-1") for text in _lines(received)]
            if len(codes) > 1 and len(set(codes)) > 1:
                return f"the lines of one reply {_after(exchange)} have different codes"
    return ""


def _find_undefined_code(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange in dialogue.exchanges:
        for code in exchange.codes:
            if 200 <= code < 560 and code not in _DEFINED_CODES:
                return f"no RFC defines the code {code} {_after(exchange)}"
    return ""


def _find_bad_line_end(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, text in _unclean_lines(dialogue):
        if not text.endswith(b"\r"):
            return f"a reply line {_after(exchange)} ends with a bare LF"
        if b"\r" in text[:-1]:
            return f"a reply line {_after(exchange)} contains a bare CR"
    return ""


def _find_long_line(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, text in _unclean_lines(dialogue):
        if len(text) + 1 > REPLY_LINE_BYTES:
            return f"a reply line {_after(exchange)} is {len(text) + 1} octets long"
    return ""


def _uses_smtputf8(exchange: Exchange) -> bool:
    return b"SMTPUTF8" in exchange.sent.upper()


def _is_vrfy_or_expn(exchange: Exchange) -> bool:
    return exchange.sent[:5].upper() in (b"VRFY ", b"EXPN ")


def _find_non_ascii(target_info: TargetInfo, dialogue: Dialogue) -> str:
    if any(map(_uses_smtputf8, dialogue.exchanges)):
        return ""
    for exchange, text in _unclean_lines(dialogue):
        if _is_vrfy_or_expn(exchange) and "SMTPUTF8" in target_info.extensions:
            continue  # the rule utf8-reply covers these
        if any(octet > 126 or (octet < 32 and octet != 9) for octet in text.replace(b"\r", b"")):
            return f"a reply {_after(exchange)} contains octets that are not printable ASCII"
    return ""


def _find_non_ascii_names(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange in dialogue.exchanges:
        non_ascii = any(not received.reply.raw.isascii() for received in exchange.replies)
        if non_ascii and _is_vrfy_or_expn(exchange) and not _uses_smtputf8(exchange):
            return f"a reply {_after(exchange)} contains octets beyond ASCII, although the command did not use SMTPUTF8"
    return ""


def _find_bad_greeting(target_info: TargetInfo, dialogue: Dialogue) -> str:
    banner = dialogue.banner
    if banner is None or banner.code != 220:
        return ""
    parts = banner.lines[0].split()
    if not parts or isinstance(parse_hello("EHLO", parts[0]), Refusal):
        return "the greeting does not begin with the server's domain"
    return ""


def _find_bad_ehlo_reply(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange in dialogue.exchanges:
        if exchange.sent[:5].upper() not in (b"EHLO ", b"LHLO ") or exchange.first is None or exchange.code != 250:
            continue
        name, *rest = exchange.first.lines
        actual = ""
        if isinstance(parse_hello("EHLO", name.split(b" ")[0]), Refusal):
            actual = "the reply to EHLO does not begin with the server's domain"
        elif not all(map(_KEYWORD_LINE.fullmatch, rest)):
            actual = "a line of the reply to EHLO is not a keyword with parameters"
        if actual and _verb_answered(target_info, dialogue, exchange.replies[0]) in _HELLO:
            return actual
    return ""


def _replies_with_enhanced_code(dialogue: Dialogue) -> Iterator[tuple[Exchange, ReceivedReply]]:
    """Yield the replies that must have an enhanced code: 2yz, 4yz and 5yz after EHLO, except replies to EHLO and HELO."""
    after_hello, sent = False, b""
    for exchange in dialogue.exchanges:
        # one line may take several writes
        sent = exchange.sent.upper() if sent.endswith(b"\n") else sent + exchange.sent.upper()
        if b"EHLO" in sent or b"HELO" in sent or b"LHLO" in sent:
            after_hello = after_hello or accepted(exchange)
        elif after_hello and not any(received.tls != exchange.tls for received in exchange.replies):
            yield from ((exchange, received) for received in exchange.replies if received.reply.code // 100 in (2, 4, 5))


def _find_bad_enhanced_code(target_info: TargetInfo, dialogue: Dialogue) -> str:
    if "ENHANCEDSTATUSCODES" not in target_info.extensions:
        return ""
    for exchange, received in _replies_with_enhanced_code(dialogue):
        code, actual = received.reply.code, ""
        if not received.reply.enhanced:
            actual = f"the reply {code} {_after(exchange)} has no enhanced status code"
        elif received.reply.enhanced[0] != str(code)[0]:
            actual = f"the enhanced status code {received.reply.enhanced} {_after(exchange)} has another class than {code}"
        if actual and _must_have_enhanced_code(target_info, dialogue, received):
            return actual
    return ""


def _must_have_enhanced_code(target_info: TargetInfo, dialogue: Dialogue, received: ReceivedReply) -> bool:
    return _verb_answered(target_info, dialogue, received) not in ("", BANNER, *_HELLO)


def _find_different_enhanced_codes(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, received in _replies_with_enhanced_code(dialogue):
        texts = [enhanced_code(text) for text in _lines(received)]
        # where the codes differ, those differ too, and the rule multiline-code reports it
        different = texts and texts[0] and len(set(texts)) > 1 and not received.reply.mixed_codes
        if different and _must_have_enhanced_code(target_info, dialogue, received):
            return (
                f"the lines of the reply {received.reply.code} {_after(exchange)} do not have the same enhanced status code"
            )
    return ""


# -- probes --------------------------------------------------------------------------------------------------------


def _long_input_scripts(target_info: TargetInfo) -> Sequence[Script]:
    long = b"x" * 490
    names = b".".join([b"x" * 60] * 4)
    texts = (b"VRFY " + long, b"X" * 500, b"NOOP " + long, b"MAIL FROM:<a@" + names + b">", b"EHLO " + names)
    return [script(target_info, *opening(target_info), line(text)) for text in texts]


def _non_ascii_scripts(target_info: TargetInfo) -> Sequence[Script]:
    texts = (b"\xdcberall", b"NOOP \xc3\xbc\xff", b"MAIL FROM:<\xc3\xbc@\xff.example>", b"HELP \x1b[2J\x07")
    return [script(target_info, *opening(target_info), line(text)) for text in texts]


def _non_ascii_name_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), line(text)) for text in ("VRFY j\u00fcrgen", "EXPN li\u00dfte")]


def _ehlo_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, hello(target_info)),
        script(target_info, line("EHLO [127.0.0.1]") if not target_info.lmtp else hello(target_info)),
    ]


def _multiline_reply_scripts(target_info: TargetInfo) -> Sequence[Script]:
    texts = ("HELP", "HELP MAIL", "VRFY postmaster", "EXPN staff", "XYZZY", "NOOP", "RSET", "MAIL FROM:<", "RCPT TO:<")
    return [script(target_info, *opening(target_info), *map(line, texts))]


def _helo_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, line(f"HELO {target_info.client}"))]


def _evaluate_helo(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"HELO")
    if exchange is None or exchange.first is None or exchange.code != 250:
        return r.inconclusive(reply_text("HELO", exchange))
    first_words = {text.split(b" ")[0].decode("latin-1").upper() for text in exchange.first.lines[1:]}
    keywords = target_info.keywords_before_tls.keys() | target_info.keywords_in_tls.keys()
    return r.violated_if(bool(first_words & keywords), "the reply to HELO lists extensions")


#: Commands that get exactly one reply each, whether accepted or rejected.
_COMMANDS = (
    "NOOP",
    "RSET",
    "VRFY postmaster",
    "EXPN staff",
    "HELP",
    "XYZZY",
    "RCPT TO:<a@b.example>",
    "NOOP x",
    "MAIL FROM:<>",
)
_PAUSE_MS = 50


def _one_reply_scripts(target_info: TargetInfo) -> Sequence[Script]:
    steps = [step for text in _COMMANDS for step in (line(text), pause(_PAUSE_MS), line("NOOP"))]
    return [script(target_info, *opening(target_info), *steps, line("RSET"), QUIET_PERIOD)]


def _evaluate_one_reply(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for exchange in dialogues[0].exchanges[1:]:
        if 421 in exchange.codes:
            break
        if len(exchange.replies) != 1 and not (not exchange.replies and dialogues[0].closed_without_221):
            sent = exchange.sent.split(b"\r\n")[0].decode("latin-1")
            if not exchange.replies:
                return r.violated(f"the server did not reply to {sent}")
            return r.violated(f"the server sent {plural(len(exchange.replies), 'reply')} to {sent}")
    return r.PASSED


def _greeting_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, hello(target_info))]


def _evaluate_refused_greeting(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    code = dialogues[0].exchanges[0].code
    if code != 554:
        return r.inconclusive(f"the greeting is {code}, not 554")
    return r.violated_if(
        dialogues[0].closed_without_221, "the server closed the connection after its 554 greeting without waiting for QUIT"
    )


def _invariant_rule(
    id_: str,
    name: str,
    section: str,
    requirement: str,
    expected: str,
    invariant: r.Invariant,
    *,
    probe: r.Probe = _multiline_reply_scripts,
    severity: str = r.VIOLATION,
    needs: tuple[str, ...] = (),
) -> Rule:
    return Rule(
        id_, name, section, severity, requirement, expected, needs, probe, r.always_passed, invariant, by_exchange=True
    )


RULES = (
    _invariant_rule(
        "R01",
        "reply-syntax",
        "RFC 5321 §4.2",
        "A reply line consists of a three-digit code, a space or a hyphen, and text. The first digit is 2 to 5, the second "
        "0 to 5.",
        "lines of code, space or hyphen, and text",
        _find_syntax_error,
    ),
    _invariant_rule(
        "R02",
        "code-range",
        "RFC 5321 §4.2.1",
        "The first digit of a reply code must be 2, 3, 4 or 5.",
        "codes between 200 and 599",
        _find_code_out_of_range,
    ),
    _invariant_rule(
        "R03",
        "multiline-code",
        "RFC 5321 §4.2.1",
        "All lines of one reply must begin with the same code.",
        "the same code in all lines of a reply",
        _find_different_codes,
    ),
    _invariant_rule(
        "R04",
        "unlisted-code",
        "RFC 5321 §4.2",
        "The server should send only reply codes that an RFC defines.",
        "codes that an RFC defines",
        _find_undefined_code,
        severity=r.ADVICE,
    ),
    _invariant_rule(
        "R05",
        "reply-crlf",
        "RFC 5321 §2.3.8",
        "A reply line must end with CRLF, and must not contain another CR or LF.",
        "CRLF at the end of each line",
        _find_bad_line_end,
    ),
    _invariant_rule(
        "R06",
        "reply-512",
        "RFC 5321 §4.5.3.1.5",
        "A reply line, including code and CRLF, must not be longer than 512 octets.",
        "reply lines of at most 512 octets, whatever was sent",
        _find_long_line,
        probe=_long_input_scripts,
    ),
    _invariant_rule(
        "R07",
        "reply-ascii",
        "RFC 5321 §4.2",
        "The text of a reply must consist of printable ASCII characters, spaces and tabs.",
        "no other octets, even in a reply that repeats the command",
        _find_non_ascii,
        probe=_non_ascii_scripts,
    ),
    Rule(
        "R08",
        "one-reply",
        "RFC 5321 §4.2",
        r.VIOLATION,
        "The server must send exactly one reply to each command.",
        "one reply to each command",
        probe=_one_reply_scripts,
        evaluate=_evaluate_one_reply,
    ),
    _invariant_rule(
        "R09",
        "greeting",
        "RFC 5321 §4.2",
        "The text of a 220 greeting must begin with the server's domain or address literal.",
        "220 and a domain",
        _find_bad_greeting,
        probe=_greeting_scripts,
    ),
    Rule(
        "R10",
        "helo-plain",
        "RFC 5321 §4.1.1.1",
        r.VIOLATION,
        "The reply to HELO must not list extensions.",
        "250 and the server's domain",
        needs=("smtp",),
        probe=_helo_scripts,
        evaluate=_evaluate_helo,
    ),
    _invariant_rule(
        "R11",
        "ehlo-grammar",
        "RFC 5321 §4.1.1.1",
        "The reply to EHLO consists of a line with the server's domain and one line for each extension. An extension line "
        "is a "
        "keyword of letters, digits and hyphens, and parameters with one space before each.",
        "a domain, then lines of keywords and parameters",
        _find_bad_ehlo_reply,
        probe=_ehlo_scripts,
    ),
    _invariant_rule(
        "R14",
        "enhanced-code",
        "RFC 2034 §4",
        "A server that offers ENHANCEDSTATUSCODES must put an enhanced status code of the same class into every 2yz, 4yz "
        "and 5yz "
        "reply, except the greeting and the replies to EHLO and HELO.",
        "an enhanced status code of the class of the reply code",
        _find_bad_enhanced_code,
        needs=("ENHANCEDSTATUSCODES",),
    ),
    _invariant_rule(
        "R15",
        "enhanced-multiline",
        "RFC 2034 §4",
        "All lines of one reply must have the same enhanced status code.",
        "the same enhanced status code in all lines of a reply",
        _find_different_enhanced_codes,
        needs=("ENHANCEDSTATUSCODES",),
    ),
    Rule(
        "R36",
        "greet-554",
        "RFC 5321 §3.1",
        r.VIOLATION,
        "A server that greets with 554 must wait for QUIT before it closes the connection, and reply 503 to other commands.",
        "a connection that is open until QUIT",
        probe=_greeting_scripts,
        evaluate=_evaluate_refused_greeting,
        allows_refused_greeting=True,
    ),
    _invariant_rule(
        "R69",
        "utf8-reply",
        "RFC 6531 §3.7.4.2",
        "A reply to VRFY or EXPN may contain octets beyond ASCII only if the command used SMTPUTF8.",
        "a reply in ASCII",
        _find_non_ascii_names,
        probe=_non_ascii_name_scripts,
        needs=("SMTPUTF8",),
    ),
)
