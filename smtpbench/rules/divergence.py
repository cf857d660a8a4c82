"""Divergences: the first difference between two servers that received the same octets.

Compared is what a client could act on: the class of each reply, the number of replies, and how the session ended. Codes
within a class, texts and TCP segments may differ.
"""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.reply_tracker import Violation
from smtpbench.rules.rule import Rule
from smtpbench.session.dialogue import Dialogue
from smtpbench.smtp.command import verb_of

#: Not a requirement of SMTP, so it is not in the register. Its findings are reported like those of rules.
DIVERGENCE = Rule(
    "D1", "divergence", "RFC 5321 §4.2", r.WARNING, "Two servers that receive the same octets behave the same.",
    "replies of the same class to all commands, and the same end of the session",
)  # fmt: skip


def find_divergence(first: Dialogue, second: Dialogue) -> Violation | None:
    """Return the first difference between two dialogues; None without one, or if a server did not greet."""
    if not (first.greeted and second.greeted):
        return None
    first_replies, second_replies = _reply_classes(first), _reply_classes(second)
    for (verb, first_class), (_, second_class) in zip(first_replies, second_replies, strict=False):
        if first_class != second_class:
            actual = f"the first server replied {first_class}yz to {verb}, the second replied {second_class}yz"
            return _divergence(actual, f"{verb} {first_class} {second_class}")
    if len(first_replies) != len(second_replies):
        longer = first_replies if len(first_replies) > len(second_replies) else second_replies
        verb = longer[min(len(first_replies), len(second_replies))][0]
        which = "first" if longer is first_replies else "second"
        return _divergence(f"only the {which} server replied after {verb}", f"{verb} only {which}")
    ends = _describe_end(first), _describe_end(second)
    if ends[0] != ends[1]:
        return _divergence(f"the first server {ends[0]}, the second {ends[1]}", " against ".join(ends))
    return None


def _divergence(actual: str, cause: str) -> Violation:
    return Violation(DIVERGENCE.name, actual, cause)


def _reply_classes(dialogue: Dialogue) -> list[tuple[str, int]]:
    """Return for each reply what was sent before it, and the first digit of its code."""
    classes = []
    for exchange in dialogue.exchanges:
        verb = verb_of(exchange.sent) or ("octets" if exchange.sent else "connecting")
        classes += [(verb, code // 100) for code in exchange.codes]
    return classes


def _describe_end(dialogue: Dialogue) -> str:
    if dialogue.end_reason == api.TIMEOUT:
        return "stopped replying"
    if dialogue.end_reason == api.TLS_FAILED:
        return "failed in the TLS handshake"
    return "closed the connection" if dialogue.closed_without_221 else "completed the session"
