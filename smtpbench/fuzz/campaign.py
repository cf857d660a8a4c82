"""A campaign: cases by the thousand, each judged; suspects confirmed with nobody else there, grouped, shrunk.

Theory of operation
===================

Cases are numbered as they are drawn, and what becomes of one hangs on its number alone; so the order in which they end,
and how many are under way at once, change nothing. Of all cases that show the same thing (the same rule for the same
cause) the one with the lowest number stands for them.

While cases are under way, a canary says the scenario as it is meant, again and again: its latency is that of an honest
client, and its failure is how a dead server is noticed. Then no more cases are drawn, and those that were under way or had
just been cut off are the suspects.

When all cases are over and the engine is idle, each suspect is said again, `CONFIRM` times on fresh connections, and what
shows the same thing each time is deterministic, sometimes flaky, never load-only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

import trio

from smtpbench.fuzz.mutation import Mutation, apply, command_step, made
from smtpbench.fuzz.oracle import SLOW, Oracle, complete, longest
from smtpbench.fuzz.shrink import shrink
from smtpbench.fuzz.strategies import cases
from smtpbench.rules.discover import EXIT_DELAY_S
from smtpbench.rules.divergence import find_divergence
from smtpbench.rules.reply_tracker import TRACKED_RULES, Violation
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script, Step
from smtpbench.session.transcript import CLIENT
from smtpbench.units import NS_PER_MS, NS_PER_S

CONFIRM = 3
#: Between two canaries.
_HEALTH_CHECK_S = 0.25
#: How long a supervisor is given to start it again.
_RESTART_S = 3.0
#: Who was not greeted says nothing about a case: so long is waited for room, each time.
_ROOM_S = (0.2, 1.0, 3.0)
#: Cases that may have killed the target: so many are kept beside the likeliest.
_CANDIDATES = 10
#: A case is slow from this many times the longest honest reply on, and never below this.
_SLOW_TIMES = 30
_SLOW_NS = 500 * NS_PER_MS
#: What comes after all is said is waited for, where the server does not close.
QUIET_PERIOD = Step(s.PAUSE, pause_ns=200 * NS_PER_MS)
#: The same while a case is shrunk.
SHORT_QUIET_PERIOD = Step(s.PAUSE, pause_ns=60 * NS_PER_MS)
#: Honest sessions before the first case: so many at once, and so many times.
_BASELINE_SESSIONS = 4
#: Cases begun before others are heard.
_TOGETHER = 16
_DETERMINISTIC, _FLAKY, _LOAD_ONLY = "deterministic", "flaky", "load-only"

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """What to do. cases, duration_ns: whichever is over first. families: of `mutation`. shrink_s: a finding's budget."""

    cases: int
    duration_ns: int | None
    seed: int
    connections: int
    families: Sequence[str]
    max_findings: int
    strict: bool = False
    shrink_s: float = 5.0


@dataclass(slots=True)
class Suspect:
    """What stands for all cases that show the same thing. number: of the case, from 0; -1 for the scenario itself."""

    number: int
    session_result: SessionResult
    violation: Violation
    hits: int = 1
    seen: int = 0
    tried: int = 0

    @property
    def reproducibility(self) -> str:
        """`3 of 3, deterministic`."""
        if not self.tried:
            return "1 of 1, the target is gone"
        word = _DETERMINISTIC if self.seen == self.tried else _FLAKY if self.seen else _LOAD_ONLY
        return f"{self.seen} of {self.tried}, {word}"


@dataclass(slots=True)
class CampaignStats:
    """What a campaign counts. gone: the target died. others: cases that it may have died of, beside the one
    that stands among the suspects."""

    generated: int = 0
    run: int = 0
    suspects: dict[Key, Suspect] = field(default_factory=dict)
    gone: bool = False
    others: list[SessionResult] = field(default_factory=list)


class _Shown(NamedTuple):
    """A script said with nobody else there, and all that was wrong. others: what the peer said to it, where there is one."""

    session_result: SessionResult
    others: tuple[SessionResult, ...]
    violations: list[Violation]

    def settled(self, ending: Sequence[Step]) -> bool:
        """Whether what came after all was said would come again, and is not a race between two machines.

        Someone listened; or 221 came, behind which nothing comes; or every reply was owed and waited for.
        """
        if QUIET_PERIOD in ending:
            return True
        session_results = (self.session_result, *self.others)
        return all(
            complete(session_result) or (ending and Dialogue.of(session_result.transcript).last_code == 221)
            for session_result in session_results
        )


