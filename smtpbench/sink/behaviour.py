"""How a sink misbehaves on purpose: rules of `VERB=ACTION[@SHARE]`, a stall, a greylist, a cap on connections.

The verbs are in `VERBS`, the actions in `ACTIONS`.

A share is a percentage of the occasions, drawn with the seed; without one it is always. Rules are tried in order: the
first that applies answers, delays add up.
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
_TEXTS = {"reject": b"550 5.7.1 Refused by the sink\r\n", "tempfail": b"451 4.7.1 Try again later\r\n"}
_GARBAGE = b"\xff\xfe\x00 \x1b[2J this is no reply\r\n"
_LONG = b"250-" + b"x" * 1_000_000 + b"\r\n"
_ACTS = {
    "drop": ReplyOverride(then_action=api.CLOSE),
    "reset": ReplyOverride(then_action=api.RESET),
    "421": ReplyOverride(CLOSING_421, api.LINGER),
    "mute": ReplyOverride(suppress=True),
    "garbage": ReplyOverride(_GARBAGE),
    "long": ReplyOverride(_LONG),
}
DRIP_NS = NS_PER_MS
WORKERS_MOST = 10_000
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
    """A time to hold a reply back: between two bounds, or exponential with a mean; nanoseconds."""

    low_ns: int
    high_ns: int
    mean_ns: int = 0

    def draw_ns(self, rng: random.Random) -> int:
        """One of the times."""
        if self.mean_ns:
            return round(rng.expovariate(1 / self.mean_ns))
        return self.low_ns if self.low_ns == self.high_ns else rng.randint(self.low_ns, self.high_ns)


def parse_delay(text: str) -> Delay:
    """`20ms`, `10ms..50ms`, `exp(20ms)`. Raises UsageError."""
    match = _EXPONENTIAL.fullmatch(text.strip())
    if match:
        return Delay(0, 0, parse_duration_ns(match[1]))
    return Delay(*parse_range(text, parse_duration_ns))


class WorkerPool:
    """Workers with one queue, first come first served (a G/G/n queue in Kendall's notation), one thing each at a time."""

    def __init__(self, each: Delay, workers: int) -> None:
        self._service_time = each
        self._free_ns = [0] * workers  # a heap: when each of them has done what it was given so far

    def hold_ns(self, came_ns: int, rng: random.Random) -> int:
        """How long after it came this one is done: the wait for a worker, and the work."""
        done_ns = max(came_ns, self._free_ns[0]) + self._service_time.draw_ns(rng)
        heapq.heapreplace(self._free_ns, done_ns)
        return done_ns - came_ns


def parse_worker_pool(text: str) -> WorkerPool:
    """`10ms/4`, `10ms` (one worker), `exp(10ms)/4`. Raises UsageError."""
    each, slash, workers_text = text.rpartition("/")
    workers = parse_count(workers_text) if slash else 1
    if not 1 <= workers <= WORKERS_MOST:
        raise UsageError(f"serve:{text}: from 1 to {WORKERS_MOST:,} workers")
    return WorkerPool(parse_delay(each if slash else text), workers)


@dataclass(frozen=True, slots=True)
class ReplyRule:
    """What is done to the replies to a verb, and to which share of them."""

    verb: str
    share: float
    override: ReplyOverride | None = None
    delay: Delay | None = None
    workers: WorkerPool | None = None
    close: bool = False
    drip: bool = False


def parse_rule(text: str) -> ReplyRule:
    """`VERB=ACTION[@SHARE]`. Raises UsageError."""
    verb, equals, rest = text.partition("=")
    action, at, share_text = rest.rpartition("@")
    if not at or "%" not in share_text:  # an @ of a reply's own text
        action, share_text = rest, ""
    verb = verb.strip() if verb.strip() in ("connect", "message") else verb.strip().upper()
    if not equals or verb not in VERBS:
        raise UsageError(f"{text!r} is no rule; write VERB=ACTION[@SHARE], with one of the verbs {', '.join(VERBS)}")
    share = parse_share(share_text) if share_text else 1.0
    return _rule(verb, action.strip(), share, text)


def _rule(verb: str, action: str, share: float, text: str) -> ReplyRule:
    if action in _ACTS:
        return ReplyRule(verb, share, _ACTS[action])
    if action in _TEXTS:
        return ReplyRule(verb, share, ReplyOverride(_TEXTS[action]))
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
        raise UsageError(f"{text!r}: the action {action!r} is not known; there are {', '.join(ACTIONS)}")
    words = match[2] or f"{match[1][0]}.0.0 As the sink was told"
    return ReplyRule(verb, share, ReplyOverride(f"{match[1]} {words}\r\n".encode()))


class Behaviour:
    """Rules and what goes with them; implements `session.service.Manners`.

    stall_ns: replies due in this window, counted from the first MAIL, wait for its end. greylist_ns: a (sender,
    recipient) is put off until it is this old.
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
        self._seen_ns: dict[tuple[bytes, bytes], int] = {}

    def __bool__(self) -> bool:
        return bool(self._rules or self._stall_ns or self._greylist_ns)

    def override(self, verb: str, sender: bytes, argument: bytes, now_ns: int) -> ReplyOverride | None:
        """What to do about the reply to a verb; None for nothing."""
        if verb == "MAIL" and not self._first_mail_ns:
            self._first_mail_ns = now_ns
        answer: ReplyOverride | None = None
        hold_ns, close, drip = 0, False, False
        for rule in self._rules.get(verb, ()):
            if rule.share < 1 and self._rng.random() >= rule.share:
                continue
            if rule.delay is not None:
                hold_ns += rule.delay.draw_ns(self._rng)
            if rule.workers is not None:
                hold_ns += rule.workers.hold_ns(now_ns + hold_ns, self._rng)
            close, drip = close or rule.close, drip or rule.drip
            answer = answer or rule.override
        if self._greylist_ns and verb == "RCPT" and answer is None and self._is_new(sender, argument, now_ns):
            answer = ReplyOverride(b"450 4.7.1 Greylisted, try again later\r\n")
        hold_ns = self._stalled_ns(now_ns, hold_ns)
        if answer is None and not (hold_ns or close or drip):
            return None
        answer = answer or ReplyOverride()
        return answer._replace(hold_ns=hold_ns, drip_ns=DRIP_NS if drip else 0, close=close)

    def _is_new(self, sender: bytes, argument: bytes, now_ns: int) -> bool:
        first_ns = self._seen_ns.setdefault((sender, argument.strip().lower()), now_ns)
        return now_ns - first_ns < self._greylist_ns

    def _stalled_ns(self, now_ns: int, hold_ns: int) -> int:
        """How long to hold a reply that would be held for hold_ns anyway."""
        if self._stall_ns is None or not self._first_mail_ns:
            return hold_ns
        begin_ns, end_ns = (self._first_mail_ns + edge_ns for edge_ns in self._stall_ns)
        due_ns = now_ns + hold_ns
        return end_ns - now_ns if begin_ns <= due_ns < end_ns else hold_ns


def behaviour_of(options: Mapping[str, Any]) -> Behaviour:
    """The behaviour of what a file holds: `on` (a list of rules), `stall`, `greylist`, `seed`. Raises UsageError."""
    unknown = sorted(set(options) - set(KEYS))
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r} of a behaviour; there are {', '.join(KEYS)}")
    rules = options.get("on") or []
    if not isinstance(rules, list):
        raise UsageError("`on` is a list of rules, VERB=ACTION[@SHARE]")
    stall = options.get("stall")
    greylist = options.get("greylist")
    seed = options.get("seed") or 0
    if not isinstance(seed, int):
        raise UsageError("`seed` is a whole number")
    return Behaviour(
        [parse_rule(str(rule)) for rule in rules],
        stall_ns=None if stall is None else parse_range(str(stall), parse_duration_ns),
        greylist_ns=0 if greylist is None else parse_duration_ns(str(greylist)),
        seed=seed,
    )
