"""Reply caches: what a reply led to before, so that the client need not parse it again. `client` describes their use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.smtp.reply import PREFIX_BYTES, Reply

#: For one expected reply: a `CacheEntry` by each whole reply, and under `PREFIXES` a cache by the first octets of replies.
#: For a pipelined group: the lists that its replies' latencies are appended to, by all its replies together.
ReplyCache = dict[bytes, Any]
#: What appends the reply's latency, the step it leads to (None: look closer), that step's cache, the position behind that
#: step, and how many recipients the reply accepted.
CacheEntry = tuple[Callable[[int], None], Step | None, ReplyCache, int, int]

PREFIXES = b""  # no read is empty, so no reply has this key
#: Caches that are read and never written: of a session that expects no reply, and of no reply's first octets.
EMPTY_CACHE: ReplyCache = {}
NO_PREFIXES: ReplyCache = {}

#: Replies cached for one expected reply. A server whose replies all differ in their first octets is not cached.
_MAX_ENTRIES = 64
#: Longer replies are not cached.
_MAX_KEY_BYTES = 1024
RSET_REPLY_INDEX = 1  # 0 is the greeting's


def store_reply(caches: list[ReplyCache], script: Script, step: Step, position: int, raw: bytes, samples: list[int]) -> None:
    """Cache an expected reply to a step that expects one, unless what follows depends on more than the reply.

    If the reply is one line, all replies with the same first octets are cached with it. Code and enhanced code lie within
    those octets, so replies that differ in either never share an entry.

    Args:
        caches: The caches of all expected replies.
        position: Index of the next step.
        samples: The list that the reply's latency was appended to.
    """
    cache = caches[step.first_reply_index]
    if (
        not _has_room(cache, raw)
        or step.kind in (s.AUTH, s.STARTTLS)
        or step.first_reply_index == RSET_REPLY_INDEX  # where RSET leads depends on what it recovers from
    ):
        return
    recipients = int(step.kind == s.RCPT)
    following = _following_step(script, step, position)
    entry: CacheEntry = (samples.append, None, EMPTY_CACHE, position, recipients)
    if following is not None:
        entry = (samples.append, following, caches[following.first_reply_index], position + 1, recipients)
    cache[raw] = entry
    if raw.find(b"\n") + 1 == len(raw):
        cache.setdefault(PREFIXES, {})[raw[:PREFIX_BYTES]] = entry


def store_group(
    cache: ReplyCache,
    step: Step,
    data: bytes,
    replies: Sequence[Reply],
    samples: Callable[[ExpectedReply, Reply], list[int]],
    timing: list[int],
) -> None:
    """Cache all replies of a pipelined group, received in one read, if every one of them is expected and well-formed.

    Args:
        data: The replies as they came; the key.
        samples: Returns the list for the latencies of a reply.
        timing: The list for the time of the whole group.
    """
    pairs = list(zip(step.expected_replies, replies, strict=True))
    if _has_room(cache, data) and all(expected.matches(reply.code) and not reply.malformed for expected, reply in pairs):
        cache[data] = [*(samples(expected, reply).append for expected, reply in pairs), timing.append]


def opening_mail(script: Script) -> Step | None:
    """Return the step that begins every iteration if it is a plain MAIL command, else None."""
    step = script.steps[script.loop_start] if script.repeats and script.loop_start < script.teardown else None
    return step if step is not None and step.kind == s.MAIL and len(step.expected_replies) == 1 and not step.split else None


def _has_room(cache: ReplyCache, key: bytes) -> bool:
    return len(cache) < _MAX_ENTRIES and len(key) <= _MAX_KEY_BYTES


def _following_step(script: Script, step: Step, position: int) -> Step | None:
    """Return the step at this position, behind a `step` that succeeded, if it only writes and expects one reply."""
    if step.kind > s.RCPT or position in (len(script.steps), script.loop_start, script.teardown):
        return None
    following = script.steps[position]
    plain = following.kind in (s.COMMAND, s.RCPT) or (following.kind == s.MESSAGE and not script.lmtp)
    if not plain or len(following.expected_replies) != 1 or following.split:
        return None
    return None if following.needs_recipient and step.kind != s.RCPT else following
