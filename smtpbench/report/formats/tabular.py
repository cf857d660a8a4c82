"""Figures for other programs: a CSV of latencies, and JSON Lines of everything.

CSV is for spreadsheets, which calculate what begins with `=`, `+`, `-` or `@`: a text that does has an apostrophe before it
(OWASP, CSV Injection).

In JSON Lines every line is an object whose `result` says whose it is, and whose `record` what: result, figure, count,
latency, phase, threshold, rule, finding, difference, rule_difference, step or note.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from smtpbench.errors import UsageError
from smtpbench.measure.files import csv_line
from smtpbench.measure.saved import Saved
from smtpbench.report.reading import findings as judged
from smtpbench.report.reading import metrics as facts
from smtpbench.report.reading.metrics import STATISTICS, Head
from smtpbench.report.reading.sections import instant_text, words

#: Units stand in the names. rate_per_s: of a step of a search for capacity; expected: of the replies.
COLUMNS: Final = (
    "result", "kind", "started", "scenario", "target", "rate_per_s", "slot", "time", "expected", "count", *STATISTICS,
)  # fmt: skip
#: What a spreadsheet takes for the beginning of a formula; the wide ones it takes for the narrow ones.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def csv_table(saved: Sequence[Saved]) -> str:
    """A row a result, slot and time; of a search for capacity a row a step. Raises UsageError where there is none."""
    rows = [row for head, one in facts.heads(saved) for row in _rows(head, one)]
    if not rows:
        raise UsageError("no row for a CSV: none of these results holds latencies; JSON Lines hold whatever there is")
    return "".join(csv_line(row) for row in [COLUMNS, *rows])


def _rows(head: Head, saved: Saved) -> Iterator[tuple[object, ...]]:
    about = [_cell(text) for text in (head.label, head.kind, instant_text(head.started), head.scenario, head.target)]
    for one in facts.times(saved):
        figures = (_decimal(one.ms[statistic]) for statistic in STATISTICS)
        yield (*about, "", _cell(one.slot), one.time, "yes" if one.ok else "no", one.samples, *figures)
    for step in facts.steps(saved):
        ms = {"p50_ms": step.p50_ms, "p99_ms": step.p99_ms, "max_ms": step.max_ms}
        figures = (_decimal(ms.get(statistic)) for statistic in STATISTICS)
        yield (*about, _decimal(step.rate_per_s), "message", "response", "yes", step.counts["accepted"], *figures)


def _cell(text: str) -> str:
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")


def json_lines(saved: Sequence[Saved]) -> str:
    """An object a line; of each result `result` comes first."""
    lines = []
    for head, one in facts.heads(saved):
        for record, data in _records(head, one):
            lines.append(json.dumps({"record": record, "result": head.label, **data}, allow_nan=False))
    return "".join(f"{line}\n" for line in lines)


def _records(head: Head, saved: Saved) -> Iterator[tuple[str, dict[str, Any]]]:
    about = head._asdict()
    del about["label"]
    yield "result", {**about, "started": instant_text(head.started), "path": words(str(saved.path))}
    for figure in facts.figures(saved):
        yield "figure", {"name": figure.name, "value": figure.value}
    for names in ("messages", "recipients", "replies", "errors"):
        for path, count in facts.counts(saved, names).items():
            yield "count", {"of": names, "name": ".".join(path), "count": count}
    for times in facts.times(saved):
        yield "latency", {
            "slot": times.slot, "time": times.time, "expected": times.ok, "count": times.samples, **times.ms,
        }  # fmt: skip
    for phase in facts.phases(saved):
        yield "phase", phase._asdict()
    for limit in facts.limits(saved):
        yield "threshold", limit._asdict()
    for ruling in judged.verdicts(saved):
        data = ruling._asdict()
        yield "rule", {"rule": data.pop("name"), **data}
    for found in judged.findings(saved):
        yield "finding", {
            "id": found.id, "rule": found.rule, "section": found.section, "severity": found.severity,
            "actual": found.actual, "reproducibility": found.reproducibility, "hits": found.hits,
            "file": words(str(found.file)), "dialogue": list(found.dialogue), "repeat": found.repeat,
            "known": found.known, "counts": found.counts,
        }  # fmt: skip
    for shift in facts.shifts(saved):
        yield "difference", shift._asdict()
    for rule in facts.broken_differently(saved):
        data = rule._asdict()
        yield "rule_difference", {"rule": data.pop("name"), **data}
    for step in facts.steps(saved):
        yield "step", {**step._asdict(), "limits": [limit._asdict() for limit in step.limits]}
    for note in facts.notes(saved):
        yield "note", {"text": note}
