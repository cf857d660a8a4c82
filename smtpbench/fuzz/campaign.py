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

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise

import trio

from smtpbench.fuzz.mutation import Mutation, apply, made, say
from smtpbench.fuzz.shrink import shrink
from smtpbench.fuzz.strategies import cases
from smtpbench.rules import rule as r
from smtpbench.rules.account import Wrong, audit
from smtpbench.rules.accounted import AccountedSession
from smtpbench.rules.differ import differ
from smtpbench.rules.offer import Offer
from smtpbench.rules.register import RULES
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script, Step
from smtpbench.session.stage import Stage, Take
from smtpbench.session.transcript import CLIENT, SERVER
from smtpbench.units import NS_PER_MS, NS_PER_S

CONFIRM = 3
#: Between two canaries.
_CANARY_S = 0.25
#: How long a process is given to die, and a supervisor to start it again.
_DEATH_S = 0.3
_REVIVAL_S = 3.0
#: Cases that may have killed the target: so many are kept beside the likeliest.
_CANDIDATES = 10
#: A case is slow from this many times the honest p99 on, and never below this.
_SLOW_TIMES = 30
_SLOW = "slow after "
_SLOW_NS = 500 * NS_PER_MS
#: What comes after QUIT is waited for, where the server does not close.
_LISTEN_NS = 200 * NS_PER_MS
_DETERMINISTIC, _FLAKY, _LOAD_ONLY = "deterministic", "flaky", "load-only"

#: Who was refused more often than this in a session is slowed down by many servers, and on purpose; so is a failed login.
_TOLERATED = 2

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
    after: tuple[Mutation, ...] = ()

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
    stopped: bool = False


