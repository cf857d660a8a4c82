"""Verdicts on rules, and findings: of `check`, of `fuzz`, and of the hostile sessions of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from smtpbench.measure.saved import CHECK, FUZZ, RUN, Saved
from smtpbench.report.reading.formatting import safe
from smtpbench.report.reading.lenient import MAX_ENTRIES, entries, items, mapping, natural, records, text, texts
from smtpbench.report.reading.server import SavedDeath, SavedLogLine, read_death, read_log_lines
from smtpbench.rules.register import BY_NAME
from smtpbench.rules.rule import (
    ADVICE,
    CRASH,
    HANG,
    INCONCLUSIVE,
    NOT_RUN,
    PASS,
    SECURITY,
    SEVERITIES,
    VIOLATED,
    VIOLATION,
    WARNING,
    fails_command,
)
from smtpbench.text import plural

#: Severities on the scale of formats that have three levels: error, warning, note.
LEVELS: Final = {CRASH: "error", HANG: "error", SECURITY: "error", VIOLATION: "error", WARNING: "warning", ADVICE: "note"}
_STATUSES = (PASS, VIOLATED, INCONCLUSIVE)
_MARKS: Final = {PASS: "passed", INCONCLUSIVE: "inconclusive", NOT_RUN: "not run"}
_BROKEN_MARKS: Final = {
    CRASH: "CRASH", HANG: "HANG", SECURITY: "SECURITY", VIOLATION: "VIOLATION", WARNING: "warning", ADVICE: "advice",
}  # fmt: skip
#: Marks of violations, the most severe first.
BROKEN_MARKS: Final = tuple(_BROKEN_MARKS.values())
#: Mark of a verdict → its tone in reports.
MARK_TONES: Final[Mapping[str, str]] = {
    _MARKS[PASS]: "good", _MARKS[INCONCLUSIVE]: "info",
    **{mark: "bad" if mark.isupper() else "warn" for mark in BROKEN_MARKS},
}  # fmt: skip
_MAX_PATH = 500
_APPENDIX = 1000  # sorts appendix F after the last section


class SavedVerdict(NamedTuple):
    """The verdict on one rule.

    Attributes:
        name: Name of the rule.
        id: Its number in the register.
        section: Section of the RFC, such as `RFC 5321 §4.1.1.4`.
        severity: Severity of the violation, or that of the rule.
        verdict: `pass`, `violation`, `inconclusive` or `not-run`.
        requirement: What the RFC requires.
        expected: The reply that is expected.
        actual: What the server did.
        counts: Whether it makes the command fail.
    """

    name: str
    id: str
    section: str
    severity: str
    verdict: str
    requirement: str
    expected: str
    actual: str
    counts: bool

    @property
    def rank(self) -> int:
        """Position of the severity, 0 for the most severe."""
        return SEVERITIES.index(self.severity)

    @property
    def mark(self) -> str:
        """The verdict as one word; a violation is named by its severity."""
        return verdict_mark(self.verdict, self.severity)


@dataclass(frozen=True, slots=True)
class SavedFinding:
    """A finding.

    Attributes:
        id: Its name within the result.
        rule: The rule that is violated.
        section: Section of the RFC.
        severity: Severity of the violation.
        requirement: What the RFC requires.
        actual: What the server did.
        reproducibility: How often it was seen again.
        hits: How many cases led to it.
        file: The scenario that replays it; the file of the result where there is none.
        file_name: The same as the result has it; empty where there is none.
        dialogue: Lines of the session, `C: …` and `S: …`.
        repeat: The command that replays it.
        known: Whether it is in the baseline.
        counts: Whether it makes the command fail.
        key: What the same finding of another day has in common with it: rule and cause, but no time, port or random data.
        death: How the server died of it; None if it did not, or if nothing is known.
        log_lines: Lines that appeared in the server's log meanwhile, without those that the death quotes.
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
    file_name: str
    dialogue: Sequence[str]
    repeat: str
    known: bool
    counts: bool
    key: str
    death: SavedDeath | None = None
    log_lines: Sequence[SavedLogLine] = ()

    @property
    def evidence(self) -> list[str]:
        """What the server's processes and its log say, as lines: how it died, its last output, lines of its log."""
        lines = []
        if self.death is not None:
            lines.append(f"death: {self.death.text}")
            lines += [f"{name}: {value}" for name, value in self.death.details]
            lines += [f"output: {line}" for line in self.death.output]
        return [*lines, *(f"log: {line.quoted}" for line in self.log_lines)]

    @property
    def level(self) -> str:
        """The finding on the scale of formats that have three levels: `error` if it makes the command fail."""
        if self.counts:
            return "error"
        return LEVELS[self.severity] if self.known or LEVELS[self.severity] != "error" else "warning"


