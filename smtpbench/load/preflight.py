"""Before the clock starts: one session that goes as far as the first mail transaction, says QUIT, and is kept on tape.

It tells what cannot be worked with (no connection, no trust, no login) before thousands of sessions find out, and it
brings home the banner and the EHLO reply for the result. It sends no mail.
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

#: It waits no longer than this for one reply, however patient the run is.
TIMEOUT_NS = 10 * NS_PER_S

_TRY_NEXT_ADDRESS = (api.CONNECT_REFUSED, api.CONNECT_TIMEOUT, api.CONNECT_FAILED)
#: Errors that every session of the run would meet again, and what to do about each.
_HOPELESS = {
    api.CONNECT_REFUSED: "nothing listens there",
    api.CONNECT_TIMEOUT: "it does not answer",
    api.CONNECT_FAILED: "it cannot be reached",
    api.NO_DESCRIPTORS: "this process may open no more files; raise `ulimit -n`",
    api.TLS_FAILED: "TLS failed; --ca FILE names a certificate authority to trust, --insecure trusts anything",
    "starttls_refused": "it does not take STARTTLS",
    "auth_refused": "it does not take the login",
}


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """What one session found out.

    route: the address that answered. banner, ehlo: the server's octets as they came, empty where none did.
    trouble: what went wrong without making the run hopeless, in words; else empty.
    """

    route: Route
    banner: bytes
    ehlo: bytes
    trouble: str


def setup_only(script: Script) -> Script:
    """The script's beginning up to its first mail transaction (or anything else than a plain dialogue), then QUIT."""
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
        "preflight", tuple(steps), teardown=teardown, greeting=script.greeting, implicit_tls=script.implicit_tls,
        lmtp=script.lmtp,
    )  # fmt: skip


async def preflight(
    script: Script, routes: Sequence[Route], name: str, timeout_ns: int, credentials: tuple[str, str] | None
) -> PreflightResult:
    """Try the addresses in turn until one takes a connection. Raises CannotRun where the run would be hopeless.

    name: the target as messages call it, `mail.example:25`.
    """
    opening = setup_only(script)
    for route in routes:
        async with session_runner(route, min(timeout_ns, TIMEOUT_NS), credentials) as here:
            session_result = await here.run(opening)
        error = session_result.error
        if error is None or error[0] not in _TRY_NEXT_ADDRESS:
            break
    banner, ehlo = _heard(session_result.transcript)
    trouble = ""
    if error is not None:
        kind, detail = error
        if kind in _HOPELESS:
            raise CannotRun(f"cannot use {name}: {_HOPELESS[kind]} ({detail})")
        waited = f" after {format_duration(min(timeout_ns, TIMEOUT_NS))}" if kind == api.TIMEOUT else ""
        trouble = f"the first session met {kind}{waited}: {detail}"
    return PreflightResult(route, banner, ehlo, trouble)


def _heard(transcript: Transcript) -> tuple[bytes, bytes]:
    """The greeting, and the reply to the last EHLO, LHLO or HELO."""
    dialogue = Dialogue.of(transcript)
    hellos = [
        exchange.first
        for exchange in dialogue.exchanges
        if exchange.sent[:4].upper() in (b"EHLO", b"LHLO", b"HELO") and exchange.first
    ]
    return dialogue.banner.raw if dialogue.banner else b"", hellos[-1].raw if hellos else b""
