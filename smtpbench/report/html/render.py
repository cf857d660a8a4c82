"""From blocks to HTML: every text goes through `fill`, which escapes it.

There is no template engine: importing one and compiling the template took half of the CPU time of a page. `Markup` is text
that is HTML already; everything else is escaped where it is filled in. Only drawings, the style, the script and the embedded
data are made as `Markup` elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from markupsafe import Markup, escape

from smtpbench import __version__
from smtpbench.report.html.blocks import (
    Block,
    Cards,
    Cell,
    DialogueBlock,
    Heatmap,
    Listing,
    Notice,
    PageHeading,
    Plot,
    Properties,
    Section,
    Table,
)
from smtpbench.report.html.drawing import LEVELS

#: Characters from which on the text of a cell gets a column of its own width.
_LONG = 36
_COLOURS = 8
_NOTHING: Final = Markup()
_SCALE: Final = Markup("").join(
    Markup(f'<rect class="h{level}" x="{level * 11}" width="11" height="11"/>') for level in range(LEVELS)
)
_HEATMAP_LEGEND: Final = Markup(
    '<ul class="legend"><li>1 sample <svg class="scale" width="99" height="11" aria-hidden="true">'
    f'{_SCALE}</svg> all samples</li><li class="place"></li></ul>'
)


def fill(template: str, *values: object) -> Markup:
    """Return a template of this module's own with a value for each `%s`; a value that is not `Markup` is escaped."""
    return Markup(template % tuple(map(escape, values)))


def _joined(parts: Iterable[Markup]) -> Markup:
    """Return pieces of HTML one after the other."""
    return Markup("".join(parts))


def _if(condition: object, template: str, *values: object) -> Markup:
    return fill(template, *values) if condition else _NOTHING


def _key(key: int | None) -> Markup:
    return _NOTHING if key is None else fill('<span class="swatch c%s"></span>', key % _COLOURS)


def _content(cell: Cell) -> Markup:
    text = fill('<span class="%s">%s</span>', cell.tone, cell.text) if cell.tone else escape(cell.text)
    return _key(cell.key) + (cell.drawing or _NOTHING) + text


def _table(block: Table) -> Markup:
    return fill("<noscript>%s</noscript>\n", _table_itself(block)) if block.without_script else _table_itself(block)


def _table_itself(block: Table) -> Markup:
    heads = _joined(
        fill('<th scope="col"%s>%s%s%s</th>', _number(head), _key(head.key), head.drawing or _NOTHING, head.text)
        for head in block.heads
    )
    return fill(
        '<div class="%s">%s<div class="scroll" tabindex="0" role="region" aria-label="%s"><table%s>\n%s'
        "<thead><tr>%s</tr></thead>\n<tbody>\n%s</tbody></table></div></div>\n",
        block.size, _if(block.about, '<p class="about">%s</p>\n', block.about),
        block.caption or block.about or block.heads[0].text, _if(block.as_cards, ' class="as-cards"'),
        _if(block.caption, "<caption>%s</caption>\n", block.caption), heads,
        _joined(_row(block, row) for row in block.table_rows),
    )  # fmt: skip


def _number(cell: Cell) -> Markup:
    return _if(cell.number, ' class="n"')


def _row(block: Table, row: Sequence[Cell]) -> Markup:
    if len(row) == 1 and len(block.heads) > 1:
        return fill('<tr class="group"><th scope="rowgroup" colspan="%s">%s</th></tr>\n', len(block.heads), row[0].text)
    first, *others = row
    cells = [fill('<th scope="row">%s</th>', _content(first))]
    for at, cell in enumerate(others, 1):
        kind = "n" if cell.number else "key" if cell.key is not None else "long" if len(cell.text) > _LONG else ""
        head = block.heads[at].text if block.as_cards and at < len(block.heads) else None
        named = _NOTHING if head is None else fill(' data-head="%s"', head)
        cells.append(fill("<td%s%s>%s</td>", _if(kind, ' class="%s"', kind), named, _content(cell)))
    return fill("<tr>%s</tr>\n", _joined(cells))


def _cards(block: Cards) -> Markup:
    return fill('<dl class="cards">%s</dl>\n', _joined(
        fill('<div class="card %s"><dt>%s</dt><dd><b>%s</b><span>%s</span></dd></div>',
             card.tone, card.label, card.value, card.about)
        for card in block.cards
    ))  # fmt: skip


def _notice(block: Notice) -> Markup:
    lines = _joined(fill("<li>%s</li>", line) for line in block.lines)
    return fill(
        '<div class="notice %s" role="note"><p><strong>%s</strong></p>%s</div>\n',
        block.tone, block.title, _if(lines, "<ul>%s</ul>", lines),
    )  # fmt: skip


def _plot(block: Plot, index: int) -> Markup:
    series = _joined(
        fill('<li class="c%s"><span class="swatch %s"></span>%s</li>', one.key % _COLOURS, one.look, one.name)
        for one in block.chart.series
    )
    bands = _joined(fill('<li><span class="shade"></span>%s</li>', band.text) for band in block.chart.bands)
    return fill(
        '<figure class="plot %s" data-chart="%s"><figcaption><h3>%s</h3><ul class="legend">%s%s</ul></figcaption>'
        "%s</figure>\n",
        block.size, index, block.chart.title, series, bands, block.drawing,
    )  # fmt: skip


