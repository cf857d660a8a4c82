"""Finding the kind of case that makes a server grow: each is sent alone, many times, next to one that must not grow.

Theory of operation
===================

Each kind is sent a few times, and what the server uses is measured before and after. Those that made it grow are sent a few
times more. Those that made it grow most then are sent `CASES` times, in batches, with a measurement after each batch: a
moment after the last session has ended, when what the server holds no longer changes. The slope of these measurements and
its interval decide (`supervisor.growth`).

The control is NOOP. A kind grows only if the lower end of its interval is above the upper end of the control's. If the
control grows too, so does a server perhaps that nobody talks to, and then nothing is said.

Kinds contain each other: a message needs a connection, and a recipient needs MAIL. Of the kinds that grow nearly as much as
the steepest one, the simplest is the cause. It is sent `CONFIRMATIONS` times `CASES` times in all, so that a cache that
fills and a pool that is complete are told from a leak: those stay as they are the second time.

A connection that leaks its thread leaks memory with it. Growth of several resources by one kind is one finding.

A server that was started again during a measurement begins anew, and such a measurement says nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import trio

from smtpbench.measure.server_usage import UsageSample
from smtpbench.rules.crash import is_cut_off
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script
from smtpbench.supervisor.case_kinds import CaseKind
from smtpbench.supervisor.growth import CONFIDENCE, MEMORY, RESOURCES, Resource, Slope, Usage, series, slope_of
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.units import NS_PER_S

#: Cases of a kind in one measurement, and batches that they are sent in.
CASES: Final = 1000
_BATCHES: Final = 10
#: Cases of the first look at a kind.
_FIRST_CASES: Final = 100
#: Time for a second look at a kind, seconds.
_SECOND_LOOK_S: Final = 1.0
#: Measurements of the kind that is the cause, in all.
CONFIRMATIONS: Final = 3
#: Of a measurement, the first batches only warm up the server.
_WARM_UP_SHARE: Final = 0.2
#: Kinds that are measured, for each resource.
_SUSPECTS: Final = 4
#: A kind is a suspect if it grows in the first look at least by this share of the steepest, and of `Resource.least_rise`.
_SUSPECT_SHARE: Final = 0.05
_FIRST_RISE_SHARE: Final = 0.2
#: A simpler kind is the cause if it grows by this share of the steepest.
_SIMPLER_SHARE: Final = 0.7
#: A further measurement must show this share of the first.
_AGAIN_SHARE: Final = 0.5
#: A second kind is a cause of its own if the same resource grows by this many times what the first one makes it grow.
_OTHER_LEAK: Final = 3
#: Limit for a reply, nanoseconds: a kind that only waits is not worth the time of others.
_TIMEOUT_NS: Final = NS_PER_S
#: Time for the session that is open when the time of a kind is up, seconds.
_GRACE_S: Final = 0.5
#: Sessions in a row without a case, after which a kind is left.
_MAX_FRUITLESS: Final = 3
#: Readings until two in a row are alike, the time between two, seconds, and how much memory may differ, octets.
_SETTLE_READINGS: Final = 15
_SETTLE_S: Final = 0.02
_SETTLED_BYTES: Final = 64 * 1024
#: A server that nobody talks to is measured this many times, with this time between, seconds.
_IDLE_READINGS: Final = 10
_IDLE_S: Final = 0.1


@dataclass(slots=True)
class KindMeasurement:
    """What the server used while one kind of case was sent.

    Attributes:
        kind: The kind.
        usages: Cases done and resources used, after each batch; the first before any case.
        session_result: The last session; None if there was none.
    """

    kind: CaseKind
    usages: list[Usage] = field(default_factory=list)
    session_result: SessionResult | None = None

    @property
    def done(self) -> int:
        """Return the number of cases."""
        return self.usages[-1].done if self.usages else 0

    def rise(self, resource: Resource) -> float:
        """Return how much more the server holds at the end than at the beginning."""
        values = [resource.value_of(usage.sample) for usage in (self.usages[0], self.usages[-1])]
        return 0.0 if values[0] is None or values[1] is None else values[1] - values[0]

    def slope(self, resource: Resource) -> Slope | None:
        """Return the slope of a resource; None if there are too few measurements."""
        return slope_of(series(self.usages, resource), _WARM_UP_SHARE)

    def grows(self, resource: Resource) -> Slope | None:
        """Return the slope of a resource if it certainly grows."""
        slope = self.slope(resource)
        return slope if slope is not None and slope.grows(resource.least_rise) else None


@dataclass(slots=True)
class Growth:
    """A kind of case that makes the server grow.

    Attributes:
        kind: The kind.
        slopes: Resources that grow, the first measurement of each.
        texts: A text about each.
        session_result: A session that sends it.
        seen: Measurements that showed it.
        tried: Measurements.
    """

    kind: CaseKind
    slopes: dict[Resource, Slope]
    texts: list[str]
    session_result: SessionResult
    seen: int = 1
    tried: int = 1

    @property
    def actual(self) -> str:
        """Return what the server does, for a finding."""
        return "; ".join(self.texts)

    @property
    def resource(self) -> Resource:
        """Return the resource by which it is judged again."""
        return next(iter(self.slopes))

    @property
    def cause(self) -> str:
        """Return what tells it from other findings."""
        return f"{self.resource.name} {self.resource.verb} for each {self.kind.name}"

    def to_data(self) -> dict[str, object]:
        """Return the keys of a finding file by which `replay` judges it."""
        return {
            "resource": self.resource.name,
            "per-session": self.kind.per_session,
            "each": round(self.slopes[self.resource].each, 3),
        }


class GrowthSearch:
    """Sends kinds of cases and measures the server.

    Args:
        runner: Runs sessions with the target; nothing else may use the target meanwhile.
        server: The server under test.
        end_s: When the search ends, time of trio.
    """

    def __init__(self, runner: SessionRunner, server: SupervisedServer, end_s: float) -> None:
        self._runner = runner
        self._server = server
        self._end_s = end_s
        self._measured: dict[str, KindMeasurement | None] = {}

    async def find(
        self,
        kinds: Sequence[CaseKind],
        control: CaseKind,
        resources: Sequence[Resource] = RESOURCES,
        look_s: float = math.inf,
    ) -> list[Growth]:
        """Return what makes the server grow: one element for each cause.

        Args:
            kinds: The kinds to send.
            control: The kind that must not grow.
            resources: What may grow.
            look_s: Time for the first look at all kinds, seconds; half of the search at most.
        """
        looks = await self._look(kinds, look_s)
        rising = [look.kind for look in looks if any(_is_rising(look, resource) for resource in resources)]
        # what only warmed up at the first look stays as it is at the second one
        looks = await self._look(rising, len(rising) * _SECOND_LOOK_S)
        found: list[Growth] = []
        for resource in resources:
            suspects, steepest = _suspects(looks, resource)
            if suspects:
                await self._find_cause(suspects, steepest, control, resource, found)
        return [growth for growth in found if await self._confirm(growth)]

    async def _look(self, kinds: Sequence[CaseKind], look_s: float) -> list[KindMeasurement]:
        """Send each kind a few times. `look_s`: time for all, seconds; half of the search at most."""
        looks, look = list[KindMeasurement](), None
        now_s = trio.current_time()
        looks_end_s = now_s + min(look_s, (self._end_s - now_s) / 2)
        for index, kind in enumerate(kinds):
            left_s = looks_end_s - trio.current_time()
            if left_s <= 0:
                break
            share_s = left_s / (len(kinds) - index)
            # what the server uses at the end of one look is what it uses at the beginning of the next
            first = None if look is None else look.usages[-1].sample
            look = await self.measure(kind, _FIRST_CASES, 1, trio.current_time() + share_s, first)
            if look is not None and look.done:
                looks.append(look)
        return looks

    async def _find_cause(
        self,
        suspects: Sequence[CaseKind],
        steepest: float,
        control: CaseKind,
        resource: Resource,
        found: list[Growth],
    ) -> None:
        """Find the suspect that makes a resource grow, and add it to what was found.

        Args:
            suspects: The kinds to measure, the simplest first.
            steepest: By how much the steepest of them made it grow for each case, in the first look.
            control: See `find`.
            resource: What may grow.
            found: What was found for other resources.
        """
        controlled = await self._measure_once(control)
        if controlled is None:
            return
        grows_anyway = controlled.grows(resource) is not None
        if grows_anyway:
            idle = await self._measure_idle()
            if idle is None or idle.grows(resource) is not None:
                return
        control_slope = controlled.slope(resource)
        certain = []
        for kind in (*(growth.kind for growth in found), *suspects):
            measured = await self._measure_once(kind)
            slope = None if measured is None else measured.grows(resource)
            if measured is None or slope is None or control_slope is None:
                continue
            if slope.low > control_slope.high or (grows_anyway and kind.name == control.name):
                certain.append((slope, measured))
                if slope.each >= steepest * _SIMPLER_SHARE:
                    break  # no other kind is a simpler cause
        if not certain:
            return
        steepest = max(slope.each for slope, _ in certain)
        for growth in found:
            own = next((slope for slope, measured in certain if measured.kind.name == growth.kind.name), None)
            if own is not None and own.each * _OTHER_LEAK >= steepest:
                growth.slopes[resource] = own
                growth.texts.append(_text(self._measured[growth.kind.name], controlled, resource, own))
                return
        alike = [one for one in certain if one[0].each >= steepest * _SIMPLER_SHARE]
        slope, measured = min(alike, key=lambda one: one[1].kind.cost)
        if measured.session_result is not None:
            text = _text(measured, controlled, resource, slope)
            found.append(Growth(measured.kind, {resource: slope}, [text], measured.session_result))

    async def _confirm(self, growth: Growth) -> bool:
        """Measure what was found again. Return whether each measurement showed it, as many as there was time for."""
        resource = growth.resource
        least = growth.slopes[resource].each * _AGAIN_SHARE
        while growth.tried < CONFIRMATIONS and trio.current_time() < self._end_s:
            again = await self.measure(growth.kind)
            if again is None or again.slope(resource) is None:
                break
            growth.tried += 1
            slope = again.grows(resource)
            if slope is None or slope.each < least:
                return False
            growth.seen += 1
        return growth.tried > 1

    async def _measure_once(self, kind: CaseKind) -> KindMeasurement | None:
        if kind.name not in self._measured:
            self._measured[kind.name] = await self.measure(kind)
        return self._measured[kind.name]

    async def measure(
        self,
        kind: CaseKind,
        cases: int = CASES,
        batches: int = _BATCHES,
        end_s: float | None = None,
        first: UsageSample | None = None,
    ) -> KindMeasurement | None:
        """Send a kind of case and measure the server after each batch.

        Args:
            kind: The kind.
            cases: Number of cases.
            batches: Batches to send them in.
            end_s: When no session begins any more, time of trio; None for the end of the search.
            first: What the server uses at the beginning; None to measure it.

        Returns:
            The measurement; None if nothing can be said, because the server was started again or cannot be measured.
        """
        deaths, end_s = len(self._server.deaths), self._end_s if end_s is None else min(end_s, self._end_s)
        measurement = KindMeasurement(kind)
        started_ns, done, fruitless, sessions = time.monotonic_ns(), 0, 0, count()

        async def run_session() -> None:
            nonlocal done, fruitless
            script = kind.scripts[next(sessions) % len(kind.scripts)]
            session_result = await self._run(script, end_s + _GRACE_S)
            dialogue = Dialogue.of(session_result.transcript)
            if is_cut_off(dialogue):
                await self._server.death_since(started_ns)  # that is known a moment later
            cases_done = kind.done_in(script, dialogue)
            fruitless = 0 if cases_done else fruitless + 1
            measurement.session_result = session_result if cases_done else measurement.session_result
            done += cases_done

        for batch in range(batches + 1):
            while done < cases * batch // batches and fruitless < _MAX_FRUITLESS and trio.current_time() < end_s:
                async with trio.open_nursery() as nursery:
                    for _ in range(kind.parallel):
                        nursery.start_soon(run_session)
                if len(self._server.deaths) > deaths:
                    await self._server.wait_until_ready()
                    return None
            sample = first if first is not None and not batch else await self._settle()
            if sample is None:
                return None
            measurement.usages.append(Usage(done, sample))
            if fruitless == _MAX_FRUITLESS or trio.current_time() >= end_s:
                break
        restarts = {usage.sample.restarts for usage in measurement.usages}
        return measurement if len(restarts) == 1 else None

    async def _run(self, script: Script, end_s: float) -> SessionResult:
        """Run a session, and end it when its time is up: many servers delay their replies after a few errors."""
        ended, results = trio.Event(), list[SessionResult]()

        def on_end(session_result: SessionResult) -> None:
            results.append(session_result)
            ended.set()

        session = self._runner.start(script, on_end, TrackedSession, _TIMEOUT_NS)
        try:
            with trio.move_on_at(end_s):
                await ended.wait()
        finally:
            self._runner.stop(session)
        await ended.wait()
        return results[0]

    async def _measure_idle(self) -> KindMeasurement | None:
        """Measure the server while nobody talks to it."""
        usages = []
        for reading in range(_IDLE_READINGS):
            sample = self._server.measure()
            if sample is None:
                return None
            usages.append(Usage(reading * CASES // _IDLE_READINGS, sample))
            await trio.sleep(_IDLE_S)
        return KindMeasurement(CaseKind("nothing", ()), usages)

    async def _settle(self) -> UsageSample | None:
        """Return what the server uses once that no longer changes; None if it cannot be measured."""
        previous = self._server.measure()
        for _ in range(_SETTLE_READINGS):
            await trio.sleep(_SETTLE_S)
            sample = self._server.measure()
            if sample is None:
                return None
            if previous is not None and _alike(previous, sample):
                return sample
            previous = sample
        return previous


def _alike(a: UsageSample, b: UsageSample) -> bool:
    memory = abs((a.memory_bytes or 0) - (b.memory_bytes or 0)) <= _SETTLED_BYTES
    return memory and (a.processes, a.threads, a.fds) == (b.processes, b.threads, b.fds)


def _is_rising(look: KindMeasurement, resource: Resource) -> bool:
    return look.rise(resource) >= resource.least_rise * _FIRST_RISE_SHARE


def _suspects(looks: Sequence[KindMeasurement], resource: Resource) -> tuple[list[CaseKind], float]:
    """Return the kinds that made a resource grow in the first look, the simplest first, and the slope of the steepest."""
    rates = {look.kind.name: look.rise(resource) / look.done for look in looks if _is_rising(look, resource)}
    steepest = max(rates.values(), default=0.0)
    steep = [look.kind for look in looks if rates.get(look.kind.name, 0.0) >= max(steepest * _SUSPECT_SHARE, 1e-9)]
    steep.sort(key=lambda kind: rates[kind.name], reverse=True)
    simplest = [*steep[:1], *sorted(steep[1:], key=lambda kind: kind.cost)][:_SUSPECTS]
    return sorted(simplest, key=lambda kind: kind.cost), steepest


def _text(measured: KindMeasurement | None, control: KindMeasurement, resource: Resource, slope: Slope) -> str:
    """Return what grows, by how much, and what the control did."""
    assert measured is not None
    form, name = resource.format, measured.kind.name
    interval = f"{CONFIDENCE:.0%} interval: {form(slope.low)} to {form(slope.high)}".replace("%", " %")
    return (
        f"{resource.name} {resource.verb} by {form(slope.each)} for each {name} "
        f"({measured.done:,} of them: {form(measured.rise(resource))}; {interval}); "
        f"{control.done:,} {control.kind.name}: {form(control.rise(resource))}"
    )


def growth_again(measurement: KindMeasurement, control: KindMeasurement, resource: Resource, growth: float) -> bool | None:
    """Return whether a finding of growth shows again; None if that cannot be told.

    Args:
        measurement: The session of the finding, repeated.
        control: The control, on the same server.
        resource: What grew.
        growth: By how much it grew for each case when it was found.
    """
    slope, control_slope = measurement.slope(resource), control.slope(resource)
    if slope is None or control_slope is None:
        return None
    if slope.grows(resource.least_rise):
        return True if slope.low > control_slope.high or resource is not MEMORY else None
    return False if slope.high < growth * _AGAIN_SHARE or not slope.lasting else None
