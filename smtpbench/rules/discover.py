"""Finding out what a target offers before it is judged: one session in the clear, one inside TLS, some for a recipient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import trio

from smtpbench.engine.connection import Route
from smtpbench.errors import CannotRun
from smtpbench.rules import lines
from smtpbench.rules.offer import Offer, keywords
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Step
from smtpbench.session.stage import UNREACHABLE, Stage, stage
from smtpbench.smtp.reply import Reply
from smtpbench.target import Access

#: Whom to try where nobody says who takes mail there. Reserved names first (RFC 2606); every host must take Postmaster.
RECIPIENTS = ("user@recipient.example", "Postmaster", "postmaster@localhost", "test@example.com", "root@localhost")


#: How long a process is given to die, before it is asked whether it is still there.
DEATH_S = 0.3


@dataclass(frozen=True, slots=True)
class Fixture:
    """What the user says of a target; empty or None for what is to be found out."""

    recipient: str = ""
    sender: str = ""
    credentials: tuple[str, str] | None = None
    lmtp: bool = False
    implicit_tls: bool = False

    @classmethod
    def of(cls, access: Access, recipient: str = "", sender: str = "") -> Fixture:
        """What its address says, and these mailboxes."""
        return cls(recipient, sender, access.credentials, access.target.lmtp, access.target.implicit_tls)


async def reach(access: Access) -> Route:
    """The first of its addresses where it greets; where it does so at none, the last. Raises CannotRun, UsageError."""
    *others, last = access.routes()
    offer = Offer(lmtp=access.target.lmtp, implicit_tls=access.target.implicit_tls)
    for route in others:
        async with stage(route, access.timeout_ns) as here:
            if await greets(here, offer):
                return route
    return last


async def greets(stage: Stage, offer: Offer) -> bool:
    """Whether a new connection is greeted."""
    return (await _speak(stage, offer)).began


async def alive(stage: Stage, offer: Offer) -> bool:
    """Whether it is still there after something that it may die of: asked twice, with time to die before each."""
    for _ in range(2):
        await trio.sleep(DEATH_S)
        if await greets(stage, offer):
            return True
    return False


async def discover(stage: Stage, fixture: Fixture) -> tuple[Offer, Reply]:
    """What is offered, and the greeting. Raises CannotRun where nobody answers."""
    offer = Offer(
        recipient=fixture.recipient, credentials=fixture.credentials, lmtp=fixture.lmtp, implicit_tls=fixture.implicit_tls
    )
    if fixture.sender:
        offer = replace(offer, sender=fixture.sender)
    first = await _speak(stage, offer)
    if first.fate in UNREACHABLE or first.banner is None:
        raise CannotRun(f"the target cannot be judged: it gave no greeting ({first.fate})")
    clear = _keywords(first)
    offer = replace(offer, inside=clear) if offer.implicit_tls else replace(offer, clear=clear)
    if "STARTTLS" in clear:
        offer = replace(offer, inside=_keywords(await _speak(stage, offer, lines.starttls(), lines.hello(offer))))
    offer = await _demands(stage, offer)
    return await _recipient(stage, offer, first.banner), first.banner


async def _speak(stage: Stage, offer: Offer, *steps: Step) -> Dialogue:
    take = await stage.perform(lines.script(offer, lines.hello(offer), *steps, listen=False))
    return Dialogue.of(take.tape)


def _keywords(dialogue: Dialogue) -> dict[str, str]:
    """Of the last EHLO that was taken."""
    found: dict[str, str] = {}
    for turn in dialogue.turns:
        if turn.said[:4].upper() in (b"EHLO", b"LHLO") and turn.first is not None and turn.code == 250:
            found = keywords(turn.first)
    return found


async def _demands(stage: Stage, offer: Offer) -> Offer:
    """Whether MAIL wants TLS or a login first (RFC 3207 §4, RFC 4954 §6)."""
    dialogue = await _speak(stage, offer, lines.mail(offer))
    turn = dialogue.after(b"MAIL")
    if turn is None or turn.code != 530:
        return offer
    if not offer.implicit_tls and offer.inside:
        secure = replace(offer, tls=True)
        take = await stage.perform(lines.script(secure, *lines.opening(secure), lines.mail(secure), listen=False))
        turn = Dialogue.of(take.tape).after(b"MAIL")
        if turn is None or turn.code != 530:
            return secure
        offer = secure
    return replace(offer, login=True)


async def _recipient(stage: Stage, offer: Offer, banner: Reply) -> Offer:
    for mailbox in (offer.recipient,) if offer.recipient else _candidates(banner):
        trial = replace(offer, recipient=mailbox)
        take = await stage.perform(lines.script(trial, *lines.envelope(trial), listen=False))
        if lines.accepted(Dialogue.of(take.tape).after(b"RCPT")):
            return trial
    return replace(offer, recipient="")


def _candidates(banner: Reply) -> Iterable[str]:
    yield from RECIPIENTS[:1]
    host = banner.lines[0].decode("latin-1").partition(" ")[0]
    if host and all(character.isalnum() or character in ".-" for character in host):
        yield f"postmaster@{host}"
        if "." in host:
            yield f"postmaster@{host.partition('.')[2]}"
    yield from RECIPIENTS[1:]
