"""OpenMetrics, as prometheus_client's strict parser reads it."""

from __future__ import annotations

from typing import Any

import pytest
from hdrh.histogram import HdrHistogram
from hostile_results import capacity_result, comparison_result, fuzz_result, run_result, saved
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from smtpbench.report.formats.openmetrics import openmetrics


def samples(*results: dict[str, Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return samples by name and labels, without the label of the result."""
    text = openmetrics([saved(result) for result in results])
    assert text.endswith("# EOF\n")
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # the library's own
    return {
        (one.name, tuple(pair for pair in sorted(one.labels.items()) if pair[0] != "result")): one.value
        for family in families
        for one in family.samples
    }


def test_run_has_counters_histograms_and_thresholds() -> None:
    result = run_result("x")
    found = samples(result)
    assert found["smtpbench_messages_total", (("outcome", "accepted"),)] == result["messages"]["accepted"]
    rejected = (("class", "5xx"), ("code", "550"), ("verb", "RCPT"))
    assert found["smtpbench_replies_total", rejected] == result["replies"]["RCPT"]["550"]
    times = result["latency"]["RCPT"]["response"]
    labels = (("expected", "true"), ("slot", "RCPT"), ("time", "response"))
    quantile = (labels[0], ("quantile", "0.99"), *labels[1:])
    assert found["smtpbench_latency_quantile_seconds", quantile] == pytest.approx(times["p99_ms"] / 1000)
    assert found["smtpbench_latency_seconds_count", labels] == times["count"]
    library: Any = HdrHistogram.decode(times["histogram"])
    for edge_s in (0.001, 0.0025, 0.005, 0.01):
        edge_us = library.get_highest_equivalent_value(round(edge_s * 1e6))
        steps = library.get_recorded_iterator()
        counted = sum(step.count_at_value_iterated_to for step in steps if step.value_iterated_to <= edge_us)
        assert found["smtpbench_latency_seconds_bucket", (labels[0], ("le", str(edge_s)), *labels[1:])] == counted
    assert found["smtpbench_latency_seconds_sum", labels] == pytest.approx(times["mean_ms"] * times["count"] / 1000)
    assert found["smtpbench_threshold_passed", (("threshold", "failed < 99%"),)] == 1
    assert found["smtpbench_threshold_passed", (("threshold", "message.p99 < 1ms x"),)] == 0


def test_other_results_have_rules_differences_and_capacity() -> None:
    found = samples(fuzz_result("x"), comparison_result("B"), capacity_result())
    assert found["smtpbench_rule_kept", (("rule", "health"), ("severity", "crash"))] == 0
    assert found["smtpbench_findings", (("rule", "health"), ("severity", "crash"))] == 1
    versus = (("baseline", "A"), ("candidate", "B"), ("metric", "message.p99"))
    assert found["smtpbench_difference", (*versus, ("of", "low"), ("unit", "share"))] == 0.2
    assert found["smtpbench_difference_worse", versus] == 1
    assert found["smtpbench_capacity_messages_per_second", ()] == 400


def test_names_that_are_equal_once_visible_are_one_sample() -> None:
    result = run_result("x", errors={"a\x01": 2, "a\\x01": 3})
    assert samples(result)["smtpbench_errors_total", (("kind", "a\\x01"),)] == 5
    text = openmetrics([saved(result), saved(result)])
    assert text.count("# TYPE smtpbench_messages counter") == 1
    assert 'result="mine (2)"' in text
