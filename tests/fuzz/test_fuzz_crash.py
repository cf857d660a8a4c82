"""Campaigns on a server that dies: the case that kills it is found, and nothing else is said of what it cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from dying_server import DyingServer, WatchedDyingServer, dying_server, running

from smtpbench.check.replay import CANNOT_TELL, FIXED, STILL_THERE, replay
from smtpbench.engine import api
from smtpbench.fuzz import target_health
from smtpbench.fuzz.losses import CutOffCase, Losses, last_verb, likelihood
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, fuzz_target
from smtpbench.rules.crash import run_watched, sanitizer_reported
from smtpbench.rules.finding import Finding
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.session import script as s
from smtpbench.session.runner import SessionResult, session_runner
from smtpbench.session.script import Script, Step
from smtpbench.session.server import ServerSession
from smtpbench.session.transcript import CLIENT, EVENT, SERVER, Transcript
from smtpbench.sink.serve import sink_running
from smtpbench.target import Access, parse_target
from smtpbench.units import NS_PER_MS, NS_PER_S


def access(port: int) -> Access:
    return Access(parse_target(f"smtp://127.0.0.1:{port}"))


def is_deadly(line: bytes) -> bool:
    return line.upper().startswith(b"VRFY")


def fuzz(connections: int, *, starts: int = 1000, alone: bool = False) -> FuzzResult:
    plan = CampaignPlan(150, None, 1, connections, ("order",), 20, shrink_s=3.0)

    async def main() -> FuzzResult:
        async with dying_server(is_deadly, starts, alone=alone) as server:
            return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access(server.port), plan))

    return trio.run(main)


def octets_sent(finding: Finding) -> bytes:
    return b"".join(entry.data for entry in finding.transcript.entries if entry.who == CLIENT)


@pytest.mark.parametrize("connections", [1, 20])
def test_case_that_kills_a_supervised_server_is_the_one_finding(connections: int) -> None:
    fuzz_result = fuzz(connections)
    (finding,) = fuzz_result.findings
    assert (finding.rule, finding.severity, finding.cause) == ("health", "crash", "the server died after VRFY")
    assert finding.reproducibility == "3 of 3, deterministic"
    assert octets_sent(finding).upper().startswith(b"VRFY")
    assert fuzz_result.new_findings == 1
    result = fuzz_result.result
    assert (result["rules"]["health"]["verdict"], result["rules"]["health"]["severity"]) == ("violation", "crash")
    assert result["rules"]["close-without-421"]["verdict"] == "pass"
    assert result["cases"]["run"] == 150
    assert not result["target"]["gone"]
    assert fuzz_result.candidates == []


def test_each_command_that_kills_the_server_is_a_finding() -> None:
    plan = CampaignPlan(150, None, 1, 1, ("order",), 20, shrink_s=3.0)

    async def main() -> FuzzResult:
        async with dying_server(lambda line: line.upper().startswith((b"VRFY", b"EXPN"))) as server:
            return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access(server.port), plan))

    causes = {finding.cause for finding in trio.run(main).findings}
    assert causes == {"the server died after VRFY", "the server died after EXPN"}


def test_server_that_stops_greeting_is_one_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_health, "SLOW_GREETING_NS", 400 * NS_PER_MS)

    class Hanging(ServerSession):
        """Replies to nobody after VRFY."""

        __slots__ = ()
        hung = False

        def connected(self, now_ns: int) -> api.Out:
            return b"" if Hanging.hung else super().connected(now_ns)

        def receive(self, data: bytes, now_ns: int) -> api.Out:
            Hanging.hung = Hanging.hung or is_deadly(data)
            return b"" if Hanging.hung else super().receive(data, now_ns)

    plan = CampaignPlan(150, None, 1, 8, ("order",), 20, shrink_s=1.0)

    async def main() -> FuzzResult:
        async with sink_running(session_class=Hanging) as sink:
            one = Access(parse_target(f"smtp://127.0.0.1:{sink.port}"), timeout_ns=200 * NS_PER_MS)
            return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), one, plan))

    fuzz_result = trio.run(main)
    (finding,) = fuzz_result.findings
    assert (finding.severity, finding.cause) == ("hang", "the target is gone")
    assert finding.actual.startswith("the server stopped to greet, and accepts connections; it did not come back")
    assert fuzz_result.result["rules"]["health"]["severity"] == "hang"


def test_server_that_stays_dead_is_a_finding_that_is_not_proved() -> None:
    fuzz_result = fuzz(8, starts=1)
    (finding,) = fuzz_result.findings
    assert (finding.severity, finding.cause, finding.reproducibility) == (
        "crash",
        "the target is gone",
        "1 of 1, not proved",
    )
    assert finding.actual.startswith("the server died; it did not come back; of the ")
    assert finding.actual.endswith("this one is the likeliest cause; this is not proved")
    assert any(b"VRFY" in octets_sent(one).upper() for one in (finding, *fuzz_result.candidates))
    assert fuzz_result.new_findings == 1
    assert fuzz_result.result["target"]["gone"]
    ranked = [candidate["id"] for candidate in fuzz_result.result["candidates"]]
    assert ranked == [candidate.id for candidate in fuzz_result.candidates]
    for candidate in fuzz_result.candidates:
        assert candidate.actual.endswith("the likeliest first; not proved")
        assert b"221" not in candidate.transcript.received()


def test_server_of_which_one_connection_dies_closes_without_421() -> None:
    fuzz_result = fuzz(20, alone=True)
    assert {finding.rule for finding in fuzz_result.findings} == {"close-without-421"}


def finding_file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "finding.yaml"
    header = 'name: x\nfinding: {version: 1, rule: health, severity: crash, by: fuzz, actual: ""}\nsession:\n'
    path.write_text(header + "".join(f"  - {line}\n" for line in lines))
    return path


@pytest.mark.parametrize(("alone", "status"), [(False, STILL_THERE), (True, CANNOT_TELL), (None, FIXED)])
def test_replay_tells_a_server_that_dies_again(tmp_path: Path, alone: bool | None, status: str) -> None:
    files = [load_scenario(finding_file(tmp_path, "VRFY x"))] * 2  # the second one needs a server that is back

    async def main() -> list[str]:
        deadly = (lambda line: False) if alone is None else is_deadly
        async with dying_server(deadly, alone=alone is True) as server:
            return [result.status for result in await replay(files, access(server.port))]

    assert trio.run(main) == [status, status]


@pytest.mark.parametrize(("deadly", "status"), [(True, STILL_THERE), (False, FIXED)])
def test_replay_judges_a_crash_by_the_death_of_a_watched_server(tmp_path: Path, deadly: bool, status: str) -> None:
    files = [load_scenario(finding_file(tmp_path, "VRFY x"))] * 2  # the second one needs a server that is back
    server = WatchedDyingServer(lambda line: deadly and is_deadly(line))

    async def main() -> list[tuple[str, str]]:
        async with running(server.process) as process:
            results = await replay(files, access(process.port), server=server)
            return [(result.status, result.actual) for result in results]

    assert trio.run(main) == [(status, "the server died: signal 6 (SIGABRT)" if deadly else "")] * 2


def test_replay_cannot_tell_whether_a_crash_is_fixed_whose_session_is_not_known(tmp_path: Path) -> None:
    path = finding_file(tmp_path, "VRFY x")
    path.write_text(path.read_text().replace('actual: ""', 'actual: "", reproducibility: "1 of 1, not proved"'))

    async def main(server: WatchedDyingServer) -> str:
        async with running(server.process) as process:
            return (await replay([load_scenario(path)], access(process.port), server=server))[0].status

    assert trio.run(main, WatchedDyingServer(lambda line: False)) == CANNOT_TELL
    assert trio.run(main, WatchedDyingServer(is_deadly)) == STILL_THERE


def test_replay_says_fixed_of_a_watched_server_that_closes_a_connection_and_lives(tmp_path: Path) -> None:
    server = WatchedDyingServer(is_deadly)
    server.process = DyingServer(is_deadly, alone=True)

    async def main() -> list[str]:
        async with running(server.process) as process:
            files = [load_scenario(finding_file(tmp_path, "VRFY x"))]
            return [result.status for result in await replay(files, access(process.port), server=server)]

    assert trio.run(main) == [FIXED]


def watch(session: type[ServerSession]) -> tuple[str, str]:
    """Run VRFY; return what came last, and how it is known that the server died."""
    steps = (Step(s.COMMAND, b"VRFY x\r\n", expected_replies=(s.ExpectedReply("VRFY", s.ANY),), metric="VRFY"),)

    async def main() -> tuple[str, str]:
        async with sink_running(session_class=session) as sink:
            (route,) = access(sink.port).routes()
            async with session_runner(route, NS_PER_S) as runner:
                watched = await run_watched(runner, Script.of("x", steps, greeting=s.ANY_GREETING))
                last = [entry.data for entry in watched.session_result.transcript.entries if entry.who == CLIENT]
                return last[-1].decode(), watched.death

    return trio.run(main)


def test_closed_connection_is_no_crash_if_other_clients_are_not_served() -> None:
    class OneClient(ServerSession):
        """Serves one client at a time, and closes in place of a reply to VRFY."""

        __slots__ = ()

        def connected(self, now_ns: int) -> api.Out:
            if self.counts.connections_open > 1:
                self.pending_action = api.CLOSE
                return b"421 busy\r\n"
            return super().connected(now_ns)

        def handle_command(self, line: bytes) -> bytes:
            if is_deadly(line):
                self.pending_action = api.CLOSE
                return b""
            return super().handle_command(line)

    class ClosesOthers(OneClient):
        """The same without a word."""

        __slots__ = ()

        def connected(self, now_ns: int) -> api.Out:
            if self.counts.connections_open > 1:
                self.pending_action = api.CLOSE
                return b""
            return super().connected(now_ns)

    assert watch(OneClient) == watch(ClosesOthers) == ("VRFY x\r\n", "")


# -- losses ----------------------------------------------------------------------------------------------------------

SCENARIO = Script.of("x", (Step(s.COMMAND, b"NOOP\r\n", metric="NOOP"),))


def case(number: int, *entries: tuple[int, str, bytes]) -> CutOffCase:
    transcript = Transcript()
    for at_ms, who, data in entries:
        transcript.add(at_ms * NS_PER_MS, who, data)
    return CutOffCase(number, SessionResult(SCENARIO, transcript, None))


def cut_off(number: int, at_ms: int, *, sent_ms: int = 0, sent: bytes = b"VRFY x\r\n") -> CutOffCase:
    return case(number, (0, SERVER, b"220 x\r\n"), (sent_ms, CLIENT, sent), (at_ms, EVENT, b"closed"))


def test_cases_cut_off_at_the_same_moment_wait_for_a_search() -> None:
    losses = Losses(SCENARIO)
    for number, at_ms in enumerate((100, 110, 400)):
        losses.add(cut_off(number, at_ms))
    assert list(losses.settle(1000 * NS_PER_MS)) == []
    assert [one.number for one in losses.settle(2000 * NS_PER_MS)] == [2]
    (loss,) = losses.sudden
    assert ([one.number for one in loss.cases], loss.refused) == ([0, 1], False)


def test_case_before_a_refused_connection_waits_for_a_search() -> None:
    losses = Losses(SCENARIO)
    losses.add(cut_off(0, 100))
    losses.add(cut_off(1, 300))
    losses.refuse(350 * NS_PER_MS)
    losses.add(cut_off(2, 2000))
    losses.refuse(4000 * NS_PER_MS)
    assert [one.number for one in losses.settle(9000 * NS_PER_MS)] == [0, 2]
    assert [(loss.cases[0].number, loss.refused) for loss in losses.sudden] == [(1, True)]


def test_loss_of_a_watched_server_is_a_crash_only_if_connections_were_refused() -> None:
    losses = Losses(SCENARIO, lambda cases: cases[0].number == 0)
    for number, at_ms in enumerate((100, 110, 400, 410, 700, 710)):  # the first loss is a death that is recorded elsewhere
        losses.add(cut_off(number, at_ms))
    losses.refuse(720 * NS_PER_MS)
    assert [one.number for one in losses.settle(9000 * NS_PER_MS)] == [2, 3]
    assert [[one.number for one in loss.cases] for loss in losses.sudden] == [[4, 5]]


def test_candidates_are_ranked_by_the_first_write_without_a_reply() -> None:
    answered = case(0, (1, CLIENT, b"VRFY x\r\n"), (2, SERVER, b"250 ok\r\n"), (9, EVENT, b"closed"))
    of_scenario = cut_off(1, 9, sent_ms=2, sent=b"NOOP\r\n")
    early, late = cut_off(2, 9, sent_ms=3), cut_off(3, 9, sent_ms=5)
    ranked = sorted(
        (answered, late, of_scenario, early), key=lambda one: likelihood(one.session_result, SCENARIO), reverse=True
    )
    assert [one.number for one in ranked] == [2, 3, 1, 0]


def test_command_that_takes_several_writes_is_the_one_that_was_processed() -> None:
    entries = ((0, SERVER, b"220 x\r\n"), (1, CLIENT, b"NOOP\r\nRCPT TO:<a@b.example>\r"), (2, CLIENT, b"DATA\x85\r\n"))
    assert last_verb(case(0, *entries, (9, EVENT, b"closed")).session_result) == "RCPT"
    assert last_verb(case(0, *entries[:1], (9, EVENT, b"closed")).session_result) == "an unknown command"


def test_report_of_a_sanitizer_is_recognized() -> None:
    report = b"==71==ERROR: AddressSanitizer: heap-buffer-overflow in parse_rcpt\n"
    assert sanitizer_reported(case(0, (0, SERVER, report)).session_result.transcript)
    assert not sanitizer_reported(case(0, (0, CLIENT, report), (1, SERVER, b"500 " + report)).session_result.transcript)
    assert not sanitizer_reported(case(0, (0, SERVER, b"500 no\r\n")).session_result.transcript)
