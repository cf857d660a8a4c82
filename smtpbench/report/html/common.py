"""Parts that pages of every kind share: tables, notices, findings with their dialogue, the scenario's text, the machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Cell, DialogueBlock, Listing, Notice, Properties, Section, Table
from smtpbench.report.html.drawing import bar_svg
from smtpbench.report.reading.findings import MARK_TONES, SavedFinding, finding_count_of, recorded_findings_of, verdict_mark
from smtpbench.report.reading.formatting import cut_text, format_share
from smtpbench.report.reading.head import head_of, label_of, machine_of, scenario_of
from smtpbench.report.reading.metrics import SavedThreshold
from smtpbench.report.reading.verdict import BAD, GOOD, WARNING, further_notes_of, verdict_of
from smtpbench.rules.rule import VIOLATED
from smtpbench.text import plural
from smtpbench.threshold import COUNT, RATE, SHARE, SIZE, SIZE_RATE, TIME, format_value
from smtpbench.units import format_bytes

#: Entries of a list or mapping that a page shows at most.
MAX_SHOWN: Final = 300
#: Characters of a text that a page shows at most.
MAX_CHARACTERS: Final = 300
#: Candidates of a comparison that a page shows at most.
MAX_CANDIDATES: Final = 20
#: First column with numbers of a table that has none.
ALL_TEXT: Final = 99
#: Columns of a table of thresholds.
THRESHOLD_HEADS: Final = ("threshold", "outcome", "value", "margin")
_MAX_FINDINGS = 60
_MAX_TITLES = 4
_MAX_NOTES = 20
_MAX_NOTE = 600
_MAX_REASONS = 10
_MAX_DIALOGUE_LINES = 100
_MAX_DIALOGUE_LINE = 600
_MAX_COMMAND = 1000
_MAX_NAME = 60
_MAX_VERSIONS = 30
_OPEN_LISTING_LINES = 30
_UNITS = (TIME, SHARE, RATE, COUNT, SIZE, SIZE_RATE)
#: Tone of each level of a verdict.
_TONES = {BAD: "bad", WARNING: "warn", GOOD: "good"}


def short(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return a text that is short enough for a page."""
    return cut_text(text, limit)


def table(
    heads: Sequence[Cell | str],
    table_rows: Iterable[Sequence[Cell | str]],
    *,
    caption: str = "",
    about: str = "",
    numbers: int = 1,
    size: str = "wide",
    as_cards: bool = False,
) -> Table:
    """Return a table whose columns from `numbers` on hold numbers, unless a cell says otherwise; see `Table`."""
    made = [
        [cell if isinstance(cell, Cell) else Cell(cell, number=at >= numbers) for at, cell in enumerate(row)]
        for row in table_rows
    ]
    first = made[0] if made else []
    return Table(
        [
            head if isinstance(head, Cell) else Cell(head, number=at < len(first) and first[at].number)
            for at, head in enumerate(heads)
        ],
        made,
        caption,
        about,
        size,
        as_cards,
    )


def threshold_row(threshold: SavedThreshold) -> list[Cell | str]:
    """Return a row of a table of thresholds: the measured value, and its distance from the limit as a share of the limit."""
    value, margin = threshold.value, threshold.margin_share
    shown = "no data" if value is None else format_measured(threshold.unit, value)
    tone = "good" if threshold.passed else "bad"
    bar = bar_svg(1 - margin if margin is not None and margin >= 0 else 1, tone)
    distance = (
        "" if margin is None else f"{format_share(abs(margin), 0)} {'to spare' if threshold.passed else 'beyond the limit'}"
    )
    outcome = Cell("passed" if threshold.passed else "FAILED", tone)
    return [short(threshold.text), outcome, shown, Cell(distance, number=True, drawing=None if margin is None else bar)]


def format_measured(unit: str, value: float) -> str:
    """Return a value in its unit; without one where the unit is unknown."""
    return format_value(unit, value) if unit in _UNITS else f"{value:.4g}"


def badge_of(saved: Saved) -> tuple[str, str]:
    """Return the state of a result as one word, and its tone."""
    verdict = verdict_of(saved)
    return short(verdict.word, _MAX_NAME), _TONES[verdict.level]


def verdict(saved: Saved, prefix: str = "") -> list[Block]:
    """Return the verdict on a result, one notice for each state, the gravest first, and its other notes."""
    notices = []
    for word, level, texts in verdict_of(saved).by_word:
        shown, more = [short(text, _MAX_NOTE) for text in texts[:_MAX_REASONS]], len(texts) - _MAX_REASONS
        shown += [f"and {more:,} more"] if more > 0 else []
        title = f"{prefix}{short(word, _MAX_NAME)}"
        notices.append(
            Notice(f"{title}: {shown[0]}", (), _TONES[level]) if len(shown) == 1 else Notice(title, shown, _TONES[level])
        )
    notes = further_notes_of(saved)[:_MAX_NOTES]
    return [*notices, *(Notice(f"{prefix}{short(note, _MAX_NOTE)}", (), "info") for note in notes)]