def judge(offer: Offer, take: Take, *, strict: bool, slow_ns: int) -> list[Wrong]:
    """All that is wrong with one session: by the state table, by every invariant, and by the clock."""
    dialogue = Dialogue.of(take.tape)
    if not dialogue.began:
        return []
    # its session kept the account while it spoke
    kept = take.session.account.wrongs if isinstance(take.session, AccountedSession) else audit(take.tape, lmtp=offer.lmtp)
    wrongs = list(kept)
    for rule in RULES:
        if rule.invariant is not None and (strict or rule.severity != r.ADVICE):
            actual = rule.invariant(offer, dialogue)
            if actual:
                wrongs.append(Wrong(rule.name, actual, ""))
    wait_ns, verb = _longest(take)
    refusals = sum(one.reply.code // 100 in (4, 5) for one in dialogue.replies())
    if wait_ns > slow_ns and refusals <= _TOLERATED:
        wrongs.append(Wrong("health", f"a reply after {verb} took {wait_ns / 1e6:.0f} ms", f"{_SLOW}{verb}"))
    return wrongs if strict else [one for one in wrongs if _SEVERITY.get(one.rule) != r.ADVICE]


_SEVERITY = {rule.name: rule.severity for rule in RULES}


def _longest(take: Take) -> tuple[int, str]:
    """The longest time between a write and what came next, and what was written."""
    worst_ns, verb, heard = 0, "", b""
    entries = take.tape.entries
    for entry, following in pairwise(entries):
        auth = entry.data[:4].upper() == b"AUTH" or heard.startswith(b"334")
        heard = entry.data if entry.who == SERVER else heard
        if entry.who == CLIENT and following.who == SERVER and not auth and following.at_ns - entry.at_ns > worst_ns:
            word = entry.data[:9].split()[:1]
            verb = word[0].decode("latin-1").upper() if word and word[0].isalpha() else "a text"
            worst_ns = following.at_ns - entry.at_ns
    return worst_ns, verb


class Campaign:
    """See the module. quiet: a stage for the canary, counted apart. stop: set it, and no more cases begin.

    peer: where every case is said as well, to find where two servers differ.
    """

    def __init__(
        self, stage: Stage, quiet: Stage, script: Script, offer: Offer, plan: Plan, peer: Stage | None = None
    ) -> None:
        self._stage = stage
        self._quiet = quiet
        self._peer = peer
        self._script = script
        self._offer = offer
        self._plan = plan
        self._slow_ns = _SLOW_NS
        self._cut: list[tuple[int, Take, tuple[Mutation, ...]]] = []
        self._room = trio.CapacityLimiter(plan.connections)
        self._looking = trio.Lock()
        self.tally = Tally()
        self.stop = trio.Event()

    async def run(self, tell: Callable[[Tally], None] = lambda tally: None) -> Tally:
        """Everything: calm, cases, confirmation, shrinking. tell: called now and then."""
        await self._calm()
        deadline_s = trio.current_time() + (self._plan.duration_ns or 1 << 62) / NS_PER_S
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._canaries, nursery.cancel_scope, tell)
            async with trio.open_nursery() as running:
                await self._draw(running, deadline_s)
            nursery.cancel_scope.cancel()
        if self.tally.gone:
            await self._name_the_killer()
        known = {rule for rule, _ in self.tally.suspects}
        for key, suspect in list(self.tally.suspects.items()):
            if known & set(key[1].split(" or ")):
                del self.tally.suspects[key]  # it is one of several things, and one of those is shown by itself
            elif not self.tally.gone:
                await self._confirm(key, suspect)
                if not suspect.seen and key[1].startswith(_SLOW):
                    del self.tally.suspects[key]  # slow under load, as everything is
        return self.tally

    # -- cases -----------------------------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """The scenario as it is, some times: how long an honest reply takes, and whether anything is wrong even so."""
        waits = []
        for _ in range(20):
            script = self._ended(self._script.steps)
            take = await self._quiet.perform(script, AccountedSession)
            waits.append(_longest(take)[0])
            self._note(-1, take, (), await self._judge(script, take, slow_ns=1 << 62))
        self._slow_ns = max(_SLOW_NS, _SLOW_TIMES * sorted(waits)[-1])

    async def _draw(self, running: trio.Nursery, deadline_s: float) -> None:
        for number, mutations in enumerate(islice(cases(self._plan.families, self._plan.seed), self._plan.cases)):
            enough = len(self.tally.suspects) >= self._plan.max_findings
            if self.stop.is_set() or self.tally.gone or enough or trio.current_time() > deadline_s:
                return
            self.tally.generated += 1
            await self._room.acquire_on_behalf_of(number)
            running.start_soon(self._case, number, mutations)

    async def _case(self, number: int, mutations: tuple[Mutation, ...]) -> None:
        script = self._ended(apply(self._script.steps, mutations))
        try:
            take = await self._stage.perform(script, AccountedSession)
            wrongs = await self._judge(script, take)
            dialogue = Dialogue.of(take.tape)
            if not dialogue.began:
                await self._look()  # and meanwhile nobody takes its place
        finally:
            self._room.release_on_behalf_of(number)
        self.tally.run += 1
        if dialogue.began and dialogue.hung_up:
            self._cut.append((number, take, mutations))
            del self._cut[: -2 * self._plan.connections]
        self._note(number, take, mutations, wrongs)

    async def _judge(self, script: Script, take: Take, slow_ns: int = 0, timeout_ns: int | None = None) -> list[Wrong]:
        """All that is wrong with a take, and where the peer differs."""
        wrongs = judge(self._offer, take, strict=self._plan.strict, slow_ns=slow_ns or self._slow_ns)
        if self._peer is not None:
            other = await self._peer.perform(script, AccountedSession, timeout_ns)
            difference = differ(Dialogue.of(take.tape), Dialogue.of(other.tape))
            wrongs += [difference] if difference else []
        return wrongs

    def _ended(self, steps: Sequence[Step]) -> Script:
        """With QUIT at its end, and an ear for what comes too late."""
        farewell = [] if steps and steps[-1].wire == b"QUIT\r\n" else [say(b"QUIT\r\n")]
        return made(self._script, [*steps, *farewell, Step(s.PAUSE, pause_ns=_LISTEN_NS)])

    def _note(self, number: int, take: Take, mutations: tuple[Mutation, ...], wrongs: Sequence[Wrong]) -> None:
        for wrong in wrongs:
            key = (wrong.rule, wrong.cause)
            known = self.tally.suspects.get(key)
            if known is None:
                self.tally.suspects[key] = Suspect(number, take, wrong, after=mutations)
            else:
                known.hits += 1
                if number < known.number:
                    known.number, known.take, known.wrong, known.after = number, take, wrong, mutations

    # -- the target's health ---------------------------------------------------------------------------------------

    async def _canaries(self, scope: trio.CancelScope, tell: Callable[[Tally], None]) -> None:
        while True:
            await trio.sleep(_CANARY_S)
            tell(self.tally)
            await self._look()

    async def _look(self) -> None:
        """Is it still there? Asked twice, with time to die in between."""
        async with self._looking:
            if self.tally.gone or await self._greets():
                return
            await trio.sleep(_DEATH_S)
            self.tally.gone = not await self._greets()

    async def _greets(self) -> bool:
        take = await self._quiet.perform(self._ended(self._script.steps), AccountedSession)
        return Dialogue.of(take.tape).began

    async def _name_the_killer(self) -> None:
        """Of those that were cut off, the likeliest: what it said last is no part of the scenario, and was said last of all.

        The others are counted; and where somebody starts the target again, they are tried one by one.
        """
        cut = self._cut
        if not cut:
            return

        meant = {step.wire for step in self._script.steps} | {b"QUIT\r\n"}

        def likelihood(one: tuple[int, Take, tuple[Mutation, ...]]) -> tuple[bool, bool, int]:
            entries = one[1].tape.entries[:-1]
            last = max((entry for entry in entries if entry.who == CLIENT), key=lambda entry: entry.at_ns, default=None)
            if last is None:
                return False, False, 0
            return entries[-1] is last, last.data not in meant, last.at_ns

        end_ns = max(take.tape.entries[-1].at_ns for _, take, _ in cut)
        near = [one for one in cut if one[1].tape.entries[-1].at_ns > end_ns - NS_PER_S]
        near.sort(key=likelihood, reverse=True)
        number, take, mutations = near[0]
        self.tally.others = [take for _, take, _ in near[1 : _CANDIDATES + 1]]
        if await self._revived():
            for number, take, mutations in near[: _CANDIDATES + 1]:  # noqa: B007  (the one at which it ends is the one)
                await self._again(take.script)
                await trio.sleep(_DEATH_S)
                if not await self._greets():
                    self.tally.others = []
                    break
        wrong = Wrong("health", "the target is gone: this session was cut off when it died", "the target is gone")
        self.tally.suspects["health", wrong.cause] = Suspect(number, take, wrong, after=mutations)

    async def _revived(self) -> bool:
        """Whether somebody starts it again: then it can be asked what it died of."""
        with trio.move_on_after(_REVIVAL_S):
            while not await self._greets():  # noqa: ASYNC110  (no event tells of another process)
                await trio.sleep(_DEATH_S)
            return True
        return False

    # -- afterwards ------------------------------------------------------------------------------------------------

    async def _confirm(self, key: Key, suspect: Suspect) -> None:
        """Say it again, with nobody else there; if it shows each time, make it small."""
        for _ in range(CONFIRM):
            suspect.tried += 1
            suspect.seen += (await self._shows(key, suspect.take.script))[1] is not None
        if suspect.seen < CONFIRM:
            return

        async def shows(script: Script) -> bool:
            # a hang is waited for at full length only where it counts
            return (await self._shows(key, script, self._slow_ns))[1] is not None

        began_s = time.monotonic()
        small = await shrink(suspect.take.script, shows, self._plan.shrink_s)
        take, found = await self._shows(key, small)
        if found is None and time.monotonic() - began_s < self._plan.shrink_s:
            take, found = await self._shows(key, small)
        if found is not None:
            suspect.take, suspect.wrong = take, found

    async def _again(self, script: Script, timeout_ns: int | None = None) -> Take:
        return await self._quiet.perform(script, AccountedSession, timeout_ns)

    async def _shows(self, key: Key, script: Script, timeout_ns: int | None = None) -> tuple[Take, Wrong | None]:
        """Say a script again: what came, and whether it shows what the key says."""
        take = await self._again(script, timeout_ns)
        wrongs = await self._judge(script, take, timeout_ns=timeout_ns)
        return take, next((wrong for wrong in wrongs if (wrong.rule, wrong.cause) == key), None)
