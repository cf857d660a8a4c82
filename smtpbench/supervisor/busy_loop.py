"""A busy loop: a server that uses a core while no client talks to it.

Theory of operation
===================

The server is measured while no connection of smtpbench is open. A server that has work left does it and becomes quiet, so it
has `PATIENCE` windows for that. One that works on a queue waits for its disk and for its other processes all the time, and a
loop waits for nothing: a window in which the server waited more than `_WAITS_PER_S` times a second is none.

The control is the same measurement before the first case. A server that was busy already had no case to be busy with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import trio

from smtpbench.measure.server_usage import UsageSample
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.units import NS_PER_S

#: Share of a core that is a busy loop.
BUSY_SHARE: Final = 0.8
#: Windows in a row that must all be busy, how long each is, seconds, and how long the first look is.
PATIENCE: Final = 3
_WINDOW_S: Final = 1.0
_LOOK_S: Final = 0.2
_LOOK_SHARE: Final = 0.5
#: A loop waits less often than this, a second.
_WAITS_PER_S: Final = 200

_Case = TypeVar("_Case")


def core_share(before: UsageSample, after: UsageSample) -> float:
    """Return the share of a core that a server used between two samples; 0 if it waited for something, too."""
    seconds = (after.at_ns - before.at_ns) / NS_PER_S
    if seconds <= 0 or before.restarts != after.restarts:
        return 0.0
    if before.voluntary_switches is not None and after.voluntary_switches is not None:
        waits = after.voluntary_switches - before.voluntary_switches
        if waits > _WAITS_PER_S * seconds:
            return 0.0
    return max(0.0, after.cpu_s - before.cpu_s) / seconds


async def busy_share(server: SupervisedServer, patience: int = PATIENCE) -> float:
    """Return the share of a core that the server uses while nobody talks to it; 0 if it is quiet or becomes quiet.

    Args:
        server: The server under test; no connection may be open to it.
        patience: Windows that it has to become quiet.
    """
    if await _share_in(server, _LOOK_S) < _LOOK_SHARE:
        return 0.0
    share = 0.0
    for _ in range(patience):
        share = await _share_in(server, _WINDOW_S)
        if share < BUSY_SHARE:
            return 0.0
    return share


async def _share_in(server: SupervisedServer, seconds: float) -> float:
    before = server.measure()
    await trio.sleep(seconds)
    after = server.measure()
    return 0.0 if before is None or after is None else core_share(before, after)


async def find_busy_case(
    server: SupervisedServer, cases: Sequence[_Case], run_cases: Callable[[Sequence[_Case]], Awaitable[object]]
) -> _Case | None:
    """Return the case that makes the server use a core for nothing; None if none does, or if it takes several.

    Half of the cases run on a server that was just started; if it is busy afterwards, the cause is among them, otherwise in
    the other half. The one that is left runs alone once more.

    Args:
        server: The server under test; it can be started again.
        cases: The suspects, the simplest first.
        run_cases: Runs some of them, and returns when no connection is open any more.
    """

    async def is_busy_after(some: Sequence[_Case]) -> bool:
        if not await server.restart():
            return False
        await run_cases(some)
        return await busy_share(server, patience=1) > 0

    if not cases or not await is_busy_after(cases):
        return None
    while len(cases) > 1:
        half = cases[: (len(cases) + 1) // 2]
        cases = half if await is_busy_after(half) else cases[len(half) :]
    return cases[0] if await is_busy_after(cases) else None
