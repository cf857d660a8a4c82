"""JUnit XML, as CI servers show it: one test suite for each result.

Test cases: the thresholds of a run, the rules of `check` and `fuzz`, the metrics of a comparison and the rules that
its candidates violate differently, whether any rate of a capacity search met the objectives, whether the server survived a
run in which its processes were known, and for every result whether it completed. What does not make a command fail (a
warning, a finding in the baseline or one under load only) is skipped and keeps its reason. A rule that was not tried, or
whose verdict is inconclusive, is skipped as well.

Source of the format: the testmoapp/junitxml description of what CI servers read; there is no standard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as Xml

from smtpbench.measure.comparison import CANNOT_TELL
from smtpbench.measure.saved import CAPACITY, RUN, Saved
from smtpbench.report.reading.capacity import capacity_of, capacity_schedule_of
from smtpbench.report.reading.comparison import compared_metrics_of, compared_rules_of
from smtpbench.report.reading.findings import LEVELS, SavedFinding, findings_by_rule, unverified_of, verdicts_of
from smtpbench.report.reading.formatting import format_instant, safe
from smtpbench.report.reading.head import COMPLETED, Head, heads_of
from smtpbench.report.reading.metrics import key_figures_of, thresholds_of
from smtpbench.report.reading.server import deaths_text, server_of
from smtpbench.report.reading.verdict import further_notes_of, verdict_of
from smtpbench.rules.rule import INCONCLUSIVE, NOT_RUN, VIOLATED
from smtpbench.threshold import format_value

_FAILURE, _ERROR, _SKIPPED = "failure", "error", "skipped"
_CLASSES: Final = {"failure": "failures", "error": "errors", "skipped": "skipped"}


@dataclass(frozen=True, slots=True)
class _Case:
    """A test case.

    Attributes:
        group: The part of the result that it belongs to.
        name: Its name.
        outcome: `failure`, `error`, `skipped`, or empty where it passed.
        message: What happened, in one line.
        type: Type of the failure.
        details: Lines that explain the failure.
        seconds: Duration.
    """

    group: str
    name: str
    outcome: str = ""
    message: str = ""
    type: str = ""
    details: Sequence[str] = ()
    seconds: float | None = None


def junit(several: Sequence[Saved]) -> str:
    """Return one document for all results."""
    root = Xml.Element("testsuites", name="smtpbench")
    totals = dict.fromkeys(("tests", *_CLASSES.values()), 0)
    for head, saved in heads_of(several):
        suite = _suite(head, saved)
        root.append(suite)
        for name in totals:
            totals[name] += int(suite.get(name, "0"))
    for name, count in totals.items():
        root.set(name, str(count))
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(head: Head, saved: Saved) -> Xml.Element:
    cases = [
        _ending(head), *_server(saved), *_thresholds(saved), *_rules(saved), *_comparison(saved), *_capacity(saved)
    ]  # fmt: skip
    suite = Xml.Element("testsuite", name=f"{head.kind}: {head.label}", tests=str(len(cases)))
    for outcome, name in _CLASSES.items():
        suite.set(name, str(sum(case.outcome == outcome for case in cases)))
    if head.seconds is not None:
        suite.set("time", f"{head.seconds:.3f}")
    if head.started is not None:
        suite.set("timestamp", format_instant(head.started).removesuffix("Z"))
    properties, verdict = Xml.SubElement(suite, "properties"), verdict_of(saved)
    about = {
        "verdict": verdict.lines[0],
        "scenario": head.scenario,
        "target": head.target,
        "banner": head.banner,
        "smtpbench": head.version,
    }
    for name, value in [*about.items(), *((figure.name, _figure_text(figure.value)) for figure in key_figures_of(saved))]:
        if value:
            Xml.SubElement(properties, "property", name=name, value=value)
    for case in cases:
        suite.append(_element(head, case))
    Xml.SubElement(suite, "system-out").text = "\n".join([*verdict.lines, *further_notes_of(saved)])
    return suite


def _figure_text(value: float | int | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _element(head: Head, case: _Case) -> Xml.Element:
    element = Xml.Element("testcase", classname=f"smtpbench.{head.kind}.{head.label}.{case.group}", name=case.name)
    if case.seconds is not None:
        element.set("time", f"{case.seconds:.3f}")
    if case.outcome:
        inner = Xml.SubElement(element, case.outcome, message=case.message)
        if case.outcome != _SKIPPED:
            inner.set("type", case.type or case.group)
            inner.text = "\n".join(case.details or [case.message])
    elif case.message:
        Xml.SubElement(element, "system-out").text = case.message
    return element


def _ending(head: Head) -> _Case:
    if head.status == COMPLETED:
        return _Case("outcome", "completed", seconds=head.seconds)
    message = f"{head.status}: {head.reason}" if head.reason else head.status
    return _Case("outcome", "completed", _ERROR, message, head.status, seconds=head.seconds)


def _server(saved: Saved) -> Iterator[_Case]:
    """Whether the server survived a run; deaths in a check or a campaign are findings."""
    server = server_of(saved)
    if server is None or saved.kind != RUN:
        return
    lines = []
    for death in server.deaths:
        lines += [death.text, *(f"  {name}: {value}" for name, value in death.details)]
        lines += [f"  | {line}" for line in death.output]
    lines += [f"log: {line.quoted}" for line in server.log_lines]
    if server.deaths:
        yield _Case("server", "the server does not die", _FAILURE, deaths_text(server.deaths), "crash", lines)
    else:
        yield _Case("server", "the server does not die", message="\n".join(lines))


def _thresholds(saved: Saved) -> Iterator[_Case]:
    for threshold in thresholds_of(saved):
        outcome = "" if threshold.passed else _FAILURE
        yield _Case("thresholds", threshold.text, outcome, threshold.sentence, "threshold")


def _rules(saved: Saved) -> Iterator[_Case]:
    findings = findings_by_rule(saved)
    for verdict in (*verdicts_of(saved), *(rule for rule in unverified_of(saved) if rule.verdict == NOT_RUN)):
        name = f"{verdict.name} ({verdict.section})" if verdict.section else verdict.name
        if verdict.verdict in (INCONCLUSIVE, NOT_RUN):
            yield _Case("rules", name, _SKIPPED, f"{verdict.mark}: {verdict.actual}" if verdict.actual else verdict.mark)
        elif verdict.verdict != VIOLATED:
            yield _Case("rules", name)
        else:
            yield _violation(name, findings.pop(verdict.name))
    for group in findings.values():
        yield _violation(group[0].rule, group)


def _violation(name: str, findings: Sequence[SavedFinding]) -> _Case:
    first = findings[0]
    if not any(finding.counts for finding in findings):
        unrepeated = first.level != LEVELS[first.severity]
        why = "in the baseline" if first.known else first.reproducibility if unrepeated else first.severity
        return _Case("rules", name, _SKIPPED, f"violated, but not a failure ({why}): {first.actual}")
    lines = [f"required: {first.requirement}"]
    for finding in findings:
        lines += ["", f"seen: {finding.actual}" + (f"  ({finding.reproducibility})" if finding.reproducibility else "")]
        lines += [f"  {line}" for line in (*finding.dialogue, *finding.evidence)]
        lines += [f"replay: {finding.repeat}"] if finding.repeat else []
        lines.append(f"file: {safe(finding.file)}")
    return _Case("rules", name, _FAILURE, first.actual, first.severity, lines)


def _comparison(saved: Saved) -> Iterator[_Case]:
    for metric in compared_metrics_of(saved):
        sides = (metric.baseline_value, metric.candidate_value)
        values = " → ".join("-" if value is None else format_value(metric.unit, value) for value in sides)
        message = f"{metric.verdict}: {values} {metric.change_text}".rstrip()
        outcome = _FAILURE if metric.worse else _SKIPPED if metric.verdict == CANNOT_TELL else ""
        group = f"{metric.candidate} against {metric.baseline}"
        yield _Case(group, metric.metric, outcome, message, metric.verdict)
    for rule in compared_rules_of(saved):
        message = ", ".join(f"{name}: {verdict}" for name, verdict in rule.verdicts.items())
        outcome = _FAILURE if rule.worse else ""
        yield _Case("rules", rule.name, outcome, message, rule.severity, [rule.requirement, message])


def _capacity(saved: Saved) -> Iterator[_Case]:
    if saved.kind != CAPACITY:
        return
    found = capacity_of(saved)
    name = "; ".join(capacity_schedule_of(saved).objectives) or "the objective"
    if found.rate_per_s is None:
        yield _Case("capacity", name, _FAILURE, f"no rate met the objectives: {found.reason}", "capacity")
    else:
        rate = format_value("per_s", found.rate_per_s)
        yield _Case("capacity", name, "", f"{rate} met the objectives; {found.reason}".removesuffix("; "))
