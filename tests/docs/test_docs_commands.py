"""Every command that README.md and the documentation print runs, and prints what is shown below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import servers

from docs_tools import fragments, page, runner
from docs_tools.shell import ROOT

PAGES = runner.pages()
IDS = [str(path.relative_to(ROOT)) for path in PAGES]


#: Pages that run at the same time: most of their commands wait.
AT_ONCE = 4


@pytest.fixture(scope="session")
def reports(request: pytest.FixtureRequest) -> Iterator[dict[Path, Future[runner.Report]]]:
    """The reports of all pages whose test was selected, each as soon as it is there."""
    wanted = {item.callspec.params["path"] for item in request.session.items if isinstance(item, pytest.Function)
              and item.originalname == "test_commands_of_the_page_run_as_printed"}  # fmt: skip
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {path: pool.submit(runner.run, page.read(path)) for path in PAGES if path in wanted}


@pytest.mark.timeout(900)  # the first page is waited for while others run; each command has a limit of its own
@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_commands_of_the_page_run_as_printed(path: Path, reports: dict[Path, Future[runner.Report]]) -> None:
    report = reports[path].result()
    if report.problems and report.busy:  # other tests had the cores: once more, beside fewer pages
        report = runner.run(page.read(path))
    assert not report.problems, "\n\n".join(report.problems)
    if report.skipped:
        reason = f"{path.name}: {'; '.join(report.skipped)}"
        if servers.REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_options_and_links_in_the_prose_exist(path: Path) -> None:
    assert list(fragments.check_prose(page.read(path))) == []


def test_readme_is_short_and_begins_with_demo_and_test() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    assert {"make demo", "make test"} <= set(re.findall(r"make \w+", "\n".join(lines[:25])))
