"""How a sink misbehaves on purpose: rules of `VERB=ACTION[@SHARE]`, a stall, greylisting.

The verbs are in `VERBS`, the actions in `ACTIONS`.

A share is a percentage of the occasions, drawn with the seed; without a share the rule always applies. Rules are tried in
order. The first that applies decides the reply; the delays of all that apply add up.
"""

from __future__ import annotations

import heapq
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from smtpbench.engine import api
from smtpbench.errors import UsageError
from smtpbench.session.server_context import CLOSING_421, ReplyOverride
from smtpbench.smtp.command import EXPECTED
from smtpbench.units import NS_PER_MS, parse_count, parse_duration_ns, parse_range, parse_share

VERBS = (*EXPECTED, "connect", "message")
_REPLY = re.compile(r"([2-5][0-5][0-9])(?: (.*))?")
_EXPONENTIAL = re.compile(r"exp\((.+)\)")
_REFUSALS = {"reject": b"550 5.7.1 Refused by the sink\r\n", "tempfail": b"451 4.7.1 Try again later\r\n"}
_GARBAGE = b"\xff\xfe\x00 \x1b[2J not a reply\r\n"
_LONG = b"250-" + b"x" * 1_000_000 + b"\r\n"
_OVERRIDES = {
    "drop": ReplyOverride(action=api.CLOSE),
    "reset": ReplyOverride(action=api.RESET),
    "421": ReplyOverride(CLOSING_421, api.LINGER),
    "mute": ReplyOverride(suppress=True),
    "garbage": ReplyOverride(_GARBAGE),
    "long": ReplyOverride(_LONG),
}
DRIP_NS = NS_PER_MS
MAX_WORKERS = 10_000
#: Action as it is written → what becomes of the reply.
ACTIONS: Mapping[str, str] = {
    "450": "this reply code, with a text of the sink's",
    "550 text": "this reply, such as `550 5.7.1 no thanks`",
    "reject": "the reply `550 5.7.1`",
    "tempfail": "the reply `451 4.7.1`",
    "delay:20ms": "the usual reply after a delay; also `delay:10ms..50ms`, uniform, and `delay:exp(20ms)`, exponential",
    "serve:10ms/4": "the usual reply, from a queue before 4 workers that take 10 ms each, first come, first served: at most "
    "400 replies a second; the time may be written as for `delay`",
    "drop": "no reply; the connection is closed (FIN)",
    "reset": "no reply; the connection is reset (RST)",
    "421": "the reply `421`, then the connection is closed",
    "mute": "no reply, and the connection stays open",
    "garbage": "octets that are not a reply",
    "long": "a reply line of 1 MB",
    "close": "the usual reply, then the connection is closed",
    "drip": "the usual reply, one octet at a time",
}
#: Key of a behaviour's file → what it says.
KEYS: Mapping[str, str] = {
    "on": "a list of rules, `VERB=ACTION[@SHARE]`",
    "stall": "a window after the first MAIL in which no reply is sent, such as `4s..5s`",
    "greylist": "the time for which each new pair of sender and recipient is answered `450`",
    "seed": "the random seed of shares and delays",
}


@dataclass(frozen=True, slots=True)
class Delay:
    """Distribution of a delay: uniform between two bounds, or exponential.

    Attributes:
        low_ns, high_ns: Bounds of the uniform distribution, nanoseconds.
        mean_ns: Mean of the exponential distribution, nanoseconds; 0 for the uniform one.
    """

    low_ns: int
    high_ns: int
    mean_ns: int = 0

    def draw_ns(self, rng: random.Random) -> int:
        """Return a time drawn from the distribution."""
        if self.mean_ns:
            return round(rng.expovariate(1 / self.mean_ns))
        return self.low_ns if self.low_ns == self.high_ns else rng.randint(self.low_ns, self.high_ns)


