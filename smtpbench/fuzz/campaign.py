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

from smtpbench.fuzz.judging import SLOW, Reader, complete, longest
from smtpbench.fuzz.mutation import Mutation, apply, made, say
from smtpbench.fuzz.shrink import shrink
from smtpbench.fuzz.strategies import cases
from smtpbench.rules.account import AUDITED, Wrong
from smtpbench.rules.accounted import AccountedSession
from smtpbench.rules.differ import differ
from smtpbench.rules.discover import DEATH_S
from smtpbench.rules.offer import Offer
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script, Step
from smtpbench.session.stage import Stage, Take
from smtpbench.session.transcript import CLIENT
from smtpbench.units import NS_PER_MS, NS_PER_S

CONFIRM = 3
#: Between two canaries.
_CANARY_S = 0.25
#: How long a supervisor is given to start it again.
_REVIVAL_S = 3.0
#: Who was not greeted says nothing about a case: so long is waited for room, each time.
_ROOM_S = (0.2, 1.0, 3.0)
#: Cases that may have killed the target: so many are kept beside the likeliest.
_CANDIDATES = 10
#: A case is slow from this many times the longest honest reply on, and never below this.
_SLOW_TIMES = 30
_SLOW_NS = 500 * NS_PER_MS
#: What comes after all is said is waited for, where the server does not close.
_EAR = Step(s.PAUSE, pause_ns=200 * NS_PER_MS)
#: The same while a case is shrunk.
_QUICK_EAR = Step(s.PAUSE, pause_ns=60 * NS_PER_MS)
#: Honest sessions before the first case: so many at once, and so many times.
_CALM = 4
#: Cases begun before others are heard.
_TOGETHER = 16
_DETERMINISTIC, _FLAKY, _LOAD_ONLY = "deterministic", "flaky", "load-only"

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
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
    take: Take
    wrong: Wrong
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
class Tally:
    """What a campaign counts. gone: the target died. others: cases that it may have died of, beside the one
    that stands among the suspects."""

    generated: int = 0
    run: int = 0
    suspects: dict[Key, Suspect] = field(default_factory=dict)
    gone: bool = False
    others: list[Take] = field(default_factory=list)


