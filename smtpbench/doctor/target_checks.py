"""Diagnoses of what a session with a target showed. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from smtpbench.doctor.diagnosis import BAD, OK, WARN, Diagnosis, grade
from smtpbench.doctor.target_probe import TargetObservation, TlsObservation
from smtpbench.engine import api
from smtpbench.text import plural
from smtpbench.units import NS_PER_MS, NS_PER_S, format_duration

#: Round trips of a message without pipelining: MAIL, RCPT, DATA and the message itself.
_TRIPS_PER_MESSAGE = 4
_DAY_S = 86_400
_FEW_DAYS = 14
_SLOW_GREETING_NS, _VERY_SLOW_GREETING_NS = NS_PER_S, 30 * NS_PER_S
#: Error texts of OpenSSL for a greeting in plain text where a handshake was expected.
_PLAIN_TEXT_ERRORS = ("wrong version number", "record layer failure", "packet length too long")
_SILENT_ADVICE = "find out what the server waits for; if it expects TLS first, use smtps://"
_PLAIN_TEXT_ADVICE = "the server does not start with TLS; use smtp:// or lmtp://, or the port that does"
_TRUST_ADVICE = "use --ca FILE to trust its authority, --sni for its name, or --insecure to trust any certificate"


def target_diagnoses(
    observed: TargetObservation, now_s: float, *, insecure: bool, starttls: bool = False
) -> list[Diagnosis]:
    """Return the diagnoses of a target.

    Args:
        observed: What the session showed.
        now_s: Current time, seconds since 1970.
        insecure: Whether certificates are not verified.
        starttls: Whether every session is to use STARTTLS.
    """
    if not observed.addresses:
        return [Diagnosis("target", BAD, observed.error, "a run cannot start", "use another --target")]
    if not observed.banner:
        advice = _connection_advice(observed.error)
        figures = {"addresses": list(observed.addresses)}
        value = f"{', '.join(observed.addresses)}: {observed.error}"
        return [Diagnosis("target", BAD, value, "a run cannot start", advice, figures)]
    found = [_addresses(observed), _greeting(observed)]
    found += [_round_trips(observed.round_trips_ns)] if observed.round_trips_ns else []
    found += [_extensions(observed)] if observed.ehlo else []
    found += [_tls(observed.tls, now_s, insecure=insecure, required=starttls)] if observed.tls is not None else []
    if observed.error:
        found.append(
            Diagnosis("session", BAD, observed.error, "sessions of a run will fail in the same way", "fix the server first")
        )
    if observed.is_local is not None:
        found.append(_location(observed.is_local))
    return found


def _addresses(observed: TargetObservation) -> Diagnosis:
    several = len(observed.addresses) > 1
    return Diagnosis(
        "target",
        OK,
        f"{', '.join(observed.addresses)}, connected in {format_duration(observed.connect_ns)}",
        "a run uses only the first address that answers" if several else "",
        "",
        {"addresses": list(observed.addresses), "connect_ms": observed.connect_ns / NS_PER_MS},
    )


def _greeting(observed: TargetObservation) -> Diagnosis:
    refused = not observed.banner.startswith("220")
    verdict = BAD if refused else grade(observed.greeting_ns, _SLOW_GREETING_NS, _VERY_SLOW_GREETING_NS)
    return Diagnosis(
        "greeting",
        verdict,
        f"{observed.banner} (after {format_duration(observed.greeting_ns)})",
        "every session will be rejected" if refused else "" if verdict == OK else
        "every new connection waits as long, for a greeting delay or for a name server that does not answer",
        "" if verdict == OK else "allow this machine's address on the server, or reuse connections with `repeat`",
        {"banner": observed.banner, "greeting_ms": observed.greeting_ns / NS_PER_MS},
    )  # fmt: skip


def _round_trips(round_trips_ns: Sequence[int]) -> Diagnosis:
    median_ns = median(round_trips_ns)
    p95_ns = quantiles(round_trips_ns, n=20, method="inclusive")[-1] if len(round_trips_ns) > 1 else median_ns
    limit_per_s = 1e9 / (_TRIPS_PER_MESSAGE * median_ns) if median_ns else 0.0
    return Diagnosis(
        "round trip",
        OK,
        f"p50 {format_duration(median_ns)}, p95 {format_duration(p95_ns)} ({plural(len(round_trips_ns), 'NOOP')})",
        f"one connection sends at most {limit_per_s:,.0f} messages/s, with {_TRIPS_PER_MESSAGE} round trips each; "
        "use more connections or a pipeline for more",
        "",
        {"p50_ms": median_ns / NS_PER_MS, "p95_ms": p95_ns / NS_PER_MS, "most_messages_per_s_a_connection": limit_per_s},
    )


def _connection_advice(error: str) -> str:
    """Return what to do about a session that was not possible."""
    if api.TLS_FAILED in error:
        return _PLAIN_TEXT_ADVICE if any(text in error for text in _PLAIN_TEXT_ERRORS) else _TRUST_ADVICE
    return _SILENT_ADVICE if error.partition(":")[0] == api.TIMEOUT else "start the server, or use another --target"


def _extensions(observed: TargetObservation) -> Diagnosis:
    keywords = [parts[0].upper() for parts in map(str.split, observed.ehlo) if parts]
    limits = "" if "PIPELINING" in keywords else "scenarios that pipeline may fail without PIPELINING"
    return Diagnosis("extensions", OK, ", ".join(keywords), limits, "", {"ehlo": list(observed.ehlo)})


def _tls(tls: TlsObservation, now_s: float, *, insecure: bool, required: bool) -> Diagnosis:
    if tls.error:
        return Diagnosis(
            "TLS", BAD if required else WARN, tls.error, "scenarios with STARTTLS fail", _TRUST_ADVICE,
            {"verified": False, "days_left": None},
        )  # fmt: skip
    version = f"{tls.protocol} {tls.cipher}".strip()
    figures: dict[str, Any] = {"protocol": tls.protocol, "cipher": tls.cipher, "verified": not insecure, "days_left": None}
    if tls.not_after_s is None:
        return Diagnosis("TLS", WARN, f"{version}, certificate not verified", "", "use --ca FILE to verify it", figures)
    days = (tls.not_after_s - now_s) / _DAY_S
    verdict = BAD if days < 0 else WARN if days < _FEW_DAYS else OK
    return Diagnosis(
        "TLS",
        verdict,
        f"{version}, verified ({tls.issuer or 'issuer without a name'}), {plural(round(days), 'day')} left",
        "" if verdict == OK else "scenarios with STARTTLS fail after it has expired",
        "" if verdict == OK else "renew the certificate",
        figures | {"days_left": days},
    )


def _location(is_local: bool) -> Diagnosis:
    if not is_local:
        return Diagnosis("place", OK, "another machine", figures={"same_machine": False})
    return Diagnosis(
        "place",
        WARN,
        "this machine",
        "target and generator share cores and slow each other down; the network is not measured",
        "give each its own cores (`taskset -c 0 …`), or send from a second machine",
        {"same_machine": True},
    )
