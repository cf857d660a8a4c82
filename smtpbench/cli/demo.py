"""`smtpbench demo`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from smtpbench.cli import run
from smtpbench.errors import CannotRun


def command(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario, or a file.")] = "relay",
    rate: Annotated[str | None, typer.Option("--rate", "-r", help="Arrivals: 500/s.")] = "500/s",
    duration: Annotated[str, typer.Option("--duration", "-d", help="How long.")] = "10s",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder.")] = None,
) -> None:
    """Run a scenario against the built-in sink, which runs as a process of its own on a free port of this machine.

    \b
      smtpbench demo
      smtpbench demo pipelined -r 2000/s -d 5s
    """
    sink = subprocess.Popen(
        [sys.executable, "-m", "smtpbench.cli.main", "sink", "--listen", "127.0.0.1:0", "--ready-json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert sink.stdout is not None
    try:
        line = sink.stdout.readline()
        if not line:
            raise CannotRun("the built-in sink did not start; `smtpbench sink` says why")
        address = json.loads(line)["listening"][0]
        try:
            run.command(scenario, f"smtp://{address}", rate=rate, duration=duration, out=out)
        finally:
            sink.terminate()
            counts = json.loads(sink.stdout.read() or "{}")
        if counts:
            typer.echo(f"the sink counted {counts['messages']['accepted']:,} messages accepted")
    finally:
        sink.kill()
        sink.wait()
