"""The HTML report: one file of one or several results that loads nothing and can be mailed, archived or printed.

Modules for each kind of result (`run`, `rules`, `comparison`, `capacity`) turn results into plain blocks. `render` turns the
blocks into HTML and escapes every text. Charts are drawn twice: here as SVG, which needs no JavaScript and is
printed, and in the browser by uPlot, from the data in a `<script type="application/json">`. The Content-Security-Policy
allows the page's own style and script, by their hashes, and nothing else. If text of a server were not escaped somewhere, it
still could not load or run anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from smtpbench.errors import UsageError
from smtpbench.measure.saved import CAPACITY, COMPARISON, RUN, Saved, load
from smtpbench.report.formats.writing import write_whole
from smtpbench.report.html.blocks import Cell, Heatmap, PageHeading, Plot, Section
from smtpbench.report.html.capacity import capacity_heading, capacity_sections
from smtpbench.report.html.common import joined
from smtpbench.report.html.comparison import comparison_heading, comparison_sections
from smtpbench.report.html.curves import Axis, Chart
from smtpbench.report.html.heatmap import Grid
from smtpbench.report.html.render import page_html
from smtpbench.report.html.rules import rules_heading, rules_sections
from smtpbench.report.html.run import run_heading, run_sections
from smtpbench.report.reading.head import label_of
from smtpbench.text import visible

#: Name of the report beside a result.
REPORT = "report.html"
_ASSETS = Path(__file__).with_name("assets")  # importlib.resources imports readers that take longer than the page
_DIGITS = 4  # significant digits of a point


def html_report(several: Sequence[Saved]) -> str:
    """Return the page: runs overlaid, checks and campaigns side by side, other results one after the other."""
    runs = [saved for saved in several if saved.kind == RUN]
    checks = [saved for saved in several if saved.kind not in (RUN, COMPARISON, CAPACITY)]
    pages: list[tuple[PageHeading, list[Section]]] = []
    if runs:
        pages.append((run_heading(runs), run_sections(runs)))
    if checks:
        pages.append((rules_heading(checks), rules_sections(checks)))
    pages += [(comparison_heading(one), comparison_sections(one)) for one in several if one.kind == COMPARISON]
    pages += [(capacity_heading(one), capacity_sections(one)) for one in several if one.kind == CAPACITY]
    if len(pages) == 1:
        return _page(*pages[0], several)
    titles = [Cell(heading.title) for heading, _ in pages]
    sections = [section for _, part in pages for section in part]
    title = f"{len(several)} results: {joined([heading.title for heading, _ in pages])}"
    return _page(PageHeading(title, runs=titles), sections, several)


def write_report(several: Sequence[Saved], path: Path) -> None:
    """Write the page.

    Raises:
        OSError: The file cannot be written.
    """
    write_whole(html_report(several), path)


def report_beside(result_path: Path) -> str:
    """Write `report.html` beside a saved result and return its name; on failure warn on stderr and return `""`."""
    path = result_path.with_name(REPORT)
    try:
        write_report([load(result_path)], path)
    except OSError as error:
        return _warn(f"{path}: {(error.strerror or str(error)).lower()}")
    except UsageError as error:
        return _warn(str(error))
    except Exception as error:  # a bug in a report must not lose the table and the exit code of a run
        return _warn(f"a bug in smtpbench; the result itself is complete: {type(error).__name__}: {error}")
    return REPORT


def _warn(reason: str) -> str:
    print(f"smtpbench: no HTML report: {visible(reason, 500)}", file=sys.stderr, flush=True)
    return ""


def _page(heading: PageHeading, sections: Sequence[Section], several: Sequence[Saved]) -> str:
    blocks = [block for section in sections for block in section.blocks]
    plots = [block for block in blocks if isinstance(block, Plot)]
    heatmaps = [block for block in blocks if isinstance(block, Heatmap)]
    style, script = _style(), _script()
    hashes = f"script-src '{_digest(script)}'; style-src '{_digest(style)}'"
    policy = f"default-src 'none'; {hashes}; base-uri 'none'; form-action 'none'"
    return page_html(
        heading,
        sections,
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        data=Markup(embedded([chart_data(plot.chart) for plot in plots])),
        grids=Markup(embedded([grid_data(heatmap.grid) for heatmap in heatmaps])),
        names=", ".join(dict.fromkeys(label_of(one) for one in several)),
    )


def embedded(data: Any) -> str:
    """Return JSON for a `<script>`: nothing in it can end the element, and it is ASCII."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def chart_data(chart: Chart) -> dict[str, Any]:
    """Return a chart as script.js reads it: t title, x and y axes, xs, s series, m marks, b bands."""
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
    """Return a heatmap as script.js reads it: e end in seconds, r rows, y axis, c rows and counts of each column."""
    columns = [[number for cell in sorted(column.items()) for number in cell] for column in grid.columns]
    return {"e": _rounded(grid.end_s), "r": grid.row_count, "y": [grid.y.low, grid.y.high], "c": columns}


def _axis_data(axis: Axis) -> dict[str, Any]:
    return {"k": axis.kind, "u": axis.unit, "lo": axis.low, "hi": axis.high, "t": axis.ticks}


def _rounded(value: float, digits: int = _DIGITS) -> float:
    found = float(f"{value:.{digits}g}")
    return int(found) if found == int(found) else found


def _digest(text: str) -> str:
    """The hash of an inline text for a Content-Security-Policy (https://www.w3.org/TR/CSP3/#external-hash)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    return _asset("uPlot.min.css") + "\n" + _asset("style.css")


@cache
def _script() -> str:
    return f"/*\nuPlot:\n{_asset('uPlot-LICENSE.txt')}\n*/\n{_asset('uPlot.iife.min.js')}\n{_asset('script.js')}"
