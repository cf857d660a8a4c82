"""STARTTLS: RFC 3207. What was said in the clear, by anybody, is gone once TLS has begun.

Whoever sits between a client and its server can add octets to the clear part of the session, and cannot change the part
inside TLS. So a server that takes octets from behind STARTTLS with it into TLS lets a stranger speak in the client's name.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import accepted, hello, line, mail, pause, rcpt, said_of, script, starttls
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import Script

_WAIT_MS = 300
_MANY = 300
_INJECTED = (b"NOOP\r\n", b"NOOP\r\n" * _MANY, b"EHLO stranger.example\r\n", b"\r\n")
_UNFINISHED = (b"NOOP ", b"XYZZY ", b"NOOP\r\n" * _MANY + b"XYZZY ")


def _inside(dialogue: Dialogue) -> bool:
    """Whether the handshake was done."""
    return any(exchange.tls for exchange in dialogue.exchanges) or any(one.tls for one in dialogue.replies())


def _injections(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(
            target_info,
            hello(target_info),
            starttls(b"STARTTLS\r\n" + octets),
            pause(_WAIT_MS),
            hello(target_info),
            line("NOOP"),
        )
        for octets in _INJECTED
    ]


def _nothing_injected(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        early = [one for exchange in dialogue.exchanges if not exchange.tls for one in exchange.replies if one.tls]
        if early:
            return r.violated(f"{len(early)} replies came inside TLS before anything was said there", dialogue_index)
        late = next(
            (
                exchange
                for exchange in dialogue.exchanges
                if exchange.tls and len(exchange.replies) > 1 and 421 not in exchange.codes
            ),
            None,
        )
        if late is not None:
            return r.violated(f"{len(late.replies)} replies came inside TLS where one was due", dialogue_index)
    return r.PASSED if any(map(_inside, dialogues)) else _no_handshake(dialogues[0])


def _no_handshake(dialogue: Dialogue) -> Verdict:
    """It hung up on what was behind STARTTLS, which it may; or TLS could not be had at all."""
    exchange = dialogue.exchange_of(b"STARTTLS")
    if (
        dialogue.end_reason == api.TLS_FAILED
        or (exchange is not None and exchange.code // 100 in (4, 5))
        or dialogue.closed_by_server
    ):
        return r.PASSED
    return r.inconclusive(f"STARTTLS was {said_of(exchange)}, and no handshake followed ({dialogue.end_reason})")


def _halves(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(
            target_info,
            hello(target_info),
            starttls(b"STARTTLS\r\n" + octets),
            pause(_WAIT_MS),
            hello(target_info),
            line("NOOP"),
        )
        for octets in _UNFINISHED
    ]


def _nothing_joined(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        greeted = next(
            (exchange for exchange in dialogue.exchanges if exchange.tls and exchange.sent[:4] in (b"EHLO", b"LHLO")), None
        )
        if greeted is None or not greeted.codes or greeted.code in (421, 454):
            continue
        plain = greeted.first is not None and len(greeted.first.lines) == 1 and bool(target_info.keywords_in_tls)
        if greeted.code != 250 or plain:
            return r.violated(
                f"an unfinished line from before TLS was put before EHLO, which was {said_of(greeted)}", dialogue_index
            )
    return r.PASSED if any(map(_inside, dialogues)) else _no_handshake(dialogues[0])


def _forgotten(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, mail(target_info)),
        script(target_info, hello(target_info), starttls(), mail(target_info)),
        script(target_info, hello(target_info), mail(target_info), starttls(), rcpt(target_info)),
    ]


def _all_forgotten(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    before, after = dialogues[0].exchange_of(b"MAIL"), dialogues[1].exchange_of(b"MAIL")
    if accepted(dialogues[2].exchange_of(b"RCPT")) and _in_tls(dialogues[2].exchange_of(b"RCPT")):
        return r.violated("RCPT was taken inside TLS, for a MAIL from before it", 2)
    if before is not None and before.code == 503 and _in_tls(after):
        return r.passed_unless(
            accepted(after), "MAIL was taken inside TLS without an EHLO there, and without TLS only after EHLO", 1
        )
    if not any(map(_inside, dialogues)):
        return _unclear_handshake(dialogues[1])
    return r.PASSED if accepted(before) else r.inconclusive(f"MAIL before EHLO was {said_of(before)}, not answered 503")


def _unclear_handshake(dialogue: Dialogue) -> Verdict:
    return r.inconclusive(
        f"no TLS was to be had: STARTTLS was {said_of(dialogue.exchange_of(b'STARTTLS'))} ({dialogue.end_reason})"
    )


def _in_tls(exchange: Exchange | None) -> bool:
    return exchange is not None and exchange.tls


def _twice(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, hello(target_info), starttls(), hello(target_info))]


def _not_again(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = next((exchange for exchange in dialogues[0].exchanges if exchange.tls and exchange.code == 250), None)
    if exchange is None or exchange.first is None:
        return _unclear_handshake(dialogues[0])
    words = {text.split(b" ")[0].upper() for text in exchange.first.lines[1:]}
    return r.passed_unless(b"STARTTLS" in words, "STARTTLS is offered inside TLS")


def _with_argument(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, hello(target_info), line("STARTTLS now"), listen=False)]


def _argument_refused(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"STARTTLS")
    return r.passed_unless(accepted(exchange), "STARTTLS with an argument was answered 220")


RULES = (
    Rule(
        "R70", "tls-inject", "RFC 3207 §4.2", r.SECURITY,
        "Commands that came in the clear behind STARTTLS are never carried out inside TLS.",
        "no reply inside TLS before a command there, or the end of the connection",
        needs=("starttls",), probe=_injections, evaluate=_nothing_injected,
    ),
    Rule(
        "R71", "tls-partial", "RFC 3207 §4.2", r.SECURITY,
        "An unfinished line that came in the clear behind STARTTLS does not become the beginning of the first command "
        "inside TLS.",
        "the first EHLO inside TLS is answered as ever, or the connection ends",
        needs=("starttls",), probe=_halves, evaluate=_nothing_joined,
    ),
    Rule(
        "R72", "tls-reset", "RFC 3207 §4.2", r.VIOLATION,
        "TLS begins a new session: EHLO and the envelope from before it are forgotten.",
        "503 to MAIL and RCPT", needs=("starttls", "recipient"), probe=_forgotten, evaluate=_all_forgotten,
    ),
    Rule(
        "R73", "tls-readvertise", "RFC 3207 §4.2", r.VIOLATION, "Inside TLS, STARTTLS is not offered.",
        "EHLO without STARTTLS",
        needs=("starttls",), probe=_twice, evaluate=_not_again,
    ),
    Rule(
        "R74", "tls-syntax", "RFC 3207 §4", r.VIOLATION, "STARTTLS has no argument.", "501",
        needs=("starttls",), probe=_with_argument, evaluate=_argument_refused,
    ),
)  # fmt: skip
