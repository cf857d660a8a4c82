"""Steps that probes are made of, and judgements that many of them share.

Every step goes on whatever is answered: a probe says its dialogue to the end, and what came of it is judged afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.rules.offer import Offer
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue, Turn
from smtpbench.session.script import Ask, Script, Step
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
    asks = (Ask(verb, s.ANY),) * replies
    return Step(s.SAY, octets, asks=asks, slot=verb if replies == 1 else "pipeline", split=split)


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


def hello(offer: Offer) -> Step:
    """EHLO, or LHLO in LMTP (RFC 2033 §4.1)."""
    return line(f"{'LHLO' if offer.lmtp else 'EHLO'} {offer.client}")


def starttls(wire: bytes = b"STARTTLS\r\n") -> Step:
    """STARTTLS, with whatever is to go with it, and the handshake if it is answered 220."""
    return Step(s.STARTTLS, wire, asks=(Ask("STARTTLS", (220,)),), slot="STARTTLS")


def login(mechanism: str, credentials: tuple[str, str] | None = None) -> Step:
    """A whole SASL exchange, with the target's credentials or with others."""
    return Step(s.AUTH, asks=(Ask("AUTH", (2,)),), slot="AUTH", mechanism=mechanism, credentials=credentials)


def opening(offer: Offer) -> tuple[Step, ...]:
    """All that must come before MAIL: EHLO, and TLS and a login where they are demanded."""
    steps = [hello(offer)]
    if offer.tls and not offer.implicit_tls:
        steps += [starttls(), hello(offer)]
    if offer.login and offer.credentials:
        steps.append(login(mechanism_of(offer)))
    return tuple(steps)


def mechanism_of(offer: Offer) -> str:
    """A mechanism that is offered and can be spoken, PLAIN before others."""
    offered = offer.login_keywords.upper().split()
    return next((one for one in ("PLAIN", "LOGIN", "CRAM-MD5") if one in offered), "PLAIN")


def mail(offer: Offer, parameters: str = "") -> Step:
    """MAIL."""
    return line(f"MAIL FROM:<{offer.sender}>{' ' if parameters else ''}{parameters}")


def rcpt(offer: Offer) -> Step:
    """RCPT to the known recipient."""
    return line(f"RCPT TO:<{offer.recipient}>")


def envelope(offer: Offer) -> tuple[Step, ...]:
    """The opening, MAIL and RCPT."""
    return (*opening(offer), mail(offer), rcpt(offer))


def message(body: bytes = b"text", replies: int = 1) -> Step:
    """A whole message behind DATA, its end included."""
    return raw(HEADER + body + END, replies)


def oversize(offer: Offer) -> bytes:
    """A text beyond the limit that is offered, without its end; nothing where it names no limit or one too high to try."""
    limit_bytes = offer.limit_bytes
    return HEADER + (b"x" * 70 + b"\r\n") * (limit_bytes // 72 + 1000) if 0 < limit_bytes <= OVERSIZE_TRY_BYTES else b""


NOOP = line("NOOP")
QUIT = line("QUIT")
LISTEN = pause(LISTEN_MS)


def script(offer: Offer, *steps: Step, listen: bool = True) -> Script:
    """A probe's script. listen: after QUIT, hear what else comes until the server closes (or `LISTEN_MS` are over)."""
    return Script.of(
        "probe", (*steps, QUIT, *((LISTEN,) if listen else ())), greeting=s.ANY_GREETING, implicit_tls=offer.implicit_tls,
        lmtp=offer.lmtp,
    )  # fmt: skip


def probing(*dialogues: Callable[[Offer], tuple[Step, ...]]) -> Callable[[Offer], list[Script]]:
    """A probe that is a script for each of these."""
    return lambda offer: [script(offer, *steps(offer)) for steps in dialogues]


# -- judging -----------------------------------------------------------------------------------------------------


def accepted(turn: Turn | None) -> bool:
    """Whether its first reply is 2yz."""
    return turn is not None and turn.code // 100 == 2


def refused(turn: Turn | None) -> bool:
    """Whether its first reply is 4yz or 5yz."""
    return turn is not None and turn.code // 100 in (4, 5)


def ready_for_text(dialogue: Dialogue) -> bool:
    """Whether DATA was answered 354."""
    turn = dialogue.after(b"DATA")
    return turn is not None and turn.code == 354


def said_of(turn: Turn | None) -> str:
    """What a turn was answered, for `actual`: codes only, never the server's words."""
    if turn is None:
        return "it was never said"
    return "no reply" if not turn.codes else "answered " + ", ".join(str(code or "without a code") for code in turn.codes)
