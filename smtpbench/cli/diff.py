"""`smtpbench diff`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from smtpbench.cli.choices import option_value
from smtpbench.cli.exit_codes import FINDINGS
from smtpbench.cli.options import FailIfWorse, Html, Metrics, OptionalResultFolder, Overwrite
from smtpbench.cli.result_folder import result_folder
from smtpbench.cli.saving import print_verdict, save_result
from smtpbench.errors import UsageError
from smtpbench.measure.comparison import any_worse
from smtpbench.report.terminal.comparison import comparison_table
from smtpbench.report.terminal.screen import wants_color
from smtpbench.scenario.comparison import DEFAULT_METRICS, SERVER_METRIC
from smtpbench.study.diff import diff, load_candidates
from smtpbench.threshold import parse_metric
from smtpbench.units import parse_share


def command(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT", help="Result file, its folder, or a folder of several runs; two or more, the baseline first."
        ),
    ],
    metric: Metrics = None,
    confidence: Annotated[
        str, typer.Option(metavar="SHARE", help="Simultaneous confidence level of all intervals.")
    ] = "95%",
    least: Annotated[str, typer.Option(metavar="SHARE", help="Smallest relative change to report.")] = "1%",
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs of different scenarios, rates or sizes, with a note.")
    ] = False,
    fail_if_worse: FailIfWorse = False,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=0,
            help="Random seed of the resampling; the same seed repeats the intervals.  [default: drawn at random]",
        ),
    ] = None,
    out: OptionalResultFolder = None,
    overwrite: Overwrite = False,
    html: Html = True,
) -> None:
    """Compare saved results with the first of them: for each metric the change with its confidence interval.

    Results of `run` are compared by their metrics, those of `check` and `fuzz` by the rules that the server broke. Runs of
    another scenario, rate or size are refused. Several runs on each side give narrower intervals: put the folders of a side
    into one folder.

    \b
    Two runs:
      smtpbench diff results/monday results/tuesday
    Two folders of several runs, in a build: exit code 1 where the second is worse:
      smtpbench diff nightly/main nightly/branch --metric message.p99 --fail-if-worse
    """
    if len(results) < 2:
        raise UsageError("1 result cannot be compared; give two or more")
    with result_folder(out, overwrite) if out is not None else nullcontext():
        result = diff(
            load_candidates(results),
            [option_value("--metric", parse_metric, text) for text in metric or DEFAULT_METRICS],
            confidence=option_value("--confidence", parse_share, confidence),
            least=option_value("--least", parse_share, least),
            force=force,
            seed=seed,
            optional_metrics=[] if metric else [parse_metric(SERVER_METRIC)],
        )
        typer.echo(comparison_table(result, color=wants_color(sys.stdout)))
        if out is not None:
            save_result(result, out, html)
        print_verdict(result, out or Path())
        if fail_if_worse and any_worse(result):
            raise typer.Exit(FINDINGS)
