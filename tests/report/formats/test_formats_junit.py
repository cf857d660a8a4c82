"""JUnit XML, as junitparser reads it."""

from __future__ import annotations

from typing import Any

import pytest
from hostile_results import (
    ADVICE_RULE,
    capacity_result,
    check_result,
    comparison_result,
    finding,
    fuzz_result,
    rule_data,
    run_result,
    saved,
)
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from smtpbench.report.formats.junit import junit


def suite_of(result: dict[str, Any]) -> TestSuite:
    (suite,) = JUnitXml.fromstring(junit([saved(result)]).encode())
    return suite


def cases(suite: TestSuite) -> dict[str, TestCase]:
    return {case.name: case for case in suite}


def kind_of(case: TestCase) -> type | None:
    return type(case.result[0]) if case.result else None


def test_run_has_a_case_for_each_threshold() -> None:
    suite = suite_of(run_result("220 x"))
    found = cases(suite)
    assert (suite.name, suite.tests, suite.failures, suite.errors) == ("run: mine", 4, 2, 0)
    assert suite.time == 30.0
    assert suite.timestamp == "2026-01-02T03:04:05"
    assert kind_of(found["failed < 99%"]) is None
    (failure,) = found["message.p99 < 1ms 220 x"].result
    assert isinstance(failure, Failure)
    assert failure.message == "message.p99 < 1ms 220 x is 42.5 ms, 4150% beyond the limit"
    found_properties = suite.properties()  # type: ignore[no-untyped-call]  # the library's own
    properties = {one.name: one.value for one in found_properties}
    assert properties["target"] == "smtp://127.0.0.1:2525"
    assert int(properties["messages.attempted"]) > 0


@pytest.mark.parametrize("status", ["interrupted", "could-not-run", "aborted"])
def test_result_that_did_not_complete_is_an_error(status: str) -> None:
    suite = suite_of(run_result(outcome={"status": status, "reason": "by a signal"}))
    (error,) = cases(suite)["completed"].result
    assert isinstance(error, Error)
    assert error.message == f"{status}: by a signal"
    assert suite.errors == 1


def test_rules_fail_pass_or_are_skipped() -> None:
    found = cases(suite_of(check_result("it went on")))
    by_rule = {name.split()[0]: kind_of(case) for name, case in found.items()}
    assert by_rule == {
        "completed": None, "eod-lf-lf": Failure, "rcpt-100": Skipped, "dsn-arguments": None, ADVICE_RULE: Skipped,
        "tls-inject": Skipped,
    }  # fmt: skip
    assert found["tls-inject (RFC 3207 §4.2)"].result[0].message == "not run"
    assert found["rcpt-100 (RFC 5321 §4.5.3.1.8)"].result[0].message == "inconclusive: it went on"
    (failure,) = found["eod-lf-lf (RFC 5321 §4.1.1.4)"].result
    assert failure.message == "it went on"
    assert failure.type == "security"
    for part in ("required: Only CRLF.CRLF", "  C: NOOP\\r\\n\n  ```\n", "replay: smtpbench check", "eod-lf-lf-0123abcd"):
        assert part in failure.text
    strict = suite_of(check_result("it went on", strict=True))
    assert strict.failures == 2


def test_finding_of_a_rule_without_a_verdict_is_a_failure() -> None:
    found = cases(suite_of(run_result("x", hostile={"findings": [finding(text="it went on")], "rules": {}})))
    (failure,) = found["eod-lf-lf"].result
    assert (type(failure), failure.message) == (Failure, "it went on")


def test_finding_in_the_baseline_is_skipped() -> None:
    found = cases(suite_of(fuzz_result()))
    assert kind_of(found["health (RFC 5321 §3.8)"]) is Failure
    (skipped,) = found["eod-lf-lf (RFC 5321 §4.1.1.4)"].result
    assert skipped.message == "violated, but not a failure (in the baseline): no reply"


def test_comparison_has_a_case_for_each_metric() -> None:
    suite = suite_of(comparison_result("other"))
    assert [(case.name, kind_of(case)) for case in suite] == [
        ("completed", None), ("message.p99", Failure), ("throughput", None), ("failed", None), ("other", Skipped),
        ("eod-lf-lf", Failure),
    ]  # fmt: skip
    (failure,) = cases(suite)["message.p99"].result
    assert failure.message == "slower: 10 ms → 12.5 ms +25.0% [+20.0 … +30.0]"


def test_capacity_fails_if_no_rate_met_the_objectives() -> None:
    assert suite_of(capacity_result()).failures == 0
    none = capacity_result(capacity={"rate_per_s": None, "reason": "even 10/s did not"})
    assert suite_of(none).failures == 1


def test_totals_are_the_sums_of_the_suites() -> None:
    rules = {"tls-inject": rule_data("tls-inject", "violation", "x")}
    broken = check_result(rules=rules, findings=[finding("tls-inject", "x")])
    root = JUnitXml.fromstring(junit([saved(run_result()), saved(broken)]).encode())
    assert (root.tests, root.failures, root.errors, root.skipped) == (4 + 2, 2 + 1, 0, 0)
    assert [suite.name for suite in root] == ["run: mine", "check: mine (2)"]
