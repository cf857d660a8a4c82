"""The first session of a run: it goes up to the first mail transaction, quits, and keeps a transcript.

It finds what would make every session fail (no connection, an untrusted certificate, a refused login) before thousands of
sessions do. It returns the banner and the EHLO reply for the result. It sends no mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.errors import CannotRun
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import session_runner
from smtpbench.session.script import Script, command
from smtpbench.session.transcript import Transcript
from smtpbench.units import NS_PER_S, format_duration

#: Longest time to wait for one reply, even if the run allows more.
MAX_TIMEOUT_NS = 10 * NS_PER_S

_TRY_NEXT_ADDRESS = (api.CONNECT_REFUSED, api.CONNECT_TIMEOUT, api.CONNECT_FAILED)
#: Errors that every session of the run would repeat, and what the user can do.
_FATAL_ERRORS = {
    api.CONNECT_REFUSED: "nothing listens there",
    api.CONNECT_TIMEOUT: "it does not answer",
    api.CONNECT_FAILED: "it cannot be reached",
    api.NO_DESCRIPTORS: "this process may open no more files; raise `ulimit -n`",
    api.TLS_FAILED: "TLS failed; --ca FILE names a certificate authority to trust, --insecure accepts any certificate",
    "starttls_refused": "STARTTLS is not available on this server",
    "auth_refused": "the server refused the login",
}


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """What the first session found.

    Attributes:
        route: Address that accepted the connection.
        banner: Greeting of the server as received, octets; empty if there was none.
        ehlo: Reply to the last EHLO, LHLO or HELO as received, octets; empty if there was none.
        warning: An error that does not prevent the run, as a sentence; else empty.
    """

    route: Route
    banner: bytes
    ehlo: bytes
    warning: str


def setup_only(script: Script) -> Script:
    """Return the steps of a script before its first mail transaction, its loop or its first unusual step, then QUIT."""
    steps = []
    for at, step in enumerate(script.steps):
        plain = (
            step.kind in (s.COMMAND, s.STARTTLS, s.TLS, s.AUTH) and len(step.expected_replies) == 1 and step.metric != "QUIT"
        )
        if not plain or (script.repeats and at == script.loop_start):
            break
        steps.append(replace(step, on_unexpected=s.ABORT_SESSION))
    teardown = len(steps)
    steps.append(command(b"QUIT", "QUIT", 221))
    return Script.of(
        "preflight",
        tuple(steps),
        teardown=teardown,
        greeting=script.greeting,
        implicit_tls=script.implicit_tls,
        lmtp=script.lmtp,
    )


async def preflight(
    script: Script, routes: Sequence[Route], name: str, timeout_ns: int, credentials: tuple[str, str] | None
) -> PreflightResult:
    """Run the first session on the first address that accepts a connection.

    Args:
        script: Script of the run.
        routes: Addresses of the target, in order of preference.
        name: URL of the target for error texts.
        timeout_ns: Limit for one reply in the run.
        credentials: User and password for AUTH.

    Raises:
        CannotRun: Every session of the run would fail.
    """
    opening = setup_only(script)
    timeout_ns = min(timeout_ns, MAX_TIMEOUT_NS)
    for route in routes:
        async with session_runner(route, timeout_ns, credentials) as runner:
            session_result = await runner.run(opening)
        error = session_result.error
        if error is None or error[0] not in _TRY_NEXT_ADDRESS:
            break
    banner, ehlo = _banner_and_ehlo(session_result.transcript)
    warning = ""
    if error is not None:
        kind, detail = error
        if kind in _FATAL_ERRORS:
            # the step that waited says nothing here: no connection was made
            reason = detail.removesuffix(" (banner)") if kind in _TRY_NEXT_ADDRESS else detail
            raise CannotRun(f"cannot use {name}: {_FATAL_ERRORS[kind]} ({reason})")
        waited = f" after {format_duration(timeout_ns)}" if kind == api.TIMEOUT else ""
        warning = f"the first session failed with {kind}{waited}: {detail}"
    return PreflightResult(route, banner, ehlo, warning)


def _banner_and_ehlo(transcript: Transcript) -> tuple[bytes, bytes]:
    """Return the greeting, and the reply to the last EHLO, LHLO or HELO."""
    dialogue = Dialogue.of(transcript)
    hellos = [
        exchange.first
        for exchange in dialogue.exchanges
        if exchange.sent[:4].upper() in (b"EHLO", b"LHLO", b"HELO") and exchange.first
    ]
    return dialogue.banner.raw if dialogue.banner else b"", hellos[-1].raw if hellos else b""
