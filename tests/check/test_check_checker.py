"""The checker: repeated violations, crashes, invariants, progress; and the discovery of what a target offers."""

from __future__ import annotations

import socket

import trio
from check_sink import check_sink
from servers import free_port

from smtpbench.check.checker import EXCLUSIVE_PROBES, INVARIANTS, PROBES, Checker
from smtpbench.check.rule_result import RuleResult
from smtpbench.check.run import DISCOVERY, CheckProgress, CheckRequest, run_check
from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.rules import probe_steps
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover, reach
from smtpbench.rules.register import find
from smtpbench.rules.rule import Rule
from smtpbench.rules.target_info import TargetInfo, keywords
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import session_runner
from smtpbench.session.script import Script
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.behaviour import Behaviour, parse_rule
from smtpbench.sink.serve import sink_running
from smtpbench.smtp.reply import Reply
from smtpbench.target import Access, parse_target


def check_rules(
    rules: list[Rule], session: type[ServerSession] = ServerSession, target_info: TargetInfo | None = None
) -> dict[str, RuleResult]:
    async def main() -> dict[str, RuleResult]:
        async with sink_running(session_class=session) as sink, session_runner(route_to(sink.port), 500_000_000) as runner:
            results = await Checker(runner, target_info or TargetInfo(recipient="b@recipient.example")).run(rules)
            return {result.rule.name: result for result in results}

    return trio.run(main)


def route_to(port: int) -> Route:
    return Route(socket.AF_INET, ("127.0.0.1", port))


def make_rule(name: str, evaluate: r.Evaluate, *, needs: tuple[str, ...] = (), exclusive: bool = False) -> Rule:
    def probe(target_info: TargetInfo) -> list[Script]:
        return [probe_steps.script(target_info, probe_steps.hello(target_info))]

    return Rule("R00", name, "RFC 5321 §1", r.VIOLATION, "", "", needs, probe, evaluate, exclusive=exclusive)


def test_violation_must_show_twice() -> None:
    attempts: list[int] = []

    def once(target_info: TargetInfo, dialogues: object) -> r.Verdict:
        attempts.append(1)
        return r.violated("odd") if len(attempts) == 1 else r.PASSED

    def always(target_info: TargetInfo, dialogues: object) -> r.Verdict:
        return r.violated("odd")

    results = check_rules([make_rule("once", once), make_rule("always", always)])
    assert results["once"].verdict == r.inconclusive("seen in one of two attempts: odd")
    assert results["always"].verdict == r.violated("odd")
    assert results["always"].reproducibility == "2 of 2"


def test_rule_of_a_missing_extension_is_inconclusive() -> None:
    results = check_rules([make_rule("tls", lambda target_info, dialogues: r.PASSED, needs=("starttls",))])
    assert results["tls"].verdict == r.inconclusive("STARTTLS is not offered")


class _OverloadedSession(ServerSession):
    """The server greets its first three connections, and is too busy to greet the next eight."""

    __slots__ = ()
    connections = 0

    def connected(self, now_ns: int) -> api.Out:
        _OverloadedSession.connections += 1
        return b"" if 3 < _OverloadedSession.connections <= 11 else super().connected(now_ns)


def test_probe_without_greeting_runs_again_after_the_others() -> None:
    _OverloadedSession.connections = 0
    results = check_rules(
        [make_rule(name, lambda target_info, dialogues: r.PASSED) for name in "abcdefgh"], _OverloadedSession
    )
    assert {result.verdict for result in results.values()} == {r.PASSED}
    assert _OverloadedSession.connections > 11


class _CrashingSession(ServerSession):
    """The command CRASH makes the server reset every connection."""

    __slots__ = ()
    crashed = False

    def connected(self, now_ns: int) -> api.Out:
        if _CrashingSession.crashed:
            self.pending_action = api.RESET
            return b""
        return super().connected(now_ns)

    def handle_command(self, line: bytes) -> bytes:
        if line == b"CRASH\r\n":
            _CrashingSession.crashed = True
            self.pending_action = api.RESET
            return b""
        return super().handle_command(line)


def test_crash_violates_health_and_leaves_other_rules_inconclusive() -> None:
    _CrashingSession.crashed = False

    def probe(target_info: TargetInfo) -> list[Script]:
        return [
            probe_steps.script(target_info, probe_steps.hello(target_info), probe_steps.line(command))
            for command in ("NOOP", "CRASH", "NOOP")
        ]

    crash = Rule(
        "R81",
        "health",
        "RFC 5321 §3.8",
        r.CRASH,
        "",
        "",
        (),
        probe,
        lambda target_info, dialogues: r.PASSED,
        exclusive=True,
    )
    later = make_rule("later", lambda target_info, dialogues: r.PASSED, exclusive=True)
    results = check_rules([crash, later], _CrashingSession)
    assert results["health"].violated
    assert results["health"].severity == "crash"
    fatal_session = results["health"].session_result
    assert fatal_session is not None
    assert Dialogue.of(fatal_session.transcript).exchange_of(b"CRASH") is not None
    assert results["later"].verdict == r.inconclusive("the target is gone")