def parse_delay(text: str) -> Delay:
    """Parse `20ms`, `10ms..50ms` or `exp(20ms)`. Raises UsageError."""
    match = _EXPONENTIAL.fullmatch(text.strip())
    if match:
        return Delay(0, 0, parse_duration_ns(match[1]))
    return Delay(*parse_range(text, parse_duration_ns))


class WorkerPool:
    """Workers with one queue, first come first served: a G/G/n queue in Kendall's notation.

    Args:
        service_time: How long a worker works on one reply.
        workers: Number of workers.
    """

    def __init__(self, service_time: Delay, workers: int) -> None:
        self._service_time = service_time
        self._free_ns = [0] * workers  # a heap: when each worker has done what it was given so far

    def delay_ns(self, arrived_ns: int, rng: random.Random) -> int:
        """Return how long after its arrival a reply is done: the wait for a worker, and the work."""
        done_ns = max(arrived_ns, self._free_ns[0]) + self._service_time.draw_ns(rng)
        heapq.heapreplace(self._free_ns, done_ns)
        return done_ns - arrived_ns


def parse_worker_pool(text: str) -> WorkerPool:
    """Parse `10ms/4`, `10ms` (one worker) or `exp(10ms)/4`. Raises UsageError."""
    time_text, slash, workers_text = text.rpartition("/")
    workers = parse_count(workers_text) if slash else 1
    if not 1 <= workers <= MAX_WORKERS:
        raise UsageError(f"serve:{text}: the number of workers must be from 1 to {MAX_WORKERS:,}")
    return WorkerPool(parse_delay(time_text if slash else text), workers)


@dataclass(frozen=True, slots=True)
class ReplyRule:
    """What is done to a share of the replies to a verb.

    Attributes:
        verb: A verb of SMTP, `connect` or `message`.
        share: Share of the occasions, from 0 to 1.
        override: Replaces the reply.
        delay: Delays it.
        workers: Work on it.
        close: Closes the connection behind it.
        drip: Sends it one octet at a time.
    """

    verb: str
    share: float
    override: ReplyOverride | None = None
    delay: Delay | None = None
    workers: WorkerPool | None = None
    close: bool = False
    drip: bool = False


def parse_rule(text: str) -> ReplyRule:
    """Parse `VERB=ACTION[@SHARE]`. Raises UsageError."""
    verb, equals, rest = text.partition("=")
    action, at, share_text = rest.rpartition("@")
    if not at or "%" not in share_text:  # an @ in the text of a reply
        action, share_text = rest, ""
    verb = verb.strip() if verb.strip() in ("connect", "message") else verb.strip().upper()
    if not equals or verb not in VERBS:
        raise UsageError(f"{text!r} is not a rule; write VERB=ACTION[@SHARE] with one of the verbs {', '.join(VERBS)}")
    share = parse_share(share_text) if share_text else 1.0
    return _rule(verb, action.strip(), share, text)


def _rule(verb: str, action: str, share: float, text: str) -> ReplyRule:
    if action in _OVERRIDES:
        return ReplyRule(verb, share, _OVERRIDES[action])
    if action in _REFUSALS:
        return ReplyRule(verb, share, ReplyOverride(_REFUSALS[action]))
    if action == "close":
        return ReplyRule(verb, share, close=True)
    if action == "drip":
        return ReplyRule(verb, share, drip=True)
    if action.startswith("delay:"):
        return ReplyRule(verb, share, delay=parse_delay(action.removeprefix("delay:")))
    if action.startswith("serve:"):
        return ReplyRule(verb, share, workers=parse_worker_pool(action.removeprefix("serve:")))
    match = _REPLY.fullmatch(action)
    if match is None:
        raise UsageError(f"{text!r}: unknown action {action!r}; allowed: {', '.join(ACTIONS)}")
    reply_text = match[2] or f"{match[1][0]}.0.0 Reply set by a rule"
    return ReplyRule(verb, share, ReplyOverride(f"{match[1]} {reply_text}\r\n".encode()))


