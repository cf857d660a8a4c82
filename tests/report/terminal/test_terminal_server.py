"""The block on the server in the reports of the console."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import saved_results
from figures import busy_recorder, result_of

from smtpbench.measure.saved import CHECK, FUZZ, RUN, Saved, load
from smtpbench.report.terminal.capacity import capacity_table
from smtpbench.report.terminal.saved import saved_results as shown
from smtpbench.report.terminal.screen import Screen, cells
from smtpbench.report.terminal.server import server_lines
from smtpbench.report.terminal.tables import final_table

HOSTILE = "panic \x1b[2J\x07 \u202e" + "x" * 500


def run_of(**changes: Any) -> Saved:
    result = result_of(busy_recorder().drain()) | {"server": saved_results.server(**changes)}
    return Saved(RUN, result, Path("a/result.json"))


def deaths(count: int) -> list[dict[str, Any]]:
    return [saved_results.death(at_s=float(at), how=f"exit status {at}") for at in range(1, count + 1)]


def test_result_without_a_server_has_no_block() -> None:
    old = Saved(RUN, result_of(busy_recorder().drain()), Path("a/result.json"))
    assert server_lines(old) == server_lines(old, Screen()) == []
    assert "server" not in final_table(old.result, "a")


def test_block_is_a_line_of_figures() -> None:
    assert server_lines(run_of()) == [
        "server: 1.42 ms of CPU a message; 36 % of the machine's cores; memory at most 84.0 MiB (+3.10 MiB/h); "
        "131 descriptors, 12 threads, 9 processes; disk 12.0 KiB read, 46.0 MiB written"
    ]


def test_death_has_its_cause_and_its_last_output() -> None:
    lines = server_lines(run_of(deaths=[saved_results.death(), saved_results.death()]))[1:]
    assert lines == [
        "server died 2 times, first after 12.3 s: signal 6 (SIGABRT), "
        "AddressSanitizer: heap-buffer-overflow in parse_rcpt",
        "  frames: parse_rcpt < handle_line < serve",
        "  core file: core.71",
        "  started again: by smtpbench",
        "  | ==71==ERROR: AddressSanitizer: heap-buffer-overflow in parse_rcpt",
        "  |     #0 parse_rcpt",
        "  |     #1 handle_line",
    ]  # fmt: skip


def test_lines_of_the_log_that_read_alike_are_one() -> None:
    entries = [saved_results.log_line()] * 3 + [saved_results.log_line(text="panic")]
    assert server_lines(run_of(log_lines=entries, log_lines_dropped=5))[1:] == [
        "server log: 9 lines on errors",
        "  | /var/log/mail.err: fatal: queue file write error  (3 ×)",
        "  | /var/log/mail.err: panic",
        "  and 5 more lines; see result.json",
    ]


@pytest.mark.parametrize("room", range(1, 6))
@pytest.mark.parametrize("count", [0, 1, 30])
def test_block_takes_no_more_than_its_room(room: int, count: int) -> None:
    run = run_of(deaths=deaths(count), log_lines=[saved_results.log_line()] * count)
    lines = server_lines(run, Screen(), room)
    assert 1 <= len(lines) <= room
    assert max(map(cells, lines)) <= 80
    assert lines[0].startswith("server: 1.42 ms of CPU")


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_report_of_a_run_fits_the_screen_with_the_block(tmp_path: Path, count: int) -> None:
    server = saved_results.server(deaths=deaths(count), log_lines=[saved_results.log_line()])
    path = saved_results.run_folder(tmp_path / "a", seconds=20, samples=20, server=server)
    lines = shown([replace(load(path), path=Path("a/result.json"))], screen=Screen()).splitlines()
    assert len(lines) <= Screen().height
    assert any(line.startswith("server: ") for line in lines)
    assert any(line.startswith("service time") for line in lines)
    assert any(line.startswith("SERVER DIED") for line in lines) is bool(count)


def test_hostile_text_is_escaped() -> None:
    hostile = saved_results.death(report=None, last_output=[HOSTILE], core_file=HOSTILE, how=HOSTILE)
    run = run_of(name=HOSTILE, deaths=[hostile], log_lines=[saved_results.log_line(text=HOSTILE, source=HOSTILE)])
    finding = saved_results.finding(death=hostile, log_lines=[{"source": HOSTILE, "text": HOSTILE}])
    for saved in (run, saved_results.rules_result(FUZZ, findings=[finding], server=run.result["server"])):
        for screen in (None, Screen()):
            text = shown([saved], screen=screen)
            assert not {"\x1b", "\x07", "\u202e"} & set(text)
            assert "\\x1b[2J" in text


@pytest.mark.parametrize("kind", [CHECK, FUZZ])
def test_check_and_fuzz_have_the_block_and_the_evidence_of_a_finding(kind: str) -> None:
    death = saved_results.death()
    finding = saved_results.finding(death=death, log_lines=[saved_results.log_line()])
    server = saved_results.server(cpu_ms_per_message=None, deaths=[death])
    text = shown([saved_results.rules_result(kind, findings=[finding], server=server)])
    assert "\nserver: 21.6 s of CPU; 36 % of the machine's cores" in text
    assert "  death:    signal 6 (SIGABRT), AddressSanitizer: heap-buffer-overflow in parse_rcpt" in text
    assert "  log:      /var/log/mail.err: fatal: queue file write error" in text
    assert text.count("#0 parse_rcpt") == 1  # the finding has it, so the block does not repeat it
    assert "server" not in shown([saved_results.rules_result(kind)])


def test_steps_of_a_capacity_search_have_columns_of_the_server() -> None:
    steps = [saved_results.step(rate, server_cores_share=rate / 1010, server_cpu_ms_per_message=1.9) for rate in (400, 980)]
    text = capacity_table(saved_results.capacity(steps=steps).result, screen=Screen())
    head, first, last = [line for line in text.splitlines() if "served" in line or "/s " in line]
    assert "server  CPU/msg" in head
    assert "40%   1.90ms" in first
    assert "97%   1.90ms" in last
    assert max(map(cells, text.splitlines())) <= 80
    assert "server" not in capacity_table(saved_results.capacity().result)
