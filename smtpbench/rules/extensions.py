"""Extensions, and the octets that all of them share: RFC 2033, 2920, 3030, 3461, 6152, 6531 and some rarer ones.

Two of these rules are metamorphic: the same octets, cut otherwise (R59) or sent together (R60), must get the same replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    raw,
    rcpt,
    ready_for_text,
    refused,
    said_of,
    script,
)  # fmt: skip
from smtpbench.rules.offer import Offer
from smtpbench.rules.rule import Judgement, Rule
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script, Step

_NOT_KNOWN = (500, 502)
_PARAMETER_REFUSED = (501, 504, 555)

# -- what is offered is there, and what is not is not --------------------------------------------------------------

#: Commands that an offered keyword brings.
_VERBS: Mapping[str, str] = {
    "VRFY": "VRFY postmaster", "EXPN": "EXPN staff", "HELP": "HELP", "ETRN": "ETRN sender.example",
    "CHUNKING": "BDAT 0 LAST",
}  # fmt: skip
#: Parameters of MAIL that an offered keyword brings.
_PARAMETERS: Mapping[str, str] = {"SIZE": "SIZE=100", "8BITMIME": "BODY=8BITMIME", "SMTPUTF8": "SMTPUTF8", "DSN": "RET=HDRS"}
#: Parameters of MAIL that few servers offer (RFC 2852, 4865, 6710, 8689).
_RARE: Mapping[str, str] = {
    "DELIVERBY": "BY=120;R", "FUTURERELEASE": "HOLDFOR=1", "MT-PRIORITY": "MT-PRIORITY=1", "REQUIRETLS": "REQUIRETLS",
}  # fmt: skip


def _use_offered(offer: Offer) -> Sequence[Script]:
    lines = [script(offer, *opening(offer), line(text)) for keyword, text in _VERBS.items() if keyword in offer.extensions]
    mails = [
        script(offer, *opening(offer), mail(offer, text))
        for keyword, text in _PARAMETERS.items()
        if keyword in offer.extensions
    ]
    return [script(offer, *opening(offer), mail(offer)), *lines, *mails]


def _said_last(dialogue: Dialogue) -> tuple[str, int]:
    """What was said before QUIT, and its code."""
    turns = [turn for turn in dialogue.turns if turn.said and not turn.said.startswith(b"QUIT")]
    return turns[-1].said.decode("latin-1").rstrip(), turns[-1].code


def _offered_works(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    if len(dialogues) == 1:
        return r.unclear("nothing is offered that could be used")
    control = accepted(dialogues[0].after(b"MAIL"))
    for take, dialogue in enumerate(dialogues[1:], 1):
        said, code = _said_last(dialogue)
        if code in _NOT_KNOWN or (control and said.startswith("MAIL") and code in _PARAMETER_REFUSED):
            what = said.rpartition(" ")[2] if said.startswith("MAIL") else said.split(" ")[0]
            return r.broken(f"{what} is offered, and was answered {code}", take)
    return r.HELD


def _use_missing(offer: Offer) -> Sequence[Script]:
    known = {**offer.clear, **offer.inside}
    parameters = [text for keyword, text in {**_PARAMETERS, **_RARE}.items() if keyword not in known]
    scripts = [script(offer, *opening(offer), mail(offer, text)) for text in parameters]
    if "CHUNKING" not in known and offer.recipient:
        scripts.append(script(offer, *envelope(offer), line("BDAT 0 LAST")))
    if "STARTTLS" not in known and not offer.implicit_tls:
        scripts.append(script(offer, *opening(offer), line("STARTTLS")))
    if not offer.login_keywords:
        scripts.append(script(offer, *opening(offer), line("AUTH LOGIN")))
    return scripts


def _missing_is_missing(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        said, code = _said_last(dialogue)
        if code // 100 in (2, 3):
            what = said.rpartition(" ")[2] if said.startswith("MAIL") else said.split(" ")[0]
            return r.broken(f"{what} is not offered, and was answered {code}", take)
    return r.HELD if dialogues else r.unclear("there is nothing that it does not offer")


# -- octets cut and joined otherwise -------------------------------------------------------------------------------


def _mailing(offer: Offer) -> tuple[bytes, ...]:
    """The writes of a session with a message, or without one where nobody takes it."""
    begin = (b"NOOP\r\n", f"MAIL FROM:<{offer.sender}>\r\n".encode())
    if not offer.recipient:
        return (*begin, b"RSET\r\n")
    return (
        *begin,
        f"RCPT TO:<{offer.recipient}>\r\n".encode(),
        b"DATA\r\n",
        HEADER + b"text\r\n..\r\n.more" + END,
        b"NOOP\r\n",
    )


def _cut(octets: bytes) -> Step:
    """The same, an octet a segment."""
    return raw(octets, split=tuple(octets[at : at + 1] for at in range(len(octets))))


def _cut_in_time(octets: bytes) -> tuple[Step, ...]:
    """The same in three pieces, the last a bare LF, with time between them: so they are read one by one."""
    middle = len(octets) // 2
    return raw(octets[:middle], 0), pause(_PIECE_MS), raw(octets[middle:-1], 0), pause(_PIECE_MS), raw(octets[-1:])


_PIECE_MS = 15


def _cuts(offer: Offer) -> Sequence[Script]:
    writes = _mailing(offer)
    in_time = [step for octets in writes for step in _cut_in_time(octets)]
    return [
        *(script(offer, *opening(offer), *map(how, writes)) for how in (raw, _cut)),
        script(offer, *opening(offer), *in_time),
    ]


def _codes(dialogue: Dialogue) -> list[int]:
    """The codes of all replies."""
    return [one.reply.code for one in dialogue.replies()]


def _same_replies(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    whole = _codes(dialogues[0])
    for take, dialogue in enumerate(dialogues[1:], 1):
        if 421 in _codes(dialogue):
            return r.unclear("the session was ended with 421", take)
        if _codes(dialogue) != whole:
            at = next(at for at in range(len(whole) + 1) if _codes(dialogue)[at : at + 1] != whole[at : at + 1])
            seen, due = _codes(dialogue)[at : at + 1], whole[at : at + 1]
            return r.broken(f"reply {at + 1} was {seen or 'none'} where whole writes had got {due or 'none'}", take)
    return r.HELD


def _groups(offer: Offer) -> Sequence[Script]:
    writes = _mailing(offer)
    lockstep = script(offer, *opening(offer), *map(raw, writes))
    joined = [raw(b"".join(writes), len(writes))] if not offer.recipient else [
        raw(b"".join(writes[:4]), 4), raw(writes[4] + writes[5], 2),
    ]  # fmt: skip
    return [lockstep, script(offer, *opening(offer), *joined)]


# -- chunks ---------------------------------------------------------------------------------------------------------


def _bdat(chunk: bytes, *, last: bool = True, behind: bytes = b"", replies: int = 1) -> Step:
    return raw(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if last else b"") + chunk + behind, replies)


def _full_chunks(offer: Offer) -> Sequence[Script]:
    chunk = HEADER + b"\r\n.\r\nNOOP\r\nRSET\r\nMAIL FROM:<>\r\n.\r\n"
    return [
        script(offer, *envelope(offer), _bdat(chunk), NOOP),
        script(offer, *envelope(offer), _bdat(chunk[:40], last=False), _bdat(chunk[40:]), NOOP),
    ]


def _chunks_counted(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        chunks = [turn for turn in dialogue.turns if turn.said.startswith(b"BDAT")]
        noop = dialogue.after(b"NOOP")
        if not accepted(dialogue.after(b"RCPT")):
            return r.unclear(f"RCPT was not taken: {said_of(dialogue.after(b'RCPT'))}", take)
        for turn in chunks:
            if len(turn.codes) > 1 or (noop is not None and len(noop.codes) > 1):
                return r.broken("octets of a chunk were read as commands", take)
            if not turn.codes and not dialogue.hung_up:
                return r.broken("a chunk got no reply", take)
    return r.HELD


def _stray_chunks(offer: Offer) -> Sequence[Script]:
    return [script(offer, *opening(offer), _bdat(b"NOOP\r\nNOOP\r\n"), NOOP)]


def _stray_refused(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turn, noop = dialogues[0].after(b"BDAT"), dialogues[0].after(b"NOOP")
    if accepted(turn):
        return r.broken(f"BDAT without a recipient was {said_of(turn)}")
    replies = sum(len(each.codes) for each in (turn, noop) if each is not None)
    if dialogues[0].hung_up and replies < 2:
        return r.HELD
    return r.held_unless(replies > 2, "the octets of a chunk that was refused were read as commands")


def _mixtures(offer: Offer) -> Sequence[Script]:
    mixed = [script(offer, *envelope(offer), _bdat(HEADER, last=False), line("DATA"))]
    if "BINARYMIME" in offer.extensions:
        mixed.append(script(offer, *opening(offer), mail(offer, "BODY=BINARYMIME"), rcpt(offer), line("DATA")))
    return mixed


def _not_mixed(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        before, turn = dialogue.after(b"BDAT" if take == 0 else b"RCPT"), dialogue.after(b"DATA")
        if not accepted(before):
            return r.unclear(f"what must come before was {said_of(before)}", take)
        if turn is not None and turn.code == 354:
            return r.broken(f"DATA was answered 354 {'after BDAT' if take == 0 else 'for a message in BINARYMIME'}", take)
    return r.HELD


# -- parameters -----------------------------------------------------------------------------------------------------


def _bodies(offer: Offer) -> Sequence[Script]:
    return [
        script(offer, *opening(offer), mail(offer, text)) for text in ("", "BODY=8BITMIME", "BODY=7BIT", "body=8bitmime")
    ]


def _bodies_taken(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    if not accepted(dialogues[0].after(b"MAIL")):
        return r.unclear(f"MAIL was not taken: {said_of(dialogues[0].after(b'MAIL'))}")
    for take, dialogue in enumerate(dialogues):
        turn = dialogue.after(b"MAIL")
        if turn is not None and turn.code // 100 == 5:
            return r.broken(f"MAIL with BODY was {said_of(turn)}", take)
    return r.HELD


def _utf8(offer: Offer) -> Sequence[Script]:
    return [
        script(offer, *opening(offer), mail(offer, "SMTPUTF8=x")),
        script(offer, *opening(offer), line("MAIL FROM:<j\u00fcrgen@sender.example>")),
    ]


def _utf8_asked_for(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    whats = ("SMTPUTF8 with a value", "an address in UTF-8 without SMTPUTF8")
    for take, dialogue in enumerate(dialogues):
        if accepted(dialogue.after(b"MAIL")):
            return r.broken(f"{whats[take]} was {said_of(dialogue.after(b'MAIL'))}", take)
    return r.HELD


_DSN_MAIL = ("RET=ALL", "ENVID=a+ZZ", "RET=FULL RET=HDRS")
_DSN_RCPT = ("NOTIFY=NEVER,SUCCESS", "NOTIFY=SOMETIMES", "NOTIFY=", "ORCPT=nobody@recipient.example")


def _dsn(offer: Offer) -> Sequence[Script]:
    mails = [script(offer, *opening(offer), mail(offer, text)) for text in _DSN_MAIL]
    if not offer.recipient:
        return mails
    begin = (*opening(offer), mail(offer))
    return mails + [script(offer, *begin, line(f"RCPT TO:<{offer.recipient}> {text}")) for text in _DSN_RCPT]


def _dsn_read(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        at_mail = take < len(_DSN_MAIL)
        text = (_DSN_MAIL + _DSN_RCPT)[take]
        if accepted(dialogue.after(b"MAIL" if at_mail else b"RCPT")):
            return r.broken(f"{text} was answered 250", take)
    return r.HELD


#: What is wrong with them: the value's syntax, or a range that the RFC sets.
_RARE_WRONG: Mapping[str, str] = {"DELIVERBY": "BY=soon", "FUTURERELEASE": "HOLDFOR=later", "MT-PRIORITY": "MT-PRIORITY=99"}


def _rare(offer: Offer) -> Sequence[Script]:
    wrong = [text for keyword, text in _RARE_WRONG.items() if keyword in offer.extensions]
    if "REQUIRETLS" in offer.clear and not (offer.tls or offer.implicit_tls):
        wrong.append("REQUIRETLS")
    return [script(offer, *opening(offer), mail(offer, text)) for text in wrong]


def _rare_read(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        if accepted(dialogue.after(b"MAIL")):
            return r.broken(f"MAIL with {_said_last(dialogue)[0].rpartition(' ')[2]} was answered 250", take)
    return r.HELD if dialogues else r.unclear("none of DELIVERBY, FUTURERELEASE, MT-PRIORITY and REQUIRETLS is offered")


# -- LMTP ------------------------------------------------------------------------------------------------------------


def _lmtp(offer: Offer) -> Sequence[Script]:
    # who says one reply where two are due is heard by the NOOP behind it
    two = (*opening(offer), mail(offer), rcpt(offer), rcpt(offer), line("DATA"), message(), pause(_SECOND_MS), NOOP)
    return [script(offer, line("EHLO client.example")), script(offer, *two), script(offer, hello(offer))]


_SECOND_MS = 400


def _lmtp_spoken(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    if accepted(dialogues[0].after(b"EHLO")):
        return r.broken(f"EHLO was {said_of(dialogues[0].after(b'EHLO'))}")
    taken = sum(accepted(turn) for turn in dialogues[1].turns if turn.said.startswith(b"RCPT"))
    text = dialogues[1].after(HEADER[:5])
    if not ready_for_text(dialogues[1]) or text is None or refused(text):
        return r.unclear(f"no message was taken: {said_of(text)}", 1)
    return r.held_unless(len(text.codes) != taken, f"a message for {taken} recipients got {len(text.codes)} replies", 1)


RULES = (
    Rule(
        "R12", "advertised-dead", "RFC 5321 §4.2.4", r.VIOLATION, "What the reply to EHLO offers is there.",
        "any reply but one that the command or parameter is not known", probe=_use_offered, judge=_offered_works,
    ),
    Rule(
        "R13", "unadvertised-live", "RFC 5321 §4.1.1.1", r.WARNING, "What the reply to EHLO does not offer is not there.",
        "500, 502, 503 or 555", probe=_use_missing, judge=_missing_is_missing,
    ),
    Rule(
        "R59", "segmentation", "RFC 5321 §4.1.1", r.VIOLATION, "How octets are cut into segments means nothing.",
        "the same replies to the same octets", probe=_cuts, judge=_same_replies,
    ),
    Rule(
        "R60", "pipelining", "RFC 2920 §3.2", r.VIOLATION,
        "Commands sent together are answered as if sent one by one, in order.",
        "the replies of lockstep", needs=("PIPELINING",), probe=_groups, judge=_same_replies,
    ),
    Rule(
        "R64", "bdat-octets", "RFC 3030 §2", r.VIOLATION, "A chunk is as many octets as BDAT says, whatever they are.",
        "one reply a chunk", needs=("CHUNKING", "recipient"), probe=_full_chunks, judge=_chunks_counted,
    ),
    Rule(
        "R65", "bdat-reject", "RFC 3030 §2", r.VIOLATION, "A chunk out of order is refused, and its octets are thrown away.",
        "one refusal, then replies to what follows the chunk", needs=("CHUNKING",), probe=_stray_chunks,
        judge=_stray_refused,
    ),
    Rule(
        "R66", "bdat-mix", "RFC 3030 §3", r.VIOLATION,
        "DATA is refused in a transaction that BDAT began, and for a message in BINARYMIME.",
        "503 to DATA", needs=("CHUNKING", "recipient"), probe=_mixtures, judge=_not_mixed,
    ),
    Rule(
        "R67", "body-param", "RFC 6152 §2", r.VIOLATION, "Who offers 8BITMIME takes BODY=7BIT and BODY=8BITMIME.", "250",
        needs=("8BITMIME",), probe=_bodies, judge=_bodies_taken,
    ),
    Rule(
        "R68", "smtputf8", "RFC 6531 §3.5", r.WARNING,
        "An address in UTF-8 is taken only with SMTPUTF8, which has no value.",
        "501 or 555; 550 or 553", needs=("SMTPUTF8",), probe=_utf8, judge=_utf8_asked_for,
    ),
    Rule(
        "R78", "dsn-arguments", "RFC 3461 §4", r.VIOLATION,
        "A parameter of DSN with a value that it cannot have is refused.",
        "501", needs=("DSN",), probe=_dsn, judge=_dsn_read,
    ),
    Rule(
        "R79", "rare-parameters", "RFC 5321 §4.1.1.11", r.VIOLATION,
        "BY, HOLDFOR, MT-PRIORITY and REQUIRETLS are refused with a value they cannot have, or where they cannot be "
        "(RFC 2852, "
        "4865, 6710, 8689).",
        "a refusal", probe=_rare, judge=_rare_read,
    ),
    Rule(
        "R80", "lmtp", "RFC 2033 §4", r.VIOLATION,
        "LMTP knows no EHLO, and answers the end of the data once for each recipient that was taken.",
        "500 to EHLO; as many replies as recipients", needs=("lmtp", "recipient"), probe=_lmtp, judge=_lmtp_spoken,
    ),
)  # fmt: skip
