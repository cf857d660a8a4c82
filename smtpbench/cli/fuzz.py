"""`smtpbench fuzz`."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.cli.choices import PROFILES, one_of
from smtpbench.cli.exit_codes import INTERRUPTED
from smtpbench.cli.options import (
    Authorized,
    Ca,
    Cert,
    FixtureFile,
    Html,
    Insecure,
    Key,
    PasswordFile,
    Recipient,
    ReplyTimeout,
    Sni,
    TargetOptions,
)
from smtpbench.cli.saving import keep
from smtpbench.errors import UsageError
from smtpbench.fuzz.campaign import CampaignPlan, CampaignStats
from smtpbench.fuzz.run import FuzzRequest, Known, fuzz_target
from smtpbench.fuzz.strategies import families
from smtpbench.report.terminal.scorecard import findings_card
from smtpbench.report.terminal.tables import wants_color
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.target import Trust
from smtpbench.units import parse_duration_ns

FOUND = 1
_TOLD_EVERY_S = 2.0


def command(
    scenario: Annotated[str, typer.Argument(help="A scenario file, or the name of a shipped one: relay, submission …")],
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="smtp://[user@]host:port and so on; two are compared.")
    ] = None,
    fixture: FixtureFile = None,
    profile: Annotated[str, typer.Option(help="quick, ci or deep: how many cases, how long, how many at once.")] = "quick",
    cases: Annotated[int | None, typer.Option(min=1, help="Cases in all.  [default: the profile's]")] = None,
    duration: Annotated[str | None, typer.Option("--duration", "-d", help="How long to draw cases.")] = None,
    connections: Annotated[int | None, typer.Option("--connections", "-c", min=1, help="Cases at once.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same cases.")] = 1,
    only: Annotated[str, typer.Option(help="Mutation families to draw from, with commas: order,end,tls …")] = "",
    skip: Annotated[str, typer.Option(help="Mutation families to leave out.")] = "",
    max_findings: Annotated[int, typer.Option(min=1, help="Draw no more cases after so many findings.")] = 50,
    strict: Annotated[bool, typer.Option("--strict", help="Count SHOULDs too.")] = False,
    baseline: Annotated[
        Path | None, typer.Option(help="A folder of findings that are known: only others make it fail.")
    ] = None,
    recipient: Recipient = "",
    sender: Annotated[str, typer.Option(help="Whom mail comes from.  [default: the scenario's]")] = "",
    timeout: ReplyTimeout = "3s",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder.  [default: results/<fuzz>]")] = None,
    html: Html = True,
    password_file: PasswordFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    sni: Sni = None,
    cert: Cert = None,
    key: Key = None,
    authorized: Authorized = False,
) -> None:
    """Mutate a scenario's session by the thousand, and show what breaks the server, as short as can be.

    Give it a server that may die. Exit code 1 means a finding that is not in the baseline.

    \b
      smtpbench fuzz relay --target smtp://127.0.0.1:2525
      smtpbench fuzz relay -t smtp://127.0.0.1:2525 --profile ci --seed 7 --baseline known-findings
      smtpbench fuzz relay --target smtp://127.0.0.1:2525 --target smtp://127.0.0.1:2526
      smtpbench fuzz relay --target smtp://127.0.0.1:2525 --only end,dots,segment --cases 5000
    """
    one_of("--profile", profile, PROFILES)
    most, longest, at_once, shrink_s = PROFILES[profile]
    file = load_scenario(find_scenario(scenario))
    trust = Trust(ca, insecure, sni, cert, key)
    told = TargetOptions(target or [], trust, timeout, authorized, password_file, recipient, sender).completed(fixture)
    access, *peers = told.accesses(most=2)
    plan = CampaignPlan(
        cases=cases or most,
        duration_ns=parse_duration_ns(duration or longest),
        seed=seed,
        connections=connections or at_once,
        families=families(_names(only), _names(skip)),
        max_findings=max_findings,
        strict=strict,
        shrink_s=shrink_s,
    )
    folder = out or Path("results") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-fuzz-{file.path.stem}"
    request = FuzzRequest(
        file=file,
        access=access,
        plan=plan,
        recipient=told.recipient,
        sender=told.sender,
        known=_known(baseline),
        peer=peers[0] if peers else None,
        folder=folder / "findings",
    )
    catch = trio.run(fuzz_target, request, _Teller())
    typer.echo(findings_card(catch.result, color=wants_color(sys.stdout)))
    keep(catch.result, folder, html, findings=catch.findings, candidates=catch.candidates)
    if catch.stopped:
        raise typer.Exit(INTERRUPTED)
    if catch.new_findings:
        raise typer.Exit(FOUND)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _known(folder: Path | None) -> frozenset[Known]:
    if folder is None:
        return frozenset()
    if not folder.is_dir():
        raise UsageError(f"--baseline {folder}: there is no such folder")
    found = [load_scenario(path).scenario.finding for path in sorted(folder.glob("**/*.yaml"))]
    return frozenset((one.rule, None if one.by == "check" else one.cause) for one in found if one is not None)


class _Teller:
    """One line every few seconds on stderr."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def __call__(self, stats: CampaignStats) -> None:
        if time.monotonic() - self._last_s >= _TOLD_EVERY_S:
            self._last_s = time.monotonic()
            print(f"{stats.run:,} cases run, {len(stats.suspects)} findings so far", file=sys.stderr, flush=True)
