"""Capacity search: runs at one rate after another until the highest rate that meets the objectives is known.

Theory of operation
===================

1. A short run over a single connection measures the server without load. It gives the first rate and the service time with
   which later steps are compared.
2. Each step is an ordinary run at one rate, with a folder of its own. It ends early if it cannot pass
   (`study.step_measurement`).
3. After a step that failed, short runs over a single connection are made until the server is as fast as without load, so
   that no step pays for the one before it.
4. `study.search` decides which rate is next and when the search is over.

Whatever ends the search, the completed steps are its result. A search that is resumed keeps them and the measurement over a
single connection. The decisions follow from the steps, and the seed of a step from its number, so the search goes on as it
would have gone on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import trio

from smtpbench.engine.pacing import Stage
from smtpbench.errors import CannotRun, UsageError
from smtpbench.load import run as loading
from smtpbench.load.plan import LoadPlan
from smtpbench.load.silent_observer import SilentObserver
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.files import Tick
from smtpbench.measure.health import machine
from smtpbench.measure.partial import save_partial
from smtpbench.measure.recorder import Interval
from smtpbench.measure.result import versions
from smtpbench.measure.saved import CAPACITY
from smtpbench.scenario.load import ScenarioFile
from smtpbench.study.progress import COMPLETED, ReportProgress, RunObserver, StudyProgress, StudyUpdate
from smtpbench.study.resume import (
    common_settings,
    completed_run,
    continue_from,
    load_settings,
    remove_earlier_result,
    target_settings,
)
from smtpbench.study.search import (
    NOTHING,
    NextStep,
    SearchLimits,
    SearchResult,
    SearchStep,
    decide,
    remaining_s,
    rounded,
    search_result,
    step_length_s,
)
from smtpbench.study.step_measurement import (
    StepMeasurement,
    StepMonitor,
    UnloadedTarget,
    evaluate_step,
    median_service_ms,
    search_step_of,
)
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.target import Access
from smtpbench.text import plural
from smtpbench.threshold import Threshold, format_value, parse_threshold
from smtpbench.units import NS_PER_S

#: Objectives of every search; an objective of the user replaces the one of the same metric.
DEFAULT_OBJECTIVES: Final = ("dropped <= 0", "failed < 0.1%")
#: A further objective if the server rejected no message over the single connection.
REJECTED_OBJECTIVE: Final = "rejected < 0.1%"
#: Messages over the single connection, and the time limit for them.
_BASELINE_MESSAGES, _BASELINE_NS = 10, 3 * NS_PER_S
#: Lowest rate of a search, as a share of what a single connection does.
_LOWEST_RATE_SHARE = 1 / 64
#: The server has recovered once its service time is at most this factor and this many ms above that without load.
_RECOVERED_FACTOR, _RECOVERED_MS = 1.5, 5.0
_RECOVERY_CHECKS, _RECOVERY_PAUSE_S = 6, 0.25
#: Pause after a step in which other processes delayed the generator.
_GENERATOR_PAUSE_S = 5.0
#: First rate if a single connection did not show any.
_DEFAULT_RATE_PER_S = 10.0


@dataclass(frozen=True, slots=True)
class CapacityRequest:
    """A capacity search, checked as far as possible without the network.

    Attributes:
        file: The scenario.
        access: The target and how to reach it.
        plan: Load of each step; its stages and its seed are replaced.
        objectives: Thresholds of the user.
        folder: Folder for the result and the folders of the steps.
        precision_share: Gap at which the search ends, as a share of the lower rate.
        step_s: Length of a step, seconds; see `search.step_length_s`.
        first_per_s: First and lowest rate, arrivals a second; None to derive both from a single connection.
        max_rate_per_s: Highest rate to try; None for no limit.
        message_bytes: Message size, instead of that of the scenario; None to keep it.
        interrupted: Result of the interrupted search to continue; None to start from the beginning.
        server: The server under test, started or watched; None if nothing is known of its processes.

    Raises:
        UsageError: An objective is about the rate itself, or the first rate is above the highest.
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
    interrupted: Mapping[str, Any] | None = None
    server: SupervisedServer | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for one in self.objectives:
            if one.path[0] in ("throughput", "attempted", "accepted"):
                raise UsageError(
                    f"objective {one.text!r} is about the rate, which is what the search looks for; "
                    "use a latency or an error, like message.p99 < 200ms or failed < 1%"
                )
        if self.first_per_s is not None and self.max_rate_per_s is not None and self.first_per_s > self.max_rate_per_s:
            raise UsageError(f"the first rate, {self.first_per_s:g}/s, is above the highest rate, {self.max_rate_per_s:g}/s")


