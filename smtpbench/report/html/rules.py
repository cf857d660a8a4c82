"""The pages of `check` and `fuzz`: rules by section, findings with what was said, and several targets side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from smtpbench.measure.saved import FUZZ, Saved
from smtpbench.report.html.blocks import Block, Card, Cards, Cell, Heading, Notice, Pairs, Section
from smtpbench.report.html.common import (
    dialogues,
    ending,
    label_of,
    limited,
    link_words,
    machine_section,
    notes_of,
    scenario_texts,
    status_of,
    table,
)
from smtpbench.report.html.latency import slots_of
from smtpbench.report.reading import lenient as sift
from smtpbench.report.terminal.scorecard import mark, section_order

_WORDS = {"?": "inconclusive", "-": "not run"}
_TONES = {"pass": "good", "SECURITY": "bad", "VIOLATION": "bad", "warning": "warn", "advice": "warn", "inconclusive": "info"}
_ORDER = ("SECURITY", "VIOLATION", "warning", "advice", "inconclusive", "pass", "not run")
_MOST_RULES = 500

RuleEntry = Mapping[str, str]


def rules_heading(several: Sequence[Saved]) -> Heading:
    """Of a page of checks or campaigns."""
    if len(several) > 1:
        keys = [Cell(f"{label_of(saved)}: {' '.join(link_words(saved)[:2])}", key=at) for at, saved in enumerate(several)]
        return Heading(f"The protocol's rules on {len(several)} targets", runs=keys)
    (saved,) = several
    status, tone, _ = status_of(saved)
    what = "fuzz" if saved.kind == FUZZ else "check"
    return Heading(f"{what} {sift.text(sift.at(saved.result, 'target', 'url'), 120)}", status, tone, link_words(saved)[1:])


def rules_sections(several: Sequence[Saved]) -> list[Section]:
    """Everything below the heading."""
    sections = [_matrix(several)] if len(several) > 1 else []
    for saved in several:
        who = f"{label_of(saved)}: " if len(several) > 1 else ""
        first = [*ending(saved, who), *limited(saved, who), *_gone(saved, who), *notes_of(saved, who), _cards(saved)]
        findings = dialogues(saved.result.get("findings"), saved.result.get("rules"))
        sections += [
            Section(f"{who}summary" if who else "Summary", first),
            Section(f"{who}findings" if who else "Findings", findings, "Gravest first, each with what was said."),
        ]
        if len(several) == 1:
            sections.append(_scorecard(saved))
        sections.append(_target(saved, who))
    sections += [Section("Scenario", scenario_texts(several)), machine_section(several)]
    return [section for section in sections if section.blocks]


def _rules(saved: Saved) -> dict[str, RuleEntry]:
    found: dict[str, RuleEntry] = {}
    for name, rule in sift.items(saved.result.get("rules"), _MOST_RULES):
        found[name] = {key: sift.text(sift.at(rule, key))
                       for key in ("verdict", "severity", "id", "section", "requirement", "expected", "actual")}  # fmt: skip
    return found


def _word(rule: RuleEntry) -> str:
    word = mark(rule)
    return _WORDS.get(word, word)


def _cell(rule: RuleEntry | None) -> Cell:
    word = "not run" if rule is None else _word(rule)
    return Cell(word, _TONES.get(word, "faint"))


def _gone(saved: Saved, who: str) -> list[Block]:
    if sift.at(saved.result, "target", "gone") is not True:
        return []
    others = sift.natural(sift.at(saved.result, "cases", "may_have_killed_it"))
    return [
        Notice(
            f"{who}the target is gone",
            [f"{others:,} more cases may have killed it: see candidates/"] if others else [],
            "bad",
        )
    ]


def _cards(saved: Saved) -> Block:
    words = Counter(_word(rule) for rule in _rules(saved).values())
    cards = []
    if saved.kind == FUZZ:
        findings = sift.entries(saved.result.get("findings"), 10_000)
        cases = saved.result.get("cases")
        cards = [
            Card(
                "findings",
                f"{len(findings):,}",
                "confirmed" if findings else "nothing was found",
                "bad" if findings else "good",
            ),
            Card("cases", sift.count(sift.at(cases, "run")), f"of {sift.count(sift.at(cases, 'generated'))} drawn"),
            Card("seed", sift.text(str(saved.result.get("seed"))[:40]), "the same cases again"),
        ]
    cards += [Card(word, f"{words[word]:,}", "rules", _TONES.get(word, "")) for word in _ORDER if words[word]]
    return Cards(cards)


def _scorecard(saved: Saved) -> Section:
    """Every rule that was tried, by section of its RFC."""
    tried = [(name, rule) for name, rule in _rules(saved).items() if rule["verdict"] != "not-run"]
    tried.sort(key=lambda item: (section_order(item[1]["section"]), item[1]["id"]))
    rows: list[list[Cell | str]] = []
    for section, found in groupby(tried, key=lambda item: item[1]["section"]):
        rows.append([Cell(section or "no section")])
        rows += [[Cell(sift.text(name, 80)), _cell(rule), rule["requirement"], rule["actual"]] for name, rule in found]
    heads = ["rule", "", "what is required", "what was seen"]
    return Section("Rules", [table(heads, rows, numbers=99)] if rows else [])


def _matrix(several: Sequence[Saved]) -> Section:
    rules = [_rules(saved) for saved in several]
    names = list(dict.fromkeys(name for one in rules for name in one))
    rows = []
    for name in names:
        cells = [_cell(one.get(name)) for one in rules]
        if {cell.text for cell in cells} != {"not run"}:
            rows.append(
                [Cell(sift.text(name, 80)), Cell(next(one[name]["section"] for one in rules if name in one)), *cells]
            )
    heads: list[Cell | str] = ["rule", "section", *(Cell(label_of(saved), key=at) for at, saved in enumerate(several))]
    return Section("Rules by targets", [table(heads, rows, numbers=99)] if rows else [])


def _target(saved: Saved, who: str) -> Section:
    target: Any = saved.result.get("target")
    pairs = [
        ("target", sift.text(sift.at(target, "url"))),
        ("compared with", sift.text(saved.result.get("peer"))),
        ("greeting", sift.text(sift.at(target, "banner"))),
        ("offers", ", ".join(sift.texts(sift.at(target, "extensions"), 60))),
        ("offers inside TLS", ", ".join(sift.texts(sift.at(target, "extensions_inside_tls"), 60))),
        ("takes mail for", sift.text(sift.at(target, "recipient"))),
        ("mutation families", ", ".join(sift.texts(saved.result.get("families"), 40))),
        ("slots heard", ", ".join(sift.text(slot, 40) for slot in slots_of([saved]))),
    ]
    return Section(f"{who}target" if who else "Target", [Pairs([(name, value) for name, value in pairs if value])])
