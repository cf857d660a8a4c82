"""`smtpbench doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.cli.exit_codes import INTERRUPTED
from smtpbench.cli.options import Authorized, Ca, Cert, Insecure, Key, ReplyTimeout, Sni
from smtpbench.doctor.diagnosis import BAD
from smtpbench.doctor.examine import DoctorRequest, examine
from smtpbench.report.terminal.doctor import examination
from smtpbench.report.terminal.tables import wants_color
from smtpbench.target import Access, Trust, parse_target
from smtpbench.units import parse_duration_ns

FOUND = 1


def command(
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Look at this target too: smtp://host:port and so on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that results would go to.")] = Path("results"),
    timeout: ReplyTimeout = "10s",
    ca: Ca = None,
    insecure: Insecure = False,
    sni: Sni = None,
    cert: Cert = None,
    key: Key = None,
    authorized: Authorized = False,
) -> None:
    """Look at this machine before a run: what would make it the bottleneck, and what that limits.

    Limits, ports, cores, quotas, memory, clocks and disk are read; timers and the cost of a message are measured, in about
    six seconds. With --target it also says hello to the target: no mail is sent. Exit code 1 means that something is bad;
    a warning leaves it 0.

    \b
      smtpbench doctor
      smtpbench doctor --target smtp://127.0.0.1:2525
      smtpbench doctor --target smtp://mx.example:25 --authorized --ca ca.pem
      smtpbench doctor --json | jq '.checks[] | select(.verdict != "ok")'
    """
    trust = Trust(ca, insecure, sni, cert, key)
    timeout_ns = parse_duration_ns(timeout)
    access = Access(parse_target(target), trust, None, timeout_ns, authorized) if target else None

    def notify(text: str) -> None:
        if sys.stderr.isatty():
            typer.echo(f"doctor: {text} …", err=True)

    report = trio.run(examine, DoctorRequest(out, access), notify)
    if report is None:
        raise typer.Exit(INTERRUPTED)
    if as_json:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        typer.echo(examination(report, color=wants_color(sys.stdout)))
    if report["verdict"] == BAD:
        raise typer.Exit(FOUND)
