"""Memos: what a reply led to before, so that the client need not read it again. `client` tells how they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smtpbench.session import script as s
from smtpbench.session.script import Script, Step
from smtpbench.smtp.reply import PREFIX_BYTES

#: For one ask: an `Entry` for each reply known octet for octet, and under `HEADS` a memo of first octets. For a pipelined
#: group: the lists that its replies' latencies go to, by all its replies together.
ReplyCache = dict[bytes, Any]
#: Where a known reply's latency goes, the step it leads to (None: look closer), that step's memo, the program counter
#: behind it, and how many recipients it took.
CacheEntry = tuple[Callable[[int], None], Step | None, ReplyCache, int, int]

PREFIXES = b""  # no read is empty: it is nobody's key
#: Memos that are looked into and never written to: of a session that asked for nothing, and of no reply's first octets.
EMPTY_CACHE: ReplyCache = {}
NO_PREFIXES: ReplyCache = {}

#: How many replies one ask remembers; a server whose replies all differ in their first octets is not remembered.
_LIMIT = 64
#: Replies of more octets are too dear as keys.
_WHOLE_BYTES = 1024
RSET_REPLY_INDEX = 1  # row 0 is the greeting's


def has_room(cache: ReplyCache, raw: bytes) -> bool:
    """Whether the memo may take this key."""
    return len(cache) < _LIMIT and len(raw) <= _WHOLE_BYTES


def following_step(script: Script, step: Step, at: int) -> Step | None:
    """The step at `at`, which comes after `step` was answered yes, if it only writes and asks once. Else None."""
    if step.kind > s.RCPT or at in (len(script.steps), script.loop_start, script.teardown):
        return None
    after = script.steps[at]
    plain = after.kind in (s.COMMAND, s.RCPT) or (after.kind == s.MESSAGE and not script.lmtp)
    if not plain or len(after.expected_replies) != 1 or after.split or (after.needs_recipient and step.kind != s.RCPT):
        return None
    return after


def opening_mail(script: Script) -> Step | None:
    """The step that begins every pass, if it is a plain MAIL. Else None."""
    step = script.steps[script.loop_start] if script.repeats and script.loop_start < script.teardown else None
    return step if step is not None and step.kind == s.MAIL and len(step.expected_replies) == 1 and not step.split else None


def store(cache: ReplyCache, raw: bytes, entry: CacheEntry) -> None:
    """Keep the entry for this reply and, if it is one line, for those that begin alike.

    Code and enhanced code lie within the first octets, so replies that differ in either never share an entry.
    """
    cache[raw] = entry
    if raw.find(b"\n") + 1 == len(raw):
        cache.setdefault(PREFIXES, {})[raw[:PREFIX_BYTES]] = entry
