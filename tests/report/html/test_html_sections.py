"""What stands on which page, as blocks: figures, warnings, verdicts and marks."""

from __future__ import annotations

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


def of(kind: type[B], sections: Sequence[Section]) -> list[B]:
    return [block for section in sections for block in section.blocks if isinstance(block, kind)]


def cards(sections: Sequence[Section]) -> dict[str, Card]:
    return {card.label: card for block in of(Cards, sections) for card in block.cards}


def rows(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def run_of(label: str = "a", **changes: Any) -> Saved:
    return Saved(RUN, result_of(busy_recorder(late_us=2000).drain(), **changes), Path(label) / "result.json")


def test_a_run_says_its_figures() -> None:
    run = run_of()
    found, result = cards(run_sections([run])), run.result
    assert found["accepted"].value == f"{result['messages']['accepted']:,}"
    assert found["failed"].tone == "bad"
    assert found["message p99"].about == "response time"
    assert run_heading([run]).about[-1] == "open model, 500/s poisson, at most 100 connections"


def test_every_slot_has_its_curve_with_service_and_response() -> None:
    sections = run_sections([run_of()])
    charts = [plot.chart for plot in of(Plot, sections) if plot.chart.x.kind == "nines"]
    assert [chart.title for chart in charts] == [
        "message", "connect", "tls", "banner", "EHLO", "MAIL", "RCPT", "DATA", "transaction", "session"
    ]  # fmt: skip
    assert all([series.name for series in chart.series] == ["response", "service"] for chart in charts)
    closed = run_sections([run_of(model="closed")])
    assert all([series.name for series in plot.chart.series] == ["service"] for plot in of(Plot, closed))


def test_runs_lie_over_one_another_in_their_colours() -> None:
    sections = run_sections([run_of("a"), run_of("b", model="closed")])
    chart = of(Plot, sections)[0].chart
    assert [(series.name, series.key) for series in chart.series] == [
        ("a, response", 0),
        ("a, service", 0),
        ("b, service", 1),
    ]
    assert [cell.text for cell in of(Table, sections)[0].heads] == ["figure", "a", "b"]


def test_what_a_reader_must_not_miss() -> None:
    health = Health(cpu_user_s=3.0, cpu_system_s=4.5, busiest_share=0.99)
    run = run_of(model="closed", health=health, outcome={"status": "interrupted", "reason": "by SIGINT"})
    assert run.result["generator"]["limited"]
    first = [(notice.tone, notice.title.partition(":")[0]) for notice in of(Notice, run_sections([run])[:1])]
    assert first == [("bad", "GENERATOR LIMITED"), ("warn", "interrupted"), ("info", "closed model")]


def test_the_sections_that_not_every_run_has(tmp_path: Path) -> None:
    saved = load(saved_results.run_folder(tmp_path / "a", seconds=20, samples=20))
    sections = {section.title: section for section in run_sections([saved])}
    (thresholds,) = of(Table, [sections["Thresholds"]])
    assert rows(thresholds)[0] == ["message.p99 < 20ms", "31.5 ms", "57 % beyond it", "FAILED"]
    assert [row[0] for row in rows(of(Table, [sections["Recipient domains"]])[0])] == ["gmail.example", "bücher.example"]
    assert of(Notice, [sections["Hostile sessions"]])[0].title == "the target died of one of them"
    assert of(DialogueBlock, [sections["Hostile sessions"]])[0].repeat.startswith("smtpbench replay")
    titles = [plot.chart.title for plot in of(Plot, [sections["Over time"]])]
    assert titles == ["accepted a second", "not accepted, and errors, a second", "message, response time", "connections"]
    bare = {section.title for section in run_sections([run_of()])}
    assert not bare & {"Thresholds", "Recipient domains", "Hostile sessions", "Over time"}


def test_replies_by_slot_with_an_example_of_each_refusal(tmp_path: Path) -> None:
    saved = load(saved_results.run_folder(tmp_path / "a", seconds=20, samples=20))
    replies, _, errors = of(Table, [section for section in run_sections([saved]) if section.title.startswith("Replies")])
    assert [row[:2] for row in rows(replies)] == [["MAIL", "250"], ["RCPT", "250"], ["RCPT", "550"], ["message", "250"]]
    assert rows(replies)[2][4] == "550 5.1.1 <x@y.example>: unknown"
    assert rows(errors)[0][::2] == ["timeout", "while waiting (message)"]


def test_rules_stand_below_their_section() -> None:
    sections = rules_sections([saved_results.judged()])
    (table,) = of(Table, [section for section in sections if section.title == "Rules"])
    assert [row[:2] for row in rows(table)] == [
        ["RFC 5321 §4.0"], ["eod-lf-lf", "SECURITY"], ["RFC 5321 §4.1"], ["helo-first", "pass"],
        ["RFC 5321 §4.2"], ["long-line", "inconclusive"], ["RFC 5321 §4.3"], ["quit-221", "advice"],
    ]  # fmt: skip
    (dialogue,) = of(DialogueBlock, sections)
    assert [who for who, _ in dialogue.lines] == ["server", "client", "server", "event"]


def test_several_checks_are_a_matrix() -> None:
    one, other = saved_results.judged(path="a/result.json"), saved_results.judged(path="b/result.json")
    other = replace(other, result=other.result | {"rules": saved_results.rules(eod_lf_lf="pass")})
    (matrix, *_) = of(Table, rules_sections([one, other]))
    assert [cell.text for cell in matrix.heads] == ["rule", "section", "a", "b"]
    assert rows(matrix)[0] == ["eod-lf-lf", "RFC 5321 §4.0", "SECURITY", "pass"]
    assert len(matrix.rows) == 4  # what neither ran is left out


def test_a_campaign_that_killed_its_target_says_so_first() -> None:
    (notice, *_) = of(Notice, rules_sections([saved_results.judged(FUZZ)]))
    assert (notice.title, notice.lines) == ("the target is gone", ["2 more cases may have killed it: see candidates/"])


def test_a_comparison_draws_its_intervals_and_tells_better_from_worse() -> None:
    table = of(Table, comparison_sections(saved_results.comparison()))[0]
    assert [(row[0].text, row[-1].text, row[-1].tone) for row in table.rows] == [
        ("message.p99", "faster", "good"), ("throughput", "no difference shown", "faint"), ("RCPT.p50", "slower", "bad"),
        ("failed", "cannot tell", "warn"),
    ]  # fmt: skip
    assert table.rows[0][3].text == "-18.0% [-25.0 … -11.0]"
    assert all(row[4].drawing for row in table.rows)


@pytest.mark.parametrize(
    ("low", "high", "scale", "x1"),
    [(-0.5, 0.25, "1/2.07", "2.38%"), (0.0, 9.0, "1/11.2", "50.00%"), (-0.1, 0.1, "−10%", "2.38%")],
)
def test_half_and_double_are_as_far_from_no_change(low: float, high: float, scale: str, x1: str) -> None:
    one = saved_results.difference(low=low, change=(low + high) / 2, high=high)
    whole = saved_results.comparison()
    table = of(Table, comparison_sections(replace(whole, result=whole.result | {"differences": [one]})))[0]
    assert scale in str(table.heads[4].drawing)
    assert f'x1="{x1}"' in str(table.rows[0][4].drawing)


def test_a_capacity_search_marks_what_held_what_did_not_and_the_limit() -> None:
    sections = capacity_sections(saved_results.capacity())
    latency, throughput = (plot.chart for plot in of(Plot, sections))
    assert [(mark.text, mark.place, mark.upright) for mark in latency.marks] == [
        ("held: 950/s", 950, True), ("did not: 980/s", 980, True), ("message.p99 < 100ms", 100, False)
    ]  # fmt: skip
    assert latency.y.kind == "log"
    assert latency.xs == tuple(sorted(latency.xs))
    assert [series.name for series in latency.series] == ["p50", "p99", "max"]
    assert [series.name for series in throughput.series] == ["accepted", "offered"]
    assert cards(sections)["capacity"].value == "950/s"


@pytest.mark.parametrize(
    "changes", [{"rate_per_s": None, "limited_by": "generator"}, {"failed_rate_per_s": None, "precision_share": None}]
)
def test_a_search_that_found_no_end_claims_none(changes: dict[str, Any]) -> None:
    whole = saved_results.capacity()
    saved = replace(whole, result=whole.result | {"capacity": whole.result["capacity"] | changes})
    marks = of(Plot, capacity_sections(saved))[0].chart.marks
    assert len(marks) == 2
    found = cards(capacity_sections(saved))
    assert found["capacity"].value == ("none held" if "rate_per_s" in changes else "950/s")
    assert found["limited by"].tone == ("bad" if "limited_by" in changes else "")


def test_a_rate_that_held_although_the_generator_was_held_up_is_the_targets() -> None:
    whole = saved_results.capacity()
    starved = {"limited": True, "limited_reasons": ["other processes had its core"]}
    steps = [*whole.result["steps"], saved_results.step(2000.0, limited_by="generator", why="its core was busy")]

    def words(by: str) -> str:
        changes = {"generator": starved, "steps": steps, "capacity": whole.result["capacity"] | {"limited_by": by}}
        return html_report([replace(whole, result=whole.result | changes)])

    assert "figures are about the generator" not in words("objective")
    assert "figures are about the generator" in words("generator")
    assert "GENERATOR LIMITED. its core was busy" in words("objective")
    captions = [table.caption for table in of(Table, capacity_sections(whole)) if table.caption]
    assert captions == ["at 950/s", "at 980/s"]


def test_results_of_several_kinds_stand_on_one_page() -> None:
    page = html_report([saved_results.capacity(), run_of(), saved_results.comparison(), saved_results.judged()])
    for words in ("4 results", "Latency by rate", "What differs", "Replies and errors", "Candidates"):
        assert words in page
