"""A busy loop: a server that uses a core while no client talks to it.

Theory of operation
===================

The server is measured while no connection of smtpbench is open. A server that has work left does it and becomes quiet, so it
has `WINDOWS` windows for that. One that works on a queue waits for its disk and for its other processes all the time, and a
loop waits for nothing: a window in which the server waited more than `_WAITS_PER_S` times a second is none.

A loop uses all of a core that it gets. Where other processes left no core idle meanwhile, `_CROWDED_SHARE` is enough.

The control is the same measurement before the first case. A server that was busy already had no case to be busy with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import psutil
import trio

from smtpbench.measure.server_usage import UsageSample
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.units import NS_PER_S

#: Share of a core that is a busy loop.
BUSY_SHARE: Final = 0.8
_CROWDED_SHARE: Final = 0.15
#: Cores that are idle on average, below which other processes leave none.
_IDLE_CORES: Final = 0.3
#: Windows in a row that must all be busy, how long each is, seconds, and how long the first look is.
WINDOWS: Final = 3
_WINDOW_S: Final = 1.0
_LOOK_S: Final = 0.3
#: A loop waits less often than this, a second.
_WAITS_PER_S: Final = 200

#: Repetitions of the session that is the cause.
CONFIRMATIONS: Final = 3
#: Suspects that run at the same time, and their limit for one reply, nanoseconds.
_PARALLEL: Final = 8
_TIMEOUT_NS: Final = NS_PER_S // 2


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


async def busy_share(server: SupervisedServer, windows: int = WINDOWS) -> float:
    """Return the share of a core that the server uses while nobody talks to it; 0 if it is quiet or becomes quiet.

    Args:
        server: The server under test; no connection may be open to it.
        windows: Windows that it has to become quiet.
    """
    share = await _busy_share_in(server, _LOOK_S)
    for _ in range(windows):
        if not share:
            break
        share = await _busy_share_in(server, _WINDOW_S)
    return share


async def _busy_share_in(server: SupervisedServer, seconds: float) -> float:
    """Return the share of a core that the server used in a window; 0 if that is no busy loop."""
    before, idle_before_s = server.measure(), psutil.cpu_times().idle
    await trio.sleep(seconds)
    after, idle_after_s = server.measure(), psutil.cpu_times().idle
    if before is None or after is None:
        return 0.0
    share = core_share(before, after)
    is_crowded = idle_after_s - idle_before_s < _IDLE_CORES * seconds
    return share if share >= (_CROWDED_SHARE if is_crowded else BUSY_SHARE) else 0.0


def busy_text(share: float, before: float) -> str:
    """Return what a server with a busy loop does, for a finding.

    Args:
        share: Share of a core that it used while nobody talked to it.
        before: The same before the first case.
    """
    return f"busy loop: the server used {share:.0%} of a core while no client was connected; before, {before:.0%}".replace(
        "%", " %"
    )


class BusyCase(NamedTuple):
    """The session that makes the server use a core for nothing.

    Attributes:
        session_result: The session, alone on a server that was just started.
        share: Share of a core that the server used afterwards.
        seen: Repetitions that showed it.
        tried: Repetitions.
    """

    session_result: SessionResult
    share: float
    seen: int
    tried: int


async def find_busy_case(server: SupervisedServer, runner: SessionRunner, scripts: Sequence[Script]) -> BusyCase | None:
    """Return the session that makes the server use a core for nothing; None if none does, or if it takes several.

    Half of the scripts run on a server that was just started. If it is busy afterwards, the cause is among them, otherwise
    in the other half. The one that is left runs alone `CONFIRMATIONS` times, each time on a fresh server. The server is
    started again at the end.

    Args:
        server: The server under test; it can be started again.
        runner: Runs sessions with it; nothing else may use it meanwhile.
        scripts: The suspects, the simplest first.
    """
    if not scripts or not (await _share_after(server, runner, scripts))[0]:
        return None
    while len(scripts) > 1:
        half = scripts[: (len(scripts) + 1) // 2]
        scripts = half if (await _share_after(server, runner, half))[0] else scripts[len(half) :]
    found: BusyCase | None = None
    for tried in range(1, CONFIRMATIONS + 1):
        share, session_result = await _share_after(server, runner, scripts)
        if session_result is not None and share:
            found = BusyCase(session_result, share, 1 if found is None else found.seen + 1, tried)
        elif found is not None:
            found = found._replace(tried=tried)
    await server.restart()
    return found


async def _share_after(
    server: SupervisedServer, runner: SessionRunner, scripts: Sequence[Script]
) -> tuple[float, SessionResult | None]:
    """Run scripts on a server that was just started. Return the share of a core that it uses then, and the last session."""
    if not await server.restart():
        return 0.0, None
    limiter = trio.CapacityLimiter(_PARALLEL)
    session_results: list[SessionResult] = []

    async def run_script(script: Script) -> None:
        async with limiter:
            session_results.append(await runner.run(script, TrackedSession, _TIMEOUT_NS))

    async with trio.open_nursery() as nursery:
        for script in scripts:
            nursery.start_soon(run_script, script)
    return await busy_share(server, windows=1), session_results[-1]