class FuzzCases(NamedTuple):
    """The cases of a fuzzing campaign.

    Attributes:
        generated: Cases that were generated.
        run: Cases that ran.
        suspects: Further cases that may have crashed the target.
        retried: How often a case ran again, because the server had refused it.
        given_up: Cases that the server refused each time.
        connections_lowest: Cases that ran at the same time when the server refused most.
        refusal: How it refused.
        interrupted: Cases that were ended because the time was up.
        not_repeated: Findings that were not repeated as often as usual, because the time was up.
        not_shrunk: Findings that were repeated and not shrunk, because the time was up.
    """

    generated: int
    run: int
    suspects: int
    interrupted: int = 0
    not_repeated: int = 0
    not_shrunk: int = 0
    retried: int = 0
    given_up: int = 0
    connections_lowest: int = 0
    refusal: str = ""

    @property
    def notes(self) -> list[str]:
        """What a reader of the findings should know: what was refused, and what the campaign had no time for."""
        notes = []
        if self.retried or self.given_up:
            fewest = plural(self.connections_lowest, "connection")
            again = f"ran again {plural(self.retried, 'time')}, on as few as {fewest}"
            given_up = f"; {plural(self.given_up, 'case')} given up, not counted as run" if self.given_up else ""
            notes.append(f"cases that the server refused ({self.refusal}) {again}{given_up}")
        missing = [
            f"{plural(count, noun)} not {done}"
            for count, noun, done in (
                (self.interrupted, "case", "run to the end"),
                (self.not_repeated, "finding", "repeated"),
                (self.not_shrunk, "finding", "shrunk"),
            )
            if count
        ]
        return [*notes, f"{', '.join(missing)}: the time was up"] if missing else notes


class CrashCandidate(NamedTuple):
    """A further case that may have crashed the target.

    Attributes:
        file_name: Its file, relative to the result.
        last_sent: The octets that it sent last.
    """

    file_name: str
    last_sent: str


def verdict_mark(verdict: str, severity: str) -> str:
    """Return a verdict as one word, in capitals for a severe violation."""
    if verdict == VIOLATED:
        return _BROKEN_MARKS.get(severity, _BROKEN_MARKS[VIOLATION])
    return _MARKS.get(verdict, verdict)


def counts_against(verdict: str, severity: str, strict: bool) -> bool:
    """Return whether a verdict makes the command fail: a warning never does, and advice only with `--strict`."""
    return verdict == VIOLATED and fails_command(severity, strict=strict)


def section_order(section: str) -> tuple[int, list[int]]:
    """Return the key that sorts sections: RFC 5321 first, then the others by number."""
    rfc, _, part = section.removeprefix("RFC ").partition(" ")
    numbers = [int(piece) if piece.isdecimal() else _APPENDIX for piece in part.lstrip("§").split(".") if piece]
    return (0 if rfc == "5321" else int(rfc) if rfc.isdecimal() else 0, numbers)


def read_severity(value: object) -> str:
    """Return a severity; `violation` where it is not a known one."""
    return value if isinstance(value, str) and value in SEVERITIES else VIOLATION


def rules_of(saved: Saved) -> list[SavedVerdict]:
    """Return the verdict on every rule, in the order of the result, those that did not run included."""
    holder = _holder(saved)
    strict = holder.get("strict") is True
    found = []
    for name, value in items(holder.get("rules")):
        data = mapping(value)
        verdict, severity = text(data.get("verdict")), read_severity(data.get("severity"))
        number, section, requirement, expected, actual = (
            text(data.get(key)) for key in ("id", "section", "requirement", "expected", "actual")
        )
        verdict = verdict if verdict in _STATUSES else NOT_RUN
        counts = counts_against(verdict, severity, strict)
        found.append(SavedVerdict(name, number, section, severity, verdict, requirement, expected, actual, counts))
    return found


def violated_first(rules: Sequence[Mapping[str, SavedVerdict]]) -> list[str]:
    """Return the names of the rules of several results: first those that are violated, the most severe first."""
    names = list(dict.fromkeys(name for one in rules for name in one))

    def rank(name: str) -> int:
        ranks = [one[name].rank for one in rules if name in one and one[name].verdict == VIOLATED]
        return min(ranks, default=len(SEVERITIES))

    return sorted(names, key=rank)


def verdicts_of(saved: Saved) -> list[SavedVerdict]:
    """Return the verdict on every rule that ran, the most severe first."""
    return sorted((rule for rule in rules_of(saved) if rule.verdict != NOT_RUN), key=lambda rule: (rule.rank, rule.name))


def unverified_of(saved: Saved) -> list[SavedVerdict]:
    """Return the rules of which nothing is known, in the order of the result: not tried, or inconclusive."""
    return [rule for rule in rules_of(saved) if rule.verdict in (INCONCLUSIVE, NOT_RUN)]


def recorded_findings_of(saved: Saved, limit: int = MAX_ENTRIES) -> list[SavedFinding]:
    """Return the first findings of a result, the most severe first."""
    holder = _holder(saved)
    rules = {rule.name: rule for rule in rules_of(saved)}
    strict = holder.get("strict") is True
    found = [_finding(saved, entry, rules, strict) for entry in records(holder.get("findings"))]
    return sorted(found, key=lambda one: (one.known, SEVERITIES.index(one.severity)))[:limit]