def test_invariant_is_evaluated_on_the_dialogues_of_probes() -> None:
    def find_221(target_info: TargetInfo, dialogue: Dialogue) -> str:
        return "the last code is 221" if dialogue.last_code == 221 else ""

    invariant = Rule("R00", "no-221", "RFC 5321 §1", r.VIOLATION, "", "", invariant=find_221)
    assert check_rules([invariant])["no-221"].verdict.status == r.INCONCLUSIVE
    both = check_rules([make_rule("probe", lambda target_info, dialogues: r.PASSED), invariant])
    assert both["no-221"].verdict == r.violated("the last code is 221")


def test_second_check_gives_the_same_verdicts() -> None:
    first, second = (check_sink(["eod-lf-lf", "eod-cr"]) for _ in range(2))
    assert {name: result.verdict for name, result in first.items()} == {
        name: result.verdict for name, result in second.items()
    }


def test_progress_counts_rules_with_a_result() -> None:
    progress: list[CheckProgress] = []

    async def main() -> None:
        async with sink_running() as sink:
            access = Access(parse_target(f"smtp://127.0.0.1:{sink.port}"))
            rules = find(["noop-250", "greeting", "health"])
            await run_check(CheckRequest(access, rules, recipient="b@recipient.example"), progress.append)

    trio.run(main)
    assert [step.done for step in progress] == sorted(step.done for step in progress)
    assert progress[0].phase == DISCOVERY
    assert (progress[-1].done, progress[-1].total) == (3, 3)
    assert {step.phase for step in progress} == {DISCOVERY, PROBES, EXCLUSIVE_PROBES, INVARIANTS}
    assert {step.rule for step in progress} == {"", "noop-250", "greeting", "health"}
    assert {step.target for step in progress} == {progress[0].target}


def test_address_that_greets_is_chosen() -> None:
    class TwoAddresses(Access):
        """Nothing listens on the first address."""

        def routes(self) -> list[Route]:
            (route,) = super().routes()
            return [route_to(free_port()), route]

    async def main() -> bool:
        async with sink_running() as sink:
            access = TwoAddresses(parse_target(f"smtp://127.0.0.1:{sink.port}"))
            return (await reach(access)).address == ("127.0.0.1", sink.port)

    assert trio.run(main)


# -- what is offered -----------------------------------------------------------------------------------------------


def discover_target(service: ServerContext, fixture: Fixture) -> TargetInfo:
    async def main() -> TargetInfo:
        async with sink_running(service) as sink, session_runner(route_to(sink.port), 500_000_000) as runner:
            return (await discover(runner, fixture))[0]

    return trio.run(main)


def test_recipient_is_discovered() -> None:
    assert discover_target(ServerContext(), Fixture()).recipient == "user@recipient.example"
    rejecting = ServerContext(faults=Behaviour([parse_rule("RCPT=550 5.1.1 no")]))
    assert discover_target(rejecting, Fixture()).recipient == ""
    assert discover_target(rejecting, Fixture(recipient="b@recipient.example")).recipient == ""


def test_required_login_is_discovered() -> None:
    service = ServerContext(users={"u": "p"}, require_auth=True)
    target_info = discover_target(service, Fixture(credentials=("u", "p")))
    assert not target_info.tls
    assert target_info.login
    assert target_info.missing(("auth",)) == ""


def test_keywords_of_ehlo_are_read() -> None:
    reply = Reply(250, b"250-x greets you\r\n250-size 100\r\n250-AUTH=LOGIN\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n")
    assert keywords(reply) == {"SIZE": "100", "AUTH": "PLAIN LOGIN", "8BITMIME": ""}


def test_missing_needs_have_a_reason() -> None:
    target_info = TargetInfo(keywords_before_tls={"STARTTLS": "", "DSN": ""}, keywords_in_tls={"AUTH": "PLAIN"})
    assert target_info.missing(("smtp", "starttls", "auth", "clear", "DSN")) == ""
    for need in ("recipient", "credentials", "lmtp", "CHUNKING"):
        assert target_info.missing((need,)) != ""
    assert TargetInfo(implicit_tls=True, keywords_before_tls={"STARTTLS": ""}).missing(("starttls",)) != ""


class _BusySession(ServerSession):
    """The server greets its first three connections, and refuses the next five with 421."""

    __slots__ = ()
    connections = 0

    def connected(self, now_ns: int) -> api.Out:
        _BusySession.connections += 1
        if 3 < _BusySession.connections <= 8:
            self.pending_action = api.CLOSE
            return b"421 4.3.2 Too many connections\r\n"
        return super().connected(now_ns)


def test_probe_that_was_refused_with_421_runs_again() -> None:
    _BusySession.connections = 0
    results = check_rules([make_rule(name, lambda target_info, dialogues: r.PASSED) for name in "abcdefgh"], _BusySession)
    assert {result.verdict for result in results.values()} == {r.PASSED}
    assert _BusySession.connections > 8
