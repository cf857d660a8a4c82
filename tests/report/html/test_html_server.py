"""The server under test on a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import saved_results
from figures import busy_recorder, result_of

from smtpbench.measure.saved import CHECK, FUZZ, RUN, Saved, load
from smtpbench.report.html.blocks import Block, Cards, DialogueBlock, Listing, Notice, Plot, Section, Table
from smtpbench.report.html.capacity import capacity_sections
from smtpbench.report.html.page import html_report
from smtpbench.report.html.rules import rules_sections
from smtpbench.report.html.run import run_sections
from smtpbench.report.html.server import usage_over_time

B = TypeVar("B", bound=Block)
HOSTILE = "</noscript></script><script>alert(1)</script> \x1b[2J"
DEATH = "signal 6 (SIGABRT), AddressSanitizer: heap-buffer-overflow in parse_rcpt"


def section_of(sections: Sequence[Section], title: str) -> Section:
    (found,) = [section for section in sections if section.title == title]
    return found


def blocks_of(kind: type[B], section: Section) -> list[B]:
    return [block for block in section.blocks if isinstance(block, kind)]


@pytest.fixture
def run(tmp_path: Path) -> Saved:
    """A run of 40 s whose server died twice."""
    server = saved_results.server(
        deaths=[saved_results.death(at_s=12.0), saved_results.death(at_s=30.0)], log_lines=[saved_results.log_line()]
    )
    path = saved_results.run_folder(tmp_path / "a", seconds=40, samples=20, server=server)
    saved_results.server_csv(tmp_path / "a", 38)
    return load(path)


def test_charts_of_the_server_share_the_axis_of_time_and_mark_deaths(run: Saved) -> None:
    sections = run_sections([run])
    charts = [plot.chart for plot in blocks_of(Plot, section_of(sections, "Server"))]
    assert [chart.title for chart in charts] == [
        "CPU of the server, cores", "Memory of the server", "Descriptors, threads and processes of the server",
        "Disk of the server, per second",
    ]  # fmt: skip
    of_load = [plot.chart for plot in blocks_of(Plot, section_of(sections, "Over time"))]
    assert {(chart.x.low, chart.x.high) for chart in (*charts, *of_load)} == {(0.0, 40.0)}
    for chart in (*charts, *of_load):
        assert [(mark.place, mark.text, mark.tone) for mark in chart.marks] == [
            (12.0, "server died", "bad"), (30.0, "server died", "bad")
        ]  # fmt: skip


def test_usage_is_in_cores_and_mib_per_second(run: Saved) -> None:
    usage = list(usage_over_time(run.server_timeline()))
    assert len(usage) == 38
    first = usage[0]
    assert [first[name] for name in ("cpu_user_cores", "cpu_system_cores", "cpu_cores")] == pytest.approx(
        [0.2037, 0.102, 0.3057], abs=0.002
    )
    assert first["memory_mib"] == pytest.approx(60_040_000 / 2**20)
    assert usage[0]["write_mib"] == pytest.approx(1.44, abs=0.02)


def test_second_of_another_length_has_its_rate(tmp_path: Path) -> None:
    (tmp_path / "server.csv").write_text("end_s,memory_bytes,write_bytes\n2,,4194304\n2.05,1048576,1\nx,1,1\n1,1,1\n")
    usage = list(usage_over_time(Saved(RUN, {}, tmp_path / "result.json").server_timeline()))
    assert [(row["t_s"], row["write_mib"], row["memory_mib"], row["cpu_cores"]) for row in usage] == [
        (2.0, 2.0, None, None), (2.05, None, 1.0, None),
    ]  # fmt: skip


def test_small_sizes_are_in_kib(tmp_path: Path) -> None:
    folder = saved_results.run_folder(tmp_path / "a", seconds=5, samples=5, server=saved_results.server()).parent
    (folder / "server.csv").write_text("end_s,memory_bytes,write_bytes\n1,2097152,1024\n2,2097152,2048\n")
    charts = {plot.chart.title: plot.chart for plot in blocks_of(Plot, section_of(run_sections([load(folder)]), "Server"))}
    memory, disk = charts["Memory of the server"], charts["Disk of the server, per second"]
    assert (memory.y.unit, memory.series[0].points[0]) == ("MiB", 2.0)
    assert (disk.y.unit, disk.series[0].points[:2], disk.y.ticks[-1][1]) == ("KiB", (1.0, 2.0), "2 KiB")


def test_deaths_come_first_with_their_output(run: Saved) -> None:
    section = section_of(run_sections([run]), "Server")
    (notice,) = blocks_of(Notice, section)
    assert notice.title == f"server died 2 times, first after 12 s: {DEATH}"
    assert notice.lines == ["frames: parse_rcpt < handle_line < serve", "core file: core.71", "started again: by smtpbench"]
    (listing,) = blocks_of(Listing, section)
    assert listing.text.splitlines()[1] == "    #0 parse_rcpt"


def test_totals_and_log_are_tables_and_seconds_one_without_script(run: Saved) -> None:
    seconds, totals, log = blocks_of(Table, section_of(run_sections([run]), "Server"))
    assert seconds.without_script
    assert 2 <= len(seconds.table_rows) <= 20
    assert not totals.without_script
    shown = {row[0].text: row[1].text for row in totals.table_rows}
    assert shown["CPU time for an accepted message"] == "1.42 ms"
    assert "fsync calls" not in shown  # it is not known
    assert [cell.text for cell in log.table_rows[0]][2:] == ["1", "fatal: queue file write error"]
    page = html_report([run])
    table = page.partition("<noscript>")[2].partition("</noscript>")[0]
    assert "The server over time" in table
    assert page.count("<noscript>") == page.count("</noscript>") == 1


def test_cards_have_the_cpu_time_and_the_deaths(run: Saved) -> None:
    (cards,) = blocks_of(Cards, section_of(run_sections([run]), "Summary"))
    found = {card.label: card for card in cards.cards}
    assert found["server"].value == "1.42 ms"
    assert (found["server died"].value, found["server died"].tone) == ("2 times", "bad")


def test_several_runs_are_overlaid_where_they_have_a_server(run: Saved) -> None:
    old = Saved(RUN, result_of(busy_recorder().drain()), Path("old/result.json"))
    sections = run_sections([old, run])
    chart = blocks_of(Plot, section_of(sections, "Server"))[0].chart
    assert [(series.name, series.key) for series in chart.series] == [("a", 1)]
    summary = blocks_of(Table, section_of(sections, "Summary"))[0]
    (row,) = [row for row in summary.table_rows if row[0].text == "CPU of the server, for a message"]
    assert [cell.text for cell in row[1:]] == ["–", "1.42 ms"]


@pytest.mark.parametrize("kind", [CHECK, FUZZ])
def test_page_of_rules_has_the_server_and_the_evidence_of_findings(kind: str) -> None:
    entry = saved_results.finding(death=saved_results.death(), log_lines=[saved_results.log_line()])
    server = saved_results.server(cpu_ms_per_message=None, deaths=[saved_results.death()])
    sections = rules_sections([saved_results.rules_result(kind, findings=[entry], server=server)])
    (dialogue,) = blocks_of(DialogueBlock, section_of(sections, "Findings"))
    assert dialogue.evidence[0] == ("death", DEATH)
    assert dialogue.evidence[-1] == ("log", "/var/log/mail.err")
    assert dialogue.output[-1] == "/var/log/mail.err: fatal: queue file write error"
    assert blocks_of(Table, section_of(sections, "Server"))
    assert "Server" not in [section.title for section in rules_sections([saved_results.rules_result(kind)])]


def test_threshold_on_the_server_has_its_unit() -> None:
    size = {"threshold": "server.rss_max < 64MiB", "unit": "bytes", "limit": 2.0**26, "value": 88_080_384.0}
    growth = {"threshold": "server.rss_growth < 10MiB/h", "unit": "bytes_per_h", "limit": 1e7, "value": -(2.0**20)}
    thresholds = [saved_results.threshold(**one, margin_share=-0.3) for one in (size, growth)]
    result = result_of(busy_recorder().drain()) | {"thresholds": thresholds}
    section = section_of(run_sections([Saved(RUN, result, Path("a/result.json"))]), "Thresholds")
    assert [row[2].text for row in blocks_of(Table, section)[0].table_rows] == ["84.0 MiB", "-1.00 MiB/h"]


def test_old_run_has_no_section_on_a_server() -> None:
    old = Saved(RUN, result_of(busy_recorder().drain()), Path("old/result.json"))
    assert "Server" not in [section.title for section in run_sections([old])]
    assert "noscript" not in html_report([old])


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    death = saved_results.death(how=HOSTILE, report=None, last_output=[HOSTILE], core_file=HOSTILE)
    server = saved_results.server(name=HOSTILE, deaths=[death], log_lines=[saved_results.log_line(text=HOSTILE)])
    entry = saved_results.finding(death=death, log_lines=[saved_results.log_line(source=HOSTILE, text=HOSTILE)])
    path = saved_results.run_folder(tmp_path / "a", seconds=10, samples=5, server=server)
    for saved in (load(path), saved_results.rules_result(FUZZ, server=server, findings=[entry])):
        page = html_report([saved])
        assert "<script>alert" not in page
        assert "\x1b" not in page
        assert "&lt;script&gt;alert(1)" in page


def test_steps_have_columns_and_a_chart_of_the_server() -> None:
    changes: dict[str, Any] = {"server_cores_share": 0.5, "server_cpu_ms_per_message": 1.9}
    steps = [saved_results.step(100.0, **changes), saved_results.step(200.0)]
    sections = capacity_sections(saved_results.capacity(steps=steps))
    (table,) = blocks_of(Table, section_of(sections, "Steps"))
    at = [head.text for head in table.heads].index("server, cores")
    assert [[cell.text for cell in row[at : at + 2]] for row in table.table_rows] == [["50 %", "1.90 ms"], ["–", "–"]]
    chart = blocks_of(Plot, section_of(sections, "Latency by rate"))[-1].chart
    assert chart.title == "Server, share of the machine's cores, by arrival rate"
    assert chart.series[0].points == (50.0, None)
    plain = section_of(capacity_sections(saved_results.capacity()), "Steps")
    assert "server, cores" not in [head.text for head in blocks_of(Table, plain)[0].heads]
