"""STARTTLS: RFC 3207. A server must discard everything that it received before TLS.

An attacker between a client and a server can add octets to the part of a session before TLS, but cannot change the part
inside TLS. A server that keeps octets sent after STARTTLS and reads them inside TLS executes commands of the attacker as if
the client had sent them.

The probes that add octets have a control: the same session without them. A server that does not reply as usual to the first
commands inside TLS there either, does so for another reason, and nothing can be said of the octets.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.end_reason import describe_end
from smtpbench.rules.probe_steps import accepted, hello, line, mail, pause, rcpt, reply_text, script, starttls
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import Script
from smtpbench.text import plural

_WAIT_MS = 300
_MANY_COMMANDS = 300
_COMMANDS_AFTER_STARTTLS = (b"NOOP\r\n", b"NOOP\r\n" * _MANY_COMMANDS, b"EHLO stranger.example\r\n", b"\r\n")
_INCOMPLETE_LINES = (b"NOOP ", b"XYZZY ", b"NOOP\r\n" * _MANY_COMMANDS + b"XYZZY ")


def _tls_completed(dialogue: Dialogue) -> bool:
    """Return whether the TLS handshake was completed."""
    return any(exchange.tls for exchange in dialogue.exchanges) or any(received.tls for received in dialogue.replies())


def _scripts_with_octets(target_info: TargetInfo, added: Sequence[bytes]) -> Sequence[Script]:
    """Return a session for each of these octets, which come with STARTTLS, and the control without any."""
    return [
        script(
            target_info,
            hello(target_info),
            starttls(b"STARTTLS\r\n" + octets),
            pause(_WAIT_MS),
            hello(target_info),
            line("NOOP"),
        )
        for octets in (*added, b"")
    ]


def _hello_in_tls(dialogue: Dialogue) -> Exchange | None:
    """Return the first EHLO inside TLS."""
    return next(
        (exchange for exchange in dialogue.exchanges if exchange.tls and exchange.sent[:4] in (b"EHLO", b"LHLO")), None
    )


def _control_failure(target_info: TargetInfo, control: Dialogue) -> str:
    """Return how the control shows that the server does not reply as usual inside TLS; empty if it does."""
    if not _tls_completed(control):
        return _tls_not_started(control).actual
    exchange = _hello_in_tls(control)
    if exchange is None or exchange.code != 250 or _lists_no_extensions(target_info, exchange):
        return f"{reply_text('EHLO', exchange)} inside TLS in a session without added octets as well"
    extra = any(received.tls for before in control.exchanges if not before.tls for received in before.replies)
    if extra or any(len(one.replies) > 1 for one in control.exchanges if one.tls):
        return "the server sends more replies than commands inside TLS in a session without added octets as well"
    return ""


def _lists_no_extensions(target_info: TargetInfo, exchange: Exchange) -> bool:
    """Return whether the reply to EHLO has no extension, although the server offers some inside TLS."""
    return exchange.first is not None and len(exchange.first.lines) == 1 and bool(target_info.keywords_in_tls)


def _injected_command_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return _scripts_with_octets(target_info, _COMMANDS_AFTER_STARTTLS)


def _evaluate_commands_discarded(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    *dialogues, control = dialogues
    failure = _control_failure(target_info, control)
    if failure:
        return r.inconclusive(failure, len(dialogues))
    for dialogue_index, dialogue in enumerate(dialogues):
        early = sum(received.tls for exchange in dialogue.exchanges if not exchange.tls for received in exchange.replies)
        if early:
            actual = f"the server sent {plural(early, 'reply')} inside TLS before any command was sent there"
            return r.violated(actual, dialogue_index)
        late = next(
            (
                exchange
                for exchange in dialogue.exchanges
                if exchange.tls and len(exchange.replies) > 1 and 421 not in exchange.codes
            ),
            None,
        )
        if late is not None:
            actual = f"the server sent {plural(len(late.replies), 'reply')} to one command inside TLS"
            return r.violated(actual, dialogue_index)
    return r.PASSED if any(map(_tls_completed, dialogues)) else _evaluate_no_handshake(dialogues[0])


def _evaluate_no_handshake(dialogue: Dialogue) -> Verdict:
    """Return PASSED if the server rejected STARTTLS with octets after it, or closed the connection; else inconclusive."""
    exchange = dialogue.exchange_of(b"STARTTLS")
    if (
        dialogue.end_reason == api.TLS_FAILED
        or (exchange is not None and exchange.code // 100 in (4, 5))
        or dialogue.closed_by_server
    ):
        return r.PASSED
    return _tls_not_started(dialogue)


def _incomplete_line_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return _scripts_with_octets(target_info, _INCOMPLETE_LINES)


def _evaluate_incomplete_line_discarded(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    *dialogues, control = dialogues
    failure = _control_failure(target_info, control)
    if failure:
        return r.inconclusive(failure, len(dialogues))
    for dialogue_index, dialogue in enumerate(dialogues):
        hello_in_tls = _hello_in_tls(dialogue)
        if hello_in_tls is None or not hello_in_tls.codes or hello_in_tls.code in (421, 454):
            continue
        if hello_in_tls.code != 250 or _lists_no_extensions(target_info, hello_in_tls):
            actual = f"the server joined an incomplete line from before TLS with EHLO: {reply_text('EHLO', hello_in_tls)}"
            return r.violated(actual, dialogue_index)
    return r.PASSED if any(map(_tls_completed, dialogues)) else _evaluate_no_handshake(dialogues[0])


def _state_before_tls_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, mail(target_info)),
        script(target_info, hello(target_info), starttls(), mail(target_info)),
        script(target_info, hello(target_info), mail(target_info), starttls(), rcpt(target_info)),
    ]


def _evaluate_state_discarded(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    before, after = dialogues[0].exchange_of(b"MAIL"), dialogues[1].exchange_of(b"MAIL")
    if accepted(dialogues[2].exchange_of(b"RCPT")) and _in_tls(dialogues[2].exchange_of(b"RCPT")):
        return r.violated("the server accepted RCPT inside TLS for a MAIL from before TLS", 2)
    if before is not None and before.code == 503 and _in_tls(after):
        actual = "the server accepted MAIL inside TLS without EHLO there, although it requires EHLO before MAIL"
        return r.violated_if(accepted(after), actual, 1)
    if not any(map(_tls_completed, dialogues)):
        return _tls_not_started(dialogues[1])
    return r.PASSED if accepted(before) else r.inconclusive(reply_text("MAIL before EHLO", before))


def _tls_not_started(dialogue: Dialogue) -> Verdict:
    reply = reply_text("STARTTLS", dialogue.exchange_of(b"STARTTLS"))
    return r.inconclusive(f"TLS was not started: {reply} ({describe_end(dialogue.end_reason)})")


def _in_tls(exchange: Exchange | None) -> bool:
    return exchange is not None and exchange.tls


def _ehlo_in_tls_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, hello(target_info), starttls(), hello(target_info))]


def _evaluate_starttls_not_offered(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = next((exchange for exchange in dialogues[0].exchanges if exchange.tls and exchange.code == 250), None)
    if exchange is None or exchange.first is None:
        return _tls_not_started(dialogues[0])
    keywords = {text.split(b" ")[0].upper() for text in exchange.first.lines[1:]}
    return r.violated_if(b"STARTTLS" in keywords, "the server offers STARTTLS inside TLS")


def _starttls_argument_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, hello(target_info), line("STARTTLS now"), quiet_period=False)]


def _evaluate_starttls_argument(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange = dialogues[0].exchange_of(b"STARTTLS")
    return r.violated_if(accepted(exchange), reply_text("STARTTLS with an argument", exchange))


RULES = (
    Rule(
        "R70",
        "tls-inject",
        "RFC 3207 §4.2",
        r.SECURITY,
        "The server must discard commands that it received before TLS together with STARTTLS.",
        "no reply inside TLS before a command was sent there, or a closed connection",
        needs=("starttls",),
        probe=_injected_command_scripts,
        evaluate=_evaluate_commands_discarded,
        allows_close=True,
    ),
    Rule(
        "R71",
        "tls-partial",
        "RFC 3207 §4.2",
        r.SECURITY,
        "The server must discard an incomplete line that it received together with STARTTLS. The line must not become the "
        "beginning of the first command inside TLS.",
        "the usual reply to the first EHLO inside TLS, or a closed connection",
        needs=("starttls",),
        probe=_incomplete_line_scripts,
        evaluate=_evaluate_incomplete_line_discarded,
        allows_close=True,
    ),
    Rule(
        "R72",
        "tls-reset",
        "RFC 3207 §4.2",
        r.VIOLATION,
        "The server must discard the session state when TLS starts: EHLO and the envelope from before TLS no longer count.",
        "503 to MAIL and RCPT inside TLS",
        needs=("starttls", "recipient"),
        probe=_state_before_tls_scripts,
        evaluate=_evaluate_state_discarded,
    ),
    Rule(
        "R73",
        "tls-readvertise",
        "RFC 3207 §4.2",
        r.VIOLATION,
        "The server must not offer STARTTLS inside TLS.",
        "a reply to EHLO inside TLS without STARTTLS",
        needs=("starttls",),
        probe=_ehlo_in_tls_scripts,
        evaluate=_evaluate_starttls_not_offered,
    ),
    Rule(
        "R74",
        "tls-syntax",
        "RFC 3207 §4",
        r.VIOLATION,
        "STARTTLS has no argument. The server must reject one.",
        "501 to STARTTLS with an argument",
        needs=("starttls",),
        probe=_starttls_argument_scripts,
        evaluate=_evaluate_starttls_argument,
    ),
)
