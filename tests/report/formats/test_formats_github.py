"""Annotations as actions/runner reads them, and a summary that GitHub takes."""

from __future__ import annotations

from hostile_results import check_result, comparison_result, finding, fuzz_result, run_result, saved

from smtpbench.report.formats.github import SUMMARY_BYTES, summary, workflow_commands
from smtpbench.report.formats.markdown import markdown


def test_failed_threshold_is_an_error_at_the_scenario() -> None:
    commands = workflow_commands([saved(run_result("100%: a, b", hostile=None))]).splitlines()
    assert commands == [
        "::error file=scenarios/relay.yaml,line=1,title=threshold failed%3A mine"
        "::message.p99 < 1ms 100%25: a, b is 42.5 ms, 4150%25 beyond the limit"
    ]


def test_finding_that_counts_is_an_error_and_advice_a_notice() -> None:
    commands = workflow_commands([saved(check_result("it went on"))]).splitlines()
    assert [command.split()[0] for command in commands] == ["::error", "::notice"]
    assert "file=results/mine/findings/eod-lf-lf-0123abcd.yaml,line=1," in commands[0]
    assert "%0ARequired: Only CRLF.CRLF" in commands[0]
    assert workflow_commands([saved(fuzz_result())]).count("::error") == 1  # the other is in the baseline


def test_comparison_reports_what_is_worse() -> None:
    commands = workflow_commands([saved(comparison_result("B"))])
    assert "::error title=slower%3A mine::message.p99 of B compared with A: slower, +25.0%25 [+20.0 … +30.0]\n" in commands
    assert commands.count("::error") == 2


def test_ten_annotations_of_a_level_are_shown_and_the_rest_counted() -> None:
    many = check_result(findings=[finding(id=f"eod-{number}") for number in range(30)])
    commands = [line for line in workflow_commands([saved(many)]).splitlines() if line.startswith("::error")]
    assert len(commands) == 10
    assert commands[-1] == "::error title=smtpbench::and 21 more: see the summary of this job"


def test_summary_is_complete_or_ends_after_a_finding() -> None:
    small = [saved(check_result())]
    assert summary(small) == markdown(small)
    big = saved(check_result(findings=[finding(dialogue=["é" * 9000] * 40) for _ in range(50)]))
    text = summary([*small, big])
    assert SUMMARY_BYTES / 3 < len(text.encode()) <= SUMMARY_BYTES + 200
    assert text.endswith("\n</details>\n\nThe summary is cut here because of its size: see the results themselves.\n")
    assert text.count("```") % 2 == 0
