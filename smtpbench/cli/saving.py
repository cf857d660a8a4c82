"""How commands save a result and its findings, and how those that were not completed end."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from smtpbench.cli.exit_codes import INTERRUPTED
from smtpbench.errors import CannotRun
from smtpbench.measure.partial import remove_partial, save_partial
from smtpbench.measure.result import save, save_findings
from smtpbench.measure.saved import RESULT, Saved
from smtpbench.report.terminal.screen import screen_of, wants_color
from smtpbench.report.terminal.verdict import verdict_text
from smtpbench.rules.finding import Finding
from smtpbench.study import progress

if TYPE_CHECKING:
    from smtpbench.check.run import CheckResult
    from smtpbench.fuzz.run import FuzzResult

_INTERVAL_S: Final = 1.0


def saved_files(path: Path, html: bool) -> str:
    """Return what stands after `saved:`: a result that was written, and the report that is written beside it here."""
    if not html:
        return str(path)
    # imported after the measurement, and not by commands that write no page
    from smtpbench.report.html.page import report_beside

    page = report_beside(path)
    return f"{path}, {page}" if page else str(path)


def save_result(result: dict[str, Any], folder: Path, html: bool, **findings: Sequence[Finding]) -> None:
    """Save a result into a folder, and print where. Raises CannotRun.

    Args:
        result: What goes into `result.json`.
        folder: Folder to make.
        html: Whether report.html is written too.
        findings: Name of a folder beside the result → the findings to write there.
    """
    try:
        path = save(result, folder)
        remove_partial(folder)
        for name, found in findings.items():
            kept = {f"{finding.id}.yaml" for finding in found}
            for earlier in (path.parent / name).glob("*.yaml"):  # found earlier, and shrunk or not confirmed since
                if earlier.name not in kept:
                    earlier.unlink()
            save_findings(((finding.id, finding.to_text()) for finding in found), path.parent / name)
    except OSError as error:
        raise CannotRun(f"the result could not be saved: {error.strerror}") from None
    typer.echo(f"saved: {saved_files(path, html)}")


def print_verdict(result: Mapping[str, Any], path: Path) -> None:
    """Print the verdict on a result, which is the end of the output of its command.

    Args:
        result: Content of `result.json`.
        path: Folder of the result.
    """
    saved = Saved(str(result["kind"]), dict(result), path / RESULT)
    typer.echo(verdict_text(saved, color=wants_color(sys.stdout), screen=screen_of(sys.stdout)))


class ResultInProgress:
    """Saves what a command has found while it runs, at most once a second: a command that is killed keeps it.

    Args:
        folder: Folder of the result; None to save nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._saved_s = -math.inf
        self._saved_findings: set[str] = set()

    def update(self, make_result: Callable[[], CheckResult | FuzzResult]) -> None:
        """Save the result so far and the findings that are new, unless that was done a moment ago."""
        now_s = time.monotonic()
        if self._folder is None or now_s < self._saved_s + _INTERVAL_S:
            return
        self._saved_s = now_s
        made = make_result()
        new = [finding for finding in made.findings if finding.id not in self._saved_findings]
        with suppress(OSError):
            save_findings(((finding.id, finding.to_text()) for finding in new), self._folder / "findings")
        self._saved_findings.update(finding.id for finding in new)
        save_partial(made.result, self._folder)


def raise_unless_completed(result: Mapping[str, Any], path: Path) -> None:
    """Print the verdict on a study, and end the command where it was not completed. Raises typer.Exit, CannotRun."""
    outcome = result["outcome"]
    if outcome["status"] != progress.COULD_NOT_RUN:  # the message of the error says why
        print_verdict(result, path)
    if outcome["status"] == progress.INTERRUPTED:
        raise typer.Exit(INTERRUPTED)
    if outcome["status"] == progress.COULD_NOT_RUN:
        raise CannotRun(outcome["reason"])
