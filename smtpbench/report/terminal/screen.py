"""What all console reports share: the size of the screen, colours, and the width of text."""

from __future__ import annotations

import os
import unicodedata
from typing import NamedTuple, TextIO


class Screen(NamedTuple):
    """Size of a terminal, which a report may be fitted to.

    Attributes:
        width: Columns.
        height: Lines, without the one of the prompt.
    """

    width: int = 80
    height: int = 23


def wants_color(out: TextIO) -> bool:
    """Return whether to write colours to a stream; every command asks here.

    `NO_COLOR` (https://no-color.org) forbids them. `FORCE_COLOR` (https://force-color.org) asks for them, in a pipe too, and
    its value 0 forbids them. Without either, a terminal gets them unless it is `TERM=dumb`.
    """
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    if forced:
        return forced != "0"
    return out.isatty() and os.environ.get("TERM") != "dumb"


def screen_of(out: TextIO) -> Screen | None:
    """Return the size of the terminal that a stream writes to, at least 80 × 24; None where it is not a terminal."""
    if not out.isatty():
        return None
    try:
        width, height = os.get_terminal_size(out.fileno())
    except OSError:
        return Screen()
    return Screen(max(width, Screen().width), max(height - 1, Screen().height))


def cells(text: str) -> int:
    """Return the columns of a terminal that a text takes (Unicode Standard Annex #11)."""
    return sum(map(_cells_of, text))


def cut(text: str, max_cells: int) -> str:
    """Return a text of at most so many columns; `…` stands for what is missing."""
    if cells(text) <= max_cells:
        return text
    kept, left = [], max_cells - 1
    for character in text:
        left -= _cells_of(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def padded(text: str, width: int) -> str:
    """Return a text with spaces after it, up to a width in columns."""
    return text + " " * (width - cells(text))


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def styled(line: str, style: str) -> str:
    """Return a line in an ANSI style such as `1;31`; an empty style changes nothing."""
    return f"\x1b[{style}m{line}\x1b[0m" if style else line
