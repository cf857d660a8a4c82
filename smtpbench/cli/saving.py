"""How commands save a result and its findings, and how those that were not completed end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from smtpbench.cli.exit_codes import INTERRUPTED
from smtpbench.errors import CannotRun
from smtpbench.measure.result import save, save_findings
from smtpbench.rules.finding import Finding
from smtpbench.study import progress


def saved_files(path: Path, html: bool) -> str:
    """Return what stands after `saved:`: a result that was written, and the report that is written beside it here."""
    if not html:
        return str(path)
    # the page needs a template engine: it is imported after the measurement, and not by commands that write no page
    from smtpbench.report.html.page import report_beside

    return ", ".join(name for name in (str(path), report_beside(path)) if name)


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
        for name, found in findings.items():
            save_findings(((finding.id, finding.to_text()) for finding in found), path.parent / name)
    except OSError as error:
        raise CannotRun(f"the result could not be saved: {error.strerror}") from None
    typer.echo(f"saved: {saved_files(path, html)}")


def raise_unless_completed(result: Mapping[str, Any]) -> None:
    """End the command where a study was not completed. Raises typer.Exit, CannotRun."""
    outcome = result["outcome"]
    if outcome["status"] == progress.INTERRUPTED:
        raise typer.Exit(INTERRUPTED)
    if outcome["status"] == progress.COULD_NOT_RUN:
        raise CannotRun(outcome["reason"])
