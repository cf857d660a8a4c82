"""AUTH: RFC 4954. When AUTH is allowed, malformed exchanges, and logins that must be rejected."""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import (
    accepted,
    before_auth,
    line,
    login,
    mail,
    mechanism_of,
    opening,
    raw,
    reply_text,
    script,
)
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import Script, Step
from smtpbench.smtp.sasl import encode_line


def _login_steps(target_info: TargetInfo) -> tuple[Step, ...]:
    return (*before_auth(target_info), login(mechanism_of(target_info)))


def _auth_exchanges(dialogue: Dialogue) -> list[Exchange]:
    return [exchange for exchange in dialogue.exchanges if exchange.sent.startswith(b"AUTH")]


#: Refusals that have other reasons than the rules here: temporary ones, and those of a server that wants TLS, another
#: mechanism or another password first (RFC 4954 §6).
_OTHER_REASONS = (421, 430, 432, 450, 451, 454, 524, 530, 534, 538)


def _out_of_order_scripts(target_info: TargetInfo) -> Sequence[Script]:
    text = f"AUTH {mechanism_of(target_info)}"
    in_mail = (
        (*before_auth(target_info), mail(target_info))
        if not target_info.login
        else (*opening(target_info), mail(target_info))
    )
    scripts = [script(target_info, *in_mail, line(text), quiet_period=False)]
    if target_info.credentials:
        scripts.append(script(target_info, *_login_steps(target_info), line(text), quiet_period=False))
    return scripts