class Behaviour:
    """Faults that a sink injects; implements `session.server_context.FaultInjector`. False if it changes nothing.

    Args:
        rules: Tried in order.
        stall_ns: Replies due in this window, counted from the first MAIL, are delayed to its end.
        greylist_ns: A pair of sender and recipient gets 450 until this long after its first attempt.
        seed: Seed of shares and delays.
    """

    def __init__(
        self,
        rules: Iterable[ReplyRule] = (),
        *,
        stall_ns: tuple[int, int] | None = None,
        greylist_ns: int = 0,
        seed: int = 0,
    ) -> None:
        self._rules: dict[str, list[ReplyRule]] = defaultdict(list)
        for rule in rules:
            self._rules[rule.verb].append(rule)
        self._stall_ns = stall_ns
        self._greylist_ns = greylist_ns
        self._rng = random.Random(seed)
        self._first_mail_ns = 0
        self._first_attempts_ns: dict[tuple[bytes, bytes], int] = {}

    def __bool__(self) -> bool:
        return bool(self._rules or self._stall_ns or self._greylist_ns)

    def override(self, verb: str, sender: bytes, argument: bytes, now_ns: int) -> ReplyOverride | None:
        """Return what is done to the reply to a verb; None for nothing."""
        if verb == "MAIL" and not self._first_mail_ns:
            self._first_mail_ns = now_ns
        override: ReplyOverride | None = None
        delay_ns, close, drip = 0, False, False
        for rule in self._rules.get(verb, ()):
            if rule.share < 1 and self._rng.random() >= rule.share:
                continue
            if rule.delay is not None:
                delay_ns += rule.delay.draw_ns(self._rng)
            if rule.workers is not None:
                delay_ns += rule.workers.delay_ns(now_ns + delay_ns, self._rng)
            close, drip = close or rule.close, drip or rule.drip
            override = override or rule.override
        if self._greylist_ns and verb == "RCPT" and override is None and self._is_new(sender, argument, now_ns):
            override = ReplyOverride(b"450 4.7.1 Greylisted, try again later\r\n")
        delay_ns = self._stalled_ns(now_ns, delay_ns)
        if override is None and not (delay_ns or close or drip):
            return None
        return (override or ReplyOverride())._replace(delay_ns=delay_ns, drip_ns=DRIP_NS if drip else 0, close=close)

    def _is_new(self, sender: bytes, argument: bytes, now_ns: int) -> bool:
        first_ns = self._first_attempts_ns.setdefault((sender, argument.strip().lower()), now_ns)
        return now_ns - first_ns < self._greylist_ns

    def _stalled_ns(self, now_ns: int, delay_ns: int) -> int:
        """Return the delay of a reply, given the delay it has without the stall."""
        if self._stall_ns is None or not self._first_mail_ns:
            return delay_ns
        begin_ns, end_ns = (self._first_mail_ns + edge_ns for edge_ns in self._stall_ns)
        due_ns = now_ns + delay_ns
        return end_ns - now_ns if begin_ns <= due_ns < end_ns else delay_ns


def behaviour_from(options: Mapping[str, Any]) -> Behaviour:
    """Return the behaviour for the keys `on` (a list of rules), `stall`, `greylist` and `seed`. Raises UsageError."""
    unknown = sorted(set(options) - set(KEYS))
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r} of a behaviour; allowed: {', '.join(KEYS)}")
    rules = options.get("on") or []
    if not isinstance(rules, list):
        raise UsageError("`on` must be a list of rules, VERB=ACTION[@SHARE]")
    stall = options.get("stall")
    greylist = options.get("greylist")
    seed = options.get("seed") or 0
    if not isinstance(seed, int):
        raise UsageError("`seed` must be a whole number")
    return Behaviour(
        [parse_rule(str(rule)) for rule in rules],
        stall_ns=None if stall is None else parse_range(str(stall), parse_duration_ns),
        greylist_ns=0 if greylist is None else parse_duration_ns(str(greylist)),
        seed=seed,
    )
