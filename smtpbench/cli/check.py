"""`smtpbench check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.check.run import CheckRequest, run_check
from smtpbench.cli.exit_codes import INTERRUPTED
from smtpbench.cli.options import (
    Authorized,
    Ca,
    Cert,
    FixtureFile,
    Html,
    Insecure,
    Key,
    PasswordFile,
    Recipient,
    ReplyTimeout,
    Sni,
    TargetOptions,
)
from smtpbench.cli.saving import keep
from smtpbench.errors import UsageError
from smtpbench.report.terminal.scorecard import counts_against, matrix, scorecard
from smtpbench.report.terminal.tables import wants_color
from smtpbench.rules.register import find
from smtpbench.target import Trust

VIOLATIONS = 1


def command(
    rules: Annotated[list[str] | None, typer.Argument(help="Rules to try, by name or number.  [default: all]")] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="smtp://[user@]host:port and so on; several make a matrix.")
    ] = None,
    fixture: FixtureFile = None,
    recipient: Recipient = "",
    sender: Annotated[str, typer.Option(help="Whom mail comes from.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Try SHOULDs too, and fail for them.")] = False,
    timeout: ReplyTimeout = "3s",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write result.json into this folder.")] = None,
    html: Html = True,
    password_file: PasswordFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    sni: Sni = None,
    cert: Cert = None,
    key: Key = None,
    authorized: Authorized = False,
) -> None:
    """Try a server against the protocol's rules, and show what it breaks.

    Some rules are tried by what servers have died of: give it a server that may die. Exit code 1 means a violation.

    \b
      smtpbench check --target smtp://127.0.0.1:2525
      smtpbench check --target smtp://127.0.0.1:2525 --recipient b@server.test eod-lf-lf eod-lf-crlf
      SMTPBENCH_PASSWORD=… smtpbench check --target smtp://me@localhost:587 --ca ca.pem --strict
      smtpbench check --target smtp://127.0.0.1:2525 --target smtp://127.0.0.1:2526
    """
    trust = Trust(ca, insecure, sni, cert, key)
    told = TargetOptions(target or [], trust, timeout, authorized, password_file, recipient, sender).completed(fixture)
    if out is not None and len(told.targets) > 1:
        raise UsageError("--out goes with one target")
    wanted = find(rules or ())
    options = [f"--recipient={told.recipient}"] if told.recipient else []
    options += [f"--sender={told.sender}"] if told.sender else []
    options += [f"--ca={told.trust.ca}"] if told.trust.ca else []
    options += ["--insecure"] if told.trust.insecure else []
    verdicts = []
    for access in told.accesses():
        request = CheckRequest(access, wanted, told.recipient, told.sender, strict or bool(rules), options)
        verdicts.append(trio.run(run_check, request))
        if verdicts[-1].stopped:
            break
    results = [verdict.result for verdict in verdicts]
    color = wants_color(sys.stdout)
    if len(results) > 1:
        typer.echo(matrix(results, color=color))
    else:
        typer.echo(scorecard(results[0], color=color))
    if out is not None:
        keep(results[0], out, html, findings=verdicts[0].findings)
    if verdicts[-1].stopped:
        raise typer.Exit(INTERRUPTED)
    if any(counts_against(rule, result["strict"]) for result in results for rule in result["rules"].values()):
        raise typer.Exit(VIOLATIONS)