def _evaluate_out_of_order(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    in_mail = _auth_exchanges(dialogues[0])[-1:]
    reason = ""
    if not accepted(dialogues[0].exchange_of(b"MAIL")) or not in_mail:
        reason = reply_text("MAIL", dialogues[0].exchange_of(b"MAIL"))
    elif in_mail[0].code in _OTHER_REASONS or not in_mail[0].codes:
        reason = reply_text("AUTH in a mail transaction", in_mail[0])
    elif in_mail[0].code != 503:
        return r.violated(reply_text("AUTH in a mail transaction", in_mail[0]))
    for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
        codes = [received.reply.code for received in dialogue.replies()]
        again = _auth_exchanges(dialogue)[-1]
        if 235 not in codes:
            reason = reason or "the server rejected the credentials"
        elif again.code in _OTHER_REASONS or not again.codes:
            reason = reason or reply_text("AUTH after a login", again)
        elif again.code != 503:
            return r.violated(reply_text("AUTH after a login", again), dialogue_index)
    return r.inconclusive(reason) if reason else r.PASSED


def _malformed_response_scripts(target_info: TargetInfo) -> Sequence[Script]:
    mechanism = mechanism_of(target_info)
    begin = before_auth(target_info)
    scripts = [
        script(target_info, *begin, line(f"AUTH {mechanism}"), raw(octets))
        for octets in (b"*\r\n", b"!no base64!\r\n", b"YQ=Y\r\n")
    ]
    if mechanism == "PLAIN":
        scripts.append(script(target_info, *begin, line("AUTH PLAIN !no-base64!")))
    return scripts


_RESPONSES = (
    "a cancelled exchange (*)", "a response that is not base64", "base64 with = inside it",
    "an initial response that is not base64",
)  # fmt: skip


def _evaluate_malformed_responses(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        at = next(at for at, exchange in enumerate(dialogue.exchanges) if exchange.sent.startswith(b"AUTH"))
        exchange = dialogue.exchanges[at]
        if dialogue_index < 3:
            if exchange.code != 334 or at + 1 >= len(dialogue.exchanges):
                return r.inconclusive(reply_text("AUTH", exchange), dialogue_index)
            exchange = dialogue.exchanges[at + 1]
        if exchange.code in _OTHER_REASONS or not exchange.codes:
            return r.inconclusive(reply_text(_RESPONSES[dialogue_index], exchange), dialogue_index)
        if exchange.code != 501:
            return r.violated(reply_text(_RESPONSES[dialogue_index], exchange), dialogue_index)
    return r.PASSED


def _mechanism_scripts(target_info: TargetInfo) -> Sequence[Script]:
    scripts = [script(target_info, *before_auth(target_info), line("AUTH X-NO-SUCH"))]
    if "PLAIN" in target_info.login_keywords.upper().split():
        scripts.append(script(target_info, *before_auth(target_info), line("AUTH PLAIN"), line("*")))
    return scripts


def _evaluate_mechanisms(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = _auth_exchanges(dialogues[0])[-1]
    if exchange.code in _OTHER_REASONS or not exchange.codes:
        return r.inconclusive(reply_text("AUTH with an unknown mechanism", exchange))
    if exchange.code != 504:
        return r.violated(reply_text("AUTH with an unknown mechanism", exchange))
    for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
        challenge = _auth_exchanges(dialogue)[-1].first
        if challenge is not None and challenge.raw == b"334\r\n":
            return r.violated("the server sent an empty challenge as 334 without a space", dialogue_index)
    return r.PASSED


# -- logins that must be rejected -------------------------------------------------------------------------------------

#: Users that do not exist, with passwords that careless code accepts for them: names of properties that every object of a
#: programming language has, with the text of such a property; empty values; text that stands for a missing value.
_WRONG_CREDENTIALS = (
    ("nobody-here", "wrong"), ("nobody-here", ""), ("", ""), ("nobody-here", "undefined"), ("nobody-here", "null"),
    ("constructor", "function Object() { [native code] }"), ("toString", "function toString() { [native code] }"),
    ("hasOwnProperty", "function hasOwnProperty() { [native code] }"), ("__proto__", "[object Object]"),
    ("constructor", ""), ("__proto__", "undefined"), ("' OR '1'='1", "' OR '1'='1"), ("*", "*"), ("x" * 2000, "x" * 2000),
)  # fmt: skip
_MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5")
#: Malformed PLAIN responses: not a user and a password.
_MALFORMED_PLAIN_RESPONSES = (
    b"",
    b"\0",
    b"\0\0",
    b"\0\0\0",
    b"\0nobody-here",
    b"nobody-here\0\0",
    b"\0nobody-here\0\0wrong",
)


def _wrong_credentials_scripts(target_info: TargetInfo) -> Sequence[Script]:
    begin = before_auth(target_info)
    offered = target_info.login_keywords.upper().split()
    scripts = [
        script(target_info, *begin, login(mechanism, credentials), mail(target_info))
        for mechanism in _MECHANISMS if mechanism in offered for credentials in _WRONG_CREDENTIALS
    ]  # fmt: skip
    if "PLAIN" in offered:
        scripts += [
            script(target_info, *begin, line(b"AUTH PLAIN " + (encode_line(octets) or b"=")), mail(target_info))
            for octets in _MALFORMED_PLAIN_RESPONSES
        ]
    return scripts


def _evaluate_login_rejected(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if any(received.reply.code == 235 for received in dialogue.replies()):
            mechanism = _auth_exchanges(dialogue)[0].sent.split()[1].decode("latin-1")
            at = (
                dialogue_index % len(_WRONG_CREDENTIALS)
                if dialogue_index < len(dialogues) - len(_MALFORMED_PLAIN_RESPONSES)
                else -1
            )
            user = f"the unknown user {_WRONG_CREDENTIALS[at][0][:20]!r}" if at >= 0 else "a client that named no valid user"
            return r.violated(f"the server accepted {mechanism} credentials of {user}", dialogue_index)
    logins = [exchange for dialogue in dialogues for exchange in _auth_exchanges(dialogue)[:1]]
    if any(exchange.codes and exchange.code not in _OTHER_REASONS for exchange in logins):
        return r.PASSED
    refused = reply_text("each login", logins[0]) if logins else "the server offers none of PLAIN, LOGIN and CRAM-MD5"
    return r.inconclusive(refused)


def _auth_parameter_scripts(target_info: TargetInfo) -> Sequence[Script]:
    """Return a session with MAIL as it is, the control, and one with `AUTH=<>`, both where AUTH is offered."""
    begin = opening(target_info) if target_info.login else before_auth(target_info)
    return [script(target_info, *begin, mail(target_info, parameter)) for parameter in ("", "AUTH=<>")]


def _evaluate_auth_parameter(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    control, exchange = (dialogue.exchange_of(b"MAIL") for dialogue in dialogues)
    if not accepted(control):
        return r.inconclusive(reply_text("MAIL", control))
    if exchange is not None and exchange.code // 100 == 5:
        return r.violated(reply_text("MAIL with AUTH=<>", exchange), 1)
    return r.PASSED if accepted(exchange) else r.inconclusive(reply_text("MAIL with AUTH=<>", exchange), 1)


RULES = (
    Rule(
        "R85",
        "auth-parameter",
        "RFC 4954 §5",
        r.VIOLATION,
        "A server that offers AUTH must take the parameter AUTH of MAIL, also from a client that has not logged in.",
        "250 to MAIL with AUTH=<>",
        needs=("auth",),
        probe=_auth_parameter_scripts,
        evaluate=_evaluate_auth_parameter,
    ),
    Rule(
        "R75",
        "auth-order",
        "RFC 4954 §4",
        r.VIOLATION,
        "The server must reject AUTH during a mail transaction, and after a login.",
        "503 to AUTH",
        needs=("auth",),
        probe=_out_of_order_scripts,
        evaluate=_evaluate_out_of_order,
    ),
    Rule(
        "R76",
        "auth-input",
        "RFC 4954 §4",
        r.VIOLATION,
        "The server must reject a SASL exchange that the client cancels with *, and a response that is not valid base64.",
        "501 to the response",
        needs=("auth",),
        probe=_malformed_response_scripts,
        evaluate=_evaluate_malformed_responses,
    ),
    Rule(
        "R77",
        "auth-mechanism",
        "RFC 4954 §4",
        r.VIOLATION,
        "The server must reject an unknown mechanism with 504. It sends an empty challenge as 334 and a space.",
        "504 to an unknown mechanism; 334 and a space as an empty challenge",
        needs=("auth",),
        probe=_mechanism_scripts,
        evaluate=_evaluate_mechanisms,
    ),
    Rule(
        "R83",
        "auth-bypass",
        "RFC 4954 §6",
        r.SECURITY,
        "The server must reject unknown users and wrong passwords.",
        "535 to wrong credentials",
        needs=("auth",),
        probe=_wrong_credentials_scripts,
        evaluate=_evaluate_login_rejected,
    ),
)
