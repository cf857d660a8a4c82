"""Every verdict on a target, from what is made up; and what is seen of real ones."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
import servers
from runner import sink

from smtpbench.doctor.diagnosis import BAD, OK, WARN, Diagnosis
from smtpbench.doctor.target import Seen, Tls, is_here, look, target_diagnoses
from smtpbench.engine.connection import Route
from smtpbench.errors import UsageError
from smtpbench.target import Access, Trust, parse_target

MS, S, DAY_S = 1_000_000, 1_000_000_000, 86_400
NOW_S = 1_000_000_000.0
CERTIFIED = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "Some CA", NOW_S + 90 * DAY_S)
WELL = Seen(
    ("192.0.2.1",), "", 2 * MS, 5 * MS, "220 mx.example ESMTP", ("PIPELINING", "SIZE 1000"), (2 * MS,) * 20, False, CERTIFIED
)


def judged(seen: Seen, *, insecure: bool = False, starttls: bool = False) -> dict[str, Diagnosis]:
    return {one.name: one for one in target_diagnoses(seen, NOW_S, insecure=insecure, starttls=starttls)}


def test_a_target_that_is_well() -> None:
    found = judged(WELL)
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(
        ("target", "greeting", "round trip", "extensions", "TLS", "place"), OK
    )
    assert "at most 125 messages/s" in found["round trip"].limits  # four round trips of 2 ms
    assert "90 days left" in found["TLS"].value


@pytest.mark.parametrize(
    ("name", "seen", "verdict", "words"),
    [
        ("target", Seen(trouble="cannot find the address of x"), BAD, "cannot find"),
        ("target", Seen(("192.0.2.1",), "connect_refused"), BAD, "192.0.2.1: connect_refused"),
        ("greeting", replace(WELL, greeting_ns=6 * S), WARN, "after 6.00 s"),
        ("greeting", replace(WELL, greeting_ns=40 * S), BAD, "after 40.0 s"),
        ("greeting", replace(WELL, banner="554 no"), BAD, "554 no"),
        ("session", replace(WELL, trouble="reset: while waiting (NOOP)"), BAD, "reset"),
        ("place", replace(WELL, here=True), WARN, "this machine"),
        ("TLS", replace(WELL, tls=replace(CERTIFIED, not_after_s=NOW_S + 3 * DAY_S)), WARN, "3 days left"),
        ("TLS", replace(WELL, tls=replace(CERTIFIED, not_after_s=NOW_S - DAY_S)), BAD, "-1 days left"),
        ("TLS", replace(WELL, tls=replace(CERTIFIED, not_after_s=None)), WARN, "not verified"),
        ("TLS", replace(WELL, tls=Tls(trouble="tls_failed: self-signed")), WARN, "self-signed"),
    ],
)
def test_each_verdict(name: str, seen: Seen, verdict: str, words: str) -> None:
    one = judged(seen)[name]
    assert one.verdict == verdict
    assert words in one.value
    assert one.advice


def test_what_every_session_needs_must_be_trusted() -> None:
    untrusted = replace(WELL, tls=Tls(trouble="tls_failed: self-signed"))
    assert judged(untrusted, starttls=True)["TLS"].verdict == BAD
    implicit = judged(Seen(("192.0.2.1",), "tls_failed: certificate not trusted"))["target"]
    assert "say smtp://" in judged(Seen(("192.0.2.1",), "tls_failed: wrong version number (banner)"))["target"].advice
    assert "start the server" in judged(Seen(("192.0.2.1",), "connect_timeout"))["target"].advice
    assert "say smtps://" in judged(Seen(("192.0.2.1",), "timeout: banner"))["target"].advice
    assert "--ca" in implicit.advice


def test_what_was_not_seen_is_not_told() -> None:
    found = judged(Seen(("192.0.2.1",), "", MS, MS, "220 x"))
    assert set(found) == {"target", "greeting"}
    assert "uses the first address" in judged(replace(WELL, addresses=("::1", "127.0.0.1")))["target"].limits
    assert "without PIPELINING" in judged(replace(WELL, ehlo=("SIZE",)))["extensions"].limits


def test_which_addresses_are_ours() -> None:
    assert is_here(Route(socket.AF_INET, ("127.0.0.1", 25)))
    assert is_here(Route(socket.AF_INET, ("192.0.2.1", 25))) is False
    assert is_here(Route(socket.AF_UNIX, "/tmp/x"))


def access(url: str, trust: Trust | None = None) -> Access:
    return Access(parse_target(url), trust or Trust())


async def test_a_server_with_starttls(tls: servers.Tls) -> None:
    with sink("--tls-cert", str(tls.cert), "--tls-key", str(tls.key)) as (port, counts):
        url = f"smtp://127.0.0.1:{port}"
        seen = await look(access(url, Trust(ca=tls.ca, server_name="localhost")))
        untrusted = await look(access(url))
    assert (seen.trouble, seen.addresses, seen.here) == ("", ("127.0.0.1",), True)
    assert seen.banner.startswith("220 ")
    assert {"PIPELINING", "STARTTLS"} <= {line.split()[0] for line in seen.ehlo}
    assert len(seen.trips_ns) == 20
    assert min(seen.connect_ns, seen.greeting_ns, *seen.trips_ns) > 0
    assert seen.tls is not None
    assert seen.tls.protocol.startswith("TLSv1")
    assert seen.tls.not_after_s is not None
    assert untrusted.tls is not None
    assert "certificate" in untrusted.tls.trouble
    assert counts["messages"]["accepted"] == 0


async def test_a_server_of_tls_from_the_start(tls: servers.Tls) -> None:
    with sink("--tls-cert", str(tls.cert), "--tls-key", str(tls.key), "--implicit-tls") as (port, _):
        url = f"smtps://127.0.0.1:{port}"
        seen = await look(access(url, Trust(insecure=True)))
        untrusted = await look(access(url))
    assert (seen.trouble, len(seen.trips_ns)) == ("", 20)
    assert seen.tls is not None
    assert seen.tls.not_after_s is None
    assert not untrusted.banner
    assert "tls_failed" in untrusted.trouble


async def test_a_server_that_turns_everybody_away() -> None:
    with sink("--on", "connect=554 5.3.2 \x1b[2Jno") as (port, _):
        seen = await look(access(f"smtp://127.0.0.1:{port}"))
    assert seen.banner.startswith("554 ")
    assert "\x1b" not in seen.banner
    assert judged(seen)["greeting"].verdict == BAD


async def test_nobody_there(tmp_path: Path) -> None:
    assert "connect_refused" in (await look(access(f"smtp://127.0.0.1:{servers.free_port()}"))).trouble
    assert "cannot find" in (await look(access("smtp://nosuch.invalid"))).trouble
    assert (await look(access(f"lmtp+unix://{tmp_path}/none"))).banner == ""
    with pytest.raises(UsageError, match="--authorized"):
        await look(access("smtp://192.0.2.1"))
