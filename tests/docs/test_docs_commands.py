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
AT_ONCE = 5
#: Pages that take longest; they begin first.
LONG = ("README.md", "compare-postfix-configurations.md", "first-comparison.md", "find-capacity-under-an-slo.md")


@pytest.fixture(scope="session")
def reports(request: pytest.FixtureRequest) -> Iterator[dict[Path, Future[runner.Report]]]:
    """The reports of all pages whose test was selected, each as soon as it is there."""
    selected = {item.name for item in request.session.items}
    names = [f"test_commands_of_the_page_run_as_printed[{name}]" for name in IDS]
    wanted = [path for path, name in zip(PAGES, names, strict=True) if name in selected]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        first = sorted(wanted, key=lambda path: path.name not in LONG)
        yield {path: pool.submit(runner.run, page.read(path)) for path in first}


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
