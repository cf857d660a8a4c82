"""The picture of the layers: an SVG that stands in a page and takes its colours from the page's theme."""

from __future__ import annotations

from html import escape

from docs_build.layers import LAYERS, Layer

WIDTH, HEIGHT, GAP, TITLE = 540, 50, 8, 20
ROW = TITLE + HEIGHT + GAP


def layers_svg() -> str:
    """Return the picture, the highest layer first, on lines without a blank one between them."""
    label = "Layers of smtpbench: each imports only what stands below it"
    lines = [
        '<figure class="layers">',
        f'<svg viewBox="0 0 {WIDTH} {len(LAYERS) * ROW}" role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">',
    ]
    for row, layer in enumerate(reversed(LAYERS)):
        lines += _row(layer, row * ROW)
    return "\n".join([*lines, "</svg>", f"<figcaption>{label}.</figcaption>", "</figure>"])


def _row(layer: Layer, top: int) -> list[str]:
    """A line of text and below it a box for each package."""
    lines = [f'<text class="layer" x="0" y="{top + TITLE - 6}">{escape(layer.name)}</text>']
    y, count = top + TITLE, len(layer.packages)
    width = (WIDTH - (count - 1) * GAP) / count
    for at, (name, about) in enumerate(layer.packages.items()):
        x = at * (width + GAP)
        lines += [
            f'<rect x="{x + 0.5:g}" y="{y + 0.5:g}" width="{width - 1:g}" height="{HEIGHT - 1}" rx="5"/>',
            f'<text class="package" x="{x + width / 2:g}" y="{y + 22}">{escape(name)}</text>',
            f'<text class="about" x="{x + width / 2:g}" y="{y + 40}">{escape(about)}</text>',
        ]
    return lines
