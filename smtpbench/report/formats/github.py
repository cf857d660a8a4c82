"""GitHub Actions: annotations on standard output, and Markdown for the summary of a job.

Theory of operation
===================

A runner reads commands from the output of a step: a line that begins with `::`, and `##[` anywhere in a line. A report for
GitHub therefore prints its own commands only, one a line. Text from elsewhere is escaped: `%`, CR and LF in a message, `:`
and `,` as well in a property. Each line is then exactly one command, whatever text it holds. As nothing else is printed,
there is no need to switch the processing of commands off.

GitHub shows ten errors, ten warnings and ten notices of a step. The most severe come first, and the last one says how many
more there are.

Sources: "Workflow commands for GitHub Actions"; `ActionCommand.TryParseV2` of actions/runner; the limits of annotations are
those of "Usage limits" and of actions/toolkit's problem matchers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from smtpbench.measure.saved import CAPACITY, Saved
from smtpbench.report.formats.markdown import blocks
from smtpbench.report.reading.capacity import capacity_of
from smtpbench.report.reading.comparison import compared_metrics_of, compared_rules_of
from smtpbench.report.reading.findings import findings_of
from smtpbench.report.reading.formatting import safe
from smtpbench.report.reading.head import COMPLETED, Head, heads_of, scenario_of
from smtpbench.report.reading.metrics import thresholds_of
from smtpbench.report.reading.verdict import BAD, DIED, GONE, GOOD, LIMITED, NOTHING, SATURATED, STALLED, verdict_of

#: Annotations of one level that GitHub shows of a step.
MAX_ANNOTATIONS: Final = 10
#: Octets of a summary; GitHub rejects one that exceeds 1 MiB.
SUMMARY_BYTES: Final = 1_000_000
_TEXT_CHARACTERS = 4000
#: Lines on the server's death and from its log that an annotation has at most.
_MAX_EVIDENCE = 20
#: Causes of a verdict that have no annotation of their own.
_WARNINGS: Final = (DIED, NOTHING, GONE, STALLED, LIMITED, SATURATED)
_COMMANDS: Final = {"error": "error", "warning": "warning", "note": "notice"}


class Annotation(NamedTuple):
    """One annotation.

    Attributes:
        level: `error`, `warning` or `note`.
        title: Its title.
        text: Its message, of one or several lines.
        file: File at which it is shown; empty for none.
    """

    level: str
    title: str
    text: str
    file: str = ""


def workflow_commands(several: Sequence[Saved]) -> str:
    """Return workflow commands, one a line."""
    found = [annotation for head, saved in heads_of(several) for annotation in _annotations(head, saved)]
    lines = []
    for level in _COMMANDS:
        shown = [annotation for annotation in found if annotation.level == level]
        if len(shown) > MAX_ANNOTATIONS:
            more = len(shown) - MAX_ANNOTATIONS + 1
            shown = [
                *shown[: MAX_ANNOTATIONS - 1],
                Annotation(level, "smtpbench", f"and {more} more: see the summary of this job"),
            ]
        lines += [_command(annotation) for annotation in shown]
    return "".join(f"{line}\n" for line in lines)


def _command(annotation: Annotation) -> str:
    properties = {"file": annotation.file, "line": "1" if annotation.file else "", "title": annotation.title}
    shown = ",".join(f"{name}={_escaped_property(value)}" for name, value in properties.items() if value)
    return f"::{_COMMANDS[annotation.level]} {shown}::{_escaped_message(annotation.text[:_TEXT_CHARACTERS])}"


def _escaped_message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped_message(text).replace(":", "%3A").replace(",", "%2C")


def _annotations(head: Head, saved: Saved) -> Iterator[Annotation]:
    scenario = scenario_of(saved).file
    if head.status != COMPLETED:
        yield Annotation("error", f"smtpbench {head.label}", f"{head.status}: {head.reason}" if head.reason else head.status)
    for threshold in thresholds_of(saved):
        if not threshold.passed:
            yield Annotation("error", f"threshold failed: {head.label}", threshold.sentence, scenario)
    for finding in findings_of(saved):
        if not finding.known:
            details = f"\nRequired: {finding.requirement}\nReplay: {finding.repeat}" if finding.repeat else ""
            details += "".join(f"\n{line}" for line in finding.evidence[:_MAX_EVIDENCE])
            title = f"{finding.severity} {finding.rule} ({finding.section}): {head.label}"
            yield Annotation(finding.level, title, f"{finding.actual}{details}", safe(finding.file))
    for metric in compared_metrics_of(saved):
        if metric.worse:
            text = f"{metric.metric} of {metric.candidate} compared with {metric.baseline}: {metric.verdict}"
            yield Annotation("error", f"{metric.verdict}: {head.label}", f"{text}, {metric.change_text}")
    for rule in compared_rules_of(saved):
        if rule.worse:
            text = ", ".join(f"{name}: {verdict}" for name, verdict in rule.verdicts.items())
            yield Annotation("error", f"{rule.severity} {rule.name}: {head.label}", text)
    if saved.kind == CAPACITY:
        capacity = capacity_of(saved)
        if capacity.rate_per_s is None:
            reason = capacity.reason or "no rate met the objectives"
            yield Annotation("error", f"no rate met the objectives: {head.label}", reason, scenario)
    for cause in verdict_of(saved).causes:
        if cause.word in _WARNINGS and cause.level != GOOD:
            yield Annotation("error" if cause.level == BAD else "warning", f"{cause.word.lower()}: {head.label}", cause.text)


def summary(several: Sequence[Saved]) -> str:
    """Return the Markdown, without its last pieces where GitHub would reject it for its size."""
    kept, left_bytes = [], SUMMARY_BYTES
    for piece in blocks(several):
        left_bytes -= len(piece.encode()) + 2
        if left_bytes < 0:
            kept.append("The summary is cut here because of its size: see the results themselves.")
            break
        kept.append(piece)
    return "\n\n".join(kept) + "\n"
