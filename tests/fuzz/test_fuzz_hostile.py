"""The process of hostile sessions: cases begin when they are allowed, spread over a second."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from smtpbench.fuzz.hostile import CaseQuota


def start_times(allowed: dict[float, int], end_s: float) -> list[float]:
    """When each case began, seconds. `allowed`: time → cases that may have begun a second later."""
    times: list[float] = []

    async def main() -> None:
        async def do_nothing() -> None:
            pass

        quota = CaseQuota(do_nothing)

        async def allow() -> None:
            for at_s, count in allowed.items():
                await trio.sleep_until(start_s + at_s)
                quota.allow(count)
            await trio.sleep_until(start_s + end_s)
            quota.end()

        start_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(allow)
            await quota.wait_for_start()
            while await quota.wait_for_case(len(times)):
                times.append(round(trio.current_time() - start_s, 6))

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return times


def test_allowed_cases_are_spread_over_a_second() -> None:
    assert start_times({1: 4}, 3) == [1, 1.25, 1.5, 1.75]
    assert start_times({1: 2, 2: 4}, 4) == [1, 1.5, 2, 2.5]


def test_an_unused_allowance_remains() -> None:
    assert start_times({1: 2, 1.1: 3}, 4) == [1, 1.1, 1.1]


def test_no_case_begins_after_the_end_or_without_allowance() -> None:
    assert start_times({1: 4}, 1.3) == [1, 1.25]
    assert start_times({1: 0}, 5) == []
