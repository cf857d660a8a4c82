"""A comparison on a terminal: who was compared, what differs and how sure that is, and which rules they break differently.

Made from the result alone; what a server or a file said is made safe once more before it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from smtpbench.measure.comparison import CANNOT_TELL, NONE, worse
from smtpbench.report.terminal.scorecard import mark
from smtpbench.report.terminal.tables import cells, cut, safe, styled
from smtpbench.threshold import format_value

_BOLD, _GREEN, _RED, _YELLOW, _PLAIN = "1", "32", "31", "33", ""
_NAME_CELLS = 24
_METRIC_CELLS = 16
_VALUE_CELLS = 10
_INTERVAL_CELLS = 23


def comparison_table(result: Mapping[str, Any], *, color: bool = False) -> str:
    """The comparison, a line a figure. color: with ANSI escapes."""
    plan, outcome = result["plan"], result["outcome"]
    ending = "" if outcome["status"] == "completed" else f"   {safe(outcome['status']).upper()}"
    lines = [styled(f"{safe(result['name'])}{ending}", _BOLD if color else _PLAIN)]
    for side in result["candidates"]:
        about = ", ".join(safe(side[key]) for key in ("options", "about") if side.get(key))
        target = f"{safe(side['target']['url'])}  {safe(side['target']['banner'])}"
        lines.append(f"  {cut(safe(side['name']), _NAME_CELLS)}: {target}" + (f"  ({about})" if about else ""))
    if plan["paired"]:
        how = f"{plan['repeats_done']} rounds in turns, {plan['duration_s']:.1f} s a run"
    else:
        how = f"{plan['repeats_done']} values a side"
    lines.append(f"{how}; all intervals together hold with {plan['confidence']:.0%}")
    if not plan["paired"]:
        lines.append(safe(plan["method"]))
    if outcome["reason"]:
        lines.append(f"ended: {safe(outcome['reason'])}")
    one = ""
    for entry in result["differences"]:
        versus = f"{safe(entry['candidate'])} against {safe(entry['baseline'])}"
        if versus != one:
            one = versus
            heads = (_padded(safe(entry[side]), _VALUE_CELLS) for side in ("baseline", "candidate"))
            lines += ["", f"{'median':<{_METRIC_CELLS}}{''.join(heads)}  {versus}"]
        lines.append(_difference(entry, color))
    lines += _rules(result, color)
    lines += [f"note: {safe(note)}" for note in result["notes"]]
    return "\n".join(lines)


def _difference(entry: Mapping[str, Any], color: bool) -> str:
    values = "".join(_padded(_value(entry, entry[f"{side}_value"]), _VALUE_CELLS) for side in ("baseline", "candidate"))
    word = entry["verdict"]
    style = _PLAIN if word == NONE else _YELLOW if word == CANNOT_TELL else _RED if worse(entry) else _GREEN
    interval = f"  {change_text(entry):<{_INTERVAL_CELLS - 1}} "
    return f"{cut(safe(entry['metric']), _METRIC_CELLS):<{_METRIC_CELLS}}{values}{interval}" + styled(
        word, style if color else ""
    )


def _value(entry: Mapping[str, Any], value: float | None) -> str:
    return "-" if value is None else format_value(entry["unit"], value)


def change_text(entry: Mapping[str, Any]) -> str:
    """`-11.2 % [-13.0 … -9.4]`: an entry of `differences` with its interval; points of a percentage for shares."""
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
    found = result["rule_differences"]
    if not found:
        return ["", "They break the same rules."]
    names = list(found[0]["verdicts"])
    heads = "".join(_padded(safe(name), _VALUE_CELLS) for name in names)
    lines = ["", f"{'broken differently':<{_METRIC_CELLS}}{heads}"]
    for entry in found:
        words = [mark({"verdict": entry["verdicts"][name], "severity": entry["severity"]}) for name in names]
        row = "".join(
            styled(_padded(word, _VALUE_CELLS), _RED if color and word in ("SECURITY", "VIOLATION") else _PLAIN)
            for word in words
        )
        lines.append(f"{cut(safe(entry['rule']), _METRIC_CELLS):<{_METRIC_CELLS}}{row}")
    return lines


def _padded(text: str, width: int) -> str:
    text = cut(text, width - 1)
    return " " * (width - cells(text)) + text
