"""AUTH: RFC 4954. When it may be said, what is no exchange, and that nobody gets in who may not."""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import (
    accepted,
    hello,
    line,
    login,
    mail,
    mechanism_of,
    opening,
    raw,
    said_of,
    script,
    starttls,
)
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import Script, Step
from smtpbench.smtp.sasl import encode_line


def _where_offered(target_info: TargetInfo) -> tuple[Step, ...]:
    """EHLO where AUTH is offered: inside TLS if it is offered only there."""
    if target_info.implicit_tls or (not target_info.tls and "AUTH" in target_info.keywords_before_tls):
        return (hello(target_info),)
    return (hello(target_info), starttls(), hello(target_info))


def _logged_in(target_info: TargetInfo) -> tuple[Step, ...]:
    return (*_where_offered(target_info), login(mechanism_of(target_info)))


def _auths(dialogue: Dialogue) -> list[Exchange]:
    return [exchange for exchange in dialogue.exchanges if exchange.sent.startswith(b"AUTH")]


_TEMPORARY = (421, 430, 432, 450, 451, 454)


def _out_of_order(target_info: TargetInfo) -> Sequence[Script]:
    text = f"AUTH {mechanism_of(target_info)}"
    in_mail = (
        (*_where_offered(target_info), mail(target_info))
        if not target_info.login
        else (*opening(target_info), mail(target_info))
    )
    scripts = [script(target_info, *in_mail, line(text), listen=False)]
    if target_info.credentials:
        scripts.append(script(target_info, *_logged_in(target_info), line(text), listen=False))
    return scripts