def _heatmap(block: Heatmap, index: int) -> Markup:
    return fill(
        '<figure class="plot %s" data-grid="%s"><figcaption><h3>%s</h3>%s</figcaption>%s%s</figure>\n',
        block.size, index, block.title, _HEATMAP_LEGEND, block.drawing,
        _if(block.about, '<p class="about">%s</p>', block.about),
    )  # fmt: skip


def _dialogue(block: DialogueBlock) -> Markup:
    details = Markup(" · ").join(fill("%s: %s", name, value) for name, value in block.details)
    return fill(
        '<article class="finding %s"><h3><span class="%s">%s</span> %s</h3>\n<p>%s</p>%s\n'
        '<pre class="dialogue" tabindex="0">%s</pre>\n%s%s%s%s</article>\n',
        block.tone, block.tone, block.severity, block.title, block.actual,
        _if(block.requirement, '<p class="about">%s</p>', block.requirement),
        _joined(fill('<span class="%s">%s</span>\n', side, line) for side, line in block.lines),
        _joined(fill('<p class="about"><b>%s</b>: %s</p>\n', name, value) for name, value in block.evidence),
        _if(block.output, '<pre class="dialogue output" tabindex="0">%s</pre>\n', "\n".join(block.output)),
        _if(details, '<p class="about">%s</p>\n', details),
        _if(block.repeat, '<p class="repeat"><span>replay:</span> <code>%s</code></p>', block.repeat),
    )  # fmt: skip


def _listing(block: Listing) -> Markup:
    opened = _if(block.unfolded, " open")
    return fill('<details%s><summary>%s</summary><pre tabindex="0">%s</pre></details>\n', opened, block.title, block.text)


def _properties(block: Properties) -> Markup:
    pairs = _joined(fill("<div><dt>%s</dt><dd>%s</dd></div>", name, value) for name, value in block.pairs)
    return fill('<dl class="properties">%s</dl>\n', pairs)


_MAKERS: Final[dict[type[Any], Callable[[Any], Markup]]] = {
    Table: _table,
    Cards: _cards,
    Notice: _notice,
    DialogueBlock: _dialogue,
    Listing: _listing,
    Properties: _properties,
}


def page_html(
    heading: PageHeading,
    sections: Sequence[Section],
    *,
    policy: Markup,
    style: Markup,
    script: Markup,
    data: Markup,
    grids: Markup,
    names: str,
) -> Markup:
    """Return a page.

    Args:
        heading: Its head.
        sections: Its content.
        policy: Its Content-Security-Policy.
        style: Content of its `<style>`.
        script: Content of its `<script>`.
        data: JSON of the charts, in the order of the plots.
        grids: JSON of the heatmaps, in their order.
        names: Names of the results.
    """
    runs = _joined(fill("<li>%s%s</li>", _key(run.key), run.text) for run in heading.runs)
    links = _joined(fill('<a href="#s%s">%s</a>', at, section.title) for at, section in enumerate(sections, 1))
    index_of = _Indexes()
    return fill(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="%s">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        "<title>%s · smtpbench</title>\n<style>%s</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">Skip to content</a>\n<header>\n<p class="name">smtpbench</p>\n'
        '<button type="button" id="theme" hidden>dark theme</button>\n<h1>%s%s</h1>\n%s%s'
        '<nav aria-label="Sections">%s</nav>\n</header>\n<main id="content">\n%s</main>\n'
        "<footer><p>Made by smtpbench %s from %s. This file is complete: it loads nothing from elsewhere.</p></footer>\n"
        '<script type="application/json" id="charts">%s</script>\n'
        '<script type="application/json" id="grids">%s</script>\n<script>%s</script>\n</body>\n</html>',
        policy, heading.title, style, heading.title,
        _if(heading.badge, ' <span class="badge %s">%s</span>', heading.tone, heading.badge),
        _if(runs, '<ul class="runs">%s</ul>\n', runs),
        _joined(fill('<p class="about">%s</p>\n', line) for line in heading.about), links,
        _joined(_section(section, at, index_of) for at, section in enumerate(sections, 1)),
        __version__, names, data, grids, script,
    )  # fmt: skip


class _Indexes:
    """Counts the plots and the heatmaps of a page."""

    def __init__(self) -> None:
        self._plots = self._heatmaps = -1

    def html(self, block: Block) -> Markup:
        """Return a block as HTML."""
        if isinstance(block, Plot):
            self._plots += 1
            return _plot(block, self._plots)
        if isinstance(block, Heatmap):
            self._heatmaps += 1
            return _heatmap(block, self._heatmaps)
        return _MAKERS[type(block)](block)


def _section(section: Section, number: int, index_of: _Indexes) -> Markup:
    return fill(
        '<section id="s%s" aria-labelledby="h%s"><h2 id="h%s">%s</h2>\n%s<div class="blocks">%s</div></section>\n',
        number, number, number, section.title, _if(section.about, '<p class="about">%s</p>\n', section.about),
        _joined(index_of.html(block) for block in section.blocks),
    )  # fmt: skip
