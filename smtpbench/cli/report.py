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
from smtpbench.report.terminal.screen import screen_of, wants_color
from smtpbench.text import visible

_STDOUT = Path("-")


def command(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT", help="Result file or its folder, of any command.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One HTML page with everything, for a browser; - is standard output.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="JUnit XML, a test suite for each result.")] = None,
    sarif: Annotated[Path | None, typer.Option(metavar="FILE", help="SARIF 2.1.0, the findings for code scanning.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Markdown as GitHub shows it, tables and findings.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV for a spreadsheet, a row for each metric and time.")
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines, a line for each figure, rule and finding.")
    ] = None,
    hgrm: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Percentiles of --slot, for the HdrHistogram plotter.")
    ] = None,
    openmetrics: Annotated[Path | None, typer.Option(metavar="FILE", help="OpenMetrics text, for Prometheus.")] = None,
    github: Annotated[
        bool,
        typer.Option(
            "--github", help="Write annotations to standard output and Markdown to the file of $GITHUB_STEP_SUMMARY."
        ),
    ] = False,
    latency_metric: Annotated[
        str, typer.Option("--slot", metavar="METRIC", help="Latency metric of --hgrm: message, RCPT, connect …")
    ] = "message",
    time: Annotated[str, typer.Option(metavar="response|service", help="Time of --hgrm.")] = "response",
    fail: Annotated[
        bool,
        typer.Option("--fail", help="Exit with the code of the commands that wrote the results, such as 1 or 99."),
    ] = False,
) -> None:
    """Show saved results, or export them for browsers, CI servers, spreadsheets and dashboards.

    Without a format, results are shown as the command that wrote them showed them.

    \b
    On the terminal:
      smtpbench report results/monday
    For a CI server and code scanning:
      smtpbench report results/check --junit junit.xml --sarif smtpbench.sarif
    A matrix of three servers:
      smtpbench report postfix exim opensmtpd --markdown matrix.md
    Percentiles to standard output:
      smtpbench report results/monday --hgrm - --slot RCPT --time service
    In GitHub Actions:
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
        raise UsageError(f"{' and '.join(to_stdout)} cannot both go to standard output; give a file for all but one")
    if not wanted and not github:
        typer.echo(render("console", saved, color=wants_color(sys.stdout), screen=screen_of(sys.stdout)))
    _write(saved, wanted, github, {"hgrm": {"metric": latency_metric, "time": time}})
    if fail:
        raise typer.Exit(exit_code(saved))


def _write(saved: Sequence[Saved], wanted: Mapping[str, Path], github: bool, options: Mapping[str, dict[str, Any]]) -> None:
    """Write every format that can be written, then raise one error for the others."""
    outputs = list(wanted.items())
    if github:
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        outputs += [("annotations", _STDOUT), *([("summary", Path(summary))] if summary else [])]
    failed: list[SmtpbenchError] = []
    # standard output comes last, because a failure there ends the command
    for name, file in sorted(outputs, key=lambda output: output[1] == _STDOUT):
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
            reason = (error.strerror or str(error)).lower()
            failed.append(CannotRun(f"the {name} was not written: {visible(str(file))}: {reason}"))
    if failed:
        kind = CannotRun if any(isinstance(error, CannotRun) for error in failed) else UsageError
        raise kind("; ".join(map(str, failed)))
