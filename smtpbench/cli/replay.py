"""`smtpbench replay`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from smtpbench.check.replay import CANNOT_TELL, FIXED, STILL_THERE, ReplayResult, read_findings, replay
from smtpbench.cli.exit_codes import FINDINGS, INTERRUPTED
from smtpbench.cli.options import AllowFiles, FixtureFile, LoginOptions, Progress, ReplyTimeout, TargetOptions
from smtpbench.cli.progress import ElapsedProgress, display_for
from smtpbench.cli.server_control import ServerControlOptions, run_supervised
from smtpbench.errors import CannotRun
from smtpbench.report.reading.verdict import replay_verdict
from smtpbench.report.terminal.progress import AUTO
from smtpbench.report.terminal.screen import screen_of, styled, wants_color
from smtpbench.report.terminal.verdict import verdict_lines
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.text import plural, visible


def command(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Finding that `check` or `fuzz` wrote, or a folder of findings.")
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="URL",
            help="Server to replay on: smtp://[user@]host:port, smtps://, lmtp:// or lmtp+unix:///path; two for a "
            "divergence.",
        ),
    ] = None,
    fixture: FixtureFile = None,
    timeout: ReplyTimeout = "3s",
    allow_files: AllowFiles = False,
    progress: Progress = AUTO,
    access: LoginOptions = LoginOptions(),
    server: ServerControlOptions = ServerControlOptions(),
) -> None:
    """Replay findings on a server and report which are fixed: STILL THERE, FIXED or CANNOT TELL.

    Exit code 1 means that a finding is still there; 3 means that none is, but at least one cannot be told.

    \b
    All findings of a check:
      smtpbench replay results/check/findings --target smtp://127.0.0.1:2525
    A crash, judged by the death of a server that is started for it:
      smtpbench replay findings/crash-1.yaml -t smtp://127.0.0.1:2525 --start './server --port 2525'
    """
    options = TargetOptions(target or [], access, timeout).completed(fixture, allow_files=allow_files)
    first, *peers = options.accesses(most=2)
    server_options = server.options(restart=True)
    findings = read_findings(files, allow_files=allow_files)
    with display_for(progress, plural(len(findings), "finding"), " and ".join(options.urls)) as display:
        shown = ElapsedProgress(display)

        def report_progress(done: int, path: Path) -> None:
            shown.update(visible(path.name), done / len(findings), equal_parts=True)

        async def work(supervised: SupervisedServer) -> list[ReplayResult]:
            return await replay(findings, first, peers[0] if peers else None, report_progress, supervised)

        try:
            outcomes = run_supervised(server_options, first, None, work)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    for one in outcomes:
        reason = f"  {visible(one.actual)}" if one.actual else ""
        typer.echo(f"{one.status:<11}  {visible(str(one.path.name))}{reason}")
    verdict = replay_verdict([(visible(one.path.name), one.status) for one in outcomes], STILL_THERE, FIXED)
    for line, style in verdict_lines(verdict, screen_of(sys.stdout)):
        typer.echo(styled(line, style if wants_color(sys.stdout) else ""))
    statuses = {one.status for one in outcomes}
    if STILL_THERE in statuses:
        raise typer.Exit(FINDINGS)
    if CANNOT_TELL in statuses:
        raise typer.Exit(CannotRun.exit_code)
