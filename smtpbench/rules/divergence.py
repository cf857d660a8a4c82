"""Where two servers differ: the same octets to both, and the first thing that one answers otherwise than the other.

What is compared is what a client could act on: the class of each reply, how many there are, and how the session ended. Codes
and texts may differ; how a server cuts its replies into segments means nothing.
"""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.reply_tracker import Violation
from smtpbench.rules.rule import Rule
from smtpbench.session.dialogue import Dialogue
from smtpbench.smtp.command import verb_of

#: No rule of the protocol, so it stands beside the register; its findings are reported like those of rules.
DIVERGENCE = Rule(
    "D1", "divergence", "RFC 5321 §4.2", r.WARNING, "Two servers are told the same and act the same.",
    "the same class of reply to everything, and the same end",
)  # fmt: skip


def find_divergence(one: Dialogue, other: Dialogue) -> Violation | None:
    """The first difference, or None; where one of them gave no greeting, nothing can be told."""
    if not (one.greeted and other.greeted):
        return None
    here, there = _classes(one), _classes(other)
    for (verb, mine), (_, theirs) in zip(here, there, strict=False):
        if mine != theirs:
            return _wrong(
                f"{verb} was answered {mine}yz by the first and {theirs}yz by the second", f"{verb} {mine} {theirs}"
            )
    if len(here) != len(there):
        longer = here if len(here) > len(there) else there
        verb = longer[min(len(here), len(there))][0]
        which = "first" if longer is here else "second"
        return _wrong(f"the {which} alone gave a reply after {verb}", f"{verb} only {which}")
    ends = _end(one), _end(other)
    if ends[0] != ends[1]:
        return _wrong(f"the first {ends[0]}, the second {ends[1]}", " against ".join(ends))
    return None


def _wrong(actual: str, cause: str) -> Violation:
    return Violation(DIVERGENCE.name, actual, cause)


def _classes(dialogue: Dialogue) -> list[tuple[str, int]]:
    found = []
    for exchange in dialogue.exchanges:
        verb = verb_of(exchange.sent) or ("octets" if exchange.sent else "connecting")
        found += [(verb, code // 100) for code in exchange.codes]
    return found


def _end(dialogue: Dialogue) -> str:
    if dialogue.end_reason == api.TIMEOUT:
        return "fell silent"
    if dialogue.end_reason == api.TLS_FAILED:
        return "failed in TLS"
    return "hung up" if dialogue.closed_without_221 else "went on to the end"
