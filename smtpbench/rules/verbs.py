"""Commands that are in order in nearly every state, and the end of a session: RFC 5321 §3.8 and §4.1.1.5 to §4.1.1.10.

An error reply for another reason than the command itself (a policy, a limit, 421) is not a violation here.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.order import exchanges_of, must_fail
from smtpbench.rules.probe_steps import (
    END,
    HEADER,
    NOOP,
    accepted,
    envelope,
    hello,
    line,
    mail,
    opening,
    pause,
    probe_of,
    raw,
    rcpt,
    reply_text,
    script,
)  # fmt: skip
from smtpbench.rules.reply_tracker import verbs_answered
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import Script

_RSET = line("RSET")


def _must_reply_250(verb: bytes) -> r.Evaluate:
    """Return an evaluation: the reply to the command is 250 in every state. 421 and 530 have other reasons."""

    def evaluate(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        for dialogue_index, dialogue in enumerate(dialogues):
            for exchange in exchanges_of(dialogue, verb):
                if exchange.codes and exchange.code not in (250, 421, 530):
                    return r.violated(
                        reply_text(f"{verb.decode()} {_position(dialogue, exchange)}", exchange), dialogue_index
                    )
        return r.PASSED

    return evaluate


def _position(dialogue: Dialogue, exchange: Exchange) -> str:
    before = dialogue.exchanges[dialogue.exchanges.index(exchange) - 1].sent[:4].decode("latin-1").upper()
    return f"after {before}" if before else "before EHLO"


# -- RSET, NOOP, QUIT and verbs without side effects -------------------------------------------------------------


def _rset_scripts(target_info: TargetInfo) -> Sequence[Script]:
    scripts = [script(target_info, *opening(target_info), _RSET, mail(target_info), _RSET)]
    if not target_info.tls:  # before STARTTLS, a server that requires TLS may reject all but a few verbs (RFC 3207 §4)
        scripts.append(script(target_info, _RSET))
    return scripts


def _noop_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, NOOP, *opening(target_info), NOOP, mail(target_info), NOOP)]


def _evaluate_open_after_rset(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    reset, after = dialogues[0].exchange_of(b"RSET"), dialogues[0].exchange_of(b"NOOP")
    closed = reset is not None and 421 not in reset.codes and dialogues[0].closed_without_221
    return r.violated_if(closed and (after is None or not after.codes), "the server closed the connection after RSET")


def _quit_scripts(target_info: TargetInfo) -> Sequence[Script]:
    # wait for the server to close the connection
    steps = ((), (hello(target_info),), (*opening(target_info), mail(target_info)))
    return [script(target_info, *each, line("QUIT"), pause(_CLOSE_MS), quiet_period=False) for each in steps]


_CLOSE_MS = 2000


def _evaluate_quit(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        exchange = dialogue.exchange_of(b"QUIT")
        if exchange is not None and not exchange.codes:
            return r.inconclusive(reply_text("QUIT", exchange), dialogue_index)
        if exchange is not None and exchange.code not in (221, 421):
            return r.violated(reply_text("QUIT", exchange), dialogue_index)
        if exchange is not None and exchange.code == 221 and not dialogue.closed_by_server:
            return r.violated("the server did not close the connection after 221", dialogue_index)
    return r.PASSED


def _no_side_effect_scripts(target_info: TargetInfo) -> Sequence[Script]:
    texts = ("VRFY postmaster", "EXPN staff", "HELP", "NOOP")
    return [script(target_info, *opening(target_info), mail(target_info), line(text), rcpt(target_info)) for text in texts]


def _evaluate_no_side_effect(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if not accepted(dialogue.exchange_of(b"MAIL")):
            return r.inconclusive(reply_text("MAIL", dialogue.exchange_of(b"MAIL")), dialogue_index)
        exchange = dialogue.exchange_of(b"RCPT")
        if exchange is not None and exchange.code == 503:
            verb = dialogue.exchanges[dialogue.exchanges.index(exchange) - 1].sent[:4].decode("latin-1")
            return r.violated(reply_text(f"RCPT after MAIL and {verb}", exchange), dialogue_index)
    return r.PASSED


def _required_verb_scripts(target_info: TargetInfo) -> Sequence[Script]:
    hello_verbs = (b"LHLO",) if target_info.lmtp else (b"EHLO", b"HELO")
    texts = [verb + b" " + target_info.client.encode() for verb in hello_verbs]
    texts += [
        b"VRFY postmaster",
        b"NOOP",
        b"RSET",
        b"MAIL FROM:<" + target_info.sender.encode() + b">",
        b"RCPT TO:<a@b.example>",
        b"DATA",
    ]
    return [script(target_info, *opening(target_info), *map(line, texts), raw(b".\r\n"))]


def _evaluate_required_verbs(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for exchange in dialogues[0].exchanges[1:]:
        verb = exchange.sent[:4].decode("latin-1")
        unknown = (500,) if verb == "VRFY" else (500, 502)  # VRFY may be disabled (§7.3)
        if exchange.code in unknown and verb.isalpha() and verb.isupper():
            return r.violated(reply_text(verb, exchange))
    return r.PASSED


#: Replies to a verb that a server does not know, or not in this case.
_NOT_RECOGNISED = (500, 501, 502)


def _mixed_case_scripts(target_info: TargetInfo) -> Sequence[Script]:
    """Return a session with verbs in mixed case, and the control: the same verbs in upper case."""
    sender = target_info.sender
    mixed = ("nOoP", "rSeT", f"mAiL fRoM:<{sender}>", "rSeT", "qUiT")
    plain = ("NOOP", "RSET", f"MAIL FROM:<{sender}>", "RSET")
    return [script(target_info, *opening(target_info), *map(line, texts), quiet_period=False) for texts in (mixed, plain)]


def _evaluate_mixed_case(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for exchange in dialogues[0].exchanges:
        verb = exchange.sent[:4]
        if verb[:1].islower() and exchange.code in _NOT_RECOGNISED:
            control = dialogues[1].exchange_of(verb)
            if control is None or not control.codes:
                return r.inconclusive(reply_text(verb.decode("latin-1").upper(), control), 1)
            if control.code not in _NOT_RECOGNISED:
                return r.violated(reply_text(verb.decode("latin-1"), exchange))
    return r.PASSED


def _unknown_command_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), line("XYZZY"), NOOP)]


def _evaluate_unknown_command(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange, after = dialogues[0].exchange_of(b"XYZZY"), dialogues[0].exchange_of(b"NOOP")
    if exchange is not None and exchange.code // 100 in (2, 3):
        return r.violated(reply_text("an unknown command", exchange))
    closed = dialogues[0].closed_without_221 and (after is None or not after.codes)
    return r.violated_if(
        closed and 421 not in (exchange.codes if exchange else ()),
        "the server closed the connection after an unknown command",
    )


# -- the end of a session -----------------------------------------------------------------------------------------

#: After more error replies than this a server may close the connection, to defend itself (§7.8).
_TOLERATED_ERRORS = 2
_SHORT_COMMAND_BYTES = 512
_MALFORMED_LINES = (
    b"NOOP \xff\xfe",
    b"\xff\xfe\xfd",
    b"MAIL FROM:<@>",
    b"MAIL FROM:<\xe9@client.example>",
    b"RCPT TO:<@>",
    b"VRFY @",
    b"XYZZY",
)


def _malformed_line_scripts(target_info: TargetInfo) -> Sequence[Script]:
    scripts = [script(target_info, *opening(target_info), line(text), NOOP) for text in _MALFORMED_LINES]
    if target_info.recipient:
        text = raw(HEADER + b"caf\xe9 \xff" + END)
        scripts.append(script(target_info, *envelope(target_info), line("DATA"), text, NOOP))
    return scripts


def _find_close_without_421(target_info: TargetInfo, dialogue: Dialogue) -> str:
    """Return a violation if the server closed the connection without 221 or 421 instead of replying to a short command."""
    last = dialogue.exchanges[-1]
    if (
        not dialogue.closed_by_server
        or dialogue.half_closed
        or last.replies
        or last.incomplete
        or dialogue.last_code in (221, 421, 521, 554)
    ):
        return ""
    verbs = verbs_answered(dialogue, lmtp=target_info.lmtp)
    if verbs[-1:] == ["RSET"] or any(exchange.sent.upper() == b"RSET\r\n" for exchange in dialogue.exchanges[-2:]):
        return ""  # the rule rset-open covers this
    if dialogue.end_reason == api.CONNECTION_RESET and any(
        exchange.sent.count(b"\n") > 1 for exchange in dialogue.exchanges
    ):
        return ""  # a TCP reset may discard a 421 that was sent before it
    starttls = next((index for index, exchange in enumerate(dialogue.exchanges) if exchange.code == 220 and index), None)
    if starttls is not None and not any(exchange.tls for exchange in dialogue.exchanges[starttls + 1 :]):
        return ""  # the client did not begin the TLS handshake
    errors = sum(received.reply.code // 100 in (4, 5) for received in dialogue.replies())
    starttls_with_octets = any(
        exchange.sent.upper().startswith(b"STARTTLS") and exchange.sent.upper() != b"STARTTLS\r\n"
        for exchange in dialogue.exchanges
    )
    long = sum(len(exchange.sent) for exchange in dialogue.exchanges) > 64 * _SHORT_COMMAND_BYTES
    if (
        errors > _TOLERATED_ERRORS
        or starttls_with_octets
        or long
        or not last.sent
        or last.sent.upper().startswith(b"STARTTLS")
    ):
        return ""
    if any(exchange.code == 334 for exchange in dialogue.exchanges[-3:]):
        return ""
    return "the server closed the connection without 421, instead of sending a reply"


RULES = (
    Rule(
        "R16",
        "rset-250",
        "RFC 5321 §4.1.1.5",
        r.VIOLATION,
        "The server must reply 250 to RSET in every state.",
        "250 to RSET",
        probe=_rset_scripts,
        evaluate=_must_reply_250(b"RSET"),
    ),
    Rule(
        "R17",
        "rset-clears",
        "RFC 5321 §4.1.1.5",
        r.VIOLATION,
        "RSET must discard the sender and all recipients.",
        "503 to RCPT after MAIL and RSET",
        needs=("recipient",),
        probe=probe_of(lambda target_info: (*opening(target_info), mail(target_info), _RSET, rcpt(target_info))),
        evaluate=must_fail(b"RCPT", "after MAIL and RSET", given=b"RSET"),
    ),
    Rule(
        "R18",
        "rset-open",
        "RFC 5321 §4.1.1.5",
        r.VIOLATION,
        "The server must not close the connection because of RSET.",
        "a reply to the next command",
        probe=probe_of(lambda target_info: (*opening(target_info), _RSET, NOOP)),
        evaluate=_evaluate_open_after_rset,
    ),
    Rule(
        "R21",
        "noop-250",
        "RFC 5321 §4.1.1.9",
        r.VIOLATION,
        "The server must reply 250 to NOOP in every state.",
        "250 to NOOP",
        probe=_noop_scripts,
        evaluate=_must_reply_250(b"NOOP"),
    ),
    Rule(
        "R22",
        "noop-arg",
        "RFC 5321 §4.1.1.9",
        r.ADVICE,
        "The server should ignore the argument of NOOP.",
        "250 to NOOP",
        probe=probe_of(lambda target_info: (*opening(target_info), line("NOOP some words"))),
        evaluate=_must_reply_250(b"NOOP"),
    ),
    Rule(
        "R23",
        "quit",
        "RFC 5321 §4.1.1.10",
        r.VIOLATION,
        "The server must reply 221 to QUIT and then close the connection.",
        "221 and a closed connection",
        probe=_quit_scripts,
        evaluate=_evaluate_quit,
    ),
    Rule(
        "R28",
        "required-verbs",
        "RFC 5321 §4.5.1",
        r.VIOLATION,
        "The server must implement EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP, QUIT and VRFY.",
        "any reply except 500 and 502",
        probe=_required_verb_scripts,
        evaluate=_evaluate_required_verbs,
    ),
    Rule(
        "R29",
        "no-side-effect",
        "RFC 5321 §4.1.1.6",
        r.VIOLATION,
        "VRFY, EXPN, HELP and NOOP must not change a mail transaction.",
        "any reply to RCPT except 503",
        needs=("recipient",),
        probe=_no_side_effect_scripts,
        evaluate=_evaluate_no_side_effect,
    ),
    Rule(
        "R30",
        "verb-case",
        "RFC 5321 §2.4",
        r.VIOLATION,
        "The server must accept verbs and keywords in upper, lower and mixed case.",
        "the same reply as to upper case",
        probe=_mixed_case_scripts,
        evaluate=_evaluate_mixed_case,
    ),
    Rule(
        "R31",
        "unknown-500",
        "RFC 5321 §3.8",
        r.VIOLATION,
        "The server must reject an unknown command and continue the session.",
        "500, and a reply to the next command",
        probe=_unknown_command_scripts,
        evaluate=_evaluate_unknown_command,
    ),
    Rule(
        "R32",
        "close-without-421",
        "RFC 5321 §3.8",
        r.VIOLATION,
        "The server may close the connection only after QUIT, after 421 or after a time-out. It must not close it instead "
        "of sending "
        "a reply.",
        "a reply, or 421 and a closed connection",
        probe=_malformed_line_scripts,
        evaluate=r.always_passed,
        invariant=_find_close_without_421,
        allows_close=True,
    ),
    Rule(
        "R33",
        "arg-501",
        "RFC 5321 §4.3.2",
        r.ADVICE,
        "The server should reject an argument of a command that takes none.",
        "501 to RSET with an argument",
        probe=probe_of(lambda target_info: (*opening(target_info), line("RSET now"))),
        evaluate=must_fail(b"RSET", "with an argument"),
    ),
)
