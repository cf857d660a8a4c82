"""Comparison: each candidate runs the same scenario many times, in turns; differences are reported with intervals.

Theory of operation
===================

A machine never behaves the same for two minutes, so the candidates take turns. A round is one run of each candidate. The
order alternates from round to round (A B, B A …), so that no candidate always comes first. The runs of a round form a pair,
and `measure.comparison` evaluates the pairs. Each run has its own warm-up, the same seed as its partner, and a folder of its
own with the files of `smtpbench run`.

A candidate with a start command is started for each run and stopped after it. Configurations that need the same port can be
compared that way, and no idle server takes memory or a core.

A comparison that is resumed keeps the complete rounds of the interrupted one. The runs of a round that was not complete are
removed and made again, because the runs of a pair must be close in time. Seeds and orders of the rounds follow from their
numbers, so they are those that the interrupted comparison would have had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final

from smtpbench.check import run as check_run
from smtpbench.engine import api
from smtpbench.load import run as loading
from smtpbench.load.plan import UNBOUNDED_NS
from smtpbench.measure.comparison import MIN_REPEATS, Series, compare_series
from smtpbench.measure.health import BUSY_SHARE, machine
from smtpbench.measure.notes import SHARED_CORES, STOPPED_ANSWERING, TOO_FEW, bottleneck_note
from smtpbench.measure.partial import save_partial
from smtpbench.measure.result import versions
from smtpbench.measure.saved import COMPARISON, totals_of
from smtpbench.measure.thresholds import Figures, value_of
from smtpbench.rules import rule as r
from smtpbench.rules.register import RULES
from smtpbench.scenario.comparison import SERVER_METRIC
from smtpbench.study.candidates import Candidate, CompareRequest, settings_of
from smtpbench.study.progress import ReportProgress, RunObserver, StudyProgress, StudyUpdate
from smtpbench.study.resume import completed_run, remove_earlier_result, remove_run
from smtpbench.supervisor.supervised import SupervisedServer, supervised
from smtpbench.text import plural
from smtpbench.threshold import COUNT, SHARE, TIME, Metric, format_value, parse_metric, percent_of
from smtpbench.units import NS_PER_S

METHOD: Final = (
    "The candidates took turns, and each round is a pair. Intervals are simultaneous: a studentised bootstrap of the "
    "trimmed mean over the rounds. Times and rates are compared by ratio, shares by difference."
)


class ComparisonStudy(StudyProgress):
    """A comparison in progress.

    Attributes:
        runs: Name of a candidate → results of its runs, one a round.
        verdicts: Name of a candidate → name of a rule → verdict.
        severities: Name of a candidate → name of a rule that it violates → severity of the violation.
    """

    def __init__(self, request: CompareRequest, report_progress: ReportProgress) -> None:
        super().__init__(report_progress, settings_of(request), request.interrupted)
        self._request = request
        self.runs: dict[str, list[dict[str, Any]]] = {one.name: [] for one in request.candidates}
        self.verdicts: dict[str, dict[str, str]] = {}
        self.severities: dict[str, dict[str, str]] = {}
        self._parts_kept = 0

    async def run(self) -> None:
        """Run all rounds, then check the protocol rules if that was asked for. Raises UsageError."""
        await self._run_work(self._run_rounds)

    async def _run_rounds(self) -> None:
        request = self._request
        kept = 0 if request.interrupted is None else self._restore(request.interrupted)
        save_partial(self.result(), request.folder)
        if request.interrupted is not None:
            remove_earlier_result(request.folder)
        self._notify(extent_text(request, kept))
        for number in range(kept, request.comparison.repeats):
            for candidate in round_order(request.candidates, number):
                async with self._server(candidate) as server:
                    if not await self._run(candidate, number, server):
                        return
        for candidate in request.candidates if request.comparison.check else ():
            if candidate.name not in self.verdicts:
                async with self._server(candidate) as server:
                    await self._check(candidate, server)

    def _restore(self, interrupted: Mapping[str, Any]) -> int:
        """Take over the complete rounds of the interrupted comparison and its checks; return the number of rounds."""
        folder, names, repeats = self._request.folder, list(self.runs), self._request.comparison.repeats
        for number in range(repeats):
            results = {name: completed_run(folder / run_name(name, number)) for name in names}
            if not all(results.values()):
                break
            for name, result in results.items():
                self.runs[name].append(result or {})
        kept = len(self.runs[names[0]])
        for number in range(kept, repeats):
            for name in names:
                remove_run(folder / run_name(name, number))
        rules = interrupted.get("rules")
        if kept == repeats and isinstance(rules, dict):
            self.verdicts = {name: dict(verdicts) for name, verdicts in rules.items() if name in names}
            severities = interrupted.get("severities", {})
            self.severities = {name: dict(by_rule) for name, by_rule in severities.items() if name in names}
        self._parts_kept = kept * len(names) + len(self.verdicts)
        self._note_resumption(kept)
        return kept

    def _server(self, candidate: Candidate) -> AbstractAsyncContextManager[SupervisedServer]:
        return supervised(candidate.server, candidate.access, self._request.folder / f"{candidate.name}.log")

    async def _run(self, candidate: Candidate, number: int, server: SupervisedServer) -> bool:
        """Run a candidate once; return whether the comparison goes on."""
        request = self._request
        plan = replace(candidate.plan, seed=request.seed + number)
        now = f"round {number + 1} of {request.comparison.repeats}, {candidate.name}"
        done = await loading.run(
            loading.RunRequest(
                file=request.file,
                target=candidate.access.target,
                plan=plan,
                out=request.folder / run_name(candidate.name, number),
                trust=candidate.access.trust,
                password=candidate.access.password,
                authorized=candidate.access.authorized,
                message_bytes=candidate.message_bytes,
                server=server,
            ),
            RunObserver(plan, self._notify, lambda _, share: self._report(now, share)),
        )
        if done.interrupted:
            self._mark_interrupted()
            return False
        done.require_complete()
        self.runs[candidate.name].append(done.result)
        if number + 1 == min(map(len, self.runs.values())):
            save_partial(self.result(), request.folder)  # the round is complete
        values = [f"{metric.text} {_format_metric(metric, done.result)}" for metric in request.metrics[:3]]
        self._report(f"{now}: {', '.join(values)}", milestone=True)
        return True

    async def _check(self, candidate: Candidate, server: SupervisedServer) -> None:
        now = f"checking {candidate.name} against the protocol rules"
        self._report(now, milestone=True)

        def report_rule(update: check_run.CheckProgress) -> None:
            self._report(f"{now}, {update.done} of {plural(update.total, 'rule')}", update.done / max(1, update.total))

        rules = [rule for rule in RULES if rule.severity != r.ADVICE]
        done = await check_run.run_check(
            check_run.CheckRequest(candidate.access, rules, candidate.recipient, candidate.sender, server=server),
            report_rule,
        )
        if done.stopped:
            self._mark_interrupted()
        else:
            found = done.result["rules"]
            self.verdicts[candidate.name] = {name: rule["verdict"] for name, rule in found.items()}
            self.severities[candidate.name] = {
                name: rule["severity"] for name, rule in found.items() if rule["verdict"] == r.VIOLATED
            }
            save_partial(self.result(), self._request.folder)

    def _report(self, text: str, share_of_part: float = 0.0, *, milestone: bool = False) -> None:
        """Report progress of what this command does; all runs and all checks count alike."""
        comparison = self._request.comparison
        parts = len(self._request.candidates) * (comparison.repeats + comparison.check) - self._parts_kept
        done = sum(map(len, self.runs.values())) + len(self.verdicts) - self._parts_kept
        self._report_progress(StudyUpdate(text, (done + share_of_part) / parts, milestone=milestone))

    def result(self) -> dict[str, Any]:
        """Return the content of `result.json` (`compared.schema.json`), from the completed rounds."""
        request, comparison = self._request, self._request.comparison
        rounds = min(map(len, self.runs.values()))
        runs = {name: results[:rounds] for name, results in self.runs.items()}
        metrics = [*request.metrics, *self._server_metrics(runs)]
        figures = [(metric, series_of(metric, runs)) for metric in metrics]
        return {
            **self._result_header(COMPARISON),
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
            "candidates": [self._candidate_entry(one, runs[one.name]) for one in request.candidates],
            **compare_figures(
                figures, confidence=comparison.confidence, least=comparison.least, paired=True, seed=request.seed
            ),
            "rules": self.verdicts,
            "severities": self.severities,
            "rule_differences": rule_differences(self.verdicts, self.severities),
            "notes": [*too_few_rounds(rounds), *self._resumption_notes("round"), *notes(runs)],
            "machine": machine(),
            "versions": versions(),
        }

    def _server_metrics(self, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Metric]:
        """Return the metric on the server that is compared by default, if all runs have it."""
        if "metrics" in self._request.comparison.model_fields_set:
            return []
        return known_metrics([parse_metric(SERVER_METRIC)], [run for results in runs.values() for run in results])

    def _candidate_entry(self, candidate: Candidate, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        target = dict(runs[0]["target"]) if runs else {"url": candidate.access.target.url, "banner": "", "ehlo": []}
        return {
            "name": candidate.name,
            "about": candidate.about,
            "target": target,
            "options": candidate.options,
            "load": dict(runs[0]["load"]) if runs else None,
            "start": candidate.server.start,
            "stop": candidate.server.stop,
            "runs": [run_name(candidate.name, number) for number in range(len(runs))],
            "limited_runs": sum(run["generator"]["limited"] for run in runs),
            **silences([(run_name(candidate.name, number), run) for number, run in enumerate(runs)]),
        }


def extent_text(request: CompareRequest, kept: int = 0) -> str:
    """Return what a comparison will do and how long its runs take. How long servers take to start and stop is not known.

    Args:
        request: The comparison.
        kept: Number of rounds that it keeps of an interrupted comparison.
    """
    repeats, candidates = request.comparison.repeats, request.candidates
    run_ns = [one.plan.issuing_ns for one in candidates]
    left = repeats - kept
    runs = plural(left * len(candidates), "run")
    if request.interrupted is None:
        text = f"{plural(len(candidates), 'candidate')} take turns in {plural(repeats, 'round')}: {runs}"
    else:
        text = f"resumed after {kept:,} of {plural(repeats, 'round')}: {runs} left"
    if left and max(run_ns) < UNBOUNDED_NS:
        at_most = "at most " if any(one.plan.arrivals for one in candidates) else "about "
        text += f", {at_most}{_minutes_text(left * sum(run_ns) / NS_PER_S)}"
        if any(one.server.start for one in candidates):
            text += " without the starts and stops of the servers"
    return "; ".join([text, *(note.removesuffix(".") for note in too_few_rounds(repeats))])


def _minutes_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{max(1, rest)} s"


def too_few_rounds(count: int) -> list[str]:
    """Return a note where there are too few rounds for an interval, with the number that is needed; else none."""
    if count >= MIN_REPEATS:
        return []
    few = f"{plural(count, 'round')} {'is' if count == 1 else 'are'} {TOO_FEW}"
    return [f"{few}; at least {MIN_REPEATS} are needed (--repeats {MIN_REPEATS})."]


def round_order(candidates: Sequence[Candidate], number: int) -> list[Candidate]:
    """Return the order of a round: the first candidate changes every two rounds, and every second round is reversed."""
    shift = number // 2 % len(candidates)
    order = [*candidates[shift:], *candidates[:shift]]
    return order if number % 2 == 0 else order[::-1]


def run_name(candidate: str, number: int) -> str:
    """Return the name of the folder of a candidate's run; rounds count from 0."""
    return f"{candidate}-{number + 1:02}"


