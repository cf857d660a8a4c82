"""Commands in and out of order: RFC 5321 §3.3, §3.8, §4.1.1.5 to §4.1.1.10 and §4.1.4.

What is in order where stands in one table (`smtp.state`); these probes try its edges one at a time. A refusal for any other
reason than order (a policy, a limit, 421) is no violation here: only the success that must not be is, or the 503 that
must not be.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import (
    END,
    HEADER,
    NOOP,
    accepted,
    envelope,
    hello,
    line,
    mail,
    message,
    opening,
    pause,
    probing,
    raw,
    rcpt,
    refused,
    said_of,
    script,
)  # fmt: skip
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import Script, Step

_RESET = line("RSET")


def _turns(dialogue: Dialogue, sent: bytes) -> list[Exchange]:
    return [exchange for exchange in dialogue.exchanges if exchange.sent.upper().startswith(sent)]


def _always_250(verb: bytes) -> r.Evaluate:
    """Wherever it was said, the reply is 250 (421 and 530 are another matter)."""

    def judge(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        for dialogue_index, dialogue in enumerate(dialogues):
            for exchange in _turns(dialogue, verb):
                if exchange.codes and exchange.code not in (250, 421, 530):
                    return r.violated(
                        f"{verb.decode()} {_where(dialogue, exchange)} was answered {exchange.code}", dialogue_index
                    )
        return r.PASSED

    return judge


def _where(dialogue: Dialogue, exchange: Exchange) -> str:
    before = dialogue.exchanges[dialogue.exchanges.index(exchange) - 1].sent[:4].decode("latin-1").upper()
    return f"after {before}" if before else "before EHLO"


def _must_fail(sent: bytes, after: str, *, given: bytes = b"", nth: int = 0) -> r.Evaluate:
    """The command may not succeed. given: a command that must have been taken before, for this to say anything."""

    def judge(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
        for dialogue_index, dialogue in enumerate(dialogues):
            if given and not accepted(dialogue.exchange_of(given)):
                return r.inconclusive(
                    f"{given.decode()} was not taken: {said_of(dialogue.exchange_of(given))}", dialogue_index
                )
            exchange = dialogue.exchange_of(sent, nth)
            if exchange is None or not exchange.codes:
                return r.inconclusive(f"{sent.decode()} got no reply", dialogue_index)
            if exchange.code // 100 in (2, 3):
                return r.violated(f"{sent.decode()} {after} was answered {exchange.code}", dialogue_index)
        return r.PASSED

    return judge


# -- RSET, NOOP, QUIT and the verbs that change nothing -----------------------------------------------------------


def _rsets(target_info: TargetInfo) -> Sequence[Script]:
    scripts = [script(target_info, *opening(target_info), _RESET, mail(target_info), _RESET)]
    if not target_info.tls:  # before STARTTLS a server that demands it may refuse all but a few verbs (RFC 3207 §4)
        scripts.append(script(target_info, _RESET))
    return scripts


def _noops(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, NOOP, *opening(target_info), NOOP, mail(target_info), NOOP)]


def _stays_open(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    reset, after = dialogues[0].exchange_of(b"RSET"), dialogues[0].exchange_of(b"NOOP")
    gone = reset is not None and 421 not in reset.codes and dialogues[0].closed_without_221
    return r.passed_unless(gone and (after is None or not after.codes), "the connection was closed after RSET")


def _quits(target_info: TargetInfo) -> Sequence[Script]:
    # what is waited for is the close: a server that does not close is given time
    steps = ((), (hello(target_info),), (*opening(target_info), mail(target_info)))
    return [script(target_info, *each, line("QUIT"), pause(_CLOSE_MS), listen=False) for each in steps]


_CLOSE_MS = 2000


def _says_goodbye(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        exchange = dialogue.exchange_of(b"QUIT")
        if exchange is not None and exchange.codes and exchange.code not in (221, 421):
            return r.violated(f"QUIT was answered {exchange.code}", dialogue_index)
        if exchange is not None and exchange.code == 221 and not dialogue.closed_by_server:
            return r.violated("the connection stayed open after 221", dialogue_index)
    return r.PASSED


def _no_effect(target_info: TargetInfo) -> Sequence[Script]:
    texts = ("VRFY postmaster", "EXPN staff", "HELP", "NOOP")
    return [script(target_info, *opening(target_info), mail(target_info), line(text), rcpt(target_info)) for text in texts]


def _envelope_kept(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if not accepted(dialogue.exchange_of(b"MAIL")):
            return r.inconclusive(f"MAIL was not taken: {said_of(dialogue.exchange_of(b'MAIL'))}", dialogue_index)
        exchange = dialogue.exchange_of(b"RCPT")
        if exchange is not None and exchange.code == 503:
            verb = dialogue.exchanges[dialogue.exchanges.index(exchange) - 1].sent[:4].decode("latin-1")
            return r.violated(f"RCPT after MAIL and {verb} was answered 503", dialogue_index)
    return r.PASSED


def _bare_verbs(target_info: TargetInfo) -> Sequence[Script]:
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


def _verbs_known(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for exchange in dialogues[0].exchanges[1:]:
        verb = exchange.sent[:4].decode("latin-1")
        unknown = (500,) if verb == "VRFY" else (500, 502)  # VRFY may be switched off (§7.3)
        if exchange.code in unknown and verb.isalpha() and verb.isupper():
            return r.violated(f"{verb} was answered {exchange.code}")
    return r.PASSED


def _odd_case(target_info: TargetInfo) -> Sequence[Script]:
    texts = ("nOoP", "rSeT", f"mAiL fRoM:<{target_info.sender}>", "rSeT", "qUiT")
    return [script(target_info, *opening(target_info), *map(line, texts), listen=False)]


def _case_ignored(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for exchange in dialogues[0].exchanges:
        if exchange.sent[:1].islower() and exchange.code in (500, 501, 502):
            return r.violated(f"{exchange.sent[:4].decode('latin-1')} was answered {exchange.code}")
    return r.PASSED


def _unknown(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), line("XYZZY"), NOOP)]


def _unknown_survived(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange, after = dialogues[0].exchange_of(b"XYZZY"), dialogues[0].exchange_of(b"NOOP")
    if exchange is not None and exchange.code // 100 in (2, 3):
        return r.violated(f"an unknown command was answered {exchange.code}")
    gone = dialogues[0].closed_without_221 and (after is None or not after.codes)
    return r.passed_unless(gone and 421 not in (exchange.codes if exchange else ()), "an unknown command ended the session")


# -- EHLO again ---------------------------------------------------------------------------------------------------


def _again(target_info: TargetInfo) -> Sequence[Script]:
    twice = script(target_info, *opening(target_info), hello(target_info), hello(target_info))
    in_mail = script(target_info, *opening(target_info), mail(target_info), hello(target_info), rcpt(target_info))
    return [twice, in_mail]


def _greeted_again(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    verb = b"LHLO" if target_info.lmtp else b"EHLO"
    for dialogue_index, dialogue in enumerate(dialogues):
        exchange = _turns(dialogue, verb)[-1:]
        if exchange and exchange[0].code in (500, 501, 502, 503):
            return r.violated(f"{verb.decode()} said again was answered {exchange[0].code}", dialogue_index)
        if exchange and exchange[0].code // 100 != 2:
            return r.inconclusive(f"{verb.decode()} said again was answered {exchange[0].code}", dialogue_index)
    after = dialogues[1].exchange_of(b"RCPT")
    return r.passed_unless(accepted(after), f"RCPT was taken after MAIL and {verb.decode()}", 1)


def _refused_hello(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(
            target_info,
            *opening(target_info),
            mail(target_info),
            line("LHLO" if target_info.lmtp else "EHLO"),
            rcpt(target_info),
        )
    ]


def _state_kept(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    dialogue = dialogues[0]
    again = next((exchange for exchange in dialogue.exchanges if exchange.sent.upper() in (b"EHLO\r\n", b"LHLO\r\n")), None)
    if not accepted(dialogue.exchange_of(b"MAIL")) or not refused(again):
        return r.inconclusive(f"EHLO without a name was {said_of(again)}")
    exchange = dialogue.exchange_of(b"RCPT")
    return r.passed_unless(
        exchange is not None and exchange.code == 503, "RCPT was answered 503 after MAIL and an EHLO that was refused"
    )


def _no_503(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for exchange in dialogues[0].exchanges:
        if exchange.code == 503:
            return r.violated(f"{exchange.sent[:4].decode('latin-1')} before EHLO was answered 503")
    return r.PASSED


# -- the mail transaction -----------------------------------------------------------------------------------------


def _no_recipient(target_info: TargetInfo) -> tuple[Step, ...]:
    return (*opening(target_info), mail(target_info), line("DATA"), raw(b".\r\n"))


def _nothing_sent(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    end, ready = dialogues[0].exchange_of(b".\r\n"), dialogues[0].exchange_of(b"DATA")
    if not accepted(dialogues[0].exchange_of(b"MAIL")):
        return r.inconclusive(f"MAIL was not taken: {said_of(dialogues[0].exchange_of(b'MAIL'))}")
    wrong = ready is not None and ready.code == 354 and accepted(end)
    return r.passed_unless(wrong, "a message without a recipient was taken")


def _after_message(target_info: TargetInfo) -> tuple[Step, ...]:
    return (*envelope(target_info), line("DATA"), message(), rcpt(target_info))


def _cleared(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not accepted(dialogues[0].exchange_of(HEADER[:5])):
        return r.inconclusive("the message was not taken")
    return r.passed_unless(
        accepted(dialogues[0].exchange_of(b"RCPT", 1)), "RCPT was taken after the end of a message, without MAIL"
    )


def _bad_mail(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if not refused(dialogue.exchange_of(b"MAIL")):
            return r.inconclusive(f"a malformed MAIL was {said_of(dialogue.exchange_of(b'MAIL'))}", dialogue_index)
        if accepted(dialogue.exchange_of(b"RCPT")):
            return r.violated("RCPT was taken after a MAIL that was refused", dialogue_index)
    return r.PASSED


# -- the end of a session -----------------------------------------------------------------------------------------

#: A session with more refusals than this is one that a server may defend itself against (§7.8).
_TOLERATED = 2
_SHORT_BYTES = 512
_ODD = (
    b"NOOP \xff\xfe",
    b"\xff\xfe\xfd",
    b"MAIL FROM:<@>",
    b"MAIL FROM:<\xe9@client.example>",
    b"RCPT TO:<@>",
    b"VRFY @",
    b"XYZZY",
)


def _odd_lines(target_info: TargetInfo) -> Sequence[Script]:
    scripts = [script(target_info, *opening(target_info), line(text), NOOP) for text in _ODD]
    if target_info.recipient:
        text = raw(HEADER + b"caf\xe9 \xff" + END)
        scripts.append(script(target_info, *envelope(target_info), line("DATA"), text, NOOP))
    return scripts


def _slammed(target_info: TargetInfo, dialogue: Dialogue) -> str:
    """A close that answers one short command, with no 221 or 421 anywhere near."""
    last = dialogue.exchanges[-1]
    if (
        not dialogue.closed_by_server
        or dialogue.half_closed
        or last.replies
        or last.incomplete
        or dialogue.last_code in (221, 421, 521, 554)
    ):
        return ""
    if any(exchange.sent.upper() == b"RSET\r\n" for exchange in dialogue.exchanges[-2:]):
        return ""  # a rule of its own
    if dialogue.end_reason == api.CONNECTION_RESET and any(
        exchange.sent.count(b"\n") > 1 for exchange in dialogue.exchanges
    ):
        return ""  # a reset throws away what was said before it, 421 too
    asked = next((at for at, exchange in enumerate(dialogue.exchanges) if exchange.code == 220 and at), None)
    if asked is not None and not any(exchange.tls for exchange in dialogue.exchanges[asked + 1 :]):
        return ""  # a handshake was due, and something else came
    refusals = sum(one.reply.code // 100 in (4, 5) for one in dialogue.replies())
    tls_asked = any(
        exchange.sent.upper().startswith(b"STARTTLS") and exchange.sent.upper() != b"STARTTLS\r\n"
        for exchange in dialogue.exchanges
    )
    long = sum(len(exchange.sent) for exchange in dialogue.exchanges) > 64 * _SHORT_BYTES
    if refusals > _TOLERATED or tls_asked or long or not last.sent or last.sent.upper().startswith(b"STARTTLS"):
        return ""
    if any(exchange.code == 334 for exchange in dialogue.exchanges[-3:]):
        return ""
    return "the connection was closed without 421, in place of a reply"


RULES = (
    Rule(
        "R16",
        "rset-250",
        "RFC 5321 §4.1.1.5",
        r.VIOLATION,
        "RSET, at any time, does what it is for and is answered 250.",
        "250",
        probe=_rsets,
        evaluate=_always_250(b"RSET"),
    ),
    Rule(
        "R17",
        "rset-clears",
        "RFC 5321 §4.1.1.5",
        r.VIOLATION,
        "RSET throws away the sender and all recipients.",
        "RCPT is refused after MAIL and RSET",
        needs=("recipient",),
        probe=probing(lambda target_info: (*opening(target_info), mail(target_info), _RESET, rcpt(target_info))),
        evaluate=_must_fail(b"RCPT", "after MAIL and RSET", given=b"RSET"),
    ),
    Rule(
        "R18",
        "rset-open",
        "RFC 5321 §4.1.1.5",
        r.VIOLATION,
        "No server closes the connection because of RSET.",
        "a reply to the next command",
        probe=probing(lambda target_info: (*opening(target_info), _RESET, NOOP)),
        evaluate=_stays_open,
    ),
    Rule(
        "R19",
        "re-ehlo",
        "RFC 5321 §4.1.4",
        r.VIOLATION,
        "EHLO may be said again at any time: it is answered as before, and does what RSET does.",
        "250, and the mail transaction is gone",
        needs=("recipient",),
        probe=_again,
        evaluate=_greeted_again,
    ),
    Rule(
        "R20",
        "ehlo-refused-state",
        "RFC 5321 §4.1.4",
        r.VIOLATION,
        "An EHLO that is refused changes nothing.",
        "a mail transaction goes on",
        needs=("recipient",),
        probe=_refused_hello,
        evaluate=_state_kept,
    ),
    Rule(
        "R21",
        "noop-250",
        "RFC 5321 §4.1.1.9",
        r.VIOLATION,
        "NOOP is answered 250, at any time.",
        "250",
        probe=_noops,
        evaluate=_always_250(b"NOOP"),
    ),
    Rule(
        "R22",
        "noop-arg",
        "RFC 5321 §4.1.1.9",
        r.ADVICE,
        "What is said behind NOOP is ignored.",
        "250",
        probe=probing(lambda target_info: (*opening(target_info), line("NOOP some words"))),
        evaluate=_always_250(b"NOOP"),
    ),
    Rule(
        "R23",
        "quit",
        "RFC 5321 §4.1.1.10",
        r.VIOLATION,
        "QUIT is answered 221, and then the server closes the connection.",
        "221 and the end of the connection",
        probe=_quits,
        evaluate=_says_goodbye,
    ),
    Rule(
        "R24",
        "rcpt-first",
        "RFC 5321 §3.3",
        r.VIOLATION,
        "RCPT without a MAIL before it is refused.",
        "503",
        needs=("recipient",),
        probe=probing(lambda target_info: (*opening(target_info), rcpt(target_info))),
        evaluate=_must_fail(b"RCPT", "before MAIL"),
    ),
    Rule(
        "R25",
        "no-rcpt",
        "RFC 5321 §3.3",
        r.VIOLATION,
        "A message is for somebody: without a recipient none is taken.",
        "503 or 554 to DATA, or to the end of the data",
        probe=probing(_no_recipient),
        evaluate=_nothing_sent,
    ),
    Rule(
        "R26",
        "nested-mail",
        "RFC 5321 §4.1.4",
        r.ADVICE,
        "MAIL inside a mail transaction is refused.",
        "503",
        probe=probing(lambda target_info: (*opening(target_info), mail(target_info), mail(target_info))),
        evaluate=_must_fail(b"MAIL", "after MAIL", given=b"MAIL", nth=1),
    ),
    Rule(
        "R27",
        "bad-mail-state",
        "RFC 5321 §4.1.4",
        r.VIOLATION,
        "A MAIL that is refused begins no transaction.",
        "RCPT is refused",
        needs=("recipient",),
        probe=probing(
            *(
                (lambda target_info, text=text: (*opening(target_info), line(text), rcpt(target_info)))
                for text in ("MAIL FROM:<", "MAIL", "MAIL FROM:<a@b.example> NO@SUCH=1")
            )
        ),
        evaluate=_bad_mail,
    ),
    Rule(
        "R28",
        "required-verbs",
        "RFC 5321 §4.5.1",
        r.VIOLATION,
        "Every server knows EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP, QUIT and VRFY.",
        "any reply but 500 and 502",
        probe=_bare_verbs,
        evaluate=_verbs_known,
    ),
    Rule(
        "R29",
        "no-side-effect",
        "RFC 5321 §4.1.1.6",
        r.VIOLATION,
        "VRFY, EXPN, HELP and NOOP leave a mail transaction as it is.",
        "RCPT is not answered 503",
        needs=("recipient",),
        probe=_no_effect,
        evaluate=_envelope_kept,
    ),
    Rule(
        "R30",
        "verb-case",
        "RFC 5321 §2.4",
        r.VIOLATION,
        "Verbs and keywords may be written in any case.",
        "the reply that upper case gets",
        probe=_odd_case,
        evaluate=_case_ignored,
    ),
    Rule(
        "R31",
        "unknown-500",
        "RFC 5321 §3.8",
        r.VIOLATION,
        "A command that is not known is refused, and the session goes on.",
        "500, and a reply to the next command",
        probe=_unknown,
        evaluate=_unknown_survived,
    ),
    Rule(
        "R32",
        "close-without-421",
        "RFC 5321 §3.8",
        r.VIOLATION,
        "A server closes a connection after QUIT, after 421, or when it waited too long; never in place of a reply.",
        "a reply, or 421 and the end of the connection",
        probe=_odd_lines,
        evaluate=r.provokes_only,
        invariant=_slammed,
    ),
    Rule(
        "R33",
        "arg-501",
        "RFC 5321 §4.3.2",
        r.ADVICE,
        "An argument where none may be is refused.",
        "501",
        probe=probing(lambda target_info: (*opening(target_info), line("RSET now"))),
        evaluate=_must_fail(b"RSET", "with an argument"),
    ),
    Rule(
        "R34",
        "pre-ehlo",
        "RFC 5321 §4.1.4",
        r.ADVICE,
        "NOOP, HELP, VRFY and EXPN are taken before EHLO.",
        "any reply but 503",
        needs=("clear",),
        probe=probing(lambda target_info: (NOOP, line("HELP"), line("VRFY postmaster"), line("EXPN staff"))),
        evaluate=_no_503,
    ),
    Rule(
        "R35",
        "post-data-clear",
        "RFC 5321 §4.1.1.4",
        r.VIOLATION,
        "With the end of a message its envelope is gone.",
        "RCPT is refused",
        needs=("recipient",),
        probe=probing(_after_message),
        evaluate=_cleared,
    ),
)
