"""Content of the pages as blocks: figures, warnings, verdicts and marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import saved_results
from figures import busy_recorder, result_of

from smtpbench.measure.health import Health
from smtpbench.measure.saved import FUZZ, RUN, Saved, load
from smtpbench.report.html.blocks import Block, Card, Cards, DialogueBlock, Notice, Plot, Section, Table
from smtpbench.report.html.capacity import capacity_sections
from smtpbench.report.html.comparison import comparison_sections
from smtpbench.report.html.page import html_report
from smtpbench.report.html.rules import rules_sections
from smtpbench.report.html.run import run_heading, run_sections

B = TypeVar("B", bound=Block)


def blocks_of(kind: type[B], sections: Sequence[Section]) -> list[B]:
    return [block for section in sections for block in section.blocks if isinstance(block, kind)]


def cards(sections: Sequence[Section]) -> dict[str, Card]:
    return {card.label: card for block in blocks_of(Cards, sections) for card in block.cards}


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.table_rows]


def run_of(label: str = "a", **changes: Any) -> Saved:
    return Saved(RUN, result_of(busy_recorder(late_us=2000).drain(), **changes), Path(label) / "result.json")


def test_run_has_its_key_figures() -> None:
    run = run_of()
    found, result = cards(run_sections([run])), run.result
    assert found["accepted"].value == f"{result['messages']['accepted']:,}"
    assert found["failed"].tone == "bad"
    assert found["message p99"].about == "response time"
    assert run_heading([run]).about[-1] == "open model, 500/s poisson, at most 100 connections"


def test_every_metric_has_a_chart_with_service_and_response_time() -> None:
    sections = run_sections([run_of()])
    charts = [plot.chart for plot in blocks_of(Plot, sections) if plot.chart.x.kind == "nines"]
    assert [chart.title for chart in charts] == [
        "message", "connect", "tls", "banner", "EHLO", "MAIL", "RCPT", "DATA", "transaction", "session"
    ]  # fmt: skip
    assert all([series.name for series in chart.series] == ["response", "service"] for chart in charts)
    closed = run_sections([run_of(model="closed")])
    assert all([series.name for series in plot.chart.series] == ["service"] for plot in blocks_of(Plot, closed))


def test_several_runs_are_overlaid_in_their_colours() -> None:
    sections = run_sections([run_of("a"), run_of("b", model="closed")])
    chart = blocks_of(Plot, sections)[0].chart
    assert [(series.name, series.key) for series in chart.series] == [
        ("a, response", 0),
        ("a, service", 0),
        ("b, service", 1),
    ]
    assert [cell.text for cell in blocks_of(Table, sections)[0].heads] == ["figure", "a", "b"]


def test_warnings_come_first() -> None:
    health = Health(cpu_user_s=3.0, cpu_system_s=4.5, busiest_share=0.99)
    run = run_of(model="closed", health=health, outcome={"status": "interrupted", "reason": "by SIGINT"})
    assert run.result["generator"]["limited"]
    first = [(notice.tone, notice.title.partition(":")[0]) for notice in blocks_of(Notice, run_sections([run])[:1])]
    assert first == [("warn", "INTERRUPTED"), ("warn", "GENERATOR LIMITED"), ("info", "closed model")]


@pytest.mark.parametrize(
    ("by_worker", "shown"), [({}, "0"), ({0: 7}, "7"), ({0: 7, 2: 1200}, "1,207 (worker 0: 7, worker 2: 1,200)")]
)
def test_arrivals_that_waited_are_shown_by_worker(by_worker: dict[int, int], shown: str) -> None:
    health = Health(waited=sum(by_worker.values()), waited_by_worker=Counter(by_worker))
    (section,) = [one for one in run_sections([run_of(health=health)]) if one.title == "Load generator"]
    figures = {row[0]: row[1] for row in texts(blocks_of(Table, [section])[0])}
    assert figures["arrivals without a free connection"] == shown


def test_optional_sections_are_shown_if_the_run_has_them(tmp_path: Path) -> None:
    saved = load(saved_results.run_folder(tmp_path / "a", seconds=20, samples=20))
    sections = {section.title: section for section in run_sections([saved])}
    (thresholds,) = blocks_of(Table, [sections["Thresholds"]])
    assert texts(thresholds)[0] == ["message.p99 < 20ms", "FAILED", "31.5 ms", "57 % beyond the limit"]
    assert [row[0] for row in texts(blocks_of(Table, [sections["Recipient domains"]])[0])] == [
        "gmail.example",
        "bücher.example",
    ]
    titles = [notice.title for notice in blocks_of(Notice, [sections["Summary"]])]
    assert "TARGET GONE: a hostile session crashed the target" in titles
    assert blocks_of(DialogueBlock, [sections["Hostile sessions"]])[0].repeat.startswith("smtpbench replay")
    titles = [plot.chart.title for plot in blocks_of(Plot, [sections["Over time"]])]
    assert titles == ["Accepted messages per second", "Problems per second", "Message, response time", "Connections"]
    bare = {section.title for section in run_sections([run_of()])}
    assert not bare & {"Thresholds", "Recipient domains", "Hostile sessions", "Over time"}


def test_replies_by_command_have_an_example_of_each_rejection(tmp_path: Path) -> None:
    saved = load(saved_results.run_folder(tmp_path / "a", seconds=20, samples=20))
    replies, _, errors = blocks_of(
        Table, [section for section in run_sections([saved]) if section.title.startswith("Replies")]
    )
    assert [row[:2] for row in texts(replies)] == [["MAIL", "250"], ["RCPT", "250"], ["RCPT", "550"], ["message", "250"]]
    assert texts(replies)[2][4] == "550 5.1.1 <x@y.example>: unknown"
    assert texts(errors)[0][::2] == ["timeout", "while waiting (message)"]


def test_rules_are_grouped_by_section() -> None:
    sections = rules_sections([saved_results.rules_result()])
    (table,) = blocks_of(Table, [section for section in sections if section.title == "Rules"])
    assert [row[:2] for row in texts(table)] == [
        ["RFC 5321 §4.0"], ["eod-lf-lf", "SECURITY"], ["RFC 5321 §4.1"], ["helo-first", "passed"],
        ["RFC 5321 §4.2"], ["long-line", "inconclusive"], ["RFC 5321 §4.3"], ["quit-221", "advice"],
    ]  # fmt: skip
    (dialogue,) = blocks_of(DialogueBlock, sections)
    assert [who for who, _ in dialogue.lines] == ["server", "client", "server", "event"]


def test_several_checks_are_a_matrix() -> None:
    one, other = saved_results.rules_result(path="a/result.json"), saved_results.rules_result(path="b/result.json")
    other = replace(other, result=other.result | {"rules": saved_results.rules(eod_lf_lf="pass")})
    (matrix, *_) = blocks_of(Table, rules_sections([one, other]))
    assert [cell.text for cell in matrix.heads] == ["rule", "section", "a", "b"]
    assert texts(matrix)[0] == ["eod-lf-lf", "RFC 5321 §4.0", "SECURITY", "passed"]
    assert len(matrix.table_rows) == 4  # a rule that neither ran is left out


def test_campaign_whose_target_is_gone_says_so_first() -> None:
    (notice, *_) = blocks_of(Notice, rules_sections([saved_results.rules_result(FUZZ)]))
    text = "TARGET GONE: the target no longer answers; 2 more cases may have crashed it: see candidates/"
    assert notice.title == text


def test_candidates_of_a_crash_are_listed_in_their_order() -> None:
    saved = saved_results.rules_result(FUZZ)
    candidates = [{"id": name, "file": f"candidates/{name}.yaml", "last_sent": f"VRFY {name}"} for name in ("b", "a")]
    notices = blocks_of(Notice, rules_sections([replace(saved, result={**saved.result, "candidates": candidates})]))
    assert notices[0].title == "TARGET GONE: the target no longer answers; 2 more cases may have crashed it"
    (listed,) = [notice for notice in notices if notice.title.startswith("Cases that may have crashed the target")]
    assert listed.lines == [
        "candidates/b.yaml, last sent: VRFY b",
        "candidates/a.yaml, last sent: VRFY a",
    ]


def test_comparison_draws_intervals_and_marks_better_and_worse() -> None:
    table = blocks_of(Table, comparison_sections(saved_results.comparison()))[0]
    assert [(row[0].text, row[1].text, row[1].tone) for row in table.table_rows] == [
        ("message.p99", "faster", "good"), ("throughput", "no difference shown", "faint"), ("RCPT.p50", "slower", "bad"),
        ("failed", "cannot tell", "warn"),
    ]  # fmt: skip
    assert table.table_rows[0][4].text == "-18.0% [-25.0 … -11.0]"
    assert all(row[5].drawing for row in table.table_rows)


@pytest.mark.parametrize(
    ("low", "high", "scale", "x1"),
    [(-0.5, 0.25, "÷ 2.07", "2.38%"), (0.0, 9.0, "÷ 11.2", "50.00%"), (-0.1, 0.1, "−10%", "2.38%")],
)
def test_half_and_double_are_equally_far_from_no_change(low: float, high: float, scale: str, x1: str) -> None:
    one = saved_results.compared_metric(low=low, change=(low + high) / 2, high=high)
    original = saved_results.comparison()
    table = blocks_of(Table, comparison_sections(replace(original, result=original.result | {"differences": [one]})))[0]
    assert scale in str(table.heads[5].drawing)
    assert f'x1="{x1}"' in str(table.table_rows[0][5].drawing)


def test_capacity_chart_marks_passed_rate_failed_rate_and_limit() -> None:
    sections = capacity_sections(saved_results.capacity())
    latency, throughput = (plot.chart for plot in blocks_of(Plot, sections))
    assert [(mark.text, mark.place, mark.upright) for mark in latency.marks] == [
        ("passed: 950/s", 950, True), ("failed: 980/s", 980, True), ("message.p99 < 100ms", 100, False)
    ]  # fmt: skip
    assert latency.y.kind == "log"
    assert latency.xs == tuple(sorted(latency.xs))
    assert [series.name for series in latency.series] == ["p50", "p99", "max"]
    assert [series.name for series in throughput.series] == ["accepted", "offered"]
    assert cards(sections)["capacity"].value == "950/s"


@pytest.mark.parametrize(
    "changes", [{"rate_per_s": None, "limited_by": "generator"}, {"failed_rate_per_s": None, "precision_share": None}]
)
def test_search_without_an_end_claims_no_precision(changes: dict[str, Any]) -> None:
    original = saved_results.capacity()
    saved = replace(original, result=original.result | {"capacity": original.result["capacity"] | changes})
    marks = blocks_of(Plot, capacity_sections(saved))[0].chart.marks
    assert len(marks) == 2
    found = cards(capacity_sections(saved))
    assert found["capacity"].value == ("unknown" if "rate_per_s" in changes else "950/s")
    assert found["limited by"].tone == ("bad" if "limited_by" in changes else "")


def test_passed_rate_is_the_targets_even_if_the_generator_was_limited() -> None:
    original = saved_results.capacity()
    starved = {"limited": True, "limited_reasons": ["other processes had its core"]}
    steps = [*original.result["steps"], saved_results.step(2000.0, limited_by="generator", why="its core was busy")]

    def page_of(limited_by: str) -> str:
        changes = {
            "generator": starved,
            "steps": steps,
            "capacity": original.result["capacity"] | {"limited_by": limited_by},
        }
        return html_report([replace(original, result=original.result | changes)])

    assert "<strong>GENERATOR LIMITED" not in page_of("objective")
    assert "<strong>GENERATOR LIMITED: the capacity is at least 950/s: " in page_of("generator")
    assert "GENERATOR LIMITED. its core was busy" in page_of("objective")
    captions = [table.caption for table in blocks_of(Table, capacity_sections(original)) if table.caption]
    assert captions == ["at 950/s", "at 980/s"]


def test_results_of_several_kinds_share_one_page() -> None:
    page = html_report([saved_results.capacity(), run_of(), saved_results.comparison(), saved_results.rules_result()])
    for title in ("4 results", "Latency by rate", "Differences", "Replies and errors", "Candidates"):
        assert title in page
