"""`smtpbench diff`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from smtpbench.cli.options import Html
from smtpbench.cli.saving import keep
from smtpbench.errors import UsageError
from smtpbench.measure.comparison import any_worse
from smtpbench.report.terminal.comparison import comparison_table
from smtpbench.report.terminal.tables import wants_color
from smtpbench.scenario.comparison import METRICS
from smtpbench.study.diff import diff, sides_of
from smtpbench.threshold import parse_metric
from smtpbench.units import parse_share

WORSE = 1


def command(
    results: Annotated[list[Path], typer.Argument(help="Two or more: results, their folders, or folders of several runs.")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="What to compare: RCPT.p95, throughput; see thresholds.")
    ] = None,
    confidence: Annotated[str, typer.Option(help="Of all intervals together.")] = "95%",
    least: Annotated[str, typer.Option(help="Ratios nearer to 1 are no difference.")] = "1%",
    force: Annotated[bool, typer.Option("--force", help="Compare what should not be, and say so.")] = False,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit code 1 where one is worse than the first.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the resampling: the same intervals again.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write result.json into this folder.")] = None,
    html: Html = True,
) -> None:
    """Hold saved results against the first: what differs, by how much, and how sure that is.

    Runs of `run` by their figures; results of `check` and `fuzz` by the rules that they show broken. Runs of another
    scenario, rate or size are refused. Several runs a side tell more than one: put their folders into one folder.

    \b
      smtpbench diff results/monday results/tuesday
      smtpbench diff nightly/main nightly/branch --metric message.p99 --fail-if-worse
    """
    if len(results) < 2:
        raise UsageError("one result has nothing to be held against; name two or more")
    found = diff(
        sides_of(results), [parse_metric(text) for text in metric or METRICS], confidence=parse_share(confidence),
        least=parse_share(least), force=force, seed=seed,
    )  # fmt: skip
    typer.echo(comparison_table(found, color=wants_color(sys.stdout)))
    if out is not None:
        keep(found, out, html)
    if fail_if_worse and any_worse(found):
        raise typer.Exit(WORSE)
