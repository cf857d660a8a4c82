"""Shrinking: down to what a person would write, with the violation kept, in a limited number of attempts."""

from __future__ import annotations

import trio

from smtpbench.fuzz.mutation import command_step, replace_steps
from smtpbench.fuzz.shrink import MAX_ATTEMPTS, shrink, smaller_steps
from smtpbench.session.script import Script


def script(*wires: bytes) -> Script:
    return replace_steps(Script.of("x", ()), [command_step(wire) for wire in wires])


def shrink_to(start: Script, bug: bytes) -> tuple[list[object], int]:
    """The octets of the shrunk script's steps, and the number of attempts; a script fails where it contains `bug`."""
    attempts = 0

    async def shows_violation(candidate: Script) -> bool:
        nonlocal attempts
        attempts += 1
        return bug in b"|".join(step.wire for step in candidate.steps if isinstance(step.wire, bytes))

    small = trio.run(shrink, start, shows_violation, 60.0)
    return [step.wire for step in small.steps], attempts


def test_irrelevant_steps_and_octets_are_removed() -> None:
    noise = [b"NOOP %d\r\n" % number for number in range(12)]
    wires, _ = shrink_to(script(*noise[:5], b"before BUG behind" * 3, *noise[5:]), b"BUG")
    assert wires == [b"BUG"]


def test_a_violation_that_needs_two_steps_keeps_two() -> None:
    wires, _ = shrink_to(script(b"a", b"one", b"two", b"b"), b"one|two")
    assert wires == [b"one", b"two"]


def test_attempts_are_limited() -> None:
    _, attempts = shrink_to(script(b"x" * 100_000), b"x" * 99_990)
    assert attempts <= MAX_ATTEMPTS


def test_every_candidate_is_smaller() -> None:
    steps = script(b"one\r\n", b"two\r\nthree\r\nfour\r\n").steps
    size = sum(len(step.wire) for step in steps)
    for candidate in smaller_steps(steps):
        assert sum(len(step.wire) for step in candidate) < size
