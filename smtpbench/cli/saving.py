"""What commands do with a result once it is shown: keep it, with its findings and its page, and end as it did."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from smtpbench.cli.exit_codes import INTERRUPTED
from smtpbench.cli.options import saved_words
from smtpbench.errors import CannotRun
from smtpbench.measure.result import save, save_findings
from smtpbench.rules.finding import Finding
from smtpbench.study import progress


def report_progress(text: str) -> None:
    """A line of progress."""
    print(f"smtpbench: {text}", file=sys.stderr, flush=True)


def keep(result: dict[str, Any], folder: Path, html: bool, **findings: Sequence[Finding]) -> None:
    """Save a result into a folder, and findings into the folders beside it that are named. Raises CannotRun."""
    try:
        where = save(result, folder)
        for place, found in findings.items():
            save_findings(((finding.id, finding.to_text()) for finding in found), where.parent / place)
    except OSError as error:
        raise CannotRun(f"the result could not be saved: {error.strerror}") from None
    typer.echo(f"saved: {saved_words(where, html)}")


def end_early(result: Mapping[str, Any]) -> None:
    """Where a study was not completed. Raises typer.Exit, CannotRun."""
    outcome = result["outcome"]
    if outcome["status"] == progress.INTERRUPTED:
        raise typer.Exit(INTERRUPTED)
    if outcome["status"] == progress.COULD_NOT_RUN:
        raise CannotRun(outcome["reason"])
