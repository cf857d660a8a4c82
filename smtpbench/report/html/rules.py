"""The pages of `check` and `fuzz`: rules by section, findings with their dialogue, and several targets side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from smtpbench.measure.saved import FUZZ, Saved
from smtpbench.report.html.blocks import Block, Card, Cards, Cell, Notice, PageHeading, Properties, Section
from smtpbench.report.html.common import (
    ALL_TEXT,
    badge_of,
    dialogues,
    identity,
    joined,
    machine_section,
    scenario_texts,
    short,
    table,
    verdict,
)
from smtpbench.report.html.latency import metric_names
from smtpbench.report.html.server import server_cards, server_section
from smtpbench.report.reading.findings import (
    BROKEN_MARKS,
    MARK_TONES,
    SavedVerdict,
    cases_of,
    crash_candidates_of,
    families_of,
    finding_count_of,
    peer_of,
    rules_of,
    section_order,
    violated_first,
)
from smtpbench.report.reading.head import head_of, label_of, seed_of, target_of
from smtpbench.rules.rule import NOT_RUN

_NOT_RUN_MARK = "not run"
_MARK_ORDER = (*BROKEN_MARKS, "inconclusive", "passed", _NOT_RUN_MARK)
_MAX_RULES = 500


def rules_heading(several: Sequence[Saved]) -> PageHeading:
    """Return the head of a page of checks or fuzzing campaigns."""
    if len(several) > 1:
        keys = [Cell(f"{label_of(saved)}: {' '.join(identity(saved)[:2])}", key=at) for at, saved in enumerate(several)]
        targets = joined([short(head_of(saved).target, 120) for saved in several])
        return PageHeading(f"Protocol rules on {len(several)} targets: {targets}", runs=keys)
    (saved,) = several
    status, tone = badge_of(saved)
    target, scenario = short(head_of(saved).target, 120), short(head_of(saved).scenario, 120)
    title = f"Fuzzing: {scenario or 'a scenario'} → {target}" if saved.kind == FUZZ else f"Check of {target}"
    return PageHeading(title, status, tone, identity(saved)[1:])


def rules_sections(several: Sequence[Saved]) -> list[Section]:
    """Return everything below the heading."""
    sections = [_matrix(several)] if len(several) > 1 else []
    for saved in several:
        prefix = f"{label_of(saved)}: " if len(several) > 1 else ""
        first = [*verdict(saved, prefix), *_crash_candidates(saved), _cards(saved)]
        sections += [
            Section(f"{prefix}summary" if prefix else "Summary", first),
            Section(
                f"{prefix}findings" if prefix else "Findings",
                dialogues(saved),
                "The most severe come first. Each is shown with the dialogue that led to it.",
            ),
        ]
        if len(several) == 1:
            sections.append(_scorecard(saved))
        server = server_section([saved])
        sections += [replace(server, title=f"{prefix}server" if prefix else "Server"), _target(saved, prefix)]
    sections += [Section("Scenario", scenario_texts(several)), machine_section(several)]
    return [section for section in sections if section.blocks]


def _cell(mark: str) -> Cell:
    return Cell(mark, MARK_TONES.get(mark, "faint"))


def _crash_candidates(saved: Saved) -> list[Block]:
    lines = [f"{short(one.file_name, 120)}, last sent: {short(one.last_sent, 120)}" for one in crash_candidates_of(saved)]
    return [Notice("Cases that may have crashed the target, the likeliest first", lines, "bad")] if lines else []


def _cards(saved: Saved) -> Block:
    counts = Counter(rule.mark for rule in rules_of(saved)[:_MAX_RULES])
    cards = []
    if saved.kind == FUZZ:
        findings, cases = finding_count_of(saved), cases_of(saved)
        cards = [
            Card("findings", f"{findings:,}", "confirmed" if findings else "none", "bad" if findings else "good"),
            Card("cases", f"{cases.run:,}", f"of {cases.generated:,} generated"),
            Card("seed", seed_of(saved), "repeats the campaign"),
        ]
    cards += server_cards(saved)
    for mark in _MARK_ORDER:
        if counts[mark]:
            noun = "rule" if counts[mark] == 1 else "rules"
            cards.append(Card(mark, f"{counts[mark]:,}", noun, MARK_TONES.get(mark, "")))
    return Cards(cards)


def _scorecard(saved: Saved) -> Section:
    """Every rule that ran, by section of its RFC."""
    ran = [rule for rule in rules_of(saved)[:_MAX_RULES] if rule.verdict != NOT_RUN]
    ran.sort(key=lambda rule: (section_order(rule.section), rule.id))
    table_rows: list[list[Cell | str]] = []
    for section, rules in groupby(ran, key=lambda rule: rule.section):
        table_rows.append([Cell(short(section) or "no section")])
        table_rows += [
            [Cell(short(rule.name, 80)), _cell(rule.mark), short(rule.requirement), short(rule.actual)] for rule in rules
        ]
    heads = ["rule", "verdict", "requirement", "actual behaviour"]
    return Section("Rules", [table(heads, table_rows, numbers=ALL_TEXT, as_cards=True)] if table_rows else [])


def _matrix(several: Sequence[Saved]) -> Section:
    by_name: list[dict[str, SavedVerdict]] = [
        {rule.name: rule for rule in rules_of(saved)[:_MAX_RULES]} for saved in several
    ]
    table_rows = []
    for name in violated_first(by_name):
        marks = [rules[name].mark if name in rules else _NOT_RUN_MARK for rules in by_name]
        if set(marks) != {_NOT_RUN_MARK}:
            section = next(rules[name].section for rules in by_name if name in rules)
            table_rows.append([Cell(short(name, 80)), Cell(short(section)), *map(_cell, marks)])
    heads: list[Cell | str] = ["rule", "section", *(Cell(label_of(saved), key=at) for at, saved in enumerate(several))]
    return Section("Rules by target", [table(heads, table_rows, numbers=ALL_TEXT)] if table_rows else [])


def _target(saved: Saved, prefix: str) -> Section:
    target = target_of(saved)
    pairs = [
        ("target", short(target.url)),
        ("compared with", short(peer_of(saved))),
        ("greeting", short(target.banner)),
        ("extensions", ", ".join(short(name, 60) for name in target.extensions)),
        ("extensions inside TLS", ", ".join(short(name, 60) for name in target.extensions_inside_tls)),
        ("accepted recipient", short(target.recipient)),
        ("mutation families", ", ".join(short(name, 40) for name in families_of(saved))),
        ("measured metrics", ", ".join(short(name, 40) for name in metric_names([saved]))),
    ]
    return Section(
        f"{prefix}target" if prefix else "Target", [Properties([(name, value) for name, value in pairs if value])]
    )
