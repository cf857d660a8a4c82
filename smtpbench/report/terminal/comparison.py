"""A comparison on the console: the candidates, each metric's change with its interval, and rules they break differently.

It is made from the result alone. Text of a server or a file is escaped once more before it is shown. Columns are as wide as
their content, so that nothing is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smtpbench.measure.comparison import CANNOT_TELL, NONE, worse
from smtpbench.report.terminal.scorecard import mark
from smtpbench.report.terminal.tables import cells, padded, safe, styled
from smtpbench.text import plural
from smtpbench.threshold import format_value

_BOLD, _GREEN, _RED, _YELLOW, _PLAIN = "1", "32", "31", "33", ""
#: Least widths, which line up comparisons with short names.
_METRIC_CELLS = 16
_VALUE_CELLS = 10
_CHANGE_CELLS = 22


def comparison_table(result: Mapping[str, Any], *, color: bool = False) -> str:
    """Return the report of a comparison, a line for each metric. color: whether to use ANSI escapes."""
    plan, outcome = result["plan"], result["outcome"]
    ending = "" if outcome["status"] == "completed" else f"   {safe(outcome['status']).upper()}"
    lines = [styled(f"{safe(result['name'])}{ending}", _BOLD if color else _PLAIN)]
    for candidate in result["candidates"]:
        about = ", ".join(safe(candidate[key]) for key in ("options", "about") if candidate.get(key))
        target = f"{safe(candidate['target']['url'])}  {safe(candidate['target']['banner'])}"
        lines.append(f"  {safe(candidate['name'])}: {target}" + (f"  ({about})" if about else ""))
    if plan["paired"]:
        extent = f"{plural(plan['repeats_done'], 'round')} in turns, {plan['duration_s']:.1f} s a run"
    else:
        extent = f"{plural(plan['repeats_done'], 'value')} a side"
    lines.append(f"{extent}; all intervals hold together with {plan['confidence']:.0%} confidence")
    if not plan["paired"]:
        lines.append(safe(plan["method"]))
    if outcome["reason"]:
        lines.append(f"ended: {safe(outcome['reason'])}")
    entries = result["differences"]
    pairs = dict.fromkeys((entry["candidate"], entry["baseline"]) for entry in entries)
    for candidate, baseline in pairs:
        own = [entry for entry in entries if (entry["candidate"], entry["baseline"]) == (candidate, baseline)]
        lines += ["", *_changes(safe(candidate), safe(baseline), own, color)]
    lines += _rules(result, color)
    lines += [f"note: {safe(note)}" for note in result["notes"]]
    return "\n".join(lines)


def _changes(candidate: str, baseline: str, entries: Sequence[Mapping[str, Any]], color: bool) -> list[str]:
    """Return the table of one candidate against its baseline."""
    names = [safe(entry["metric"]) for entry in entries]
    values = [[_value(entry, entry[f"{side}_value"]) for entry in entries] for side in ("baseline", "candidate")]
    changes = [change_text(entry) for entry in entries]
    name_cells = _width(_METRIC_CELLS, names)
    value_cells = [
        _width(_VALUE_CELLS, [head, *texts], gap=1) for head, texts in zip((baseline, candidate), values, strict=True)
    ]
    change_cells = _width(_CHANGE_CELLS, changes)
    heads = "".join(_right(head, width) for head, width in zip((baseline, candidate), value_cells, strict=True))
    lines = [f"{padded('median', name_cells)}{heads}  {candidate} against {baseline}"]
    for entry, name, before, after, change in zip(entries, names, *values, changes, strict=True):
        verdict = entry["verdict"]
        style = _PLAIN if verdict == NONE else _YELLOW if verdict == CANNOT_TELL else _RED if worse(entry) else _GREEN
        figures = "".join(_right(text, width) for text, width in zip((before, after), value_cells, strict=True))
        shown = styled(safe(verdict), style if color else _PLAIN)
        lines.append(f"{padded(name, name_cells)}{figures}  {padded(change, change_cells)} {shown}")
    return lines


def _value(entry: Mapping[str, Any], value: float | None) -> str:
    return "-" if value is None else format_value(entry["unit"], value)


def change_text(entry: Mapping[str, Any]) -> str:
    """Return an entry of `differences` with its interval: `-11.2% [-13.0 … -9.4]`; percentage points for shares."""
    if entry["change"] is None:
        return ""
    if not entry["relative"] and entry["unit"] != "share":
        return f"{entry['change']:+,.1f} [{entry['low']:+,.1f} … {entry['high']:+,.1f}]"
    numbers = [100 * entry[name] for name in ("change", "low", "high")]
    most = max(map(abs, numbers))
    digits = 0 if most >= 100 else 1 if most >= 1 or not most else min(6, 1 - math.floor(math.log10(most)))
    change, low, high = (f"{number:+,.{digits}f}" for number in numbers)
    return f"{change}{'%' if entry['relative'] else ' pts'} [{low} … {high}]"


def _rules(result: Mapping[str, Any], color: bool) -> list[str]:
    if not result["rules"]:
        return []
    entries = result["rule_differences"]
    if not entries:
        return ["", "All candidates break the same rules."]
    candidates = list(entries[0]["verdicts"])
    names = [safe(entry["rule"]) for entry in entries]
    marks = [
        [mark({"verdict": entry["verdicts"][name], "severity": entry["severity"]}) for entry in entries]
        for name in candidates
    ]
    title = "rules broken by some"
    name_cells = _width(_METRIC_CELLS, [title, *names])
    widths = [_width(_VALUE_CELLS, [safe(name), *column], gap=1) for name, column in zip(candidates, marks, strict=True)]
    heads = "".join(_right(safe(name), width) for name, width in zip(candidates, widths, strict=True))
    lines = ["", f"{padded(title, name_cells)}{heads}"]
    for name, *words in zip(names, *marks, strict=True):
        row = "".join(
            styled(_right(word, width), _RED if color and word in ("SECURITY", "VIOLATION") else _PLAIN)
            for word, width in zip(words, widths, strict=True)
        )
        lines.append(f"{padded(name, name_cells)}{row}")
    return lines


def _width(least: int, texts: Iterable[str], gap: int = 0) -> int:
    return max([least, *(cells(text) + gap for text in texts)])


def _right(text: str, width: int) -> str:
    return " " * (width - cells(text)) + text
