"""The console view of saved results, and the exit code that they stand for."""

from __future__ import annotations

from typing import Any

import pytest
from hostile_results import (
    CONTROLS,
    capacity_result,
    check_result,
    comparison_result,
    finding,
    fuzz_result,
    rule_data,
    run_result,
    saved,
)

from smtpbench.measure.recorder import Interval
from smtpbench.report.reading.exit_code import exit_code
from smtpbench.report.terminal.saved import saved_results


def passing_check(**changes: Any) -> dict[str, Any]:
    return check_result(**({"rules": {"health": rule_data("health", "pass")}, "findings": []} | changes))


def completed_run(**changes: Any) -> dict[str, Any]:
    result = run_result("x", thresholds=[], **changes)
    del result["hostile"]
    return result


def test_each_kind_of_result_is_shown() -> None:
    results = (completed_run(), check_result(), fuzz_result(), comparison_result("B"), capacity_result())
    shown = saved_results(list(map(saved, results)))
    for part in ("relay → smtp://", "saved: results/mine/result.json", "SECURITY eod-lf-lf", "7 times", "B against A",
                 "the capacity is 400/s"):  # fmt: skip
        assert part in shown
    assert saved_results([saved(passing_check()), saved(passing_check())]).startswith("A: smtp://127.0.0.1:2525")


def test_hostile_text_in_a_scorecard_is_escaped() -> None:
    result = check_result(CONTROLS)
    result["findings"][0] = finding(text=CONTROLS, repeat=CONTROLS, reproducibility=CONTROLS)
    result["target"]["url"] = CONTROLS
    for shown in (
        saved_results([saved(result)]),
        saved_results([saved(result), saved(result)]),
        saved_results([saved(fuzz_result(CONTROLS))]),
    ):
        assert not {"\x1b", "\x07", "\r", "\u202e", "\ud800"} & set(shown)


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([completed_run(), passing_check()], 0),
        ([check_result()], 1),
        ([passing_check(rules={"x": rule_data("health", "violation", "y") | {"severity": "warning"}})], 0),
        ([fuzz_result(findings=[finding(known=True)], rules={})], 0),
        ([fuzz_result()], 1),
        ([comparison_result()], 1),
        ([comparison_result(differences=[], rule_differences=[])], 0),
        ([run_result()], 99),
        ([check_result(), run_result()], 99),
        ([completed_run(outcome={"status": "interrupted", "reason": ""}), run_result()], 130),
        ([completed_run(outcome={"status": "could-not-run", "reason": ""}), passing_check(outcome="interrupted")], 3),
        ([run_result(outcome={"status": "aborted", "reason": ""})], 99),
        ([run_result(outcome={"status": "incomplete", "reason": "worker 1 was killed by SIGKILL"})], 4),
        ([run_result(outcome={"status": "incomplete", "reason": ""}), passing_check(outcome="interrupted")], 130),
        ([capacity_result()], 0),
        ([capacity_result(capacity={"rate_per_s": None})], 99),
    ],
)
def test_exit_code_of_saved_results(results: list[dict[str, Any]], code: int) -> None:
    assert exit_code(map(saved, results)) == code


def test_empty_run_is_shown() -> None:
    from figures import result_of

    assert "attempted 0" in saved_results([saved(result_of(Interval()))])
