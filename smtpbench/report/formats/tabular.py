"""Figures for other programs: a CSV of latencies, and JSON Lines of everything.

The CSV is for spreadsheets, which calculate a cell that begins with `=`, `+`, `-` or `@`: such a text gets an apostrophe
before it (OWASP, CSV Injection). Columns that begin with `server_` hold what the server under test used; they are the same
in all rows of a result, and those of a capacity search belong to the step.

In JSON Lines every line is an object. Its `result` names the result, and its `record` the kind of the line: result, figure,
count, latency, phase, threshold, rule, finding, difference, rule_difference, step, server, death, log_line or note.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from smtpbench.errors import UsageError
from smtpbench.measure.files import csv_line
from smtpbench.measure.saved import Saved
from smtpbench.report.reading.capacity import CapacityStep, capacity_steps_of
from smtpbench.report.reading.comparison import compared_metrics_of, compared_rules_of
from smtpbench.report.reading.findings import SavedFinding, findings_of, verdicts_of
from smtpbench.report.reading.formatting import format_instant, safe
from smtpbench.report.reading.head import Head, heads_of
from smtpbench.report.reading.metrics import (
    RESPONSE,
    STATISTICS,
    SavedThreshold,
    counts_of,
    hostile_of,
    key_figures_of,
    latencies_of,
    thresholds_of,
)
from smtpbench.report.reading.notes import all_notes_of
from smtpbench.report.reading.server import FIGURES, SavedDeath, ServerUsage, server_of

#: Columns of the CSV, with units in their names. rate_per_s is that of a step of a capacity search; expected tells whether
#: the replies were those that the scenario expects.
COLUMNS: Final = (
    "result", "kind", "started", "scenario", "target", "rate_per_s", "slot", "time", "expected", "count", *STATISTICS,
    *(f"server_{name}" for name in FIGURES),
)  # fmt: skip
#: Characters with which a formula begins; spreadsheets read the wide ones as the narrow ones.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def csv_table(several: Sequence[Saved]) -> str:
    """Return a row for each result, metric and time; of a capacity search, a row for each step.

    Raises:
        UsageError: No result holds latencies.
    """
    table_rows = [row for head, saved in heads_of(several) for row in _csv_rows(head, saved)]
    if not table_rows:
        raise UsageError("no CSV: none of these results holds latencies; use JSON Lines, which hold everything")
    return "".join(csv_line(row) for row in [COLUMNS, *table_rows])


def _csv_rows(head: Head, saved: Saved) -> Iterator[tuple[object, ...]]:
    about = [_cell(text) for text in (head.label, head.kind, format_instant(head.started), head.scenario, head.target)]
    server = server_of(saved)
    used = [_decimal(getattr(server, name, None)) for name in FIGURES]
    for latency in latencies_of(saved):
        figures = (_decimal(latency.ms[statistic]) for statistic in STATISTICS)
        expected = "yes" if latency.expected else "no"
        yield (*about, "", _cell(latency.metric), latency.time, expected, latency.samples, *figures, *used)
    for step in capacity_steps_of(saved):
        ms = {"p50_ms": step.p50_ms, "p99_ms": step.p99_ms, "max_ms": step.max_ms}
        figures = (_decimal(ms.get(statistic)) for statistic in STATISTICS)
        measured = (_decimal(step.rate_per_s), "message", "response", "yes", step.counts["accepted"])
        by_step = {"cpu_ms_per_message": step.server_cpu_ms_per_message, "cores_share": step.server_cores_share}
        yield (*about, *measured, *figures, *(_decimal(by_step.get(name)) for name in FIGURES))


def _cell(text: str) -> str:
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")


def json_lines(several: Sequence[Saved]) -> str:
    """Return one object a line; the first of each result is its `result`."""
    lines = []
    for head, saved in heads_of(several):
        for record, data in _records(head, saved):
            lines.append(json.dumps({"record": record, "result": head.label, **data}, allow_nan=False))
    return "".join(f"{line}\n" for line in lines)


def _records(head: Head, saved: Saved) -> Iterator[tuple[str, dict[str, Any]]]:
    about = head._asdict()
    del about["label"]
    yield "result", {**about, "started": format_instant(head.started), "path": safe(saved.path)}
    for figure in key_figures_of(saved):
        yield "figure", figure._asdict()
    for section in ("messages", "recipients", "replies", "errors"):
        for path, count in counts_of(saved, section).items():
            yield "count", {"of": section, "name": ".".join(path), "count": count}
    for latency in latencies_of(saved):
        yield (
            "latency",
            {
                "slot": latency.metric,
                "time": latency.time,
                "expected": latency.expected,
                "count": latency.samples,
                **latency.ms,
            },
        )
    hostile = hostile_of(saved)
    for phase in hostile.phases if hostile else ():
        message_ms = [phase.ms("message", RESPONSE)[statistic] for statistic in ("p50_ms", "p99_ms", "max_ms")]
        yield "phase", {"name": phase.name, "rate_per_s": phase.rate_per_s, "message_ms": message_ms}
    for threshold in thresholds_of(saved):
        yield "threshold", _threshold_data(threshold)
    for verdict in verdicts_of(saved):
        data = verdict._asdict()
        yield "rule", {"rule": data.pop("name"), **data}
    for finding in findings_of(saved):
        yield "finding", _finding_data(finding)
    for metric in compared_metrics_of(saved):
        yield "difference", metric._asdict()
    for rule in compared_rules_of(saved):
        data = rule._asdict()
        yield "rule_difference", {"rule": data.pop("name"), **data}
    for step in capacity_steps_of(saved):
        yield "step", _step_data(step)
    server = server_of(saved)
    if server is not None:
        yield "server", _server_data(server)
        for death in server.deaths:
            yield "death", _death_data(death)
        for line in server.log_lines:
            yield "log_line", line._asdict()
    for note in all_notes_of(saved):
        yield "note", {"text": note}


def _threshold_data(threshold: SavedThreshold) -> dict[str, Any]:
    data = threshold._asdict()
    data["said"] = data.pop("sentence")
    return data


def _server_data(server: ServerUsage) -> dict[str, Any]:
    data = server._asdict()
    for name in ("deaths", "log_lines"):
        del data[name]
    return data


def _death_data(death: SavedDeath) -> dict[str, Any]:
    return {**death._asdict(), "text": death.text}


def _finding_data(finding: SavedFinding) -> dict[str, Any]:
    evidence: dict[str, Any] = {}
    if finding.death is not None:
        evidence["death"] = _death_data(finding.death)
    if finding.log_lines:
        evidence["log_lines"] = [line._asdict() for line in finding.log_lines]
    return {
        "id": finding.id, "rule": finding.rule, "section": finding.section, "severity": finding.severity,
        "actual": finding.actual, "reproducibility": finding.reproducibility, "hits": finding.hits,
        "file": safe(finding.file), "dialogue": list(finding.dialogue), "repeat": finding.repeat,
        "known": finding.known, "counts": finding.counts, **evidence,
    }  # fmt: skip


def _step_data(step: CapacityStep) -> dict[str, Any]:
    data = step._asdict()
    data["limits"] = [_threshold_data(objective) for objective in data.pop("objectives")]
    return data
