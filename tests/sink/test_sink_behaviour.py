"""Behaviours: what rules do to a dialogue, on a clock of the test's own."""

from __future__ import annotations

import pytest

from smtpbench.engine import api
from smtpbench.errors import UsageError
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.behaviour import Behaviour, behaviour_from, parse_rule
from smtpbench.units import NS_PER_MS

ENVELOPE = (b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n")
LINES = (b"EHLO c\r\n", *ENVELOPE, b"DATA\r\n", b"x\r\n.\r\n", b"QUIT\r\n")


def dialogue(behaviour: Behaviour, *, at_ns: int = 0) -> tuple[list[tuple[float, bytes]], ServerSession]:
    """Send LINES in lockstep; return the time of each reply in ms with its octets, and the session."""
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
    return [answer.splitlines()[-1][:3] if answer else b"" for _, answer in dialogue(behaviour)[0]]


CLEAN = [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]


def test_behaviour_without_rules_changes_nothing() -> None:
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
        ("EHLO=garbage", 1, b"\xff\xfe\x00 \x1b[2J not a reply\r\n", None),
        ("EHLO=mute", 1, b"", None),
        ("RCPT=drip", 3, b"250 2.1.5 Recipient ok\r\n", None),
        ("RCPT=close", 3, b"250 2.1.5 Recipient ok\r\n", api.LINGER),
    ],
)
def test_action_replaces_the_reply_or_ends_the_connection(
    rule: str, at: int, received: bytes, pending_action: int | None
) -> None:
    found, session = dialogue(Behaviour([parse_rule(rule)]))
    assert found[at][1] == received
    if pending_action is not None:
        assert session.pending_action == pending_action
        assert len(found) == at + 1
    assert [answer[:3] for _, answer in found[:at]] == CLEAN[:at]


def test_delays_add_up_and_delay_only_their_reply() -> None:
    rules = ("RCPT=delay:20ms", "RCPT=delay:5ms", "message=delay:7ms")
    received, _ = dialogue(Behaviour(map(parse_rule, rules)))
    times_ms = [time_ms for time_ms, _ in received]
    assert times_ms == [0, 0, 0, 25, 25, 32, 32]
    assert [answer.splitlines()[-1][:3] for _, answer in received] == CLEAN


def completion_times_ms(text: str, *arrivals_ms: float) -> list[float]:
    """Return when each message is answered."""
    behaviour = Behaviour([parse_rule(text)])
    overrides = [(at_ms, behaviour.override("message", b"", b"", round(at_ms * NS_PER_MS))) for at_ms in arrivals_ms]
    return [at_ms + override.delay_ns / NS_PER_MS for at_ms, override in overrides if override is not None]


def test_workers_serve_replies_in_order_of_arrival() -> None:
    assert completion_times_ms("message=serve:10ms/2", 0, 0, 0, 5, 12, 100) == [10, 10, 20, 20, 30, 110]
    assert completion_times_ms("message=serve:10ms", 0, 1, 2, 50) == [10, 20, 30, 60]
    assert completion_times_ms("message=serve:10ms/3", *range(4)) == [10, 11, 12, 20]


def test_workers_limit_the_throughput() -> None:
    below, above = (
        completion_times_ms("message=serve:10ms/4", *(i * 1000 / rate for i in range(2000))) for rate in (399, 440)
    )
    assert below[-1] - 1999 * 1000 / 399 == pytest.approx(10)
    assert 2000 / above[-1] * 1000 == pytest.approx(400, rel=0.003)  # however many arrive


def test_delay_comes_before_the_service_time_and_other_rules_apply() -> None:
    rules = ("message=delay:7ms", "message=serve:10ms/1", "message=550 5.7.1 no")
    received, _ = dialogue(Behaviour(map(parse_rule, rules)))
    at_ms, reply = received[5]
    assert (at_ms, reply[:3]) == (17.0, b"550")
    assert 800 < completion_times_ms("message=serve:exp(10ms)", *[0.0] * 100)[-1] < 1300  # the sum of 100 draws


def test_drip_sends_one_octet_a_millisecond() -> None:
    received, _ = dialogue(Behaviour([parse_rule("RCPT=drip")]))
    assert received[3][0] == len(received[3][1]) - 1


def test_stall_delays_replies_in_its_window_to_its_end() -> None:
    behaviour = Behaviour([parse_rule("DATA=delay:15ms")], stall_ns=(10 * NS_PER_MS, 50 * NS_PER_MS))
    received, _ = dialogue(behaviour, at_ns=10**9)
    assert [time_ms - 1000 for time_ms, _ in received] == [0, 0, 0, 0, 50, 50, 50]


def test_greylisting_accepts_a_later_attempt() -> None:
    behaviour = Behaviour(greylist_ns=10**9)
    assert [answer[:3] for _, answer in dialogue(behaviour)[0]][3] == b"450"
    assert [answer[:3] for _, answer in dialogue(behaviour, at_ns=10**9 - 1)[0]][3] == b"450"
    assert codes(Behaviour()) == [answer.splitlines()[-1][:3] for _, answer in dialogue(behaviour, at_ns=10**9)[0]]


def test_shares_repeat_with_the_seed() -> None:
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
def test_malformed_rule_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rule(text)


@pytest.mark.parametrize("options", [{"of": []}, {"on": "RCPT=450"}, {"stall": "soon"}, {"seed": "x"}])
def test_malformed_behaviour_is_a_usage_error(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        behaviour_from(options)
