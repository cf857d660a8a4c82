"""Commands in and out of order: RFC 5321 §3.3, §3.8, §4.1.1.5 to §4.1.1.10 and §4.1.4.

What is in order where stands in one table (`smtp.state`); these probes try its edges one at a time. A refusal for any other
reason than order (a policy, a limit, 421) is no violation here: only the success that must not be is, or the 503 that
must not be.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.lines import (
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
from smtpbench.rules.offer import Offer
from smtpbench.rules.rule import Judgement, Rule
from smtpbench.session.dialogue import Dialogue, Turn
from smtpbench.session.script import Script, Step

_RESET = line("RSET")


def _turns(dialogue: Dialogue, said: bytes) -> list[Turn]:
    return [turn for turn in dialogue.turns if turn.said.upper().startswith(said)]


def _always_250(verb: bytes) -> r.Judge:
    """Wherever it was said, the reply is 250 (421 and 530 are another matter)."""

    def judge(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
        for take, dialogue in enumerate(dialogues):
            for turn in _turns(dialogue, verb):
                if turn.codes and turn.code not in (250, 421, 530):
                    return r.broken(f"{verb.decode()} {_where(dialogue, turn)} was answered {turn.code}", take)
        return r.HELD

    return judge


def _where(dialogue: Dialogue, turn: Turn) -> str:
    before = dialogue.turns[dialogue.turns.index(turn) - 1].said[:4].decode("latin-1").upper()
    return f"after {before}" if before else "before EHLO"


def _must_fail(said: bytes, after: str, *, given: bytes = b"", nth: int = 0) -> r.Judge:
    """The command may not succeed. given: a command that must have been taken before, for this to say anything."""

    def judge(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
        for take, dialogue in enumerate(dialogues):
            if given and not accepted(dialogue.after(given)):
                return r.unclear(f"{given.decode()} was not taken: {said_of(dialogue.after(given))}", take)
            turn = dialogue.after(said, nth)
            if turn is None or not turn.codes:
                return r.unclear(f"{said.decode()} got no reply", take)
            if turn.code // 100 in (2, 3):
                return r.broken(f"{said.decode()} {after} was answered {turn.code}", take)
        return r.HELD

    return judge


# -- RSET, NOOP, QUIT and the verbs that change nothing -----------------------------------------------------------


def _rsets(offer: Offer) -> Sequence[Script]:
    scripts = [script(offer, *opening(offer), _RESET, mail(offer), _RESET)]
    if not offer.tls:  # before STARTTLS a server that demands it may refuse all but a few verbs (RFC 3207 §4)
        scripts.append(script(offer, _RESET))
    return scripts


def _noops(offer: Offer) -> Sequence[Script]:
    return [script(offer, NOOP, *opening(offer), NOOP, mail(offer), NOOP)]


def _stays_open(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    reset, after = dialogues[0].after(b"RSET"), dialogues[0].after(b"NOOP")
    gone = reset is not None and 421 not in reset.codes and dialogues[0].hung_up
    return r.held_unless(gone and (after is None or not after.codes), "the connection was closed after RSET")


def _quits(offer: Offer) -> Sequence[Script]:
    # what is waited for is the close: a server that does not close is given time
    steps = ((), (hello(offer),), (*opening(offer), mail(offer)))
    return [script(offer, *each, line("QUIT"), pause(_CLOSE_MS), listen=False) for each in steps]


_CLOSE_MS = 2000


def _says_goodbye(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        turn = dialogue.after(b"QUIT")
        if turn is not None and turn.codes and turn.code not in (221, 421):
            return r.broken(f"QUIT was answered {turn.code}", take)
        if turn is not None and turn.code == 221 and not dialogue.closed_by_server:
            return r.broken("the connection stayed open after 221", take)
    return r.HELD


def _no_effect(offer: Offer) -> Sequence[Script]:
    texts = ("VRFY postmaster", "EXPN staff", "HELP", "NOOP")
    return [script(offer, *opening(offer), mail(offer), line(text), rcpt(offer)) for text in texts]


def _envelope_kept(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        if not accepted(dialogue.after(b"MAIL")):
            return r.unclear(f"MAIL was not taken: {said_of(dialogue.after(b'MAIL'))}", take)
        turn = dialogue.after(b"RCPT")
        if turn is not None and turn.code == 503:
            verb = dialogue.turns[dialogue.turns.index(turn) - 1].said[:4].decode("latin-1")
            return r.broken(f"RCPT after MAIL and {verb} was answered 503", take)
    return r.HELD


def _bare_verbs(offer: Offer) -> Sequence[Script]:
    hello_verbs = (b"LHLO",) if offer.lmtp else (b"EHLO", b"HELO")
    texts = [verb + b" " + offer.client.encode() for verb in hello_verbs]
    texts += [
        b"VRFY postmaster",
        b"NOOP",
        b"RSET",
        b"MAIL FROM:<" + offer.sender.encode() + b">",
        b"RCPT TO:<a@b.example>",
        b"DATA",
    ]
    return [script(offer, *opening(offer), *map(line, texts), raw(b".\r\n"))]


def _verbs_known(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for turn in dialogues[0].turns[1:]:
        verb = turn.said[:4].decode("latin-1")
        unknown = (500,) if verb == "VRFY" else (500, 502)  # VRFY may be switched off (§7.3)
        if turn.code in unknown and verb.isalpha() and verb.isupper():
            return r.broken(f"{verb} was answered {turn.code}")
    return r.HELD


def _odd_case(offer: Offer) -> Sequence[Script]:
    texts = ("nOoP", "rSeT", f"mAiL fRoM:<{offer.sender}>", "rSeT", "qUiT")
    return [script(offer, *opening(offer), *map(line, texts), listen=False)]


def _case_ignored(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for turn in dialogues[0].turns:
        if turn.said[:1].islower() and turn.code in (500, 501, 502):
            return r.broken(f"{turn.said[:4].decode('latin-1')} was answered {turn.code}")
    return r.HELD


def _unknown(offer: Offer) -> Sequence[Script]:
    return [script(offer, *opening(offer), line("XYZZY"), NOOP)]


def _unknown_survived(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turn, after = dialogues[0].after(b"XYZZY"), dialogues[0].after(b"NOOP")
    if turn is not None and turn.code // 100 in (2, 3):
        return r.broken(f"an unknown command was answered {turn.code}")
    gone = dialogues[0].hung_up and (after is None or not after.codes)
    return r.held_unless(gone and 421 not in (turn.codes if turn else ()), "an unknown command ended the session")


# -- EHLO again ---------------------------------------------------------------------------------------------------


def _again(offer: Offer) -> Sequence[Script]:
    twice = script(offer, *opening(offer), hello(offer), hello(offer))
    in_mail = script(offer, *opening(offer), mail(offer), hello(offer), rcpt(offer))
    return [twice, in_mail]


def _greeted_again(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    verb = b"LHLO" if offer.lmtp else b"EHLO"
    for take, dialogue in enumerate(dialogues):
        turn = _turns(dialogue, verb)[-1:]
        if turn and turn[0].code in (500, 501, 502, 503):
            return r.broken(f"{verb.decode()} said again was answered {turn[0].code}", take)
        if turn and turn[0].code // 100 != 2:
            return r.unclear(f"{verb.decode()} said again was answered {turn[0].code}", take)
    after = dialogues[1].after(b"RCPT")
    return r.held_unless(accepted(after), f"RCPT was taken after MAIL and {verb.decode()}", 1)


def _refused_hello(offer: Offer) -> Sequence[Script]:
    return [script(offer, *opening(offer), mail(offer), line("LHLO" if offer.lmtp else "EHLO"), rcpt(offer))]


def _state_kept(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    dialogue = dialogues[0]
    again = next((turn for turn in dialogue.turns if turn.said.upper() in (b"EHLO\r\n", b"LHLO\r\n")), None)
    if not accepted(dialogue.after(b"MAIL")) or not refused(again):
        return r.unclear(f"EHLO without a name was {said_of(again)}")
    turn = dialogue.after(b"RCPT")
    return r.held_unless(
        turn is not None and turn.code == 503, "RCPT was answered 503 after MAIL and an EHLO that was refused"
    )


def _no_503(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for turn in dialogues[0].turns:
        if turn.code == 503:
            return r.broken(f"{turn.said[:4].decode('latin-1')} before EHLO was answered 503")
    return r.HELD


# -- the mail transaction -----------------------------------------------------------------------------------------


def _no_recipient(offer: Offer) -> tuple[Step, ...]:
    return (*opening(offer), mail(offer), line("DATA"), raw(b".\r\n"))


def _nothing_sent(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    end, ready = dialogues[0].after(b".\r\n"), dialogues[0].after(b"DATA")
    if not accepted(dialogues[0].after(b"MAIL")):
        return r.unclear(f"MAIL was not taken: {said_of(dialogues[0].after(b'MAIL'))}")
    wrong = ready is not None and ready.code == 354 and accepted(end)
    return r.held_unless(wrong, "a message without a recipient was taken")


def _after_message(offer: Offer) -> tuple[Step, ...]:
    return (*envelope(offer), line("DATA"), message(), rcpt(offer))


def _cleared(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    if not accepted(dialogues[0].after(HEADER[:5])):
        return r.unclear("the message was not taken")
    return r.held_unless(accepted(dialogues[0].after(b"RCPT", 1)), "RCPT was taken after the end of a message, without MAIL")


def _bad_mail(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        if not refused(dialogue.after(b"MAIL")):
            return r.unclear(f"a malformed MAIL was {said_of(dialogue.after(b'MAIL'))}", take)
        if accepted(dialogue.after(b"RCPT")):
            return r.broken("RCPT was taken after a MAIL that was refused", take)
    return r.HELD


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


def _odd_lines(offer: Offer) -> Sequence[Script]:
    scripts = [script(offer, *opening(offer), line(text), NOOP) for text in _ODD]
    if offer.recipient:
        text = raw(HEADER + b"caf\xe9 \xff" + END)
        scripts.append(script(offer, *envelope(offer), line("DATA"), text, NOOP))
    return scripts


def _slammed(offer: Offer, dialogue: Dialogue) -> str:
    """A close that answers one short command, with no 221 or 421 anywhere near."""
    last = dialogue.turns[-1]
    if (
        not dialogue.closed_by_server
        or dialogue.half_closed
        or last.heard
        or last.rest
        or dialogue.last_code in (221, 421, 521, 554)
    ):
        return ""
    if any(turn.said.upper() == b"RSET\r\n" for turn in dialogue.turns[-2:]):
        return ""  # a rule of its own
    if dialogue.fate == api.CONNECTION_RESET and any(turn.said.count(b"\n") > 1 for turn in dialogue.turns):
        return ""  # a reset throws away what was said before it, 421 too
    asked = next((at for at, turn in enumerate(dialogue.turns) if turn.code == 220 and at), None)
    if asked is not None and not any(turn.tls for turn in dialogue.turns[asked + 1 :]):
        return ""  # a handshake was due, and something else came
    refusals = sum(one.reply.code // 100 in (4, 5) for one in dialogue.replies())
    tls_asked = any(
        turn.said.upper().startswith(b"STARTTLS") and turn.said.upper() != b"STARTTLS\r\n" for turn in dialogue.turns
    )
    long = sum(len(turn.said) for turn in dialogue.turns) > 64 * _SHORT_BYTES
    if refusals > _TOLERATED or tls_asked or long or not last.said or last.said.upper().startswith(b"STARTTLS"):
        return ""
    if any(turn.code == 334 for turn in dialogue.turns[-3:]):
        return ""
    return "the connection was closed without 421, in place of a reply"


RULES = (
    Rule(
        "R16", "rset-250", "RFC 5321 §4.1.1.5", r.VIOLATION, "RSET, at any time, does what it is for and is answered 250.",
        "250", probe=_rsets, judge=_always_250(b"RSET"),
    ),
    Rule(
        "R17", "rset-clears", "RFC 5321 §4.1.1.5", r.VIOLATION, "RSET throws away the sender and all recipients.",
        "RCPT is refused after MAIL and RSET", needs=("recipient",),
        probe=probing(lambda offer: (*opening(offer), mail(offer), _RESET, rcpt(offer))),
        judge=_must_fail(b"RCPT", "after MAIL and RSET", given=b"RSET"),
    ),
    Rule(
        "R18", "rset-open", "RFC 5321 §4.1.1.5", r.VIOLATION, "No server closes the connection because of RSET.",
        "a reply to the next command", probe=probing(lambda offer: (*opening(offer), _RESET, NOOP)), judge=_stays_open,
    ),
    Rule(
        "R19", "re-ehlo", "RFC 5321 §4.1.4", r.VIOLATION,
        "EHLO may be said again at any time: it is answered as before, and does what RSET does.",
        "250, and the mail transaction is gone", needs=("recipient",), probe=_again, judge=_greeted_again,
    ),
    Rule(
        "R20", "ehlo-refused-state", "RFC 5321 §4.1.4", r.VIOLATION, "An EHLO that is refused changes nothing.",
        "a mail transaction goes on", needs=("recipient",), probe=_refused_hello, judge=_state_kept,
    ),
    Rule(
        "R21", "noop-250", "RFC 5321 §4.1.1.9", r.VIOLATION, "NOOP is answered 250, at any time.",
        "250", probe=_noops, judge=_always_250(b"NOOP"),
    ),
    Rule(
        "R22", "noop-arg", "RFC 5321 §4.1.1.9", r.ADVICE, "What is said behind NOOP is ignored.", "250",
        probe=probing(lambda offer: (*opening(offer), line("NOOP some words"))), judge=_always_250(b"NOOP"),
    ),
    Rule(
        "R23", "quit", "RFC 5321 §4.1.1.10", r.VIOLATION, "QUIT is answered 221, and then the server closes the connection.",
        "221 and the end of the connection", probe=_quits, judge=_says_goodbye,
    ),
    Rule(
        "R24", "rcpt-first", "RFC 5321 §3.3", r.VIOLATION, "RCPT without a MAIL before it is refused.", "503",
        needs=("recipient",), probe=probing(lambda offer: (*opening(offer), rcpt(offer))),
        judge=_must_fail(b"RCPT", "before MAIL"),
    ),
    Rule(
        "R25", "no-rcpt", "RFC 5321 §3.3", r.VIOLATION, "A message is for somebody: without a recipient none is taken.",
        "503 or 554 to DATA, or to the end of the data", probe=probing(_no_recipient), judge=_nothing_sent,
    ),
    Rule(
        "R26", "nested-mail", "RFC 5321 §4.1.4", r.ADVICE, "MAIL inside a mail transaction is refused.", "503",
        probe=probing(lambda offer: (*opening(offer), mail(offer), mail(offer))),
        judge=_must_fail(b"MAIL", "after MAIL", given=b"MAIL", nth=1),
    ),
    Rule(
        "R27", "bad-mail-state", "RFC 5321 §4.1.4", r.VIOLATION, "A MAIL that is refused begins no transaction.",
        "RCPT is refused", needs=("recipient",),
        probe=probing(*((lambda offer, text=text: (*opening(offer), line(text), rcpt(offer)))
                       for text in ("MAIL FROM:<", "MAIL", "MAIL FROM:<a@b.example> NO@SUCH=1"))),
        judge=_bad_mail,
    ),
    Rule(
        "R28", "required-verbs", "RFC 5321 §4.5.1", r.VIOLATION,
        "Every server knows EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP, QUIT and VRFY.",
        "any reply but 500 and 502", probe=_bare_verbs, judge=_verbs_known,
    ),
    Rule(
        "R29", "no-side-effect", "RFC 5321 §4.1.1.6", r.VIOLATION,
        "VRFY, EXPN, HELP and NOOP leave a mail transaction as it is.",
        "RCPT is not answered 503", needs=("recipient",), probe=_no_effect, judge=_envelope_kept,
    ),
    Rule(
        "R30", "verb-case", "RFC 5321 §2.4", r.VIOLATION, "Verbs and keywords may be written in any case.",
        "the reply that upper case gets", probe=_odd_case, judge=_case_ignored,
    ),
    Rule(
        "R31", "unknown-500", "RFC 5321 §3.8", r.VIOLATION,
        "A command that is not known is refused, and the session goes on.",
        "500, and a reply to the next command", probe=_unknown, judge=_unknown_survived,
    ),
    Rule(
        "R32", "close-without-421", "RFC 5321 §3.8", r.VIOLATION,
        "A server closes a connection after QUIT, after 421, or when it waited too long; never in place of a reply.",
        "a reply, or 421 and the end of the connection", probe=_odd_lines, judge=r.provoked, invariant=_slammed,
    ),
    Rule(
        "R33", "arg-501", "RFC 5321 §4.3.2", r.ADVICE, "An argument where none may be is refused.", "501",
        probe=probing(lambda offer: (*opening(offer), line("RSET now"))), judge=_must_fail(b"RSET", "with an argument"),
    ),
    Rule(
        "R34", "pre-ehlo", "RFC 5321 §4.1.4", r.ADVICE, "NOOP, HELP, VRFY and EXPN are taken before EHLO.",
        "any reply but 503",
        needs=("clear",), probe=probing(lambda offer: (NOOP, line("HELP"), line("VRFY postmaster"), line("EXPN staff"))),
        judge=_no_503,
    ),
    Rule(
        "R35", "post-data-clear", "RFC 5321 §4.1.1.4", r.VIOLATION, "With the end of a message its envelope is gone.",
        "RCPT is refused", needs=("recipient",), probe=probing(_after_message), judge=_cleared,
    ),
)  # fmt: skip
