"""A capacity search: runs at one rate after another, each a step, until the highest that holds the objectives is known.

A lone connection goes first: what it can do tells the first rate, and how fast the server is when it has nothing else to
do. Each step is an ordinary run with a folder of its own; it ends early where it is hopeless (`study.measurement`).
After one
that did not hold, the lone connection comes back until the server is as fast as it was, so that no step pays for the one
before. Which rate is next is decided by `study.steps`. Whatever ends the search, the steps so far are the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import trio

from smtpbench.engine.pacing import Stage
from smtpbench.errors import CannotRun, UsageError
from smtpbench.load import run as loading
from smtpbench.load.plan import LoadPlan
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.health import machine
from smtpbench.measure.result import versions
from smtpbench.measure.saved import CAPACITY
from smtpbench.scenario.load import ScenarioFile
from smtpbench.study.progress import COMPLETED, ReportProgress, StudyProgress
from smtpbench.study.step_measurement import StepMeasurement, StepWatch, UnloadedTarget, entry_of, service_ms_of
from smtpbench.study.steps import NOTHING, Limits, Next, SearchResult, SearchStep, decide, length_s, rounded, verdict
from smtpbench.target import Access
from smtpbench.threshold import Threshold, format_value, parse_threshold
from smtpbench.units import NS_PER_S

#: What must hold whatever else is asked for; an objective of the user's own replaces the one of the same metric.
ALWAYS: Final = ("dropped <= 0", "failed < 0.1%")
#: And this, where the server refused nothing of a lone connection's.
UNREFUSED: Final = "rejected < 0.1%"
#: The lone connection's messages, and how long it has for them.
_LONE_MESSAGES, _LONE_NS = 10, 3 * NS_PER_S
#: How far below what a lone connection does a search goes.
_LOWEST_SHARE = 1 / 64
#: The server is idle again once a lone connection is served in so many times, and so many ms more than, at first.
_IDLE_FACTOR, _IDLE_MS = 1.5, 5.0
_IDLE_TRIES, _IDLE_REST_S = 6, 0.25
#: So long the search rests after a step in which something else held up the generator.
_REST_S = 5.0
_FIRST_GUESS_PER_S = 10.0


@dataclass(frozen=True, slots=True)
class CapacityRequest:
    """A search that can be made.

    plan: of each step, but for its stages and seed. objectives: the user's. first_per_s: the first rate, below which the
    search does not go; None for what a lone connection does. step_s: see `steps.length_s`.
    """

    file: ScenarioFile
    access: Access
    plan: LoadPlan
    objectives: Sequence[Threshold]
    folder: Path
    precision_share: float = 0.05
    step_s: float = 5.0
    first_per_s: float | None = None
    max_rate_per_s: float | None = None
    message_bytes: int | None = None

    def __post_init__(self) -> None:
        for one in self.objectives:
            if one.path[0] in ("throughput", "attempted", "accepted"):
                raise UsageError(f"{one.text!r}: the rate is what is looked for; an objective is what must hold at it")
        if self.first_per_s is not None and self.max_rate_per_s is not None and self.first_per_s > self.max_rate_per_s:
            raise UsageError(f"the search cannot begin at {self.first_per_s:g}/s: {self.max_rate_per_s:g}/s is its end")


@dataclass(frozen=True, slots=True)
class _Lone:
    """What a lone connection did. refused_share: of its messages. result: of its run."""

    rate_per_s: float | None
    service_ms: float | None
    refused_share: float
    result: dict[str, Any] = field(repr=False)


class Search(StudyProgress):
    """A search under way. steps: what was decided from. entries: the same as the result tells them."""

    def __init__(self, request: CapacityRequest, report_progress: ReportProgress) -> None:
        super().__init__(report_progress)
        self._request = request
        self._objectives = objectives_of(request.objectives, refusing=False)
        self._limits = Limits(0.0, 0.0, request.precision_share, request.max_rate_per_s)
        self._bench = UnloadedTarget(request.precision_share, None)
        self._target: dict[str, Any] = {"url": request.access.target.url, "banner": "", "ehlo": []}
        self._generator: dict[float, dict[str, Any]] = {}
        self.steps: list[SearchStep] = []
        self.entries: list[dict[str, Any]] = []

    async def go(self) -> None:
        """Search. Raises UsageError."""
        await self._through(self._search)

    async def _search(self) -> None:
        lone = await self._lone("lone", _LONE_MESSAGES)
        if lone is None:
            return
        self._prepare(lone)
        while isinstance(ahead := decide(self._limits, self.steps), Next):
            if not await self._step(ahead):
                return
            if not self.steps[-1].held and not await self._until_idle():
                return
            if self.steps[-1].blame and not self.steps[-1].clear:
                await trio.sleep(_REST_S)  # what held the generator up may be over by then

    def _prepare(self, lone: _Lone) -> None:
        request = self._request
        self._target = dict(lone.result["target"])
        self._objectives = objectives_of(request.objectives, refusing=lone.refused_share > 0)
        self._bench = replace(self._bench, service_ms=lone.service_ms)
        guess_per_s = float(f"{lone.rate_per_s or _FIRST_GUESS_PER_S:.2g}")
        first_per_s = guess_per_s if request.first_per_s is None else request.first_per_s
        lowest_per_s = rounded(first_per_s * _LOWEST_SHARE) if request.first_per_s is None else first_per_s
        self._limits = replace(self._limits, first_per_s=first_per_s, lowest_per_s=lowest_per_s)
        said = "" if lone.rate_per_s is None else f" serves {lone.rate_per_s:,.1f}/s;"
        self._report_progress(f"a lone connection{said} the search begins at {first_per_s:g}/s")

    async def _lone(self, name: str, arrivals: int) -> _Lone | None:
        """Some messages over one connection, closed model; None where a signal ended that."""
        plan = replace(
            self._request.plan, connections=1, workers=1, arrivals=arrivals, duration_ns=_LONE_NS, stages=(), warmup_ns=0
        )
        done = await loading.run(self._run(plan, name, ThresholdMonitor(self._objectives)), _Quiet(self._report_progress))
        if self._is_over(done):
            return None
        result = done.result
        messages, window_s = result["messages"], result["load"]["window_s"]
        attempted = messages["attempted"]
        if attempted and messages["failed"] == attempted:
            kinds = ", ".join(result["errors"]) or "no reply that says why"
            raise CannotRun(f"none of the first {attempted} messages over one connection went well: {kinds}")
        refused_share = messages["rejected"] / attempted if attempted else 0.0
        rate_per_s = attempted / window_s if attempted and window_s else None
        return _Lone(rate_per_s, service_ms_of(result), refused_share, result)

    async def _step(self, ahead: Next) -> bool:
        """One step; whether to go on."""
        request, number = self._request, len(self.steps) + 1
        duration_ns = round(length_s(ahead.purpose, ahead.rate_per_s, request.step_s, request.precision_share) * NS_PER_S)
        stages = (Stage(duration_ns, ahead.rate_per_s, ahead.rate_per_s),)
        plan = replace(request.plan, stages=stages, seed=request.plan.seed + number)
        measurement = StepMeasurement(ahead.rate_per_s, plan, self._objectives)
        name = f"step-{number:02}-{ahead.rate_per_s:g}"
        watch = StepWatch(self._objectives, measurement=measurement)
        done = await loading.run(self._run(plan, name, watch), _Quiet(self._report_progress, measurement))
        if self._is_over(done):
            return False
        step, entry = entry_of(measurement, ahead.purpose, done.result, self._bench)
        self.steps.append(step)
        self.entries.append({**entry, "folder": name})
        self._generator[step.rate_per_s] = done.result["generator"]
        p99_ms = "" if entry["p99_ms"] is None else f", message p99 {format_value('ms', entry['p99_ms'])}"
        word = "held" if step.held else "NOT held" if not step.blame else "cannot tell"
        self._report_progress(
            f"step {number}, {step.rate_per_s:g}/s: {word}{p99_ms}" + ("" if step.held else f" ({entry['why']})")
        )
        return True

    async def _until_idle(self) -> bool:
        """Wait until a lone connection is served as fast as at first, within reason; whether to go on."""
        if self._bench.service_ms is None:
            return True
        for tried in range(_IDLE_TRIES):
            try:
                lone = await self._lone("idle", 3)
            except CannotRun:  # it is still busy with what it was sent; should it be gone, the next step says so
                lone = _Lone(None, None, 0.0, {})
            if lone is None:
                return False
            if lone.service_ms is not None and lone.service_ms <= _IDLE_FACTOR * self._bench.service_ms + _IDLE_MS:
                return True
            await trio.sleep(_IDLE_REST_S * 2**tried)
        self._report_progress("the server is still slower than it was at first; the next step begins all the same")
        return True

    def _run(self, plan: LoadPlan, name: str, watch: ThresholdMonitor) -> loading.RunRequest:
        request = self._request
        access = request.access
        return loading.RunRequest(
            request.file, access.target, plan, request.folder / name, access.trust, access.password, access.authorized,
            request.message_bytes, watch=watch,
        )  # fmt: skip

    def _is_over(self, done: loading.RunResult) -> bool:
        if done.interrupted:
            self._stop()
        return done.interrupted

    def result(self) -> dict[str, Any]:
        """The search's `result.json` (`capacity.schema.json`), of whatever steps are complete."""
        request, plan = self._request, self._request.plan
        found = verdict(self._limits, self.steps)
        if self.status != COMPLETED and not isinstance(decide(self._limits, self.steps), SearchResult):
            found = replace(found, limited_by=NOTHING, reason=f"the search is not over: {found.reason}")
        last_per_s = found.rate_per_s if found.rate_per_s is not None else found.failed_rate_per_s
        return {
            **self._head(CAPACITY),
            "scenario": request.file.to_data(),
            "target": self._target,
            "plan": {
                "objectives": [one.text for one in self._objectives],
                "precision_share": request.precision_share,
                "step_s": request.step_s,
                "warmup_s": plan.warmup_ns / NS_PER_S,
                "first_rate_per_s": self._limits.first_per_s or None,
                "max_rate_per_s": request.max_rate_per_s,
                "connections": plan.connections,
                "workers": plan.workers,
                "arrival_process": "poisson" if plan.poisson else "uniform",
                "message_bytes": request.message_bytes,
                "seed": plan.seed,
            },
            "capacity": {
                "rate_per_s": found.rate_per_s,
                "failed_rate_per_s": found.failed_rate_per_s,
                "precision_share": found.precision_share,
                "limited_by": found.limited_by,
                "reason": found.reason,
            },
            "steps": self.entries,
            "generator": self._generator.get(last_per_s, {}) if last_per_s is not None else {},
            "machine": machine(),
            "versions": versions(),
        }


