"""`smtpbench replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.check.replay import CANNOT_TELL, STILL_THERE, Request, read_findings, replay
from smtpbench.cli.fixture import Told
from smtpbench.target import Trust, parse_target, read_password
from smtpbench.text import visible
from smtpbench.units import parse_duration_ns

FOUND = 1
UNKNOWN = 3
INTERRUPTED = 130


def command(
    files: Annotated[list[Path], typer.Argument(help="Findings that check or fuzz wrote, or folders of them.")],
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="smtp://[user@]host:port and so on; two for a divergence.")
    ] = None,
    fixture: Annotated[Path | None, typer.Option(help="A file with target, recipient, sender, password-file, ca.")] = None,
    timeout: Annotated[str, typer.Option(help="How long one reply may take.")] = "3s",
    password_file: Annotated[
        Path | None, typer.Option(help="Its first line is the password; else SMTPBENCH_PASSWORD is.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of the certificate authorities to trust.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Trust any certificate.")] = False,
    sni: Annotated[str | None, typer.Option(help="The server name to ask for and verify.")] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM file of the client's certificate.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its key, if that is elsewhere.")] = None,
    authorized: Annotated[
        bool, typer.Option("--authorized", help="You may test this host, although it is not this machine.")
    ] = False,
) -> None:
    """Say findings again: STILL THERE, FIXED, or CANNOT TELL.

    Exit code 1 means that one is still there, 3 that none is but one cannot be told.

    \b
      smtpbench replay results/check/findings --target smtp://127.0.0.1:2525
    """
    told = Told(target or [], "", "", password_file, ca, insecure).completed(fixture)
    parsed, *peers = map(parse_target, told.targets[:2])
    request = Request(
        target=parsed,
        trust=Trust(told.ca, told.insecure, sni, cert, key),
        password=read_password(told.password_file) if parsed.user else None,
        timeout_ns=parse_duration_ns(timeout),
        authorized=authorized,
        peer=peers[0] if peers else None,
    )
    try:
        outcomes = trio.run(replay, read_findings(files), request)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    for one in outcomes:
        why = f"  {visible(one.actual)}" if one.actual else ""
        typer.echo(f"{one.word:<11}  {visible(str(one.path.name))}{why}")
    words = {one.word for one in outcomes}
    if STILL_THERE in words:
        raise typer.Exit(FOUND)
    if CANNOT_TELL in words:
        raise typer.Exit(UNKNOWN)
