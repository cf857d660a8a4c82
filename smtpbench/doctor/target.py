"""Looking at a target: how far it is, what it says, whether its TLS is to be trusted, and whether it shares our cores."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Any

from smtpbench.doctor.diagnosis import BAD, OK, WARN, Diagnosis, graded
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
from smtpbench.units import NS_PER_MS, NS_PER_S, format_duration

#: How often a NOOP is said to see how long a round trip takes.
ROUND_TRIPS = 20
#: MAIL, RCPT, DATA and the message, each waiting for its reply.
_TRIPS_A_MESSAGE = 4
_DAY_S = 86_400
_FEW_DAYS = 14
_SLOW_GREETING_NS, _TOO_SLOW_GREETING_NS = NS_PER_S, 30 * NS_PER_S
_CLIENT = "doctor.example"
#: What OpenSSL calls a greeting in plain text where a handshake is due.
_PLAIN_TEXT = ("wrong version number", "record layer failure", "packet length too long")
_SILENT = "see what the server waits for: where it begins with TLS, say smtps://"
_NO_TLS = "it speaks no TLS before its greeting: say smtp:// or lmtp://, or name the port that does"
_TRUST = "name its authority with --ca FILE, its name with --sni, or trust anything with --insecure"


@dataclass(frozen=True, slots=True)
class Tls:
    """What a handshake gave. not_after_s: when the certificate ends, seconds since 1970; None where it was not verified."""

    protocol: str = ""
    cipher: str = ""
    issuer: str = ""
    not_after_s: float | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a target.

    addresses: all that its name has. trouble: why there was no session, or why it went wrong. connect_ns, greeting_ns: from
    the first packet to the connection, and from there to the greeting. trips_ns: of NOOPs. here: whether it lies on this
    machine, None if it cannot be told. tls: what came of TLS where it was tried.
    """

    addresses: tuple[str, ...] = ()
    trouble: str = ""
    connect_ns: int = 0
    greeting_ns: int = 0
    banner: str = ""
    ehlo: tuple[str, ...] = ()
    trips_ns: tuple[int, ...] = ()
    here: bool | None = None
    tls: Tls | None = None


