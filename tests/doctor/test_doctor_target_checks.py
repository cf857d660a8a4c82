"""Verdicts on a target, from invented observations, and observations of real servers."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
import servers
from runner import sink

from smtpbench.doctor.diagnosis import BAD, OK, WARN, Diagnosis
from smtpbench.doctor.target_checks import target_diagnoses
from smtpbench.doctor.target_probe import TargetObservation, TlsObservation, is_local, probe_target
from smtpbench.engine.connection import Route
from smtpbench.errors import UsageError
from smtpbench.target import Access, Trust, parse_target

MS, S, DAY_S = 1_000_000, 1_000_000_000, 86_400
NOW_S = 1_000_000_000.0
VERIFIED = TlsObservation("TLSv1.3", "TLS_AES_256_GCM_SHA384", "Some CA", NOW_S + 90 * DAY_S)
HEALTHY = TargetObservation(
    ("192.0.2.1",), "", 2 * MS, 5 * MS, "220 mx.example ESMTP", ("PIPELINING", "SIZE 1000"), (2 * MS,) * 20, False, VERIFIED
)


def diagnoses_of(observed: TargetObservation, *, insecure: bool = False, starttls: bool = False) -> dict[str, Diagnosis]:
    return {one.name: one for one in target_diagnoses(observed, NOW_S, insecure=insecure, starttls=starttls)}


def test_healthy_target() -> None:
    found = diagnoses_of(HEALTHY)
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(
        ("target", "greeting", "round trip", "extensions", "TLS", "place"), OK
    )
    assert "at most 125 messages/s" in found["round trip"].limits  # four round trips of 2 ms
    assert "90 days left" in found["TLS"].value


@pytest.mark.parametrize(
    ("name", "observed", "verdict", "text"),
    [
        ("target", TargetObservation(error="cannot find the address of x"), BAD, "cannot find"),
        ("target", TargetObservation(("192.0.2.1",), "connect_refused"), BAD, "192.0.2.1: connect_refused"),
        ("greeting", replace(HEALTHY, greeting_ns=6 * S), WARN, "after 6.00 s"),
        ("greeting", replace(HEALTHY, greeting_ns=40 * S), BAD, "after 40.0 s"),
        ("greeting", replace(HEALTHY, banner="554 no"), BAD, "554 no"),
        ("session", replace(HEALTHY, error="reset: while waiting (NOOP)"), BAD, "reset"),
        ("place", replace(HEALTHY, is_local=True), WARN, "this machine"),
        ("TLS", replace(HEALTHY, tls=replace(VERIFIED, not_after_s=NOW_S + 3 * DAY_S)), WARN, "3 days left"),
        ("TLS", replace(HEALTHY, tls=replace(VERIFIED, not_after_s=NOW_S - DAY_S)), BAD, "-1 days left"),
        ("TLS", replace(HEALTHY, tls=replace(VERIFIED, not_after_s=None)), WARN, "not verified"),
        ("TLS", replace(HEALTHY, tls=TlsObservation(error="tls_failed: self-signed")), WARN, "self-signed"),
    ],
)
def test_verdict_depends_on_the_observation(name: str, observed: TargetObservation, verdict: str, text: str) -> None:
    one = diagnoses_of(observed)[name]
    assert one.verdict == verdict
    assert text in one.value
    assert one.advice


def test_untrusted_tls_is_bad_if_every_session_needs_it() -> None:
    untrusted = replace(HEALTHY, tls=TlsObservation(error="tls_failed: self-signed"))
    assert diagnoses_of(untrusted, starttls=True)["TLS"].verdict == BAD
    implicit = diagnoses_of(TargetObservation(("192.0.2.1",), "tls_failed: certificate not trusted"))["target"]
    assert (
        "use smtp://"
        in diagnoses_of(TargetObservation(("192.0.2.1",), "tls_failed: wrong version number (banner)"))["target"].advice
    )
    assert "start the server" in diagnoses_of(TargetObservation(("192.0.2.1",), "connect_timeout"))["target"].advice
    assert "use smtps://" in diagnoses_of(TargetObservation(("192.0.2.1",), "timeout: banner"))["target"].advice
    assert "--ca" in implicit.advice


def test_only_what_was_observed_is_reported() -> None:
    found = diagnoses_of(TargetObservation(("192.0.2.1",), "", MS, MS, "220 x"))
    assert set(found) == {"target", "greeting"}
    assert "uses only the first address" in diagnoses_of(replace(HEALTHY, addresses=("::1", "127.0.0.1")))["target"].limits
    assert "without PIPELINING" in diagnoses_of(replace(HEALTHY, ehlo=("SIZE",)))["extensions"].limits


def test_addresses_of_this_machine_are_recognised() -> None:
    assert is_local(Route(socket.AF_INET, ("127.0.0.1", 25)))
    assert is_local(Route(socket.AF_INET, ("192.0.2.1", 25))) is False
    assert is_local(Route(socket.AF_UNIX, "/tmp/x"))


def access(url: str, trust: Trust | None = None) -> Access:
    return Access(parse_target(url), trust or Trust())


async def test_server_with_starttls(tls: servers.Tls) -> None:
    with sink("--tls-cert", str(tls.cert), "--tls-key", str(tls.key)) as (port, counts):
        url = f"smtp://127.0.0.1:{port}"
        observed = await probe_target(access(url, Trust(ca=tls.ca, server_name="localhost")))
        untrusted = await probe_target(access(url))
    assert (observed.error, observed.addresses, observed.is_local) == ("", ("127.0.0.1",), True)
    assert observed.banner.startswith("220 ")
    assert {"PIPELINING", "STARTTLS"} <= {line.split()[0] for line in observed.ehlo}
    assert len(observed.round_trips_ns) == 20
    assert min(observed.connect_ns, observed.greeting_ns, *observed.round_trips_ns) > 0
    assert observed.tls is not None
    assert observed.tls.protocol.startswith("TLSv1")
    assert observed.tls.not_after_s is not None
    assert untrusted.tls is not None
    assert "certificate" in untrusted.tls.error
    assert counts["messages"]["accepted"] == 0


async def test_server_with_implicit_tls(tls: servers.Tls) -> None:
    with sink("--tls-cert", str(tls.cert), "--tls-key", str(tls.key), "--implicit-tls") as (port, _):
        url = f"smtps://127.0.0.1:{port}"
        observed = await probe_target(access(url, Trust(insecure=True)))
        untrusted = await probe_target(access(url))
    assert (observed.error, len(observed.round_trips_ns)) == ("", 20)
    assert observed.tls is not None
    assert observed.tls.not_after_s is None
    assert not untrusted.banner
    assert "tls_failed" in untrusted.error


async def test_server_that_rejects_every_connection() -> None:
    with sink("--on", "connect=554 5.3.2 \x1b[2Jno") as (port, _):
        observed = await probe_target(access(f"smtp://127.0.0.1:{port}"))
    assert observed.banner.startswith("554 ")
    assert "\x1b" not in observed.banner
    assert diagnoses_of(observed)["greeting"].verdict == BAD


async def test_unreachable_target(tmp_path: Path) -> None:
    assert "connect_refused" in (await probe_target(access(f"smtp://127.0.0.1:{servers.free_port()}"))).error
    assert "cannot find" in (await probe_target(access("smtp://nosuch.invalid"))).error
    assert (await probe_target(access(f"lmtp+unix://{tmp_path}/none"))).banner == ""
    with pytest.raises(UsageError, match="--authorized"):
        await probe_target(access("smtp://192.0.2.1"))
