"""Servers outlive their clients; the test of a server that dies stands with the court's."""

from __future__ import annotations

from judging import judged, verdicts

from smtpbench.sink.mutants.health import MUTANTS


def test_the_clean_sink_lives() -> None:
    assert verdicts(judged(["health"])) == {}


def test_a_server_that_falls_silent_is_seen() -> None:
    outcome = judged(["health"], MUTANTS["health"], timeout_ns=400_000_000)["health"]
    assert outcome.violated
    assert outcome.verdict.actual == "NOOP, after 501, got no reply"