@dataclass(frozen=True, slots=True)
class _Baseline:
    """What a run over a single connection measured.

    Attributes:
        rate_per_s: Messages attempted a second; None if there were none.
        service_ms: Median service time, milliseconds; None if none was measured.
        rejected_share: Share of its messages that the server rejected.
        result: Result of the run.
    """

    rate_per_s: float | None
    service_ms: float | None
    rejected_share: float
    result: dict[str, Any] = field(repr=False)


class CapacitySearch(StudyProgress):
    """A capacity search in progress.

    Attributes:
        steps: Completed steps, as decisions need them.
        entries: The same steps as entries of the result.
    """

    def __init__(self, request: CapacityRequest, report_progress: ReportProgress) -> None:
        super().__init__(report_progress, settings_of(request), request.interrupted)
        self._request = request
        self._objectives = objectives_of(request.objectives, server_rejects=False)
        self._limits = SearchLimits(0.0, 0.0, request.precision_share, request.max_rate_per_s)
        self._unloaded = UnloadedTarget(request.precision_share, None)
        self._target: dict[str, Any] = {"url": request.access.target.url, "banner": "", "ehlo": []}
        self._generator: dict[float, dict[str, Any]] = {}
        self.steps: list[SearchStep] = []
        self.entries: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Search until the end, a signal or an error. Raises UsageError."""
        await self._run_work(self._search)

    async def _search(self) -> None:
        request = self._request
        baseline = None if request.interrupted is None else self._restore(request.interrupted)
        save_partial(self.result() | {"outcome": {}}, request.folder)
        if request.interrupted is not None:
            remove_earlier_result(request.folder)
        if baseline is None:
            baseline = await self._run_baseline("baseline", _BASELINE_MESSAGES)
        if baseline is None:
            return
        self._set_limits(baseline)
        save_partial(self.result() | {"outcome": {}}, request.folder)
        if self.steps and not await self._wait_after_failure():
            return
        while isinstance(next_step := decide(self._limits, self.steps), NextStep):
            if not await self._run_step(next_step) or not await self._wait_after_failure():
                return

    async def _wait_after_failure(self) -> bool:
        """Wait until what made the last step fail is over, if it failed; return whether the search goes on."""
        if not self.steps[-1].passed and not await self._wait_for_recovery():
            return False
        if self.steps[-1].limited_by and not self.steps[-1].conclusive:
            await trio.sleep(_GENERATOR_PAUSE_S)  # what delayed the generator may be over by then
        return True

    def _restore(self, interrupted: Mapping[str, Any]) -> _Baseline | None:
        """Take over the steps of the interrupted search; return its measurement over a single connection, if there is one.

        Raises:
            UsageError: The result of the interrupted search is not complete.
        """
        folder = self._request.folder
        try:
            measured = completed_run(folder / "baseline") if interrupted["plan"]["first_rate_per_s"] else None
            for entry in interrupted["steps"] if measured else ():
                step = search_step_of(entry)
                run = completed_run(folder / _step_name(len(self.steps) + 1, step.rate_per_s))
                self.steps.append(step)
                self.entries.append(dict(entry))
                self._generator[step.rate_per_s] = run["generator"] if run else {}
            baseline = _baseline_of(measured) if measured else None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UsageError(
                "the interrupted search cannot be resumed: its result is not complete; use --overwrite"
            ) from None
        self._note_resumption(len(self.steps))
        if measured:
            self._notify(f"resumed after {plural(len(self.steps), 'step')}")
        return baseline

    def _set_limits(self, baseline: _Baseline) -> None:
        request = self._request
        self._target = dict(baseline.result["target"])
        self._objectives = objectives_of(request.objectives, server_rejects=baseline.rejected_share > 0)
        self._unloaded = replace(self._unloaded, service_ms=baseline.service_ms)
        estimate_per_s = float(f"{baseline.rate_per_s or _DEFAULT_RATE_PER_S:.2g}")
        first_per_s = estimate_per_s if request.first_per_s is None else request.first_per_s
        lowest_per_s = rounded(first_per_s * _LOWEST_RATE_SHARE) if request.first_per_s is None else first_per_s
        self._limits = replace(self._limits, first_per_s=first_per_s, lowest_per_s=lowest_per_s)
        measured = "" if baseline.rate_per_s is None else f"a single connection does {baseline.rate_per_s:,.1f} messages/s; "
        if not self.steps:
            self._notify(f"{measured}the search starts at {first_per_s:g}/s")

    async def _run_baseline(self, name: str, arrivals: int) -> _Baseline | None:
        """Send some messages over a single connection, closed model; return None if a signal ended the run."""
        plan = replace(
            self._request.plan, connections=1, workers=1, arrivals=arrivals, duration_ns=_BASELINE_NS, stages=(), warmup_ns=0
        )
        request = self._run_request(plan, name, ThresholdMonitor(self._objectives))
        done = await loading.run(request, SilentObserver(self._notify))
        if self._note_interruption(done):
            return None
        messages, attempted = done.result["messages"], done.result["messages"]["attempted"]
        if attempted and messages["failed"] == attempted:
            kinds = ", ".join(done.result["errors"]) or "no reply gives a reason"
            raise CannotRun(f"all of the first {plural(attempted, 'message')} over a single connection failed: {kinds}")
        return _baseline_of(done.result)

    async def _run_step(self, next_step: NextStep) -> bool:
        """Run one step; return whether the search goes on."""
        request, number, rate_per_s = self._request, len(self.steps) + 1, next_step.rate_per_s
        length_s = step_length_s(next_step.purpose, rate_per_s, request.step_s, request.precision_share)
        stages = (Stage(round(length_s * NS_PER_S), rate_per_s, rate_per_s),)
        plan = replace(request.plan, stages=stages, seed=request.plan.seed + number)
        measurement = StepMeasurement(rate_per_s, plan, self._objectives)
        name = _step_name(number, rate_per_s)
        monitor = StepMonitor(self._objectives, measurement=measurement)
        now = f"step {number}, {rate_per_s:g}/s"
        left_s = remaining_s(self._limits, self.steps, request.step_s, plan.warmup_ns / NS_PER_S)

        def report_run(elapsed_s: float, _: float) -> None:
            left_now_s = None if left_s is None else max(0.0, left_s - elapsed_s)
            self._report_progress(StudyUpdate(now, remaining_s=left_now_s))

        observer = _StepObserver(plan, self._notify, report_run, measurement)
        done = await loading.run(self._run_request(plan, name, monitor), observer)
        if self._note_interruption(done):
            return False
        step, entry = evaluate_step(measurement, next_step.purpose, done.result, self._unloaded)
        self.steps.append(step)
        self.entries.append({**entry, "folder": name})
        self._generator[rate_per_s] = done.result["generator"]
        save_partial(self.result() | {"outcome": {}}, request.folder)
        verdict = "passed" if step.passed else "FAILED" if not step.limited_by else "inconclusive"
        p99 = "" if entry["p99_ms"] is None else f", message p99 {format_value('ms', entry['p99_ms'])}"
        reason = "" if step.passed else f" ({entry['why']})"
        left_s = remaining_s(self._limits, self.steps, request.step_s, plan.warmup_ns / NS_PER_S)
        self._report_progress(StudyUpdate(f"{now}: {verdict}{p99}{reason}", remaining_s=left_s, milestone=True))
        return True

    async def _wait_for_recovery(self) -> bool:
        """Wait, for a limited time, until a single connection is as fast as without load.

        Returns:
            Whether the search goes on.
        """
        if self._unloaded.service_ms is None:
            return True
        for check in range(_RECOVERY_CHECKS):
            try:
                baseline = await self._run_baseline("recovery", 3)
            except CannotRun:  # still busy with earlier messages; if the server is gone, the next step reports it
                baseline = _Baseline(None, None, 0.0, {})
            if baseline is None:
                return False
            limit_ms = _RECOVERED_FACTOR * self._unloaded.service_ms + _RECOVERED_MS
            if baseline.service_ms is not None and baseline.service_ms <= limit_ms:
                return True
            await trio.sleep(_RECOVERY_PAUSE_S * 2**check)
        self._notify("the server is still slower than without load; the search goes on nevertheless")
        return True

    def _run_request(self, plan: LoadPlan, name: str, monitor: ThresholdMonitor) -> loading.RunRequest:
        request = self._request
        access = request.access
        return loading.RunRequest(
            request.file, access.target, plan, request.folder / name, access.trust, access.password, access.authorized,
            request.message_bytes, monitor=monitor, server=request.server,
        )  # fmt: skip

    def _note_interruption(self, done: loading.RunResult) -> bool:
        if done.interrupted:
            self._mark_interrupted()
        else:
            done.require_complete()
        return done.interrupted

    def result(self) -> dict[str, Any]:
        """Return the content of `result.json` (`capacity.schema.json`), from the completed steps."""
        request, plan = self._request, self._request.plan
        found = search_result(self._limits, self.steps)
        if self.status != COMPLETED and not isinstance(decide(self._limits, self.steps), SearchResult):
            found = replace(found, limited_by=NOTHING, reason=f"the search was not completed: {found.reason}")
        last_per_s = found.rate_per_s if found.rate_per_s is not None else found.failed_rate_per_s
        return {
            **self._result_header(CAPACITY),
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
            "notes": self._resumption_notes("step"),
            "machine": machine(),
            "versions": versions(),
        }


def _baseline_of(result: dict[str, Any]) -> _Baseline:
    """Return what a run over a single connection measured."""
    messages, window_s = result["messages"], result["load"]["window_s"]
    attempted = messages["attempted"]
    rejected_share = messages["rejected"] / attempted if attempted else 0.0
    rate_per_s = attempted / window_s if attempted and window_s else None
    return _Baseline(rate_per_s, median_service_ms(result), rejected_share, result)


def _step_name(number: int, rate_per_s: float) -> str:
    """Return the name of the folder of a step; steps count from 1."""
    return f"step-{number:02}-{rate_per_s:g}"


def resumed(request: CapacityRequest, *, keep_seed: bool) -> CapacityRequest:
    """Return a request that continues the interrupted search in its folder, or the request itself if there is none.

    Args:
        request: What the command asks for.
        keep_seed: Whether the user gave the seed; without that it is the one of the interrupted search.

    Raises:
        UsageError: The search in the folder is complete, has other settings, or is none.
    """

    def with_seed(seed: int) -> CapacityRequest:
        return replace(request, plan=replace(request.plan, seed=seed))

    found, seed = continue_from(
        request.folder, CAPACITY, request.plan.seed, lambda seed: settings_of(with_seed(seed)), keep_seed=keep_seed
    )
    return replace(with_seed(seed), interrupted=found)


def settings_of(request: CapacityRequest) -> dict[str, Any]:
    """Return what decides what a search measures."""
    return {
        **common_settings(request.file),
        **target_settings(request.access, request.message_bytes),
        **load_settings(request.plan),
        "seed": request.plan.seed,
        "objectives": [one.text for one in request.objectives],
        "precision_share": request.precision_share,
        "step_s": request.step_s,
        "first_rate_per_s": request.first_per_s,
        "max_rate_per_s": request.max_rate_per_s,
    }


def objectives_of(given: Sequence[Threshold], *, server_rejects: bool) -> list[Threshold]:
    """Return all objectives of a search.

    Args:
        given: Objectives of the user.
        server_rejects: Whether the server rejects some messages of the scenario even without load.
    """
    given_paths = {one.path for one in given if not one.domain}
    defaults = map(parse_threshold, DEFAULT_OBJECTIVES if server_rejects else (*DEFAULT_OBJECTIVES, REJECTED_OBJECTIVE))
    return [*given, *(one for one in defaults if one.path not in given_paths)]


class _StepObserver(RunObserver):
    """Passes each second of a step to its measurement too."""

    def __init__(
        self,
        plan: LoadPlan,
        notify: Callable[[str], None],
        report_run: Callable[[float, float], None],
        measurement: StepMeasurement,
    ) -> None:
        super().__init__(plan, notify, report_run)
        self._measurement = measurement

    def tick(self, tick: Tick, totals: Interval) -> None:
        """Record and report a second of the run."""
        self._measurement.tick(tick, totals)
        super().tick(tick, totals)

    def notify(self, text: str) -> None:
        """Forward a notification, except that the step was ended early: the search reports the step itself."""
        if not self._measurement.abort_reason or self._measurement.abort_reason not in text:
            super().notify(text)


async def capacity(request: CapacityRequest, report_progress: ReportProgress) -> dict[str, Any]:
    """Search and return the result, whatever ended the search. Raises UsageError."""
    search = CapacitySearch(request, report_progress)
    await search.run()
    return search.result()