def series_of(metric: Metric, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Series]:
    """Return the values of a metric by candidate, one a run."""
    return {
        name: Series(
            [metric_value(metric, run) for run in results],
            [bool(run["generator"]["limited"]) for run in results],
            [limited_by_itself(metric, run) for run in results],
            [lateness_ms(metric, run) for run in results],
        )
        for name, results in runs.items()
    }


def limited_by_itself(metric: Metric, run: Mapping[str, Any]) -> bool:
    """Return whether the generator's own core, descriptors or ports limited a metric; a core does not change counts."""
    no_resources = any(run["errors"].get(kind) for kind in (api.NO_DESCRIPTORS, api.NO_PORTS))
    busy = run["generator"].get("busiest_worker_share", 0.0) > BUSY_SHARE
    return no_resources or (busy and metric.kind not in (SHARE, COUNT))


def lateness_ms(metric: Metric, run: Mapping[str, Any]) -> float | None:
    """Return how late the generator was, at the statistic of a time; None for other metrics, and where it is not known.

    In the closed model nothing is due at a certain time. A generator whose core was fully used is late there too, by an
    unknown time.
    """
    if metric.kind != TIME or (run["load"]["model"] == "closed" and limited_by_itself(metric, run)):
        return None
    percent = percent_of(metric.path[-1])
    statistic = "p50" if percent is not None and percent <= 50 else "p99" if percent is None or percent <= 99 else "max"
    late = run["generator"].get(f"late_{statistic}_ms")
    return None if late is None else float(late)


