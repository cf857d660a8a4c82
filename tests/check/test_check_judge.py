"""The court: what counts, what is gone, what was seen once only; and finding out what is offered."""

from __future__ import annotations

import socket

import trio
from judging import judged
from servers import free_port

from smtpbench.check.judge import Court, Outcome
from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.rules import lines
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover, reach
from smtpbench.rules.offer import Offer, keywords
from smtpbench.rules.rule import Rule
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script
from smtpbench.session.server import ServerSession
from smtpbench.session.service import Service
from smtpbench.session.stage import stage
from smtpbench.sink.behaviour import Behaviour, parse_rule
from smtpbench.sink.serve import sink_running
from smtpbench.smtp.reply import Reply
from smtpbench.target import Access, parse_target


def court(rules: list[Rule], session: type[ServerSession] = ServerSession, offer: Offer | None = None) -> dict[str, Outcome]:
    async def main() -> dict[str, Outcome]:
        async with sink_running(session=session) as sink, stage(route_to(sink.port), 500_000_000) as here:
            outcomes = await Court(here, offer or Offer(recipient="b@recipient.example")).judge(rules)
            return {outcome.rule.name: outcome for outcome in outcomes}

    return trio.run(main)


def route_to(port: int) -> Route:
    return Route(socket.AF_INET, ("127.0.0.1", port))


def rule(name: str, judge: r.Judge, *, needs: tuple[str, ...] = (), alone: bool = False) -> Rule:
    def probe(offer: Offer) -> list[Script]:
        return [lines.script(offer, lines.hello(offer))]

    return Rule("R00", name, "RFC 5321 §1", r.VIOLATION, "", "", needs, probe, judge, alone=alone)


def test_a_violation_is_seen_twice_before_it_counts() -> None:
    tries: list[int] = []

    def once(offer: Offer, dialogues: object) -> r.Judgement:
        tries.append(1)
        return r.broken("odd") if len(tries) == 1 else r.HELD

    def always(offer: Offer, dialogues: object) -> r.Judgement:
        return r.broken("odd")

    outcomes = court([rule("once", once), rule("always", always)])
    assert outcomes["once"].judgement == r.unclear("seen once in two tries: odd")
    assert outcomes["always"].judgement == r.broken("odd")
    assert outcomes["always"].reproducibility == "2 of 2"


def test_what_is_not_offered_is_inconclusive() -> None:
    outcomes = court([rule("tls", lambda offer, dialogues: r.HELD, needs=("starttls",))])
    assert outcomes["tls"].judgement == r.unclear("STARTTLS is not offered")


class _Overwhelmed(ServerSession):
    """It greets its first three connections, and is too busy for the next eight."""

    __slots__ = ()
    came = 0

    def opened(self, now_ns: int) -> api.Out:
        _Overwhelmed.came += 1
        return b"" if 3 < _Overwhelmed.came <= 11 else super().opened(now_ns)


def test_who_was_not_greeted_is_tried_again_when_others_are_done() -> None:
    _Overwhelmed.came = 0
    outcomes = court([rule(name, lambda offer, dialogues: r.HELD) for name in "abcdefgh"], _Overwhelmed)
    assert {outcome.judgement for outcome in outcomes.values()} == {r.HELD}
    assert _Overwhelmed.came > 11


class _Mortal(ServerSession):
    """Its whole server falls silent once somebody says DIE."""

    __slots__ = ()
    dead = False

    def opened(self, now_ns: int) -> api.Out:
        if _Mortal.dead:
            self.wants = api.RESET
            return b""
        return super().opened(now_ns)

    def _other(self, line: bytes) -> bytes:
        if line == b"DIE\r\n":
            _Mortal.dead = True
            self.wants = api.RESET
            return b""
        return super()._other(line)


def test_a_server_that_dies_breaks_health_and_leaves_the_rest_open() -> None:
    _Mortal.dead = False

    def probe(offer: Offer) -> list[Script]:
        return [lines.script(offer, lines.hello(offer), lines.line(what)) for what in ("NOOP", "DIE", "NOOP")]

    deadly = Rule("R81", "health", "RFC 5321 §3.8", r.SECURITY, "", "", (), probe, lambda o, d: r.HELD, alone=True)
    after = rule("later", lambda offer, dialogues: r.HELD, alone=True)
    outcomes = court([deadly, after], _Mortal)
    assert outcomes["health"].broken
    take = outcomes["health"].take
    assert take is not None
    assert Dialogue.of(take.tape).after(b"DIE") is not None
    assert outcomes["later"].judgement == r.unclear("the target is gone")


def test_an_invariant_reads_what_probes_said() -> None:
    def rude(offer: Offer, dialogue: Dialogue) -> str:
        return "it said 221" if dialogue.last_code == 221 else ""

    reads = Rule("R00", "rude", "RFC 5321 §1", r.VIOLATION, "", "", invariant=rude)
    assert court([reads])["rude"].judgement.verdict == r.UNCLEAR
    both = court([rule("probe", lambda offer, dialogues: r.HELD), reads])
    assert both["rude"].judgement == r.broken("it said 221")


def test_judging_again_gives_the_same() -> None:
    first, second = (judged(["eod-lf-lf", "eod-cr"]) for _ in range(2))
    assert {name: outcome.judgement for name, outcome in first.items()} == {
        name: outcome.judgement for name, outcome in second.items()
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


def discovered(service: Service, fixture: Fixture) -> Offer:
    async def main() -> Offer:
        async with sink_running(service) as sink, stage(route_to(sink.port), 500_000_000) as here:
            return (await discover(here, fixture))[0]

    return trio.run(main)


def test_a_recipient_is_found() -> None:
    assert discovered(Service(), Fixture()).recipient == "user@recipient.example"
    picky = Service(manners=Behaviour([parse_rule("RCPT=550 5.1.1 no")]))
    assert discovered(picky, Fixture()).recipient == ""
    assert discovered(picky, Fixture(recipient="b@recipient.example")).recipient == ""


def test_a_login_that_is_demanded_is_noticed() -> None:
    service = Service(users={"u": "p"}, require_auth=True)
    offer = discovered(service, Fixture(credentials=("u", "p")))
    assert not offer.tls
    assert offer.login
    assert offer.lacks(("auth",)) == ""


def test_keywords_of_ehlo() -> None:
    reply = Reply(250, b"250-x greets you\r\n250-size 100\r\n250-AUTH=LOGIN\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n")
    assert keywords(reply) == {"SIZE": "100", "AUTH": "PLAIN LOGIN", "8BITMIME": ""}


def test_needs() -> None:
    offer = Offer(clear={"STARTTLS": "", "DSN": ""}, inside={"AUTH": "PLAIN"})
    assert offer.lacks(("smtp", "starttls", "auth", "clear", "DSN")) == ""
    for need in ("recipient", "credentials", "lmtp", "CHUNKING"):
        assert offer.lacks((need,)) != ""
    assert Offer(implicit_tls=True, clear={"STARTTLS": ""}).lacks(("starttls",)) != ""
