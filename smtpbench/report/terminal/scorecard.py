"""The reports of `check` and `fuzz` on the console, from results in which all server text is escaped already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from smtpbench.text import plural

_MARKS = {"pass": "pass", "violation": "VIOLATION", "inconclusive": "?", "not-run": "-"}
#: Mark → its nouns in the totals, singular and plural, where they differ from the mark.
_TOTALS = {
    "pass": ("passed", "passed"),
    "?": ("inconclusive", "inconclusive"),
    "VIOLATION": ("VIOLATION", "VIOLATIONS"),
    "warning": ("warning", "warnings"),
}
_COLORS = {"pass": "32", "VIOLATION": "31;1", "SECURITY": "31;1;7", "warning": "33", "advice": "33", "?": "36"}


def mark(rule: Mapping[str, str]) -> str:
    """Return one word for the verdict on a rule."""
    verdict, severity = rule["verdict"], rule["severity"]
    if verdict != "violation":
        return _MARKS.get(verdict, verdict)
    return {"security": "SECURITY", "warning": "warning", "advice": "advice"}.get(severity, "VIOLATION")


def counts_against(rule: Mapping[str, str], strict: bool) -> bool:
    """Return whether a rule fails a build: warnings never do, recommendations (SHOULD) only in strict mode."""
    severities = ("security", "violation", "advice") if strict else ("security", "violation")
    return rule["verdict"] == "violation" and rule["severity"] in severities


def scorecard(result: Mapping[str, Any], *, color: bool) -> str:
    """Return every rule that was checked, by RFC section, then each violation with its dialogue."""
    target = result["target"]
    lines = [f"{target['url']}  {target['banner']}"]
    checked = {name: rule for name, rule in result["rules"].items() if rule["verdict"] != "not-run"}
    section = ""
    for name, rule in sorted(checked.items(), key=lambda item: (section_order(item[1]["section"]), item[1]["id"])):
        if rule["section"] != section:
            section = rule["section"]
            lines.append(f"\n{section}")
        verdict = mark(rule)
        lines.append(f"  {_colored(f'{verdict:<10}', verdict, color)} {name:<20} {rule['actual']}".rstrip())
    for finding in result["findings"]:
        lines += ["", *_finding(finding, result["rules"][finding["rule"]], color)]
    totals = Counter(mark(rule) for rule in checked.values())
    lines += [
        "",
        ", ".join(plural(count, *_TOTALS.get(verdict, (verdict, verdict))) for verdict, count in totals.most_common()),
    ]
    return "\n".join(lines)


def findings_card(result: Mapping[str, Any], *, color: bool) -> str:
    """Return the findings of a fuzzing campaign, the most severe first, and what the campaign did."""
    target, cases = result["target"], result["cases"]
    lines = [f"{target['url']}  {target['banner']}"]
    for finding in result["findings"]:
        lines += ["", *_finding(finding, result["rules"][finding["rule"]], color)]
        lines.append(f"  seen:     {plural(finding['hits'], 'time')}" + ("; in the baseline" if finding["known"] else ""))
    if target["gone"]:
        others = cases["may_have_killed_it"]
        lines += [
            "",
            "The target no longer answers."
            + (f" {plural(others, 'more case')} may have crashed it: see candidates/." if others else ""),
        ]
    cpu_s = result["generator"]["cpu_s"]
    lines += [
        "",
        f"{plural(cases['run'], 'case')} run, {plural(len(result['findings']), 'finding')}, seed {result['seed']}, "
        f"{cpu_s:.1f} s of CPU",
    ]
    return "\n".join(lines)


def matrix(results: Sequence[Mapping[str, Any]], *, color: bool) -> str:
    """Return a table of rules by targets, of the rules that were checked."""
    heads = [chr(ord("A") + at) for at in range(len(results))]
    lines = [f"{head}: {result['target']['url']}  {result['target']['banner']}"
             for head, result in zip(heads, results, strict=True)]  # fmt: skip
    lines += ["", " " * 22 + "".join(f"{head:<11}" for head in heads)]
    for name in results[0]["rules"]:
        verdicts = [mark(result["rules"][name]) for result in results]
        if set(verdicts) != {"-"}:
            cells = "".join(_colored(f"{verdict:<11}", verdict, color) for verdict in verdicts)
            lines.append(f"{name:<22}{cells}".rstrip())
    return "\n".join(lines)


def _finding(finding: Mapping[str, Any], rule: Mapping[str, str], color: bool) -> list[str]:
    verdict = mark(rule)
    return [
        f"{_colored(verdict, verdict, color)} {finding['rule']} ({rule['section']})",
        f"  required: {rule['requirement']}",
        f"  actual:   {finding['actual']}  ({finding['reproducibility']})",
        *(f"    {line}" for line in finding["dialogue"]),
        f"  repeat:   {finding['repeat']}",
    ]


def section_order(section: str) -> tuple[int, list[int]]:
    """Return the key that sorts sections: RFC 5321 first, then the others by number."""
    rfc, _, part = section.removeprefix("RFC ").partition(" ")
    numbers = [int(piece) for piece in part.lstrip("§").split(".") if piece.isdecimal()]
    return (0 if rfc == "5321" else int(rfc) if rfc.isdecimal() else 0, numbers)


def _colored(text: str, verdict: str, color: bool) -> str:
    return f"\x1b[{_COLORS[verdict]}m{text}\x1b[0m" if color and verdict in _COLORS else text
