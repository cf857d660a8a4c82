"""The scorecard: what counts, what is shown, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from smtpbench.report.terminal.scorecard import mark, matrix, scorecard


def rule(
    verdict: str, severity: str = "violation", section: str = "RFC 5321 §4.2", id_: str = "R01", actual: str = ""
) -> dict[str, str]:
    return {
        "verdict": verdict, "severity": severity, "section": section, "id": id_, "requirement": "Be brief.", "expected": "",
        "actual": actual,
    }  # fmt: skip


def result(rules: dict[str, dict[str, str]], findings: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"target": {"url": "smtp://x:25", "banner": "220 x"}, "strict": False, "rules": rules, "findings": findings or []}


@pytest.mark.parametrize(
    ("verdict", "severity", "shown"),
    [
        ("pass", "security", "passed"),
        ("violation", "security", "SECURITY"),
        ("violation", "advice", "advice"),
        ("inconclusive", "security", "?"),
        ("not-run", "security", "-"),
    ],
)
def test_marks_are_short(verdict: str, severity: str, shown: str) -> None:
    assert mark(verdict, severity) == shown


def test_rules_that_ran_are_listed_in_the_order_of_the_rfc() -> None:
    text = scorecard(
        result({
            "b": rule("pass", section="RFC 3207 §4.2"),
            "c": rule("pass", section="RFC 5321 §4.1.1.10"),
            "a": rule("inconclusive", section="RFC 5321 §4.1.1.4", actual="no recipient"),
            "d": rule("not-run"),
        }),
        color=False,
    )  # fmt: skip
    lines = text.splitlines()
    assert lines == [
        "smtp://x:25  220 x",
        "", "RFC 5321 §4.1.1.4", "  ?          a                    no recipient",
        "", "RFC 5321 §4.1.1.10", "  passed     c",
        "", "RFC 3207 §4.2", "  passed     b",
        "", "1 inconclusive, 2 passed",
    ]  # fmt: skip


def test_finding_is_shown_with_its_dialogue() -> None:
    finding = {
        "id": "a-1", "rule": "a", "severity": "security", "actual": "it went on", "reproducibility": "2 of 2",
        "dialogue": ["C: NOOP", "S: 250 ok"], "repeat": "smtpbench check --target smtp://x:25 a",
    }  # fmt: skip
    text = scorecard(result({"a": rule("violation", "security")}, [finding]), color=False)
    for part in (
        "SECURITY a (RFC 5321 §4.2)", "required: Be brief.", "actual:   it went on  (2 of 2)",
        "    C: NOOP\n    S: 250 ok",
        "repeat:   smtpbench check --target smtp://x:25 a",
    ):  # fmt: skip
        assert part in text
    assert "\x1b[" in scorecard(result({"a": rule("violation", "security")}, [finding]), color=True)


def test_gravest_findings_and_totals_stand_first() -> None:
    severities = ("warning", "hang", "violation", "advice", "security", "crash")
    rules = {name: rule("violation", name, id_=f"R{at}") for at, name in enumerate(severities)}
    findings = [{"id": name, "rule": name, "severity": name, "actual": f"{name} found"} for name in severities]
    text = scorecard(result(rules | {"p": rule("pass"), "i": rule("inconclusive")}, findings), color=False)
    order = [
        text.index(f"actual:   {name} found") for name in ("crash", "hang", "security", "violation", "warning", "advice")
    ]
    assert order == sorted(order)
    assert text.endswith("1 CRASH, 1 HANG, 1 SECURITY, 1 VIOLATION, 1 warning, 1 advice, 1 inconclusive, 1 passed")


def test_matrix_shows_only_rules_that_ran() -> None:
    one, other = result({"a": rule("pass"), "b": rule("not-run")}), result({"a": rule("violation"), "b": rule("not-run")})
    lines = matrix([one, other], color=False).splitlines()
    assert lines[:2] == ["A: smtp://x:25  220 x", "B: smtp://x:25  220 x"]
    assert lines[-1].split() == ["a", "passed", "VIOLATION"]
