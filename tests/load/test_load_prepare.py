"""The preparation of a run finds every mistake that needs no network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smtpbench.errors import CannotRun, UsageError
from smtpbench.load import prepare as prepare_module
from smtpbench.load.plan import LoadPlan
from smtpbench.load.prepare import SPARE_DESCRIPTORS, prepare
from smtpbench.load.request import RunRequest
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.target import Trust, parse_target
from smtpbench.threshold import parse_threshold

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("the preparation used the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def request_of(**changes: Any) -> RunRequest:
    """Return a request with the scenario relay, to a host that does not exist."""
    values: dict[str, Any] = {
        "file": load_scenario(find_scenario("relay")),
        "target": parse_target("smtp://nosuch.invalid"),
        "plan": LoadPlan(),
        "out": Path("/nowhere"),
    }
    return RunRequest(**(values | changes))


def test_job_of_the_workers() -> None:
    monitor = ThresholdMonitor([parse_threshold("failed@recipient.example < 1%")])
    trust = Trust(ca=Path("ca.pem"), insecure=True)
    prepared = prepare(request_of(monitor=monitor, trust=trust, password="secret", message_bytes=777), STARTED)
    job = prepared.job
    assert job.run_id.startswith("20260102-030405-")
    assert (job.started, job.target, job.plan) == (STARTED.isoformat(), "smtp://nosuch.invalid:25", LoadPlan())
    assert (job.ca, job.certificate, job.key, job.insecure) == ("ca.pem", None, None, True)
    assert (job.password, job.message_bytes, job.domains) == ("secret", 777, ("recipient.example",))
    assert "secret" not in repr(prepared)
    assert prepared.script.reply_count > 0


def test_tls_context_exists_only_for_scripts_that_use_tls() -> None:
    assert prepare(request_of(), STARTED).tls is None
    assert prepare(request_of(target=parse_target("smtps://nosuch.invalid")), STARTED).tls is not None
    assert prepare(request_of(target=parse_target("smtp://nosuch.invalid?tls=starttls")), STARTED).tls is not None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (lambda: {"monitor": ThresholdMonitor([parse_threshold("mesage.p99 < 1ms")])}, "no latency 'mesage'"),
        (
            lambda: {"monitor": ThresholdMonitor([parse_threshold("failed@no.example < 1%")])},
            "recipient at no.example",
        ),
        (lambda: {"target": parse_target("smtps://x.example"), "trust": Trust(ca=Path("/nowhere"))}, "--ca /nowhere"),
    ],
)
def test_mistake_in_the_request(changes: Callable[[], dict[str, Any]], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        prepare(request_of(**changes()), STARTED)


def test_connections_of_one_process_need_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "raise_descriptor_limit", lambda: 1000)
    most = 1000 - SPARE_DESCRIPTORS
    assert prepare(request_of(plan=LoadPlan(connections=most)), STARTED)
    assert prepare(request_of(plan=LoadPlan(connections=2 * most, workers=2)), STARTED)
    with pytest.raises(CannotRun, match="937 connections: each worker needs 1,001 open files"):
        prepare(request_of(plan=LoadPlan(connections=most + 1)), STARTED)
