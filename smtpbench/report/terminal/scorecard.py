"""The reports of `check` and `fuzz` on the console."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smtpbench.measure.saved import CHECK, FUZZ, Saved
from smtpbench.report.reading.findings import (
    SavedFinding,
    SavedVerdict,
    cases_of,
    crash_candidates_of,
    recorded_findings_of,
    rules_of,
    section_order,
    verdict_mark,
    violated_first,
)
from smtpbench.report.reading.formatting import MISSING, cut_text
from smtpbench.report.reading.head import generator_of, seed_of, target_of
from smtpbench.report.terminal.server import quoted_output, server_lines
from smtpbench.rules.rule import INCONCLUSIVE, NOT_RUN, PASS, SEVERITIES, VIOLATED
from smtpbench.text import plural

#: Characters of the last octets of a candidate.
_MAX_SENT = 60
#: Short marks, for narrow columns.
_MARKS = {INCONCLUSIVE: "?", NOT_RUN: "-"}
#: Mark → its nouns in the totals, singular and plural, where they differ from the mark.
_TOTALS = {
    "passed": ("passed", "passed"),
    "?": ("inconclusive", "inconclusive"),
    "CRASH": ("CRASH", "CRASHES"),
    "HANG": ("HANG", "HANGS"),
    "VIOLATION": ("VIOLATION", "VIOLATIONS"),
    "warning": ("warning", "warnings"),
}
_COLORS = {
    "passed": "32", "VIOLATION": "31;1", "CRASH": "31;1;7", "HANG": "31;1;7", "SECURITY": "31;1;7", "warning": "33",
    "advice": "33", "?": "36",
}  # fmt: skip


def mark(verdict: str, severity: str) -> str:
    """Return a verdict as one short word."""
    return _MARKS.get(verdict) or verdict_mark(verdict, severity)


def _mark_of(rule: SavedVerdict) -> str:
    return mark(rule.verdict, rule.severity)


def scorecard(result: Mapping[str, Any], *, color: bool) -> str:
    """Return every rule that was checked, by RFC section, then each violation with its dialogue."""
    saved = Saved(CHECK, dict(result), Path())
    checked = [rule for rule in rules_of(saved) if rule.verdict != NOT_RUN]
    lines = [_target(saved)]
    section = ""
    for rule in sorted(checked, key=lambda rule: (section_order(rule.section), rule.id)):
        if rule.section != section:
            section = rule.section
            lines.append(f"\n{section}")
        shown = _mark_of(rule)
        lines.append(f"  {_colored(f'{shown:<10}', shown, color)} {rule.name:<20} {rule.actual}".rstrip())
    for finding in recorded_findings_of(saved):
        lines += ["", *_finding(finding, color)]
    totals = Counter(map(_mark_of, checked))
    lines += _server(saved)
    lines += ["", ", ".join(plural(count, *_TOTALS.get(shown, (shown, shown))) for shown, count in _gravest_first(totals))]
    return "\n".join(lines)


def _gravest_first(totals: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the marks with their counts: severities, then what was inconclusive, then what passed."""
    order = [*(mark(VIOLATED, severity) for severity in SEVERITIES), _MARKS[INCONCLUSIVE], verdict_mark(PASS, "")]
    return sorted(totals.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order))


def findings_card(result: Mapping[str, Any], *, color: bool) -> str:
    """Return the findings of a fuzzing campaign, the most severe first, and what the campaign did."""
    saved = Saved(FUZZ, dict(result), Path())
    lines = [_target(saved)]
    findings = recorded_findings_of(saved)
    for finding in findings:
        lines += ["", *_finding(finding, color)]
        lines.append(f"  seen:     {plural(finding.hits, 'time')}" + ("; in the baseline" if finding.known else ""))
    cases = cases_of(saved)
    if crash_candidates_of(saved):
        lines += ["", "Cases that may have crashed the target, the likeliest first:"]
        lines += [
            f"  {candidate.file_name}  last sent: {cut_text(candidate.last_sent, _MAX_SENT)}"
            for candidate in crash_candidates_of(saved)
        ]
    lines += _server(saved)
    lines += [line for note in cases.notes for line in ("", f"{note}.")]
    cpu_s = generator_of(saved).cpu_s
    cpu = MISSING if cpu_s is None else f"{cpu_s:.1f}"
    lines += [
        "",
        f"{plural(cases.run, 'case')} run, {plural(len(findings), 'finding')}, seed {seed_of(saved)}, {cpu} s of CPU",
    ]
    return "\n".join(lines)


def _server(saved: Saved) -> list[str]:
    """The block on the server, after an empty line."""
    lines = server_lines(saved)
    return ["", *lines] if lines else []


def matrix(results: Sequence[Mapping[str, Any]], *, color: bool) -> str:
    """Return a table of rules by targets, of the rules that were checked."""
    several = [Saved(CHECK, dict(result), Path()) for result in results]
    heads = list(map(column_letter, range(len(several))))
    lines = [f"{head}: {_target(saved)}" for head, saved in zip(heads, several, strict=True)]
    lines += ["", " " * 22 + "".join(f"{head:<11}" for head in heads)]
    by_name = [{rule.name: rule for rule in rules_of(saved)} for saved in several]
    for name in violated_first(by_name):
        shown = [_mark_of(one[name]) if name in one else _MARKS[NOT_RUN] for one in by_name]
        if set(shown) != {_MARKS[NOT_RUN]}:
            columns = "".join(_colored(f"{word:<11}", word, color) for word in shown)
            lines.append(f"{name:<22}{columns}".rstrip())
    return "\n".join(lines)


def column_letter(at: int) -> str:
    """Return the head of a column of the matrix, from 0: A, B … Z, A1 …"""
    letter = chr(ord("A") + at % 26)
    return letter if at < 26 else f"{letter}{at // 26}"


def _target(saved: Saved) -> str:
    target = target_of(saved)
    return f"{target.url}  {target.banner}"


def _finding(finding: SavedFinding, color: bool) -> list[str]:
    shown = mark(VIOLATED, finding.severity)
    return [
        f"{_colored(shown, shown, color)} {finding.rule} ({finding.section})",
        f"  required: {finding.requirement}",
        f"  actual:   {finding.actual}  ({finding.reproducibility})",
        *(f"    {line}" for line in finding.dialogue),
        *_evidence(finding),
        f"  repeat:   {finding.repeat}",
    ]


def _evidence(finding: SavedFinding) -> list[str]:
    """What the server's processes and its log say on a finding."""
    lines = []
    if finding.death is not None:
        lines.append(f"  death:    {finding.death.text}")
        lines += [f"    {name}: {value}" for name, value in finding.death.details]
        lines += quoted_output(finding.death.output, "    ")
    return [*lines, *(f"  log:      {line.quoted}" for line in finding.log_lines)]


def _colored(text: str, shown: str, color: bool) -> str:
    return f"\x1b[{_COLORS[shown]}m{text}\x1b[0m" if color and shown in _COLORS else text
