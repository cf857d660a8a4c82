"""`smtpbench capacity`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.cli.choices import ARRIVALS, one_of
from smtpbench.cli.options import Authorized, Ca, Cert, Html, Insecure, Key, PasswordFile, Sni
from smtpbench.cli.saving import end_early, keep, report_progress
from smtpbench.errors import UsageError
from smtpbench.load.settings import DEFAULT_CONNECTIONS, Overrides, make_plan
from smtpbench.report.terminal.capacity import capacity_table
from smtpbench.report.terminal.tables import wants_color
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.study.capacity import CapacityRequest, capacity
from smtpbench.target import Access, Trust, parse_target, read_password
from smtpbench.threshold import parse_threshold
from smtpbench.units import NS_PER_S, parse_duration_ns, parse_rate_per_s, parse_share, parse_size_bytes

NOT_HELD = 99
PRECISION_LEAST, PRECISION_MOST = 0.005, 1.0


def command(
    scenario: Annotated[str, typer.Argument(help="A scenario file, or the name of a shipped one: relay, pipelined …")],
    target: Annotated[
        str, typer.Option("--target", "-t", help="smtp://[user@]host:port, smtps://, lmtp:// or lmtp+unix:///path.")
    ],
    slo: Annotated[
        list[str] | None,
        typer.Option(help="What must hold: 'message.p99<100ms'.  May be repeated.  [default: the scenario's thresholds]"),
    ] = None,
    precision: Annotated[str, typer.Option(help="How far the found rate and the next may lie apart.")] = "5%",
    first: Annotated[
        str | None, typer.Option("--from", help="The first rate, and the lowest.  [default: what one connection can do]")
    ] = None,
    max_rate: Annotated[str | None, typer.Option(help="Go no higher: 1000/s.")] = None,
    step: Annotated[
        str, typer.Option(help="Of a rate near the limit; the first take half of it, the last takes twice.")
    ] = "5s",
    warmup: Annotated[str, typer.Option(help="Of each rate.")] = "1s",
    connections: Annotated[
        int | None, typer.Option("--connections", "-c", min=1, help="Open at once, at most.  [default: 100]")
    ] = None,
    arrivals: Annotated[str | None, typer.Option(help="uniform or poisson.  [default: uniform]")] = None,
    timeout: Annotated[str | None, typer.Option(help="How long one reply may take.  [default: 30s]")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that share the load.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes every draw the same again.")] = None,
    size: Annotated[str | None, typer.Option(help="Generate messages of this size, not the scenario's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder.  [default: results/<search>]")] = None,
    html: Html = True,
    password_file: PasswordFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    sni: Sni = None,
    cert: Cert = None,
    key: Key = None,
    authorized: Authorized = False,
) -> None:
    """Find the highest arrival rate that holds your objectives.

    The rate is doubled until it does not hold, then the gap is narrowed to --precision. A rate holds where every --slo does,
    nothing is dropped, less than 0.1 % fails or is refused, and the backlog does not grow. Where the generator or its
    connections were the limit and not the server, that is what is said. Exit code 99: not even the lowest rate held.

    \b
      smtpbench capacity relay --target smtp://127.0.0.1:2525 --slo 'message.p99<100ms'
      smtpbench capacity relay -t smtp://127.0.0.1:2525 --slo 'message.p99<50ms' --slo 'RCPT.p95<9ms'
      smtpbench capacity relay -t smtp://127.0.0.1:2525 --from 100/s --max-rate 5000/s -c 500
    """
    one_of("--arrivals", arrivals, ARRIVALS)
    precision_share = parse_share(precision)
    if not PRECISION_LEAST <= precision_share <= PRECISION_MOST:
        raise UsageError(f"--precision {precision}: from {PRECISION_LEAST:.1%} to {PRECISION_MOST:.0%}")
    step_ns = parse_duration_ns(step)
    if not step_ns:
        raise UsageError("--step must be more than 0")
    file = load_scenario(find_scenario(scenario))
    parsed = parse_target(target)
    load = file.scenario.load.model_copy(update={"stages": None, "drain": None, "messages": None, "warmup": None})
    enough = max(DEFAULT_CONNECTIONS["open"], load.connections or 0)  # a scenario's own may be meant for the closed model
    given = Overrides(connections or enough, None, step, "1/s", arrivals, "wait", warmup, None, timeout, workers, seed)
    where = out or Path("results") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-capacity-{file.path.stem}"
    request = CapacityRequest(
        file=file,
        access=Access(
            parsed, Trust(ca, insecure, sni, cert, key), read_password(password_file) if parsed.user else None,
            authorized=authorized,
        ),
        plan=make_plan(load, given),
        objectives=list(map(parse_threshold, slo)) if slo else file.scenario.thresholds,
        folder=where,
        precision_share=precision_share,
        step_s=step_ns / NS_PER_S,
        first_per_s=None if first is None else _rate("--from", first),
        max_rate_per_s=None if max_rate is None else _rate("--max-rate", max_rate),
        message_bytes=None if size is None else parse_size_bytes(size),
    )  # fmt: skip
    result = trio.run(capacity, request, report_progress)
    typer.echo(capacity_table(result, color=wants_color(sys.stdout)))
    keep(result, where, html)
    end_early(result)
    if result["capacity"]["rate_per_s"] is None:
        raise typer.Exit(NOT_HELD)


def _rate(option: str, text: str) -> float:
    rate_per_s = parse_rate_per_s(text)
    if not rate_per_s:
        raise UsageError(f"{option} {text}: more than nothing")
    return rate_per_s