def metric_value(metric: Metric, result: Mapping[str, Any]) -> float | None:
    """Return the value of a metric in a result; None if the run did not measure it."""
    load = result["load"]
    figures = Figures(
        totals_of(result),
        load["window_s"],
        result["generator"],
        sending_s=load.get("sending_s"),
        server=result.get("server"),
    )
    return value_of(metric, figures)


def known_metrics(metrics: Sequence[Metric], runs: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Return the metrics that all of these runs have measured; none without runs."""
    return [metric for metric in metrics if runs and all(metric_value(metric, run) is not None for run in runs)]


def compare_figures(
    figures: Sequence[tuple[Metric, dict[str, Series]]], *, confidence: float, least: float, paired: bool, seed: int
) -> dict[str, Any]:
    """Return the keys `figures` and `differences` of a result.

    Args:
        figures: Metrics with their values by candidate.
        confidence: Simultaneous confidence level, from 0 to 1.
        least: Smallest relative change to report.
        paired: Whether the values of a round form a pair.
        seed: Random seed of the bootstrap.
    """
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
        "differences": compare_series(figures, paired=paired, confidence=confidence, min_change=least, seed=seed),
    }


def rule_differences(
    verdicts: Mapping[str, Mapping[str, str]], severities: Mapping[str, Mapping[str, str]] | None = None
) -> list[dict[str, Any]]:
    """Return the rules that some candidates violate and others do not, the most severe first.

    Args:
        verdicts: Name of a candidate → name of a rule → verdict.
        severities: Name of a candidate → name of a rule → severity of the verdict, where it is not the rule's.
    """
    known, found = severities or {}, []
    for rule in RULES:
        by_candidate = {name: rules.get(rule.name, r.NOT_RUN) for name, rules in verdicts.items()}
        if r.VIOLATED in by_candidate.values() and set(by_candidate.values()) != {r.VIOLATED}:
            violating = [name for name, verdict in by_candidate.items() if verdict == r.VIOLATED]
            severity = min((known.get(name, {}).get(rule.name, rule.severity) for name in violating), key=r.SEVERITIES.index)
            found.append({"rule": rule.name, "section": rule.section, "severity": severity,
                          "requirement": rule.requirement, "verdicts": by_candidate})  # fmt: skip
    return sorted(found, key=lambda entry: r.SEVERITIES.index(entry["severity"]))


def notes(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return notes for the reader: where the generator was the bottleneck, and the notes of the runs themselves."""
    found = []
    for name, results in runs.items():
        limited = [run for run in results if run["generator"]["limited"]]
        if limited:
            reasons = "; ".join(limited[0]["generator"]["limited_reasons"])
            found.append(bottleneck_note(name, len(limited), len(results), reasons))
        shared = [note for run in results for note in run["notes"] if note.startswith(SHARED_CORES)]
        if shared:
            found.append(f"{name}: in {len(shared):,} of {plural(len(results), 'run')}; the first: {shared[0]}")
    run_notes = dict.fromkeys(note for results in runs.values() for run in results for note in run["notes"])
    return [*found, *(note for note in run_notes if not note.startswith((STOPPED_ANSWERING, SHARED_CORES)))]


def silences(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the key `silences` of a candidate: when its server did not answer; empty if it always did.

    Args:
        runs: Name and result of each run.
    """
    found = [{"run": name, **silence} for name, run in runs for silence in run.get("silences", [])]
    return {"silences": found} if found else {}


def _duration_s(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    windows_s = [run["load"]["window_s"] for results in runs.values() for run in results]
    return sum(windows_s) / len(windows_s) if windows_s else 0.0


def _format_metric(metric: Metric, result: Mapping[str, Any]) -> str:
    value = metric_value(metric, result)
    return "no data" if value is None else format_value(metric.kind, value)


async def compare(request: CompareRequest, report_progress: ReportProgress) -> dict[str, Any]:
    """Make a comparison and return its result, whatever ended it. Raises UsageError."""
    study = ComparisonStudy(request, report_progress)
    await study.run()
    return study.result()
