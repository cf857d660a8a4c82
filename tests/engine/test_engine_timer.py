"""Timers: due calls are made in order and once, and the descriptor is readable when one is due."""

from __future__ import annotations

import itertools
import select
import time
from functools import partial

from smtpbench.engine.timer import Timers


def test_calls_are_made_in_order_once_they_are_due() -> None:
    timers = Timers()
    called: list[tuple[str, int]] = []

    def note(name: str, at_ns: int) -> None:
        called.append((name, at_ns))

    now_ns = time.monotonic_ns()
    for name, after_ns in (("c", 3), ("a", 1), ("later", 10**15), ("b", 2)):
        timers.call_at(now_ns + after_ns, partial(note, name))
    assert select.select([timers.fd], [], [], 5)[0] == [timers.fd]
    times_ns = itertools.count(now_ns + 5)
    timers.run_due(lambda: next(times_ns))
    assert called == [(name, now_ns + 6 + place) for place, name in enumerate("abc")]  # each call has its own time
    assert select.select([timers.fd], [], [], 0)[0] == []
    timers.close()


def test_earlier_call_added_later_comes_first() -> None:
    timers, called = Timers(), []
    now_ns = time.monotonic_ns()
    timers.call_at(now_ns + 10**15, lambda at_ns: called.append("far"))
    timers.call_at(now_ns, lambda at_ns: called.append("near"))
    assert select.select([timers.fd], [], [], 5)[0] == [timers.fd]
    timers.run_due(time.monotonic_ns)
    assert called == ["near"]
    timers.close()


def test_call_may_add_another_that_is_due() -> None:
    timers, called = Timers(), []

    def again(now_ns: int) -> None:
        called.append(now_ns)
        if len(called) < 3:
            timers.call_at(0, again)

    timers.call_at(0, again)
    timers.run_due(lambda: 5)
    assert called == [5, 5, 5]
    timers.close()


def test_closed_timers_make_no_calls() -> None:
    timers = Timers()
    timers.close()
    timers.call_at(0, lambda now_ns: None)
