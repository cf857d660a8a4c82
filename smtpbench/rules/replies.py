"""What replies look like: RFC 5321 §4.2, §4.1.1.1 and §4.5.3.1.5, RFC 2034 §4.

Nearly all of these are invariants: they read every dialogue that anybody spoke. Probes only provoke the replies that are
worth a look: echoes of what is long or odd, refusals, lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import LISTEN, accepted, hello, line, opening, pause, said_of, script
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange, ReceivedReply
from smtpbench.session.script import Script
from smtpbench.smtp.command import REPLY_LINE_BYTES, Refusal, parse_hello, verb_of
from smtpbench.smtp.reply import enhanced_code

_CODE = re.compile(rb"([0-9]{3})(?:[ -]|$)")
_FINE = re.compile(rb"(?:[2-5][0-5][0-9](?:[ -][\t\x20-\x7e]*)?\r\n)+")
_KEYWORD_LINE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*(?: [\x21-\x7e]+)*")
#: Codes that RFC 5321, 1870, 1985, 2645, 3207, 3461, 4954, 5248, 6531, 7372, 7504 and 8689 give a meaning to.
_LISTED = frozenset({
    211, 214, 220, 221, 235, 250, 251, 252, 253, 334, 354, 421, 422, 430, 432, 450, 451, 452, 453, 454, 455, 458, 459,
    500, 501, 502, 503, 504, 521, 523, 524, 525, 530, 533, 534, 535, 538, 550, 551, 552, 553, 554, 555, 556,
})  # fmt: skip


def _lines(received: ReceivedReply) -> list[bytes]:
    """Its lines without LF; a CR at the end stays."""
    return received.reply.raw.split(b"\n")[:-1]


@lru_cache(maxsize=4096)
def _spotless(raw: bytes) -> bool:
    """Whether nothing that is judged of a line by itself can be wrong with this reply: nearly all are like that."""
    return _FINE.fullmatch(raw) is not None and max(map(len, raw.split(b"\n"))) < REPLY_LINE_BYTES


def _all_lines(dialogue: Dialogue) -> Iterator[tuple[Exchange, bytes]]:
    """The lines of the replies that are worth a look."""
    for exchange in dialogue.exchanges:
        for received in exchange.replies:
            if not _spotless(received.reply.raw):
                for text in _lines(received):
                    yield exchange, text


def _after(exchange: Exchange) -> str:
    """Which reply is meant, for `actual`."""
    return f"after {verb_of(exchange.sent) or 'what was sent'}" if exchange.sent else "in the greeting"


def _syntax(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, text in _all_lines(dialogue):
        match = _CODE.match(text.removesuffix(b"\r"))
        if match is None:
            return f"a reply line {_after(exchange)} begins without a code and a space or hyphen"
        if match[1][1:2] > b"5" and match[1][:1] in b"2345":
            return f"the second digit of the code {match[1].decode()} {_after(exchange)} is above 5"
    return ""


def _range(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, text in _all_lines(dialogue):
        match = _CODE.match(text.removesuffix(b"\r"))
        if match is not None and match[1][:1] not in b"2345":
            return f"the code {match[1].decode()} {_after(exchange)} begins with {match[1][:1].decode()}"
    return ""


def _one_code(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange in dialogue.exchanges:
        for received in exchange.replies:
            codes = [text[:3].decode("latin-1") for text in _lines(received)]
            if len(codes) > 1 and len(set(codes)) > 1:
                return f"the lines of one reply {_after(exchange)} have different codes"
    return ""


def _listed(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange in dialogue.exchanges:
        for code in exchange.codes:
            if 200 <= code < 560 and code not in _LISTED:
                return f"the code {code} {_after(exchange)} has no meaning in any RFC"
    return ""


def _crlf(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, text in _all_lines(dialogue):
        if not text.endswith(b"\r"):
            return f"a reply line {_after(exchange)} ends in a bare LF"
        if b"\r" in text[:-1]:
            return f"a reply line {_after(exchange)} holds a bare CR"
    return ""


def _length(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, text in _all_lines(dialogue):
        if len(text) + 1 > REPLY_LINE_BYTES:
            return f"a reply line {_after(exchange)} is {len(text) + 1} octets long"
    return ""


def _utf8_wanted(exchange: Exchange) -> bool:
    return b"SMTPUTF8" in exchange.sent.upper()


def _asks_for_names(exchange: Exchange) -> bool:
    return exchange.sent[:5].upper() in (b"VRFY ", b"EXPN ")


def _ascii(target_info: TargetInfo, dialogue: Dialogue) -> str:
    if any(map(_utf8_wanted, dialogue.exchanges)):
        return ""
    for exchange, text in _all_lines(dialogue):
        if _asks_for_names(exchange) and "SMTPUTF8" in target_info.extensions:
            continue  # RFC 6531 says it again for these
        if any(octet > 126 or (octet < 32 and octet != 9) for octet in text.replace(b"\r", b"")):
            return f"a reply {_after(exchange)} holds octets that are not printable ASCII"
    return ""


def _names_ascii(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange in dialogue.exchanges:
        foreign = any(not received.reply.raw.isascii() for received in exchange.replies)
        if foreign and _asks_for_names(exchange) and not _utf8_wanted(exchange):
            return f"a reply {_after(exchange)} holds octets beyond ASCII, and SMTPUTF8 was not asked for"
    return ""


def _greeting(target_info: TargetInfo, dialogue: Dialogue) -> str:
    banner = dialogue.banner
    if banner is None or banner.code != 220:
        return ""
    words = banner.lines[0].split()
    if not words or isinstance(parse_hello("EHLO", words[0]), Refusal):
        return "the greeting does not begin with the server's domain"
    return ""


def _ehlo(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange in dialogue.exchanges:
        if exchange.sent[:5].upper() not in (b"EHLO ", b"LHLO ") or exchange.first is None or exchange.code != 250:
            continue
        name, *rest = exchange.first.lines
        if isinstance(parse_hello("EHLO", name.split(b" ")[0]), Refusal):
            return "the reply to EHLO does not begin with the server's domain"
        for text in rest:
            if not _KEYWORD_LINE.fullmatch(text):
                return "a line of the reply to EHLO is no keyword with parameters"
    return ""


def _enhanced_due(dialogue: Dialogue) -> Iterator[tuple[Exchange, ReceivedReply]]:
    """The replies that owe an enhanced code: 2yz, 4yz and 5yz after EHLO, but for those to EHLO and HELO."""
    greeted, sent = False, b""
    for exchange in dialogue.exchanges:
        # a line may have been said in several writes
        sent = exchange.sent.upper() if sent.endswith(b"\n") else sent + exchange.sent.upper()
        if b"EHLO" in sent or b"HELO" in sent or b"LHLO" in sent:
            greeted = greeted or accepted(exchange)
        elif greeted and not any(received.tls != exchange.tls for received in exchange.replies):
            yield from ((exchange, received) for received in exchange.replies if received.reply.code // 100 in (2, 4, 5))


def _enhanced(target_info: TargetInfo, dialogue: Dialogue) -> str:
    if "ENHANCEDSTATUSCODES" not in target_info.extensions:
        return ""
    for exchange, received in _enhanced_due(dialogue):
        code = received.reply.code
        if not received.reply.enhanced:
            return f"the reply {code} {_after(exchange)} has no enhanced code"
        if received.reply.enhanced[0] != str(code)[0]:
            return f"the enhanced code {received.reply.enhanced} {_after(exchange)} is of another class than {code}"
    return ""


def _enhanced_lines(target_info: TargetInfo, dialogue: Dialogue) -> str:
    for exchange, received in _enhanced_due(dialogue):
        texts = [enhanced_code(text) for text in _lines(received)]
        if texts and texts[0] and len(set(texts)) > 1:
            return f"the lines of the reply {received.reply.code} {_after(exchange)} have different enhanced codes, or none"
    return ""


# -- what provokes replies worth a look ----------------------------------------------------------------------------


def _echoes(target_info: TargetInfo) -> Sequence[Script]:
    long = b"x" * 490
    names = b".".join([b"x" * 60] * 4)
    texts = (b"VRFY " + long, b"X" * 500, b"NOOP " + long, b"MAIL FROM:<a@" + names + b">", b"EHLO " + names)
    return [script(target_info, *opening(target_info), line(text)) for text in texts]


def _odd_octets(target_info: TargetInfo) -> Sequence[Script]:
    texts = (b"\xdcberall", b"NOOP \xc3\xbc\xff", b"MAIL FROM:<\xc3\xbc@\xff.example>", b"HELP \x1b[2J\x07")
    return [script(target_info, *opening(target_info), line(text)) for text in texts]


def _odd_names(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), line(text)) for text in ("VRFY j\u00fcrgen", "EXPN li\u00dfte")]


def _hellos(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, hello(target_info)),
        script(target_info, line("EHLO [127.0.0.1]") if not target_info.lmtp else hello(target_info)),
    ]


def _lists(target_info: TargetInfo) -> Sequence[Script]:
    texts = ("HELP", "HELP MAIL", "VRFY postmaster", "EXPN staff", "XYZZY", "NOOP", "RSET", "MAIL FROM:<", "RCPT TO:<")
    return [script(target_info, *opening(target_info), *map(line, texts))]


def _helo(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, line(f"HELO {target_info.client}"))]


def _plain_helo(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"HELO")
    if exchange is None or exchange.first is None or exchange.code != 250:
        return r.inconclusive(f"HELO was not taken: {said_of(exchange)}")
    words = {text.split(b" ")[0].decode("latin-1").upper() for text in exchange.first.lines[1:]}
    return r.passed_unless(
        bool(words & target_info.keywords_before_tls.keys() | words & target_info.keywords_in_tls.keys()),
        "HELO was answered with extensions",
    )


#: Commands that are taken or refused, and answered once each.
_ONE_EACH = (
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
_BARRIER_MS = 50


def _barriers(target_info: TargetInfo) -> Sequence[Script]:
    steps = [step for text in _ONE_EACH for step in (line(text), pause(_BARRIER_MS), line("NOOP"))]
    return [script(target_info, *opening(target_info), *steps, line("RSET"), LISTEN)]


def _each_once(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for exchange in dialogues[0].exchanges[1:]:
        if 421 in exchange.codes:
            break
        if len(exchange.replies) != 1 and not (not exchange.replies and dialogues[0].closed_without_221):
            sent = exchange.sent.split(b"\r\n")[0].decode("latin-1")
            return r.violated(
                f"{sent} got {len(exchange.replies) or 'no'} replies" if exchange.replies else f"{sent} got no reply"
            )
    return r.PASSED


def _turn_away(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, hello(target_info))]


def _waits_for_quit(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    banner = dialogues[0].exchanges[0].code
    if banner != 554:
        return r.inconclusive(f"it greets with {banner}, not with 554")
    return r.passed_unless(dialogues[0].closed_without_221, "it closed after its 554 without waiting for QUIT")


def _invariant(
    id_: str, name: str, section: str, requirement: str, expected: str, invariant: r.Invariant, *,
    probe: r.Probe = _lists, severity: str = r.VIOLATION, needs: tuple[str, ...] = (),
) -> Rule:  # fmt: skip
    return Rule(
        id_, name, section, severity, requirement, expected, needs, probe, r.provokes_only, invariant, by_exchange=True
    )


RULES = (
    _invariant(
        "R01", "reply-syntax", "RFC 5321 §4.2",
        "A reply line is a code of three digits, the first 2 to 5 and the second 0 to 5, then a space or a hyphen and text.",
        "code, space or hyphen, text", _syntax,
    ),
    _invariant(
        "R02", "code-range", "RFC 5321 §4.2.1", "The first digit of a code tells the outcome; it is 2, 3, 4 or 5.",
        "a code between 200 and 599", _range,
    ),
    _invariant(
        "R03", "multiline-code", "RFC 5321 §4.2.1", "All lines of one reply begin with the same code.",
        "one code a reply", _one_code,
    ),
    _invariant(
        "R04", "unlisted-code", "RFC 5321 §4.2", "A server sends the codes that the RFCs list, and no others.",
        "a code with a meaning", _listed, severity=r.ADVICE,
    ),
    _invariant(
        "R05", "reply-crlf", "RFC 5321 §2.3.8", "A line ends in CRLF; CR and LF stand nowhere else in it.",
        "CRLF at the end of each line", _crlf,
    ),
    _invariant(
        "R06", "reply-512", "RFC 5321 §4.5.3.1.5", "A reply line, its code and CRLF included, is 512 octets at most.",
        "lines up to 512 octets, whatever was sent", _length, probe=_echoes,
    ),
    _invariant(
        "R07", "reply-ascii", "RFC 5321 §4.2", "The text of a reply is printable ASCII, spaces and tabs.",
        "no octet of an odd command in the reply", _ascii, probe=_odd_octets,
    ),
    Rule(
        "R08", "one-reply", "RFC 5321 §4.2", r.VIOLATION, "Each command gets exactly one reply.", "one reply each",
        probe=_barriers, evaluate=_each_once,
    ),
    _invariant(
        "R09", "greeting", "RFC 5321 §4.2", "The text of a 220 greeting begins with the server's domain or address literal.",
        "220 and a domain", _greeting, probe=_turn_away,
    ),
    Rule(
        "R10", "helo-plain", "RFC 5321 §4.1.1.1", r.VIOLATION,
        "The reply to HELO lists no extensions: who says HELO wants none.",
        "250 and the server's domain", needs=("smtp",), probe=_helo, evaluate=_plain_helo,
    ),
    _invariant(
        "R11", "ehlo-grammar", "RFC 5321 §4.1.1.1",
        "The reply to EHLO is the server's domain, then a line for each extension: a keyword of letters, digits and "
        "hyphens, "
        "and parameters with one space before each.",
        "a domain, then keywords", _ehlo, probe=_hellos,
    ),
    _invariant(
        "R14", "enhanced-code", "RFC 2034 §4",
        "Who offers ENHANCEDSTATUSCODES puts an enhanced code, of the class of the code before it, into every 2yz, 4yz "
        "and 5yz "
        "reply but the greeting and those to EHLO and HELO.",
        "an enhanced code of the same class", _enhanced, needs=("ENHANCEDSTATUSCODES",),
    ),
    _invariant(
        "R15", "enhanced-multiline", "RFC 2034 §4", "Every line of one reply has the same enhanced code.",
        "one enhanced code a reply", _enhanced_lines, needs=("ENHANCEDSTATUSCODES",),
    ),
    Rule(
        "R36", "greet-554", "RFC 5321 §3.1", r.VIOLATION,
        "A server that greets with 554 stays, and answers 503 to all but QUIT, until the client has said QUIT.",
        "the connection stays open until QUIT", probe=_turn_away, evaluate=_waits_for_quit, allows_refused_greeting=True,
    ),
    _invariant(
        "R69", "utf8-reply", "RFC 6531 §3.7.4.2",
        "A reply to VRFY or EXPN holds octets beyond ASCII only where the command asked for SMTPUTF8.",
        "a reply in ASCII", _names_ascii, probe=_odd_names, needs=("SMTPUTF8",),
    ),
)  # fmt: skip
