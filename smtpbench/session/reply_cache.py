"""Reply caches: what a reply led to before, so that the client need not parse it again. `client` describes their use."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.smtp.reply import PREFIX_BYTES, Reply

#: For one expected reply: a `CacheEntry` by each whole reply, and under `PREFIXES` a cache by the first octets of replies
#: and by their `status`. For a pipelined group: the lists that its replies' latencies are appended to, by all its replies
#: together and by their `statuses`.
ReplyCache = dict[bytes, Any]
#: What appends the reply's latency, the step it leads to (None: look closer), that step's cache, the position behind that
#: step, and what else the reply changes: 0 for nothing, or a sum of the numbers below.
CacheEntry = tuple[Callable[[int], None], Step | None, ReplyCache, int, int]
RECIPIENT = 1  #: a recipient is accepted
COMPLETED = 2  #: a transaction is completed
BEGUN = 4  #: a transaction begins with the step that follows

PREFIXES = b""  # no read is empty, so no reply has this key
#: Caches that are read and never written: of a session that expects no reply, and of no reply's first octets.
EMPTY_CACHE: ReplyCache = {}
NO_PREFIXES: ReplyCache = {}

#: Replies cached for one expected reply, and statuses.
_MAX_ENTRIES = 64
#: Longer replies are not cached.
_MAX_KEY_BYTES = 1024
RSET_REPLY_INDEX = 1  # 0 is the greeting's

# Code, the space or hyphen behind it, and the enhanced code as `smtp.reply.enhanced_code` reads it. A key made of them has
# no line end, and is shorter than the first octets of a reply that has none within `PREFIX_BYTES`.
_ENHANCED = rb"(?:[245]\.[0-9]{1,3}\.[0-9]{1,3}(?=[ \r\n]))?"
_STATUS = re.compile(rb"[2-5][0-9][0-9] " + _ENHANCED)
_STATUSES = re.compile(rb"^[2-5][0-9][0-9] " + _ENHANCED, re.MULTILINE)
_STATUS_OF_LINES = re.compile(rb"(([2-5][0-9][0-9])-" + _ENHANCED + rb")[^\n]*\n(?:\2-[^\n]*\n)*\2 [^\n]*\n")


def status(data: bytes) -> bytes:
    """Return code and enhanced code of one whole well-formed reply; nothing for anything else."""
    if data[3:4] == b"-":
        match = _STATUS_OF_LINES.fullmatch(data)
        return match[1] if match is not None else b""
    if data.find(b"\n") + 1 != len(data):
        return b""
    match = _STATUS.match(data)
    return match[0] if match is not None else b""


def statuses(data: bytes, count: int) -> bytes:
    """Return code and enhanced code of each of `count` well-formed replies of one line; nothing for anything else."""
    if data.count(b"\n") != count or not data.endswith(b"\n"):
        return b""
    found = _STATUSES.findall(data)
    return b"|".join(found) if len(found) == count else b""


def store_reply(caches: list[ReplyCache], script: Script, step: Step, position: int, raw: bytes, samples: list[int]) -> None:
    """Cache an expected reply to a step that expects one, unless what follows depends on more than the reply.

    All replies with the same status are cached with it, and if it is one line, all replies with the same first octets. Code
    and enhanced code lie within those octets, so replies that differ in either never share an entry.

    Args:
        caches: The caches of all expected replies.
        position: Index of the next step.
        samples: The list that the reply's latency was appended to.
    """
    cache = caches[step.first_reply_index]
    if (
        raw in cache
        or step.kind in (s.AUTH, s.STARTTLS)
        or step.first_reply_index == RSET_REPLY_INDEX  # where RSET leads depends on what it recovers from
    ):
        return
    changes = RECIPIENT if step.kind == s.RCPT else 0
    following = _following_step(script, step, position)
    entry: CacheEntry = (samples.append, None, EMPTY_CACHE, position, changes)
    if following is not None:
        changes += (COMPLETED if step.kind == s.MESSAGE else 0) + (BEGUN if following.kind == s.MAIL else 0)
        entry = (samples.append, following, caches[following.first_reply_index], position + 1, changes)
    prefixes = cache.setdefault(PREFIXES, {})
    if _has_room(cache, raw):
        cache[raw] = entry
        if raw.find(b"\n") + 1 == len(raw):
            prefixes[raw[:PREFIX_BYTES]] = entry
    if len(prefixes) < 2 * _MAX_ENTRIES and (key := status(raw)):
        prefixes[key] = entry


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
    if data in cache or not all(expected.matches(reply.code) and not reply.malformed for expected, reply in pairs):
        return
    appends = [*(samples(expected, reply).append for expected, reply in pairs), timing.append]
    if _has_room(cache, data):
        cache[data] = appends
    if len(cache) < 2 * _MAX_ENTRIES and (key := statuses(data, len(pairs))):
        cache[key] = appends


def opening_mail(script: Script) -> Step | None:
    """Return the step that begins every iteration if it is a plain MAIL command, else None."""
    step = script.steps[script.loop_start] if script.repeats and script.loop_start < script.teardown else None
    return step if step is not None and step.kind == s.MAIL and len(step.expected_replies) == 1 and not step.split else None


def _has_room(cache: ReplyCache, key: bytes) -> bool:
    return len(cache) < _MAX_ENTRIES and len(key) <= _MAX_KEY_BYTES


def _following_step(script: Script, step: Step, position: int) -> Step | None:
    """Return the step at this position, behind a `step` that succeeded, if it only writes and expects one reply."""
    ends_part = script.repeats and position in (script.loop_start, script.teardown)
    if step.kind > s.MESSAGE or ends_part or position == len(script.steps):
        return None
    following = script.steps[position]
    plain = following.kind in (s.COMMAND, s.MAIL, s.RCPT) or (following.kind == s.MESSAGE and not script.lmtp)
    if not plain or len(following.expected_replies) != 1 or following.split:
        return None
    return None if following.needs_recipient and step.kind != s.RCPT else following
