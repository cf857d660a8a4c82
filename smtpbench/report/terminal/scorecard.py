"""The scorecard of `check`, for the terminal, from its result, in which all text of the server's is visible already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_MARKS = {"pass": "pass", "violation": "VIOLATION", "inconclusive": "?", "not-run": "-"}
_COLORS = {"pass": "32", "VIOLATION": "31;1", "SECURITY": "31;1;7", "warning": "33", "advice": "33", "?": "36"}


def mark(rule: Mapping[str, str]) -> str:
    """One word for what came of a rule."""
    verdict, severity = rule["verdict"], rule["severity"]
    if verdict != "violation":
        return _MARKS.get(verdict, verdict)
    return {"security": "SECURITY", "warning": "warning", "advice": "advice"}.get(severity, "VIOLATION")


def counts_against(rule: Mapping[str, str], strict: bool) -> bool:
    """Whether it makes a build fail: warnings never do, SHOULDs only if asked for."""
    severities = ("security", "violation", "advice") if strict else ("security", "violation")
    return rule["verdict"] == "violation" and rule["severity"] in severities


def scorecard(result: Mapping[str, Any], *, color: bool) -> str:
    """Every rule that was tried, by RFC section, then each violation with its dialogue."""
    target = result["target"]
    lines = [f"{target['url']}  {target['banner']}"]
    tried = {name: rule for name, rule in result["rules"].items() if rule["verdict"] != "not-run"}
    section = ""
    for name, rule in sorted(tried.items(), key=lambda item: (section_order(item[1]["section"]), item[1]["id"])):
        if rule["section"] != section:
            section = rule["section"]
            lines.append(f"\n{section}")
        word = mark(rule)
        lines.append(f"  {_colored(f'{word:<10}', word, color)} {name:<20} {rule['actual']}".rstrip())
    for finding in result["findings"]:
        lines += ["", *_finding(finding, result["rules"][finding["rule"]], color)]
    totals = Counter(mark(rule) for rule in tried.values())
    lines += ["", ", ".join(f"{count} {word if word != '?' else 'inconclusive'}" for word, count in totals.most_common())]
    return "\n".join(lines)


def findings_card(result: Mapping[str, Any], *, color: bool) -> str:
    """What a fuzzer found, the gravest first, and what it did for that."""
    target, cases = result["target"], result["cases"]
    lines = [f"{target['url']}  {target['banner']}"]
    for finding in result["findings"]:
        lines += ["", *_finding(finding, result["rules"][finding["rule"]], color)]
        lines.append(f"  met {finding['hits']:,} times" + ("; it is in the baseline" if finding["known"] else ""))
    if target["gone"]:
        others = cases["may_have_killed_it"]
        lines += [
            "",
            "The target is gone." + (f" {others} more cases may have killed it: see candidates/." if others else ""),
        ]
    cpu_s = result["generator"]["cpu_s"]
    lines += [
        "",
        f"{cases['run']:,} cases run, {len(result['findings'])} findings, seed {result['seed']}, {cpu_s:.1f} s of CPU",
    ]
    return "\n".join(lines)


def matrix(results: Sequence[Mapping[str, Any]], *, color: bool) -> str:
    """Rules by targets."""
    heads = [chr(ord("A") + at) for at in range(len(results))]
    lines = [f"{head}: {result['target']['url']}  {result['target']['banner']}"
             for head, result in zip(heads, results, strict=True)]  # fmt: skip
    lines += ["", " " * 22 + "".join(f"{head:<11}" for head in heads)]
    for name in results[0]["rules"]:
        words = [mark(result["rules"][name]) for result in results]
        if set(words) != {"-"}:
            cells = "".join(_colored(f"{word:<11}", word, color) for word in words)
            lines.append(f"{name:<22}{cells}".rstrip())
    return "\n".join(lines)


def _finding(finding: Mapping[str, Any], rule: Mapping[str, str], color: bool) -> list[str]:
    word = mark(rule)
    return [
        f"{_colored(word, word, color)} {finding['rule']} ({rule['section']})",
        f"  required: {rule['requirement']}",
        f"  seen:     {finding['actual']}  ({finding['reproducibility']})",
        *(f"    {line}" for line in finding["dialogue"]),
        f"  again:    {finding['repeat']}",
    ]


def section_order(section: str) -> tuple[int, list[int]]:
    """The key that sorts sections: RFC 5321 first, then the others by number."""
    rfc, _, part = section.removeprefix("RFC ").partition(" ")
    numbers = [int(piece) for piece in part.lstrip("§").split(".") if piece.isdecimal()]
    return (0 if rfc == "5321" else int(rfc) if rfc.isdecimal() else 0, numbers)


def _colored(text: str, word: str, color: bool) -> str:
    return f"\x1b[{_COLORS[word]}m{text}\x1b[0m" if color and word in _COLORS else text
