"""Shrinking: to what a person would write, never losing the bug, in no more tries than it may."""

from __future__ import annotations

import trio

from smtpbench.fuzz.mutation import command_step, made
from smtpbench.fuzz.shrink import TRIES, shrink, smaller
from smtpbench.session.script import Script


def script(*wires: bytes) -> Script:
    return made(Script.of("x", ()), [command_step(wire) for wire in wires])


def shrunk(start: Script, bug: bytes) -> tuple[list[object], int]:
    tries = 0

    async def shows(candidate: Script) -> bool:
        nonlocal tries
        tries += 1
        return bug in b"|".join(step.wire for step in candidate.steps if isinstance(step.wire, bytes))

    small = trio.run(shrink, start, shows, 60.0)
    return [step.wire for step in small.steps], tries


def test_what_does_not_matter_goes() -> None:
    noise = [b"NOOP %d\r\n" % at for at in range(12)]
    found, _ = shrunk(script(*noise[:5], b"before BUG behind" * 3, *noise[5:]), b"BUG")
    assert found == [b"BUG"]


def test_what_needs_two_steps_keeps_two() -> None:
    found, _ = shrunk(script(b"a", b"one", b"two", b"b"), b"one|two")
    assert found == [b"one", b"two"]


def test_it_ends_after_so_many_tries() -> None:
    _, tries = shrunk(script(b"x" * 100_000), b"x" * 99_990)
    assert tries <= TRIES


def test_nothing_is_offered_that_is_not_smaller() -> None:
    steps = script(b"one\r\n", b"two\r\nthree\r\nfour\r\n").steps
    whole = sum(len(step.wire) for step in steps)
    for candidate in smaller(steps):
        assert sum(len(step.wire) for step in candidate) < whole
