"""Extensions: RFC 2033, 2920, 3030, 3461, 6152, 6531 and some rarer ones.

Two of these rules are metamorphic: the same octets in other TCP segments (R59) or in fewer writes (R60) must get the same
replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import (
    END,
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
    pause,
    raw,
    rcpt,
    refused,
    reply_text,
    script,
)  # fmt: skip
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script, Step
from smtpbench.text import plural

_UNKNOWN_COMMAND = (500, 502)
_UNKNOWN_PARAMETER = (501, 504, 555)

# -- offered extensions work, and others do not -------------------------------------------------------------------

#: Keyword → a command that it makes available.
_COMMANDS: Mapping[str, str] = {
    "VRFY": "VRFY postmaster", "EXPN": "EXPN staff", "HELP": "HELP", "ETRN": "ETRN sender.example",
    "CHUNKING": "BDAT 0 LAST",
}  # fmt: skip
#: Keyword → a parameter of MAIL that it makes available.
_PARAMETERS: Mapping[str, str] = {"SIZE": "SIZE=100", "8BITMIME": "BODY=8BITMIME", "SMTPUTF8": "SMTPUTF8", "DSN": "RET=HDRS"}
#: The same for keywords that few servers offer (RFC 2852, 4865, 6710, 8689).
_RARE_PARAMETERS: Mapping[str, str] = {
    "DELIVERBY": "BY=120;R", "FUTURERELEASE": "HOLDFOR=1", "MT-PRIORITY": "MT-PRIORITY=1", "REQUIRETLS": "REQUIRETLS",
}  # fmt: skip


def _offered_extension_scripts(target_info: TargetInfo) -> Sequence[Script]:
    command_scripts = [
        script(target_info, *opening(target_info), line(text))
        for keyword, text in _COMMANDS.items()
        if keyword in target_info.extensions
    ]
    parameter_scripts = [
        script(target_info, *opening(target_info), mail(target_info, text))
        for keyword, text in _PARAMETERS.items()
        if keyword in target_info.extensions
    ]
    return [script(target_info, *opening(target_info), mail(target_info)), *command_scripts, *parameter_scripts]


def _last_command(dialogue: Dialogue) -> tuple[str, int]:
    """Return the last command before QUIT, and the code of its reply."""
    exchanges = [exchange for exchange in dialogue.exchanges if exchange.sent and not exchange.sent.startswith(b"QUIT")]
    return exchanges[-1].sent.decode("latin-1").rstrip(), exchanges[-1].code


def _evaluate_offered_extensions(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if len(dialogues) == 1:
        return r.inconclusive("the server offers no extension that can be tested")
    control = accepted(dialogues[0].exchange_of(b"MAIL"))
    for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
        command, code = _last_command(dialogue)
        if code in _UNKNOWN_COMMAND or (control and command.startswith("MAIL") and code in _UNKNOWN_PARAMETER):
            what = command.rpartition(" ")[2] if command.startswith("MAIL") else command.split(" ")[0]
            return r.violated(f"the server offers {what}, but replied {code} to it", dialogue_index)
    return r.PASSED


def _missing_extension_scripts(target_info: TargetInfo) -> Sequence[Script]:
    known = {**target_info.keywords_before_tls, **target_info.keywords_in_tls}
    parameters = [text for keyword, text in {**_PARAMETERS, **_RARE_PARAMETERS}.items() if keyword not in known]
    scripts = [script(target_info, *opening(target_info), mail(target_info, text)) for text in parameters]
    if "CHUNKING" not in known and target_info.recipient:
        scripts.append(script(target_info, *envelope(target_info), line("BDAT 0 LAST")))
    if "STARTTLS" not in known and not target_info.implicit_tls:
        scripts.append(script(target_info, *opening(target_info), line("STARTTLS")))
    if not target_info.login_keywords:
        scripts.append(script(target_info, *opening(target_info), line("AUTH LOGIN")))
    return scripts


def _evaluate_missing_extensions(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        command, code = _last_command(dialogue)
        if code // 100 in (2, 3):
            what = command.rpartition(" ")[2] if command.startswith("MAIL") else command.split(" ")[0]
            return r.violated(f"the server does not offer {what}, but replied {code} to it", dialogue_index)
    return r.PASSED if dialogues else r.inconclusive("the server offers every extension that could be tested")


# -- other segments, fewer writes ---------------------------------------------------------------------------------


def _session_writes(target_info: TargetInfo) -> tuple[bytes, ...]:
    """Return the writes of a session with one message, or without a message if no recipient is known.

    NOOP and DATA may only be the last command of a pipelined group (RFC 2920 §3.1).
    """
    begin = (b"RSET\r\n", f"MAIL FROM:<{target_info.sender}>\r\n".encode())
    if not target_info.recipient:
        return (*begin, b"RSET\r\n")
    return (
        *begin,
        f"RCPT TO:<{target_info.recipient}>\r\n".encode(),
        b"DATA\r\n",
        HEADER + b"text\r\n..\r\n.more" + END,
        b"NOOP\r\n",
    )


def _one_octet_segments(octets: bytes) -> Step:
    """Return a step that sends each octet in its own TCP segment."""
    return raw(octets, split=tuple(octets[at : at + 1] for at in range(len(octets))))


def _three_pieces(octets: bytes) -> tuple[Step, ...]:
    """Return steps that send the octets in three pieces, the last one only LF, with pauses between them."""
    middle = len(octets) // 2
    return (
        raw(octets[:middle], 0),
        pause(_PIECE_PAUSE_MS),
        raw(octets[middle:-1], 0),
        pause(_PIECE_PAUSE_MS),
        raw(octets[-1:]),
    )


_PIECE_PAUSE_MS = 15


def _segmentation_scripts(target_info: TargetInfo) -> Sequence[Script]:
    writes = _session_writes(target_info)
    with_pauses = [step for octets in writes for step in _three_pieces(octets)]
    return [
        script(target_info, *opening(target_info), *map(raw, writes)),
        script(target_info, *opening(target_info), *map(_one_octet_segments, writes)),
        script(target_info, *opening(target_info), *with_pauses),
    ]


def _codes(dialogue: Dialogue) -> list[int]:
    """Return the codes of all replies."""
    return [received.reply.code for received in dialogue.replies()]


def _evaluate_same_replies(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    expected = _codes(dialogues[0])
    for dialogue_index, dialogue in enumerate(dialogues[1:], 1):
        if 421 in _codes(dialogue):
            return r.inconclusive("the server ended the session with 421", dialogue_index)
        codes = _codes(dialogue)
        for number, (code, expected_code) in enumerate(zip_longest(codes, expected), 1):
            if code != expected_code:
                shown = ["missing" if one is None else one for one in (code, expected_code)]
                actual = f"reply {number} was {shown[0]}; with one write for each command it was {shown[1]}"
                return r.violated(actual, dialogue_index)
    return r.PASSED


def _pipelining_scripts(target_info: TargetInfo) -> Sequence[Script]:
    writes = _session_writes(target_info)
    lockstep = script(target_info, *opening(target_info), *map(raw, writes))
    joined = [raw(b"".join(writes), len(writes))] if not target_info.recipient else [
        raw(b"".join(writes[:4]), 4), raw(writes[4] + writes[5], 2),
    ]  # fmt: skip
    return [lockstep, script(target_info, *opening(target_info), *joined)]


# -- chunks ---------------------------------------------------------------------------------------------------------


def _bdat(chunk: bytes, *, last: bool = True) -> Step:
    return raw(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if last else b"") + chunk)


def _chunk_scripts(target_info: TargetInfo) -> Sequence[Script]:
    chunk = HEADER + b"\r\n.\r\nNOOP\r\nRSET\r\nMAIL FROM:<>\r\n.\r\n"
    return [
        script(target_info, *envelope(target_info), _bdat(chunk), NOOP),
        script(target_info, *envelope(target_info), _bdat(chunk[:40], last=False), _bdat(chunk[40:]), NOOP),
    ]


def _evaluate_chunks(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        chunks = [exchange for exchange in dialogue.exchanges if exchange.sent.startswith(b"BDAT")]
        noop = dialogue.exchange_of(b"NOOP")
        if not accepted(dialogue.exchange_of(b"RCPT")):
            return r.inconclusive(reply_text("RCPT", dialogue.exchange_of(b"RCPT")), dialogue_index)
        for exchange in chunks:
            if len(exchange.codes) > 1 or (noop is not None and len(noop.codes) > 1):
                return r.violated("the server read octets of a chunk as commands", dialogue_index)
            if not exchange.codes and not dialogue.closed_without_221:
                return r.violated("the server did not reply to a chunk", dialogue_index)
    return r.PASSED


def _chunk_out_of_order_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [script(target_info, *opening(target_info), _bdat(b"NOOP\r\nNOOP\r\n"), NOOP)]


def _evaluate_chunk_out_of_order(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    exchange, noop = dialogues[0].exchange_of(b"BDAT"), dialogues[0].exchange_of(b"NOOP")
    if accepted(exchange):
        return r.violated(reply_text("BDAT without a recipient", exchange))
    replies = sum(len(each.codes) for each in (exchange, noop) if each is not None)
    if dialogues[0].closed_without_221 and replies < 2:
        return r.PASSED
    return r.violated_if(replies > 2, "the server read octets of a rejected chunk as commands")


def _bdat_and_data_scripts(target_info: TargetInfo) -> Sequence[Script]:
    mixed = [script(target_info, *envelope(target_info), _bdat(HEADER, last=False), line("DATA"))]
    if "BINARYMIME" in target_info.extensions:
        mixed.append(
            script(target_info, *opening(target_info), mail(target_info, "BODY=BINARYMIME"), rcpt(target_info), line("DATA"))
        )
    return mixed


def _evaluate_bdat_and_data(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        before, exchange = dialogue.exchange_of(b"BDAT" if dialogue_index == 0 else b"RCPT"), dialogue.exchange_of(b"DATA")
        if not accepted(before):
            return r.inconclusive(reply_text("BDAT" if dialogue_index == 0 else "RCPT", before), dialogue_index)
        if exchange is not None and exchange.code == 354:
            where = "after BDAT" if dialogue_index == 0 else "for a message in BINARYMIME"
            return r.violated(f"the server replied 354 to DATA {where}", dialogue_index)
    return r.PASSED


# -- parameters -----------------------------------------------------------------------------------------------------


def _body_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, *opening(target_info), mail(target_info, text))
        for text in ("", "BODY=8BITMIME", "BODY=7BIT", "body=8bitmime")
    ]


def _evaluate_body(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if not accepted(dialogues[0].exchange_of(b"MAIL")):
        return r.inconclusive(reply_text("MAIL", dialogues[0].exchange_of(b"MAIL")))
    for dialogue_index, dialogue in enumerate(dialogues):
        exchange = dialogue.exchange_of(b"MAIL")
        if exchange is not None and exchange.code // 100 == 5:
            return r.violated(reply_text("MAIL with BODY", exchange), dialogue_index)
    return r.PASSED


def _smtputf8_scripts(target_info: TargetInfo) -> Sequence[Script]:
    return [
        script(target_info, *opening(target_info), mail(target_info, "SMTPUTF8=x")),
        script(target_info, *opening(target_info), line("MAIL FROM:<j\u00fcrgen@sender.example>")),
    ]


def _evaluate_smtputf8(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    arguments = ("SMTPUTF8 with a value", "an address in UTF-8 without SMTPUTF8")
    for dialogue_index, dialogue in enumerate(dialogues):
        if accepted(dialogue.exchange_of(b"MAIL")):
            return r.violated(reply_text(arguments[dialogue_index], dialogue.exchange_of(b"MAIL")), dialogue_index)
    return r.PASSED


_DSN_MAIL_PARAMETERS = ("RET=ALL", "ENVID=a+ZZ", "RET=FULL RET=HDRS")
_DSN_RCPT_PARAMETERS = ("NOTIFY=NEVER,SUCCESS", "NOTIFY=SOMETIMES", "NOTIFY=", "ORCPT=nobody@recipient.example")


def _dsn_scripts(target_info: TargetInfo) -> Sequence[Script]:
    parameter_scripts = [
        script(target_info, *opening(target_info), mail(target_info, text)) for text in _DSN_MAIL_PARAMETERS
    ]
    if not target_info.recipient:
        return parameter_scripts
    begin = (*opening(target_info), mail(target_info))
    return parameter_scripts + [
        script(target_info, *begin, line(f"RCPT TO:<{target_info.recipient}> {text}")) for text in _DSN_RCPT_PARAMETERS
    ]


def _evaluate_dsn(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        at_mail = dialogue_index < len(_DSN_MAIL_PARAMETERS)
        text = (_DSN_MAIL_PARAMETERS + _DSN_RCPT_PARAMETERS)[dialogue_index]
        if accepted(dialogue.exchange_of(b"MAIL" if at_mail else b"RCPT")):
            return r.violated(f"the server replied 250 to {text}", dialogue_index)
    return r.PASSED


#: Keyword → its parameter with a malformed value, or a value outside the range of the RFC.
_INVALID_PARAMETERS: Mapping[str, str] = {
    "DELIVERBY": "BY=soon",
    "FUTURERELEASE": "HOLDFOR=later",
    "MT-PRIORITY": "MT-PRIORITY=99",
}


def _invalid_parameter_scripts(target_info: TargetInfo) -> Sequence[Script]:
    invalid = [text for keyword, text in _INVALID_PARAMETERS.items() if keyword in target_info.extensions]
    if "REQUIRETLS" in target_info.keywords_before_tls and not (target_info.tls or target_info.implicit_tls):
        invalid.append("REQUIRETLS")
    return [script(target_info, *opening(target_info), mail(target_info, text)) for text in invalid]


def _evaluate_invalid_parameters(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if accepted(dialogue.exchange_of(b"MAIL")):
            parameter = _last_command(dialogue)[0].rpartition(" ")[2]
            return r.violated(f"the server replied 250 to MAIL with {parameter}", dialogue_index)
    return (
        r.PASSED
        if dialogues
        else r.inconclusive("the server offers none of DELIVERBY, FUTURERELEASE, MT-PRIORITY and REQUIRETLS")
    )


# -- LMTP ------------------------------------------------------------------------------------------------------------


def _lmtp_scripts(target_info: TargetInfo) -> Sequence[Script]:
    # a server that sends one reply instead of two is recognized by its reply to NOOP
    two = (
        *opening(target_info),
        mail(target_info),
        rcpt(target_info),
        rcpt(target_info),
        line("DATA"),
        message(),
        pause(_SECOND_REPLY_MS),
        NOOP,
    )
    return [
        script(target_info, line("EHLO client.example")),
        script(target_info, *two),
        script(target_info, hello(target_info)),
    ]


_SECOND_REPLY_MS = 400


def _evaluate_lmtp(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    if accepted(dialogues[0].exchange_of(b"EHLO")):
        return r.violated(reply_text("EHLO", dialogues[0].exchange_of(b"EHLO")))
    recipients = sum(accepted(exchange) for exchange in dialogues[1].exchanges if exchange.sent.startswith(b"RCPT"))
    text = dialogues[1].exchange_of(HEADER[:5])
    if not data_accepted(dialogues[1]) or text is None or refused(text):
        return r.inconclusive(reply_text("the message", text), 1)
    actual = f"the server sent {plural(len(text.codes), 'reply')} to a message for {plural(recipients, 'recipient')}"
    return r.violated_if(len(text.codes) != recipients, actual, 1)


RULES = (
    Rule(
        "R12",
        "advertised-dead",
        "RFC 5321 §4.2.4",
        r.VIOLATION,
        "The server must support every extension that its reply to EHLO offers.",
        "any reply except that the command or parameter is unknown",
        probe=_offered_extension_scripts,
        evaluate=_evaluate_offered_extensions,
    ),
    Rule(
        "R13",
        "unadvertised-live",
        "RFC 5321 §4.1.1.1",
        r.WARNING,
        "The server must not accept commands and parameters of extensions that it does not offer.",
        "500, 502, 503 or 555",
        probe=_missing_extension_scripts,
        evaluate=_evaluate_missing_extensions,
    ),
    Rule(
        "R59",
        "segmentation",
        "RFC 5321 §4.1.1",
        r.VIOLATION,
        "The division of octets into TCP segments must not change the replies.",
        "the same replies to the same octets",
        probe=_segmentation_scripts,
        evaluate=_evaluate_same_replies,
    ),
    Rule(
        "R60",
        "pipelining",
        "RFC 2920 §3.2",
        r.VIOLATION,
        "The server must reply to pipelined commands in order, as if they came one by one.",
        "the same replies as to one command at a time",
        needs=("PIPELINING",),
        probe=_pipelining_scripts,
        evaluate=_evaluate_same_replies,
    ),
    Rule(
        "R64",
        "bdat-octets",
        "RFC 3030 §2",
        r.VIOLATION,
        "A chunk has exactly as many octets as BDAT announces, whatever they contain.",
        "one reply to each chunk",
        needs=("CHUNKING", "recipient"),
        probe=_chunk_scripts,
        evaluate=_evaluate_chunks,
    ),
    Rule(
        "R65",
        "bdat-reject",
        "RFC 3030 §2",
        r.VIOLATION,
        "The server must reject BDAT out of order and discard the octets of the chunk.",
        "one error reply, then replies to the commands after the chunk",
        needs=("CHUNKING",),
        probe=_chunk_out_of_order_scripts,
        evaluate=_evaluate_chunk_out_of_order,
    ),
    Rule(
        "R66",
        "bdat-mix",
        "RFC 3030 §3",
        r.VIOLATION,
        "The server must reject DATA after BDAT in the same mail transaction, and for a message in BINARYMIME.",
        "503 to DATA",
        needs=("CHUNKING", "recipient"),
        probe=_bdat_and_data_scripts,
        evaluate=_evaluate_bdat_and_data,
    ),
    Rule(
        "R67",
        "body-param",
        "RFC 6152 §2",
        r.VIOLATION,
        "A server that offers 8BITMIME must accept BODY=7BIT and BODY=8BITMIME.",
        "250 to MAIL",
        needs=("8BITMIME",),
        probe=_body_scripts,
        evaluate=_evaluate_body,
    ),
    Rule(
        "R68",
        "smtputf8",
        "RFC 6531 §3.5",
        r.WARNING,
        "The server must reject an address in UTF-8 without the parameter SMTPUTF8, and SMTPUTF8 with a value.",
        "501 or 555 to a value; 550 or 553 to the address",
        needs=("SMTPUTF8",),
        probe=_smtputf8_scripts,
        evaluate=_evaluate_smtputf8,
    ),
    Rule(
        "R78",
        "dsn-arguments",
        "RFC 3461 §4",
        r.VIOLATION,
        "The server must reject a DSN parameter with an invalid value.",
        "501 to MAIL or RCPT",
        needs=("DSN",),
        probe=_dsn_scripts,
        evaluate=_evaluate_dsn,
    ),
    Rule(
        "R79",
        "rare-parameters",
        "RFC 5321 §4.1.1.11",
        r.VIOLATION,
        "The server must reject BY, HOLDFOR and MT-PRIORITY with an invalid value, and REQUIRETLS outside TLS (RFC 2852, "
        "4865, "
        "6710, 8689).",
        "an error reply to MAIL",
        probe=_invalid_parameter_scripts,
        evaluate=_evaluate_invalid_parameters,
    ),
    Rule(
        "R80",
        "lmtp",
        "RFC 2033 §4",
        r.VIOLATION,
        "In LMTP, the server must reject EHLO, and must send one reply for each accepted recipient after the end of the "
        "data.",
        "500 to EHLO; as many replies to the message as recipients",
        needs=("lmtp", "recipient"),
        probe=_lmtp_scripts,
        evaluate=_evaluate_lmtp,
    ),
)
