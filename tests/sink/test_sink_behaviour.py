"""Behaviours: what rules do to a dialogue, by their own clock."""

from __future__ import annotations

import pytest

from smtpbench.engine import api
from smtpbench.errors import UsageError
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.behaviour import Behaviour, behaviour_of, parse_rule
from smtpbench.units import NS_PER_MS

ENVELOPE = (b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n")
LINES = (b"EHLO c\r\n", *ENVELOPE, b"DATA\r\n", b"x\r\n.\r\n", b"QUIT\r\n")


def talk(behaviour: Behaviour, *, at_ns: int = 0) -> tuple[list[tuple[float, bytes]], ServerSession]:
    """What is heard and when (in ms), by a client that says its next line once it has an answer, or would wait 10 s."""
    session = ServerSession(ServerContext(faults=behaviour))
    received: list[tuple[float, bytes]] = []
    now_ns = at_ns
    out = session.connected(now_ns)
    for line in (*LINES, b""):
        answer = b""
        while True:
            answer += out  # type: ignore[operator]  # a server's out is octets
            if session.pending_action != api.SLEEP:
                break
            session.pending_action = api.NOTHING
            now_ns = session.wake_ns
            out = session.wake(now_ns)
        received.append((now_ns / NS_PER_MS, answer))
        if session.pending_action or not line:
            break
        out = session.receive(line, now_ns)
    return received, session


def codes(behaviour: Behaviour) -> list[bytes]:
    return [answer.splitlines()[-1][:3] if answer else b"" for _, answer in talk(behaviour)[0]]


CLEAN = [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]


def test_no_rule_changes_nothing() -> None:
    assert codes(Behaviour()) == CLEAN
    assert not Behaviour()
    assert Behaviour([parse_rule("RCPT=450")])


@pytest.mark.parametrize(
    ("rule", "at", "received", "pending_action"),
    [
        ("RCPT=550 5.1.1 nobody", 3, b"550 5.1.1 nobody\r\n", None),
        ("MAIL=reject", 2, b"550 5.7.1 Refused by the sink\r\n", None),
        ("message=tempfail", 5, b"451 4.7.1 Try again later\r\n", None),
        ("message=552 5.2.2 a@b.example is full", 5, b"552 5.2.2 a@b.example is full\r\n", None),
        ("connect=421", 0, b"421 4.3.2 Closing the connection\r\n", api.LINGER),
        ("DATA=drop", 4, b"", api.CLOSE),
        ("DATA=reset", 4, b"", api.RESET),
        ("EHLO=garbage", 1, b"\xff\xfe\x00 \x1b[2J this is no reply\r\n", None),
        ("EHLO=mute", 1, b"", None),
        ("RCPT=drip", 3, b"250 2.1.5 Recipient ok\r\n", None),
        ("RCPT=close", 3, b"250 2.1.5 Recipient ok\r\n", api.LINGER),
    ],
)
def test_actions(rule: str, at: int, received: bytes, pending_action: int | None) -> None:
    found, session = talk(Behaviour([parse_rule(rule)]))
    assert found[at][1] == received
    if pending_action is not None:
        assert session.pending_action == pending_action
        assert len(found) == at + 1
    assert [answer[:3] for _, answer in found[:at]] == CLEAN[:at]


def test_delays_add_up_and_hold_only_their_reply() -> None:
    rules = ("RCPT=delay:20ms", "RCPT=delay:5ms", "message=delay:7ms")
    received, _ = talk(Behaviour(map(parse_rule, rules)))
    times_ms = [time_ms for time_ms, _ in received]
    assert times_ms == [0, 0, 0, 25, 25, 32, 32]
    assert [answer.splitlines()[-1][:3] for _, answer in received] == CLEAN


def served_ms(text: str, *came_ms: float) -> list[float]:
    """When each of these messages is answered."""
    behaviour = Behaviour([parse_rule(text)])
    acts = [(at_ms, behaviour.override("message", b"", b"", round(at_ms * NS_PER_MS))) for at_ms in came_ms]
    return [at_ms + override.hold_ns / NS_PER_MS for at_ms, override in acts if override is not None]


def test_workers_take_what_there_is_in_the_order_in_which_it_came() -> None:
    assert served_ms("message=serve:10ms/2", 0, 0, 0, 5, 12, 100) == [10, 10, 20, 20, 30, 110]
    assert served_ms("message=serve:10ms", 0, 1, 2, 50) == [10, 20, 30, 60]
    assert served_ms("message=serve:10ms/3", *range(4)) == [10, 11, 12, 20]


def test_workers_have_a_limit_that_arithmetic_knows() -> None:
    below, above = (served_ms("message=serve:10ms/4", *(i * 1000 / rate for i in range(2000))) for rate in (399, 440))
    assert below[-1] - 1999 * 1000 / 399 == pytest.approx(10)
    assert 2000 / above[-1] * 1000 == pytest.approx(400, rel=0.003)  # however fast they come


def test_a_delay_comes_before_the_work_and_other_rules_still_answer() -> None:
    rules = ("message=delay:7ms", "message=serve:10ms/1", "message=550 5.7.1 no")
    received, _ = talk(Behaviour(map(parse_rule, rules)))
    at_ms, reply = received[5]
    assert (at_ms, reply[:3]) == (17.0, b"550")
    assert 800 < served_ms("message=serve:exp(10ms)", *[0.0] * 100)[-1] < 1300  # the sum of 100 draws


def test_a_drip_takes_its_time() -> None:
    received, _ = talk(Behaviour([parse_rule("RCPT=drip")]))
    assert received[3][0] == len(received[3][1]) - 1


def test_a_stall_holds_what_is_due_in_it_until_its_end() -> None:
    behaviour = Behaviour([parse_rule("DATA=delay:15ms")], stall_ns=(10 * NS_PER_MS, 50 * NS_PER_MS))
    received, _ = talk(behaviour, at_ns=10**9)
    assert [time_ms - 1000 for time_ms, _ in received] == [0, 0, 0, 0, 50, 50, 50]


def test_greylisting_lets_the_second_try_through() -> None:
    behaviour = Behaviour(greylist_ns=10**9)
    assert [answer[:3] for _, answer in talk(behaviour)[0]][3] == b"450"
    assert [answer[:3] for _, answer in talk(behaviour, at_ns=10**9 - 1)[0]][3] == b"450"
    assert codes(Behaviour()) == [answer.splitlines()[-1][:3] for _, answer in talk(behaviour, at_ns=10**9)[0]]


def test_shares_are_drawn_with_the_seed() -> None:
    def refused(seed: int) -> list[bool]:
        behaviour = Behaviour([parse_rule("RCPT=450@30%")], seed=seed)
        return [behaviour.override("RCPT", b"", b"", 0) is not None for _ in range(1000)]

    assert refused(1) == refused(1) != refused(2)
    assert 250 < sum(refused(1)) < 350


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RCPT",
        "RCPT=",
        "FOO=450",
        "RCPT=teapot",
        "RCPT=450@5",
        "RCPT=4x0",
        "RCPT=450@500%",
        "RCPT=delay:9ms..2ms",
        "message=serve:10ms/0",
        "message=serve:/4",
        "message=serve:10ms/x",
        "message=serve:10ms/99999",
    ],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rule(text)


@pytest.mark.parametrize("options", [{"of": []}, {"on": "RCPT=450"}, {"stall": "soon"}, {"seed": "x"}])
def test_what_is_no_behaviour(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        behaviour_of(options)
