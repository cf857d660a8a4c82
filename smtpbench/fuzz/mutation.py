"""Mutations: small edits of a script's steps, as plain data, applied by one pure function.

A case is a script and a few mutations of it. What a mutation does hangs on nothing but its own fields and the steps, so a
case can be made again from its number and the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final, NamedTuple

from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.smtp.command import verb_of
from smtpbench.units import NS_PER_MS

#: What can be mutated; `--only` and `--skip` name these.
FAMILIES: Final = (
    "order", "argument", "line", "end", "dots", "chunk", "pipeline", "segment", "pause", "close", "tls", "sasl",
)  # fmt: skip
#: How long a text is left at a doubtful end, for a server that takes it as ended to say so.
_SILENCE_NS = 300 * NS_PER_MS


class Mutation(NamedTuple):
    """One edit. family, what: its kind. at, to: steps, from 0, modulo their number. octets, numbers: its data."""

    family: str
    what: str
    at: int = 0
    to: int = 0
    octets: bytes = b""
    numbers: tuple[int, ...] = ()


def command_step(octets: bytes) -> Step:
    """A step that writes octets; how many replies follow is the account's to say."""
    verb = verb_of(octets) or "other"
    return Step(s.COMMAND, octets, expected_replies=(ExpectedReply(verb, s.ANY),), metric=verb)


def concrete(script: Script, n: int = 0) -> Script:
    """A script's steps with all octets made for arrival n, choices taken, and no way but on."""
    steps: list[Step] = []
    at = 0
    while at < len(script.steps):
        step = script.steps[at]
        at += 1
        if step.kind == s.CHOOSE:
            at = s.choose(step, script.draw(n, at - 1))
        elif step.kind == s.JUMP:
            at = step.targets[0]
        elif step.kind in (s.AUTH, s.STARTTLS):
            steps.append(
                replace(
                    step,
                    on_unexpected=s.CONTINUE,
                    expected_replies=tuple(ExpectedReply(ask.verb, s.ANY) for ask in step.expected_replies),
                )
            )
        elif step.kind < s.STARTTLS:
            wire = step.wire if step.render is None else step.render(n)
            octets = wire if isinstance(wire, bytes) else b"".join(wire)
            steps.append(replace(command_step(octets), metric=step.metric, split=step.split))
        else:
            steps.append(replace(step, on_unexpected=s.CONTINUE))
    return made(script, steps)


def made(script: Script, steps: Sequence[Step]) -> Script:
    """A script of these steps, as the other one in all else."""
    greeting = None if script.greeting is None else s.ANY_GREETING
    # its asks are not numbered: a session with a transcript keeps no memo of them
    return Script(
        script.name, tuple(steps), teardown=len(steps), greeting=greeting, reply_count=2,
        implicit_tls=script.implicit_tls, lmtp=script.lmtp,
    )  # fmt: skip


def apply(steps: Sequence[Step], mutations: Sequence[Mutation]) -> tuple[Step, ...]:
    """The steps, edited one mutation after the other."""
    edited = list(steps)
    for mutation in mutations:
        if edited:
            _EDITS[mutation.what](edited, mutation)
    return tuple(edited)


def _wire(step: Step) -> bytes:
    return step.wire if isinstance(step.wire, bytes) else b"".join(step.wire)


def _rewritten(step: Step, octets: bytes) -> Step:
    """The step with other octets; one that is no plain write becomes one."""
    if step.kind == s.STARTTLS:
        return replace(step, wire=octets)
    return replace(command_step(octets), metric=step.metric) if step.metric else command_step(octets)


def _texts(steps: list[Step]) -> list[int]:
    return [at for at, step in enumerate(steps) if step.kind == s.COMMAND and step.metric == "message"]


def _lines(steps: list[Step]) -> list[int]:
    """Where command lines are said."""
    return [at for at, step in enumerate(steps) if step.kind in (s.COMMAND, s.STARTTLS) and step.metric != "message"]


def _pick(places: list[int], at: int) -> int | None:
    return places[at % len(places)] if places else None


def _drop(steps: list[Step], m: Mutation) -> None:
    del steps[m.at % len(steps)]


def _double(steps: list[Step], m: Mutation) -> None:
    steps.insert(m.at % len(steps), steps[m.at % len(steps)])


def _swap(steps: list[Step], m: Mutation) -> None:
    a, b = m.at % len(steps), m.to % len(steps)
    steps[a], steps[b] = steps[b], steps[a]


def _insert(steps: list[Step], m: Mutation) -> None:
    steps.insert(m.at % (len(steps) + 1), command_step(m.octets))


def _argument(steps: list[Step], m: Mutation) -> None:
    at = _pick(_lines(steps), m.at)
    if at is None:
        return
    line = _wire(steps[at])
    verb = line.split(b" ")[0].strip()
    head = {b"MAIL": b"MAIL FROM:", b"RCPT": b"RCPT TO:"}.get(verb.upper(), verb + b" ")
    steps[at] = _rewritten(steps[at], head + m.octets + b"\r\n")


