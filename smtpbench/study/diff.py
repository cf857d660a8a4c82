"""Comparison of saved results, evaluated as `smtpbench compare` does, if they can be compared at all.

A candidate is one run, or several runs of the same thing. With several, each run gives one value of each metric. With one
run for each candidate, its window is cut into equal parts of whole seconds and each part gives a value (the method of batch
means). That shows whether these two runs differ, and not whether the next two would; the result says so.

Results of `check` and `fuzz` are compared by the rules that they found violated.
"""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from smtpbench.errors import UsageError
from smtpbench.measure.comparison import MIN_REPEATS, Series
from smtpbench.measure.health import machine
from smtpbench.measure.recorder import MESSAGE_COUNTS, Interval, Latency
from smtpbench.measure.result import versions
from smtpbench.measure.saved import CHECK, COMPARISON, FUZZ, RESULT, RUN, SCHEMAS, Saved, load
from smtpbench.measure.server_usage import UsageSample, UsageWindow, samples_of
from smtpbench.measure.thresholds import Figures, value_of
from smtpbench.rules.rule import SEVERITIES, VIOLATED
from smtpbench.study.compare import (
    compare_figures,
    known_metrics,
    lateness_ms,
    limited_by_itself,
    notes,
    rule_differences,
    series_of,
    silences,
)
from smtpbench.study.progress import COMPLETED
from smtpbench.text import plural
from smtpbench.threshold import Metric
from smtpbench.units import NS_PER_S

#: Largest number of parts into which the window of a run is cut, and smallest length of a part, seconds.
PARTS, PART_S = 20, 1.0
_METHODS: Final = {
    "runs": "Each saved run gives one value. Intervals are simultaneous: a studentised bootstrap of the trimmed mean.",
    "parts": "One run for each candidate, cut into {parts}. This shows whether these runs differ, not whether the next do.",
}


@dataclass(frozen=True, slots=True)
class DiffCandidate:
    """Saved results of one kind that are compared with others.

    Attributes:
        name: Label of the result, or name of the folder of several.
        results: The results, at least one.
    """

    name: str
    results: Sequence[Saved]

    @property
    def kind(self) -> str:
        """Kind of its results."""
        return self.results[0].kind


def load_candidates(paths: Sequence[Path]) -> list[DiffCandidate]:
    """Return one candidate for each path: a result, a folder of a run, or a folder of such folders.

    Raises:
        UsageError: A file is not a result, or the kinds of the results do not match.
    """
    candidates: list[DiffCandidate] = []
    for path in paths:
        results = [load(found) for found in _runs_in(path)]
        kinds = {saved.kind for saved in results}
        if len(kinds) > 1:
            raise UsageError(
                f"{path} holds results of several kinds ({', '.join(sorted(kinds))}); name a folder of one kind"
            )
        label = results[0].label if len(results) == 1 else path.resolve().name
        used = {one.name for one in candidates}
        candidates.append(DiffCandidate(next(name for name in _names(label) if name not in used), results))
    if len({one.kind for one in candidates}) > 1:
        kinds_by_name = ", ".join(f"{one.name} ({one.kind})" for one in candidates)
        raise UsageError(f"results of different kinds cannot be compared: {kinds_by_name}")
    if candidates[0].kind not in (RUN, CHECK, FUZZ):
        raise UsageError(f"cannot compare {candidates[0].kind} results; use `smtpbench report` to show one")
    return candidates


def _runs_in(path: Path) -> list[Path]:
    if not path.is_dir() or (path / RESULT).exists():
        return [path]
    found = sorted(path.glob(f"*/{RESULT}"))
    if not found:
        raise UsageError(f"{path}: no {RESULT} in this folder or in a folder inside it")
    return found


def _names(label: str) -> Iterator[str]:
    yield label
    for number in range(2, 1000):
        yield f"{label} ({number})"


