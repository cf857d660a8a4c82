"""`smtpbench capacity`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from smtpbench.cli.choices import ARRIVALS, one_of, option_value
from smtpbench.cli.exit_codes import THRESHOLD_FAILED
from smtpbench.cli.options import (
    AllowFiles,
    Arrivals,
    Html,
    LoadTimeout,
    LoginOptions,
    MessageSize,
    Overwrite,
    Progress,
    ResultFolder,
    Resume,
    ScenarioName,
    Seed,
    Workers,
)
from smtpbench.cli.progress import ElapsedProgress, display_for
from smtpbench.cli.result_folder import result_folder
from smtpbench.cli.saving import print_nothing_to_resume, raise_unless_completed, save_result
from smtpbench.cli.scenario_file import open_scenario
from smtpbench.cli.server_control import SERVER_LOG, ServerControlOptions, run_supervised
from smtpbench.errors import UsageError
from smtpbench.load.settings import DEFAULT_CONNECTIONS, Overrides, make_plan
from smtpbench.report.terminal.capacity import capacity_table
from smtpbench.report.terminal.progress import AUTO
from smtpbench.report.terminal.screen import screen_of, wants_color
from smtpbench.study.capacity import CapacityRequest, capacity, resumed
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.target import Access, parse_target
from smtpbench.threshold import parse_threshold
from smtpbench.units import NS_PER_S, parse_duration_ns, parse_rate_per_s, parse_share, parse_size_bytes

LEAST_PRECISION, MOST_PRECISION = 0.005, 1.0


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
    slo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPRESSION",
            help="Objective that must hold at the rate: 'message.p99<100ms'.  [default: the scenario's thresholds]",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="SHARE",
            help="Largest gap between the rate that is found and the lowest rate that fails.  [default: 5%; 0.5%..100%]",
        ),
    ] = "5%",
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="RATE", help="First rate, and the lowest.  [default: what one connection achieves]"),
    ] = None,
    max_rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Highest rate to try: 1000/s.  [default: no limit]")
    ] = None,
    step: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Length of a step near the limit; the first steps take half of it, the last one twice.",
        ),
    ] = "5s",
    warmup: Annotated[
        str, typer.Option(metavar="DURATION", help="Time to send before measurement begins, in each step.")
    ] = "1s",
    connections: Annotated[
        int | None,
        typer.Option(
            "--connections",
            "-c",
            metavar="COUNT",
            min=1,
            help="Connections open at the same time, at most.  [default: 100, or the scenario's if that is more]",
        ),
    ] = None,
    arrivals: Arrivals = None,
    timeout: LoadTimeout = None,
    workers: Workers = None,
    seed: Seed = None,
    size: MessageSize = None,
    out: ResultFolder = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    html: Html = True,
    allow_files: AllowFiles = False,
    progress: Progress = AUTO,
    access: LoginOptions = LoginOptions(),
    server: ServerControlOptions = ServerControlOptions(),
) -> None:
    """Find the highest arrival rate that meets your objectives.

    The rate is doubled until it fails; then the gap is narrowed to --precision. A rate passes where every --slo is met,
    nothing is dropped, less than 0.1 % fails or is refused, and the backlog does not grow. Where the generator or its
    connections were the limit and not the server, the result says so. Exit code 99: not even the lowest rate passed.

    \b
    One objective:
      smtpbench capacity relay --target smtp://127.0.0.1:2525 --slo 'message.p99<100ms'
    Two objectives:
      smtpbench capacity relay -t smtp://127.0.0.1:2525 --slo 'message.p99<50ms' --slo 'RCPT.p95<9ms'
    Between two rates, with more connections:
      smtpbench capacity relay -t smtp://127.0.0.1:2525 --from 100/s --max-rate 5000/s -c 500
    A server that is started before the search and stopped after it:
      smtpbench capacity relay -t smtp://127.0.0.1:2525 --start './server --port 2525'
    The rest of a search that was interrupted, with the same options:
      smtpbench capacity relay -t smtp://127.0.0.1:2525 --out results/limit --resume
    """
    one_of("--arrivals", arrivals, ARRIVALS)
    precision_share = option_value("--precision", parse_share, precision)
    if not LEAST_PRECISION <= precision_share <= MOST_PRECISION:
        raise UsageError(f"--precision {precision}: allowed is {LEAST_PRECISION:.1%} to {MOST_PRECISION:.0%}")
    step_ns = option_value("--step", parse_duration_ns, step)
    if not step_ns:
        raise UsageError(f"--step {step}: the length of a step must be more than 0")
    file = open_scenario(scenario, allow_files=allow_files)
    parsed = parse_target(target)
    load = file.scenario.load.model_copy(update={"stages": None, "drain": None, "messages": None, "warmup": None})
    # the scenario's own number may be meant for the closed model
    default_connections = max(DEFAULT_CONNECTIONS["open"], load.connections or 0)
    overrides = Overrides(
        connections or default_connections, None, step, "1/s", arrivals, "wait", warmup, None, timeout, workers, seed
    )
    request = CapacityRequest(
        file=file,
        access=Access(parsed, access.trust, access.password_for(parsed), authorized=access.authorized),
        plan=make_plan(load, overrides),
        objectives=[option_value("--slo", parse_threshold, text) for text in slo] if slo else file.scenario.thresholds,
        folder=out or Path(),
        precision_share=precision_share,
        step_s=step_ns / NS_PER_S,
        first_per_s=None if first is None else _rate_per_s("--from", first),
        max_rate_per_s=None if max_rate is None else _rate_per_s("--max-rate", max_rate),
        message_bytes=None if size is None else option_value("--size", parse_size_bytes, size),
    )
    server_options = server.options(restart=False)
    with result_folder(out, overwrite, f"capacity-{file.path.stem}", resume=resume) as folder:
        request = replace(request, folder=folder)
        if resume:
            request = resumed(request, keep_seed=seed is not None)
            if request.interrupted is None:
                print_nothing_to_resume(folder)
        with display_for(progress, scenario, target) as display:
            shown = ElapsedProgress(display)

            async def work(supervised: SupervisedServer) -> dict[str, Any]:
                return await capacity(replace(request, server=supervised), shown.study)

            result = run_supervised(server_options, request.access, folder / SERVER_LOG, work)
        typer.echo(capacity_table(result, color=wants_color(sys.stdout), screen=screen_of(sys.stdout)))
        save_result(result, folder, html)
        raise_unless_completed(result, folder)
        if result["capacity"]["rate_per_s"] is None:
            raise typer.Exit(THRESHOLD_FAILED)


def _rate_per_s(option: str, text: str) -> float:
    rate_per_s = option_value(option, parse_rate_per_s, text)
    if not rate_per_s:
        raise UsageError(f"{option} {text}: the rate must be more than 0")
    return rate_per_s
