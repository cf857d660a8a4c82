"""What replies look like: RFC 5321 §4.2, §4.1.1.1 and §4.5.3.1.5, RFC 2034 §4.

Nearly all of these are invariants: they read every dialogue that anybody spoke. Probes only provoke the replies that are
worth a look: echoes of what is long or odd, refusals, lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from smtpbench.rules import rule as r
from smtpbench.rules.lines import LISTEN, accepted, hello, line, opening, pause, said_of, script
from smtpbench.rules.offer import Offer
from smtpbench.rules.rule import Judgement, Rule
from smtpbench.session.dialogue import Dialogue, Heard, Turn
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


def _lines(heard: Heard) -> list[bytes]:
    """Its lines without LF; a CR at the end stays."""
    return heard.reply.raw.split(b"\n")[:-1]


@lru_cache(maxsize=4096)
def _spotless(raw: bytes) -> bool:
    """Whether nothing that is judged of a line by itself can be wrong with this reply: nearly all are like that."""
    return _FINE.fullmatch(raw) is not None and max(map(len, raw.split(b"\n"))) < REPLY_LINE_BYTES


def _all_lines(dialogue: Dialogue) -> Iterator[tuple[Turn, bytes]]:
    """The lines of the replies that are worth a look."""
    for turn in dialogue.turns:
        for heard in turn.heard:
            if not _spotless(heard.reply.raw):
                for text in _lines(heard):
                    yield turn, text


def _after(turn: Turn) -> str:
    """Which reply is meant, for `actual`."""
    return f"after {verb_of(turn.said) or 'what was sent'}" if turn.said else "in the greeting"


def _syntax(offer: Offer, dialogue: Dialogue) -> str:
    for turn, text in _all_lines(dialogue):
        match = _CODE.match(text.removesuffix(b"\r"))
        if match is None:
            return f"a reply line {_after(turn)} begins without a code and a space or hyphen"
        if match[1][1:2] > b"5" and match[1][:1] in b"2345":
            return f"the second digit of the code {match[1].decode()} {_after(turn)} is above 5"
    return ""


def _range(offer: Offer, dialogue: Dialogue) -> str:
    for turn, text in _all_lines(dialogue):
        match = _CODE.match(text.removesuffix(b"\r"))
        if match is not None and match[1][:1] not in b"2345":
            return f"the code {match[1].decode()} {_after(turn)} begins with {match[1][:1].decode()}"
    return ""


def _one_code(offer: Offer, dialogue: Dialogue) -> str:
    for turn in dialogue.turns:
        for heard in turn.heard:
            codes = [text[:3].decode("latin-1") for text in _lines(heard)]
            if len(codes) > 1 and len(set(codes)) > 1:
                return f"the lines of one reply {_after(turn)} have different codes"
    return ""


def _listed(offer: Offer, dialogue: Dialogue) -> str:
    for turn in dialogue.turns:
        for code in turn.codes:
            if 200 <= code < 560 and code not in _LISTED:
                return f"the code {code} {_after(turn)} has no meaning in any RFC"
    return ""


def _crlf(offer: Offer, dialogue: Dialogue) -> str:
    for turn, text in _all_lines(dialogue):
        if not text.endswith(b"\r"):
            return f"a reply line {_after(turn)} ends in a bare LF"
        if b"\r" in text[:-1]:
            return f"a reply line {_after(turn)} holds a bare CR"
    return ""


def _length(offer: Offer, dialogue: Dialogue) -> str:
    for turn, text in _all_lines(dialogue):
        if len(text) + 1 > REPLY_LINE_BYTES:
            return f"a reply line {_after(turn)} is {len(text) + 1} octets long"
    return ""


def _utf8_wanted(turn: Turn) -> bool:
    return b"SMTPUTF8" in turn.said.upper()


def _asks_for_names(turn: Turn) -> bool:
    return turn.said[:5].upper() in (b"VRFY ", b"EXPN ")


def _ascii(offer: Offer, dialogue: Dialogue) -> str:
    if any(map(_utf8_wanted, dialogue.turns)):
        return ""
    for turn, text in _all_lines(dialogue):
        if _asks_for_names(turn) and "SMTPUTF8" in offer.extensions:
            continue  # RFC 6531 says it again for these
        if any(octet > 126 or (octet < 32 and octet != 9) for octet in text.replace(b"\r", b"")):
            return f"a reply {_after(turn)} holds octets that are not printable ASCII"
    return ""


def _names_ascii(offer: Offer, dialogue: Dialogue) -> str:
    for turn in dialogue.turns:
        foreign = any(not heard.reply.raw.isascii() for heard in turn.heard)
        if foreign and _asks_for_names(turn) and not _utf8_wanted(turn):
            return f"a reply {_after(turn)} holds octets beyond ASCII, and SMTPUTF8 was not asked for"
    return ""


def _greeting(offer: Offer, dialogue: Dialogue) -> str:
    banner = dialogue.banner
    if banner is None or banner.code != 220:
        return ""
    words = banner.lines[0].split()
    if not words or isinstance(parse_hello("EHLO", words[0]), Refusal):
        return "the greeting does not begin with the server's domain"
    return ""


def _ehlo(offer: Offer, dialogue: Dialogue) -> str:
    for turn in dialogue.turns:
        if turn.said[:5].upper() not in (b"EHLO ", b"LHLO ") or turn.first is None or turn.code != 250:
            continue
        name, *rest = turn.first.lines
        if isinstance(parse_hello("EHLO", name.split(b" ")[0]), Refusal):
            return "the reply to EHLO does not begin with the server's domain"
        for text in rest:
            if not _KEYWORD_LINE.fullmatch(text):
                return "a line of the reply to EHLO is no keyword with parameters"
    return ""


def _enhanced_due(dialogue: Dialogue) -> Iterator[tuple[Turn, Heard]]:
    """The replies that owe an enhanced code: 2yz, 4yz and 5yz after EHLO, but for those to EHLO and HELO."""
    greeted, said = False, b""
    for turn in dialogue.turns:
        # a line may have been said in several writes
        said = turn.said.upper() if said.endswith(b"\n") else said + turn.said.upper()
        if b"EHLO" in said or b"HELO" in said or b"LHLO" in said:
            greeted = greeted or accepted(turn)
        elif greeted and not any(heard.tls != turn.tls for heard in turn.heard):
            yield from ((turn, heard) for heard in turn.heard if heard.reply.code // 100 in (2, 4, 5))


def _enhanced(offer: Offer, dialogue: Dialogue) -> str:
    if "ENHANCEDSTATUSCODES" not in offer.extensions:
        return ""
    for turn, heard in _enhanced_due(dialogue):
        code = heard.reply.code
        if not heard.reply.enhanced:
            return f"the reply {code} {_after(turn)} has no enhanced code"
        if heard.reply.enhanced[0] != str(code)[0]:
            return f"the enhanced code {heard.reply.enhanced} {_after(turn)} is of another class than {code}"
    return ""


def _enhanced_lines(offer: Offer, dialogue: Dialogue) -> str:
    for turn, heard in _enhanced_due(dialogue):
        texts = [enhanced_code(text) for text in _lines(heard)]
        if texts and texts[0] and len(set(texts)) > 1:
            return f"the lines of the reply {heard.reply.code} {_after(turn)} have different enhanced codes, or none"
    return ""


# -- what provokes replies worth a look ----------------------------------------------------------------------------


def _echoes(offer: Offer) -> Sequence[Script]:
    long = b"x" * 490
    names = b".".join([b"x" * 60] * 4)
    texts = (b"VRFY " + long, b"X" * 500, b"NOOP " + long, b"MAIL FROM:<a@" + names + b">", b"EHLO " + names)
    return [script(offer, *opening(offer), line(text)) for text in texts]


def _odd_octets(offer: Offer) -> Sequence[Script]:
    texts = (b"\xdcberall", b"NOOP \xc3\xbc\xff", b"MAIL FROM:<\xc3\xbc@\xff.example>", b"HELP \x1b[2J\x07")
    return [script(offer, *opening(offer), line(text)) for text in texts]


def _odd_names(offer: Offer) -> Sequence[Script]:
    return [script(offer, *opening(offer), line(text)) for text in ("VRFY j\u00fcrgen", "EXPN li\u00dfte")]


def _hellos(offer: Offer) -> Sequence[Script]:
    return [script(offer, hello(offer)), script(offer, line("EHLO [127.0.0.1]") if not offer.lmtp else hello(offer))]


def _lists(offer: Offer) -> Sequence[Script]:
    texts = ("HELP", "HELP MAIL", "VRFY postmaster", "EXPN staff", "XYZZY", "NOOP", "RSET", "MAIL FROM:<", "RCPT TO:<")
    return [script(offer, *opening(offer), *map(line, texts))]


def _helo(offer: Offer) -> Sequence[Script]:
    return [script(offer, line(f"HELO {offer.client}"))]


def _plain_helo(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turn = dialogues[0].after(b"HELO")
    if turn is None or turn.first is None or turn.code != 250:
        return r.unclear(f"HELO was not taken: {said_of(turn)}")
    words = {text.split(b" ")[0].decode("latin-1").upper() for text in turn.first.lines[1:]}
    return r.held_unless(bool(words & offer.clear.keys() | words & offer.inside.keys()), "HELO was answered with extensions")


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


def _barriers(offer: Offer) -> Sequence[Script]:
    steps = [step for text in _ONE_EACH for step in (line(text), pause(_BARRIER_MS), line("NOOP"))]
    return [script(offer, *opening(offer), *steps, line("RSET"), LISTEN)]


def _each_once(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for turn in dialogues[0].turns[1:]:
        if 421 in turn.codes:
            break
        if len(turn.heard) != 1 and not (not turn.heard and dialogues[0].hung_up):
            said = turn.said.split(b"\r\n")[0].decode("latin-1")
            return r.broken(f"{said} got {len(turn.heard) or 'no'} replies" if turn.heard else f"{said} got no reply")
    return r.HELD


def _turn_away(offer: Offer) -> Sequence[Script]:
    return [script(offer, hello(offer))]


def _waits_for_quit(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    banner = dialogues[0].turns[0].code
    if banner != 554:
        return r.unclear(f"it greets with {banner}, not with 554")
    return r.held_unless(dialogues[0].hung_up, "it closed after its 554 without waiting for QUIT")


def _invariant(
    id_: str, name: str, section: str, requirement: str, expected: str, invariant: r.Invariant, *,
    probe: r.Probe = _lists, severity: str = r.VIOLATION, needs: tuple[str, ...] = (),
) -> Rule:  # fmt: skip
    return Rule(id_, name, section, severity, requirement, expected, needs, probe, r.provoked, invariant, by_turn=True)


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
        probe=_barriers, judge=_each_once,
    ),
    _invariant(
        "R09", "greeting", "RFC 5321 §4.2", "The text of a 220 greeting begins with the server's domain or address literal.",
        "220 and a domain", _greeting, probe=_turn_away,
    ),
    Rule(
        "R10", "helo-plain", "RFC 5321 §4.1.1.1", r.VIOLATION,
        "The reply to HELO lists no extensions: who says HELO wants none.",
        "250 and the server's domain", needs=("smtp",), probe=_helo, judge=_plain_helo,
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
        "the connection stays open until QUIT", probe=_turn_away, judge=_waits_for_quit, turned_away=True,
    ),
    _invariant(
        "R69", "utf8-reply", "RFC 6531 §3.7.4.2",
        "A reply to VRFY or EXPN holds octets beyond ASCII only where the command asked for SMTPUTF8.",
        "a reply in ASCII", _names_ascii, probe=_odd_names, needs=("SMTPUTF8",),
    ),
)  # fmt: skip
