"""The verdict on a result: what it says first, that each cause is said once, and that every report has it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import saved_results
from figures import busy_recorder, result_of
from hostile_results import (
    CONTROLS,
    capacity_result,
    check_result,
    compared_metric,
    comparison_result,
    finding,
    fuzz_result,
    rule_data,
    run_result,
    saved,
)

from smtpbench.measure.health import Health
from smtpbench.measure.notes import bottleneck_note, nothing_accepted_note, silence_note
from smtpbench.measure.recorder import Recorder
from smtpbench.report.formats.registry import render
from smtpbench.report.reading.exit_code import exit_code
from smtpbench.report.reading.verdict import BAD, GOOD, WARNING, further_notes_of, replay_verdict, verdict_of

SILENCES = [{"from_s": 4.0, "to_s": 14.04}]


def run_of(accepted: int = 10, rejected: int = 0, failed: int = 0, **changes: Any) -> dict[str, Any]:
    recorder = Recorder()
    recorder.accepted, recorder.rejected, recorder.failed = accepted, rejected, failed
    result = result_of(recorder.drain(), health=changes.pop("health", None), notes=changes.pop("notes", []))
    return {**result, "thresholds": [], **changes}


def threshold(text: str = "message.p99 < 50ms", value: float | None = 312.0, *, passed: bool = False) -> dict[str, Any]:
    margin = None if value is None else (50.0 - value) / 50.0
    return {"threshold": text, "metric": "message.response.p99", "unit": "ms", "limit": 50.0, "value": value,
            "margin_share": margin, "passed": passed}  # fmt: skip


def check_of(*verdicts: tuple[str, str], **changes: Any) -> dict[str, Any]:
    """A check without findings beside these (rule, verdict)."""
    return check_result(rules={name: rule_data(name, verdict) for name, verdict in verdicts}, findings=[], **changes)


def lines_of(result: dict[str, Any]) -> list[str]:
    return verdict_of(saved(result)).lines


LIMITED = Health(busiest_share=0.99)
PASSING = threshold(value=3.0, passed=True)
INTERRUPTED = {"status": "interrupted", "reason": "by a signal"}
NOTHING_NOTE = nothing_accepted_note(3, "RCPT 550 5.7.1, 3 times: 550 5.7.1 no")


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        (run_of(), ["COMPLETED: 10 of 10 messages accepted"]),
        (run_of(thresholds=[PASSING]), ["PASSED: message.p99 < 50ms is 3 ms, 94% to spare"]),
        (
            run_of(thresholds=[PASSING, threshold(), threshold("RCPT.p99 < 50ms", None)], silences=SILENCES),
            [
                "FAILED: message.p99 < 50ms is 312 ms, 524% beyond the limit",
                "FAILED: RCPT.p99 < 50ms has no data",
                "STALLED: the server did not answer from 4.0 s to 14.0 s",
                "PASSED: message.p99 < 50ms is 3 ms, 94% to spare",
            ],
        ),
        (
            run_of(silences=SILENCES),
            ["STALLED: the server did not answer from 4.0 s to 14.0 s", "COMPLETED: 10 of 10 messages accepted"],
        ),
        (run_of(8, 0, 2), ["COMPLETED: 8 of 10 messages accepted"]),
        (
            run_of(silences=[{"from_s": at, "to_s": at + 1} for at in range(7)]),
            [
                "STALLED: the server did not answer from 0.0 s to 1.0 s, from 1.0 s to 2.0 s, from 2.0 s to 3.0 s, "
                "from 3.0 s to 4.0 s, from 4.0 s to 5.0 s and 2 more",
                "COMPLETED: 10 of 10 messages accepted",
            ],
        ),
        (run_of(0, 3, notes=[NOTHING_NOTE]),
         ["NOTHING ACCEPTED: 0 of 3 messages; most often: RCPT 550 5.7.1, 3 times: 550 5.7.1 no"]),
        (run_of(0, 3), ["NOTHING ACCEPTED: 0 of 3 messages"]),
        (
            run_of(health=LIMITED),
            [
                "GENERATOR LIMITED: the busiest worker used 99% of its core; "
                "the figures describe the generator, not the target",
                "COMPLETED: 10 of 10 messages accepted",
            ],
        ),
        (
            run_of(outcome={"status": "incomplete", "reason": "worker 1 was killed by SIGKILL"}, thresholds=[threshold()]),
            [
                "INCOMPLETE: worker 1 was killed by SIGKILL",
                "FAILED: message.p99 < 50ms is 312 ms, 524% beyond the limit",
            ],
        ),
        (run_of(outcome=INTERRUPTED), ["INTERRUPTED: by a signal"]),
        (run_of(outcome={"status": "could-not-run", "reason": "refused"}), ["COULD NOT RUN: refused"]),
        (
            run_of(
                outcome={"status": "aborted", "reason": "message.p99 < 50ms is ≥ 400 ms, 700% beyond the limit"},
                thresholds=[threshold()],
            ),
            ["ABORTED: message.p99 < 50ms is ≥ 400 ms, 700% beyond the limit"],  # the threshold is the cause
        ),
        (check_of(("health", "pass"), ("eod-lf-lf", "inconclusive")), ["PASSED: 1 rule; 1 inconclusive"]),
        (check_of(("health", "inconclusive")), ["INCONCLUSIVE: no rule was verified"]),
        (
            check_of(("close-without-421", "violation"), ("eod-lf-lf", "violation"), ("health", "pass")),
            ["FAILED: 2 rules violated: eod-lf-lf (security), close-without-421 (violation)"],
        ),
        (check_of(("health", "pass"), outcome="interrupted"), ["INTERRUPTED", "INCONCLUSIVE: 1 rule"]),
        (fuzz_result(findings=[], rules={}), ["PASSED: 300 cases, no finding"]),
        (fuzz_result(findings=[finding(known=True)], rules={}),
         ["PASSED: 300 cases, 1 finding (1 in the baseline)"]),
        (fuzz_result(findings=[finding(known=False)], rules={}), ["FAILED: 1 finding: eod-lf-lf (security)"]),
        (
            fuzz_result(findings=[], rules={}, target={"gone": True}) | {"cases": {"run": 9, "may_have_killed_it": 2}},
            ["TARGET GONE: the target no longer answers; 2 more cases may have crashed it: see candidates/",
             "PASSED: 9 cases, no finding"],
        ),
        (comparison_result("B", differences=[], rule_differences=[]), ["COMPLETED"]),
        (
            comparison_result("B"),
            [
                "WORSE: B against A: message.p99 slower +25.0% [+20.0 … +30.0]; violates eod-lf-lf",
                "BETTER: B against A: throughput faster +10.0% [+5.0 … +20.0]",
            ],
        ),
        (
            comparison_result("B", differences=[compared_metric(verdict="no difference shown")], rule_differences=[]),
            ["NO DIFFERENCE SHOWN: B against A"],
        ),
        (
            comparison_result("B", differences=[compared_metric(verdict="cannot tell")], rule_differences=[],
                              notes=["2 rounds are too few for an interval; at least 5 are needed (--repeats 5)."]),
            ["CANNOT TELL: B against A: 2 rounds are too few for an interval; at least 5 are needed (--repeats 5)"],
        ),
        (capacity_result(capacity={"rate_per_s": 400.0, "failed_rate_per_s": 409.0, "precision_share": 0.0225,
                                   "limited_by": "objective", "reason": "400/s passed, 409/s failed"}),
         ["PASSED: the capacity is 400/s; 409/s, 2.2 % more, failed"]),
        (capacity_result(capacity={"rate_per_s": 400.0, "failed_rate_per_s": 409.0, "precision_share": 0.0225,
                                   "limited_by": "objective", "reason": "400/s passed, 409/s failed; not confirmed"}),
         ["PASSED: the capacity is 400/s; 409/s, 2.2 % more, failed; not confirmed"]),
        (capacity_result(capacity={"rate_per_s": 400.0, "limited_by": "generator", "reason": "at least 400/s: at 409/s …"}),
         ["GENERATOR LIMITED: the capacity is at least 400/s: at 409/s …"]),
        (capacity_result(outcome=INTERRUPTED, capacity={"rate_per_s": 20.0, "limited_by": "nothing",
                                                        "reason": "the search was not completed: at least 20/s"}),
         ["INTERRUPTED: by a signal",
          "INCONCLUSIVE: the capacity is at least 20/s: the search was not completed: at least 20/s"]),
        (capacity_result(outcome=INTERRUPTED, capacity={"rate_per_s": None, "reason": "no step was completed"}),
         ["INTERRUPTED: by a signal", "INCONCLUSIVE: no rate met the objectives: no step was completed"]),
        (capacity_result(capacity={"rate_per_s": None, "limited_by": "objective", "reason": "the lowest rate, 1/s, failed"}),
         ["FAILED: no rate met the objectives: the lowest rate, 1/s, failed"]),
    ],
)  # fmt: skip
def test_verdict_has_a_line_for_each_cause_the_gravest_first(result: dict[str, Any], lines: list[str]) -> None:
    assert [line.removesuffix(".") for line in lines_of(result)] == lines
    verdict = verdict_of(saved(result))
    assert lines[0].partition(":")[0] == verdict.word
    levels = [cause.level for cause in verdict.causes]
    assert levels == sorted(levels, key=[BAD, WARNING, GOOD].index)


@pytest.mark.parametrize(
    "result",
    [
        run_of(), run_of(0, 3), run_of(thresholds=[threshold()]), run_of(thresholds=[PASSING]), run_of(silences=SILENCES),
        run_of(outcome={"status": "incomplete", "reason": ""}), run_of(outcome={"status": "aborted", "reason": ""}),
        run_result(), check_result(), check_of(("health", "pass")), fuzz_result(), comparison_result(), capacity_result(),
        fuzz_result(findings=[finding(known=True)], rules={}), comparison_result(differences=[], rule_differences=[]),
        capacity_result(capacity={"rate_per_s": None}), check_of(("health", "inconclusive")),
        capacity_result(capacity={"rate_per_s": None, "limited_by": "generator"}),
    ],
)  # fmt: skip
def test_verdict_is_bad_where_the_exit_code_says_so(result: dict[str, Any]) -> None:
    one = saved(result)
    failing = exit_code([one]) != 0
    assert failing is (result_of_status(result) and verdict_of(one).level == BAD)


def result_of_status(result: dict[str, Any]) -> bool:
    """Whether a result is one whose exit code a report can know: an aborted run has that of its thresholds."""
    outcome = result.get("outcome")
    return not (isinstance(outcome, dict) and outcome["status"] == "aborted")


NOTED = run_of(
    0,
    3,
    silences=SILENCES,
    notes=[silence_note(4.0, 14.04), NOTHING_NOTE, "Another note."],
    health=LIMITED,
    outcome={"status": "incomplete", "reason": "worker 1 was killed by SIGKILL"},
    thresholds=[threshold()],
)
COMPARED = comparison_result(
    "B", notes=[bottleneck_note("B", 3, 5, "its core was busy"), "2 rounds are too few for an interval.", "Another note."]
)
COMPARED["candidates"][1] |= {
    "limited_runs": 3,
    "runs": ["B-01", "B-02", "B-03", "B-04", "B-05"],
    "silences": [{"run": "B-02", "from_s": 1.0, "to_s": 2.5}],
}
GONE = fuzz_result(target={"url": "smtp://127.0.0.1:2525", "gone": True})


@pytest.mark.parametrize(
    ("result", "phrases"),
    [
        (NOTED, ["killed by SIGKILL", "4.0 s to 14.0 s", "RCPT 550 5.7.1", "used 99% of its core"]),
        (COMPARED, ["its core was busy", "1.0 s to 2.5 s"]),
        (GONE, ["no longer answers"]),
    ],
)
@pytest.mark.parametrize("name", ["console", "markdown", "html"])
def test_report_says_each_cause_once(name: str, result: dict[str, Any], phrases: list[str]) -> None:
    text = render(name, [saved(result)])
    for phrase in phrases:
        assert text.count(phrase) == 1, phrase


def test_comparison_names_the_candidate_and_the_run_that_stalled() -> None:
    lines = lines_of(COMPARED)
    assert "GENERATOR LIMITED: B in 3 of 5 runs (its core was busy)" in lines
    assert "STALLED: B did not answer from 1.0 s to 2.5 s of B-02" in lines
    assert further_notes_of(saved(COMPARED)) == ["Another note."]


def test_note_that_no_cause_has_is_kept() -> None:
    notes = [silence_note(4.0, 14.0), NOTHING_NOTE]  # of an older version, and of a run that was to be refused
    wanted = {
        "threshold": "rejected > 99%",
        "unit": "share",
        "limit": 0.99,
        "value": 1.0,
        "margin_share": 0.01,
        "passed": True,
    }
    result = run_of(0, 3, notes=notes, thresholds=[wanted])
    assert further_notes_of(saved(result)) == notes
    assert lines_of(result) == ["PASSED: rejected > 99% is 100 %, 1% to spare"]


EVERY_KIND = [NOTED, check_result(), GONE, COMPARED, capacity_result()]


@pytest.mark.parametrize("result", EVERY_KIND, ids=lambda result: result["kind"])
def test_every_report_prints_the_verdict_as_it_is(result: dict[str, Any]) -> None:
    one = saved(result)
    verdict = verdict_of(one)
    console = render("console", [one]).splitlines()
    assert console[-len(verdict.lines) :] == verdict.lines
    junit = render("junit", [one])
    assert f'name="verdict" value="{verdict.lines[0].replace("&", "&amp;").replace("<", "&lt;")}"' in junit
    markdown = render("markdown", [one])
    assert re.search(rf"^## .* — \*\*{verdict.word}\*\*$", markdown, re.MULTILINE)
    assert all(f"- **{cause.word}**" in markdown for cause in verdict.causes)
    html = render("html", [one])
    assert re.search(rf'<h1>.*<span class="badge \w+">{verdict.word}</span></h1>', html)
    assert all(f"<strong>{cause.word}" in html for cause in verdict.causes)


def test_several_results_on_the_console_have_a_verdict_each() -> None:
    passing = check_of(("health", "pass"))
    text = render("console", [saved(check_result()), saved(passing)])
    assert text.splitlines()[-2:] == [f"A: {lines_of(check_result())[0]}", "B: PASSED: 1 rule"]
    several = render("console", [saved(run_of()), saved(run_of(thresholds=[threshold()]))])
    assert "COMPLETED: 10 of 10 messages accepted\n\nrelay →" in several


def test_replay_has_a_verdict() -> None:
    outcomes = [("a.yaml", "STILL THERE"), ("b.yaml", "FIXED"), ("c.yaml", "CANNOT TELL"), ("d.yaml", "STILL THERE")]
    assert replay_verdict(outcomes, "STILL THERE", "FIXED").lines == [
        "FAILED: 2 findings are still there: a.yaml, d.yaml",
        "INCONCLUSIVE: 1 finding could not be replayed: c.yaml",
        "PASSED: 1 finding is fixed",
    ]


@pytest.mark.parametrize("name", ["console", "markdown", "html", "junit"])
def test_hostile_text_in_a_verdict_is_escaped(name: str) -> None:
    hostile = run_of(outcome={"status": CONTROLS, "reason": CONTROLS}, thresholds=[threshold(CONTROLS)], notes=[CONTROLS])
    for result in (
        hostile,
        check_result(CONTROLS),
        fuzz_result(CONTROLS),
        comparison_result(CONTROLS),
        capacity_result(CONTROLS),
    ):
        shown = render(name, [saved(result)])
        assert not {"\x1b", "\x07", "\r", "\u202e", "\ud800"} & set(shown)


def test_verdict_of_a_result_of_the_wrong_shape() -> None:
    result = result_of(busy_recorder().drain())
    result |= {"silences": [3, {"from_s": "x"}, {"from_s": 1}], "thresholds": [{}, 7], "generator": []}
    assert verdict_of(saved(result)).lines == ["FAILED: ? has no data"]


WORDS = {
    "PASSED", "FAILED", "COMPLETED", "NOTHING ACCEPTED", "TARGET GONE", "STALLED", "GENERATOR LIMITED", "WORSE", "BETTER",
    "NO DIFFERENCE SHOWN", "CANNOT TELL", "INTERRUPTED", "KILLED", "INCOMPLETE", "ABORTED", "COULD NOT RUN",
}  # fmt: skip
REPORT = Path(__file__).resolve().parents[3] / "smtpbench" / "report"


def test_only_the_reading_decides() -> None:
    """A page, a format or a console report prints the words of a verdict; it has none of its own, and compares with none."""
    decides = {"generator_of", "notes_of", "all_notes_of"}  # figures of the generator stay in the sections on it
    for package in ("html", "terminal", "formats"):
        for path in (REPORT / package).glob("*.py"):
            tree = ast.parse(path.read_text())
            texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
            # a threshold and a step have an outcome of their own
            assert texts & (WORDS - {"FAILED"}) <= {"NO DIFFERENCE SHOWN"}, path
            names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
            assert not names & (decides - {"generator_of"}) or path.name == "tabular.py", path
            assert "nothing_accepted" not in names, path


def test_made_up_results_of_every_kind_have_a_verdict(tmp_path: Path) -> None:
    for one in (saved_results.capacity(), saved_results.comparison(), saved_results.rules_result()):
        assert verdict_of(one).lines
