"""Arrivals by the domain of their first recipient."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from smtpbench.session import script as s
from smtpbench.session.script import Script, Step
from smtpbench.smtp.command import parse_path
from smtpbench.smtp.domain import canonical

_RCPT = re.compile(rb"^RCPT TO: *", re.IGNORECASE | re.MULTILINE)
_MAY_NAME = (s.RCPT, s.GROUP, s.COMMAND)


def domain_of(script: Script) -> Callable[[int], str]:
    """What gives the domain that arrival n is for, as `canonical` spells it; empty where it names none."""
    steps, draw = script.steps, script.draw
    end = script.teardown if script.repeats else len(steps)

    def of(n: int) -> str:
        at = script.loop_start
        while at < end:
            step = steps[at]
            if step.kind == s.CHOOSE:
                at = s.choose(step, draw(n, at))
                continue
            if step.kind == s.JUMP:
                at = step.targets[0]
                continue
            recipient = _recipient(step, n)
            if recipient is not None:
                return _domain(recipient)
            at += 1
        return ""

    return of


def _recipient(step: Step, n: int) -> bytes | None:
    """What stands behind the first `RCPT TO:` of a step; None where there is none."""
    # a command that is filled in is what its kind says; octets that are fixed, in a raw step, may be anything
    if step.kind not in _MAY_NAME or (step.kind == s.COMMAND and step.render is not None):
        return None
    wire = step.wire if step.render is None else step.render(n)
    octets = wire if isinstance(wire, bytes) else b"".join(wire)
    match = _RCPT.match(octets) or _RCPT.search(octets)
    return octets[match.end() :] if match else None


def _domain(recipient: bytes) -> str:
    if b'"' in recipient:  # in quotes, an @ or > may mean nothing
        read = parse_path(recipient, reverse=False)
        return "" if isinstance(read, str) else _canonical(read[0].domain)
    _, at, domain = recipient.partition(b">")[0].rpartition(b"@")
    return _canonical(domain) if at else ""


@lru_cache(maxsize=10_000)
def _canonical(domain: bytes) -> str:
    return canonical(domain) or ""