def dialogues(saved: Saved) -> list[Block]:
    """Return the findings of a result, each with its dialogue."""
    blocks: list[Block] = [_dialogue(finding) for finding in recorded_findings_of(saved, _MAX_FINDINGS)]
    more = finding_count_of(saved) - len(blocks)
    if more > 0:
        blocks.append(Notice(f"and {plural(more, 'more finding')}: see result.json"))
    return blocks


def _dialogue(finding: SavedFinding) -> DialogueBlock:
    details = [
        ("reproduced", short(finding.reproducibility, _MAX_NAME)),
        ("seen in", plural(finding.hits, "case") if finding.hits > 1 else ""),
        ("in the baseline", "yes" if finding.known else ""),
        ("file", short(finding.file_name)),
    ]
    lines = []
    for line in finding.dialogue[:_MAX_DIALOGUE_LINES]:
        side = "client" if line.startswith("C:") else "server" if line.startswith("S:") else "event"
        lines.append((side, short(line, _MAX_DIALOGUE_LINE)))
    return DialogueBlock(
        title=short(finding.rule, 80),
        severity=verdict_mark(VIOLATED, finding.severity),
        tone=MARK_TONES[verdict_mark(VIOLATED, finding.severity)],
        actual=short(finding.actual),
        requirement=" · ".join(filter(None, (short(finding.section, _MAX_NAME), short(finding.requirement)))),
        details=[(name, value) for name, value in details if value],
        lines=lines,
        repeat=short(finding.repeat, _MAX_COMMAND),
        evidence=_evidence(finding),
        output=[
            short(line, _MAX_DIALOGUE_LINE)
            for line in [
                *(finding.death.output if finding.death is not None else ()),
                *(line.quoted for line in finding.log_lines),
            ][:_MAX_DIALOGUE_LINES]
        ],
    )


def _evidence(finding: SavedFinding) -> list[tuple[str, str]]:
    """How the server died of a finding, and where lines of its log are from."""
    death, sources = finding.death, list(dict.fromkeys(line.source for line in finding.log_lines if line.source))
    pairs = [] if death is None else [("death", death.text), *death.details]
    if finding.log_lines:
        pairs.append(("log", ", ".join(sources) or plural(len(finding.log_lines), "line")))
    return [(name, short(value)) for name, value in pairs]


def scenario_texts(several: Sequence[Saved]) -> list[Block]:
    """Return the text of each scenario once."""
    found: dict[str, str] = {}
    for saved in several:
        scenario = scenario_of(saved)
        if scenario.text:
            found.setdefault(scenario.text, short(scenario.file or scenario.name))
    return [Listing(name, text, unfolded=text.count("\n") < _OPEN_LISTING_LINES) for text, name in found.items()]


def machine_section(several: Sequence[Saved]) -> Section:
    """Return the section on the machine and the versions of programs."""
    blocks: list[Block] = []
    for saved in several:
        machine = machine_of(saved)
        pairs = [
            ("result", label_of(saved) if len(several) > 1 else ""),
            ("processor", short(machine.cpu)),
            ("cores", f"{machine.cores:,}" if machine.cores else ""),
            ("memory", format_bytes(machine.memory_bytes) if machine.memory_bytes else ""),
            ("kernel", short(machine.kernel)),
            *((short(name, _MAX_NAME), short(version, 120)) for name, version in machine.versions[:_MAX_VERSIONS]),
        ]
        block = Properties([(name, value) for name, value in pairs if name and value])
        blocks += [block] if block not in blocks else []
    return Section("Machine and versions", blocks)


def identity(saved: Saved) -> list[str]:
    """Return target, greeting and start of a result, without those that it does not hold."""
    head = head_of(saved)
    return [text for text in (short(head.target), short(head.banner), start_text(saved)) if text]


def joined(titles: Sequence[str]) -> str:
    """Return titles as one, each of them once, and the number of those that are left out."""
    every = list(dict.fromkeys(title for title in titles if title))
    more = len(every) - _MAX_TITLES
    return ", ".join(every[:_MAX_TITLES]) + (f" and {more:,} more" if more > 0 else "")


def start_text(saved: Saved) -> str:
    """Return the start of a result, to the second; empty where it is unknown."""
    moment = head_of(saved).started
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment is not None else ""
