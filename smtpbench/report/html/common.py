"""Parts that pages of every kind have: what was said and found, the scenario's text, the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Cell, DialogueBlock, Listing, Notice, Pairs, Section, Table
from smtpbench.report.html.drawing import bar_svg
from smtpbench.report.reading import lenient as sift
from smtpbench.threshold import format_value
from smtpbench.units import format_bytes

#: Findings that a page shows with their dialogues.
FINDINGS: Final = 60
#: Of thresholds and of what is compared.
UNITS: Final = ("ms", "share", "per_s", "count")
THRESHOLD_HEADS: Final = ("threshold", "value", "margin", "")
_TONES = {"security": "bad", "violation": "bad", "warning": "warn", "advice": "warn"}
_STATUS_TONES = {"completed": "good", "complete": "good", "interrupted": "warn", "aborted": "bad", "could-not-run": "bad"}


def table(
    heads: Sequence[Cell | str],
    rows: Iterable[Sequence[Cell | str]],
    *,
    caption: str = "",
    about: str = "",
    numbers: int = 1,
    size: str = "wide",
) -> Table:
    """A table whose columns from `numbers` on hold numbers, where no cell says otherwise; heads are as their columns."""
    made = [
        [cell if isinstance(cell, Cell) else Cell(cell, number=at >= numbers) for at, cell in enumerate(row)] for row in rows
    ]
    firsts = made[0] if made else []
    return Table(
        [
            head if isinstance(head, Cell) else Cell(head, number=at < len(firsts) and firsts[at].number)
            for at, head in enumerate(heads)
        ],
        made,
        caption,
        about,
        size,
    )


def threshold_row(entry: Mapping[str, Any], text: Any, margin: Any) -> list[Cell | str]:
    """A threshold or objective with the value that was measured, and how much of its limit that is."""
    passed = entry.get("passed") is True
    value, unit, margin = sift.number(entry.get("value")), entry.get("unit"), sift.number(margin)
    shown = "nothing measured" if value is None else format_value(unit, value) if unit in UNITS else f"{value:.4g}"
    tone = "good" if passed else "bad"
    bar = bar_svg(1 - margin if margin is not None and margin >= 0 else 1, tone)
    words = "" if margin is None else f"{sift.share(abs(margin), 0)} {'to spare' if passed else 'beyond it'}"
    ended = Cell("held" if passed else "FAILED", tone)
    return [sift.text(text), shown, Cell(words, number=True, drawing=None if margin is None else bar), ended]


def status_of(saved: Saved) -> tuple[str, str, str]:
    """How it ended, the tone of that, and why."""
    outcome = saved.result.get("outcome")
    status = sift.text(outcome if isinstance(outcome, str) else sift.at(outcome, "status"), 40)
    return status, _STATUS_TONES.get(status, ""), sift.text(sift.at(outcome, "reason"))


def ending(saved: Saved, who: str = "") -> list[Block]:
    """A notice where it did not come to its end."""
    status, tone, reason = status_of(saved)
    if tone in ("good", ""):
        return []
    return [Notice(f"{who}{status}: what was measured until then stands here", [reason] if reason else [], tone)]


def notes_of(saved: Saved, who: str = "") -> list[Block]:
    """What a reader must know, in the result's words."""
    return [Notice(f"{who}{note}", (), "info") for note in sift.texts(saved.result.get("notes"), 600)[:20]]


def limited(saved: Saved, who: str = "") -> list[Block]:
    """The big warning where the generator was the bottleneck."""
    generator = saved.result.get("generator")
    if sift.at(generator, "limited") is not True:
        return []
    reasons = sift.texts(sift.at(generator, "limited_reasons"))[:10]
    return [Notice(f"{who}GENERATOR LIMITED: these figures are about the generator, not about the target", reasons, "bad")]


def dialogues(findings: Any, rules: Any) -> list[Block]:
    """Findings, each with what was said."""
    found = sift.records(findings, FINDINGS)
    blocks: list[Block] = [_dialogue(one, sift.at(rules, str(one.get("rule")))) for one in found]
    if isinstance(findings, list) and len(findings) > len(found):
        blocks.append(Notice(f"and {len(findings) - len(found):,} more findings: see result.json"))
    return blocks


def _dialogue(finding: Mapping[str, Any], rule: Any) -> DialogueBlock:
    severity = sift.text(finding.get("severity"), 40)
    facts = [
        ("seen again", sift.text(finding.get("reproducibility"), 60)),
        ("met", f"{sift.natural(finding.get('hits')):,} times" if sift.natural(finding.get("hits")) > 1 else ""),
        ("in the baseline", "yes" if finding.get("known") is True else ""),
        ("file", sift.text(finding.get("file"))),
    ]
    lines = []
    for line in sift.texts(finding.get("dialogue"), 600)[:100]:
        who = "client" if line.startswith("C:") else "server" if line.startswith("S:") else "event"
        lines.append((who, line))
    about = " · ".join(
        part for part in (sift.text(sift.at(rule, "section"), 60), sift.text(sift.at(rule, "requirement"))) if part
    )
    return DialogueBlock(
        sift.text(finding.get("rule"), 80) or "a finding",
        severity,
        _TONES.get(severity, "warn"),
        sift.text(finding.get("actual")),
        about,
        [(name, value) for name, value in facts if value],
        lines,
        sift.text(finding.get("repeat"), 1000),
    )


def scenario_texts(several: Sequence[Saved]) -> list[Block]:
    """The scenarios' texts, each once."""
    found: dict[str, str] = {}
    for saved in several:
        scenario = saved.result.get("scenario")
        text = sift.lines(sift.at(scenario, "text"))
        if text and text not in found:
            found[text] = sift.text(sift.at(scenario, "file")) or sift.text(sift.at(scenario, "name"))
    return [Listing(name, text, unfolded=text.count("\n") < 30) for text, name in found.items()]


def machine_section(several: Sequence[Saved]) -> Section:
    """Where it ran and with which programs."""
    blocks: list[Block] = []
    for saved in several:
        machine, versions = saved.result.get("machine"), saved.result.get("versions")
        memory = sift.natural(sift.at(machine, "memory_bytes"))
        cores = sift.natural(sift.at(machine, "cores"))
        pairs = [
            ("result", label_of(saved)) if len(several) > 1 else ("", ""),
            ("processor", sift.text(sift.at(machine, "cpu"))),
            ("cores", f"{cores:,}" if cores else ""),
            ("memory", format_bytes(memory) if memory else ""),
            ("kernel", sift.text(sift.at(machine, "kernel"))),
            *((sift.text(name, 60), sift.text(version, 120)) for name, version in sift.items(versions, 30)),
        ]
        block = Pairs([(name, value) for name, value in pairs if name and value])
        blocks += [block] if block not in blocks else []
    return Section("Machine and versions", blocks)


def label_of(saved: Saved) -> str:
    """Its label, for a reader."""
    return sift.text(saved.label, 80)


def link_words(saved: Saved) -> list[str]:
    """When it began, and on what."""
    target = saved.result.get("target")
    words = [sift.text(sift.at(target, "url")), sift.text(sift.at(target, "banner")), started(saved)]
    return [word for word in words if word]


def started(saved: Saved) -> str:
    """When it began, without what nobody reads."""
    text = sift.text(saved.result.get("started"), 40)
    return text[:19].replace("T", " ") + " UTC" if text[10:11] == "T" else text
