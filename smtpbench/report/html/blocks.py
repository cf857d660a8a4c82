"""What a page is made of: plain data, which `assets/page.html` turns into HTML and escapes.

`kind` is the name of the template's macro. A `tone` says what a thing means and is a class of style.css: good, bad, warn,
info or nothing; it never is the only sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from smtpbench.report.html.curves import Chart, Grid


@dataclass(frozen=True, slots=True)
class Cell:
    """One of a table. drawing: SVG that stands before the text. key: of the colour of a run, from 0."""

    text: str
    tone: str = ""
    number: bool = False
    drawing: Markup | None = None
    key: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """heads: of the columns; the first column holds the rows' heads. A row of one cell alone heads those below it.

    size: half or wide.
    """

    heads: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    about: str = ""
    size: str = "wide"
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Card:
    """One figure: what it is, its value, and what is to be known beside it."""

    label: str
    value: str
    about: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Cards:
    """The figures that come first."""

    cards: Sequence[Card]
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True, slots=True)
class Notice:
    """What a reader must not miss."""

    title: str
    lines: Sequence[str] = ()
    tone: str = "info"
    kind: ClassVar[str] = "notice"


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart: drawn here, and drawn again by the script, where there is one. size: small, half or wide."""

    chart: Chart
    drawing: Markup
    size: str = "half"
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True, slots=True)
class Picture:
    """A heatmap, which the script reads values from."""

    title: str
    drawing: Markup
    grid: Grid
    about: str = ""
    size: str = "wide"
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True, slots=True)
class DialogueBlock:
    """A finding with what was said. lines: `C: …` and `S: …`."""

    title: str
    severity: str
    tone: str
    actual: str
    requirement: str
    facts: Sequence[tuple[str, str]]
    lines: Sequence[tuple[str, str]]
    repeat: str
    kind: ClassVar[str] = "dialogue"


@dataclass(frozen=True, slots=True)
class Listing:
    """A text of many lines."""

    title: str
    text: str
    unfolded: bool = False
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Names with what stands for them."""

    pairs: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "pairs"


Block = Table | Cards | Notice | Plot | Picture | DialogueBlock | Listing | Pairs


@dataclass(frozen=True, slots=True)
class Section:
    """A part with a heading. about: one sentence on how to read it."""

    title: str
    blocks: Sequence[Block]
    about: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """The head of the page. runs: name and colour of what is overlaid."""

    title: str
    badge: str = ""
    tone: str = ""
    about: Sequence[str] = ()
    runs: Sequence[Cell] = field(default=())
