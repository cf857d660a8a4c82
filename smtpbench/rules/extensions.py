"""Extensions, and the octets that all of them share: RFC 2033, 2920, 3030, 3461, 6152, 6531 and some rarer ones.

Two of these rules are metamorphic: the same octets, cut otherwise (R59) or sent together (R60), must get the same replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    raw,
    rcpt,
    ready_for_text,
    refused,
    said_of,
    script,
)  # fmt: skip
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
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


def _use_offered(target_info: TargetInfo) -> Sequence[Script]:
    lines = [
        script(target_info, *opening(target_info), line(text))
        for keyword, text in _VERBS.items()
        if keyword in target_info.extensions
    ]
    mails = [
        script(target_info, *opening(target_info), mail(target_info, text))
        for keyword, text in _PARAMETERS.items()
        if keyword in target_info.extensions
    ]
    return [script(target_info, *opening(target_info), mail(target_info)), *lines, *mails]


def _said_last(dialogue: Dialogue) -> tuple[str, int]:
    """What was said before QUIT, and its code."""
    exchanges = [exchange for exchange in dialogue.exchanges if exchange.sent and not exchange.sent.startswith(b"QUIT")]
    return exchanges[-1].sent.decode("latin-1").rstrip(), exchanges[-1].code


def _offered_works(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if len(dialogues) == 1:
        return r.inconclusive("nothing is offered that could be used")
    control = accepted(dialogues[0].exchange_of(b"MAIL"))
    for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
        sent, code = _said_last(dialogue)
        if code in _NOT_KNOWN or (control and sent.startswith("MAIL") and code in _PARAMETER_REFUSED):
            what = sent.rpartition(" ")[2] if sent.startswith("MAIL") else sent.split(" ")[0]
            return r.violated(f"{what} is offered, and was answered {code}", dialogue_index)
    return r.PASSED


def _use_missing(target_info: TargetInfo) -> Sequence[Script]:
    known = {**target_info.keywords_before_tls, **target_info.keywords_in_tls}
    parameters = [text for keyword, text in {**_PARAMETERS, **_RARE}.items() if keyword not in known]
    scripts = [script(target_info, *opening(target_info), mail(target_info, text)) for text in parameters]
    if "CHUNKING" not in known and target_info.recipient:
        scripts.append(script(target_info, *envelope(target_info), line("BDAT 0 LAST")))
    if "STARTTLS" not in known and not target_info.implicit_tls:
        scripts.append(script(target_info, *opening(target_info), line("STARTTLS")))
    if not target_info.login_keywords:
        scripts.append(script(target_info, *opening(target_info), line("AUTH LOGIN")))
    return scripts


def _missing_is_missing(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        sent, code = _said_last(dialogue)
        if code // 100 in (2, 3):
            what = sent.rpartition(" ")[2] if sent.startswith("MAIL") else sent.split(" ")[0]
            return r.violated(f"{what} is not offered, and was answered {code}", dialogue_index)
    return r.PASSED if dialogues else r.inconclusive("there is nothing that it does not offer")


# -- octets cut and joined otherwise -------------------------------------------------------------------------------


def _mailing(target_info: TargetInfo) -> tuple[bytes, ...]:
    """The writes of a session with a message, or without one where nobody takes it."""
    begin = (b"NOOP\r\n", f"MAIL FROM:<{target_info.sender}>\r\n".encode())
    if not target_info.recipient:
        return (*begin, b"RSET\r\n")
    return (
        *begin,
        f"RCPT TO:<{target_info.recipient}>\r\n".encode(),
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


def _cuts(target_info: TargetInfo) -> Sequence[Script]:
    writes = _mailing(target_info)
    in_time = [step for octets in writes for step in _cut_in_time(octets)]
    return [
        *(script(target_info, *opening(target_info), *map(how, writes)) for how in (raw, _cut)),
        script(target_info, *opening(target_info), *in_time),
    ]


def _codes(dialogue: Dialogue) -> list[int]:
    """The codes of all replies."""
    return [one.reply.code for one in dialogue.replies()]


def _same_replies(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    whole = _codes(dialogues[0])
    for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
        if 421 in _codes(dialogue):
            return r.inconclusive("the session was ended with 421", dialogue_index)
        if _codes(dialogue) != whole:
            at = next(at for at in range(len(whole) + 1) if _codes(dialogue)[at : at + 1] != whole[at : at + 1])
            seen, due = _codes(dialogue)[at : at + 1], whole[at : at + 1]
            return r.violated(
                f"reply {at + 1} was {seen or 'none'} where whole writes had got {due or 'none'}", dialogue_index
            )
    return r.PASSED


def _groups(target_info: TargetInfo) -> Sequence[Script]:
    writes = _mailing(target_info)
    lockstep = script(target_info, *opening(target_info), *map(raw, writes))
    joined = [raw(b"".join(writes), len(writes))] if not target_info.recipient else [
        raw(b"".join(writes[:4]), 4), raw(writes[4] + writes[5], 2),
    ]  # fmt: skip
    return [lockstep, script(target_info, *opening(target_info), *joined)]


# -- chunks ---------------------------------------------------------------------------------------------------------


def _bdat(chunk: bytes, *, last: bool = True, behind: bytes = b"", replies: int = 1) -> Step:
    return raw(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if last else b"") + chunk + behind, replies)


def _full_chunks(target_info: TargetInfo) -> Sequence[Script]:
    chunk = HEADER + b"\r\n.\r\nNOOP\r\nRSET\r\nMAIL FROM:<>\r\n.\r\n"
    return [
        script(target_info, *envelope(target_info), _bdat(chunk), NOOP),
        script(target_info, *envelope(target_info), _bdat(chunk[:40], last=False), _bdat(chunk[40:]), NOOP),
    ]


def _chunks_counted(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        chunks = [exchange for exchange in dialogue.exchanges if exchange.sent.startswith(b"BDAT")]
        noop = dialogue.exchange_of(b"NOOP")
        if not accepted(dialogue.exchange_of(b"RCPT")):
            return r.inconclusive(f"RCPT was not taken: {said_of(dialogue.exchange_of(b'RCPT'))}", dialogue_index)
        for exchange in chunks:
            if len(exchange.codes) > 1 or (noop is not None and len(noop.codes) > 1):
                return r.violated("octets of a chunk were read as commands", dialogue_index)
            if not exchange.codes and not dialogue.closed_without_221:
                return r.violated("a chunk got no reply", dialogue_index)
    return r.PASSED


def _stray_chunks(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), _bdat(b"NOOP\r\nNOOP\r\n"), NOOP)]


def _stray_refused(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange, noop = dialogues[0].exchange_of(b"BDAT"), dialogues[0].exchange_of(b"NOOP")
    if accepted(exchange):
        return r.violated(f"BDAT without a recipient was {said_of(exchange)}")
    replies = sum(len(each.codes) for each in (exchange, noop) if each is not None)
    if dialogues[0].closed_without_221 and replies < 2:
        return r.PASSED
    return r.passed_unless(replies > 2, "the octets of a chunk that was refused were read as commands")


def _mixtures(target_info: TargetInfo) -> Sequence[Script]:
    mixed = [script(target_info, *envelope(target_info), _bdat(HEADER, last=False), line("DATA"))]
    if "BINARYMIME" in target_info.extensions:
        mixed.append(
            script(target_info, *opening(target_info), mail(target_info, "BODY=BINARYMIME"), rcpt(target_info), line("DATA"))
        )
    return mixed


def _not_mixed(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        before, exchange = dialogue.exchange_of(b"BDAT" if dialogue_index == 0 else b"RCPT"), dialogue.exchange_of(b"DATA")
        if not accepted(before):
            return r.inconclusive(f"what must come before was {said_of(before)}", dialogue_index)
        if exchange is not None and exchange.code == 354:
            return r.violated(
                f"DATA was answered 354 {'after BDAT' if dialogue_index == 0 else 'for a message in BINARYMIME'}",
                dialogue_index,
            )
    return r.PASSED


# -- parameters -----------------------------------------------------------------------------------------------------


def _bodies(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, *opening(target_info), mail(target_info, text))
        for text in ("", "BODY=8BITMIME", "BODY=7BIT", "body=8bitmime")
    ]


def _bodies_taken(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not accepted(dialogues[0].exchange_of(b"MAIL")):
        return r.inconclusive(f"MAIL was not taken: {said_of(dialogues[0].exchange_of(b'MAIL'))}")
    for dialogue_index, dialogue in enumerate(dialogues):
        exchange = dialogue.exchange_of(b"MAIL")
        if exchange is not None and exchange.code // 100 == 5:
            return r.violated(f"MAIL with BODY was {said_of(exchange)}", dialogue_index)
    return r.PASSED


def _utf8(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, *opening(target_info), mail(target_info, "SMTPUTF8=x")),
        script(target_info, *opening(target_info), line("MAIL FROM:<j\u00fcrgen@sender.example>")),
    ]


def _utf8_asked_for(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    whats = ("SMTPUTF8 with a value", "an address in UTF-8 without SMTPUTF8")
    for dialogue_index, dialogue in enumerate(dialogues):
        if accepted(dialogue.exchange_of(b"MAIL")):
            return r.violated(f"{whats[dialogue_index]} was {said_of(dialogue.exchange_of(b'MAIL'))}", dialogue_index)
    return r.PASSED


_DSN_MAIL = ("RET=ALL", "ENVID=a+ZZ", "RET=FULL RET=HDRS")
_DSN_RCPT = ("NOTIFY=NEVER,SUCCESS", "NOTIFY=SOMETIMES", "NOTIFY=", "ORCPT=nobody@recipient.example")


def _dsn(target_info: TargetInfo) -> Sequence[Script]:
    mails = [script(target_info, *opening(target_info), mail(target_info, text)) for text in _DSN_MAIL]
    if not target_info.recipient:
        return mails
    begin = (*opening(target_info), mail(target_info))
    return mails + [script(target_info, *begin, line(f"RCPT TO:<{target_info.recipient}> {text}")) for text in _DSN_RCPT]


def _dsn_read(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        at_mail = dialogue_index < len(_DSN_MAIL)
        text = (_DSN_MAIL + _DSN_RCPT)[dialogue_index]
        if accepted(dialogue.exchange_of(b"MAIL" if at_mail else b"RCPT")):
            return r.violated(f"{text} was answered 250", dialogue_index)
    return r.PASSED


#: What is wrong with them: the value's syntax, or a range that the RFC sets.
_RARE_WRONG: Mapping[str, str] = {"DELIVERBY": "BY=soon", "FUTURERELEASE": "HOLDFOR=later", "MT-PRIORITY": "MT-PRIORITY=99"}


def _rare(target_info: TargetInfo) -> Sequence[Script]:
    wrong = [text for keyword, text in _RARE_WRONG.items() if keyword in target_info.extensions]
    if "REQUIRETLS" in target_info.keywords_before_tls and not (target_info.tls or target_info.implicit_tls):
        wrong.append("REQUIRETLS")
    return [script(target_info, *opening(target_info), mail(target_info, text)) for text in wrong]


def _rare_read(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if accepted(dialogue.exchange_of(b"MAIL")):
            return r.violated(f"MAIL with {_said_last(dialogue)[0].rpartition(' ')[2]} was answered 250", dialogue_index)
    return (
        r.PASSED if dialogues else r.inconclusive("none of DELIVERBY, FUTURERELEASE, MT-PRIORITY and REQUIRETLS is offered")
    )


# -- LMTP ------------------------------------------------------------------------------------------------------------


def _lmtp(target_info: TargetInfo) -> Sequence[Script]:
    # who says one reply where two are due is heard by the NOOP behind it
    two = (
        *opening(target_info),
        mail(target_info),
        rcpt(target_info),
        rcpt(target_info),
        line("DATA"),
        message(),
        pause(_SECOND_MS),
        NOOP,
    )
    return [
        script(target_info, line("EHLO client.example")),
        script(target_info, *two),
        script(target_info, hello(target_info)),
    ]


_SECOND_MS = 400


def _lmtp_spoken(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if accepted(dialogues[0].exchange_of(b"EHLO")):
        return r.violated(f"EHLO was {said_of(dialogues[0].exchange_of(b'EHLO'))}")
    taken = sum(accepted(exchange) for exchange in dialogues[1].exchanges if exchange.sent.startswith(b"RCPT"))
    text = dialogues[1].exchange_of(HEADER[:5])
    if not ready_for_text(dialogues[1]) or text is None or refused(text):
        return r.inconclusive(f"no message was taken: {said_of(text)}", 1)
    return r.passed_unless(len(text.codes) != taken, f"a message for {taken} recipients got {len(text.codes)} replies", 1)


RULES = (
    Rule(
        "R12", "advertised-dead", "RFC 5321 §4.2.4", r.VIOLATION, "What the reply to EHLO offers is there.",
        "any reply but one that the command or parameter is not known", probe=_use_offered, evaluate=_offered_works,
    ),
    Rule(
        "R13", "unadvertised-live", "RFC 5321 §4.1.1.1", r.WARNING, "What the reply to EHLO does not offer is not there.",
        "500, 502, 503 or 555", probe=_use_missing, evaluate=_missing_is_missing,
    ),
    Rule(
        "R59", "segmentation", "RFC 5321 §4.1.1", r.VIOLATION, "How octets are cut into segments means nothing.",
        "the same replies to the same octets", probe=_cuts, evaluate=_same_replies,
    ),
    Rule(
        "R60", "pipelining", "RFC 2920 §3.2", r.VIOLATION,
        "Commands sent together are answered as if sent one by one, in order.",
        "the replies of lockstep", needs=("PIPELINING",), probe=_groups, evaluate=_same_replies,
    ),
    Rule(
        "R64", "bdat-octets", "RFC 3030 §2", r.VIOLATION, "A chunk is as many octets as BDAT says, whatever they are.",
        "one reply a chunk", needs=("CHUNKING", "recipient"), probe=_full_chunks, evaluate=_chunks_counted,
    ),
    Rule(
        "R65", "bdat-reject", "RFC 3030 §2", r.VIOLATION, "A chunk out of order is refused, and its octets are thrown away.",
        "one refusal, then replies to what follows the chunk", needs=("CHUNKING",), probe=_stray_chunks,
        evaluate=_stray_refused,
    ),
    Rule(
        "R66", "bdat-mix", "RFC 3030 §3", r.VIOLATION,
        "DATA is refused in a transaction that BDAT began, and for a message in BINARYMIME.",
        "503 to DATA", needs=("CHUNKING", "recipient"), probe=_mixtures, evaluate=_not_mixed,
    ),
    Rule(
        "R67", "body-param", "RFC 6152 §2", r.VIOLATION, "Who offers 8BITMIME takes BODY=7BIT and BODY=8BITMIME.", "250",
        needs=("8BITMIME",), probe=_bodies, evaluate=_bodies_taken,
    ),
    Rule(
        "R68", "smtputf8", "RFC 6531 §3.5", r.WARNING,
        "An address in UTF-8 is taken only with SMTPUTF8, which has no value.",
        "501 or 555; 550 or 553", needs=("SMTPUTF8",), probe=_utf8, evaluate=_utf8_asked_for,
    ),
    Rule(
        "R78", "dsn-arguments", "RFC 3461 §4", r.VIOLATION,
        "A parameter of DSN with a value that it cannot have is refused.",
        "501", needs=("DSN",), probe=_dsn, evaluate=_dsn_read,
    ),
    Rule(
        "R79", "rare-parameters", "RFC 5321 §4.1.1.11", r.VIOLATION,
        "BY, HOLDFOR, MT-PRIORITY and REQUIRETLS are refused with a value they cannot have, or where they cannot be "
        "(RFC 2852, "
        "4865, 6710, 8689).",
        "a refusal", probe=_rare, evaluate=_rare_read,
    ),
    Rule(
        "R80", "lmtp", "RFC 2033 §4", r.VIOLATION,
        "LMTP knows no EHLO, and answers the end of the data once for each recipient that was taken.",
        "500 to EHLO; as many replies as recipients", needs=("lmtp", "recipient"), probe=_lmtp, evaluate=_lmtp_spoken,
    ),
)  # fmt: skip
