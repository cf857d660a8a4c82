"""Steps that probes are made of, and checks that several rules share.

Every step continues whatever the server replies: a probe runs to its end, and its dialogue is evaluated afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.engine import api
from smtpbench.rules.end_reason import describe_end
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.smtp.command import EXPECTED, verb_of
from smtpbench.smtp.reply import MAX_KEPT_REPLY_BYTES
from smtpbench.units import NS_PER_MS

HEADER = b"From: <probe@sender.example>\r\nSubject: probe\r\n\r\n"
END = b"\r\n.\r\n"
#: A message above the size limit is sent only if the limit is at most this.
MAX_OVERSIZE_LIMIT_BYTES = 4 * 1024 * 1024
#: Wait for unsolicited replies after the last step, milliseconds.
QUIET_PERIOD_MS = 400


def raw(octets: bytes, replies: int = 1, *, split: tuple[bytes, ...] = ()) -> Step:
    """Return a step that sends octets.

    Args:
        octets: What to send.
        replies: Number of replies to wait for.
        split: TCP segments to send instead, which together are the octets.
    """
    verb = _verb(octets)
    expected_replies = (ExpectedReply(verb, s.ANY),) * replies
    return Step(
        s.COMMAND, octets, expected_replies=expected_replies, metric=verb if replies == 1 else "pipeline", split=split
    )


def _verb(octets: bytes) -> str:
    """Return the metric of its replies: a verb, `message`, or `other`."""
    if octets.startswith(HEADER) or octets.endswith(END):
        return "message"
    verb = verb_of(octets)
    return verb if verb in EXPECTED else "other"


def line(text: str | bytes, replies: int = 1) -> Step:
    """Return a step that sends one command line."""
    return raw((text.encode() if isinstance(text, str) else text) + b"\r\n", replies)


def pause(ms: int) -> Step:
    """Return a step that sends nothing for a while. Replies that arrive meanwhile are part of the dialogue."""
    return Step(s.PAUSE, pause_ns=ms * NS_PER_MS)


def hello(target_info: TargetInfo) -> Step:
    """Return EHLO, or LHLO in LMTP (RFC 2033 §4.1)."""
    return line(f"{'LHLO' if target_info.lmtp else 'EHLO'} {target_info.client}")


def starttls(wire: bytes = b"STARTTLS\r\n") -> Step:
    """Return STARTTLS, with further octets if `wire` has some, and the TLS handshake after a reply of 220."""
    return Step(s.STARTTLS, wire, expected_replies=(ExpectedReply("STARTTLS", (220,)),), metric="STARTTLS")


def login(mechanism: str, credentials: tuple[str, str] | None = None) -> Step:
    """Return a complete SASL exchange, with the target's credentials or with others."""
    return Step(
        s.AUTH, expected_replies=(ExpectedReply("AUTH", (2,)),), metric="AUTH", mechanism=mechanism, credentials=credentials
    )


def opening(target_info: TargetInfo) -> tuple[Step, ...]:
    """Return what must come before MAIL: EHLO, and TLS and a login where the server requires them."""
    steps = [hello(target_info)]
    if target_info.tls and not target_info.implicit_tls:
        steps += [starttls(), hello(target_info)]
    if target_info.login and target_info.credentials:
        steps.append(login(mechanism_of(target_info)))
    return tuple(steps)


def before_auth(target_info: TargetInfo) -> tuple[Step, ...]:
    """Return the steps up to where AUTH is offered: EHLO, and TLS if AUTH is offered only inside TLS."""
    if target_info.implicit_tls or (not target_info.tls and "AUTH" in target_info.keywords_before_tls):
        return (hello(target_info),)
    return (hello(target_info), starttls(), hello(target_info))


def mechanism_of(target_info: TargetInfo) -> str:
    """Return the SASL mechanism to use: an offered one, preferably PLAIN."""
    offered = target_info.login_keywords.upper().split()
    return next((one for one in ("PLAIN", "LOGIN", "CRAM-MD5") if one in offered), "PLAIN")


def mail(target_info: TargetInfo, parameters: str = "") -> Step:
    """Return MAIL from the known sender."""
    return line(f"MAIL FROM:<{target_info.sender}>{' ' if parameters else ''}{parameters}")


