"""The comparison on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from smtpbench.report.terminal.comparison import change_text, comparison_table


def entry(**changes: Any) -> dict[str, Any]:
    values = {"metric": "message.p99", "unit": "ms", "better": "lower", "baseline": "A", "candidate": "B",
              "baseline_value": 12.3, "candidate_value": 10.1,
              "change": -0.18, "low": -0.25, "high": -0.11, "relative": True, "verdict": "faster",
              "repeats": 8}  # fmt: skip
    return {**values, **changes}


def result_of(*differences: dict[str, Any], **changes: Any) -> dict[str, Any]:
    target = {"url": "smtp://127.0.0.1:25", "banner": "220 x", "ehlo": []}
    candidates = [{"name": name, "target": target, "options": "", "about": ""} for name in "AB"]
    plan = {"repeats_done": 8, "duration_s": 5.0, "confidence": 0.95, "paired": True, "method": "by hand"}
    return {"name": "mine", "plan": plan, "outcome": {"status": "completed", "reason": ""}, "candidates": candidates,
            "notes": [], "differences": list(differences), "rules": {}, "rule_differences": [], **changes}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "-18.0% [-25.0 … -11.0]"),
        ({"change": 0.0001, "low": -0.0002, "high": 0.0003}, "+0.010% [-0.020 … +0.030]"),
        ({"change": 0.0, "low": 0.0, "high": 0.0, "relative": False, "unit": "share"}, "+0.0 pts [+0.0 … +0.0]"),
        ({"change": 0.025, "low": 0.02, "high": 0.03, "relative": False, "unit": "share"}, "+2.5 pts [+2.0 … +3.0]"),
        ({"change": 25, "low": 20, "high": 1030, "relative": False, "unit": "count"}, "+25.0 [+20.0 … +1,030.0]"),
        ({"change": 17.196, "low": 8.44, "high": 34.066}, "+1,720% [+844 … +3,407]"),
        ({"change": None, "low": None, "high": None}, ""),
    ],
)
def test_changes_in_words(changes: dict[str, Any], text: str) -> None:
    assert change_text(entry(**changes)) == text


def test_a_line_a_figure_within_a_screen() -> None:
    shown = comparison_table(result_of(entry(), entry(metric="throughput", unit="per_s", verdict="no difference shown")))
    lines = shown.splitlines()
    assert lines[0] == "mine"
    assert lines[3] == "8 rounds in turns, 5.0 s a run; all intervals hold together with 95% confidence"
    assert lines[5].split() == ["median", "A", "B", "B", "against", "A"]
    assert lines[6].split() == ["message.p99", "12.3", "ms", "10.1", "ms", "-18.0%", "[-25.0", "…", "-11.0]", "faster"]
    assert max(map(len, lines)) <= 80


def test_an_interval_that_fills_its_column_keeps_off_the_verdict() -> None:
    shown = comparison_table(result_of(entry(change=17.196, low=8.44, high=34.066, verdict="slower")))
    assert "+3,407] slower" in shown


def test_colour_tells_better_from_worse_and_is_left_out_where_unwanted() -> None:
    result = result_of(entry(), entry(verdict="slower"), entry(verdict="no difference shown"), entry(verdict="cannot tell"))
    plain, coloured = comparison_table(result), comparison_table(result, color=True)
    assert "\x1b" not in plain
    for code, word in (("32", "faster"), ("31", "slower"), ("33", "cannot tell")):
        assert f"\x1b[{code}m{word}\x1b[0m" in coloured
    assert "\x1b[31mno difference" not in coloured


def test_rules_and_endings_are_told() -> None:
    rules = {"rules": {"A": {}, "B": {}}, "outcome": {"status": "interrupted", "reason": "by a signal"}, "notes": ["a note"]}
    broken = {"rule": "eod-lf-lf", "section": "s", "severity": "security", "verdicts": {"A": "pass", "B": "violation"}}
    shown = comparison_table(result_of(entry(), **rules, rule_differences=[broken])).splitlines()
    assert shown[0] == "mine   INTERRUPTED"
    assert "ended: by a signal" in shown
    assert ["eod-lf-lf", "pass", "SECURITY"] in [line.split() for line in shown]
    assert shown[-1] == "note: a note"
    assert "All candidates break the same rules." in comparison_table(result_of(entry(), **rules))


def test_what_is_hostile_is_shown_and_does_nothing() -> None:
    nasty = "\x1b[2J\u202e\r\n"
    result = result_of(entry(metric=nasty, candidate=nasty), name=nasty, notes=[nasty])
    result["candidates"][0]["target"]["banner"] = nasty
    shown = comparison_table(result, color=False)
    assert not {"\x1b", "\u202e", "\r"} & set(shown)
