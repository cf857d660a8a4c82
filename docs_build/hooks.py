"""What MkDocs calls while it builds the site: it adds the generated pages, and fills in pieces of others.

A page takes a generated piece by a line of its own: `<!-- generated: layers -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs_build.exit_codes import exit_codes_table
from docs_build.picture import layers_svg
from docs_build.reference import expanded, pages

PIECES: Final[Mapping[str, Callable[[], str]]] = {"exit-codes": exit_codes_table, "layers": layers_svg}
_MARKER: Final = re.compile(r"^<!-- generated: (\S+) -->$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace folders in the navigation by the generated pages that are in them."""
    config.nav = expanded(config.nav or [])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for page in pages():
        files.append(File.generated(config, page.path, content=page.text))
    return files


def on_page_markdown(markdown: str, page: Page | None, **_: Any) -> str:
    """Fill in the generated pieces. Raises PluginError for a name that is not known."""

    def piece(match: re.Match[str]) -> str:
        if match[1] not in PIECES:
            where = page.file.src_uri if page else "text"
            raise PluginError(f"{where}: no generated piece is called {match[1]}; there are {', '.join(PIECES)}")
        return PIECES[match[1]]()

    return _MARKER.sub(piece, markdown)