def rcpt(target_info: TargetInfo) -> Step:
    """Return RCPT to the known recipient."""
    return line(f"RCPT TO:<{target_info.recipient}>")


def envelope(target_info: TargetInfo) -> tuple[Step, ...]:
    """Return the steps up to and including MAIL and RCPT."""
    return (*opening(target_info), mail(target_info), rcpt(target_info))


def message(body: bytes = b"text", replies: int = 1) -> Step:
    """Return a complete message for after DATA, including the end of data."""
    return raw(HEADER + body + END, replies)


def oversize(target_info: TargetInfo) -> bytes:
    """Return a message text above the announced size limit, without its end; empty without a limit or if it is too high."""
    limit_bytes = target_info.limit_bytes
    return (
        HEADER + (b"x" * 70 + b"\r\n") * (limit_bytes // 72 + 1000) if 0 < limit_bytes <= MAX_OVERSIZE_LIMIT_BYTES else b""
    )


NOOP = line("NOOP")
QUIT = line("QUIT")
QUIET_PERIOD = pause(QUIET_PERIOD_MS)


def script(target_info: TargetInfo, *steps: Step, quiet_period: bool = True) -> Script:
    """Return the script of a probe: these steps and QUIT.

    Args:
        target_info: What is known of the target.
        steps: What to send before QUIT.
        quiet_period: Whether to wait for further replies after QUIT, until the server closes or `QUIET_PERIOD_MS` have
            passed.
    """
    return Script.of(
        "probe",
        (*steps, QUIT, *((QUIET_PERIOD,) if quiet_period else ())),
        greeting=s.ANY_GREETING,
        implicit_tls=target_info.implicit_tls,
        lmtp=target_info.lmtp,
    )


def probe_of(*sessions: Callable[[TargetInfo], tuple[Step, ...]]) -> Callable[[TargetInfo], list[Script]]:
    """Return a probe of one session for each of these functions, which return its steps."""
    return lambda target_info: [script(target_info, *steps(target_info)) for steps in sessions]


# -- evaluating --------------------------------------------------------------------------------------------------


def accepted(exchange: Exchange | None) -> bool:
    """Return whether the first reply is 2yz."""
    return exchange is not None and exchange.code // 100 == 2


def refused(exchange: Exchange | None) -> bool:
    """Return whether the first reply is 4yz or 5yz."""
    return exchange is not None and exchange.code // 100 in (4, 5)


def data_accepted(dialogue: Dialogue) -> bool:
    """Return whether the reply to DATA is 354."""
    exchange = dialogue.exchange_of(b"DATA")
    return exchange is not None and exchange.code == 354


def no_reply_text(dialogue: Dialogue) -> str:
    """Return why the server cannot be judged by a dialogue: it did not reply. Empty if it replied.

    QUIT ends every probe and is not what a probe tests. What a closed connection means, `rules.tested` decides.
    """
    first, *sent = dialogue.exchanges
    if not sent:
        return "" if dialogue.closed_by_server else f"nothing was sent ({describe_end(dialogue.end_reason)})"
    last = sent[-1]
    if len(last.incomplete) > MAX_KEPT_REPLY_BYTES or len(first.incomplete) > MAX_KEPT_REPLY_BYTES:
        return "a reply has no end"
    if not any(exchange.codes and exchange.code for exchange in sent) and first.code // 100 == 2:
        return f"the server replied to no command ({describe_end(dialogue.end_reason)})"
    if dialogue.end_reason == api.TIMEOUT and not last.codes and last.sent.upper() != QUIT.wire:
        return f"the server did not reply to {verb_of(last.sent) or 'a text'} in time"
    return ""


def reply_text(what: str, exchange: Exchange | None) -> str:
    """Return what the server replied, for `Verdict.actual`: codes only, never the text of its replies.

    Args:
        what: What was sent, such as `a second EHLO`.
        exchange: The exchange in which it was sent; None if it was not.
    """
    if exchange is None:
        return f"{what} was not sent"
    if not exchange.codes:
        return f"the server did not reply to {what}"
    codes = ", ".join(str(code) if code else "without a code" for code in exchange.codes)
    return f"the server replied {codes} to {what}"
