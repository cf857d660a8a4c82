"""Campaigns on a server whose processes are known: which case killed or hung it, and how its process ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from dying_server import DyingServer, WatchedDyingServer, running

from smtpbench.check.replay import CANNOT_TELL, FIXED, STILL_THERE, replay
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, fuzz_target
from smtpbench.rules.finding import Finding
from smtpbench.scenario.load import find_scenario, load_finding, load_scenario
from smtpbench.session.transcript import CLIENT
from smtpbench.supervisor.crash_report import CrashReport
from smtpbench.supervisor.death import Death
from smtpbench.target import Access, parse_target
from smtpbench.units import NS_PER_MS, NS_PER_S

REPORT = CrashReport("AddressSanitizer", "AddressSanitizer: heap-buffer-overflow in parse_rcpt", ("parse_rcpt",))


def starts_with(*verbs: bytes) -> Callable[[bytes], bool]:
    return lambda line: line.upper().startswith(verbs)


CASES = 80


def fuzz(server: WatchedDyingServer, connections: int = 20, timeout_ns: int = 3 * NS_PER_S) -> FuzzResult:
    plan = CampaignPlan(CASES, None, 1, connections, ("order",), 20, shrink_s=3.0, timeout_ns=timeout_ns)

    async def main() -> FuzzResult:
        async with running(server.process) as process:
            access = Access(parse_target(f"smtp://127.0.0.1:{process.port}"), timeout_ns=timeout_ns)
            return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access, plan, server=server))

    return trio.run(main)


def octets_sent(finding: Finding) -> bytes:
    return b"".join(entry.data for entry in finding.transcript.entries if entry.who == CLIENT)


@pytest.mark.parametrize("connections", [1, 20])
@pytest.mark.parametrize("can_restart", [True, False])
def test_death_is_one_finding_that_says_how_the_process_ended(connections: int, can_restart: bool) -> None:
    server = WatchedDyingServer(
        starts_with(b"VRFY"),
        death_of=lambda line: Death(0, signal_number=6, report=REPORT, last_output=("==1==ERROR\x1b",)),
        can_restart=can_restart,
    )
    fuzz_result = fuzz(server, connections)
    (finding,) = fuzz_result.findings
    assert (finding.rule, finding.severity, finding.reproducibility) == ("health", "crash", "3 of 3, deterministic")
    assert finding.cause == "the server died after VRFY: AddressSanitizer: parse_rcpt"
    assert finding.actual == "the server died after VRFY: signal 6 (SIGABRT), " + REPORT.summary
    assert octets_sent(finding).upper().startswith(b"VRFY")
    assert octets_sent(finding).count(b"\r\n") == 1
    assert finding.death is not None
    assert (finding.death["signal"], finding.death["last_output"]) == (6, ["==1==ERROR\\x1b"])
    assert fuzz_result.result["findings"][0]["death"] == finding.death
    assert fuzz_result.result["cases"]["run"] == CASES
    assert fuzz_result.result["rules"]["close-without-421"]["verdict"] == "pass"
    assert not fuzz_result.result["target"]["gone"]


def test_deaths_with_different_causes_are_different_findings() -> None:
    def death_of(line: bytes) -> Death:
        return Death(0, signal_number=11) if starts_with(b"VRFY")(line) else Death(0, exit_status=3)

    fuzz_result = fuzz(WatchedDyingServer(starts_with(b"VRFY", b"EXPN"), death_of=death_of))
    assert {(finding.severity, finding.cause) for finding in fuzz_result.findings} == {
        ("crash", "the server died after VRFY: signal 11 (SIGSEGV)"),
        ("crash", "the server died after EXPN: exit status 3"),
    }


def test_deaths_with_the_same_report_are_one_finding() -> None:
    server = WatchedDyingServer(
        starts_with(b"VRFY", b"EXPN"), death_of=lambda line: Death(0, signal_number=6, report=REPORT)
    )
    (finding,) = fuzz(server).findings
    assert finding.hits > 1


def test_death_of_which_the_cause_is_not_known_is_no_further_finding() -> None:
    deaths = iter([Death(0)])
    server = WatchedDyingServer(
        starts_with(b"VRFY"), death_of=lambda line: next(deaths, Death(0, signal_number=6)), can_restart=False
    )
    (finding,) = fuzz(server, 1).findings
    assert finding.cause == "the server died after VRFY: signal 6 (SIGABRT)"
    assert finding.hits > 1


def test_server_that_stays_dead_is_a_finding_that_is_not_proved() -> None:
    fuzz_result = fuzz(WatchedDyingServer(starts_with(b"VRFY"), 1, can_restart=False))
    (finding,) = fuzz_result.findings
    assert (finding.severity, finding.reproducibility) == ("crash", "1 of 1, not proved")
    assert finding.cause == "the server died: signal 6 (SIGABRT)"
    assert finding.actual.startswith("the server died: signal 6 (SIGABRT); it did not come back; of the ")
    assert finding.actual.endswith("this one is the likeliest cause; this is not proved")
    assert b"VRFY" in octets_sent(finding).upper()
    assert fuzz_result.result["target"]["gone"]
    assert fuzz_result.candidates


def test_death_that_takes_several_cases_is_not_proved() -> None:
    seen = 0

    def is_deadly(line: bytes) -> bool:
        nonlocal seen
        seen += 1
        return seen == 300

    (finding,) = fuzz(WatchedDyingServer(is_deadly)).findings
    assert (finding.severity, finding.reproducibility) == ("crash", "1 of 1, not proved")


def test_hang_is_one_finding_and_the_campaign_goes_on() -> None:
    server = WatchedDyingServer(lambda line: False, is_hanging=starts_with(b"VRFY"))
    fuzz_result = fuzz(server, 8, timeout_ns=200 * NS_PER_MS)
    (finding,) = fuzz_result.findings
    assert (finding.rule, finding.severity, finding.reproducibility) == ("health", "hang", "3 of 3, deterministic")
    assert finding.cause == "the server greets nobody after VRFY"
    assert finding.death is None
    assert octets_sent(finding).upper().startswith(b"VRFY")
    assert octets_sent(finding).count(b"\r\n") == 1
    assert server.restarts > 3
    assert server.deaths == []
    assert fuzz_result.result["cases"]["run"] == CASES
    assert not fuzz_result.result["target"]["gone"]


def test_server_that_closes_connections_and_lives_did_not_die() -> None:
    server = WatchedDyingServer(starts_with(b"VRFY"))
    server.process = DyingServer(starts_with(b"VRFY"), alone=True)
    assert {finding.rule for finding in fuzz(server).findings} == {"close-without-421"}


def logging_server(*lines: tuple[bytes, str]) -> WatchedDyingServer:
    """A server that lives, and writes a line to its log for each command that begins with some octets."""
    texts = iter(range(1000, 1 << 30))

    def on_line(line: bytes) -> None:
        for beginning, text in lines:
            if line.upper().startswith(beginning):
                server.log(text.format(number=next(texts), line=line.decode("latin-1")))

    server = WatchedDyingServer(lambda line: False, on_line=on_line)
    return server


def test_case_that_makes_an_error_appear_in_the_log_is_a_finding() -> None:
    server = logging_server((b"VRFY", "smtpd[{number}]: panic: no handler for '{line}'"), (b"EHLO", "error: hello {number}"))
    (finding,) = fuzz(server).findings
    assert (finding.rule, finding.severity, finding.reproducibility) == ("health", "violation", "3 of 3, deterministic")
    assert finding.cause == "the server's log: smtpd[…]: panic: no handler for …"
    assert finding.actual.startswith("the server's log speaks of an error: smtpd[")
    assert octets_sent(finding).upper().startswith(b"VRFY")
    assert octets_sent(finding).count(b"\r\n") == 1
    (line,) = finding.log_lines
    assert "panic: no handler for" in line


def test_lines_with_different_texts_are_different_findings() -> None:
    server = logging_server(
        (b"VRFY", "error: VRFY {number}"), (b"EXPN", "Traceback (most recent call last):"), (b"EXPN", "KeyError: 'x'")
    )
    assert {(finding.severity, finding.cause) for finding in fuzz(server).findings} == {
        ("warning", "the server's log: error: VRFY …"),
        ("violation", "the server's log: KeyError: …"),
    }


def test_line_that_the_unchanged_scenario_causes_is_no_finding() -> None:
    assert fuzz(logging_server((b"RCPT", "error: {number}"))).findings == []


@pytest.mark.parametrize(("logs", "status"), [(True, STILL_THERE), (False, FIXED)])
def test_replay_reads_the_log(tmp_path: Path, logs: bool, status: str) -> None:
    path = tmp_path / "finding.yaml"
    path.write_text(
        "name: x\nfinding: {version: 1, rule: health, severity: violation, by: fuzz, actual: '', "
        'cause: "the server\'s log: panic … at …"}\nsession:\n  - VRFY x\n'
    )
    server = logging_server((b"VRFY", "panic {number} at 0x{number}") if logs else (b"VRFY", "panic: another"))

    async def main() -> tuple[str, str]:
        async with running(server.process) as process:
            access = Access(parse_target(f"smtp://127.0.0.1:{process.port}"))
            watched, unwatched = [
                (await replay([load_finding(path)], access, server=one))[0].status for one in (server, None)
            ]
            return watched, unwatched

    assert trio.run(main) == (status, CANNOT_TELL)
