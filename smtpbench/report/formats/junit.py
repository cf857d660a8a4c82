"""JUnit XML, as CI servers show it: a test suite a result.

The test cases: of a run its thresholds, of `check` and `fuzz` the rules that were tried, of a comparison its metrics and
the rules that the candidates break differently, of a search for capacity whether any rate held; and of every result
whether it came to its end. What does not make `check` fail (a warning, a finding of the baseline) is skipped, with its
reason, so that it is seen.

Source of the format: the testmoapp/junitxml description of what CI servers read; there is no standard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as Xml

from smtpbench.measure.comparison import CANNOT_TELL
from smtpbench.measure.saved import CAPACITY, Saved
from smtpbench.report.reading import findings as judged
from smtpbench.report.reading import metrics as facts
from smtpbench.report.reading.findings import Found
from smtpbench.report.reading.metrics import COMPLETED, Head
from smtpbench.report.reading.sections import instant_text, number, section, texts, words
from smtpbench.report.terminal.comparison import change_text
from smtpbench.report.terminal.tables import safe
from smtpbench.rules.rule import INCONCLUSIVE, VIOLATED
from smtpbench.threshold import format_value

_FAILURE, _ERROR, _SKIPPED = "failure", "error", "skipped"
_CLASSES: Final = {"failure": "failures", "error": "errors", "skipped": "skipped"}


@dataclass(frozen=True, slots=True)
class _Case:
    """outcome: `failure`, `error`, `skipped`, or empty where it passed. type: of the failure. details: lines."""

    group: str
    name: str
    outcome: str = ""
    message: str = ""
    type: str = ""
    details: Sequence[str] = ()
    seconds: float | None = None


def junit(saved: Sequence[Saved]) -> str:
    """One document for all results."""
    root = Xml.Element("testsuites", name="smtpbench")
    totals = dict.fromkeys(("tests", *_CLASSES.values()), 0)
    for head, one in facts.heads(saved):
        suite = _suite(head, one)
        root.append(suite)
        for name in totals:
            totals[name] += int(suite.get(name, "0"))
    for name, count in totals.items():
        root.set(name, str(count))
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(head: Head, saved: Saved) -> Xml.Element:
    cases = [_ending(head), *_thresholds(saved), *_rules(saved), *_comparison(saved), *_capacity(saved)]
    suite = Xml.Element("testsuite", name=f"{head.kind}: {head.label}", tests=str(len(cases)))
    for outcome, name in _CLASSES.items():
        suite.set(name, str(sum(case.outcome == outcome for case in cases)))
    if head.seconds is not None:
        suite.set("time", f"{head.seconds:.3f}")
    if head.started is not None:
        suite.set("timestamp", instant_text(head.started).removesuffix("Z"))
    properties = Xml.SubElement(suite, "properties")
    about = {"scenario": head.scenario, "target": head.target, "banner": head.banner, "smtpbench": head.version}
    told = [*about.items(), *((one.name, _shown(one.value)) for one in facts.figures(saved))]
    for name, value in told:
        if value:
            Xml.SubElement(properties, "property", name=name, value=value)
    for case in cases:
        suite.append(_element(head, case))
    notes = facts.notes(saved)
    if notes:
        Xml.SubElement(suite, "system-out").text = "\n".join(notes)
    return suite


def _shown(value: float | int | str) -> str:
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
    said = f"{head.status}: {head.reason}" if head.reason else head.status
    return _Case("outcome", "completed", _ERROR, said, head.status, seconds=head.seconds)


def _thresholds(saved: Saved) -> Iterator[_Case]:
    for limit in facts.limits(saved):
        yield _Case("thresholds", limit.text, "" if limit.passed else _FAILURE, limit.said, "threshold")


def _rules(saved: Saved) -> Iterator[_Case]:
    found = judged.by_rule(saved)
    for ruling in judged.verdicts(saved):
        name = f"{ruling.name} ({ruling.section})" if ruling.section else ruling.name
        if ruling.verdict == INCONCLUSIVE:
            yield _Case("rules", name, _SKIPPED, f"inconclusive: {ruling.actual}")
        elif ruling.verdict != VIOLATED:
            yield _Case("rules", name)
        else:
            yield _broken(name, found.pop(ruling.name))
    for group in found.values():
        yield _broken(group[0].rule, group)


def _broken(name: str, found: Sequence[Found]) -> _Case:
    first = found[0]
    if not any(one.counts for one in found):
        why = "in the baseline" if first.known else first.severity
        return _Case("rules", name, _SKIPPED, f"broken, but does not count ({why}): {first.actual}")
    lines = [f"required: {first.requirement}"]
    for one in found:
        lines += ["", f"seen: {one.actual}" + (f"  ({one.reproducibility})" if one.reproducibility else "")]
        lines += [f"  {line}" for line in one.dialogue]
        lines += [f"again: {one.repeat}"] if one.repeat else []
        lines.append(f"file: {safe(one.file)}")
    return _Case("rules", name, _FAILURE, first.actual, first.severity, lines)


def _comparison(saved: Saved) -> Iterator[_Case]:
    for shift in facts.shifts(saved):
        sides = (shift.baseline_value, shift.candidate_value)
        values = " → ".join("-" if value is None else format_value(shift.unit, value) for value in sides)
        said = f"{shift.verdict}: {values} {change_text(shift.to_data())}".rstrip()
        outcome = _FAILURE if shift.worse else _SKIPPED if shift.verdict == CANNOT_TELL else ""
        yield _Case(f"{shift.candidate} against {shift.baseline}", shift.metric, outcome, said, shift.verdict)
    for entry in facts.broken_differently(saved):
        said = ", ".join(f"{name}: {verdict}" for name, verdict in entry.verdicts.items())
        yield _Case("rules", entry.name, _FAILURE if entry.worse else "", said, entry.severity, [entry.requirement, said])


def _capacity(saved: Saved) -> Iterator[_Case]:
    if saved.kind != CAPACITY:
        return
    found = section(saved.result, "capacity")
    rate, reason = number(found.get("rate_per_s")), words(found.get("reason"))
    name = "; ".join(texts(section(saved.result, "plan").get("objectives"))) or "the objective"
    if rate is None:
        yield _Case("capacity", name, _FAILURE, f"no rate held: {reason}", "capacity")
    else:
        yield _Case("capacity", name, "", f"{format_value('per_s', rate)} held; {reason}".removesuffix("; "))
