"""Finding out what a target offers before it is judged: one session in the clear, one inside TLS, some for a recipient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import trio

from smtpbench.engine.connection import Route
from smtpbench.errors import CannotRun
from smtpbench.rules import probe_steps
from smtpbench.rules.target_info import TargetInfo, keywords
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, SessionRunner, session_runner
from smtpbench.session.script import Step
from smtpbench.smtp.reply import Reply
from smtpbench.target import Access

#: Whom to try where nobody says who takes mail there. Reserved names first (RFC 2606); every host must take Postmaster.
RECIPIENTS = ("user@recipient.example", "Postmaster", "postmaster@localhost", "test@example.com", "root@localhost")


#: How long a process is given to die, before it is asked whether it is still there.
EXIT_DELAY_S = 0.3


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
    target_info = TargetInfo(lmtp=access.target.lmtp, implicit_tls=access.target.implicit_tls)
    for route in others:
        async with session_runner(route, access.timeout_ns) as here:
            if await is_greeting(here, target_info):
                return route
    return last


async def is_greeting(runner: SessionRunner, target_info: TargetInfo) -> bool:
    """Whether a new connection is greeted."""
    return (await _speak(runner, target_info)).greeted


async def is_alive(runner: SessionRunner, target_info: TargetInfo) -> bool:
    """Whether it is still there after something that it may die of: asked twice, with time to die before each."""
    for _ in range(2):
        await trio.sleep(EXIT_DELAY_S)
        if await is_greeting(runner, target_info):
            return True
    return False


async def discover(runner: SessionRunner, fixture: Fixture) -> tuple[TargetInfo, Reply]:
    """What is offered, and the greeting. Raises CannotRun where nobody answers."""
    target_info = TargetInfo(
        recipient=fixture.recipient, credentials=fixture.credentials, lmtp=fixture.lmtp, implicit_tls=fixture.implicit_tls
    )
    if fixture.sender:
        target_info = replace(target_info, sender=fixture.sender)
    first = await _speak(runner, target_info)
    if first.end_reason in UNREACHABLE or first.banner is None:
        raise CannotRun(f"the target cannot be judged: it gave no greeting ({first.end_reason})")
    clear = _keywords(first)
    target_info = (
        replace(target_info, keywords_in_tls=clear)
        if target_info.implicit_tls
        else replace(target_info, keywords_before_tls=clear)
    )
    if "STARTTLS" in clear:
        target_info = replace(
            target_info,
            keywords_in_tls=_keywords(
                await _speak(runner, target_info, probe_steps.starttls(), probe_steps.hello(target_info))
            ),
        )
    target_info = await _demands(runner, target_info)
    return await _recipient(runner, target_info, first.banner), first.banner


async def _speak(runner: SessionRunner, target_info: TargetInfo, *steps: Step) -> Dialogue:
    session_result = await runner.run(probe_steps.script(target_info, probe_steps.hello(target_info), *steps, listen=False))
    return Dialogue.of(session_result.transcript)


def _keywords(dialogue: Dialogue) -> dict[str, str]:
    """Of the last EHLO that was taken."""
    found: dict[str, str] = {}
    for exchange in dialogue.exchanges:
        if exchange.sent[:4].upper() in (b"EHLO", b"LHLO") and exchange.first is not None and exchange.code == 250:
            found = keywords(exchange.first)
    return found


async def _demands(runner: SessionRunner, target_info: TargetInfo) -> TargetInfo:
    """Whether MAIL wants TLS or a login first (RFC 3207 §4, RFC 4954 §6)."""
    dialogue = await _speak(runner, target_info, probe_steps.mail(target_info))
    exchange = dialogue.exchange_of(b"MAIL")
    if exchange is None or exchange.code != 530:
        return target_info
    if not target_info.implicit_tls and target_info.keywords_in_tls:
        secure = replace(target_info, tls=True)
        session_result = await runner.run(
            probe_steps.script(secure, *probe_steps.opening(secure), probe_steps.mail(secure), listen=False)
        )
        exchange = Dialogue.of(session_result.transcript).exchange_of(b"MAIL")
        if exchange is None or exchange.code != 530:
            return secure
        target_info = secure
    return replace(target_info, login=True)


async def _recipient(runner: SessionRunner, target_info: TargetInfo, banner: Reply) -> TargetInfo:
    for mailbox in (target_info.recipient,) if target_info.recipient else _candidates(banner):
        trial = replace(target_info, recipient=mailbox)
        session_result = await runner.run(probe_steps.script(trial, *probe_steps.envelope(trial), listen=False))
        if probe_steps.accepted(Dialogue.of(session_result.transcript).exchange_of(b"RCPT")):
            return trial
    return replace(target_info, recipient="")


def _candidates(banner: Reply) -> Iterable[str]:
    yield from RECIPIENTS[:1]
    host = banner.lines[0].decode("latin-1").partition(" ")[0]
    if host and all(character.isalnum() or character in ".-" for character in host):
        yield f"postmaster@{host}"
        if "." in host:
            yield f"postmaster@{host.partition('.')[2]}"
    yield from RECIPIENTS[1:]
