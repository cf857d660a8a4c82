"""Markdown for generated pages: escaped text, code, links and tables with anchors."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

#: What stands in the column of defaults for what must be given.
REQUIRED: Final = "**required**"
#: Characters that mean something to Markdown, or to HTML, outside code.
_SPECIAL = re.compile(r"([\\*_{}\[\]#|])")
#: Text in backquotes, which is code and needs no escape.
_CODE = re.compile(r"(`[^`]+`)")


@dataclass(frozen=True, slots=True)
class Page:
    """A generated page.

    Attributes:
        path: File in the documentation's folder, `reference/exit-codes.md`.
        title: Its heading, and its name in the navigation.
        body: Markdown below the heading.
        group: Section of the navigation that it stands in, below its folder; empty for none.
    """

    path: str
    title: str
    body: str
    group: str = ""

    @property
    def text(self) -> str:
        """The whole file."""
        return f"# {escape_markdown(self.title)}\n\n{self.body.strip()}\n"


def escape_markdown(text: str) -> str:
    """Return text as Markdown that shows it as it stands; what is in backquotes becomes code."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(
        part if at % 2 else _SPECIAL.sub(r"\\\1", html.escape(part, quote=False)) for at, part in enumerate(parts)
    )


def code(text: str) -> str:
    """Return inline code, also where the text holds backquotes."""
    fence = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def anchored(name: str, text: str) -> str:
    """Return text that `#name` leads to, and that links to itself."""
    return f'<a id="{name}"></a>[{text}](#{name})'


def sentence(text: str) -> str:
    """Return the text with a capital letter first and a full stop last, as Markdown."""
    text = text.strip()
    if not text:
        return ""
    word = re.match(r"[a-z]+(?=[ ,;:.-]|$)(?!://)", text)
    first = text[:1].upper() if word else text[:1]
    return escape_markdown(first + text[1:] + ("" if text.endswith((".", ":", "?", "!", "…")) else "."))


def table(kind: str, head: Sequence[str], table_rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose cells are Markdown. On a narrow screen each row becomes a block.

    Args:
        kind: Class of the table, which the style sheet knows.
        head: Titles of the columns.
        rows: Cells, as many as the head has.
    """
    lines = [_row(head), _row(["---"] * len(head)), *(_row([_cell(cell) for cell in row]) for row in table_rows)]
    return f'<div class="reference {kind}" markdown>\n\n' + "\n".join(lines) + "\n\n</div>\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """A cell is one line, and a pipe in code would end it."""
    text = " ".join(text.split())
    return re.sub(r"`[^`]*\|[^`]*`", lambda match: _code_element(match[0]), text)


def _code_element(text: str) -> str:
    inner = html.escape(text.strip("`"), quote=False).replace("|", "&#124;")
    return f"<code>{inner}</code>"


def block(language: str, text: str) -> str:
    """Return a block of code."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"