def comparability(candidates: Sequence[DiffCandidate]) -> tuple[list[str], list[str]]:
    """Return why these runs cannot be compared, and notes for the reader of the comparison."""
    first = candidates[0].results[0].result
    refusals: list[str] = []
    remarks: list[str] = []
    for saved in (saved for candidate in candidates for saved in candidate.results):
        result, status = saved.result, saved.result["outcome"]["status"]
        if result["scenario"]["sha256"] != first["scenario"]["sha256"]:
            refusals.append(
                f"{saved.label} has a different scenario ({result['scenario']['name']}) from {candidates[0].name}"
            )
        if status not in (COMPLETED, "aborted"):
            refusals.append(f"{saved.label} was not completed ({status})")
        if status == "aborted":
            remarks.append(f"{saved.label} was aborted when a threshold failed.")
        for properties, texts, end in ((_MUST_AGREE, refusals, ""), (_SHOULD_AGREE, remarks, ".")):
            for name, value in properties.items():
                if value(result) != value(first):
                    texts.append(f"{saved.label} has a different {name} from {candidates[0].name}{end}")
    return refusals, remarks


def _load_key(key: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda result: result["load"].get(key)


_MUST_AGREE: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "load model": _load_key("model"),
    "rate": lambda result: [(one["rate_from_per_s"], one["rate_to_per_s"]) for one in result["load"]["stages"]],
    "arrival process": _load_key("arrival_process"),
    "--when-busy": _load_key("when_busy"),
    "message size": _load_key("message_bytes"),
}
_SHOULD_AGREE: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "number of connections": _load_key("connections"),
    "number of workers": _load_key("workers"),
    "number of messages": _load_key("arrivals"),
    "duration": _load_key("duration_s"),
    "warm-up": _load_key("warmup_s"),
    "timeout": _load_key("timeout_s"),
    "machine": lambda result: result["machine"],
    "version of smtpbench, Python or a library": lambda result: result["versions"],
}


def diff(
    candidates: Sequence[DiffCandidate],
    metrics: Sequence[Metric],
    *,
    confidence: float,
    least: float,
    force: bool,
    seed: int | None = None,
    optional_metrics: Sequence[Metric] = (),
) -> dict[str, Any]:
    """Return the comparison, shaped as a result of `smtpbench compare`.

    Args:
        candidates: The saved results; the others are compared with the first.
        metrics: Metrics of runs to compare.
        confidence: Simultaneous confidence level, from 0 to 1.
        least: Smallest relative change to report.
        force: Whether to compare results that cannot be compared properly.
        seed: Random seed of the bootstrap; None for a random one.
        optional_metrics: Metrics that are compared as well if all runs have them.

    Raises:
        UsageError: The results cannot be compared, and `force` is not set.
    """
    seed = secrets.randbits(32) if seed is None else seed
    found: dict[str, Any] = {"figures": [], "differences": []}
    remarks: list[str] = []
    values, method = 0, "The saved verdict on each rule."
    if candidates[0].kind == RUN:
        refusals, remarks = comparability(candidates)
        if refusals and not force:
            raise UsageError(f"results cannot be compared: {'; '.join(refusals)}; use --force to compare them nevertheless")
        remarks = [f"{refusal}." for refusal in refusals] + remarks
        runs = [result for results in _results_by_name(candidates).values() for result in results]
        figures, method = _figures(candidates, [*metrics, *known_metrics(optional_metrics, runs)])
        values = min((len(series.values) for _, by_name in figures for series in by_name.values()), default=0)
        found = compare_figures(figures, confidence=confidence, least=least, paired=False, seed=seed)
        remarks += notes(_results_by_name(candidates))
    verdicts = {} if candidates[0].kind == RUN else {one.name: _verdicts(one) for one in candidates}
    severities = {} if candidates[0].kind == RUN else {one.name: _severities(one) for one in candidates}
    first = candidates[0].results[0].result
    return {
        "schema": SCHEMAS[COMPARISON][0],
        "kind": COMPARISON,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "outcome": {"status": COMPLETED, "reason": ""},
        "name": " against ".join(one.name for one in reversed(candidates)),
        "about": "",
        "scenario": {"name": "", "file": "", "sha256": "", "text": ""} | first.get("scenario", {}),
        "plan": {
            "repeats": values,
            "repeats_done": values,
            "warmup_s": first.get("load", {}).get("warmup_s", 0.0),
            "duration_s": first.get("load", {}).get("window_s", 0.0),
            "confidence": confidence,
            "least_share": least,
            "seed": seed,
            "paired": False,
            "method": method,
        },
        "candidates": [_candidate_entry(one) for one in candidates],
        **found,
        "rules": verdicts,
        "rule_differences": rule_differences(verdicts, severities),
        "notes": remarks,
        "machine": machine(),
        "versions": versions(),
    }


