"""Discovering what a target offers, before it is checked.

One session reads the extensions before TLS, one those inside TLS, one whether MAIL requires TLS or a login, and what NOOP
gets. A few look for a recipient that the server accepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import trio

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.errors import CannotRun, UsageError
from smtpbench.rules import probe_steps
from smtpbench.rules.end_reason import describe_end
from smtpbench.rules.rule import CRASH, HANG
from smtpbench.rules.target_info import TargetInfo, keywords
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, SessionRunner, session_runner
from smtpbench.session.script import Step
from smtpbench.smtp.reply import Reply
from smtpbench.target import Access
from smtpbench.units import NS_PER_S

#: Recipients to try where the user names none: reserved names (RFC 2606), and Postmaster, which every server must accept.
RECIPIENTS = ("user@recipient.example", "Postmaster", "postmaster@localhost", "test@example.com", "root@localhost")
#: Wait before a health check: a process takes a moment to exit.
EXIT_DELAY_S = 0.3
#: Delays before each further attempt where the server refused a session because it is busy, seconds.
REFUSAL_RETRY_DELAYS_S = (0.2, 1.0, 3.0)
#: Time for a supervisor to restart a server, seconds, and time between two attempts to connect.
RESTART_TIMEOUT_S = 3.0
RESTART_POLL_S = 0.05
#: How long a health check waits for the greeting of a server that may be slow.
SLOW_GREETING_NS = 10 * NS_PER_S
#: Why nothing can be said about a rule once the target is gone.
TARGET_GONE = "the target is gone"


@dataclass(frozen=True, slots=True)
class Fixture:
    """What the user says about a target.

    Attributes:
        recipient: Recipient address that the target accepts; empty to discover one.
        sender: Envelope sender; empty for the default.
        credentials: User and password; None without a login.
        lmtp: Whether the target speaks LMTP.
        implicit_tls: Whether connections begin with TLS.
    """

    recipient: str = ""
    sender: str = ""
    credentials: tuple[str, str] | None = None
    lmtp: bool = False
    implicit_tls: bool = False

    @classmethod
    def of(cls, access: Access, recipient: str = "", sender: str = "") -> Fixture:
        """Return what the URL of the target says, together with these addresses. Raises UsageError for a line end in one."""
        raise_for_line_ends(recipient=recipient, sender=sender)
        return cls(recipient, sender, access.credentials, access.target.lmtp, access.target.implicit_tls)


def raise_for_line_ends(**addresses: str) -> None:
    """Raise UsageError for a line end in an address; their names are those of the error."""
    for name, address in addresses.items():
        if "\r" in address or "\n" in address:
            raise UsageError(f"the {name} {address!r} contains a line end, which would begin another command")


async def reach(access: Access) -> Route:
    """Return the route to the first address of the target that greets, or to the last address if none does.

    Raises:
        CannotRun: The host name cannot be resolved.
        UsageError: An option does not fit the target.
    """
    *others, last = access.routes()
    target_info = TargetInfo(lmtp=access.target.lmtp, implicit_tls=access.target.implicit_tls)
    for route in others:
        async with session_runner(route, access.timeout_ns) as runner:
            if await is_greeting(runner, target_info):
                return route
    return last


async def is_greeting(runner: SessionRunner, target_info: TargetInfo) -> bool:
    """Return whether the server greets a new connection."""
    return (await _run_steps(runner, target_info)).greeted


async def outage(runner: SessionRunner, target_info: TargetInfo) -> str:
    """Return what happened to a server that no longer greets after a session: CRASH or HANG. Empty if it greets.

    Two attempts, each after a delay. The second waits longer: a server may be busy with what the session sent.
    """
    await trio.sleep(EXIT_DELAY_S)
    if await is_greeting(runner, target_info):
        return ""
    await trio.sleep(EXIT_DELAY_S)
    script = probe_steps.script(target_info, probe_steps.hello(target_info), quiet_period=False)
    dialogue = Dialogue.of((await runner.run(script, timeout_ns=SLOW_GREETING_NS)).transcript)
    return "" if dialogue.greeted else HANG if dialogue.end_reason == api.TIMEOUT else CRASH


async def wait_until_back(runner: SessionRunner, target_info: TargetInfo) -> bool:
    """Wait for a server that died to greet again, as a supervisor may start it. Return False if it does not in time."""
    with trio.move_on_after(RESTART_TIMEOUT_S):
        while not await is_greeting(runner, target_info):  # noqa: ASYNC110  (no event tells of another process)
            await trio.sleep(RESTART_POLL_S)
        return True
    return False


async def discover(runner: SessionRunner, fixture: Fixture) -> tuple[TargetInfo, Reply]:
    """Return what the target offers, and its greeting.

    Raises:
        CannotRun: The target cannot be reached, does not greet, or replies to no command.
    """
    target_info = TargetInfo(
        recipient=fixture.recipient, credentials=fixture.credentials, lmtp=fixture.lmtp, implicit_tls=fixture.implicit_tls
    )
    if fixture.sender:
        target_info = replace(target_info, sender=fixture.sender)
    first = await _run_steps(runner, target_info)
    if is_silent(first):  # a server may be too busy once
        first = await _run_steps(runner, target_info)
    for delay_s in REFUSAL_RETRY_DELAYS_S:
        if not first.is_busy:
            break
        await trio.sleep(delay_s)
        first = await _run_steps(runner, target_info)
    if first.end_reason in UNREACHABLE or first.banner is None:
        raise CannotRun(f"no greeting ({describe_end(first.end_reason)})")
    if is_silent(first):
        raise CannotRun(f"no session gets past EHLO: {silence_text(first)}")
    if first.is_busy:
        raise CannotRun(f"the server serves no session: {first.refusal}")
    offered = _ehlo_keywords(first)
    if target_info.implicit_tls:
        target_info = replace(target_info, keywords_in_tls=offered)
    else:
        target_info = replace(target_info, keywords_before_tls=offered)
    if "STARTTLS" in offered:
        in_tls = await _run_steps(runner, target_info, probe_steps.starttls(), probe_steps.hello(target_info))
        target_info = replace(target_info, keywords_in_tls=_ehlo_keywords(in_tls))
    target_info = await _discover_requirements(runner, target_info)
    return await _discover_recipient(runner, target_info, first.banner), first.banner


async def _run_steps(runner: SessionRunner, target_info: TargetInfo, *steps: Step) -> Dialogue:
    session_result = await runner.run(
        probe_steps.script(target_info, probe_steps.hello(target_info), *steps, quiet_period=False)
    )
    return Dialogue.of(session_result.transcript)


def is_silent(dialogue: Dialogue) -> bool:
    """Return whether the server accepts clients and replies to none of their commands."""
    if dialogue.banner is None or dialogue.banner.code // 100 in (4, 5):
        return False
    return not any(code for exchange in dialogue.exchanges[1:] for code in exchange.codes)


def silence_text(dialogue: Dialogue) -> str:
    """Return what a silent server does in place of a reply."""
    if dialogue.exchanges[0].code == 0:
        return "the greeting is no reply of SMTP"
    if any(exchange.codes for exchange in dialogue.exchanges[1:]):
        return "the reply to it is no reply of SMTP"
    return probe_steps.no_reply_text(dialogue) or f"there is no reply to it ({describe_end(dialogue.end_reason)})"


def _ehlo_keywords(dialogue: Dialogue) -> dict[str, str]:
    """Return the keywords of the last EHLO that was accepted."""
    found: dict[str, str] = {}
    for exchange in dialogue.exchanges:
        if exchange.sent[:4].upper() in (b"EHLO", b"LHLO") and exchange.first is not None and exchange.code == 250:
            found = keywords(exchange.first)
    return found


async def _discover_requirements(runner: SessionRunner, target_info: TargetInfo) -> TargetInfo:
    """Find out whether MAIL requires TLS or a login (RFC 3207 §4, RFC 4954 §6), and what a plain NOOP gets."""
    dialogue = await _run_steps(runner, target_info, probe_steps.mail(target_info), probe_steps.NOOP)
    noop = dialogue.exchange_of(b"NOOP")
    if noop is not None and (noop.replies or dialogue.end_reason == api.TIMEOUT):
        noop_ns = noop.replies[0].at_ns - noop.at_ns if noop.replies else 0
        target_info = replace(target_info, noop_code=noop.code, noop_ns=noop_ns)
    exchange = dialogue.exchange_of(b"MAIL")
    if exchange is None or exchange.code != 530:
        return target_info
    if not target_info.implicit_tls and target_info.keywords_in_tls:
        secure = replace(target_info, tls=True)
        session_result = await runner.run(
            probe_steps.script(secure, *probe_steps.opening(secure), probe_steps.mail(secure), quiet_period=False)
        )
        exchange = Dialogue.of(session_result.transcript).exchange_of(b"MAIL")
        if exchange is None or exchange.code != 530:
            return secure
        target_info = secure
    return replace(target_info, login=True)


async def _discover_recipient(runner: SessionRunner, target_info: TargetInfo, banner: Reply) -> TargetInfo:
    for mailbox in (target_info.recipient,) if target_info.recipient else _candidate_recipients(banner):
        candidate = replace(target_info, recipient=mailbox)
        script = probe_steps.script(candidate, *probe_steps.envelope(candidate), quiet_period=False)
        session_result = await runner.run(script)
        if probe_steps.accepted(Dialogue.of(session_result.transcript).exchange_of(b"RCPT")):
            return candidate
    return replace(target_info, recipient="")


def _candidate_recipients(banner: Reply) -> Iterable[str]:
    yield from RECIPIENTS[:1]
    host = banner.lines[0].decode("latin-1").partition(" ")[0]
    if host and all(character.isalnum() or character in ".-" for character in host):
        yield f"postmaster@{host}"
        if "." in host:
            yield f"postmaster@{host.partition('.')[2]}"
    yield from RECIPIENTS[1:]
