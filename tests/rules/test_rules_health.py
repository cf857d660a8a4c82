"""The rule `health`: a server that stops replying. Servers that crash are tested with the checker."""

from __future__ import annotations

from check_sink import check_sink, not_passed

from smtpbench.sink.mutants.health import MUTANTS


def test_correct_server_passes() -> None:
    assert not_passed(check_sink(["health"])) == {}


def test_server_that_stops_replying_is_reported() -> None:
    result = check_sink(["health"], MUTANTS["health"], timeout_ns=400_000_000)["health"]
    assert result.violated
    assert result.severity == "hang"
    assert result.verdict.actual == "the server did not reply to NOOP after a reply of 501"
