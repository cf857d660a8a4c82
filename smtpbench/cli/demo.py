"""`smtpbench demo`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Annotated

import typer

from smtpbench.cli import run
from smtpbench.cli.options import Overwrite, Progress, ResultFolder, ScenarioName
from smtpbench.errors import CannotRun
from smtpbench.report.terminal.progress import AUTO
from smtpbench.supervisor.process_group import ending_with_this_process
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
    sink = subprocess.Popen(
        [sys.executable, "-m", "smtpbench.cli.main", "sink", "--listen", "127.0.0.1:0", "--ready-json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert sink.stdout is not None
    with ending_with_this_process(sink.pid):
        try:
            line = sink.stdout.readline()
            if not line:
                raise CannotRun("the built-in sink did not start; `smtpbench sink` shows the reason")
            address = json.loads(line)["listening"][0]
            try:
                run.command(
                    scenario,
                    f"smtp://{address}",
                    rate=rate,
                    duration=duration,
                    out=out,
                    overwrite=overwrite,
                    progress=progress,
                )
            finally:
                sink.terminate()
                counts = json.loads(sink.stdout.read() or "{}")
            if counts:
                typer.echo(f"the sink accepted {plural(counts['messages']['accepted'], 'message')}")
        finally:
            sink.kill()
            sink.wait()
