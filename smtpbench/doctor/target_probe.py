"""Sessions with a target that observe how it answers: times, greeting, extensions and TLS. No mail is sent."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, replace
from typing import Any

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.errors import CannotRun
from smtpbench.session import script as s
from smtpbench.session.client import ClientSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, session_runner
from smtpbench.session.script import ExpectedReply, Script, Step, command
from smtpbench.target import Access
from smtpbench.text import visible

#: Number of NOOP commands with which round trips are measured.
ROUND_TRIPS = 20
_CLIENT = "doctor.example"


@dataclass(frozen=True, slots=True)
class TlsObservation:
    """A TLS handshake.

    Attributes:
        protocol: Version of TLS.
        cipher: Cipher suite.
        issuer: Issuer of the certificate.
        not_after_s: End of the certificate's validity, seconds since 1970; None if it was not verified.
        error: Why the handshake failed; empty if it did not.
    """

    protocol: str = ""
    cipher: str = ""
    issuer: str = ""
    not_after_s: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class TargetObservation:
    """What sessions with a target showed.

    Attributes:
        addresses: All addresses of its host name.
        error: Why there was no session, or why it failed; empty otherwise.
        connect_ns: Time until the connection was open, nanoseconds.
        greeting_ns: Time from there to the greeting, nanoseconds.
        banner: The greeting.
        ehlo: Lines of the EHLO reply after the first.
        round_trips_ns: Time from each NOOP to its reply, nanoseconds.
        is_local: Whether it is on this machine; None if unknown.
        tls: The handshake; None if TLS was not tried.
    """

    addresses: tuple[str, ...] = ()
    error: str = ""
    connect_ns: int = 0
    greeting_ns: int = 0
    banner: str = ""
    ehlo: tuple[str, ...] = ()
    round_trips_ns: tuple[int, ...] = ()
    is_local: bool | None = None
    tls: TlsObservation | None = None


class _ObservedSession(ClientSession):
    """A client session that records its TLS handshake and the times of its connection."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.opened_ns = 0
        self.connect_ns = 0
        self.handshake: TlsObservation | None = None

    def connected(self, now_ns: int) -> api.Out:
        self.opened_ns, self.connect_ns = self.received_ns, self.received_ns - self.sent_ns
        return super().connected(now_ns)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        # not in `tls_started`, which may be called before `connection` is set
        if self.handshake is None and self.connection is not None and isinstance(self.connection.sock, ssl.SSLSocket):
            self.handshake = tls_of(self.connection.sock)
        return super().receive(data, now_ns)


def tls_of(sock: ssl.SSLSocket) -> TlsObservation:
    """Return the handshake of a TLS socket."""
    certificate: dict[str, Any] = sock.getpeercert() or {}  # empty if it was not verified
    not_after = certificate.get("notAfter")
    issuer = {name: value for part in certificate.get("issuer", ()) for name, value in part}
    cipher = sock.cipher()
    return TlsObservation(
        protocol=sock.version() or "",
        cipher=cipher[0] if cipher else "",
        issuer=visible(issuer.get("organizationName") or issuer.get("commonName") or ""),
        not_after_s=ssl.cert_time_to_seconds(not_after) if not_after else None,
    )


async def probe_target(access: Access) -> TargetObservation:
    """Run a session with a target, and a second one with STARTTLS if the target offers it.

    Raises:
        UsageError: The target is another machine and not authorized, or a file cannot be used.
    """
    try:
        routes = access.routes()
    except CannotRun as error:
        return TargetObservation(error=str(error))
    observed = TargetObservation(addresses=tuple(dict.fromkeys(_address_text(route) for route in routes)))
    lmtp, implicit_tls = access.target.lmtp, access.target.implicit_tls
    for route in routes:
        script = _script(lmtp=lmtp, implicit_tls=implicit_tls, round_trips=ROUND_TRIPS)
        observed = await _observe(observed, route, access, script)
        if not observed.error:
            break
    if not observed.error and not implicit_tls and any(line.upper().split()[:1] == ["STARTTLS"] for line in observed.ehlo):
        secured = await _observe(TargetObservation(), route, access, _script(lmtp=lmtp, starttls=True))
        observed = replace(observed, tls=secured.tls or TlsObservation(error=secured.error or "no handshake"))
    return replace(observed, is_local=is_local(route))


def _script(*, lmtp: bool, implicit_tls: bool = False, starttls: bool = False, round_trips: int = 0) -> Script:
    """Return the script of a session: EHLO, STARTTLS and NOOP as asked for, QUIT."""
    ehlo = command(f"{'LHLO' if lmtp else 'EHLO'} {_CLIENT}".encode(), "EHLO", 2, on_unexpected=s.ABORT_SESSION)
    steps = [ehlo]
    if starttls:
        steps.append(
            Step(
                s.STARTTLS,
                b"STARTTLS\r\n",
                expected_replies=(ExpectedReply("STARTTLS", (220,)),),
                metric="STARTTLS",
                on_unexpected=s.ABORT_SESSION,
            )
        )
        steps.append(ehlo)  # RFC 3207 §4.2
    steps += [command(b"NOOP", "NOOP", *s.ANY)] * round_trips
    steps.append(command(b"QUIT", "QUIT", *s.ANY))
    return Script.of("doctor", tuple(steps), teardown=len(steps) - 1, implicit_tls=implicit_tls, lmtp=lmtp)


async def _observe(observed: TargetObservation, route: Route, access: Access, script: Script) -> TargetObservation:
    async with session_runner(route, access.timeout_ns) as runner:
        done = await runner.run(script, _ObservedSession)
    session, dialogue = done.session, Dialogue.of(done.transcript)
    assert isinstance(session, _ObservedSession)
    error = f"{done.error[0]}: {done.error[1]}".rstrip(": ") if done.error else ""
    if not dialogue.banner:
        unreachable = done.error is not None and done.error[0] in UNREACHABLE
        error = error or "no greeting"
        return replace(
            observed, error=visible(error), connect_ns=0 if unreachable else session.connect_ns, tls=session.handshake
        )
    exchanges = [(exchange.sent[:4].upper(), exchange.at_ns, exchange.replies) for exchange in dialogue.exchanges]
    ehlo_replies = [received[0].reply for sent, _, received in exchanges if sent in (b"EHLO", b"LHLO") and received]
    round_trips_ns = tuple(received[0].at_ns - at_ns for sent, at_ns, received in exchanges if sent == b"NOOP" and received)
    greeted_ns = next((received[0].at_ns for _, _, received in exchanges if received), session.opened_ns)
    return replace(
        observed,
        error=visible(error),
        connect_ns=session.connect_ns,
        greeting_ns=max(0, greeted_ns - session.opened_ns),
        banner=visible(dialogue.banner.raw.rstrip(b"\r\n")),
        ehlo=tuple(visible(line) for line in ehlo_replies[0].lines[1:]) if ehlo_replies else (),
        round_trips_ns=round_trips_ns,
        tls=session.handshake,
    )


def _address_text(route: Route) -> str:
    return route.address if isinstance(route.address, str) else str(route.address[0])


def is_local(route: Route) -> bool | None:
    """Return whether an address belongs to this machine: a socket can be bound to such an address only."""
    if route.family == socket.AF_UNIX:
        return True
    address = route.address
    assert not isinstance(address, str)
    try:
        with socket.socket(route.family, socket.SOCK_STREAM) as sock:
            sock.bind((address[0], 0, *address[2:]))
    except OSError:
        return False
    return True
