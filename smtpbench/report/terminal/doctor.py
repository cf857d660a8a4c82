"""What `doctor` found, for the terminal: a line for each thing, and below it what follows and what to do."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

from smtpbench.text import visible

WIDTH = 80
_COLORS = {"ok": "32", "unknown": "36", "warn": "33", "bad": "1;31"}
_WORDS = {"unknown": "?"}
_NAME_CELLS = 20
_INDENT = " " * (8 + _NAME_CELLS)


def examination(report: Mapping[str, Any], *, color: bool) -> str:
    """Everything that was looked at; what is well in few words, what is not with what to do."""
    lines: list[str] = []
    for of, title in (("machine", _machine(report["machine"])), ("target", str(report["target"] or ""))):
        checks = [check for check in report["checks"] if check["of"] == of]
        if checks:
            lines += [*([""] if lines else []), _safe(title)]
            for check in checks:
                lines += _check(check, color=color)
    counts = Counter(check["verdict"] for check in report["checks"])
    told = {"bad": "bad", "warn": "to be minded", "unknown": "not to be told", "ok": "well"}
    lines += ["", ", ".join(f"{counts[verdict]} {words}" for verdict, words in told.items() if counts[verdict])]
    return "\n".join(lines)


def _machine(machine: Mapping[str, Any]) -> str:
    return ", ".join(part for part in (machine["cpu"], machine["kernel"]) if part)


def _check(check: Mapping[str, Any], *, color: bool) -> list[str]:
    verdict = str(check["verdict"])
    mark = f"{_WORDS.get(verdict, verdict):<4}"
    style = _COLORS.get(verdict, "") if color else ""
    mark = f"\x1b[{style}m{mark}\x1b[0m" if style else mark
    first, *more = _wrapped(check["value"])
    lines = [f"  {mark}  {_safe(check['name']):<{_NAME_CELLS}}{first}", *more]
    if check["limits"]:
        lines += _wrapped(check["limits"], indented=True)
    if check["advice"]:
        lines += _wrapped(f"→ {check['advice']}", indented=True)
    return lines


def _wrapped(text: Any, *, indented: bool = False) -> list[str]:
    """The text in the right-hand column; its first line has no indent unless it stands by itself."""
    rows = textwrap.wrap(_safe(text), WIDTH - len(_INDENT), break_on_hyphens=False) or [""]
    return [row if at == 0 and not indented else _INDENT + row for at, row in enumerate(rows)]


def _safe(text: Any) -> str:
    # text of a server's is visible already, its backslashes doubled; see report.console
    return visible(str(text), 10_000).replace("\\\\", "\\")
