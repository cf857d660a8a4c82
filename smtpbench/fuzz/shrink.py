"""Making a case small: fewer steps, then fewer octets, as long as the same thing is wrong.

What is shrunk is the script itself and not what it was drawn from, for most of it was never drawn: it is the scenario's.
Each round goes through `smaller`, which knows nothing of servers, some at once, and takes the first that still shows the
bug; it ends when none does, or when its time or its tries are used up. The smallest script that failed is always at hand.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import trio

from smtpbench.fuzz.mutation import command_step, made
from smtpbench.session import script as s
from smtpbench.session.script import Script, Step
from smtpbench.units import NS_PER_MS

#: Tries of one case at most.
TRIES = 600
_AT_ONCE = 8
#: Pauses are not made shorter than this.
_PAUSE_NS = 20 * NS_PER_MS

Steps = tuple[Step, ...]


async def shrink(
    script: Script, shows: Callable[[Script], Awaitable[bool]], budget_s: float, meant: Collection[object] = ()
) -> Script:
    """The smallest script found that still `shows` it, by the time the budget is used up.

    meant: what a person wrote, which goes or stays as a whole.
    """
    best, tries = script, 0
    with trio.move_on_after(budget_s):
        candidates = smaller(best.steps, meant)
        while tries < TRIES:
            batch = [made(best, steps) for steps in islice(candidates, min(_AT_ONCE, TRIES - tries))]
            if not batch:
                break
            tries += len(batch)
            found = await _first(batch, shows)
            if found is not None:
                best = found
                candidates = smaller(best.steps, meant)
    return best


async def _first(batch: Sequence[Script], shows: Callable[[Script], Awaitable[bool]]) -> Script | None:
    """The first of these that shows it; they are tried at once, for most of a try is waiting."""
    shown: set[int] = set()

    async def one(at: int) -> None:
        if await shows(batch[at]):
            shown.add(at)

    async with trio.open_nursery() as nursery:
        for at in range(len(batch)):
            nursery.start_soon(one, at)
    return batch[min(shown)] if shown else None


def smaller(steps: Sequence[Step], meant: Collection[object] = ()) -> Iterator[Steps]:
    """Scripts that are smaller by one thing, the boldest first."""
    size = len(steps)
    block = max(1, size // 2)
    while block:
        for at in range(size - block, -1, -block):
            if block < size:
                yield (*steps[:at], *steps[at + block :])
        block //= 2
    for at, step in enumerate(steps):
        if step.pause_ns > _PAUSE_NS:
            yield _with(steps, at, replace(step, pause_ns=step.pause_ns // 4))
    for at, step in enumerate(steps):
        if step.split:
            yield _with(steps, at, replace(step, split=()))
    for at, step in sorted(enumerate(steps), key=lambda place: -len(place[1].wire)):  # the longest has most to lose
        if step.kind in (s.COMMAND, s.STARTTLS) and step.wire not in meant:
            wire = step.wire if isinstance(step.wire, bytes) else b"".join(step.wire)
            for octets in shorter(wire):
                changed = replace(step, wire=octets) if step.kind == s.STARTTLS else command_step(octets)
                yield _with(steps, at, replace(changed, metric=step.metric or changed.metric))


def _with(steps: Sequence[Step], at: int, step: Step) -> Steps:
    return (*steps[:at], step, *steps[at + 1 :])


def shorter(octets: bytes) -> Iterator[bytes]:
    """The octets without most of them, then without blocks, then without single lines; their end is what matters most."""
    size, keep = len(octets), 2
    while keep < size:
        yield octets[-keep:]
        yield octets[:keep]
        keep = keep * 2 if keep > 8 else keep + 1
    block = size // 2
    floor = max(1, size // 16)
    while block >= floor:
        for at in range(0, size, block):
            rest = octets[:at] + octets[at + block :]
            if rest:
                yield rest
        block //= 2
    lines = octets.splitlines(keepends=True)
    if len(lines) > 2:
        for at in range(min(len(lines), 30)):
            yield b"".join(lines[:at] + lines[at + 1 :])
