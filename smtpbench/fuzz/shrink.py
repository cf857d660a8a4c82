"""Shrinking a case: fewer steps, then fewer octets, as long as the same violation shows.

Theory of operation
===================

Shrinking works on the script and not on the random numbers that it was generated from, because most of a script comes from
the scenario. In each round `smaller_steps` proposes smaller scripts. Several of them run at the same time, and the first one
that still shows the violation is the start of the next round. Shrinking ends when no smaller script shows the violation, or
when its time or its attempts are used up. The smallest script found so far is available at any time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import trio

from smtpbench.fuzz.mutation import command_step, replace_steps
from smtpbench.session import script as s
from smtpbench.session.script import Script, Step
from smtpbench.units import NS_PER_MS

#: Attempts to shrink one case, at most.
MAX_ATTEMPTS = 600
_CONCURRENT_ATTEMPTS = 8
#: Pauses do not become shorter than this.
_MIN_PAUSE_NS = 20 * NS_PER_MS

Steps = tuple[Step, ...]
ShowsViolation = Callable[[Script], Awaitable[bool]]


def scenario_lines(scenario: Script) -> frozenset[object]:
    """Return what shrinking keeps or removes as a whole: the scenario's own commands."""
    return frozenset(step.wire for step in scenario.steps if step.metric != "message")


async def shrink(
    script: Script,
    shows_violation: ShowsViolation,
    budget_s: float,
    indivisible: Collection[object] = (),
    concurrency: int = _CONCURRENT_ATTEMPTS,
) -> Script:
    """Return the smallest script found that still shows the violation.

    Args:
        script: A script that shows it.
        shows_violation: Runs a script and returns whether the violation shows.
        budget_s: Time limit, seconds.
        indivisible: Octets of steps that are kept or removed as a whole: lines that the scenario's author wrote.
        concurrency: Attempts at the same time.
    """
    best, attempts = script, 0
    with trio.move_on_after(budget_s):
        candidates = smaller_steps(best.steps, indivisible)
        while attempts < MAX_ATTEMPTS:
            batch_size = min(concurrency, MAX_ATTEMPTS - attempts)
            batch = [replace_steps(best, steps) for steps in islice(candidates, batch_size)]
            if not batch:
                break
            attempts += len(batch)
            found = await _first_with_violation(batch, shows_violation)
            if found is not None:
                best = found
                candidates = smaller_steps(best.steps, indivisible)
    return best


async def _first_with_violation(batch: Sequence[Script], shows_violation: ShowsViolation) -> Script | None:
    """Run all scripts at the same time, for an attempt is mostly waiting. Return the first one that shows the violation."""
    found: set[int] = set()

    async def attempt(index: int) -> None:
        if await shows_violation(batch[index]):
            found.add(index)

    async with trio.open_nursery() as nursery:
        for index in range(len(batch)):
            nursery.start_soon(attempt, index)
    return batch[min(found)] if found else None


def smaller_steps(steps: Sequence[Step], indivisible: Collection[object] = ()) -> Iterator[Steps]:
    """Yield steps that are smaller in one respect, the largest reductions first. `indivisible`: see `shrink`."""
    size = len(steps)
    block = max(1, size // 2)
    while block:
        for start in range(size - block, -1, -block):
            if block < size:
                yield (*steps[:start], *steps[start + block :])
        block //= 2
    for index, step in enumerate(steps):
        if step.pause_ns > _MIN_PAUSE_NS:
            yield _with_step(steps, index, replace(step, pause_ns=step.pause_ns // 4))
    for index, step in enumerate(steps):
        if step.split:
            yield _with_step(steps, index, replace(step, split=()))
    # the longest step first: it has most to lose
    for index, step in sorted(enumerate(steps), key=lambda indexed: -len(indexed[1].wire)):
        if step.kind in (s.COMMAND, s.STARTTLS) and step.wire not in indivisible:
            wire = step.wire if isinstance(step.wire, bytes) else b"".join(step.wire)
            for octets in _shorter_octets(wire):
                changed = replace(step, wire=octets) if step.kind == s.STARTTLS else command_step(octets)
                yield _with_step(steps, index, replace(changed, metric=step.metric or changed.metric))


def _with_step(steps: Sequence[Step], index: int, step: Step) -> Steps:
    return (*steps[:index], step, *steps[index + 1 :])


def _shorter_octets(octets: bytes) -> Iterator[bytes]:
    """Yield a short end or beginning of the octets, then the octets without blocks, then without single lines.

    Ends come first: the end of a write decides most often whether a violation shows.
    """
    size, keep = len(octets), 2
    while keep < size:
        yield octets[-keep:]
        yield octets[:keep]
        keep = keep * 2 if keep > 8 else keep + 1
    block = size // 2
    min_block = max(1, size // 16)
    while block >= min_block:
        for start in range(0, size, block):
            rest = octets[:start] + octets[start + block :]
            if rest:
                yield rest
        block //= 2
    lines = octets.splitlines(keepends=True)
    if len(lines) > 2:
        for index in range(min(len(lines), 30)):
            yield b"".join(lines[:index] + lines[index + 1 :])
