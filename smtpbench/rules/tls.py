"""STARTTLS: RFC 3207. What was said in the clear, by anybody, is gone once TLS has begun.

Whoever sits between a client and its server can add octets to the clear part of the session, and cannot change the part
inside TLS. So a server that takes octets from behind STARTTLS with it into TLS lets a stranger speak in the client's name.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.lines import accepted, hello, line, mail, pause, rcpt, said_of, script, starttls
from smtpbench.rules.offer import Offer
from smtpbench.rules.rule import Judgement, Rule
from smtpbench.session.dialogue import Dialogue, Turn
from smtpbench.session.script import Script

_WAIT_MS = 300
_MANY = 300
_INJECTED = (b"NOOP\r\n", b"NOOP\r\n" * _MANY, b"EHLO stranger.example\r\n", b"\r\n")
_UNFINISHED = (b"NOOP ", b"XYZZY ", b"NOOP\r\n" * _MANY + b"XYZZY ")


def _inside(dialogue: Dialogue) -> bool:
    """Whether the handshake was done."""
    return any(turn.tls for turn in dialogue.turns) or any(one.tls for one in dialogue.replies())


def _injections(offer: Offer) -> Sequence[Script]:
    return [
        script(offer, hello(offer), starttls(b"STARTTLS\r\n" + octets), pause(_WAIT_MS), hello(offer), line("NOOP"))
        for octets in _INJECTED
    ]


def _nothing_injected(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        early = [one for turn in dialogue.turns if not turn.tls for one in turn.heard if one.tls]
        if early:
            return r.broken(f"{len(early)} replies came inside TLS before anything was said there", take)
        late = next((turn for turn in dialogue.turns if turn.tls and len(turn.heard) > 1 and 421 not in turn.codes), None)
        if late is not None:
            return r.broken(f"{len(late.heard)} replies came inside TLS where one was due", take)
    return r.HELD if any(map(_inside, dialogues)) else _no_handshake(dialogues[0])


def _no_handshake(dialogue: Dialogue) -> Judgement:
    """It hung up on what was behind STARTTLS, which it may; or TLS could not be had at all."""
    turn = dialogue.after(b"STARTTLS")
    if dialogue.fate == api.TLS_FAILED or (turn is not None and turn.code // 100 in (4, 5)) or dialogue.closed_by_server:
        return r.HELD
    return r.unclear(f"STARTTLS was {said_of(turn)}, and no handshake followed ({dialogue.fate})")


def _halves(offer: Offer) -> Sequence[Script]:
    return [
        script(offer, hello(offer), starttls(b"STARTTLS\r\n" + octets), pause(_WAIT_MS), hello(offer), line("NOOP"))
        for octets in _UNFINISHED
    ]


def _nothing_joined(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        greeted = next((turn for turn in dialogue.turns if turn.tls and turn.said[:4] in (b"EHLO", b"LHLO")), None)
        if greeted is None or not greeted.codes or greeted.code in (421, 454):
            continue
        plain = greeted.first is not None and len(greeted.first.lines) == 1 and bool(offer.inside)
        if greeted.code != 250 or plain:
            return r.broken(f"an unfinished line from before TLS was put before EHLO, which was {said_of(greeted)}", take)
    return r.HELD if any(map(_inside, dialogues)) else _no_handshake(dialogues[0])


def _forgotten(offer: Offer) -> Sequence[Script]:
    return [
        script(offer, mail(offer)),
        script(offer, hello(offer), starttls(), mail(offer)),
        script(offer, hello(offer), mail(offer), starttls(), rcpt(offer)),
    ]


def _all_forgotten(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    before, after = dialogues[0].after(b"MAIL"), dialogues[1].after(b"MAIL")
    if accepted(dialogues[2].after(b"RCPT")) and _in_tls(dialogues[2].after(b"RCPT")):
        return r.broken("RCPT was taken inside TLS, for a MAIL from before it", 2)
    if before is not None and before.code == 503 and _in_tls(after):
        return r.held_unless(
            accepted(after), "MAIL was taken inside TLS without an EHLO there, and without TLS only after EHLO", 1
        )
    if not any(map(_inside, dialogues)):
        return _unclear_handshake(dialogues[1])
    return r.HELD if accepted(before) else r.unclear(f"MAIL before EHLO was {said_of(before)}, not answered 503")


def _unclear_handshake(dialogue: Dialogue) -> Judgement:
    return r.unclear(f"no TLS was to be had: STARTTLS was {said_of(dialogue.after(b'STARTTLS'))} ({dialogue.fate})")


def _in_tls(turn: Turn | None) -> bool:
    return turn is not None and turn.tls


def _twice(offer: Offer) -> Sequence[Script]:
    return [script(offer, hello(offer), starttls(), hello(offer))]


def _not_again(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turn = next((turn for turn in dialogues[0].turns if turn.tls and turn.code == 250), None)
    if turn is None or turn.first is None:
        return _unclear_handshake(dialogues[0])
    words = {text.split(b" ")[0].upper() for text in turn.first.lines[1:]}
    return r.held_unless(b"STARTTLS" in words, "STARTTLS is offered inside TLS")


def _with_argument(offer: Offer) -> Sequence[Script]:
    return [script(offer, hello(offer), line("STARTTLS now"), listen=False)]


def _argument_refused(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turn = dialogues[0].after(b"STARTTLS")
    return r.held_unless(accepted(turn), "STARTTLS with an argument was answered 220")


RULES = (
    Rule(
        "R70", "tls-inject", "RFC 3207 §4.2", r.SECURITY,
        "Commands that came in the clear behind STARTTLS are never carried out inside TLS.",
        "no reply inside TLS before a command there, or the end of the connection",
        needs=("starttls",), probe=_injections, judge=_nothing_injected,
    ),
    Rule(
        "R71", "tls-partial", "RFC 3207 §4.2", r.SECURITY,
        "An unfinished line that came in the clear behind STARTTLS does not become the beginning of the first command "
        "inside TLS.",
        "the first EHLO inside TLS is answered as ever, or the connection ends",
        needs=("starttls",), probe=_halves, judge=_nothing_joined,
    ),
    Rule(
        "R72", "tls-reset", "RFC 3207 §4.2", r.VIOLATION,
        "TLS begins a new session: EHLO and the envelope from before it are forgotten.",
        "503 to MAIL and RCPT", needs=("starttls", "recipient"), probe=_forgotten, judge=_all_forgotten,
    ),
    Rule(
        "R73", "tls-readvertise", "RFC 3207 §4.2", r.VIOLATION, "Inside TLS, STARTTLS is not offered.",
        "EHLO without STARTTLS",
        needs=("starttls",), probe=_twice, judge=_not_again,
    ),
    Rule(
        "R74", "tls-syntax", "RFC 3207 §4", r.VIOLATION, "STARTTLS has no argument.", "501",
        needs=("starttls",), probe=_with_argument, judge=_argument_refused,
    ),
)  # fmt: skip