def _candidate_entry(candidate: DiffCandidate) -> dict[str, Any]:
    result = candidate.results[0].result
    return {
        "name": candidate.name,
        "about": "",
        "target": {
            "url": result["target"]["url"],
            "banner": result["target"]["banner"],
            "ehlo": result["target"].get("ehlo", []),
        },
        "options": "",
        "load": result.get("load"),
        "start": "",
        "stop": "",
        "runs": [str(saved.folder) for saved in candidate.results],
        "limited_runs": sum(bool(saved.result["generator"]["limited"]) for saved in candidate.results),
        **silences([(str(saved.folder), saved.result) for saved in candidate.results]),
    }


def _verdicts(candidate: DiffCandidate) -> dict[str, str]:
    """Return the worst verdict on each rule; a violation in one of several results counts."""
    order = ("violation", "inconclusive", "pass", "not-run")
    found: dict[str, str] = {}
    for saved in candidate.results:
        for name, rule in saved.result["rules"].items():
            found[name] = min((found.get(name, "not-run"), str(rule["verdict"])), key=order.index)
    return found


def _severities(candidate: DiffCandidate) -> dict[str, str]:
    """Return the gravest severity of each rule that is violated in one of several results."""
    found: dict[str, str] = {}
    for saved in candidate.results:
        for name, rule in saved.result["rules"].items():
            if rule["verdict"] == VIOLATED and rule.get("severity") in SEVERITIES:
                found[name] = min(found.get(name, rule["severity"]), rule["severity"], key=SEVERITIES.index)
    return found


def _results_by_name(candidates: Sequence[DiffCandidate]) -> dict[str, list[Mapping[str, Any]]]:
    return {one.name: [saved.result for saved in one.results] for one in candidates}


def _figures(
    candidates: Sequence[DiffCandidate], metrics: Sequence[Metric]
) -> tuple[list[tuple[Metric, dict[str, Series]]], str]:
    """Return the values of each metric by candidate, and a description of the method."""
    if any(len(one.results) > 1 for one in candidates):
        runs = _results_by_name(candidates)
        fewest = min(map(len, runs.values()))
        too_few = f" At least {plural(MIN_REPEATS, 'run')} of each candidate are needed; one has {fewest}."
        method = _METHODS["runs"] + ("" if fewest >= MIN_REPEATS else too_few)
        return [(metric, series_of(metric, runs)) for metric in metrics], method
    parts = min(_parts(one.results[0]) for one in candidates)
    figures = []
    for metric in metrics:
        by_name = {}
        for one in candidates:
            values = part_values(one.results[0], metric, parts)
            run, count = one.results[0].result, len(values)
            by_name[one.name] = Series(
                values,
                [bool(run["generator"]["limited"])] * count,
                [limited_by_itself(metric, run)] * count,
                [lateness_ms(metric, run)] * count,
            )
        figures.append((metric, by_name))
    too_short = f" These runs are too short: at least {MIN_REPEATS} s are needed."
    method = _METHODS["parts"].format(parts=plural(parts, "part")) + ("" if parts >= MIN_REPEATS else too_short)
    return figures, method


def _parts(saved: Saved) -> int:
    steady = _steady(saved)
    length_s = float(steady[-1]["t_s"]) - float(steady[0]["t_s"]) if len(steady) > 1 else 0.0
    return min(PARTS, int(length_s / PART_S))


def _steady(saved: Saved) -> list[Mapping[str, Any]]:
    return [row for row in saved.timeline() if row.get("phase") == "steady" and row.get("t_s") is not None]


