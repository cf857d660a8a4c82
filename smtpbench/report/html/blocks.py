"""What a page is made of: plain data, which `render` turns into HTML and escapes.

A `tone` tells what a thing means and is a class of style.css: good, bad, warn,
info or nothing. It is never the only sign of that meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from smtpbench.report.html.curves import Chart
from smtpbench.report.html.heatmap import Grid


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: Its text.
        tone: Its tone.
        number: Whether it is aligned to the right.
        drawing: SVG before the text.
        key: Colour of a run, from 0; None without one.
    """

    text: str
    tone: str = ""
    number: bool = False
    drawing: Markup | None = None
    key: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        heads: Heads of the columns.
        table_rows: The rows. The first cell of a row is its head; a row of a single cell is the head of those below it.
        caption: Title of the table.
        about: One sentence on how to read it.
        size: `half` or `wide`.
        as_cards: Whether each row becomes a card on a narrow screen, so that no column is outside of it.
        without_script: Whether it is for readers without JavaScript only, because the page's script shows the same values.
    """

    heads: Sequence[Cell]
    table_rows: Sequence[Sequence[Cell]]
    caption: str = ""
    about: str = ""
    size: str = "wide"
    as_cards: bool = False
    without_script: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """A key figure.

    Attributes:
        label: What it is.
        value: Its value.
        about: A remark on it.
        tone: Its tone.
    """

    label: str
    value: str
    about: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Cards:
    """Key figures side by side."""

    cards: Sequence[Card]


@dataclass(frozen=True, slots=True)
class Notice:
    """A message that a reader must not miss.

    Attributes:
        title: The message.
        lines: Further lines.
        tone: Its tone.
    """

    title: str
    lines: Sequence[str] = ()
    tone: str = "info"


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart, as SVG and as data for the script, which replaces the SVG.

    Attributes:
        chart: Its data.
        drawing: Its SVG.
        size: `small`, `half` or `wide`.
    """

    chart: Chart
    drawing: Markup
    size: str = "half"


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A heatmap, as SVG and as data from which the script shows the values of a cell.

    Attributes:
        title: Its title.
        drawing: Its SVG.
        grid: Its data.
        about: One sentence on how to read it.
        size: `half` or `wide`.
    """

    title: str
    drawing: Markup
    grid: Grid
    about: str = ""
    size: str = "wide"


@dataclass(frozen=True, slots=True)
class DialogueBlock:
    """A finding with its dialogue.

    Attributes:
        title: The rule.
        severity: The severity.
        tone: Tone of the severity.
        actual: What the server did.
        requirement: What the RFC requires, with its section.
        details: Names and values.
        lines: (`client`, `server` or `event`, the line).
        repeat: The command that replays the finding.
        evidence: What the server's processes and its log say, as (name, value).
        output: Lines that the server wrote before it died, and lines of its log.
    """

    title: str
    severity: str
    tone: str
    actual: str
    requirement: str
    details: Sequence[tuple[str, str]]
    lines: Sequence[tuple[str, str]]
    repeat: str
    evidence: Sequence[tuple[str, str]] = ()
    output: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """A text of many lines that can be folded.

    Attributes:
        title: Its title.
        text: The text.
        unfolded: Whether it is shown at first.
    """

    title: str
    text: str
    unfolded: bool = False


@dataclass(frozen=True, slots=True)
class Properties:
    """Names with their values."""

    pairs: Sequence[tuple[str, str]]


Block = Table | Cards | Notice | Plot | Heatmap | DialogueBlock | Listing | Properties


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a heading of its own.

    Attributes:
        title: Its heading.
        blocks: Its content.
        about: One sentence on how to read it.
    """

    title: str
    blocks: Sequence[Block]
    about: str = ""


@dataclass(frozen=True, slots=True)
class PageHeading:
    """The head of the page.

    Attributes:
        title: Its title.
        badge: How the result ended.
        tone: Tone of the badge.
        about: Further lines.
        runs: Name and colour of each result on the page.
    """

    title: str
    badge: str = ""
    tone: str = ""
    about: Sequence[str] = ()
    runs: Sequence[Cell] = field(default=())
