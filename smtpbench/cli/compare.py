"""`smtpbench compare`."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from smtpbench.cli.options import (
    Authorized,
    Ca,
    Cert,
    Html,
    Insecure,
    Key,
    PasswordFile,
    Recipient,
    ReplyTimeout,
    Sni,
)
from smtpbench.cli.saving import end_early, keep, report_progress
from smtpbench.measure.comparison import any_worse
from smtpbench.report.terminal.comparison import comparison_table
from smtpbench.report.terminal.tables import wants_color
from smtpbench.scenario.comparison import check as checked
from smtpbench.study.candidates import AccessOptions, make_request
from smtpbench.study.compare import compare
from smtpbench.study.options import document_of
from smtpbench.target import Trust
from smtpbench.units import parse_duration_ns

WORSE = 1


def command(
    what: Annotated[str, typer.Argument(help="A scenario (file or shipped name), or a comparison file with candidates.")],
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="NAME=URL, for each candidate; one URL for all with --with.")
    ] = None,
    with_: Annotated[
        list[str] | None, typer.Option("--with", help="NAME='-c 10 -r 100/s': what a candidate is loaded with.")
    ] = None,
    start: Annotated[list[str] | None, typer.Option(help="NAME=COMMAND that runs the candidate's server.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="NAME=COMMAND that ends it, where ending --start is not enough.")
    ] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Runs of each candidate.  [default: 12]")] = None,
    connections: Annotated[int | None, typer.Option("--connections", "-c", min=1, help="As of `run`.")] = None,
    messages: Annotated[int | None, typer.Option("--messages", "-n", min=1, help="As of `run`.")] = None,
    duration: Annotated[str | None, typer.Option("--duration", "-d", help="Of each run.  [default: 5s]")] = None,
    rate: Annotated[str | None, typer.Option("--rate", "-r", help="Open model, as of `run`.")] = None,
    warmup: Annotated[str | None, typer.Option(help="Of each run.  [default: 1s]")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="As of `run`.")] = None,
    size: Annotated[str | None, typer.Option(help="Generate messages of this size.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="What to compare: RCPT.p95, replies.RCPT.4xx; see thresholds.")
    ] = None,
    confidence: Annotated[str | None, typer.Option(help="Of all intervals together.  [default: 95%]")] = None,
    least: Annotated[str | None, typer.Option(help="Ratios nearer to 1 are no difference.  [default: 1%]")] = None,
    check: Annotated[bool | None, typer.Option("--check/--no-check", help="Try the protocol's rules on each too.")] = None,
    recipient: Recipient = "",
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit code 1 where a candidate is worse than the first.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes every draw the same again.")] = None,
    timeout: ReplyTimeout = "3s",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder.  [default: results/<comparison>]")] = None,
    html: Html = True,
    password_file: PasswordFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    sni: Sni = None,
    cert: Cert = None,
    key: Key = None,
    authorized: Authorized = False,
) -> None:
    """Run candidates in turns, many times, and say what differs, by how much, and how sure that is.

    The first candidate is what the others are held against. A file can say all of it (`smtpbench schema comparison`).

    \b
      smtpbench compare relay -t old=smtp://127.0.0.1:2525 -t new=smtp://127.0.0.1:2526 -r 200/s
      smtpbench compare relay -t smtp://127.0.0.1:2525 --with 5='-c 5' --with 50='-c 50' -m throughput
      smtpbench compare relay -t a=smtp://127.0.0.1:2525 --start a='exec ./server --fast' \\
                              -t b=smtp://127.0.0.1:2525 --start b='exec ./server --safe' --check
      smtpbench compare postfix-tls.yaml --repeats 20 --fail-if-worse
    """
    load = {"connections": connections, "messages": messages, "duration": duration, "rate": rate, "warmup": warmup,
            "workers": workers}  # fmt: skip
    told: dict[str, Any] = {
        "load": load, "repeats": repeats, "size": size, "metrics": metric, "confidence": confidence, "least": least,
        "check": check,
    }  # fmt: skip
    sides = {"target": target, "with": with_, "start": start, "stop": stop}
    document, folder = document_of(what, sides, told, recipient)
    comparison = checked(document, folder)
    means = AccessOptions(Trust(ca, insecure, sni, cert, key), password_file, parse_duration_ns(timeout), authorized)
    where = out or Path("results") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-compare-{Path(what).stem}"
    request = make_request(comparison, folder, means, where, secrets.randbits(32) if seed is None else seed)
    result = trio.run(compare, request, report_progress)
    typer.echo(comparison_table(result, color=wants_color(sys.stdout)))
    keep(result, where, html)
    end_early(result)
    if fail_if_worse and any_worse(result):
        raise typer.Exit(WORSE)
