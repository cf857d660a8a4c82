"""Markdown: what it shows, and that text in it is never markup."""

from __future__ import annotations

import pytest
from hostile_results import (
    capacity_result,
    check_result,
    comparison_result,
    finding,
    fuzz_result,
    rule_data,
    run_result,
    saved,
)
from markdown_it import MarkdownIt

from smtpbench.report.formats.markdown import code, fenced, markdown, prose


def cells(text: str) -> list[list[str]]:
    """The table_rows of all tables, as a renderer of Markdown has them."""
    found: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and token.level >= 4 and found:
            found[-1].append("".join(child.content for child in token.children or []))
    return found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""), ("postfix 3.7", "postfix 3.7"), ("a-b c", "a-b c"), ("www.a.b", "`www.a.b`"), ("@me", "`@me`"),
        ("a`b", "``a`b``"), ("`", "`` ` ``"), ("``a", "``` ``a ```"), (" a ", "`  a  `"), ("*x*", "`*x*`"),
    ],
)  # fmt: skip
def test_text_cannot_close_its_span(text: str, shown: str) -> None:
    assert code(text) == shown
    (inline,) = [token for token in MarkdownIt().parse(f"x{shown}x") if token.type == "inline"]
    assert "".join(child.content for child in inline.children or []) == f"x{text}x"


@pytest.mark.parametrize(
    "text", ["http://x.example", "call @me", "fix #1", ":smile: it", "a *b*", "GH-1", "1. one", "- a", "deadbeef1", "<b>"]
)
def test_sentence_with_possible_markup_is_a_span(text: str) -> None:
    assert prose(text) == f"`{text}`"


def test_plain_sentence_stays_as_it_is() -> None:
    sentence = "Closed model: a slow server is sent less, so its latency is not safe; use a rate (open model)."
    assert prose(sentence) == sentence


def test_block_cannot_be_closed_from_inside() -> None:
    lines = ["```", "~~~~", "`````", "text"]
    fence, *inside, end = fenced(lines)
    assert (fence, inside, end) == ("``````text", lines, "``````")
    (token,) = MarkdownIt().parse("\n".join(fenced(lines)))
    assert token.content == "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ["a|b", "a\\|b", "|", "\\|", "a\\\\|b|"])
def test_text_cannot_end_its_cell(name: str) -> None:
    results = [saved(check_result(rules={name: {**rule_data("health", "violation", "x")}}, findings=[]), folder)
               for folder in ("one", "two")]  # fmt: skip
    row = next(row for row in cells(markdown(results)) if "crash" in row and len(row) == 4 and row[0] != "crash")
    assert row[0] in (name, name.replace("\\|", "\\\\x7c"))
    assert row[2:] == ["crash", "crash"]


def test_servers_are_compared_side_by_side() -> None:
    mild = check_result(rules={"eod-lf-lf": rule_data("eod-lf-lf", "pass"), "health": rule_data("health", "pass"),
                               "auth-bypass": rule_data("auth-bypass", "inconclusive", "x")}, findings=[])  # fmt: skip
    broken = rule_data("eod-lf-lf", "violation", "x")
    harsh = check_result(rules={"eod-lf-lf": broken, "health": rule_data("health", "pass")})
    text = markdown([saved(mild, "r/postfix"), saved(harsh, "r/exim")])
    table_rows = cells(text)
    start = table_rows.index(["rule", "section", "postfix", "exim"])
    assert table_rows[start + 1 : start + 5] == [
        ["eod-lf-lf", "RFC 5321 §4.1.1.4", "✓", "security"],
        ["security", "", "0", "1"],
        ["passed", "", "2", "1"],
        ["inconclusive", "", "1", "0"],
    ]
    assert "health" not in {row[0] for row in table_rows}
    assert "Rules by server" not in markdown([saved(mild, "r/postfix")])


def test_servers_without_violations_are_said_to_have_none() -> None:
    clean = check_result(rules={"health": rule_data("health", "pass")}, findings=[])
    assert "No server violates a rule that was tested." in markdown([saved(clean, "a"), saved(clean, "b")])


def test_run_has_thresholds_latencies_and_hostile_phases() -> None:
    table_rows = cells(markdown([saved(run_result("x"))]))
    assert table_rows[1] == ["FAILED", "message.p99 < 1ms x", "42.5 ms", "-4150%"]
    assert table_rows[2][:2] == ["passed", "failed < 99%"]
    assert ["beside", "123.0/s", "1.00 ms", "4.00 ms", "4.00 ms"] in table_rows
    assert {row[0] for row in table_rows} >= {"metric", "connect", "RCPT", "message"}


def test_comparison_has_verdicts_and_intervals() -> None:
    text = markdown([saved(comparison_result("B"))])
    assert ["message.p99", "10 ms", "12.5 ms", "+25.0% [+20.0 … +30.0]", "slower ▼"] in cells(text)
    assert ["eod-lf-lf", "passed", "security"] in cells(text)
    assert "8 interleaved rounds; simultaneous confidence level 95%." in text


def test_capacity_search_has_its_steps() -> None:
    text = markdown([saved(capacity_result("why"))])
    assert "Capacity: **400.0/s**; 500.0/s failed; limited by objective" in text
    assert ["400.0/s", "400.0/s", "passed", "1.00 ms", "8.00 ms", "9.00 ms", "why"] in cells(text)
    limited = capacity_result("why", capacity={"rate_per_s": 400.0, "limited_by": "generator"})
    limited["steps"][1]["limited_by"] = "generator"
    text = markdown([saved(limited)])
    assert "Capacity: at least **400.0/s**" in text
    assert "inconclusive" in [row[2] for row in cells(text)]


def test_findings_have_their_dialogue() -> None:
    text = markdown([saved(fuzz_result("no reply"))])
    assert "**crash** health [RFC 5321 §3.8](https://www.rfc-editor.org/rfc/rfc5321#section-3.8): no reply" in text
    assert "````text\nS: no reply\nC: NOOP\\r\\n\n```\nS: 250 ok\\r\\n\n````" in text
    assert "seen in 7 cases" in text
    assert "(in the baseline)" in text
    many = check_result(findings=[finding(id=f"eod-{number}") for number in range(80)])
    assert markdown([saved(many)]).count("<details>") == 50
