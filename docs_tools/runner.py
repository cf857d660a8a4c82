"""Run a page: its commands, its files and its fragments, in order."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from docs_tools import fragments, output, shell
from docs_tools.page import Page
from docs_tools.shell import ROOT, Ran


@dataclass
class Report:
    """What running a page has shown.

    Attributes:
        ran: Commands that ran.
        problems: What is wrong, with file and line.
        skipped: Why blocks were skipped.
    """

    ran: list[Ran] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether a command said that the machine was too busy for its figures."""
        return any(output.BUSY.search(line) for ran in self.ran for line in ran.output)


def pages() -> list[Path]:
    """Return the pages that are written by hand."""
    reference = ROOT / "docs" / "reference"
    docs = [path for path in (ROOT / "docs").rglob("*.md") if reference not in path.parents]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md", *sorted(docs)]


def missing(needs: list[str]) -> str:
    """Return what is missing and how to install it, empty if all programs are there; Debian's packages have their names."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    absent = [name for name in needs if name != "root" and not shutil.which(name, path=path)]
    reasons = [f"{', '.join(absent)} not found: apt-get install {' '.join(absent)}"] if absent else []
    return "; ".join(reasons + (["must be started as root"] if "root" in needs and os.geteuid() else []))


def run(page: Page) -> Report:
    """Run a page. A command that fails ends it, because the next ones rely on it."""
    report = Report()
    if reason := missing(page.needs):
        report.skipped.append(reason)
        return report
    where = page.path.name
    with shell.opened(page) as here:
        for block in page.blocks:
            if block.not_run:
                continue
            if reason := missing(block.needs):
                report.skipped.append(reason)
                continue
            if block.language != "console":
                try:
                    if block.title:
                        here.write(block)
                    fragments.check_block(block, here.folder)
                except Exception as error:  # of YAML, JSON Schema, Python or a command: each is the page's mistake
                    report.problems.append(f"{where}:{block.line}: {error}")
                continue
            for command in block.commands:
                try:
                    ran = here.run(command)
                except AssertionError as error:
                    report.problems.append(f"{where}:{command.line}: {error}")
                    return report
                report.ran.append(ran)
                if ran.exit_code not in command.exit_codes:
                    shown = "\n".join(ran.output) or ran.errors
                    report.problems.append(
                        f"{where}:{command.line}: `{command.text}` ended with {ran.exit_code}, "
                        f"the page says {' or '.join(map(str, command.exit_codes))}\n{shown}\n{ran.errors}"
                    )
                    return report
                if differs := output.line_difference(command.shown, ran.output, block.varies):
                    place = f"{where}:{command.line}"
                    report.problems.append(f"{place}: the output of `{command.text}` is out of date\n{differs}")
    return report
