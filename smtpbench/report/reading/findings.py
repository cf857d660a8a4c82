"""What results say of rules: the verdicts of `check` and `fuzz`, and the findings; of a run, those of hostile sessions.

As in `facts`, nothing in a result is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from smtpbench.measure.saved import CHECK, FUZZ, RUN, Saved
from smtpbench.report.reading.sections import natural, records, section, texts, words
from smtpbench.report.terminal.scorecard import counts_against
from smtpbench.report.terminal.tables import safe
from smtpbench.rules.register import BY_NAME
from smtpbench.rules.rule import ADVICE, INCONCLUSIVE, PASS, SECURITY, SEVERITIES, VIOLATED, VIOLATION, WARNING

#: Severities in words of one scale, for formats that have three: error, warning, note.
LEVELS: Final = {SECURITY: "error", VIOLATION: "error", WARNING: "warning", ADVICE: "note"}


class SavedVerdict(NamedTuple):
    """What came of a rule. counts: whether it makes a build fail. grave: its place in SEVERITIES."""

    name: str
    id: str
    section: str
    severity: str
    verdict: str
    requirement: str
    actual: str
    counts: bool

    @property
    def grave(self) -> int:
        """0 for the gravest."""
        return SEVERITIES.index(self.severity)


@dataclass(frozen=True, slots=True)
class Found:
    """A finding. file: the scenario that says it again, else the result's own file. counts: it makes a build fail.

    key: what it has in common with the same finding of another day: the rule and the cause, no time, port or random data.
    """

    id: str
    rule: str
    section: str
    severity: str
    requirement: str
    actual: str
    reproducibility: str
    hits: int
    file: Path
    dialogue: Sequence[str]
    repeat: str
    known: bool
    counts: bool
    key: str


def verdicts(saved: Saved) -> list[SavedVerdict]:
    """What came of every rule that was tried, the gravest severity first; of a run: of the hostile sessions beside it."""
    holder = section(saved.result, "hostile") if saved.kind == RUN else saved.result
    if saved.kind not in (RUN, CHECK, FUZZ):
        return []
    strict = holder.get("strict") is True
    found = []
    for name, data in section(holder, "rules").items():
        verdict = words(section(data).get("verdict"))
        if verdict not in (PASS, VIOLATED, INCONCLUSIVE):
            continue
        told = {key: words(section(data).get(key)) for key in ("id", "section", "requirement", "actual")}
        severity = severity_of(section(data).get("severity"))
        counts = counts_against({"verdict": verdict, "severity": severity}, strict)
        found.append(
            SavedVerdict(
                words(name), told["id"], told["section"], severity, verdict, told["requirement"], told["actual"], counts
            )
        )
    return sorted(found, key=lambda ruling: (ruling.grave, ruling.name))


def severity_of(value: object) -> str:
    """A severity; a violation's where it is none that is known."""
    return value if isinstance(value, str) and value in SEVERITIES else VIOLATION


def findings(saved: Saved) -> list[Found]:
    """The findings, the gravest first; a rule that is broken without one is one."""
    holder = section(saved.result, "hostile") if saved.kind == RUN else saved.result
    by_name = {ruling.name: ruling for ruling in verdicts(saved)}
    listed = records(holder.get("findings")) if saved.kind in (RUN, CHECK, FUZZ) else []
    found = [_found(saved, entry, by_name, holder.get("strict") is True) for entry in listed]
    shown = {one.rule for one in found}
    found += [
        _without_session(saved, ruling) for ruling in by_name.values()
        if ruling.verdict == VIOLATED and ruling.name not in shown
    ]  # fmt: skip
    return sorted(found, key=lambda one: (one.known, SEVERITIES.index(one.severity), one.rule, one.id))


def by_rule(saved: Saved) -> dict[str, list[Found]]:
    """The findings by their rules; every rule that is broken has one."""
    found: dict[str, list[Found]] = {}
    for one in findings(saved):
        found.setdefault(one.rule, []).append(one)
    return found


def _without_session(saved: Saved, ruling: SavedVerdict) -> Found:
    return Found(
        id=ruling.name, rule=ruling.name, section=ruling.section, severity=ruling.severity, requirement=ruling.requirement,
        actual=ruling.actual, reproducibility="", hits=1, file=saved.path, dialogue=(), repeat="", known=False,
        counts=ruling.counts, key=ruling.name,
    )  # fmt: skip


def _found(saved: Saved, entry: Mapping[str, Any], rules: Mapping[str, SavedVerdict], strict: bool) -> Found:
    name, severity, known = words(entry.get("rule")) or "?", severity_of(entry.get("severity")), entry.get("known") is True
    ruling, registered = rules.get(name), BY_NAME.get(name)
    cause = words(entry.get("cause"))
    return Found(
        id=words(entry.get("id")) or name,
        rule=name,
        section=ruling.section if ruling else registered.section if registered else "",
        severity=severity,
        requirement=ruling.requirement if ruling else registered.requirement if registered else "",
        actual=words(entry.get("actual")),
        reproducibility=words(entry.get("reproducibility")),
        hits=max(1, natural(entry.get("hits"))),
        file=_file(saved, entry.get("file")),
        dialogue=texts(entry.get("dialogue")),
        repeat=words(entry.get("repeat")),
        known=known,
        counts=not known and counts_against({"verdict": VIOLATED, "severity": severity}, strict),
        key=f"{name}\n{cause}" if cause else name,
    )


def _file(saved: Saved, value: object) -> Path:
    """A finding's file; a name that leads out of the result's folder is none."""
    named = PurePosixPath(value) if isinstance(value, str) and safe(value) == value and len(value) < 500 else PurePosixPath()
    inside = named.parts and not named.is_absolute() and ".." not in named.parts
    return saved.folder / named if inside else saved.path
