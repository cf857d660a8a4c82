"""Where two servers differ: the same octets to both, and the first thing that one answers otherwise than the other.

What is compared is what a client could act on: the class of each reply, how many there are, and how the session ended. Codes
and texts may differ; how a server cuts its replies into segments means nothing.
"""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.account import Wrong
from smtpbench.rules.rule import Rule
from smtpbench.session.dialogue import Dialogue
from smtpbench.smtp.command import verb_of

#: No rule of the protocol, so it stands beside the register; its findings are reported like those of rules.
DIVERGENCE = Rule(
    "D1", "divergence", "RFC 5321 §4.2", r.WARNING, "Two servers are told the same and act the same.",
    "the same class of reply to everything, and the same end",
)  # fmt: skip


def differ(one: Dialogue, other: Dialogue) -> Wrong | None:
    """The first difference, or None; where one of them gave no greeting, nothing can be told."""
    if not (one.began and other.began):
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


def _wrong(actual: str, cause: str) -> Wrong:
    return Wrong(DIVERGENCE.name, actual, cause)


def _classes(dialogue: Dialogue) -> list[tuple[str, int]]:
    found = []
    for turn in dialogue.turns:
        verb = verb_of(turn.said) or ("octets" if turn.said else "connecting")
        found += [(verb, code // 100) for code in turn.codes]
    return found


def _end(dialogue: Dialogue) -> str:
    if dialogue.fate == api.TIMEOUT:
        return "fell silent"
    if dialogue.fate == api.TLS_FAILED:
        return "failed in TLS"
    return "hung up" if dialogue.hung_up else "went on to the end"
