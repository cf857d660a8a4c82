"""What a result holds of the server under test: figures, deaths, its log, and the sentences that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import saved_results
from figures import busy_recorder, result_of

from smtpbench.measure.health import Health
from smtpbench.measure.notes import DIED_AGAIN, SERVER_DIED
from smtpbench.measure.saved import CHECK, FUZZ, RUN, Saved
from smtpbench.report.reading.capacity import capacity_steps_of, has_server_figures, server_at_the_knee
from smtpbench.report.reading.exit_code import FINDINGS, exit_code
from smtpbench.report.reading.findings import recorded_findings_of
from smtpbench.report.reading.metrics import key_figures_of
from smtpbench.report.reading.server import (
    deaths_by_cause,
    deaths_of,
    deaths_text,
    format_growth,
    format_size,
    read_death,
    read_log_lines,
    saturation_text,
    server_of,
    summary_of_server,
    totals_of_server,
)
from smtpbench.report.reading.verdict import BAD, GOOD, WARNING, Cause, further_notes_of, verdict_of

SIGSEGV = {"how": "signal 11 (SIGSEGV)", "signal": 11, "report": None, "last_output": ["bye"], "core_file": ""}


def run_of(server: Any = None, **changes: Any) -> Saved:
    result = result_of(busy_recorder().drain(), **changes)
    return Saved(RUN, result if server is None else result | {"server": server}, Path("a/result.json"))


def causes_of(saved: Saved, word: str) -> list[Cause]:
    return [cause for cause in verdict_of(saved).causes if cause.word == word]


@pytest.mark.parametrize("server", [None, 7, "x", []])
def test_result_without_a_server_says_nothing_of_it(server: Any) -> None:
    saved = run_of(server)
    assert server_of(saved) is None
    assert not deaths_of(saved)
    assert not any(figure.name.startswith("server.") for figure in key_figures_of(saved))


def test_figures_that_are_not_known_are_none_and_are_left_out() -> None:
    server = server_of(run_of(saved_results.server(fsyncs=None, rss_growth_bytes_per_hour=None, fds_max="many")))
    assert server is not None
    assert (server.fsyncs, server.rss_growth_bytes_per_hour, server.fds_max) == (None, None, None)
    totals = dict(totals_of_server(server))
    assert totals["fsync calls"] == totals["open descriptors, max"] == totals["growth of the memory"] == "–"
    assert summary_of_server(server) == [
        "1.42 ms of CPU a message", "36 % of the machine's cores", "memory at most 84.0 MiB", "12 threads, 9 processes",
        "disk 12.0 KiB read, 46.0 MiB written",
    ]  # fmt: skip
    noise = server_of(run_of(saved_results.server(rss_growth_interval_bytes_per_hour=[-1.0, 5e9])))
    assert noise is not None
    assert summary_of_server(noise)[2] == "memory at most 84.0 MiB"  # no growth is shown by such an interval
    nothing = server_of(run_of({}))
    assert nothing is not None
    assert summary_of_server(nothing) == []


def test_figures_have_their_units() -> None:
    server = server_of(run_of(saved_results.server(restarts=2)))
    assert server is not None
    totals = dict(totals_of_server(server))
    assert totals["memory (proportional set size), max"] == "84.0 MiB"
    assert totals["growth of the memory"] == "+3.10 MiB/h"
    assert totals["interval of the growth"] == "+2.00 MiB … +4.20 MiB"
    assert totals["CPU time, user + system"] == "15.0 s + 6.60 s"
    assert summary_of_server(server)[-1] == "2 restarts"
    assert (format_growth(-2048.0), format_size(-2048.0), format_size(None)) == ("-2.00 KiB/h", "-2.00 KiB", "–")


def test_check_has_the_cpu_time_instead_of_that_of_a_message() -> None:
    server = server_of(saved_results.rules_result(CHECK, server=saved_results.server(cpu_ms_per_message=None)))
    assert server is not None
    assert summary_of_server(server)[0] == "21.6 s of CPU"


def test_death_is_one_phrase_with_details() -> None:
    death = read_death(saved_results.death())
    assert death.text == "signal 6 (SIGABRT), AddressSanitizer: heap-buffer-overflow in parse_rcpt"
    assert death.details == [
        ("noticed", "after 12.3 s"), ("frames", "parse_rcpt < handle_line < serve"), ("core file", "core.71"),
        ("started again", "by smtpbench"),
    ]  # fmt: skip
    assert death.output[0].startswith("==71==ERROR")
    plain = read_death(SIGSEGV)
    assert (plain.text, plain.details, plain.output) == ("signal 11 (SIGSEGV)", [], ["bye"])
    assert read_death({}).text == "cause not known"


def test_deaths_that_read_alike_are_one_cause() -> None:
    deaths = [read_death(entry) for entry in (saved_results.death(at_s=1.0), SIGSEGV, saved_results.death(at_s=2.0))]
    assert [(group.number, group.when) for group in deaths_by_cause(deaths)] == [(2, " 2 times, first after 1 s"), (1, "")]
    assert deaths_text(deaths) == (
        "3 times: signal 6 (SIGABRT), AddressSanitizer: heap-buffer-overflow in parse_rcpt (2 ×); signal 11 (SIGSEGV)"
    )
    assert deaths_text(deaths[1:2]) == "signal 11 (SIGSEGV)"
    assert deaths_text(deaths[:1]).endswith("in parse_rcpt, after 1 s")


def test_server_that_died_is_the_first_verdict_on_a_run() -> None:
    server = saved_results.server(deaths=[SIGSEGV])
    run = run_of(server, outcome={"status": "incomplete", "reason": "a worker was lost"})
    verdict = verdict_of(run)
    assert verdict.lines[0] == "SERVER DIED: signal 11 (SIGSEGV)"
    assert verdict.level == BAD
    done = run_of(server)
    assert exit_code([done]) == FINDINGS
    assert exit_code([run_of(saved_results.server())]) == exit_code([run_of()]) == 0
    assert not causes_of(run_of(saved_results.server()), "SERVER DIED")


def test_notes_on_deaths_are_in_the_verdict() -> None:
    notes = [f"{SERVER_DIED}exit status 1) after 2.0 s.", f"{DIED_AGAIN}3 more times.", "1 line of the server's log …"]
    assert further_notes_of(run_of(saved_results.server(deaths=[SIGSEGV]), notes=notes)) == notes[2:]
    assert further_notes_of(run_of(notes=notes)) == notes


def test_death_in_a_campaign_fails_it_by_its_finding() -> None:
    server = saved_results.server(deaths=[SIGSEGV, SIGSEGV])
    found = saved_results.rules_result(FUZZ, server=server)
    assert verdict_of(found).lines[0] == "SERVER DIED: 2 times: signal 11 (SIGSEGV)"
    known = saved_results.rules_result(FUZZ, server=server, rules={}, findings=[saved_results.finding(known=True)])
    assert causes_of(known, "SERVER DIED")[0].level == WARNING
    assert exit_code([known]) == 0


def test_finding_has_the_death_and_the_lines_of_the_log() -> None:
    entry = saved_results.finding(death=saved_results.death(), log_lines=[saved_results.log_line()])
    plain, finding = (
        recorded_findings_of(saved_results.rules_result(findings=[one]))[0] for one in (saved_results.finding(), entry)
    )
    assert (plain.death, list(plain.log_lines), plain.evidence) == (None, [], [])
    assert finding.evidence == [
        "death: signal 6 (SIGABRT), AddressSanitizer: heap-buffer-overflow in parse_rcpt",
        "noticed: after 12.3 s",
        "frames: parse_rcpt < handle_line < serve",
        "core file: core.71",
        "started again: by smtpbench",
        "output: ==71==ERROR: AddressSanitizer: heap-buffer-overflow in parse_rcpt",
        "output:     #0 parse_rcpt",
        "output:     #1 handle_line",
        "log: /var/log/mail.err: fatal: queue file write error",
    ]


def test_line_of_the_log_that_the_death_quotes_is_not_quoted_again() -> None:
    death = saved_results.death(report=None, last_output=["panic: no memory"])
    entry = saved_results.finding(death=death, log_lines=["panic: no memory", "fatal: gone"])
    (finding, *_) = recorded_findings_of(saved_results.rules_result(findings=[entry]))
    assert [line.text for line in finding.log_lines] == ["fatal: gone"]


def test_lines_of_the_log_may_be_text_alone() -> None:
    lines = read_log_lines(["fatal: \x1b[2J", {"source": "mail.err", "text": "panic"}, 7, None])
    assert [line.quoted for line in lines] == ["fatal: \\x1b[2J", "mail.err: panic"]


@pytest.mark.parametrize(
    ("share", "generator_s", "cores", "text"),
    [
        (0.97, 1.0, 4, "the server used 97 % of the 4 cores"),
        (0.97, None, 0, "the server used 97 % of the machine's cores"),
        (0.97, None, 1, "the server used 97 % of the only core"),
        (0.6, 24.0, 2, "the server used 60 % of the 2 cores, and the generator 40 %: hardly anything was left"),
        (0.4, 36.0, 2, ""),  # the generator needed more: it is the limit itself
        (0.6, 6.0, 2, ""),
        (0.6, None, 2, ""),
        (None, 30.0, 2, ""),
    ],
)
def test_server_is_saturated_where_the_cores_are_used_up(
    share: float | None, generator_s: float | None, cores: int, text: str
) -> None:
    server = server_of(run_of(saved_results.server(cores_share=share)))
    assert server is not None
    assert saturation_text(server, generator_s, cores) == text


def test_server_of_one_thread_is_saturated_by_a_core() -> None:
    server = server_of(run_of(saved_results.server(cores_share=0.48, threads_max=1)))
    assert server is not None
    assert saturation_text(server, None, 2) == "the only thread of the server used 96 % of a core"
    assert saturation_text(server._replace(threads_max=2), None, 2) == ""
    assert saturation_text(server, None, 1) == saturation_text(server, None, 0) == ""


def test_saturation_is_a_warning_only_where_an_open_model_fell_behind() -> None:
    busy = saved_results.server(cores_share=0.97)
    open_behind = run_of(busy, health=Health(waited=1000))
    (cause,) = causes_of(open_behind, "SERVER SATURATED")
    assert cause.level == WARNING
    assert cause.text.startswith("at ")
    assert "messages/s the server used 97 % of" in cause.text
    (cause,) = causes_of(run_of(busy, model="closed"), "SERVER SATURATED")
    assert cause.level == GOOD
    idle = saved_results.server(cores_share=0.3)
    assert not causes_of(run_of(idle, health=Health(waited=1000)), "SERVER SATURATED")


def test_open_model_that_kept_up_is_not_saturated() -> None:
    recorder = busy_recorder().drain()
    for name in ("dropped", "interrupted"):
        recorder.messages[name] = 0
    result = result_of(recorder) | {"server": saved_results.server(cores_share=0.97)}
    assert not causes_of(Saved(RUN, result, Path("a/result.json")), "SERVER SATURATED")


def test_capacity_says_what_the_server_used_at_the_knee() -> None:
    steps = [saved_results.step(rate, server_cores_share=rate / 1010) for rate in (400.0, 950.0, 980.0)]
    saved = saved_results.capacity(steps=steps)
    assert server_at_the_knee(saved) == "at 980/s the server used 97 % of the machine's cores"
    assert verdict_of(saved).lines == [
        "PASSED: the capacity is 950/s; 980/s, 3.1 % more, failed; at 980/s the server used 97 % of the machine's cores"
    ]
    only_passed = saved_results.capacity(steps=steps[:2])
    assert server_at_the_knee(only_passed) == "at 950/s the server used 94 % of the machine's cores"
    old = saved_results.capacity()
    assert server_at_the_knee(old) == ""
    assert not has_server_figures(capacity_steps_of(old))