def finding_count_of(saved: Saved) -> int:
    """Return the number of recorded findings."""
    return len(entries(_holder(saved).get("findings")))


def findings_of(saved: Saved) -> list[SavedFinding]:
    """Return all findings, the most severe first; a rule that is violated without a recorded finding is one as well."""
    found = recorded_findings_of(saved)
    recorded = {finding.rule for finding in found}
    found += [
        _unrecorded(saved, verdict)
        for verdict in verdicts_of(saved)
        if verdict.verdict == VIOLATED and verdict.name not in recorded
    ]
    return sorted(found, key=lambda one: (one.known, SEVERITIES.index(one.severity), one.rule, one.id))


def findings_by_rule(saved: Saved) -> dict[str, list[SavedFinding]]:
    """Return the findings by rule; every rule that is violated has at least one."""
    found: dict[str, list[SavedFinding]] = {}
    for finding in findings_of(saved):
        found.setdefault(finding.rule, []).append(finding)
    return found


def cases_of(saved: Saved) -> FuzzCases:
    """Return the cases of a fuzzing campaign."""
    cases = mapping(saved.result, "cases")

    def count(name: str) -> int:
        return natural(cases.get(name))

    return FuzzCases(
        count("generated"), count("run"), count("may_have_killed_it"), count("interrupted"), count("not_repeated"),
        count("not_shrunk"), count("retried"), count("given_up"), count("connections_lowest"), text(cases.get("refusal")),
    )  # fmt: skip


def crash_candidates_of(saved: Saved) -> list[CrashCandidate]:
    """Return the further cases that may have crashed the target, the likeliest first."""
    found = records(saved.result.get("candidates")) if saved.kind == FUZZ else []
    return [CrashCandidate(text(entry.get("file")), text(entry.get("last_sent"))) for entry in found]


def candidates_text(saved: Saved) -> str:
    """Return how many further cases may have crashed the target, and where they are; empty without any."""
    count = cases_of(saved).suspects
    listed = "" if crash_candidates_of(saved) else ": see candidates/"  # older results have no list
    return f"{plural(count, 'more case')} may have crashed it{listed}" if count else ""


def peer_of(saved: Saved) -> str:
    """Return the server that a fuzzing campaign compared its target with; empty where there was none."""
    return text(saved.result.get("peer"))


def families_of(saved: Saved) -> list[str]:
    """Return the mutation families of a fuzzing campaign."""
    return texts(saved.result.get("families"))


def _holder(saved: Saved) -> Mapping[str, Any]:
    """The part of a result that holds rules and findings."""
    if saved.kind == RUN:
        return mapping(saved.result, "hostile")
    return saved.result if saved.kind in (CHECK, FUZZ) else {}


def _unrecorded(saved: Saved, verdict: SavedVerdict) -> SavedFinding:
    return SavedFinding(
        id=verdict.name,
        rule=verdict.name,
        section=verdict.section,
        severity=verdict.severity,
        requirement=verdict.requirement,
        actual=verdict.actual,
        reproducibility="",
        hits=1,
        file=saved.path,
        file_name="",
        dialogue=(),
        repeat="",
        known=False,
        counts=verdict.counts,
        key=verdict.name,
    )


def _finding(saved: Saved, entry: Mapping[str, Any], rules: Mapping[str, SavedVerdict], strict: bool) -> SavedFinding:
    name, severity, known = text(entry.get("rule")) or "?", read_severity(entry.get("severity")), entry.get("known") is True
    verdict, registered = rules.get(name), BY_NAME.get(name)
    cause, reproducibility = text(entry.get("cause")), text(entry.get("reproducibility"))
    death = read_death(entry["death"]) if isinstance(entry.get("death"), Mapping) else None
    quoted = set(death.output) if death is not None else set()
    return SavedFinding(
        id=text(entry.get("id")) or name,
        rule=name,
        section=verdict.section if verdict else registered.section if registered else "",
        severity=severity,
        requirement=verdict.requirement if verdict else registered.requirement if registered else "",
        actual=text(entry.get("actual")),
        reproducibility=reproducibility,
        hits=max(1, natural(entry.get("hits"))),
        file=_file(saved, entry.get("file")),
        file_name=text(entry.get("file")),
        dialogue=texts(entry.get("dialogue")),
        repeat=text(entry.get("repeat")),
        known=known,
        counts=fails_command(severity, strict=strict, reproducibility=reproducibility, known=known),
        key=f"{name}\n{cause}" if cause else name,
        death=death,
        log_lines=[line for line in read_log_lines(entry.get("log_lines")) if line.text not in quoted],
    )


def _file(saved: Saved, value: object) -> Path:
    """A finding's file; a name that leads out of the folder of the result is ignored."""
    usable = isinstance(value, str) and safe(value) == value and len(value) < _MAX_PATH
    named = PurePosixPath(value) if usable and isinstance(value, str) else PurePosixPath()
    inside = named.parts and not named.is_absolute() and ".." not in named.parts
    return saved.folder / named if inside else saved.path
