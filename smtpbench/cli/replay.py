"""`smtpbench replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.check.replay import CANNOT_TELL, STILL_THERE, read_findings, replay
from smtpbench.cli.exit_codes import INTERRUPTED
from smtpbench.cli.options import (
    Authorized,
    Ca,
    Cert,
    FixtureFile,
    Insecure,
    Key,
    PasswordFile,
    ReplyTimeout,
    Sni,
    TargetOptions,
)
from smtpbench.target import Trust
from smtpbench.text import visible

FOUND = 1
UNKNOWN = 3


def command(
    files: Annotated[list[Path], typer.Argument(help="Findings that check or fuzz wrote, or folders of them.")],
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="smtp://[user@]host:port and so on; two for a divergence.")
    ] = None,
    fixture: FixtureFile = None,
    timeout: ReplyTimeout = "3s",
    password_file: PasswordFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    sni: Sni = None,
    cert: Cert = None,
    key: Key = None,
    authorized: Authorized = False,
) -> None:
    """Say findings again: STILL THERE, FIXED, or CANNOT TELL.

    Exit code 1 means that one is still there, 3 that none is but one cannot be told.

    \b
      smtpbench replay results/check/findings --target smtp://127.0.0.1:2525
    """
    told = TargetOptions(target or [], Trust(ca, insecure, sni, cert, key), timeout, authorized, password_file).completed(
        fixture
    )
    access, *peers = told.accesses(most=2)
    try:
        outcomes = trio.run(replay, read_findings(files), access, peers[0] if peers else None)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    for one in outcomes:
        why = f"  {visible(one.actual)}" if one.actual else ""
        typer.echo(f"{one.status:<11}  {visible(str(one.path.name))}{why}")
    words = {one.status for one in outcomes}
    if STILL_THERE in words:
        raise typer.Exit(FOUND)
    if CANNOT_TELL in words:
        raise typer.Exit(UNKNOWN)
