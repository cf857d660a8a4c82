"""All generated pages, and their place in the navigation."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from docs_build import command_line, exit_codes, files, metrics, results, rules, sink
from docs_build.markup import Page, table

#: What a list or a section of a navigation is, as MkDocs reads it.
Nav = list[Any]
#: Page → what is there, for the overview.
ABOUT: Final = {
    "reference/command-line/index.md": "Every command with its arguments, options and examples.",
    "reference/scenario-file.md": "Every key of a scenario: steps, values, message, load.",
    "reference/comparison-file.md": "Every key of a file for `smtpbench compare`.",
    "reference/shipped-scenarios.md": "The scenarios that come with smtpbench.",
    "reference/metrics.md": "What can be measured and compared, and how limits are written.",
    "reference/results/index.md": "Every key of `result.json`.",
    "reference/rules/index.md": "Every protocol rule with its source in the RFCs and the dialogue that tries it.",
    "reference/sink.md": "How the test mail server misbehaves on request.",
    "reference/exit-codes.md": "What the exit codes of the commands mean.",
}


@cache
def pages() -> tuple[Page, ...]:
    """Return all generated pages, in the order of the navigation."""
    found = [page for part in (command_line, files, metrics, results, rules, sink, exit_codes) for page in part.pages()]
    return (_overview(found), *found)


def _overview(found: list[Page]) -> Page:
    """The first page of the reference: a list of the others, those within folders left out."""
    tops = [page for page in found if page.path.count("/") == 1 or page.path.endswith("/index.md")]
    table_rows = [(f"[{page.title}]({page.path.removeprefix('reference/')})", ABOUT[page.path]) for page in tops]
    body = "These pages are generated from the code of this version whenever the documentation is built.\n\n" + table(
        "pairs", ("Page", "What is there"), table_rows
    )
    return Page("reference/index.md", "Reference", body)


def expanded(nav: Nav) -> Nav:
    """Return a navigation in which every folder, `reference/rules/`, has become the list of its generated pages."""
    found: Nav = []
    for entry in nav:
        if isinstance(entry, dict):
            found += [{title: _section(inside) for title, inside in entry.items()}]
        else:
            found.append(entry)
    return found


def _section(inside: Any) -> Any:
    if isinstance(inside, list):
        return expanded(inside)
    return _folder(inside) if isinstance(inside, str) and inside.endswith("/") else inside


def _folder(folder: str) -> Nav:
    """The pages of a folder; those of a group stand together in a section."""
    found: Nav = []
    groups: dict[str, Nav] = {}
    for page in pages():
        if not page.path.startswith(folder):
            continue
        if not page.group:
            found.append(page.path)
            continue
        if page.group not in groups:
            groups[page.group] = []
            found.append({page.group: groups[page.group]})
        groups[page.group].append(page.path)
    return found
