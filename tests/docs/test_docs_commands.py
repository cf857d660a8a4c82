"""Every command that README.md and the documentation print runs, and prints what is shown below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import servers

from docs_tools import fragments, page, runner
from docs_tools.shell import ROOT

PAGES = runner.pages()


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_commands_of_the_page_run_as_printed(path: Path) -> None:
    read = page.read(path)
    report = runner.run(read)
    assert not report.problems, "\n\n".join(report.problems)
    if report.skipped:
        reason = f"{path.name}: {'; '.join(report.skipped)}"
        if servers.REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_options_and_links_in_the_prose_exist(path: Path) -> None:
    assert list(fragments.check_prose(page.read(path))) == []


def test_readme_is_short_and_begins_with_demo_and_test() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    assert {"make demo", "make test"} <= set(re.findall(r"make \w+", "\n".join(lines[:25])))
