"""`smtpbench report`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from smtpbench.cli.choices import TIMES, one_of
from smtpbench.errors import CannotRun, SmtpbenchError, UsageError
from smtpbench.measure.saved import Saved, load
from smtpbench.report.formats.registry import render
from smtpbench.report.formats.writing import append, write_whole
from smtpbench.report.reading.exit_code import exit_code
from smtpbench.report.terminal.tables import wants_color
from smtpbench.text import visible

_STDOUT = Path("-")


def command(
    results: Annotated[list[Path], typer.Argument(help="Results or their folders, of any kind.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="One page with everything, for a browser.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="JUnit XML: a test suite a result.")] = None,
    sarif: Annotated[Path | None, typer.Option(metavar="FILE", help="SARIF 2.1.0: findings, for code scanning.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Tables and findings, as GitHub shows them.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="A row a slot and time, for a spreadsheet.")] = None,
    jsonl: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON Lines: every figure, rule and finding.")] = None,
    hgrm: Annotated[Path | None, typer.Option(metavar="FILE", help="Percentiles, for HdrHistogram's plotter.")] = None,
    openmetrics: Annotated[Path | None, typer.Option(metavar="FILE", help="OpenMetrics text, for Prometheus.")] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Annotations to standard output, Markdown to $GITHUB_STEP_SUMMARY.")
    ] = False,
    slot: Annotated[str, typer.Option(help="Of --hgrm: message, RCPT, connect …")] = "message",
    time: Annotated[str, typer.Option(help="Of --hgrm: response or service.")] = "response",
    fail: Annotated[
        bool, typer.Option("--fail", help="End as the results would have: 1 findings or worse, 99 a threshold failed …")
    ] = False,
) -> None:
    """Show saved results, or write them for browsers, CI servers, spreadsheets and dashboards.

    FILE - is standard output. Without a format, it shows what was shown when the results were made.

    \b
      smtpbench report results/monday
      smtpbench report results/check --junit junit.xml --sarif smtpbench.sarif
      smtpbench report postfix exim opensmtpd --markdown matrix.md
      smtpbench report results/monday --hgrm - --slot RCPT --time service
      smtpbench report results/monday --github --fail
    """
    one_of("--time", time, TIMES)
    saved = [load(path) for path in results]
    files = {
        "html": html, "junit": junit, "sarif": sarif, "markdown": markdown, "csv": csv, "jsonl": jsonl, "hgrm": hgrm,
        "openmetrics": openmetrics,
    }  # fmt: skip
    wanted = {name: file for name, file in files.items() if file is not None}
    to_stdout = [f"--{name}" for name, file in wanted.items() if file == _STDOUT] + (["--github"] if github else [])
    if len(to_stdout) > 1:
        raise UsageError(f"{' and '.join(to_stdout)} cannot all go to standard output")
    if not wanted and not github:
        typer.echo(render("console", saved, color=wants_color(sys.stdout)))
    _write(saved, wanted, github, {"hgrm": {"slot": slot, "time": time}})
    if fail:
        raise typer.Exit(exit_code(saved))


def _write(saved: Sequence[Saved], wanted: Mapping[str, Path], github: bool, options: Mapping[str, dict[str, Any]]) -> None:
    """Every format that can be written, and then one error for those that cannot."""
    steps = list(wanted.items())
    if github:
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        steps += [("annotations", _STDOUT), *([("summary", Path(summary))] if summary else [])]
    failed: list[SmtpbenchError] = []
    for name, file in sorted(steps, key=lambda step: step[1] == _STDOUT):  # what fails there ends the command
        try:
            text = render(name, saved, **options.get(name, {}))
            if file == _STDOUT:
                typer.echo(text, nl=False)
            elif name == "summary":
                append(text, file)
            else:
                write_whole(text, file)
        except SmtpbenchError as error:
            failed.append(error)
        except OSError as error:
            if file == _STDOUT:
                raise
            why = (error.strerror or str(error)).lower()
            failed.append(CannotRun(f"the {name} was not written: {visible(str(file))}: {why}"))
    if failed:
        kind = CannotRun if any(isinstance(error, CannotRun) for error in failed) else UsageError
        raise kind("; ".join(map(str, failed)))
