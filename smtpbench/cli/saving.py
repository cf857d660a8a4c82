"""How commands save a result and its findings, and how those that were not completed end."""

from __future__ import annotations

import math
import shlex
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
from smtpbench.measure.result import save, save_finding, save_findings, to_text
from smtpbench.measure.saved import RESULT, Saved
from smtpbench.measure.server_usage import SERVER_CSV
from smtpbench.report.terminal.screen import screen_of, wants_color
from smtpbench.report.terminal.verdict import verdict_text
from smtpbench.rules.finding import Finding
from smtpbench.study import progress
from smtpbench.study.resume import kept_of
from smtpbench.supervisor.server_record import SERVER_CSV_HEADER
from smtpbench.text import visible

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
    """Save a result into a folder, and print where.

    What cannot be written there goes to a temporary folder. If that cannot be written either, the result is printed.

    Args:
        result: What goes into `result.json`.
        folder: Folder to make.
        html: Whether report.html is written too.
        findings: Name of a folder beside the result → the findings to write there.

    Raises:
        CannotRun: No folder could be written.
    """
    failures: list[OSError] = []
    try:
        path = save(result, folder, failures.append)
    except OSError as error:
        typer.echo(to_text(result))
        raise CannotRun(f"the result could not be saved, it stands above: {_reason(error)}") from None
    if failures:
        _print_moved(folder, failures[0], f"the result is in {path.parent}")
    else:
        remove_partial(folder)
    for name, found in findings.items():
        _save_findings(found, path.parent / name)
    typer.echo(f"saved: {saved_files(path, html)}")


def print_verdict(result: Mapping[str, Any], path: Path) -> None:
    """Print the verdict on a result, which is the end of the output of its command.

    Args:
        result: Content of `result.json`.
        path: Folder of the result.
    """
    saved = Saved(str(result["kind"]), dict(result), path / RESULT)
    typer.echo(verdict_text(saved, color=wants_color(sys.stdout), screen=screen_of(sys.stdout)))


def _save_findings(found: Sequence[Finding], folder: Path) -> None:
    """Write findings, and remove those that were found earlier and have been shrunk or not confirmed since."""
    kept, failures = {f"{finding.id}.yaml" for finding in found}, list[OSError]()
    with suppress(OSError):
        for earlier in folder.glob("*.yaml"):
            if earlier.name not in kept:
                earlier.unlink()
    try:
        used = save_findings(((finding.id, finding.to_text()) for finding in found), folder, failures.append)
    except OSError as error:
        raise CannotRun(f"{visible(str(folder))}: not all of them could be saved: {_reason(error)}") from None
    if failures:
        _print_moved(folder, failures[0], f"the others are in {used}")


def _print_moved(folder: Path, error: OSError, where: str) -> None:
    typer.echo(f"smtpbench: {visible(str(folder))} could not be written: {_reason(error)}; {where}", err=True)


def _reason(error: OSError) -> str:
    return visible(error.strerror or str(error)).lower()


def server_rows(folder: Path) -> Callable[[str], None]:
    """Return a function that appends lines to the timeline of the server, and makes that file first.

    Args:
        folder: Folder of the result.
    """
    path = folder / SERVER_CSV

    def append(lines: str) -> None:
        with suppress(OSError):  # the result says what matters
            header = "" if path.exists() else SERVER_CSV_HEADER[SERVER_CSV]
            with path.open("a") as file:
                file.write(header + lines)

    return append


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
        with suppress(OSError):  # those that cannot be written now are written at the end
            for finding in made.findings:
                if finding.id not in self._saved_findings:
                    save_finding(finding.id, finding.to_text(), self._folder / "findings")
                    self._saved_findings.add(finding.id)
        save_partial(made.result, self._folder)


def print_nothing_to_resume(folder: Path) -> None:
    """Print that a command with `--resume` starts from the beginning."""
    typer.echo(f"{visible(str(folder))}: the folder holds nothing to resume; starting from the beginning", err=True)


def raise_unless_completed(result: Mapping[str, Any], folder: Path) -> None:
    """End the command where a study was not completed, and print how it can be continued; print the verdict last.

    Args:
        result: Result of the study.
        folder: Folder that holds it.

    Raises:
        typer.Exit: The study was interrupted.
        CannotRun: It could not run.
    """
    outcome = result["outcome"]
    if outcome["status"] != progress.COMPLETED and kept_of(result) and (folder / RESULT).exists():
        typer.echo(f"to continue: the same command with --resume --out {shlex.quote(visible(str(folder)))}")
    if outcome["status"] != progress.COULD_NOT_RUN:  # the message of the error says why
        print_verdict(result, folder)
    if outcome["status"] == progress.INTERRUPTED:
        raise typer.Exit(INTERRUPTED)
    if outcome["status"] == progress.COULD_NOT_RUN:
        raise CannotRun(outcome["reason"])
