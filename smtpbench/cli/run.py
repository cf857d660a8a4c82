"""`smtpbench run`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.cli.choices import ARRIVALS, PROGRESS, WHEN_BUSY, one_of
from smtpbench.cli.exit_codes import INTERRUPTED
from smtpbench.cli.options import Authorized, Ca, Cert, Html, Insecure, Key, PasswordFile, Sni, saved_words
from smtpbench.load.run import RunRequest, run
from smtpbench.load.settings import Overrides, hostile_share, make_plan
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.result import to_text
from smtpbench.report.terminal.live import AUTO, view
from smtpbench.report.terminal.tables import final_table, wants_color
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.target import Trust, parse_target, read_password
from smtpbench.threshold import parse_threshold
from smtpbench.units import parse_duration_ns, parse_size_bytes

FOUND = 1
THRESHOLD_FAILED = 99


def command(
    scenario: Annotated[str, typer.Argument(help="A scenario file, or the name of a shipped one: relay, pipelined …")],
    target: Annotated[
        str, typer.Option("--target", "-t", help="smtp://[user@]host:port, smtps://, lmtp:// or lmtp+unix:///path.")
    ],
    connections: Annotated[
        int | None, typer.Option("--connections", "-c", min=1, help="Connections open at once, at most.")
    ] = None,
    messages: Annotated[
        int | None, typer.Option("--messages", "-n", min=1, help="Arrivals in all: passes of the repeat, or sessions.")
    ] = None,
    duration: Annotated[str | None, typer.Option("--duration", "-d", help="How long to send: 30s, 5m.")] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", "-r", help="Open model: arrivals in all, 500/s, 30/m, or 10/s..500/s.")
    ] = None,
    arrivals: Annotated[str | None, typer.Option(help="Open model: uniform or poisson.")] = None,
    when_busy: Annotated[
        str | None, typer.Option("--when-busy", help="Open model: an arrival without a connection will wait or drop.")
    ] = None,
    warmup: Annotated[str | None, typer.Option(help="Send this long before anything is measured.")] = None,
    drain: Annotated[str | None, typer.Option(help="What is under way at the end has so long.  [default: 5s]")] = None,
    timeout: Annotated[str | None, typer.Option(help="How long one reply may take.  [default: 30s]")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that share the load.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes every draw the same again.")] = None,
    size: Annotated[str | None, typer.Option(help="Generate messages of this size, not the scenario's.")] = None,
    hostile: Annotated[
        str | None, typer.Option(help="Mutate this share of all sessions in the second half: 5%.  See `fuzz`.")
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help="What must hold, or exit code 99: 'message.p99<200ms'.  May be repeated.")
    ] = None,
    abort_on_fail: Annotated[bool, typer.Option("--abort-on-fail", help="End the run when a threshold fails.")] = False,
    abort_grace: Annotated[str, typer.Option(help="Not in this time after the warm-up.")] = "5s",
    metrics: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve Prometheus at this port of 127.0.0.1; 0 takes any.")
    ] = None,
    metrics_hold: Annotated[
        str, typer.Option("--metrics-hold", help="After the run, wait so long for a last scrape of its figures.")
    ] = "0s",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder.  [default: results/<run>]")] = None,
    html: Html = True,
    password_file: PasswordFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    sni: Sni = None,
    cert: Cert = None,
    key: Key = None,
    authorized: Authorized = False,
    progress: Annotated[str, typer.Option(help="auto, live, plain or none.")] = AUTO,
) -> None:
    """Load a mail server with a scenario and measure it.

    \b
    Closed model, 100 connections for half a minute:
      smtpbench run relay --target smtp://127.0.0.1:2525 -c 100 -d 30s
    Open model, 500 messages a second, which gives latency that can be trusted:
      smtpbench run relay --target smtp://127.0.0.1:2525 -r 500/s -d 30s
    Submission with STARTTLS and a login:
      SMTPBENCH_PASSWORD=… smtpbench run submission --target smtp://me@localhost:587 --ca ca.pem
    A build that must not get slower (exit code 99 where it has):
      smtpbench run relay -t smtp://127.0.0.1:2525 -r 200/s --threshold 'message.p99<50ms'
    Watched by Prometheus, which scrapes http://127.0.0.1:9464/metrics every 15 s:
      smtpbench run relay -t smtp://127.0.0.1:2525 -r 200/s -d 10m --metrics 9464 --metrics-hold 20s
    What mutated sessions do to the latency of the others, and what they break (exit code 1):
      smtpbench run relay --target smtp://127.0.0.1:2525 -r 200/s -d 60s --hostile 5%
    """
    one_of("--progress", progress, PROGRESS)
    one_of("--arrivals", arrivals, ARRIVALS)
    one_of("--when-busy", when_busy, WHEN_BUSY)
    file = load_scenario(find_scenario(scenario))
    parsed = parse_target(target)
    given = Overrides(
        connections, messages, duration, rate, arrivals, when_busy, warmup, drain, timeout, workers, seed, hostile
    )
    request = RunRequest(
        file=file,
        target=parsed,
        plan=make_plan(file.scenario.load, given),
        out=out or Path("results") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{file.path.stem}",
        trust=Trust(ca, insecure, sni, cert, key),
        password=read_password(password_file) if parsed.user else None,
        authorized=authorized,
        message_bytes=None if size is None else parse_size_bytes(size),
        hostile=hostile_share(hostile),
        watch=ThresholdMonitor(
            [*file.scenario.thresholds, *map(parse_threshold, threshold or ())],
            parse_duration_ns(abort_grace) if abort_on_fail else None,
        ),
    )
    hold_ns = parse_duration_ns(metrics_hold)
    with view(progress) as shown:
        if metrics is None:
            outcome = trio.run(run, request, shown)
        else:
            from smtpbench.report.formats.prometheus import about, serving  # needs a package that only this option needs

            outcome = trio.run(serving, metrics, hold_ns, about(request), shown, partial(run, request))
    nowhere = "nowhere, no disk took it: it stands below"
    saved = nowhere if outcome.saved is None else saved_words(outcome.saved, html)
    typer.echo(final_table(outcome.result, saved, color=wants_color(sys.stdout)))
    if outcome.saved is None:
        typer.echo(to_text(outcome.result))
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not all(one["passed"] for one in outcome.result["thresholds"]):
        raise typer.Exit(THRESHOLD_FAILED)
    if outcome.findings:
        raise typer.Exit(FOUND)