def _refused_with_503(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    in_mail = _auths(dialogues[0])[-1:]
    trouble = ""
    if not accepted(dialogues[0].exchange_of(b"MAIL")) or not in_mail:
        trouble = f"MAIL was not taken: {said_of(dialogues[0].exchange_of(b'MAIL'))}"
    elif in_mail[0].code != 503 and in_mail[0].code not in _TEMPORARY:
        return r.violated(f"AUTH in a mail transaction was {said_of(in_mail[0])}")
    for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
        codes = [one.reply.code for one in dialogue.replies()]
        again = _auths(dialogue)[-1]
        if 235 not in codes:
            trouble = "the login was refused"
        elif again.code != 503 and again.code not in _TEMPORARY:
            return r.violated(f"AUTH after a login was {said_of(again)}", dialogue_index)
    return r.inconclusive(trouble) if trouble else r.PASSED


def _odd_responses(target_info: TargetInfo) -> Sequence[Script]:
    mechanism = mechanism_of(target_info)
    begin = _where_offered(target_info)
    scripts = [
        script(target_info, *begin, line(f"AUTH {mechanism}"), raw(octets))
        for octets in (b"*\r\n", b"!no base64!\r\n", b"YQ=Y\r\n")
    ]
    if mechanism == "PLAIN":
        scripts.append(script(target_info, *begin, line("AUTH PLAIN !no-base64!")))
    return scripts


_RESPONSES = ("*", "what is no base64", "base64 with = inside it", "an initial response that is no base64")


def _refused_with_501(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        at = next(at for at, exchange in enumerate(dialogue.exchanges) if exchange.sent.startswith(b"AUTH"))
        exchange = dialogue.exchanges[at]
        if dialogue_index < 3:
            if exchange.code != 334 or at + 1 >= len(dialogue.exchanges):
                return r.inconclusive(f"AUTH was {said_of(exchange)}", dialogue_index)
            exchange = dialogue.exchanges[at + 1]
        if exchange.code != 501 and exchange.code not in _TEMPORARY and exchange.codes:
            return r.violated(f"{_RESPONSES[dialogue_index]} was {said_of(exchange)}", dialogue_index)
    return r.PASSED


def _mechanisms(target_info: TargetInfo) -> Sequence[Script]:
    scripts = [script(target_info, *_where_offered(target_info), line("AUTH X-NO-SUCH"))]
    if "PLAIN" in target_info.login_keywords.upper().split():
        scripts.append(script(target_info, *_where_offered(target_info), line("AUTH PLAIN"), line("*")))
    return scripts


def _mechanism_told(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = _auths(dialogues[0])[-1]
    if exchange.codes and exchange.code not in (504, *_TEMPORARY):
        return r.violated(f"AUTH with an unknown mechanism was {said_of(exchange)}")
    for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
        challenge = _auths(dialogue)[-1].first
        if challenge is not None and challenge.raw == b"334\r\n":
            return r.violated("an empty challenge was written as 334 without the space", dialogue_index)
    return r.PASSED


# -- who gets in ------------------------------------------------------------------------------------------------------

#: Users that nobody made, and passwords that careless code takes for theirs: names that every object of a language has, with
#: what such an object looks like as text; nothing at all; words for nothing.
_STRANGERS = (
    ("nobody-here", "wrong"), ("nobody-here", ""), ("", ""), ("nobody-here", "undefined"), ("nobody-here", "null"),
    ("constructor", "function Object() { [native code] }"), ("toString", "function toString() { [native code] }"),
    ("hasOwnProperty", "function hasOwnProperty() { [native code] }"), ("__proto__", "[object Object]"),
    ("constructor", ""), ("__proto__", "undefined"), ("' OR '1'='1", "' OR '1'='1"), ("*", "*"), ("x" * 2000, "x" * 2000),
)  # fmt: skip
_SPEAKABLE = ("PLAIN", "LOGIN", "CRAM-MD5")
#: Responses of PLAIN that are not three parts.
_SHAPES = (b"", b"\0", b"\0\0", b"\0\0\0", b"\0nobody-here", b"nobody-here\0\0", b"\0nobody-here\0\0wrong")


def _strangers(target_info: TargetInfo) -> Sequence[Script]:
    begin = _where_offered(target_info)
    offered = target_info.login_keywords.upper().split()
    scripts = [
        script(target_info, *begin, login(mechanism, stranger), mail(target_info))
        for mechanism in _SPEAKABLE if mechanism in offered for stranger in _STRANGERS
    ]  # fmt: skip
    if "PLAIN" in offered:
        scripts += [
            script(target_info, *begin, line(b"AUTH PLAIN " + (encode_line(octets) or b"=")), mail(target_info))
            for octets in _SHAPES
        ]
    return scripts


def _nobody_gets_in(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if any(one.reply.code == 235 for one in dialogue.replies()):
            mechanism = _auths(dialogue)[0].sent.split()[1].decode("latin-1")
            at = dialogue_index % len(_STRANGERS) if dialogue_index < len(dialogues) - len(_SHAPES) else -1
            who = f"{_STRANGERS[at][0][:20]!r}, whom nobody made," if at >= 0 else "a response without a user"
            return r.violated(f"{who} was logged in with {mechanism}", dialogue_index)
    tried = any(_auths(dialogue) and _auths(dialogue)[0].codes for dialogue in dialogues)
    return r.PASSED if tried else r.inconclusive("no mechanism is offered that can be spoken here")


RULES = (
    Rule(
        "R75", "auth-order", "RFC 4954 §4", r.VIOLATION,
        "AUTH is refused in a mail transaction, and once somebody is logged in.",
        "503", needs=("auth",), probe=_out_of_order, evaluate=_refused_with_503,
    ),
    Rule(
        "R76", "auth-input", "RFC 4954 §4", r.VIOLATION,
        "An exchange that is cancelled with *, or goes on with what is no base64, ends.",
        "501", needs=("auth",), probe=_odd_responses, evaluate=_refused_with_501,
    ),
    Rule(
        "R77", "auth-mechanism", "RFC 4954 §4", r.VIOLATION,
        "A mechanism that is not known is refused as such; an empty challenge is 334, a space and nothing.",
        "504; 334 and a space", needs=("auth",), probe=_mechanisms, evaluate=_mechanism_told,
    ),
    Rule(
        "R83", "auth-bypass", "RFC 4954 §6", r.SECURITY, "Nobody is logged in who is not known or has the wrong password.",
        "535 to strangers", needs=("auth",), probe=_strangers, evaluate=_nobody_gets_in,
    ),
)  # fmt: skip
