"""`smtpbench check`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from smtpbench.check.run import CheckProgress, CheckRequest, CheckResult, run_check
from smtpbench.cli.exit_codes import FINDINGS, INTERRUPTED
from smtpbench.cli.options import (
    AllowFiles,
    FixtureFile,
    Html,
    LoginOptions,
    OptionalResultFolder,
    Overwrite,
    Progress,
    Recipient,
    ReplyTimeout,
    Sender,
    TargetOptions,
)
from smtpbench.cli.progress import ElapsedProgress, display_for
from smtpbench.cli.result_folder import result_folder
from smtpbench.cli.saving import ResultInProgress, print_verdict, save_result, server_rows
from smtpbench.cli.server_control import SERVER_LOG, ServerControlOptions, run_supervised
from smtpbench.errors import UsageError
from smtpbench.measure.saved import CHECK, Saved
from smtpbench.report.reading.findings import counts_against
from smtpbench.report.terminal.progress import AUTO
from smtpbench.report.terminal.saved import matrix_verdicts
from smtpbench.report.terminal.scorecard import matrix, scorecard
from smtpbench.report.terminal.screen import screen_of, wants_color
from smtpbench.rules.register import find
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.text import plural


def command(
    rules: Annotated[
        list[str] | None, typer.Argument(metavar="RULE", help="Rule to check, by name or number.  [default: all]")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="URL",
            help="Server to check: smtp://[user@]host:port, smtps://, lmtp:// or lmtp+unix:///path; several give a matrix.",
        ),
    ] = None,
    fixture: FixtureFile = None,
    recipient: Recipient = "",
    sender: Sender = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Check recommendations (SHOULD) too, and count them as violations.")
    ] = False,
    timeout: ReplyTimeout = "3s",
    out: OptionalResultFolder = None,
    overwrite: Overwrite = False,
    html: Html = True,
    allow_files: AllowFiles = False,
    progress: Progress = AUTO,
    access: LoginOptions = LoginOptions(),
    server: ServerControlOptions = ServerControlOptions(),
) -> None:
    """Check a server against the protocol rules, and show what it breaks.

    Some rules send what has crashed servers: use a server that may crash. Exit code 1 means a violation.

    \b
    All rules:
      smtpbench check --target smtp://127.0.0.1:2525
    Two rules, with a recipient that the server accepts:
      smtpbench check --target smtp://127.0.0.1:2525 --recipient b@server.test eod-lf-lf eod-lf-crlf
    A submission server, recommendations included:
      SMTPBENCH_PASSWORD=… smtpbench check --target smtp://me@localhost:587 --ca ca.pem --strict
    A server that is started, and started again where a rule kills it:
      smtpbench check --target smtp://127.0.0.1:2525 --start './server --port 2525'
    Two servers side by side:
      smtpbench check --target smtp://127.0.0.1:2525 --target smtp://127.0.0.1:2526
    """
    options = TargetOptions(target or [], access, timeout, recipient, sender).completed(fixture, allow_files=allow_files)
    if out is not None and len(options.urls) > 1:
        raise UsageError(f"--out takes the result of one target, and {len(options.urls)} are given")
    server_options = server.options(restart=True)
    if (server.start or server.watch) and len(options.urls) > 1:
        raise UsageError(f"--start and --watch are about the server of one target, and {len(options.urls)} are given")
    selected = find(rules or ())
    repeat_options = [f"--recipient={options.recipient}"] if options.recipient else []
    repeat_options += [f"--sender={options.sender}"] if options.sender else []
    repeat_options += [f"--ca={options.access.ca}"] if options.access.ca else []
    repeat_options += ["--insecure"] if options.access.insecure else []
    repeat_options += server.repeat_options()
    with result_folder(out, overwrite) if out is not None else nullcontext():
        checked: list[CheckResult] = []
        accesses = options.accesses()
        in_progress = ResultInProgress(out)
        with display_for(progress, "protocol rules", " and ".join(options.urls)) as display:
            shown = ElapsedProgress(display)

            def report_progress(update: CheckProgress) -> None:
                target = f"{update.target}: " if len(accesses) > 1 else ""
                status = f"{target}{update.phase}, {update.done} of {plural(update.total, 'rule')}  {update.rule}".rstrip()
                shown.update(status, (len(checked) * update.total + update.done) / max(1, len(accesses) * update.total))

            for one in accesses:
                request = CheckRequest(
                    one, selected, options.recipient, options.sender, strict or bool(rules), repeat_options
                )
                if out is not None:
                    request = replace(request, append_server_row=server_rows(out))

                async def work(supervised: SupervisedServer, request: CheckRequest = request) -> CheckResult:
                    return await run_check(replace(request, server=supervised), report_progress, in_progress.update)

                checked.append(run_supervised(server_options, one, None if out is None else out / SERVER_LOG, work))
                if checked[-1].stopped:
                    break
        results = [one.result for one in checked]
        color = wants_color(sys.stdout)
        if len(results) > 1:
            typer.echo(f"{matrix(results, color=color)}\n")
            several = [Saved(CHECK, result, Path()) for result in results]
            typer.echo(matrix_verdicts(several, color=color, screen=screen_of(sys.stdout)))
        else:
            typer.echo(scorecard(results[0], color=color))
            if out is not None:
                save_result(results[0], out, html, findings=checked[0].findings)
            print_verdict(results[0], out or Path())
        if checked[-1].stopped:
            raise typer.Exit(INTERRUPTED)
        if any(
            counts_against(rule["verdict"], rule["severity"], result["strict"])
            for result in results
            for rule in result["rules"].values()
        ):
            raise typer.Exit(FINDINGS)
