"""The court: what counts, what is gone, what was seen once only; and finding out what is offered."""

from __future__ import annotations

import socket

import trio
from judging import judged
from servers import free_port

from smtpbench.check.checker import Checker, RuleResult
from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.rules import probe_steps
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover, reach
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


def check_run(
    rules: list[Rule], session: type[ServerSession] = ServerSession, target_info: TargetInfo | None = None
) -> dict[str, RuleResult]:
    async def main() -> dict[str, RuleResult]:
        async with sink_running(session_class=session) as sink, session_runner(route_to(sink.port), 500_000_000) as here:
            outcomes = await Checker(here, target_info or TargetInfo(recipient="b@recipient.example")).run(rules)
            return {outcome.rule.name: outcome for outcome in outcomes}

    return trio.run(main)


def route_to(port: int) -> Route:
    return Route(socket.AF_INET, ("127.0.0.1", port))


def rule(name: str, judge: r.Evaluate, *, needs: tuple[str, ...] = (), alone: bool = False) -> Rule:
    def probe(target_info: TargetInfo) -> list[Script]:
        return [probe_steps.script(target_info, probe_steps.hello(target_info))]

    return Rule("R00", name, "RFC 5321 §1", r.VIOLATION, "", "", needs, probe, judge, exclusive=alone)


def test_a_violation_is_seen_twice_before_it_counts() -> None:
    tries: list[int] = []

    def once(target_info: TargetInfo, dialogues: object) -> r.Verdict:
        tries.append(1)
        return r.violated("odd") if len(tries) == 1 else r.PASSED

    def always(target_info: TargetInfo, dialogues: object) -> r.Verdict:
        return r.violated("odd")

    outcomes = check_run([rule("once", once), rule("always", always)])
    assert outcomes["once"].verdict == r.inconclusive("seen once in two tries: odd")
    assert outcomes["always"].verdict == r.violated("odd")
    assert outcomes["always"].reproducibility == "2 of 2"


def test_what_is_not_offered_is_inconclusive() -> None:
    outcomes = check_run([rule("tls", lambda target_info, dialogues: r.PASSED, needs=("starttls",))])
    assert outcomes["tls"].verdict == r.inconclusive("STARTTLS is not offered")


class _Overwhelmed(ServerSession):
    """It greets its first three connections, and is too busy for the next eight."""

    __slots__ = ()
    came = 0

    def connected(self, now_ns: int) -> api.Out:
        _Overwhelmed.came += 1
        return b"" if 3 < _Overwhelmed.came <= 11 else super().connected(now_ns)


def test_who_was_not_greeted_is_tried_again_when_others_are_done() -> None:
    _Overwhelmed.came = 0
    outcomes = check_run([rule(name, lambda target_info, dialogues: r.PASSED) for name in "abcdefgh"], _Overwhelmed)
    assert {outcome.verdict for outcome in outcomes.values()} == {r.PASSED}
    assert _Overwhelmed.came > 11


class _Mortal(ServerSession):
    """Its whole server falls silent once somebody says DIE."""

    __slots__ = ()
    dead = False

    def connected(self, now_ns: int) -> api.Out:
        if _Mortal.dead:
            self.pending_action = api.RESET
            return b""
        return super().connected(now_ns)

    def handle_command(self, line: bytes) -> bytes:
        if line == b"DIE\r\n":
            _Mortal.dead = True
            self.pending_action = api.RESET
            return b""
        return super().handle_command(line)


def test_a_server_that_dies_breaks_health_and_leaves_the_rest_open() -> None:
    _Mortal.dead = False

    def probe(target_info: TargetInfo) -> list[Script]:
        return [
            probe_steps.script(target_info, probe_steps.hello(target_info), probe_steps.line(what))
            for what in ("NOOP", "DIE", "NOOP")
        ]

    deadly = Rule("R81", "health", "RFC 5321 §3.8", r.SECURITY, "", "", (), probe, lambda o, d: r.PASSED, exclusive=True)
    after = rule("later", lambda target_info, dialogues: r.PASSED, alone=True)
    outcomes = check_run([deadly, after], _Mortal)
    assert outcomes["health"].violated
    take = outcomes["health"].session_result
    assert take is not None
    assert Dialogue.of(take.transcript).exchange_of(b"DIE") is not None
    assert outcomes["later"].verdict == r.inconclusive("the target is gone")


def test_an_invariant_reads_what_probes_said() -> None:
    def rude(target_info: TargetInfo, dialogue: Dialogue) -> str:
        return "it said 221" if dialogue.last_code == 221 else ""

    reads = Rule("R00", "rude", "RFC 5321 §1", r.VIOLATION, "", "", invariant=rude)
    assert check_run([reads])["rude"].verdict.status == r.INCONCLUSIVE
    both = check_run([rule("probe", lambda target_info, dialogues: r.PASSED), reads])
    assert both["rude"].verdict == r.violated("it said 221")


def test_judging_again_gives_the_same() -> None:
    first, second = (judged(["eod-lf-lf", "eod-cr"]) for _ in range(2))
    assert {name: outcome.verdict for name, outcome in first.items()} == {
        name: outcome.verdict for name, outcome in second.items()
    }


def test_the_address_that_greets_is_taken() -> None:
    class Twofold(Access):
        """Its first address is nobody's."""

        def routes(self) -> list[Route]:
            (route,) = super().routes()
            return [route_to(free_port()), route]

    async def main() -> bool:
        async with sink_running() as sink:
            access = Twofold(parse_target(f"smtp://127.0.0.1:{sink.port}"))
            return (await reach(access)).address == ("127.0.0.1", sink.port)

    assert trio.run(main)


# -- what is offered -----------------------------------------------------------------------------------------------


def discovered(service: ServerContext, fixture: Fixture) -> TargetInfo:
    async def main() -> TargetInfo:
        async with sink_running(service) as sink, session_runner(route_to(sink.port), 500_000_000) as here:
            return (await discover(here, fixture))[0]

    return trio.run(main)


def test_a_recipient_is_found() -> None:
    assert discovered(ServerContext(), Fixture()).recipient == "user@recipient.example"
    picky = ServerContext(faults=Behaviour([parse_rule("RCPT=550 5.1.1 no")]))
    assert discovered(picky, Fixture()).recipient == ""
    assert discovered(picky, Fixture(recipient="b@recipient.example")).recipient == ""


def test_a_login_that_is_demanded_is_noticed() -> None:
    service = ServerContext(users={"u": "p"}, require_auth=True)
    target_info = discovered(service, Fixture(credentials=("u", "p")))
    assert not target_info.tls
    assert target_info.login
    assert target_info.missing(("auth",)) == ""


def test_keywords_of_ehlo() -> None:
    reply = Reply(250, b"250-x greets you\r\n250-size 100\r\n250-AUTH=LOGIN\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n")
    assert keywords(reply) == {"SIZE": "100", "AUTH": "PLAIN LOGIN", "8BITMIME": ""}


def test_needs() -> None:
    target_info = TargetInfo(keywords_before_tls={"STARTTLS": "", "DSN": ""}, keywords_in_tls={"AUTH": "PLAIN"})
    assert target_info.missing(("smtp", "starttls", "auth", "clear", "DSN")) == ""
    for need in ("recipient", "credentials", "lmtp", "CHUNKING"):
        assert target_info.missing((need,)) != ""
    assert TargetInfo(implicit_tls=True, keywords_before_tls={"STARTTLS": ""}).missing(("starttls",)) != ""