class _Keen(ClientSession):
    """A session that keeps what TLS it got, and when its connection was there."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.opened_ns = 0
        self.connect_ns = 0
        self.found: Tls | None = None

    def connected(self, now_ns: int) -> api.Out:
        self.opened_ns, self.connect_ns = now_ns, now_ns - self._started_ns
        return super().connected(now_ns)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        # not in `tls_started`: that may come before who opened the connection could tell us which it is
        if self.found is None and self.connection is not None and isinstance(self.connection.sock, ssl.SSLSocket):
            self.found = tls_of(self.connection.sock)
        return super().receive(data, now_ns)


def tls_of(sock: ssl.SSLSocket) -> Tls:
    """What there is to tell of a secured socket."""
    certificate: dict[str, Any] = sock.getpeercert() or {}  # empty where it was not verified
    ends = certificate.get("notAfter")
    issuer = {name: value for part in certificate.get("issuer", ()) for name, value in part}
    cipher = sock.cipher()
    return Tls(
        protocol=sock.version() or "",
        cipher=cipher[0] if cipher else "",
        issuer=visible(issuer.get("organizationName") or issuer.get("commonName") or ""),
        not_after_s=ssl.cert_time_to_seconds(ends) if ends else None,
    )


async def look(access: Access) -> Seen:
    """One session in the clear (or in TLS where the target begins with it), and one with STARTTLS where it is offered.

    Raises UsageError for a target that is not this machine and not authorized.
    """
    try:
        routes = access.routes()
    except CannotRun as error:
        return Seen(trouble=str(error))
    seen = Seen(addresses=tuple(dict.fromkeys(_words(route) for route in routes)))
    lmtp, implicit = access.target.lmtp, access.target.implicit_tls
    for route in routes:
        seen = await _listen(seen, route, access, _script(lmtp=lmtp, implicit_tls=implicit, trips=ROUND_TRIPS))
        if not seen.trouble:
            break
    if not seen.trouble and not implicit and any(line.upper().split()[:1] == ["STARTTLS"] for line in seen.ehlo):
        secure = await _listen(Seen(), route, access, _script(lmtp=lmtp, starttls=True))
        seen = replace(seen, tls=secure.tls or Tls(trouble=secure.trouble or "no handshake"))
    return replace(seen, here=is_here(route))


def _script(*, lmtp: bool, implicit_tls: bool = False, starttls: bool = False, trips: int = 0) -> Script:
    """EHLO, what is wanted, QUIT."""
    hello = command(f"{'LHLO' if lmtp else 'EHLO'} {_CLIENT}".encode(), "EHLO", 2, on_unexpected=s.ABORT_SESSION)
    steps = [hello]
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
        steps.append(hello)  # RFC 3207 §4.2
    steps += [command(b"NOOP", "NOOP", *s.ANY)] * trips
    steps.append(command(b"QUIT", "QUIT", *s.ANY))
    return Script.of("doctor", tuple(steps), teardown=len(steps) - 1, implicit_tls=implicit_tls, lmtp=lmtp)


async def _listen(seen: Seen, route: Route, access: Access, script: Script) -> Seen:
    async with session_runner(route, access.timeout_ns) as here:
        session_result = await here.run(script, _Keen)
    session, dialogue = session_result.session, Dialogue.of(session_result.transcript)
    assert isinstance(session, _Keen)
    trouble = f"{session_result.error[0]}: {session_result.error[1]}".rstrip(": ") if session_result.error else ""
    if not dialogue.banner:
        gone = session_result.error is not None and session_result.error[0] in UNREACHABLE
        trouble = trouble or "no greeting"
        return replace(seen, trouble=visible(trouble), connect_ns=0 if gone else session.connect_ns, tls=session.found)
    exchanges = [(exchange.sent[:4].upper(), exchange.at_ns, exchange.replies) for exchange in dialogue.exchanges]
    hellos = [received[0].reply for sent, _, received in exchanges if sent in (b"EHLO", b"LHLO") and received]
    trips_ns = tuple(received[0].at_ns - at_ns for sent, at_ns, received in exchanges if sent == b"NOOP" and received)
    greeted_ns = next((received[0].at_ns for _, _, received in exchanges if received), session.opened_ns)
    return replace(
        seen,
        trouble=visible(trouble),
        connect_ns=session.connect_ns,
        greeting_ns=max(0, greeted_ns - session.opened_ns),
        banner=visible(dialogue.banner.raw.rstrip(b"\r\n")),
        ehlo=tuple(visible(line) for line in hellos[0].lines[1:]) if hellos else (),
        trips_ns=trips_ns,
        tls=session.found,
    )


def _words(route: Route) -> str:
    return route.address if isinstance(route.address, str) else str(route.address[0])


def is_here(route: Route) -> bool | None:
    """Whether an address is one of this machine's own: only to such a one can a socket be bound."""
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


# -- judging --------------------------------------------------------------------------------------------------------------


def target_diagnoses(seen: Seen, now_s: float, *, insecure: bool, starttls: bool = False) -> list[Diagnosis]:
    """Pure: from what was seen, at a time since 1970, to diagnoses. starttls: whether every session is to have it."""
    if not seen.addresses:
        return [Diagnosis("target", BAD, seen.trouble, "a run could not begin", "name another --target")]
    if not seen.banner:
        advice = _advice(seen.trouble)
        figures = {"addresses": list(seen.addresses)}
        value = f"{', '.join(seen.addresses)}: {seen.trouble}"
        return [Diagnosis("target", BAD, value, "a run could not begin", advice, figures)]
    found = [_reached(seen), _greeting(seen)]
    found += [_trips(seen.trips_ns)] if seen.trips_ns else []
    found += [_extensions(seen)] if seen.ehlo else []
    found += [_tls(seen.tls, now_s, insecure=insecure, needed=starttls)] if seen.tls is not None else []
    if seen.trouble:
        found.append(Diagnosis("session", BAD, seen.trouble, "sessions of a run will meet it too", "mend the server first"))
    if seen.here is not None:
        found.append(_place(seen.here))
    return found


