"""Exit code, JUnit, SARIF and annotations agree on what makes a command fail."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from hostile_results import finding, fuzz_result, rule_data, saved
from junitparser import Failure, JUnitXml

from smtpbench.report.formats.github import workflow_commands
from smtpbench.report.formats.junit import junit
from smtpbench.report.formats.sarif import sarif
from smtpbench.report.reading.exit_code import exit_code
from smtpbench.rules.rule import ADVICE, FAILING_SEVERITIES, SECURITY, SEVERITIES, fails_command

_REPRODUCIBILITY = ("3 of 3, deterministic", "1 of 3, flaky", "0 of 3, load-only", "1 of 1, the target is gone", "")


def result_with(severity: str, reproducibility: str, *, known: bool, strict: bool) -> dict[str, Any]:
    one = finding("noop-250", "it replied 500", severity=severity, reproducibility=reproducibility, known=known)
    rule = rule_data("noop-250", "violation", "it replied 500") | {"severity": severity}
    return fuzz_result(strict=strict, findings=[one], rules={"noop-250": rule})


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("reproducibility", _REPRODUCIBILITY)
def test_every_format_agrees_with_the_exit_code(severity: str, reproducibility: str) -> None:
    for known, strict in product((False, True), repeat=2):
        fails = fails_command(severity, strict=strict, reproducibility=reproducibility, known=known)
        one = saved(result_with(severity, reproducibility, known=known, strict=strict))
        assert exit_code([one]) == fails
        (suite,) = JUnitXml.fromstring(junit([one]).encode())
        assert any(isinstance(outcome, Failure) for case in suite for outcome in case.result) == fails
        assert workflow_commands([one]).startswith("::error") == fails
        (result,) = [one for one in json.loads(sarif([one]))["runs"][0]["results"] if one["ruleId"] == "noop-250"]
        assert (result["level"] == "error" and "suppressions" not in result) == fails


def test_finding_under_load_only_does_not_fail_a_command() -> None:
    for severity in FAILING_SEVERITIES:
        assert fails_command(severity, strict=True, reproducibility="1 of 3, flaky")
        assert not fails_command(severity, strict=True, reproducibility="0 of 3, load-only")
    assert fails_command(ADVICE, strict=True)
    assert not fails_command(ADVICE, strict=False)


def test_junit_says_why_a_finding_under_load_only_is_no_failure() -> None:
    one = saved(result_with(SECURITY, "0 of 3, load-only", known=False, strict=False))
    assert "violated, but not a failure (0 of 3, load-only): it replied 500" in junit([one])
