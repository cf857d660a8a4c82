"""`smtpbench demo`."""

from __future__ import annotations

import json
import shlex
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from smtpbench.cli import run
from smtpbench.cli.options import Overwrite, Progress, ResultFolder, ScenarioName
from smtpbench.cli.server_control import ServerControlOptions
from smtpbench.report.terminal.progress import AUTO
from smtpbench.text import plural


def command(
    scenario: ScenarioName = "relay",
    rate: Annotated[
        str | None, typer.Option("--rate", "-r", metavar="RATE", help="Arrival rate (open model): 500/s, 30/m.")
    ] = "500/s",
    duration: Annotated[
        str, typer.Option("--duration", "-d", metavar="DURATION", help="Time to send for: 30s, 5m.")
    ] = "10s",
    out: ResultFolder = None,
    overwrite: Overwrite = False,
    progress: Progress = AUTO,
) -> None:
    """Run a scenario against the built-in sink, which this command starts on a free port of 127.0.0.1.

    \b
    500 messages a second for ten seconds:
      smtpbench demo
    Another scenario, faster:
      smtpbench demo pipelined -r 2000/s -d 5s
    """
    with TemporaryDirectory(prefix="smtpbench-demo-") as folder:
        address, counts = f"127.0.0.1:{_free_port()}", Path(folder, "counts.json")
        sink = [sys.executable, "-m", "smtpbench.cli.main", "sink", "--listen", address, "--ready-json"]
        try:
            run.command(
                scenario,
                f"smtp://{address}",
                rate=rate,
                duration=duration,
                out=out,
                overwrite=overwrite,
                progress=progress,
                server=ServerControlOptions(start=f"exec {shlex.join(sink)} > {shlex.quote(str(counts))}"),
            )
        finally:
            lines = counts.read_text(encoding="utf-8").splitlines() if counts.exists() else []
            if len(lines) > 1:  # the first one names the address
                typer.echo(f"the sink accepted {plural(json.loads(lines[-1])['messages']['accepted'], 'message')}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
