"""The report of `doctor` on the console: a line for each check, and below it what it limits and what to do."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

from smtpbench.report.terminal.screen import Screen
from smtpbench.text import plural, visible

_COLORS = {"ok": "32", "unknown": "36", "warn": "33", "bad": "1;31"}
_MARKS = {"unknown": "?"}
#: Verdict → its noun in the totals, singular and plural; the gravest first.
_TOTALS = {"bad": ("bad", "bad"), "warn": ("warning", "warnings"), "unknown": ("unknown", "unknown"), "ok": ("ok", "ok")}
_NAME_CELLS = 20
_INDENT = " " * (8 + _NAME_CELLS)


def examination(report: Mapping[str, Any], *, color: bool, screen: Screen | None = None) -> str:
    """Return the report of an examination.

    Args:
        report: What `smtpbench doctor --json` prints.
        color: Whether to use ANSI escapes.
        screen: Size to wrap long lines to; None for whole lines.
    """
    lines: list[str] = []
    for of, title in (("machine", _machine(report["machine"])), ("target", str(report["target"] or ""))):
        checks = [check for check in report["checks"] if check["of"] == of]
        if checks:
            lines += [*([""] if lines else []), _safe(title)]
            for check in checks:
                lines += _check(check, color, screen)
    counts = Counter(check["verdict"] for check in report["checks"])
    lines += ["", ", ".join(plural(counts[verdict], *nouns) for verdict, nouns in _TOTALS.items() if counts[verdict])]
    return "\n".join(lines)


def _machine(machine: Mapping[str, Any]) -> str:
    return ", ".join(part for part in (machine["cpu"], machine["kernel"]) if part)


def _check(check: Mapping[str, Any], color: bool, screen: Screen | None) -> list[str]:
    verdict = str(check["verdict"])
    mark = f"{_MARKS.get(verdict, verdict):<4}"
    style = _COLORS.get(verdict, "") if color else ""
    mark = f"\x1b[{style}m{mark}\x1b[0m" if style else mark
    first, *more = _wrapped(check["value"], screen)
    lines = [f"  {mark}  {_safe(check['name']):<{_NAME_CELLS}}{first}", *more]
    if check["limits"]:
        lines += _wrapped(check["limits"], screen, indented=True)
    if check["advice"]:
        lines += _wrapped(f"→ {check['advice']}", screen, indented=True)
    return lines


def _wrapped(text: Any, screen: Screen | None, *, indented: bool = False) -> list[str]:
    """Return the lines of a text in the right column; the first one is indented only where it stands by itself."""
    lines = [_safe(text)]
    if screen is not None:
        lines = textwrap.wrap(lines[0], screen.width - len(_INDENT), break_on_hyphens=False) or [""]
    return [line if at == 0 and not indented else _INDENT + line for at, line in enumerate(lines)]


def _safe(text: Any) -> str:
    # server text is escaped already, with its backslashes doubled; see `report.terminal.tables.safe`
    return visible(str(text), 10_000).replace("\\\\", "\\")
