"""GitHub Actions: annotations on standard output, and Markdown for the job's summary.

Theory of operation
===================

A runner reads commands out of whatever a step prints: a line that begins with `::`, and `##[` anywhere in a line. So a
report for GitHub prints nothing but its own commands, a line each, and everything in them that is not ours is escaped: in a
message `%`, CR and LF, in a property `:` and `,` as well. Such a line is one command, whatever stands in it; and as nothing
else is printed, there is nothing to stop commands for.

Ten errors, ten warnings and ten notices of a step are shown: the gravest come first, and the last says how many more there
are.

Sources: "Workflow commands for GitHub Actions"; `ActionCommand.TryParseV2` of actions/runner; the limits of annotations are
those of "Usage limits" and of actions/toolkit's problem matchers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from smtpbench.measure.saved import CAPACITY, Saved
from smtpbench.report.formats.markdown import blocks
from smtpbench.report.reading import findings as judged
from smtpbench.report.reading import metrics as facts
from smtpbench.report.reading.findings import LEVELS
from smtpbench.report.reading.metrics import COMPLETED, Head
from smtpbench.report.reading.sections import number, section, words
from smtpbench.report.terminal.comparison import change_text
from smtpbench.report.terminal.tables import safe

#: Annotations of a kind that GitHub shows of one step.
SHOWN: Final = 10
#: Octets of a summary; GitHub refuses one of more than 1 MiB whole.
SUMMARY_BYTES: Final = 1_000_000
_TEXT_CHARACTERS = 4000
_COMMANDS: Final = {"error": "error", "warning": "warning", "note": "notice"}


class Annotation(NamedTuple):
    """level: `error`, `warning` or `note`. file: where it is shown; empty for none."""

    level: str
    title: str
    text: str
    file: str = ""


def workflow_commands(saved: Sequence[Saved]) -> str:
    """A workflow command a line."""
    found = [annotation for head, one in facts.heads(saved) for annotation in _of(head, one)]
    lines = []
    for level in _COMMANDS:
        mine = [annotation for annotation in found if annotation.level == level]
        if len(mine) > SHOWN:
            left = len(mine) - SHOWN + 1
            mine = [*mine[: SHOWN - 1], Annotation(level, "smtpbench", f"and {left} more: see the summary of this job")]
        lines += [_command(annotation) for annotation in mine]
    return "".join(f"{line}\n" for line in lines)


def _command(one: Annotation) -> str:
    properties = {"file": one.file, "line": "1" if one.file else "", "title": one.title}
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
    return f"::{_COMMANDS[one.level]} {told}::{_message(one.text[:_TEXT_CHARACTERS])}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def _of(head: Head, saved: Saved) -> Iterator[Annotation]:
    scenario = words(section(saved.result, "scenario").get("file"))
    if head.status != COMPLETED:
        yield Annotation("error", f"smtpbench {head.label}", f"{head.status}: {head.reason}" if head.reason else head.status)
    for limit in facts.limits(saved):
        if not limit.passed:
            yield Annotation("error", f"threshold failed: {head.label}", limit.said, scenario)
    for found in judged.findings(saved):
        if not found.known:
            level = "error" if found.counts else "note" if LEVELS[found.severity] == "note" else "warning"
            again = f"\nRequired: {found.requirement}\nAgain: {found.repeat}" if found.repeat else ""
            title = f"{found.severity} {found.rule} ({found.section}): {head.label}"
            yield Annotation(level, title, f"{found.actual}{again}", safe(found.file))
    for shift in facts.shifts(saved):
        if shift.worse:
            change = change_text(shift.to_data())
            said = f"{shift.metric} of {shift.candidate} against {shift.baseline}: {shift.verdict}, {change}"
            yield Annotation("error", f"{shift.verdict}: {head.label}", said)
    for rule in facts.broken_differently(saved):
        if rule.worse:
            told = ", ".join(f"{name}: {verdict}" for name, verdict in rule.verdicts.items())
            yield Annotation("error", f"{rule.severity} {rule.name}: {head.label}", told)
    if saved.kind == CAPACITY:
        found_ = section(saved.result, "capacity")
        if number(found_.get("rate_per_s")) is None:
            yield Annotation("error", f"no rate held: {head.label}", words(found_.get("reason")) or "no rate held", scenario)
    for figure in facts.figures(saved):
        if figure.name == "generator.limited":
            yield Annotation("warning", f"generator limited: {head.label}", str(figure.value))


def summary(saved: Sequence[Saved]) -> str:
    """The Markdown, without the last of its pieces where GitHub would refuse it for its size."""
    kept, left_bytes = [], SUMMARY_BYTES
    for piece in blocks(saved):
        left_bytes -= len(piece.encode()) + 2
        if left_bytes < 0:
            kept.append("There is more than a summary can hold: see the results themselves.")
            break
        kept.append(piece)
    return "\n\n".join(kept) + "\n"