def part_values(saved: Saved, metric: Metric, parts: int) -> list[float | None]:
    """Return the value of a metric in each of `parts` equal parts of a run; None where its files do not show it."""
    steady = _steady(saved)
    if not steady or parts < 1:
        return []
    begin_s, end_s = float(steady[0]["t_s"]), float(steady[-1]["t_s"])
    length_s = (end_s - begin_s) / parts

    def part_of(at_s: float) -> int:
        return min(parts - 1, int((at_s - begin_s) / length_s))

    intervals = [Interval() for _ in range(parts)]
    lengths_s = [0.0] * parts
    spans_s = [(begin_s, begin_s)] * parts
    last_s = begin_s
    for row in steady[1:]:  # the first row may have begun in the warm-up
        part = part_of(last_s)
        spans_s[part] = (spans_s[part][0] if lengths_s[part] else last_s, float(row["t_s"]))
        lengths_s[part] += float(row["t_s"]) - last_s
        last_s = float(row["t_s"])
        intervals[part].messages.update({name: int(row.get(name) or 0) for name in MESSAGE_COUNTS})
    if metric.latency_name:
        for second in saved.seconds(metric.latency_name, metric.path[1]):
            if begin_s <= second.start_s < end_s:
                latencies = intervals[part_of(second.start_s)].latencies
                latencies.setdefault((metric.latency_name, True), Latency.empty()).service.add(second.histogram)
    elif metric.path[0] in ("replies", "recipients", "errors", "generator"):
        return [None] * parts
    of_server: Sequence[Mapping[str, Any] | None] = [None] * parts
    if metric.path[0] == "server":
        of_server = _server_figures(saved, spans_s, [interval.messages["accepted"] for interval in intervals])
    return [
        value_of(metric, Figures(interval, lasted_s, {}, server=server))
        for interval, lasted_s, server in zip(intervals, lengths_s, of_server, strict=True)
    ]


def _server_figures(
    saved: Saved, spans_s: Sequence[tuple[float, float]], messages: Sequence[int]
) -> list[Mapping[str, Any] | None]:
    """Return what the server used in each part of a run; None where `server.csv` does not show it.

    The seconds of `server.csv` do not end with those of the timeline. Counters are therefore interpolated at both ends of a
    part, so that CPU time and messages are of the same time.
    """
    samples = samples_of([{"end_s": 0.0}, *saved.server_timeline()])
    cores = saved.result["machine"].get("cores") or 1
    found: list[Mapping[str, Any] | None] = []
    for (begin_s, end_s), count in zip(spans_s, messages, strict=True):
        ends = [_sample_at(samples, round(at_s * NS_PER_S)) for at_s in (begin_s, end_s)]
        if None in ends or end_s <= begin_s:
            found.append(None)
            continue
        first, last = (end for end in ends if end is not None)
        window = UsageWindow()
        for sample in (first, *(one for one in samples if first.at_ns < one.at_ns < last.at_ns), last):
            window.add(sample)
        found.append(window.figures(count, cores, growth=False))
    return found


def _sample_at(samples: Sequence[UsageSample], at_ns: int) -> UsageSample | None:
    """Return the counters at a time between two samples; None beyond the last, but for the rest of its second."""
    place = bisect_left(samples, at_ns, key=lambda sample: sample.at_ns)
    if place == len(samples):
        return samples[-1] if len(samples) > 1 and at_ns - samples[-1].at_ns < NS_PER_S // 2 else None
    before, after = samples[max(0, place - 1)], samples[place]
    if before is after:
        return after
    share = (at_ns - before.at_ns) / (after.at_ns - before.at_ns)

    def between(name: str) -> Any:
        ends = getattr(before, name), getattr(after, name)
        return None if None in ends else ends[0] + share * (ends[1] - ends[0])

    counted = {name: between(name) for name in ("cpu_user_s", "cpu_system_s", "read_bytes", "write_bytes")}
    return replace(after, at_ns=at_ns, **counted)
