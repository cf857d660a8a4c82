"""`smtpbench run`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from smtpbench.cli.choices import ARRIVALS, WHEN_BUSY, one_of, option_value
from smtpbench.cli.exit_codes import FINDINGS, INCOMPLETE, INTERRUPTED, THRESHOLD_FAILED
from smtpbench.cli.options import (
    AllowFiles,
    Arrivals,
    Connections,
    Html,
    LoadTimeout,
    LoginOptions,
    Messages,
    MessageSize,
    Overwrite,
    Progress,
    Rate,
    ResultFolder,
    ScenarioName,
    Seed,
    Workers,
)
from smtpbench.cli.progress import display_for
from smtpbench.cli.result_folder import result_folder
from smtpbench.cli.saving import saved_files
from smtpbench.cli.scenario_file import open_scenario
from smtpbench.cli.server_control import SERVER_LOG, ServerControlOptions, run_supervised
from smtpbench.load.plan import UNBOUNDED_NS, LoadPlan
from smtpbench.load.run import RunRequest, RunResult, run
from smtpbench.load.settings import Overrides, hostile_share, make_plan
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.result import to_text
from smtpbench.measure.saved import RUN, Saved
from smtpbench.report.reading.exit_code import nothing_accepted
from smtpbench.report.reading.server import deaths_of
from smtpbench.report.terminal.progress import AUTO
from smtpbench.report.terminal.run_progress import RunProgress, Watcher
from smtpbench.report.terminal.screen import screen_of, wants_color
from smtpbench.report.terminal.tables import final_table
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.target import Access, parse_target
from smtpbench.threshold import parse_threshold
from smtpbench.units import NS_PER_S, parse_duration_ns, parse_size_bytes


def command(
    scenario: ScenarioName,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            metavar="URL",
            help="Server to load: smtp://[user@]host:port, smtps://, lmtp:// or lmtp+unix:///path.",
        ),
    ],
    connections: Connections = None,
    messages: Messages = None,
    duration: Annotated[
        str | None,
        typer.Option(
            "--duration",
            "-d",
            metavar="DURATION",
            help="Time to send for, after the warm-up: 30s, 5m.  [default: 10s, or until --messages are sent]",
        ),
    ] = None,
    rate: Rate = None,
    arrivals: Arrivals = None,
    when_busy: Annotated[
        str | None,
        typer.Option(
            "--when-busy",
            metavar="wait|drop",
            help="What an arrival does while all connections are busy (open model): it waits, or is dropped.  "
            "[default: wait]",
        ),
    ] = None,
    warmup: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Time to send before measurement begins.  [default: 0s]")
    ] = None,
    drain: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Grace period for in-flight messages at the end.  [default: 5s]")
    ] = None,
    timeout: LoadTimeout = None,
    workers: Workers = None,
    seed: Seed = None,
    size: MessageSize = None,
    quickack: Annotated[
        bool,
        typer.Option(
            "--quickack",
            help="Acknowledge at once what the server sends, instead of up to 40 ms later (TCP_QUICKACK).",
        ),
    ] = False,
    hostile: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Share of sessions to mutate, as `smtpbench fuzz` does, in the second half: 5%.  "
            "[default: none; at most 50%]",
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPRESSION", help="Condition that the run must meet, or else exit code 99: 'message.p99<200ms'."
        ),
    ] = None,
    abort_on_fail: Annotated[
        bool, typer.Option("--abort-on-fail", help="End the run as soon as a threshold fails.")
    ] = False,
    abort_grace: Annotated[
        str, typer.Option(metavar="DURATION", help="Time after warm-up before --abort-on-fail applies.")
    ] = "5s",
    metrics: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Port of 127.0.0.1 that serves metrics for Prometheus during the run; 0 takes a free one.",
        ),
    ] = None,
    metrics_hold: Annotated[
        str,
        typer.Option("--metrics-hold", metavar="DURATION", help="Time to wait for a last scrape after the run."),
    ] = "0s",
    out: ResultFolder = None,
    overwrite: Overwrite = False,
    html: Html = True,
    allow_files: AllowFiles = False,
    progress: Progress = AUTO,
    access: LoginOptions = LoginOptions(),
    server: ServerControlOptions = ServerControlOptions(),
) -> None:
    """Load a mail server with a scenario and measure it.

    \b
    Closed model, 100 connections for half a minute:
      smtpbench run relay --target smtp://127.0.0.1:2525 -c 100 -d 30s
    Open model, 500 messages a second, whose latencies are free of coordinated omission:
      smtpbench run relay --target smtp://127.0.0.1:2525 -r 500/s -d 30s
    Submission with STARTTLS and a login:
      SMTPBENCH_PASSWORD=… smtpbench run submission --target smtp://me@localhost:587 --ca ca.pem
    In a build: exit code 99 where the server has become slower than 50 ms:
      smtpbench run relay -t smtp://127.0.0.1:2525 -r 200/s --threshold 'message.p99<50ms'
    Observed by Prometheus, which scrapes http://127.0.0.1:9464/metrics every 15 s:
      smtpbench run relay -t smtp://127.0.0.1:2525 -r 200/s -d 10m --metrics 9464 --metrics-hold 20s
    A server of its own, started before and stopped after, whatever happens:
      smtpbench run relay -t smtp://127.0.0.1:2525 --start './server --port 2525'
    With mutated sessions beside the others: their effect on latency, and findings (exit code 1):
      smtpbench run relay --target smtp://127.0.0.1:2525 -r 200/s -d 60s --hostile 5%
    """
    one_of("--arrivals", arrivals, ARRIVALS)
    one_of("--when-busy", when_busy, WHEN_BUSY)
    display = display_for(progress, scenario, target)
    file = open_scenario(scenario, allow_files=allow_files)
    parsed = parse_target(target)
    overrides = Overrides(
        connections, messages, duration, rate, arrivals, when_busy, warmup, drain, timeout, workers, seed, hostile, quickack
    )
    request = RunRequest(
        file=file,
        target=parsed,
        plan=make_plan(file.scenario.load, overrides),
        out=out or Path(),
        trust=access.trust,
        password=access.password_for(parsed),
        authorized=access.authorized,
        message_bytes=None if size is None else option_value("--size", parse_size_bytes, size),
        hostile=hostile_share(hostile),
        monitor=ThresholdMonitor(
            [*file.scenario.thresholds, *(option_value("--threshold", parse_threshold, text) for text in threshold or ())],
            option_value("--abort-grace", parse_duration_ns, abort_grace) if abort_on_fail else None,
        ),
    )
    server_options = server.options(restart=False)
    hold_ns = option_value("--metrics-hold", parse_duration_ns, metrics_hold)
    with result_folder(out, overwrite, file.path.stem) as folder:
        request = replace(request, out=folder)
        with display:
            observer = RunProgress(display, _length_s(request.plan), request.plan.arrivals)

            async def work(supervised: SupervisedServer) -> RunResult:
                watched = replace(request, server=supervised)

                async def run_watched(watcher: Watcher) -> RunResult:
                    watcher.watch(supervised)
                    return await run(watched, watcher)

                if metrics is None:
                    return await run_watched(observer)
                from smtpbench.report.formats.prometheus import about, serving  # needs a package that only this option needs

                return await serving(metrics, hold_ns, about(watched), observer, run_watched)

            reached = Access(parsed, access.trust, request.password, authorized=access.authorized)
            outcome = run_supervised(server_options, reached, folder / SERVER_LOG, work)
        unsaved = "not saved, because no disk could be written; the result follows"
        saved = unsaved if outcome.saved is None else saved_files(outcome.saved, html)
        typer.echo(final_table(outcome.result, saved, color=wants_color(sys.stdout), screen=screen_of(sys.stdout)))
        if outcome.saved is None:
            typer.echo(to_text(outcome.result))
        if outcome.interrupted:
            raise typer.Exit(INTERRUPTED)
        if outcome.incomplete:
            raise typer.Exit(INCOMPLETE)
        if not all(one["passed"] for one in outcome.result["thresholds"]):
            raise typer.Exit(THRESHOLD_FAILED)
        if nothing_accepted(Saved(RUN, outcome.result, request.out)):
            raise typer.Exit(INCOMPLETE)
        if outcome.findings or deaths_of(Saved(RUN, outcome.result, request.out)):
            raise typer.Exit(FINDINGS)


def _length_s(plan: LoadPlan) -> float | None:
    """Return the time to the last arrival, warm-up included, in seconds; None where a count ends the run."""
    return plan.issuing_ns / NS_PER_S if plan.issuing_ns < UNBOUNDED_NS else None
