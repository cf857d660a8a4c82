"""A comparison on the console: the candidates, each metric's change with its interval, and rules they break differently.

It is made from the result alone. Text of a server or a file is escaped once more before it is shown. Columns are as wide as
their content, so that nothing is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smtpbench.measure.comparison import CANNOT_TELL, NO_DIFFERENCE
from smtpbench.measure.saved import COMPARISON, Saved
from smtpbench.report.reading.comparison import (
    ComparedMetric,
    candidates_of,
    compared_metrics_of,
    compared_rules_of,
    has_compared_rules,
    schedule_of,
    title_of,
)
from smtpbench.report.reading.findings import BROKEN_MARKS
from smtpbench.report.reading.formatting import MISSING
from smtpbench.report.reading.verdict import further_notes_of
from smtpbench.report.terminal.scorecard import mark
from smtpbench.report.terminal.screen import cells, padded, styled
from smtpbench.rules.rule import NOT_RUN
from smtpbench.text import plural
from smtpbench.threshold import format_value

_BOLD, _GREEN, _RED, _YELLOW, _PLAIN = "1", "32", "31", "33", ""
#: Least widths, which line up comparisons with short names.
_METRIC_CELLS = 16
_VALUE_CELLS = 10
_CHANGE_CELLS = 22


def comparison_table(result: Mapping[str, Any], *, color: bool = False) -> str:
    """Return the report of a comparison, a line for each metric. color: whether to use ANSI escapes."""
    saved = Saved(COMPARISON, dict(result), Path())
    schedule = schedule_of(saved)
    lines = [styled(title_of(saved)[0], _BOLD if color else _PLAIN)]
    for side in candidates_of(saved):
        about = ", ".join(text for text in (side.options, side.about) if text)
        lines.append(f"  {side.name}: {side.target.url}  {side.target.banner}" + (f"  ({about})" if about else ""))
    if schedule.paired:
        run_s = MISSING if schedule.duration_s is None else f"{schedule.duration_s:.1f}"
        extent = f"{plural(schedule.repeats_done, 'round')} in turns, {run_s} s a run"
    else:
        extent = f"{plural(schedule.repeats_done, 'value')} a side"
    confidence = MISSING if schedule.confidence is None else f"{schedule.confidence:.0%}"
    lines.append(f"{extent}; all intervals hold together with {confidence} confidence")
    if not schedule.paired:
        lines.append(schedule.method)
    metrics = compared_metrics_of(saved)
    for candidate, baseline in dict.fromkeys((metric.candidate, metric.baseline) for metric in metrics):
        own = [metric for metric in metrics if (metric.candidate, metric.baseline) == (candidate, baseline)]
        lines += ["", *_changes(candidate, baseline, own, color)]
    lines += _rules(saved, color)
    lines += [f"note: {note}" for note in further_notes_of(saved)]
    return "\n".join(lines)


def _changes(candidate: str, baseline: str, metrics: Sequence[ComparedMetric], color: bool) -> list[str]:
    """Return the table of one candidate against its baseline."""
    names = [metric.metric for metric in metrics]
    values = [
        [_value(metric, metric.baseline_value) for metric in metrics],
        [_value(metric, metric.candidate_value) for metric in metrics],
    ]
    changes = [metric.change_text for metric in metrics]
    name_cells = _width(_METRIC_CELLS, names)
    value_cells = [
        _width(_VALUE_CELLS, [head, *texts], gap=1) for head, texts in zip((baseline, candidate), values, strict=True)
    ]
    change_cells = _width(_CHANGE_CELLS, changes)
    heads = "".join(_right(head, width) for head, width in zip((baseline, candidate), value_cells, strict=True))
    lines = [f"{padded('median', name_cells)}{heads}  {candidate} against {baseline}"]
    for metric, name, before, after, change in zip(metrics, names, *values, changes, strict=True):
        verdict = metric.verdict
        changed = _RED if metric.worse else _GREEN
        style = {NO_DIFFERENCE: _PLAIN, CANNOT_TELL: _YELLOW}.get(verdict, changed)
        figures = "".join(_right(text, width) for text, width in zip((before, after), value_cells, strict=True))
        shown = styled(verdict, style if color else _PLAIN)
        lines.append(f"{padded(name, name_cells)}{figures}  {padded(change, change_cells)} {shown}")
    return lines


def _value(metric: ComparedMetric, value: float | None) -> str:
    return "-" if value is None else format_value(metric.unit, value)


def _rules(saved: Saved, color: bool) -> list[str]:
    if not has_compared_rules(saved):
        return []
    rules = compared_rules_of(saved)
    if not rules:
        return ["", "All candidates break the same rules."]
    candidates = list(rules[0].verdicts)
    names = [rule.name for rule in rules]
    marks = [[mark(rule.verdicts.get(name, NOT_RUN), rule.severity) for rule in rules] for name in candidates]
    title = "rules broken by some"
    name_cells = _width(_METRIC_CELLS, [title, *names])
    widths = [_width(_VALUE_CELLS, [name, *column], gap=1) for name, column in zip(candidates, marks, strict=True)]
    heads = "".join(_right(name, width) for name, width in zip(candidates, widths, strict=True))
    lines = ["", f"{padded(title, name_cells)}{heads}"]
    for name, *row in zip(names, *marks, strict=True):
        columns = "".join(
            styled(_right(shown, width), _RED if color and shown in BROKEN_MARKS and shown.isupper() else _PLAIN)
            for shown, width in zip(row, widths, strict=True)
        )
        lines.append(f"{padded(name, name_cells)}{columns}")
    return lines


def _width(least: int, texts: Iterable[str], gap: int = 0) -> int:
    return max([least, *(cells(text) + gap for text in texts)])


def _right(text: str, width: int) -> str:
    return " " * (width - cells(text)) + text
