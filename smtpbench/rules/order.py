"""EHLO and the mail transaction in and out of order: RFC 5321 §3.3 and §4.1.4. `rules.verbs` has the other commands.

The table in `smtp.state` defines which command is in order in which state. Each probe tests one entry of the table. An
error reply for another reason than the order (a policy, a limit, 421) is not a violation here. Violations are a success out
of order and a 503 in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import (
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
    probe_of,
    raw,
    rcpt,
    refused,
    reply_text,
    script,
)  # fmt: skip
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import Script, Step


def exchanges_of(dialogue: Dialogue, verb: bytes) -> list[Exchange]:
    """Return the exchanges whose command begins with this verb, which is given in upper case."""
    return [exchange for exchange in dialogue.exchanges if exchange.sent.upper().startswith(verb)]


def must_fail(command: bytes, after: str, *, given: bytes = b"", nth: int = 0) -> r.Evaluate:
    """Return an evaluation: the server must reject the command.

    Args:
        command: The command.
        after: Where it is sent, for the text of a violation.
        given: A command that the server must have accepted before; otherwise the rule is inconclusive.
        nth: Which occurrence of the command is evaluated, from 0.
    """

    def evaluate(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        for dialogue_index, dialogue in enumerate(dialogues):
            if given and not accepted(dialogue.exchange_of(given)):
                return r.inconclusive(reply_text(given.decode(), dialogue.exchange_of(given)), dialogue_index)
            exchange = dialogue.exchange_of(command, nth)
            actual = reply_text(f"{command.decode()} {after}", exchange)
            if exchange is None or not exchange.codes:
                return r.inconclusive(actual, dialogue_index)
            if exchange.code // 100 in (2, 3):
                return r.violated(actual, dialogue_index)
        return r.PASSED

    return evaluate


# -- repeated EHLO ------------------------------------------------------------------------------------------------


def _repeated_ehlo_scripts(target_info: TargetInfo) -> Sequence[Script]:
    twice = script(target_info, *opening(target_info), hello(target_info), hello(target_info))
    in_mail = script(target_info, *opening(target_info), mail(target_info), hello(target_info), rcpt(target_info))
    return [twice, in_mail]


def _evaluate_repeated_ehlo(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    verb = b"LHLO" if target_info.lmtp else b"EHLO"
    for dialogue_index, dialogue in enumerate(dialogues):
        exchange = exchanges_of(dialogue, verb)[-1:]
        if exchange and exchange[0].code in (500, 501, 502, 503):
            return r.violated(reply_text(f"a repeated {verb.decode()}", exchange[0]), dialogue_index)
        if exchange and exchange[0].code // 100 != 2:
            return r.inconclusive(reply_text(f"a repeated {verb.decode()}", exchange[0]), dialogue_index)
    after = dialogues[1].exchange_of(b"RCPT")
    return r.violated_if(accepted(after), f"the server accepted RCPT after MAIL and {verb.decode()}", 1)


def _rejected_ehlo_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(
            target_info,
            *opening(target_info),
            mail(target_info),
            line("LHLO" if target_info.lmtp else "EHLO"),
            rcpt(target_info),
        )
    ]


def _evaluate_rejected_ehlo(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    dialogue = dialogues[0]
    again = next((exchange for exchange in dialogue.exchanges if exchange.sent.upper() in (b"EHLO\r\n", b"LHLO\r\n")), None)
    if not accepted(dialogue.exchange_of(b"MAIL")) or not refused(again):
        return r.inconclusive(reply_text("EHLO without an argument", again))
    exchange = dialogue.exchange_of(b"RCPT")
    return r.violated_if(
        exchange is not None and exchange.code == 503, "the server replied 503 to RCPT after MAIL and a rejected EHLO"
    )


def _evaluate_before_ehlo(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for exchange in dialogues[0].exchanges:
        if exchange.code == 503:
            return r.violated(reply_text(f"{exchange.sent[:4].decode('latin-1')} before EHLO", exchange))
    return r.PASSED


# -- the mail transaction -----------------------------------------------------------------------------------------


def _message_without_recipient(target_info: TargetInfo) -> tuple[Step, ...]:
    return (*opening(target_info), mail(target_info), line("DATA"), raw(b".\r\n"))


def _evaluate_no_recipient(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    end, ready = dialogues[0].exchange_of(b".\r\n"), dialogues[0].exchange_of(b"DATA")
    if not accepted(dialogues[0].exchange_of(b"MAIL")):
        return r.inconclusive(reply_text("MAIL", dialogues[0].exchange_of(b"MAIL")))
    message_accepted = ready is not None and ready.code == 354 and accepted(end)
    return r.violated_if(message_accepted, "the server accepted a message without a recipient")


def _evaluate_nested_mail_recipients(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    """Evaluate a second MAIL after RCPT. The control is a message with no RCPT at all."""
    nested, control = dialogues
    rcpt_exchange, second = nested.exchange_of(b"RCPT"), nested.exchange_of(b"MAIL", 1)
    if not accepted(rcpt_exchange):
        return r.inconclusive(reply_text("RCPT", rcpt_exchange))
    if refused(second):
        return r.PASSED
    if not accepted(second):
        return r.inconclusive(reply_text("a second MAIL", second))
    if data_accepted(control) and accepted(control.exchange_of(b".\r\n")):
        return r.inconclusive("the server accepts a message without RCPT in any transaction", 1)
    end = nested.exchange_of(b".\r\n")
    what = "a message whose recipient was named before the second MAIL"
    return r.violated_if(data_accepted(nested) and accepted(end), reply_text(what, end))


def _rcpt_after_message(target_info: TargetInfo) -> tuple[Step, ...]:
    return (*envelope(target_info), line("DATA"), message(), rcpt(target_info))


def _evaluate_envelope_discarded(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not accepted(dialogues[0].exchange_of(HEADER[:5])):
        return r.inconclusive(reply_text("the message", dialogues[0].exchange_of(HEADER[:5])))
    return r.violated_if(
        accepted(dialogues[0].exchange_of(b"RCPT", 1)), "the server accepted RCPT after the end of a message, without MAIL"
    )


def _evaluate_rejected_mail(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if not refused(dialogue.exchange_of(b"MAIL")):
            return r.inconclusive(reply_text("a malformed MAIL", dialogue.exchange_of(b"MAIL")), dialogue_index)
        if accepted(dialogue.exchange_of(b"RCPT")):
            return r.violated("the server accepted RCPT after it rejected MAIL", dialogue_index)
    return r.PASSED


RULES = (
    Rule(
        "R19",
        "re-ehlo",
        "RFC 5321 §4.1.4",
        r.VIOLATION,
        "The server must accept EHLO at any time. A repeated EHLO has the effect of RSET.",
        "250 to EHLO, and no mail transaction afterwards",
        needs=("recipient",),
        probe=_repeated_ehlo_scripts,
        evaluate=_evaluate_repeated_ehlo,
    ),
    Rule(
        "R20",
        "ehlo-refused-state",
        "RFC 5321 §4.1.4",
        r.VIOLATION,
        "An EHLO that the server rejects must not change the state of the session.",
        "any reply to RCPT except 503",
        needs=("recipient",),
        probe=_rejected_ehlo_scripts,
        evaluate=_evaluate_rejected_ehlo,
    ),
    Rule(
        "R24",
        "rcpt-first",
        "RFC 5321 §3.3",
        r.VIOLATION,
        "The server must reject RCPT without MAIL before it.",
        "503 to RCPT",
        needs=("recipient",),
        probe=probe_of(lambda target_info: (*opening(target_info), rcpt(target_info))),
        evaluate=must_fail(b"RCPT", "before MAIL"),
    ),
    Rule(
        "R25",
        "no-rcpt",
        "RFC 5321 §3.3",
        r.VIOLATION,
        "The server must not accept a message without a recipient.",
        "503 or 554 to DATA or to the end of the data",
        probe=probe_of(_message_without_recipient),
        evaluate=_evaluate_no_recipient,
    ),
    Rule(
        "R26",
        "nested-mail",
        "RFC 5321 §4.1.4",
        r.ADVICE,
        "The server should reject MAIL during a mail transaction.",
        "503 to the second MAIL",
        probe=probe_of(lambda target_info: (*opening(target_info), mail(target_info), mail(target_info))),
        evaluate=must_fail(b"MAIL", "after MAIL", given=b"MAIL", nth=1),
    ),
    Rule(
        "R84",
        "nested-mail-rcpt",
        "RFC 5321 §3.3",
        r.VIOLATION,
        "MAIL that the server accepts during a mail transaction begins a new one without the earlier recipients.",
        "503 to the second MAIL, or no 250 to a message without RCPT after it",
        needs=("recipient",),
        probe=probe_of(
            lambda target_info: (*envelope(target_info), mail(target_info), line("DATA"), raw(b".\r\n")),
            _message_without_recipient,
        ),
        evaluate=_evaluate_nested_mail_recipients,
    ),
    Rule(
        "R27",
        "bad-mail-state",
        "RFC 5321 §4.1.4",
        r.VIOLATION,
        "MAIL that the server rejects must not begin a mail transaction.",
        "503 to RCPT",
        needs=("recipient",),
        probe=probe_of(
            *(
                (lambda target_info, text=text: (*opening(target_info), line(text), rcpt(target_info)))
                for text in ("MAIL FROM:<", "MAIL", "MAIL FROM:<a@b.example> NO@SUCH=1")
            )
        ),
        evaluate=_evaluate_rejected_mail,
    ),
    Rule(
        "R34",
        "pre-ehlo",
        "RFC 5321 §4.1.4",
        r.ADVICE,
        "The server should accept NOOP, HELP, VRFY and EXPN before EHLO.",
        "any reply except 503",
        needs=("clear",),
        probe=probe_of(lambda target_info: (NOOP, line("HELP"), line("VRFY postmaster"), line("EXPN staff"))),
        evaluate=_evaluate_before_ehlo,
    ),
    Rule(
        "R35",
        "post-data-clear",
        "RFC 5321 §4.1.1.4",
        r.VIOLATION,
        "The server must discard the envelope after the end of the message.",
        "503 to RCPT",
        needs=("recipient",),
        probe=probe_of(_rcpt_after_message),
        evaluate=_evaluate_envelope_discarded,
    ),
)