class Pace(Protocol):
    """Who says when cases may begin, where that is not as soon as there is room."""

    async def begin(self) -> None:
        """All is prepared: wait until there may be cases."""

    async def turn(self, number: int) -> bool:
        """Wait until case `number` may begin; whether it may at all."""


class Campaign:
    """See the module. quiet: a stage for the canary, counted apart. stop: set it, and no more cases begin.

    peer: where every case is said as well, to find where two servers differ. pace: None for as soon as there is room.
    """

    def __init__(
        self,
        runner: SessionRunner,
        baseline: SessionRunner,
        script: Script,
        target_info: TargetInfo,
        plan: CampaignPlan,
        peer: SessionRunner | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._runner = runner
        self._baseline = baseline
        self._peer = peer
        self._pace = pace
        self._script = script
        self._reader = Oracle(target_info, strict=plan.strict)
        self._plan = plan
        self._slow_ns = _SLOW_NS
        self._cut: list[tuple[int, SessionResult]] = []
        self._running = 0
        self._low = 0
        self._room = trio.Event()
        self._looking = trio.Lock()
        self.stats = CampaignStats()
        self.stop = trio.Event()

    async def run(self, report_progress: Callable[[CampaignStats], None] = lambda stats: None) -> CampaignStats:
        """Everything: calm, cases, confirmation, shrinking. tell: called now and then."""
        await self._measure_baseline()
        if self._pace is not None:
            await self._pace.begin()
        deadline_s = trio.current_time() + (self._plan.duration_ns or 1 << 62) / NS_PER_S
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._health_checks, report_progress)
            await self._draw(nursery, deadline_s)
            nursery.cancel_scope.cancel()
        if self.stats.gone:
            await self._find_crashing_case()
        known = {rule for rule, _ in self.stats.suspects}
        for key, suspect in list(self.stats.suspects.items()):
            if known & set(key[1].split(" or ")):
                del self.stats.suspects[key]  # it is one of several things, and one of those is shown by itself
            elif not self.stats.gone:
                await self._confirm(key, suspect)
                if not suspect.seen and key[1].startswith(SLOW):
                    del self.stats.suspects[key]  # slow under load, as everything is
        return self.stats

    # -- cases -----------------------------------------------------------------------------------------------------

    async def _measure_baseline(self) -> None:
        """The scenario as it is, some times: how long an honest reply takes, and whether anything is wrong even so."""
        waits_ns = []

        async def honest() -> None:
            for _ in range(_BASELINE_SESSIONS):
                shown = await self._again(self._ended(self._script.steps), slow_ns=1 << 62)
                waits_ns.append(longest(shown.session_result)[0])
                self._note(-1, shown.session_result, shown.violations)

        async with trio.open_nursery() as nursery:
            for _ in range(_BASELINE_SESSIONS):
                nursery.start_soon(honest)
        self._slow_ns = max(_SLOW_NS, _SLOW_TIMES * max(waits_ns))

    async def _draw(self, nursery: trio.Nursery, deadline_s: float) -> None:
        """Cases, as long as there may be more, and until the last of them is over."""
        most = self._plan.connections
        for number, mutations in enumerate(islice(cases(self._plan.families, self._plan.seed), self._plan.cases)):
            while self._running >= most:
                # not for each that ends: a few are begun together
                await self._until(most - max(1, most // 8))
            enough = len(self.stats.suspects) >= self._plan.max_findings
            if self._pace is not None and not await self._pace.turn(number):
                break
            if self.stop.is_set() or self.stats.gone or enough or trio.current_time() > deadline_s:
                break
            self.stats.generated += 1
            self._begin(nursery, number, mutations)
            if number % _TOGETHER == 0:
                await trio.lowlevel.checkpoint()
        await self._until(0)

    async def _until(self, count: int) -> None:
        """Until no more cases than this are under way."""
        while self._running > count:
            self._room, self._low = trio.Event(), count
            await self._room.wait()

    def _begin(self, nursery: trio.Nursery, number: int, mutations: tuple[Mutation, ...]) -> None:
        """One case; what comes then happens when it is over. Tasks are dear, so it is none."""
        script = self._ended(apply(self._script.steps, mutations))
        self._running += 1

        def over(session_result: SessionResult) -> None:
            if self._peer is None:
                self._case(nursery, number, session_result)
            else:
                self._peer.start(script, partial(self._case, nursery, number, session_result), TrackedSession)

        self._runner.start(script, over, TrackedSession)

    def _case(self, nursery: trio.Nursery, number: int, session_result: SessionResult, *others: SessionResult) -> None:
        """A case is over: judge it."""
        dialogue = Dialogue.of(session_result.transcript)
        self._note(number, session_result, self._judge(session_result, dialogue, others, self._slow_ns))
        self.stats.run += 1
        if not dialogue.greeted and not nursery.cancel_scope.cancel_called:
            nursery.start_soon(self._look_first)
            return
        if dialogue.closed_without_221:
            self._cut.append((number, session_result))
            del self._cut[: -2 * self._plan.connections]
        self._leave()

    def _leave(self) -> None:
        self._running -= 1
        if self._running <= self._low:
            self._room.set()

    async def _look_first(self) -> None:
        """Is it still there? Until that is known, nobody takes this one's place."""
        await self._look()
        self._leave()

    def _judge(
        self, session_result: SessionResult, dialogue: Dialogue, others: tuple[SessionResult, ...], slow_ns: int
    ) -> list[Violation]:
        """All that is wrong with a take, and where the peer differs."""
        violations = self._reader.evaluate(session_result, dialogue, slow_ns)
        differences = (find_divergence(dialogue, Dialogue.of(other.transcript)) for other in others)
        return [*violations, *(difference for difference in differences if difference)]

    def _ended(self, steps: Sequence[Step]) -> Script:
        """With QUIT at its end, and an ear for what comes too late."""
        teardown = [] if steps and steps[-1].wire == b"QUIT\r\n" else [command_step(b"QUIT\r\n")]
        return made(self._script, [*steps, *teardown, QUIET_PERIOD])

    def _note(self, number: int, session_result: SessionResult, violations: Sequence[Violation]) -> None:
        for violation in violations:
            key = (violation.rule, violation.cause)
            known = self.stats.suspects.get(key)
            if known is None:
                self.stats.suspects[key] = Suspect(number, session_result, violation)
            else:
                known.hits += 1
                if number < known.number:
                    known.number, known.session_result, known.violation = number, session_result, violation

    # -- the target's health ---------------------------------------------------------------------------------------

    async def _health_checks(self, report_progress: Callable[[CampaignStats], None]) -> None:
        while True:
            await trio.sleep(_HEALTH_CHECK_S)
            report_progress(self.stats)
            await self._look()

    async def _look(self) -> None:
        """Is it still there? Asked twice, with time to die in between."""
        async with self._looking:
            if self.stats.gone or await self._greets():
                return
            await trio.sleep(EXIT_DELAY_S)
            self.stats.gone = not await self._greets()

    async def _greets(self) -> bool:
        session_result = await self._baseline.run(self._ended(self._script.steps), TrackedSession)
        return bool(session_result.transcript.received())

    async def _find_crashing_case(self) -> None:
        """Of those that were cut off, the likeliest: what it said last is no part of the scenario, and was said last of all.

        The others are counted; and where somebody starts the target again, they are tried one by one.
        """
        cut = self._cut
        if not cut:
            return

        meant = {step.wire for step in self._script.steps} | {b"QUIT\r\n"}

        def likelihood(one: tuple[int, SessionResult]) -> tuple[bool, bool, int]:
            entries = one[1].transcript.entries[:-1]
            last = max((entry for entry in entries if entry.who == CLIENT), key=lambda entry: entry.at_ns, default=None)
            if last is None:
                return False, False, 0
            return entries[-1] is last, last.data not in meant, last.at_ns

        end_ns = max(session_result.transcript.entries[-1].at_ns for _, session_result in cut)
        near = [one for one in cut if one[1].transcript.entries[-1].at_ns > end_ns - NS_PER_S]
        near.sort(key=likelihood, reverse=True)
        killer, *others = near[: _CANDIDATES + 1]
        if await self._restarted():
            asked = await self._crashing_case_among([killer, *others])
            killer, others = (asked, []) if asked is not None else (killer, others)
        self.stats.others = [session_result for _, session_result in others]
        violation = Violation("health", "the target is gone: this session was cut off when it died", "the target is gone")
        self.stats.suspects["health", violation.cause] = Suspect(*killer, violation)

    async def _crashing_case_among(self, near: Sequence[tuple[int, SessionResult]]) -> tuple[int, SessionResult] | None:
        """The one that ends it again."""
        for number, session_result in near:
            await self._baseline.run(session_result.script, TrackedSession)
            await trio.sleep(EXIT_DELAY_S)
            if not await self._greets():
                return number, session_result
        return None

    async def _restarted(self) -> bool:
        """Whether somebody starts it again: then it can be asked what it died of."""
        with trio.move_on_after(_RESTART_S):
            while not await self._greets():  # noqa: ASYNC110  (no event tells of another process)
                await trio.sleep(EXIT_DELAY_S)
            return True
        return False

    # -- afterwards ------------------------------------------------------------------------------------------------

    async def _confirm(self, key: Key, suspect: Suspect) -> None:
        """Say it again, with nobody else there; if it shows each time, make it small."""
        for _ in range(CONFIRM):
            suspect.tried += 1
            suspect.seen += _of(key, await self._again(suspect.session_result.script, self._slow_ns)) is not None
        if suspect.seen < CONFIRM:
            return

        teardown = [step for step in suspect.session_result.script.steps[-2:-1] if step.wire == b"QUIT\r\n"]
        core = made(self._script, suspect.session_result.script.steps[: -1 - len(teardown)])

        async def shows(script: Script) -> bool:
            # a hang is waited for at full length only where it counts
            return (
                _of(key, await self._again(_with(script, *teardown, SHORT_QUIET_PERIOD), self._slow_ns, self._slow_ns))
                is not None
            )

        meant = frozenset(step.wire for step in self._script.steps if step.metric != "message")
        small = await shrink(core, shows, self._plan.shrink_s, meant)
        # what the replies that are owed tell needs no end; behind 221 nothing comes; else somebody must listen
        for ending in ([], teardown, [QUIET_PERIOD], [*teardown, QUIET_PERIOD]):
            whole = _with(small, *ending)
            shown = await self._again(whole, self._slow_ns)
            violation = _of(key, shown)
            if violation is not None and (shown.settled(ending) or await self._stays(key, whole)):
                suspect.session_result, suspect.violation = shown.session_result, violation
                return

    async def _stays(self, key: Key, script: Script) -> bool:
        """Whether it is a reply, and no reply too many or too few, that is wrong, and each time: then it will come again."""
        if key[0] in TRACKED_RULES or self._peer is not None:
            return False
        for _ in range(CONFIRM):
            if _of(key, await self._again(script, self._slow_ns)) is None:
                return False
        return True

    async def _again(self, script: Script, slow_ns: int, timeout_ns: int | None = None) -> _Shown:
        """Say a script with nobody else there, to the peer as well."""
        session_result = await self._baseline.run(script, TrackedSession, timeout_ns)
        dialogue = Dialogue.of(session_result.transcript)
        for wait_s in _ROOM_S:
            if dialogue.greeted:
                break
            await trio.sleep(wait_s)
            session_result = await self._baseline.run(script, TrackedSession, timeout_ns)
            dialogue = Dialogue.of(session_result.transcript)
        others = (await self._peer.run(script, TrackedSession, timeout_ns),) if self._peer is not None else ()
        return _Shown(session_result, others, self._judge(session_result, dialogue, others, slow_ns))


def _of(key: Key, shown: _Shown) -> Violation | None:
    """What the key says, where it was shown."""
    return next((violation for violation in shown.violations if (violation.rule, violation.cause) == key), None)


def _with(script: Script, *steps: Step) -> Script:
    """The script with these steps behind it."""
    return made(script, [*script.steps, *steps])