def _reached(seen: Seen) -> Diagnosis:
    several = len(seen.addresses) > 1
    return Diagnosis(
        "target",
        OK,
        f"{', '.join(seen.addresses)}, connected in {format_duration(seen.connect_ns)}",
        "a run uses the first address that answers, and no other" if several else "",
        "",
        {"addresses": list(seen.addresses), "connect_ms": seen.connect_ns / NS_PER_MS},
    )


def _greeting(seen: Seen) -> Diagnosis:
    refused = not seen.banner.startswith("220")
    verdict = BAD if refused else graded(seen.greeting_ns, _SLOW_GREETING_NS, _TOO_SLOW_GREETING_NS)
    return Diagnosis(
        "greeting",
        verdict,
        f"{seen.banner} (after {format_duration(seen.greeting_ns)})",
        "every session will be turned away" if refused else ""
        if verdict == OK else "every new connection waits so long: a greet delay, or a name server that does not answer",
        "" if verdict == OK else "allow this machine's address on the server, or keep connections open with a `repeat`",
        {"banner": seen.banner, "greeting_ms": seen.greeting_ns / NS_PER_MS},
    )  # fmt: skip


def _trips(trips_ns: Sequence[int]) -> Diagnosis:
    middle_ns = median(trips_ns)
    p95_ns = quantiles(trips_ns, n=20, method="inclusive")[-1] if len(trips_ns) > 1 else middle_ns
    most = 1e9 / (_TRIPS_A_MESSAGE * middle_ns) if middle_ns else 0.0
    return Diagnosis(
        "round trip",
        OK,
        f"p50 {format_duration(middle_ns)}, p95 {format_duration(p95_ns)} ({len(trips_ns)} NOOPs)",
        f"one connection sends at most {most:,.0f} messages/s, at {_TRIPS_A_MESSAGE} round trips each: "
        "more need more connections, or a pipeline",
        "",
        {"p50_ms": middle_ns / NS_PER_MS, "p95_ms": p95_ns / NS_PER_MS, "most_messages_per_s_a_connection": most},
    )


def _advice(trouble: str) -> str:
    """What to do where no session came about."""
    if api.TLS_FAILED in trouble:
        return _NO_TLS if any(words in trouble for words in _PLAIN_TEXT) else _TRUST
    return _SILENT if trouble.partition(":")[0] == api.TIMEOUT else "start the server, or name another --target"


def _extensions(seen: Seen) -> Diagnosis:
    keywords = [words[0].upper() for words in map(str.split, seen.ehlo) if words]
    lacks = "" if "PIPELINING" in keywords else "without PIPELINING, scenarios that pipeline may fail"
    return Diagnosis("extensions", OK, ", ".join(keywords), lacks, "", {"ehlo": list(seen.ehlo)})


def _tls(tls: Tls, now_s: float, *, insecure: bool, needed: bool) -> Diagnosis:
    if tls.trouble:
        return Diagnosis(
            "TLS", BAD if needed else WARN, tls.trouble, "scenarios with STARTTLS fail", _TRUST,
            {"verified": False, "days_left": None},
        )  # fmt: skip
    spoken = f"{tls.protocol} {tls.cipher}".strip()
    figures: dict[str, Any] = {"protocol": tls.protocol, "cipher": tls.cipher, "verified": not insecure, "days_left": None}
    if tls.not_after_s is None:
        return Diagnosis(
            "TLS", WARN, f"{spoken}, certificate not verified", "", "name its authority with --ca FILE", figures
        )
    days = (tls.not_after_s - now_s) / _DAY_S
    verdict = BAD if days < 0 else WARN if days < _FEW_DAYS else OK
    return Diagnosis(
        "TLS",
        verdict,
        f"{spoken}, verified ({tls.issuer or 'issuer without a name'}), {days:,.0f} days left",
        "" if verdict == OK else "scenarios with STARTTLS fail once it has ended",
        "" if verdict == OK else "renew the certificate",
        figures | {"days_left": days},
    )


def _place(here: bool) -> Diagnosis:
    if not here:
        return Diagnosis("place", OK, "another machine", figures={"same_machine": False})
    return Diagnosis(
        "place",
        WARN,
        "this machine",
        "target and generator share its cores: each slows the other down, and the network is left out",
        "pin them to cores of their own (taskset -c 0 …), or send from a second machine",
        {"same_machine": True},
    )
