"""The recipient domain of an arrival: the domain of its first recipient."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from smtpbench.session import script as s
from smtpbench.session.script import Script, Step
from smtpbench.smtp.command import parse_path
from smtpbench.smtp.domain import canonical

_RCPT = re.compile(rb"^RCPT TO: *", re.IGNORECASE | re.MULTILINE)
_RECIPIENT_STEPS = (s.RCPT, s.GROUP, s.COMMAND)


def domain_of(script: Script) -> Callable[[int], str]:
    """Return a function from an arrival number to its recipient domain, in `canonical` spelling; empty if it has none."""
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
    """Return the octets after the first `RCPT TO:` of a step; None if it has none."""
    # a command with placeholders is what its kind says; the fixed octets of a raw step may contain any command
    if step.kind not in _RECIPIENT_STEPS or (step.kind == s.COMMAND and step.render is not None):
        return None
    wire = step.wire if step.render is None else step.render(n)
    octets = wire if isinstance(wire, bytes) else b"".join(wire)
    match = _RCPT.match(octets) or _RCPT.search(octets)
    return octets[match.end() :] if match else None


def _domain(recipient: bytes) -> str:
    if b'"' in recipient:  # within quotes, @ and > are part of the local part
        parsed = parse_path(recipient, reverse=False)
        return "" if isinstance(parsed, str) else _canonical(parsed[0].domain)
    _, at, domain = recipient.partition(b">")[0].rpartition(b"@")
    return _canonical(domain) if at else ""


@lru_cache(maxsize=10_000)
def _canonical(domain: bytes) -> str:
    return canonical(domain) or ""
