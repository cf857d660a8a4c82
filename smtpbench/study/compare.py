"""A comparison: each candidate runs the same scenario many times, in turns, and what differs is told with its interval.

Theory of operation
===================

A machine is never the same for two minutes, so the candidates take turns: a round is one run of each, and the order
goes back and forth from round to round (A B, B A …), so that neither always comes first. The runs of a round are one
pair; `measure.difference` reads the pairs. Every run has a warm-up of its own, the same seed as its partner, and a folder
of its own, whose files are those of `smtpbench run`.

A candidate with a command to start it is started for each run and ended after it, so that configurations can be compared
that want the same port, and no idle server has memory or a core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from smtpbench.check import run as check_run
from smtpbench.load import run as loading
from smtpbench.measure.comparison import Series, compare_series
from smtpbench.measure.files import Tick
from smtpbench.measure.health import machine
from smtpbench.measure.recorder import Interval
from smtpbench.measure.result import versions
from smtpbench.measure.saved import COMPARISON, totals_of
from smtpbench.measure.thresholds import Figures, value_of
from smtpbench.rules import rule as r
from smtpbench.rules.register import BY_NAME, RULES
from smtpbench.study.candidates import Candidate, CompareRequest
from smtpbench.study.progress import ReportProgress, StudyProgress
from smtpbench.study.servers import started
from smtpbench.threshold import Metric, format_value
from smtpbench.units import NS_PER_S

METHOD: Final = (
    "The candidates took turns, and each round is a pair. Intervals are a studentised bootstrap of the trimmed mean over "
    "the rounds and hold all together; times and rates are compared by ratio, shares by difference."
)


class Comparing(StudyProgress):
    """A comparison under way: what its runs and trials gave so far.

    runs: by candidate, one result a round. verdicts: by candidate, one a rule.
    """

    def __init__(self, request: CompareRequest, report_progress: ReportProgress) -> None:
        super().__init__(report_progress)
        self._request = request
        self.runs: dict[str, list[dict[str, Any]]] = {one.name: [] for one in request.candidates}
        self.verdicts: dict[str, dict[str, str]] = {}

    async def go(self) -> None:
        """All rounds, then the trials. Raises UsageError."""
        await self._through(self._rounds)

    async def _rounds(self) -> None:
        for number in range(self._request.comparison.repeats):
            for candidate in turn(self._request.candidates, number):
                async with self._running(candidate):
                    if not await self._run(candidate, number):
                        return
        for candidate in self._request.candidates if self._request.comparison.check else ():
            async with self._running(candidate):
                await self._try(candidate)

    def _running(self, candidate: Candidate) -> Any:
        return started(candidate.commands, candidate.access, self._request.folder / f"{candidate.name}.log")

    async def _run(self, candidate: Candidate, number: int) -> bool:
        """One run; whether to go on."""
        request = self._request
        done = await loading.run(
            loading.RunRequest(
                file=request.file,
                target=candidate.access.target,
                plan=replace(candidate.plan, seed=request.seed + number),
                out=request.folder / run_name(candidate.name, number),
                trust=candidate.access.trust,
                password=candidate.access.password,
                authorized=candidate.access.authorized,
                message_bytes=candidate.message_bytes,
            ),
            _Quiet(self._report_progress),
        )
        if done.interrupted:
            self._stop()
            return False
        self.runs[candidate.name].append(done.result)
        told = [f"{metric.text} {_value(metric, done.result)}" for metric in request.metrics[:3]]
        self._report_progress(f"round {number + 1} of {request.comparison.repeats}, {candidate.name}: {', '.join(told)}")
        return True

    async def _try(self, candidate: Candidate) -> None:
        self._report_progress(f"{candidate.name} is tried against the protocol's rules")
        wanted = [rule for rule in RULES if rule.severity != r.ADVICE]
        verdict = await check_run.run_check(
            check_run.CheckRequest(candidate.access, wanted, candidate.recipient, candidate.sender)
        )
        if verdict.stopped:
            self._stop()
        else:
            self.verdicts[candidate.name] = {name: rule["verdict"] for name, rule in verdict.result["rules"].items()}

    def result(self) -> dict[str, Any]:
        """The comparison's `result.json` (`comparison.schema.json`), of whatever rounds are complete."""
        request, comparison = self._request, self._request.comparison
        rounds = min(map(len, self.runs.values()))
        runs = {name: results[:rounds] for name, results in self.runs.items()}
        figures = [(metric, series_of(metric, runs)) for metric in request.metrics]
        return {
            **self._head(COMPARISON),
            "name": comparison.name or request.file.name,
            "about": comparison.about,
            "scenario": request.file.to_data(),
            "plan": {
                "repeats": comparison.repeats,
                "repeats_done": rounds,
                "warmup_s": request.candidates[0].plan.warmup_ns / NS_PER_S,
                "duration_s": _duration_s(runs),
                "confidence": comparison.confidence,
                "least_share": comparison.least,
                "seed": request.seed,
                "paired": True,
                "method": METHOD,
            },
            "candidates": [self._side(one, runs[one.name]) for one in request.candidates],
            **readings(figures, confidence=comparison.confidence, least=comparison.least, paired=True, seed=request.seed),
            "rules": self.verdicts,
            "rule_differences": rule_differences(self.verdicts),
            "notes": notes(runs),
            "machine": machine(),
            "versions": versions(),
        }

    def _side(self, candidate: Candidate, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        target = dict(runs[0]["target"]) if runs else {"url": candidate.access.target.url, "banner": "", "ehlo": []}
        return {
            "name": candidate.name,
            "about": candidate.about,
            "target": target,
            "options": candidate.options,
            "load": dict(runs[0]["load"]) if runs else None,
            "start": candidate.commands.start,
            "stop": candidate.commands.stop,
            "runs": [run_name(candidate.name, number) for number in range(len(runs))],
            "limited_runs": sum(run["generator"]["limited"] for run in runs),
        }


def turn(candidates: Sequence[Candidate], number: int) -> list[Candidate]:
    """The order of a round: another one begins each time, and every other time it goes backwards."""
    shift = number // 2 % len(candidates)
    order = [*candidates[shift:], *candidates[:shift]]
    return order if number % 2 == 0 else order[::-1]


def run_name(candidate: str, number: int) -> str:
    """The folder of a candidate's run."""
    return f"{candidate}-{number + 1:02}"


def series_of(metric: Metric, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Series]:
    """A metric's values, by candidate, one a run."""
    return {
        name: Series([reading(metric, run) for run in results], [bool(run["generator"]["limited"]) for run in results])
        for name, results in runs.items()
    }


def reading(metric: Metric, result: Mapping[str, Any]) -> float | None:
    """What a run measured of a metric; None where it measured nothing of it."""
    return value_of(metric, Figures(totals_of(result), result["load"]["window_s"], result["generator"]))


def readings(
    figures: Sequence[tuple[Metric, dict[str, Series]]], *, confidence: float, least: float, paired: bool, seed: int
) -> dict[str, Any]:
    """`figures` and `differences` of a result."""
    return {
        "figures": [
            {
                "metric": metric.text,
                "unit": metric.kind,
                "better": "higher" if metric.more_is_better else "lower",
                "values": {name: list(series.values) for name, series in by_name.items()},
            }
            for metric, by_name in figures
        ],
        "differences": compare_series(figures, paired=paired, confidence=confidence, least=least, seed=seed),
    }


def rule_differences(verdicts: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """The rules that some candidates break and others do not, the gravest first."""
    found = []
    for rule in sorted(RULES, key=lambda rule: r.SEVERITIES.index(rule.severity)):
        words = {name: of.get(rule.name, r.NOT_RUN) for name, of in verdicts.items()}
        if r.VIOLATED in words.values() and set(words.values()) != {r.VIOLATED}:
            about = BY_NAME[rule.name]
            found.append({"rule": rule.name, "section": about.section, "severity": about.severity,
                          "requirement": about.requirement, "verdicts": words})  # fmt: skip
    return found


def notes(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What a reader must know: where the generator was the bottleneck, and what the runs themselves say."""
    found = []
    for name, results in runs.items():
        limited = [run for run in results if run["generator"]["limited"]]
        if limited:
            why = "; ".join(limited[0]["generator"]["limited_reasons"])
            found.append(f"{name}: in {len(limited)} of {len(results)} runs the generator was the bottleneck ({why}).")
    said = dict.fromkeys(note for results in runs.values() for run in results for note in run["notes"])
    return [*found, *said]


def _duration_s(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    windows_s = [run["load"]["window_s"] for results in runs.values() for run in results]
    return sum(windows_s) / len(windows_s) if windows_s else 0.0


def _value(metric: Metric, result: Mapping[str, Any]) -> str:
    value = reading(metric, result)
    return "nothing" if value is None else format_value(metric.kind, value)


class _Quiet:
    """Watches a run and tells only what somebody should know."""

    def __init__(self, report_progress: ReportProgress) -> None:
        self._report_progress = report_progress

    def tick(self, tick: Tick, totals: Interval) -> None:
        """A second of one of many runs is nobody's news."""

    def notify(self, text: str) -> None:
        """Told on."""
        self._report_progress(text)


async def compare(request: CompareRequest, report_progress: ReportProgress) -> dict[str, Any]:
    """Make a comparison; its result, whatever became of it. Raises UsageError."""
    study = Comparing(request, report_progress)
    await study.go()
    return study.result()