class _Shown(NamedTuple):
    """A script said with nobody else there, and all that was wrong. others: what the peer said to it, where there is one."""

    take: Take
    others: tuple[Take, ...]
    wrongs: list[Wrong]

    def settled(self, ending: Sequence[Step]) -> bool:
        """Whether what came after all was said would come again, and is not a race between two machines.

        Someone listened; or 221 came, behind which nothing comes; or every reply was owed and waited for.
        """
        if _EAR in ending:
            return True
        takes = (self.take, *self.others)
        return all(complete(take) or (ending and Dialogue.of(take.tape).last_code == 221) for take in takes)


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
        self, stage: Stage, quiet: Stage, script: Script, offer: Offer, plan: Plan, peer: Stage | None = None,
        pace: Pace | None = None,
    ) -> None:  # fmt: skip
        self._stage = stage
        self._quiet = quiet
        self._peer = peer
        self._pace = pace
        self._script = script
        self._reader = Reader(offer, strict=plan.strict)
        self._plan = plan
        self._slow_ns = _SLOW_NS
        self._cut: list[tuple[int, Take]] = []
        self._running = 0
        self._low = 0
        self._room = trio.Event()
        self._looking = trio.Lock()
        self.tally = Tally()
        self.stop = trio.Event()

    async def run(self, tell: Callable[[Tally], None] = lambda tally: None) -> Tally:
        """Everything: calm, cases, confirmation, shrinking. tell: called now and then."""
        await self._calm()
        if self._pace is not None:
            await self._pace.begin()
        deadline_s = trio.current_time() + (self._plan.duration_ns or 1 << 62) / NS_PER_S
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._canaries, tell)
            await self._draw(nursery, deadline_s)
            nursery.cancel_scope.cancel()
        if self.tally.gone:
            await self._name_the_killer()
        known = {rule for rule, _ in self.tally.suspects}
        for key, suspect in list(self.tally.suspects.items()):
            if known & set(key[1].split(" or ")):
                del self.tally.suspects[key]  # it is one of several things, and one of those is shown by itself
            elif not self.tally.gone:
                await self._confirm(key, suspect)
                if not suspect.seen and key[1].startswith(SLOW):
                    del self.tally.suspects[key]  # slow under load, as everything is
        return self.tally

    # -- cases -----------------------------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """The scenario as it is, some times: how long an honest reply takes, and whether anything is wrong even so."""
        waits_ns = []

        async def honest() -> None:
            for _ in range(_CALM):
                shown = await self._again(self._ended(self._script.steps), slow_ns=1 << 62)
                waits_ns.append(longest(shown.take)[0])
                self._note(-1, shown.take, shown.wrongs)

        async with trio.open_nursery() as nursery:
            for _ in range(_CALM):
                nursery.start_soon(honest)
        self._slow_ns = max(_SLOW_NS, _SLOW_TIMES * max(waits_ns))

    async def _draw(self, nursery: trio.Nursery, deadline_s: float) -> None:
        """Cases, as long as there may be more, and until the last of them is over."""
        most = self._plan.connections
        for number, mutations in enumerate(islice(cases(self._plan.families, self._plan.seed), self._plan.cases)):
            while self._running >= most:
                # not for each that ends: a few are begun together
                await self._until(most - max(1, most // 8))
            enough = len(self.tally.suspects) >= self._plan.max_findings
            if self._pace is not None and not await self._pace.turn(number):
                break
            if self.stop.is_set() or self.tally.gone or enough or trio.current_time() > deadline_s:
                break
            self.tally.generated += 1
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

        def over(take: Take) -> None:
            if self._peer is None:
                self._case(nursery, number, take)
            else:
                self._peer.begin(script, partial(self._case, nursery, number, take), AccountedSession)

        self._stage.begin(script, over, AccountedSession)

    def _case(self, nursery: trio.Nursery, number: int, take: Take, *others: Take) -> None:
        """A case is over: judge it."""
        dialogue = Dialogue.of(take.tape)
        self._note(number, take, self._judge(take, dialogue, others, self._slow_ns))
        self.tally.run += 1
        if not dialogue.began and not nursery.cancel_scope.cancel_called:
            nursery.start_soon(self._look_first)
            return
        if dialogue.hung_up:
            self._cut.append((number, take))
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

    def _judge(self, take: Take, dialogue: Dialogue, others: tuple[Take, ...], slow_ns: int) -> list[Wrong]:
        """All that is wrong with a take, and where the peer differs."""
        wrongs = self._reader.judge(take, dialogue, slow_ns)
        differences = (differ(dialogue, Dialogue.of(other.tape)) for other in others)
        return [*wrongs, *(difference for difference in differences if difference)]

    def _ended(self, steps: Sequence[Step]) -> Script:
        """With QUIT at its end, and an ear for what comes too late."""
        farewell = [] if steps and steps[-1].wire == b"QUIT\r\n" else [say(b"QUIT\r\n")]
        return made(self._script, [*steps, *farewell, _EAR])

    def _note(self, number: int, take: Take, wrongs: Sequence[Wrong]) -> None:
        for wrong in wrongs:
            key = (wrong.rule, wrong.cause)
            known = self.tally.suspects.get(key)
            if known is None:
                self.tally.suspects[key] = Suspect(number, take, wrong)
            else:
                known.hits += 1
                if number < known.number:
                    known.number, known.take, known.wrong = number, take, wrong

    # -- the target's health ---------------------------------------------------------------------------------------

    async def _canaries(self, tell: Callable[[Tally], None]) -> None:
        while True:
            await trio.sleep(_CANARY_S)
            tell(self.tally)
            await self._look()

    async def _look(self) -> None:
        """Is it still there? Asked twice, with time to die in between."""
        async with self._looking:
            if self.tally.gone or await self._greets():
                return
            await trio.sleep(DEATH_S)
            self.tally.gone = not await self._greets()

    async def _greets(self) -> bool:
        take = await self._quiet.perform(self._ended(self._script.steps), AccountedSession)
        return bool(take.tape.heard())

    async def _name_the_killer(self) -> None:
        """Of those that were cut off, the likeliest: what it said last is no part of the scenario, and was said last of all.

        The others are counted; and where somebody starts the target again, they are tried one by one.
        """
        cut = self._cut
        if not cut:
            return

        meant = {step.wire for step in self._script.steps} | {b"QUIT\r\n"}

        def likelihood(one: tuple[int, Take]) -> tuple[bool, bool, int]:
            entries = one[1].tape.entries[:-1]
            last = max((entry for entry in entries if entry.who == CLIENT), key=lambda entry: entry.at_ns, default=None)
            if last is None:
                return False, False, 0
            return entries[-1] is last, last.data not in meant, last.at_ns

        end_ns = max(take.tape.entries[-1].at_ns for _, take in cut)
        near = [one for one in cut if one[1].tape.entries[-1].at_ns > end_ns - NS_PER_S]
        near.sort(key=likelihood, reverse=True)
        killer, *others = near[: _CANDIDATES + 1]
        if await self._revived():
            asked = await self._killer_of([killer, *others])
            killer, others = (asked, []) if asked is not None else (killer, others)
        self.tally.others = [take for _, take in others]
        wrong = Wrong("health", "the target is gone: this session was cut off when it died", "the target is gone")
        self.tally.suspects["health", wrong.cause] = Suspect(*killer, wrong)

    async def _killer_of(self, near: Sequence[tuple[int, Take]]) -> tuple[int, Take] | None:
        """The one that ends it again."""
        for number, take in near:
            await self._quiet.perform(take.script, AccountedSession)
            await trio.sleep(DEATH_S)
            if not await self._greets():
                return number, take
        return None

    async def _revived(self) -> bool:
        """Whether somebody starts it again: then it can be asked what it died of."""
        with trio.move_on_after(_REVIVAL_S):
            while not await self._greets():  # noqa: ASYNC110  (no event tells of another process)
                await trio.sleep(DEATH_S)
            return True
        return False

    # -- afterwards ------------------------------------------------------------------------------------------------

    async def _confirm(self, key: Key, suspect: Suspect) -> None:
        """Say it again, with nobody else there; if it shows each time, make it small."""
        for _ in range(CONFIRM):
            suspect.tried += 1
            suspect.seen += _of(key, await self._again(suspect.take.script, self._slow_ns)) is not None
        if suspect.seen < CONFIRM:
            return

        farewell = [step for step in suspect.take.script.steps[-2:-1] if step.wire == b"QUIT\r\n"]
        core = made(self._script, suspect.take.script.steps[: -1 - len(farewell)])

        async def shows(script: Script) -> bool:
            # a hang is waited for at full length only where it counts
            return (
                _of(key, await self._again(_with(script, *farewell, _QUICK_EAR), self._slow_ns, self._slow_ns)) is not None
            )

        meant = frozenset(step.wire for step in self._script.steps if step.slot != "message")
        small = await shrink(core, shows, self._plan.shrink_s, meant)
        # what the replies that are owed tell needs no end; behind 221 nothing comes; else somebody must listen
        for ending in ([], farewell, [_EAR], [*farewell, _EAR]):
            whole = _with(small, *ending)
            shown = await self._again(whole, self._slow_ns)
            wrong = _of(key, shown)
            if wrong is not None and (shown.settled(ending) or await self._stays(key, whole)):
                suspect.take, suspect.wrong = shown.take, wrong
                return

    async def _stays(self, key: Key, script: Script) -> bool:
        """Whether it is a reply, and no reply too many or too few, that is wrong, and each time: then it will come again."""
        if key[0] in AUDITED or self._peer is not None:
            return False
        for _ in range(CONFIRM):
            if _of(key, await self._again(script, self._slow_ns)) is None:
                return False
        return True

    async def _again(self, script: Script, slow_ns: int, timeout_ns: int | None = None) -> _Shown:
        """Say a script with nobody else there, to the peer as well."""
        take = await self._quiet.perform(script, AccountedSession, timeout_ns)
        dialogue = Dialogue.of(take.tape)
        for wait_s in _ROOM_S:
            if dialogue.began:
                break
            await trio.sleep(wait_s)
            take = await self._quiet.perform(script, AccountedSession, timeout_ns)
            dialogue = Dialogue.of(take.tape)
        others = (await self._peer.perform(script, AccountedSession, timeout_ns),) if self._peer is not None else ()
        return _Shown(take, others, self._judge(take, dialogue, others, slow_ns))


def _of(key: Key, shown: _Shown) -> Wrong | None:
    """What the key says, where it was shown."""
    return next((wrong for wrong in shown.wrongs if (wrong.rule, wrong.cause) == key), None)


def _with(script: Script, *steps: Step) -> Script:
    """The script with these steps behind it."""
    return made(script, [*script.steps, *steps])
