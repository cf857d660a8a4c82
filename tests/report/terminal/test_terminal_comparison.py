"""The comparison on a terminal."""

from __future__ import annotations

from typing import Any

from smtpbench.report.terminal.comparison import comparison_table


def entry(**changes: Any) -> dict[str, Any]:
    values = {"metric": "message.p99", "unit": "ms", "better": "lower", "baseline": "A", "candidate": "B",
              "baseline_value": 12.3, "candidate_value": 10.1,
              "change": -0.18, "low": -0.25, "high": -0.11, "relative": True, "verdict": "faster",
              "repeats": 8}  # fmt: skip
    return {**values, **changes}


def result_of(*entries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    target = {"url": "smtp://127.0.0.1:25", "banner": "220 x", "ehlo": []}
    candidates = [{"name": name, "target": target, "options": "", "about": ""} for name in "AB"]
    plan = {"repeats_done": 8, "duration_s": 5.0, "confidence": 0.95, "paired": True, "method": "by hand"}
    return {"name": "mine", "plan": plan, "outcome": {"status": "completed", "reason": ""}, "candidates": candidates,
            "notes": [], "differences": list(entries), "rules": {}, "rule_differences": [], **changes}  # fmt: skip


def test_each_metric_has_a_line_within_80_columns() -> None:
    shown = comparison_table(result_of(entry(), entry(metric="throughput", unit="per_s", verdict="no difference shown")))
    lines = shown.splitlines()
    assert lines[0] == "mine"
    assert lines[3] == "8 rounds in turns, 5.0 s a run; all intervals hold together with 95% confidence"
    assert lines[5].split() == ["median", "A", "B", "B", "against", "A"]
    assert lines[6].split() == ["message.p99", "12.3", "ms", "10.1", "ms", "-18.0%", "[-25.0", "…", "-11.0]", "faster"]
    assert max(map(len, lines)) <= 80


def test_wide_interval_is_apart_from_the_verdict() -> None:
    shown = comparison_table(result_of(entry(change=17.196, low=8.44, high=34.066, verdict="slower")))
    assert "+3,407] slower" in shown


def test_colours_show_better_and_worse() -> None:
    result = result_of(entry(), entry(verdict="slower"), entry(verdict="no difference shown"), entry(verdict="cannot tell"))
    plain, coloured = comparison_table(result), comparison_table(result, color=True)
    assert "\x1b" not in plain
    for code, word in (("32", "faster"), ("31", "slower"), ("33", "cannot tell")):
        assert f"\x1b[{code}m{word}\x1b[0m" in coloured
    assert "\x1b[31mno difference" not in coloured


def test_rules_and_notes_are_shown() -> None:
    rules = {"rules": {"A": {}, "B": {}}, "notes": ["a note"]}
    broken = {"rule": "eod-lf-lf", "section": "s", "severity": "security", "verdicts": {"A": "pass", "B": "violation"}}
    shown = comparison_table(result_of(entry(), **rules, rule_differences=[broken])).splitlines()
    assert shown[0] == "mine"
    assert ["eod-lf-lf", "passed", "SECURITY"] in [line.split() for line in shown]
    assert shown[-1] == "note: a note"
    assert "All candidates break the same rules." in comparison_table(result_of(entry(), **rules))


def test_hostile_text_is_escaped() -> None:
    nasty = "\x1b[2J\u202e\r\n"
    result = result_of(entry(metric=nasty, candidate=nasty), name=nasty, notes=[nasty])
    result["candidates"][0]["target"]["banner"] = nasty
    shown = comparison_table(result, color=False)
    assert not {"\x1b", "\u202e", "\r"} & set(shown)
