"""The hostile process: cases begin when they are allowed, and spread over a second."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from smtpbench.fuzz.hostile import Allowance


def begun(allowed: dict[float, int], end_s: float) -> list[float]:
    """When each case began, where so many were allowed at these times."""
    times: list[float] = []

    async def main() -> None:
        async def nothing() -> None:
            pass

        allowance = Allowance(nothing)

        async def allow() -> None:
            for at_s, count in allowed.items():
                await trio.sleep_until(start_s + at_s)
                allowance.allow(count)
            await trio.sleep_until(start_s + end_s)
            allowance.end()

        start_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(allow)
            await allowance.begin()
            while await allowance.turn(len(times)):
                times.append(round(trio.current_time() - start_s, 6))

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return times


def test_what_is_allowed_is_spread_over_a_second() -> None:
    assert begun({1: 4}, 3) == [1, 1.25, 1.5, 1.75]
    assert begun({1: 2, 2: 4}, 4) == [1, 1.5, 2, 2.5]


def test_a_permission_that_was_not_used_stays() -> None:
    assert begun({1: 2, 1.1: 3}, 4) == [1, 1.1, 1.1]


def test_none_begins_after_the_end_or_without_permission() -> None:
    assert begun({1: 4}, 1.3) == [1, 1.25]
    assert begun({1: 0}, 5) == []
