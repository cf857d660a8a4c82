"""`smtpbench compare`."""

from __future__ import annotations

import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from smtpbench.cli.choices import option_value
from smtpbench.cli.exit_codes import FINDINGS
from smtpbench.cli.options import (
    AllowFiles,
    Connections,
    FailIfWorse,
    Html,
    LoginOptions,
    Messages,
    MessageSize,
    Metrics,
    Overwrite,
    Progress,
    Rate,
    Recipient,
    ResultFolder,
    Resume,
    Seed,
    Workers,
)
from smtpbench.cli.progress import ElapsedProgress, display_for
from smtpbench.cli.result_folder import result_folder
from smtpbench.cli.saving import print_nothing_to_resume, raise_unless_completed, save_result
from smtpbench.cli.scenario_file import print_warnings
from smtpbench.measure.comparison import any_worse
from smtpbench.report.terminal.comparison import comparison_table
from smtpbench.report.terminal.progress import AUTO
from smtpbench.report.terminal.screen import wants_color
from smtpbench.scenario.comparison import validate_comparison as checked
from smtpbench.study.candidates import AccessOptions, make_request, resumed
from smtpbench.study.compare import compare
from smtpbench.study.options import document_of
from smtpbench.units import parse_duration_ns


def command(
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO", help="Scenario file, name of a shipped scenario, or comparison file with candidates."
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="NAME=URL",
            help="Candidate and its server; one URL without a name is the server of every candidate of --with.",
        ),
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=OPTIONS", help="Load of a candidate, as options of `run`: 5='-c 5 -r 100/s'."),
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COMMAND", help="Shell command that runs a candidate's server, started for each run."),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COMMAND", help="Shell command that ends the server, where ending the one of --start does not."
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, max=1000, help="Runs of each candidate.  [default: 12]")
    ] = None,
    connections: Connections = None,
    messages: Messages = None,
    duration: Annotated[
        str | None,
        typer.Option(
            "--duration", "-d", metavar="DURATION", help="Time to send for in each run, after its warm-up.  [default: 5s]"
        ),
    ] = None,
    rate: Rate = None,
    warmup: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Time to send before measurement begins, in each run.  [default: 1s]"),
    ] = None,
    workers: Workers = None,
    size: MessageSize = None,
    metric: Metrics = None,
    confidence: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Simultaneous confidence level of all intervals.  [default: 95%]")
    ] = None,
    least: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Smallest relative change to report.  [default: 1%]")
    ] = None,
    check: Annotated[
        bool | None,
        typer.Option("--check/--no-check", help="Check each candidate against the protocol rules too.  [default: no-check]"),
    ] = None,
    recipient: Recipient = "",
    fail_if_worse: FailIfWorse = False,
    seed: Seed = None,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="Time limit for one reply while a server starts and in --check.")
    ] = "3s",
    out: ResultFolder = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    html: Html = True,
    allow_files: AllowFiles = False,
    progress: Progress = AUTO,
    access: LoginOptions = LoginOptions(),
) -> None:
    """Compare servers or settings: runs that take turns, and for each metric the change with its confidence interval.

    The first candidate is the baseline. A comparison file can hold everything (`smtpbench schema comparison`).

    \b
    Two servers under the same load:
      smtpbench compare relay -t old=smtp://127.0.0.1:2525 -t new=smtp://127.0.0.1:2526 -r 200/s
    One server under two loads:
      smtpbench compare relay -t smtp://127.0.0.1:2525 --with 5='-c 5' --with 50='-c 50' -m throughput
    Two configurations that use the same port, started for each run, and their protocol violations:
      smtpbench compare relay -t a=smtp://127.0.0.1:2525 --start a='exec ./server --fast' \\
                              -t b=smtp://127.0.0.1:2525 --start b='exec ./server --safe' --check
    A comparison file, in a build: exit code 1 where a candidate is worse than the first:
      smtpbench compare postfix-tls.yaml --repeats 20 --fail-if-worse
    The rest of a comparison that was interrupted, with the same options:
      smtpbench compare postfix-tls.yaml --out results/tls --resume
    """
    load = {"connections": connections, "messages": messages, "duration": duration, "rate": rate, "warmup": warmup,
            "workers": workers}  # fmt: skip
    overrides: dict[str, Any] = {
        "load": load, "repeats": repeats, "size": size, "metrics": metric, "confidence": confidence, "least": least,
        "check": check,
    }  # fmt: skip
    candidates = {"target": target, "with": with_, "start": start, "stop": stop}
    document, folder = document_of(scenario, candidates, overrides, recipient)
    comparison = checked(document, folder, allow_files=allow_files)
    defaults = AccessOptions(
        access.trust, access.password_file, option_value("--timeout", parse_duration_ns, timeout), access.authorized
    )
    number = secrets.randbits(32) if seed is None else seed
    request = make_request(comparison, folder, defaults, out or Path(), number, allow_files=allow_files)
    print_warnings(request.file)
    targets = ", ".join(f"{one.name}={one.access.target.url}" for one in request.candidates)
    with result_folder(out, overwrite, f"compare-{Path(scenario).stem}", resume=resume) as into:
        request = replace(request, folder=into)
        if resume:
            request = resumed(request, keep_seed=seed is not None)
            if request.interrupted is None:
                print_nothing_to_resume(into)
        with display_for(progress, request.file.name, targets) as display:
            result = trio.run(compare, request, ElapsedProgress(display).study)
        typer.echo(comparison_table(result, color=wants_color(sys.stdout)))
        save_result(result, into, html)
        raise_unless_completed(result, into)
        if fail_if_worse and any_worse(result):
            raise typer.Exit(FINDINGS)
