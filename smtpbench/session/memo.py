"""Memos: what a reply led to before, so that the client need not read it again. `client` tells how they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smtpbench.session import script as s
from smtpbench.session.script import Script, Step
from smtpbench.smtp.reply import HEAD_BYTES

#: For one ask: an `Entry` for each reply known octet for octet, and under `HEADS` a memo of first octets. For a pipelined
#: group: the lists that its replies' latencies go to, by all its replies together.
Memo = dict[bytes, Any]
#: Where a known reply's latency goes, the step it leads to (None: look closer), that step's memo, the program counter
#: behind it, and how many recipients it took.
Entry = tuple[Callable[[int], None], Step | None, Memo, int, int]

HEADS = b""  # no read is empty: it is nobody's key
#: Memos that are looked into and never written to: of a session that asked for nothing, and of no reply's first octets.
IDLE: Memo = {}
NO_HEADS: Memo = {}

#: How many replies one ask remembers; a server whose replies all differ in their first octets is not remembered.
_LIMIT = 64
#: Replies of more octets are too dear as keys.
_WHOLE_BYTES = 1024
RSET_ROW = 1  # row 0 is the greeting's


def room(memo: Memo, raw: bytes) -> bool:
    """Whether the memo may take this key."""
    return len(memo) < _LIMIT and len(raw) <= _WHOLE_BYTES


def follower(script: Script, step: Step, at: int) -> Step | None:
    """The step at `at`, which comes after `step` was answered yes, if it only writes and asks once. Else None."""
    if step.kind > s.RCPT or at in (len(script.steps), script.gate, script.farewell):
        return None
    after = script.steps[at]
    plain = after.kind in (s.SAY, s.RCPT) or (after.kind == s.BODY and not script.lmtp)
    if not plain or len(after.asks) != 1 or after.split or (after.needs_recipient and step.kind != s.RCPT):
        return None
    return after


def opening(script: Script) -> Step | None:
    """The step that begins every pass, if it is a plain MAIL. Else None."""
    step = script.steps[script.gate] if script.repeats and script.gate < script.farewell else None
    return step if step is not None and step.kind == s.MAIL and len(step.asks) == 1 and not step.split else None


def remember(memo: Memo, raw: bytes, entry: Entry) -> None:
    """Keep the entry for this reply and, if it is one line, for those that begin alike.

    Code and enhanced code lie within the first octets, so replies that differ in either never share an entry.
    """
    memo[raw] = entry
    if raw.find(b"\n") + 1 == len(raw):
        memo.setdefault(HEADS, {})[raw[:HEAD_BYTES]] = entry
