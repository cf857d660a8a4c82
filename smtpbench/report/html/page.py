"""One HTML file of one or several results, which asks nobody for anything and can be mailed, filed or printed.

Parts (`part_*.py`) turn results into plain blocks; `assets/page.html` turns those into HTML, and escapes every text. Charts
are drawn twice: here as SVG, which stands without JavaScript and on paper, and in the browser by uPlot, from the data in a
`<script type="application/json">`. The Content-Security-Policy lets the page's own style and script do their work, by their
hashes, and forbids all else: were a server's text to break out of its place, it could still load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from smtpbench import __version__
from smtpbench.errors import UsageError
from smtpbench.measure.saved import CAPACITY, COMPARISON, RUN, Saved, load
from smtpbench.report.formats.writing import write_whole
from smtpbench.report.html.blocks import Cell, Heading, Picture, Plot, Section
from smtpbench.report.html.capacity import capacity_heading, capacity_sections
from smtpbench.report.html.common import label_of
from smtpbench.report.html.comparison import comparison_heading, comparison_sections
from smtpbench.report.html.curves import Axis, Chart, Grid
from smtpbench.report.html.drawing import LEVELS
from smtpbench.report.html.rules import rules_heading, rules_sections
from smtpbench.report.html.run import run_heading, run_sections
from smtpbench.text import visible

#: The file beside a result.
REPORT = "report.html"
_DIGITS = 4  # of a point that is drawn


def html_report(saved: Sequence[Saved]) -> str:
    """The page: runs laid over one another, checks and campaigns side by side, all else one after the other."""
    runs = [one for one in saved if one.kind == RUN]
    judged = [one for one in saved if one.kind not in (RUN, COMPARISON, CAPACITY)]
    pages: list[tuple[Heading, list[Section]]] = []
    if runs:
        pages.append((run_heading(runs), run_sections(runs)))
    if judged:
        pages.append((rules_heading(judged), rules_sections(judged)))
    pages += [(comparison_heading(one), comparison_sections(one)) for one in saved if one.kind == COMPARISON]
    pages += [(capacity_heading(one), capacity_sections(one)) for one in saved if one.kind == CAPACITY]
    if len(pages) == 1:
        return _page(*pages[0], saved)
    titles = [Cell(heading.title) for heading, _ in pages]
    return _page(Heading(f"{len(saved)} results", runs=titles), [one for _, sections in pages for one in sections], saved)


def write_report(saved: Sequence[Saved], path: Path) -> None:
    """Write the page. Raises OSError."""
    write_whole(html_report(saved), path)


def report_beside(result_path: Path) -> str:
    """Write `report.html` beside a result that was just saved: its name, or, with a warning on stderr, nothing."""
    path = result_path.with_name(REPORT)
    try:
        write_report([load(result_path)], path)
    except OSError as error:
        return _warned(f"{path}: {(error.strerror or str(error)).lower()}")
    except UsageError as error:
        return _warned(str(error))
    except Exception as error:  # a mistake in here must not cost a user the table, nor a build the exit code, of a run
        return _warned(f"a bug in smtpbench, the result is whole: {type(error).__name__}: {error}")
    return REPORT


def _warned(why: str) -> str:
    print(f"smtpbench: no HTML report: {visible(why, 500)}", file=sys.stderr, flush=True)
    return ""


def _page(heading: Heading, sections: Sequence[Section], saved: Sequence[Saved]) -> str:
    blocks = [block for section in sections for block in section.blocks]
    plots = [block for block in blocks if isinstance(block, Plot)]
    pictures = [block for block in blocks if isinstance(block, Picture)]
    style, script = _style(), _script()
    hashes = f"script-src '{_digest(script)}'; style-src '{_digest(style)}'"
    policy = f"default-src 'none'; {hashes}; base-uri 'none'; form-action 'none'"
    return _environment().get_template("page.html").render(
        heading=heading,
        sections=sections,
        numbers=_Numbers(plots, pictures),
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        data=Markup(embedded([chart_data(plot.chart) for plot in plots])),
        grids=Markup(embedded([grid_data(picture.grid) for picture in pictures])),
        levels=LEVELS,
        version=__version__,
        names=", ".join(dict.fromkeys(label_of(one) for one in saved)),
    )  # fmt: skip


class _Numbers:
    """The number of each plot among the plots, and of each picture among the pictures, as the template asks for it."""

    def __init__(self, *kinds: Sequence[Plot | Picture]) -> None:
        self._number_of = {id(block): number for blocks in kinds for number, block in enumerate(blocks)}

    def __getitem__(self, block: Plot | Picture) -> int:
        return self._number_of[id(block)]


def embedded(data: Any) -> str:
    """JSON that may stand in a `<script>`: nothing in it can end the element, and it is ASCII."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def chart_data(chart: Chart) -> dict[str, Any]:
    """A chart as script.js reads it: t title, x and y axes, xs, s series, m marks, b bands."""
    return {
        "t": chart.title,
        "x": _axis_data(chart.x),
        "y": _axis_data(chart.y),
        "xs": [_rounded(x, 6) for x in chart.xs],
        "s": [{"n": one.name, "k": one.key, "l": one.look, "p": [None if y is None else _rounded(y) for y in one.points]}
              for one in chart.series],
        "m": [[mark.place, mark.text, mark.upright, mark.tone] for mark in chart.marks],
        "b": [[band.low, band.high] for band in chart.bands],
    }  # fmt: skip


def grid_data(grid: Grid) -> dict[str, Any]:
    """A heatmap as script.js reads it: e its end in seconds, r rows, y axis, c for each column row, count, row, count …"""
    columns = [[number for cell in sorted(column.items()) for number in cell] for column in grid.columns]
    return {"e": _rounded(grid.end_s), "r": grid.rows, "y": [grid.y.low, grid.y.high], "c": columns}


def _axis_data(axis: Axis) -> dict[str, Any]:
    return {"k": axis.kind, "u": axis.unit, "lo": axis.low, "hi": axis.high, "t": axis.ticks}


def _rounded(value: float, digits: int = _DIGITS) -> float:
    found = float(f"{value:.{digits}g}")
    return int(found) if found == int(found) else found


def _digest(text: str) -> str:
    """As a Content-Security-Policy names an inline text (https://www.w3.org/TR/CSP3/#external-hash)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return resources.files("smtpbench.report.html").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    return _asset("uPlot.min.css") + "\n" + _asset("style.css")


@cache
def _script() -> str:
    return f"/*\nuPlot:\n{_asset('uPlot-LICENSE.txt')}\n*/\n{_asset('uPlot.iife.min.js')}\n{_asset('script.js')}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=DictLoader({"page.html": _asset("page.html")}), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