def objectives_of(given: Sequence[Threshold], *, refusing: bool) -> list[Threshold]:
    """Everything that must hold. refusing: whether the server refuses some of this scenario's messages anyhow."""
    own = {one.path for one in given if not one.domain}
    always = map(parse_threshold, ALWAYS if refusing else (*ALWAYS, UNREFUSED))
    return [*given, *(one for one in always if one.path not in own)]


class _Quiet:
    """Watches a run and tells only what somebody should know. gauge: is shown every second of it."""

    def __init__(self, report_progress: ReportProgress, measurement: StepMeasurement | None = None) -> None:
        self._report_progress = report_progress
        self._gauge = measurement

    def tick(self, tick: Any, totals: Any) -> None:
        """A second of one of many runs is nobody's news."""
        if self._gauge is not None:
            self._gauge.tick(tick, totals)

    def notify(self, text: str) -> None:
        """Told on, but for the end of a step that was ended on purpose: it has a line of its own."""
        if self._gauge is None or not self._gauge.hopeless or self._gauge.hopeless not in text:
            self._report_progress(text)


async def capacity(request: CapacityRequest, report_progress: ReportProgress) -> dict[str, Any]:
    """Make a search; its result, whatever became of it. Raises UsageError."""
    search = Search(request, report_progress)
    await search.go()
    return search.result()
