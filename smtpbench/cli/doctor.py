"""`smtpbench doctor`."""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.cli.choices import option_value
from smtpbench.cli.exit_codes import FINDINGS, INTERRUPTED
from smtpbench.cli.options import ConnectionOptions, Progress, ReplyTimeout
from smtpbench.cli.progress import ElapsedProgress, display_for
from smtpbench.cli.server_control import ServerControlOptions, run_supervised
from smtpbench.doctor.diagnosis import BAD
from smtpbench.doctor.examine import DoctorRequest, examine
from smtpbench.errors import UsageError
from smtpbench.report.terminal.doctor import examination
from smtpbench.report.terminal.progress import AUTO
from smtpbench.report.terminal.screen import screen_of, wants_color
from smtpbench.units import parse_duration_ns

#: What `examine` reports of this machine; a target is one more.
_MACHINE_STEPS = 3


def command(
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="URL",
            help="Server to examine too: smtp://host:port, smtps://, lmtp:// or lmtp+unix:///path.  [default: none]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for results, whose disk is examined.")
    ] = Path("results"),
    timeout: ReplyTimeout = "10s",
    progress: Progress = AUTO,
    access: ConnectionOptions = ConnectionOptions(),
    server: ServerControlOptions = ServerControlOptions(),
) -> None:
    """Examine this machine before a run: what could become the bottleneck, and at which load.

    Limits, ports, cores, quotas, memory, clocks and disk are read. Timers and the cost of a message are measured, which
    takes about six seconds. A --target is greeted; no mail is sent to it. Exit code 1 means that something is bad; warnings
    leave it 0.

    \b
    This machine:
      smtpbench doctor
    A server too:
      smtpbench doctor --target smtp://127.0.0.1:2525
    A server on another machine, with a certificate of its own:
      smtpbench doctor --target smtp://mx.example:25 --authorized --ca ca.pem
    As JSON, only what is not ok:
      smtpbench doctor --json | jq '.checks[] | select(.verdict != "ok")'
    """
    option_value("--timeout", parse_duration_ns, timeout)  # a mistake in it is an error without a target too
    request = DoctorRequest(out, access.access_to(target, timeout) if target else None)
    server_options = server.options(restart=False)
    if (server.start or server.watch) and request.access is None:
        raise UsageError("--start and --watch are about the server of --target; add --target URL")
    steps, done = _MACHINE_STEPS + bool(target), count()
    with display_for(progress, "this machine", target or "") as display:
        shown = ElapsedProgress(display)

        def notify(text: str) -> None:
            shown.update(text, next(done) / steps)

        if request.access is not None and server.start:
            report = run_supervised(server_options, request.access, None, lambda _: examine(request, notify))
        else:
            report = trio.run(examine, request, notify)
    if report is None:
        raise typer.Exit(INTERRUPTED)
    if as_json:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        typer.echo(examination(report, color=wants_color(sys.stdout), screen=screen_of(sys.stdout)))
    if report["verdict"] == BAD:
        raise typer.Exit(FINDINGS)