def _append(steps: list[Step], m: Mutation) -> None:
    """Octets between a line and its end: a parameter."""
    at = _pick(_lines(steps), m.at)
    if at is not None:
        steps[at] = _rewritten(steps[at], _wire(steps[at]).removesuffix(b"\r\n") + m.octets + b"\r\n")


def _line_end(steps: list[Step], m: Mutation) -> None:
    at = _pick(_lines(steps), m.at)
    if at is not None:
        steps[at] = _rewritten(steps[at], _wire(steps[at]).removesuffix(b"\r\n") + m.octets)


def _text_insert(steps: list[Step], m: Mutation) -> None:
    """Octets inside a text, at a share (in thousandths) of its length."""
    at = _pick(_texts(steps), m.at)
    if at is not None:
        text = _wire(steps[at])
        place = m.to % 1001 * max(0, len(text) - 5) // 1000
        steps[at] = _rewritten(steps[at], text[:place] + m.octets + text[place:])


def _text_end(steps: list[Step], m: Mutation) -> None:
    """Another end than CRLF.CRLF, in silence before the right one."""
    at = _pick(_texts(steps), m.at)
    if at is not None:
        text = _wire(steps[at]).removesuffix(b".\r\n").removesuffix(b"\r\n")
        steps[at : at + 1] = [
            _rewritten(steps[at], text + m.octets),
            Step(s.PAUSE, pause_ns=_SILENCE_NS),
            command_step(b"\r\n.\r\n"),
        ]


def _text_all(steps: list[Step], m: Mutation) -> None:
    at = _pick(_texts(steps), m.at)
    if at is not None:
        steps[at] = _rewritten(steps[at], m.octets)


def _bdat(steps: list[Step], m: Mutation) -> None:
    """DATA and a text as one chunk, with this argument."""
    at = _pick(_texts(steps), m.at)
    if at is None:
        return
    text = _wire(steps[at]).removesuffix(b".\r\n")
    argument = m.octets.replace(b"#", b"%d" % (len(text) + (m.numbers[0] if m.numbers else 0)))
    steps[at] = command_step(b"BDAT " + argument + b"\r\n" + text)
    if at and _wire(steps[at - 1]).upper() == b"DATA\r\n":
        del steps[at - 1]


def _join(steps: list[Step], m: Mutation) -> None:
    """Several writes as one, whatever the server offers."""
    a = m.at % len(steps)
    b = min(len(steps), a + 2 + m.to % 4)
    if b - a > 1 and all(step.kind == s.COMMAND for step in steps[a:b]):
        steps[a:b] = [command_step(b"".join(_wire(step) for step in steps[a:b]))]


def _split(steps: list[Step], m: Mutation) -> None:
    at = m.at % len(steps)
    wire = _wire(steps[at])
    if steps[at].kind != s.COMMAND or len(wire) < 2:
        return
    if m.numbers:
        cuts = sorted({1 + number % (len(wire) - 1) for number in m.numbers})
    else:
        cuts = list(range(1, min(len(wire), 64)))
    edges = [0, *cuts, len(wire)]
    steps[at] = replace(steps[at], split=tuple(wire[a:b] for a, b in pairwise(edges)))


def _pause(steps: list[Step], m: Mutation) -> None:
    steps.insert(m.at % (len(steps) + 1), Step(s.PAUSE, pause_ns=(1 + m.to % 30) * NS_PER_MS))


def _close(steps: list[Step], m: Mutation) -> None:
    kind = (s.CLOSE, s.RESET, s.HALF_CLOSE)[m.to % 3]
    steps.insert(m.at % (len(steps) + 1), Step(kind))


def _starttls(steps: list[Step], m: Mutation) -> None:
    """STARTTLS with octets behind it, in place of one that is there or anywhere."""
    there = [at for at, step in enumerate(steps) if step.kind == s.STARTTLS]
    step = Step(
        s.STARTTLS, b"STARTTLS\r\n" + m.octets, expected_replies=(ExpectedReply("STARTTLS", s.ANY),), metric="STARTTLS"
    )
    if there:
        steps[there[0]] = step
    else:
        steps.insert(1 + m.at % len(steps), step)


def _sasl(steps: list[Step], m: Mutation) -> None:
    """An exchange by hand: lines that follow one another."""
    at = 1 + m.at % len(steps)
    steps[at:at] = [command_step(line + b"\r\n") for line in m.octets.split(b"\n")]


_EDITS = {
    "drop": _drop, "double": _double, "swap": _swap, "insert": _insert, "argument": _argument, "append": _append,
    "line-end": _line_end, "text-insert": _text_insert, "text-end": _text_end, "text": _text_all, "bdat": _bdat,
    "join": _join, "split": _split, "pause": _pause, "close": _close, "starttls": _starttls, "sasl": _sasl,
}  # fmt: skip
