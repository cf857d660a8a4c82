"""`smtpbench fuzz`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from smtpbench.cli.choices import one_of, option_value
from smtpbench.cli.exit_codes import FINDINGS, INTERRUPTED
from smtpbench.cli.help import HelpSection
from smtpbench.cli.options import (
    AllowFiles,
    FixtureFile,
    Html,
    LoginOptions,
    Overwrite,
    Progress,
    Recipients,
    ReplyTimeout,
    ResultFolder,
    ScenarioName,
    TargetOptions,
    UnknownRecipient,
)
from smtpbench.cli.progress import ElapsedProgress, display_for
from smtpbench.cli.result_folder import result_folder
from smtpbench.cli.saving import ResultInProgress, print_verdict, save_result, server_rows
from smtpbench.cli.scenario_file import open_scenario
from smtpbench.cli.server_control import SERVER_LOG, ServerControlOptions, run_supervised
from smtpbench.errors import UsageError
from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.profiles import PROFILES, FuzzProfile
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, KnownFinding, fuzz_target
from smtpbench.fuzz.strategies import select_families
from smtpbench.fuzz.suspect import CASES, CampaignStats
from smtpbench.report.terminal.progress import AUTO, duration_text
from smtpbench.report.terminal.scorecard import findings_card
from smtpbench.report.terminal.screen import wants_color
from smtpbench.scenario.load import load_finding
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.text import plural
from smtpbench.units import NS_PER_S, parse_duration_ns


def _profile_text(profile: FuzzProfile) -> str:
    limits = (
        plural(profile.cases, "case"),
        f"at most {duration_text(profile.duration_s)}",
        plural(profile.connections, "connection"),
    )
    return f"{profile.description} {', '.join(limits)}."


HELP_SECTIONS = (
    HelpSection("Profiles", [(name, _profile_text(profile)) for name, profile in PROFILES.items()]),
    HelpSection("Mutation families", list(FAMILIES.items())),
)


def command(
    scenario: ScenarioName,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="URL",
            help="Server to fuzz: smtp://[user@]host:port, smtps://, lmtp:// or lmtp+unix:///path; two are compared.",
        ),
    ] = None,
    fixture: FixtureFile = None,
    profile: Annotated[
        str, typer.Option(metavar="quick|ci|deep", help="Number of cases, duration and connections; see Profiles below.")
    ] = "quick",
    cases: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, help="Cases to run, at most.  [default: the profile's]")
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(
            "--duration",
            "-d",
            metavar="DURATION",
            help="Time for cases and findings, at most, and 1s for the last sessions.  [default: the profile's]",
        ),
    ] = None,
    connections: Annotated[
        int | None,
        typer.Option(
            "--connections", "-c", metavar="COUNT", min=1, help="Cases that run at the same time.  [default: the profile's]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Random seed; the same seed repeats the cases.")] = 1,
    only: Annotated[
        str, typer.Option(metavar="FAMILY,...", help="Mutation families to draw from, listed below.  [default: all]")
    ] = "",
    skip: Annotated[str, typer.Option(metavar="FAMILY,...", help="Mutation families to leave out.  [default: none]")] = "",
    max_findings: Annotated[
        int, typer.Option(metavar="COUNT", min=1, help="Findings after which no more cases are drawn.")
    ] = 50,
    strict: Annotated[bool, typer.Option("--strict", help="Count recommendations (SHOULD) as violations too.")] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of known findings, which do not fail the command.  [default: none]"),
    ] = None,
    recipient: Recipients = None,
    unknown_recipient: UnknownRecipient = "",
    sender: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Envelope sender (MAIL FROM).  [default: the scenario's]")
    ] = "",
    timeout: ReplyTimeout = "3s",
    out: ResultFolder = None,
    overwrite: Overwrite = False,
    html: Html = True,
    allow_files: AllowFiles = False,
    progress: Progress = AUTO,
    access: LoginOptions = LoginOptions(),
    server: ServerControlOptions = ServerControlOptions(),
) -> None:
    """Send mutated sessions of a scenario to a server, and report what breaks it, as short as possible.

    Use a server that may crash. Exit code 1 means a finding that is not in the baseline.

    \b
    A first look:
      smtpbench fuzz relay --target smtp://127.0.0.1:2525
    In a build, where only new findings fail:
      smtpbench fuzz relay -t smtp://127.0.0.1:2525 --profile ci --seed 7 --baseline known-findings
    A server that is started, and started again where a case kills it:
      smtpbench fuzz relay --target smtp://127.0.0.1:2525 --start './server --port 2525'
    Two servers, to find where they behave differently:
      smtpbench fuzz relay --target smtp://127.0.0.1:2525 --target smtp://127.0.0.1:2526
    Some families of mutations only:
      smtpbench fuzz relay --target smtp://127.0.0.1:2525 --only end,dots,segment --cases 5000
    """
    one_of("--profile", profile, PROFILES)
    limits = PROFILES[profile]
    file = open_scenario(scenario, allow_files=allow_files)
    first_recipient, *aliases = recipient or [""]
    options = TargetOptions(
        target or [], access, timeout, first_recipient, sender, tuple(aliases), unknown_recipient
    ).completed(fixture, allow_files=allow_files)
    first, *peers = options.accesses(most=2)
    server_options = server.options(restart=True)
    plan = CampaignPlan(
        cases=cases or limits.cases,
        duration_ns=option_value("--duration", parse_duration_ns, duration) if duration else limits.duration_s * NS_PER_S,
        seed=seed,
        connections=connections or limits.connections,
        families=select_families(_names(only), _names(skip)),
        max_findings=max_findings,
        strict=strict,
        shrink_s=limits.shrink_s,
        aliases=options.aliases,
        unknown=options.unknown_recipient,
        timeout_ns=first.timeout_ns,
    )
    request = FuzzRequest(
        file=file,
        access=first,
        plan=plan,
        recipient=options.recipient,
        sender=options.sender,
        known=_known_findings(baseline),
        peer=peers[0] if peers else None,
        options=server.repeat_options(),
    )
    with result_folder(out, overwrite, f"fuzz-{file.path.stem}") as folder:
        request = replace(request, folder=folder / "findings", append_server_row=server_rows(folder))
        with display_for(progress, scenario, " and ".join(options.urls)) as display:
            shown = ElapsedProgress(display)

            def report_progress(stats: CampaignStats) -> None:
                counts = f"{plural(stats.run, 'case')} run, {plural(len(stats.suspects), 'suspect')}"
                # the phases before and after have no known length
                shown.update(
                    f"{stats.phase}: {counts}", stats.share_done if stats.phase == CASES else None, equal_parts=True
                )

            async def work(supervised: SupervisedServer) -> FuzzResult:
                watched = replace(request, server=supervised)
                return await fuzz_target(watched, report_progress, None, ResultInProgress(folder).update)

            fuzzed = run_supervised(server_options, first, folder / SERVER_LOG, work)
        typer.echo(findings_card(fuzzed.result, color=wants_color(sys.stdout)))
        save_result(fuzzed.result, folder, html, findings=fuzzed.findings, candidates=fuzzed.candidates)
        print_verdict(fuzzed.result, folder)
        if fuzzed.stopped:
            raise typer.Exit(INTERRUPTED)
        if fuzzed.new_findings:
            raise typer.Exit(FINDINGS)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _known_findings(folder: Path | None) -> frozenset[KnownFinding]:
    if folder is None:
        return frozenset()
    if not folder.is_dir():
        raise UsageError(f"--baseline {folder}: there is no such folder")
    found = [load_finding(path, allow_files=True).scenario.finding for path in sorted(folder.glob("**/*.yaml"))]
    return frozenset((one.rule, None if one.by == "check" else one.cause) for one in found if one is not None)
