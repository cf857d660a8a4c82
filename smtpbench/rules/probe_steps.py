"""Steps that probes are made of, and judgements that many of them share.

Every step goes on whatever is answered: a probe says its dialogue to the end, and what came of it is judged afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.rules.target_info import TargetInfo
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue, Exchange
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.smtp.command import EXPECTED, verb_of
from smtpbench.units import NS_PER_MS

HEADER = b"From: <probe@sender.example>\r\nSubject: probe\r\n\r\n"
END = b"\r\n.\r\n"
#: A message beyond the limit is tried where the limit is no more than this.
OVERSIZE_TRY_BYTES = 4 * 1024 * 1024
#: How long a probe listens for what it did not ask for, once all is said.
LISTEN_MS = 400


def raw(octets: bytes, replies: int = 1, *, split: tuple[bytes, ...] = ()) -> Step:
    """Any octets, and how many replies to wait for. split: write them in these segments instead."""
    verb = _verb(octets)
    expected_replies = (ExpectedReply(verb, s.ANY),) * replies
    return Step(
        s.COMMAND, octets, expected_replies=expected_replies, metric=verb if replies == 1 else "pipeline", split=split
    )


def _verb(octets: bytes) -> str:
    """What its replies are counted under: a verb, `message`, or `other`."""
    if octets.startswith(HEADER) or octets.endswith(END):
        return "message"
    verb = verb_of(octets)
    return verb if verb in EXPECTED else "other"


def line(text: str | bytes, replies: int = 1) -> Step:
    """One command line."""
    return raw((text.encode() if isinstance(text, str) else text) + b"\r\n", replies)


def pause(ms: int) -> Step:
    """Say nothing for a while; what comes meanwhile stands in the dialogue."""
    return Step(s.PAUSE, pause_ns=ms * NS_PER_MS)


def hello(target_info: TargetInfo) -> Step:
    """EHLO, or LHLO in LMTP (RFC 2033 §4.1)."""
    return line(f"{'LHLO' if target_info.lmtp else 'EHLO'} {target_info.client}")


def starttls(wire: bytes = b"STARTTLS\r\n") -> Step:
    """STARTTLS, with whatever is to go with it, and the handshake if it is answered 220."""
    return Step(s.STARTTLS, wire, expected_replies=(ExpectedReply("STARTTLS", (220,)),), metric="STARTTLS")


def login(mechanism: str, credentials: tuple[str, str] | None = None) -> Step:
    """A whole SASL exchange, with the target's credentials or with others."""
    return Step(
        s.AUTH, expected_replies=(ExpectedReply("AUTH", (2,)),), metric="AUTH", mechanism=mechanism, credentials=credentials
    )


def opening(target_info: TargetInfo) -> tuple[Step, ...]:
    """All that must come before MAIL: EHLO, and TLS and a login where they are demanded."""
    steps = [hello(target_info)]
    if target_info.tls and not target_info.implicit_tls:
        steps += [starttls(), hello(target_info)]
    if target_info.login and target_info.credentials:
        steps.append(login(mechanism_of(target_info)))
    return tuple(steps)


def mechanism_of(target_info: TargetInfo) -> str:
    """A mechanism that is offered and can be spoken, PLAIN before others."""
    offered = target_info.login_keywords.upper().split()
    return next((one for one in ("PLAIN", "LOGIN", "CRAM-MD5") if one in offered), "PLAIN")


def mail(target_info: TargetInfo, parameters: str = "") -> Step:
    """MAIL."""
    return line(f"MAIL FROM:<{target_info.sender}>{' ' if parameters else ''}{parameters}")


def rcpt(target_info: TargetInfo) -> Step:
    """RCPT to the known recipient."""
    return line(f"RCPT TO:<{target_info.recipient}>")


def envelope(target_info: TargetInfo) -> tuple[Step, ...]:
    """The opening, MAIL and RCPT."""
    return (*opening(target_info), mail(target_info), rcpt(target_info))


def message(body: bytes = b"text", replies: int = 1) -> Step:
    """A whole message behind DATA, its end included."""
    return raw(HEADER + body + END, replies)


def oversize(target_info: TargetInfo) -> bytes:
    """A text beyond the limit that is offered, without its end; nothing where it names no limit or one too high to try."""
    limit_bytes = target_info.limit_bytes
    return HEADER + (b"x" * 70 + b"\r\n") * (limit_bytes // 72 + 1000) if 0 < limit_bytes <= OVERSIZE_TRY_BYTES else b""


NOOP = line("NOOP")
QUIT = line("QUIT")
LISTEN = pause(LISTEN_MS)


def script(target_info: TargetInfo, *steps: Step, listen: bool = True) -> Script:
    """A probe's script. listen: after QUIT, hear what else comes until the server closes (or `LISTEN_MS` are over)."""
    return Script.of(
        "probe",
        (*steps, QUIT, *((LISTEN,) if listen else ())),
        greeting=s.ANY_GREETING,
        implicit_tls=target_info.implicit_tls,
        lmtp=target_info.lmtp,
    )


def probing(*dialogues: Callable[[TargetInfo], tuple[Step, ...]]) -> Callable[[TargetInfo], list[Script]]:
    """A probe that is a script for each of these."""
    return lambda target_info: [script(target_info, *steps(target_info)) for steps in dialogues]


# -- judging -----------------------------------------------------------------------------------------------------


def accepted(exchange: Exchange | None) -> bool:
    """Whether its first reply is 2yz."""
    return exchange is not None and exchange.code // 100 == 2


def refused(exchange: Exchange | None) -> bool:
    """Whether its first reply is 4yz or 5yz."""
    return exchange is not None and exchange.code // 100 in (4, 5)


def ready_for_text(dialogue: Dialogue) -> bool:
    """Whether DATA was answered 354."""
    exchange = dialogue.exchange_of(b"DATA")
    return exchange is not None and exchange.code == 354


def said_of(exchange: Exchange | None) -> str:
    """What a turn was answered, for `actual`: codes only, never the server's words."""
    if exchange is None:
        return "it was never said"
    return (
        "no reply"
        if not exchange.codes
        else "answered " + ", ".join(str(code or "without a code") for code in exchange.codes)
    )
