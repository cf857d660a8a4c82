"""Deaths seen from outside: bursts of connections that are cut off and refused, and what is none."""

from __future__ import annotations

import pytest

from smtpbench.supervisor.death import Death
from smtpbench.supervisor.outside import REFUSAL_NS, Burst, BurstDetector
from smtpbench.units import NS_PER_MS, NS_PER_S


def bursts(events: list[tuple[str, int]], until_ms: int = 60_000) -> list[Burst[int]]:
    """Return the bursts among events at times in milliseconds; the item of a connection is its time."""
    detector = BurstDetector[int]()
    found: list[Burst[int]] = []
    for kind, at_ms in events:
        at_ns = at_ms * NS_PER_MS
        found += detector.settle(at_ns)
        if kind == "cut off":
            detector.cut_off(at_ns, at_ms)
        elif kind == "refused":
            detector.refused(at_ns)
        else:
            detector.answered(at_ns)
    found += detector.settle(until_ms * NS_PER_MS)
    return found


def test_restart_is_a_burst_of_cut_off_and_refused_connections() -> None:
    (burst,) = bursts(
        [
            ("answered", 0),
            ("cut off", 100),
            ("cut off", 102),
            ("refused", 103),
            ("refused", 180),
            ("answered", 220),
            ("answered", 230),
        ]
    )
    assert burst.restart
    assert burst.items == [100, 102]
    assert burst.text == "2 connections cut off within 2 ms, then 2 refused for 118 ms"
    assert burst.death() == Death(100 * NS_PER_MS, restarted_by="others")


def test_server_that_does_not_come_back_is_not_restarted() -> None:
    (burst,) = bursts([("answered", 0), ("cut off", 100), ("refused", 101), ("refused", 900)])
    assert burst.text == "1 connection cut off, then 2 refused for at least 800 ms"
    assert burst.death() == Death(100 * NS_PER_MS)


def test_server_that_dies_while_no_connection_is_open_refuses_the_next() -> None:
    (burst,) = bursts([("answered", 0), ("refused", 5000), ("answered", 5100)])
    assert burst.restart
    assert burst.text == "0 connections cut off, then 1 refused for 100 ms"


def test_server_that_never_answered_did_not_die() -> None:
    assert bursts([("refused", 0), ("refused", 100)]) == []


def test_one_closed_connection_is_not_sudden() -> None:
    (burst,) = bursts([("answered", 0), ("cut off", 100), ("answered", 101)])
    assert not burst.sudden
    assert burst.death() is None
    assert burst.text == "1 connection cut off"


def test_connections_that_are_cut_off_at_once_are_sudden_but_no_restart() -> None:
    (burst,) = bursts([("answered", 0), ("cut off", 100), ("cut off", 101), ("answered", 102)])
    assert burst.sudden
    assert not burst.restart
    assert burst.death() is None


def test_connections_that_are_closed_one_after_the_other_are_bursts_of_their_own() -> None:
    found = bursts([("answered", 0), *(("cut off", at_ms) for at_ms in range(100, 1000, 51))])
    assert len(found) == 18
    assert not any(burst.sudden for burst in found)


def test_refusal_long_after_a_burst_is_another_burst() -> None:
    found = bursts([("answered", 0), ("cut off", 100), ("answered", 200), ("refused", 1200), ("answered", 1300)])
    assert [(burst.cut_off, burst.refused) for burst in found] == [(1, 0), (0, 1)]


@pytest.mark.parametrize("count", [2, 5])
def test_each_restart_is_one_burst(count: int) -> None:
    events = [("answered", 0)]
    for number in range(1, count + 1):
        start = number * 300
        events += [("cut off", start), ("cut off", start + 1), ("refused", start + 2), ("answered", start + 100)]
    found = bursts(events)
    assert [burst.first_ns // NS_PER_MS for burst in found] == [number * 300 for number in range(1, count + 1)]
    assert all(burst.restart for burst in found)


def test_events_may_come_in_a_slightly_wrong_order() -> None:
    (burst,) = bursts([("answered", 0), ("cut off", 103), ("cut off", 100), ("refused", 102), ("answered", 200)])
    assert (burst.first_ns, burst.cut_off_ns) == (100 * NS_PER_MS, 103 * NS_PER_MS)
    assert burst.restart


def test_burst_is_not_over_while_connections_may_be_refused() -> None:
    detector = BurstDetector[int]()
    detector.cut_off(NS_PER_S, 1)
    assert list(detector.settle(NS_PER_S + REFUSAL_NS)) == []
    assert len(list(detector.settle(NS_PER_S + REFUSAL_NS + 1))) == 1
    assert list(detector.settle(10 * NS_PER_S)) == []


def test_items_of_a_large_burst_are_bounded() -> None:
    (burst,) = bursts([("cut off", 100)] * 1500)
    assert burst.cut_off == 1500
    assert len(burst.items) == 1000
