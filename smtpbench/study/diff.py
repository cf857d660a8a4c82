"""Saved results held against each other, with the same reading as a comparison's, where they can be compared at all.

A side is one run, or several runs of the same thing. With several, a run gives one value of each metric. With one run a
side, its window is cut into equal parts of whole seconds and each part gives a value (the method of batch means): that
tells whether these two runs differ, and not whether the next two would, which the result says.

Results of `check` and `fuzz` are compared by the rules that they show broken.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from smtpbench.errors import UsageError
from smtpbench.measure.comparison import LEAST_REPEATS, Series
from smtpbench.measure.health import machine
from smtpbench.measure.recorder import MESSAGE_COUNTS, Interval, Latency
from smtpbench.measure.result import versions
from smtpbench.measure.saved import CHECK, COMPARISON, FUZZ, RESULT, RUN, SCHEMAS, Saved, load
from smtpbench.measure.thresholds import Figures, value_of
from smtpbench.study.compare import notes, readings, rule_differences, series_of
from smtpbench.study.progress import COMPLETED
from smtpbench.threshold import Metric

#: Into how many parts one run's window is cut, at most, and how long a part is at least.
PARTS, PART_S = 20, 1.0
_METHODS: Final = {
    "runs": "Each saved run gives one value; intervals are a studentised bootstrap of the trimmed mean, all together.",
    "parts": "One run a side, cut into {parts} parts: this tells whether these runs differ, not whether the next would.",
}


@dataclass(frozen=True, slots=True)
class Side:
    """What stands on one side: results of one kind. name: what it is called."""

    name: str
    results: Sequence[Saved]

    @property
    def kind(self) -> str:
        """Of all its results."""
        return self.results[0].kind


def sides_of(paths: Sequence[Path]) -> list[Side]:
    """Each path as a side: a result, a run's folder, or a folder of such folders. Raises UsageError."""
    sides: list[Side] = []
    for path in paths:
        results = [load(found) for found in _runs_in(path)]
        kinds = {saved.kind for saved in results}
        if len(kinds) > 1:
            raise UsageError(f"{path} holds results of several kinds ({', '.join(sorted(kinds))}); a side is of one kind")
        label = results[0].label if len(results) == 1 else path.resolve().name
        taken = {side.name for side in sides}
        sides.append(Side(next(name for name in _names(label) if name not in taken), results))
    if len({side.kind for side in sides}) > 1:
        raise UsageError("these are results of different kinds: " + ", ".join(f"{one.name} {one.kind}" for one in sides))
    if sides[0].kind not in (RUN, CHECK, FUZZ):
        raise UsageError(f"a {sides[0].kind} is a reading already: `smtpbench report` shows it")
    return sides


def _runs_in(path: Path) -> list[Path]:
    if not path.is_dir() or (path / RESULT).exists():
        return [path]
    found = sorted(path.glob(f"*/{RESULT}"))
    if not found:
        raise UsageError(f"{path}: no {RESULT} in it, nor in a folder of it")
    return found


def _names(label: str) -> Iterator[str]:
    yield label
    for number in range(2, 1000):
        yield f"{label} ({number})"


def obstacles(sides: Sequence[Side]) -> tuple[list[str], list[str]]:
    """Why these runs cannot be compared, and what a reader of the comparison must know, in words."""
    first = sides[0].results[0].result
    refusals: list[str] = []
    warnings: list[str] = []
    for saved in (saved for side in sides for saved in side.results):
        result, status = saved.result, saved.result["outcome"]["status"]
        if result["scenario"]["sha256"] != first["scenario"]["sha256"]:
            refusals.append(f"{saved.label} ran another scenario ({result['scenario']['name']}) than {sides[0].name}")
        if status not in (COMPLETED, "aborted"):
            refusals.append(f"{saved.label} was not completed ({status})")
        if status == "aborted":
            warnings.append(f"{saved.label} was aborted when a threshold failed.")
        for differing, found, end in ((_REFUSED, refusals, ""), (_WARNED, warnings, ".")):
            for words, said in differing.items():
                if said(result) != said(first):
                    found.append(f"{saved.label} ran with another {words} than {sides[0].name}{end}")
    return refusals, warnings


def _of_load(key: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda result: result["load"].get(key)


_REFUSED: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "load model": _of_load("model"),
    "rate": lambda result: [(one["rate_from_per_s"], one["rate_to_per_s"]) for one in result["load"]["stages"]],
    "arrival process": _of_load("arrival_process"),
    "--when-busy": _of_load("when_busy"),
    "message size": _of_load("message_bytes"),
}
_WARNED: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "number of connections": _of_load("connections"),
    "number of workers": _of_load("workers"),
    "number of messages": _of_load("arrivals"),
    "duration": _of_load("duration_s"),
    "warm-up": _of_load("warmup_s"),
    "timeout": _of_load("timeout_s"),
    "machine": lambda result: result["machine"],
    "version of smtpbench, Python or a library": lambda result: result["versions"],
}


def diff(
    sides: Sequence[Side],
    metrics: Sequence[Metric],
    *,
    confidence: float,
    least: float,
    force: bool,
    seed: int | None = None,
) -> dict[str, Any]:
    """The reading, shaped as a comparison's result. Raises UsageError where they cannot be compared, unless forced."""
    seed = secrets.randbits(32) if seed is None else seed
    found: dict[str, Any] = {"figures": [], "differences": []}
    remarks: list[str] = []
    values, method = 0, "Each rule's verdict, as it was saved."
    if sides[0].kind == RUN:
        refusals, remarks = obstacles(sides)
        if refusals and not force:
            raise UsageError("these cannot be compared: " + "; ".join(refusals) + " (--force compares them all the same)")
        remarks = [f"{refusal}." for refusal in refusals] + remarks
        figures, method = _figures(sides, metrics)
        values = min((len(series.values) for _, by_name in figures for series in by_name.values()), default=0)
        found = readings(figures, confidence=confidence, least=least, paired=False, seed=seed)
        remarks += notes({side.name: [saved.result for saved in side.results] for side in sides})
    verdicts = {} if sides[0].kind == RUN else {side.name: _verdicts(side) for side in sides}
    first = sides[0].results[0].result
    return {
        "schema": SCHEMAS[COMPARISON][0],
        "kind": COMPARISON,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "outcome": {"status": COMPLETED, "reason": ""},
        "name": " against ".join(side.name for side in reversed(sides)),
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
        "candidates": [_candidate(side) for side in sides],
        **found,
        "rules": verdicts,
        "rule_differences": rule_differences(verdicts),
        "notes": remarks,
        "machine": machine(),
        "versions": versions(),
    }


def _candidate(side: Side) -> dict[str, Any]:
    result = side.results[0].result
    return {
        "name": side.name,
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
        "runs": [str(saved.folder) for saved in side.results],
        "limited_runs": sum(bool(saved.result["generator"]["limited"]) for saved in side.results),
    }


def _verdicts(side: Side) -> dict[str, str]:
    """Of several results the worst verdict counts: what was seen once was seen."""
    order = ("violation", "inconclusive", "pass", "not-run")
    found: dict[str, str] = {}
    for saved in side.results:
        for name, rule in saved.result["rules"].items():
            found[name] = min((found.get(name, "not-run"), str(rule["verdict"])), key=order.index)
    return found


def _figures(sides: Sequence[Side], metrics: Sequence[Metric]) -> tuple[list[tuple[Metric, dict[str, Series]]], str]:
    """Values of each metric on each side, and how they were had, in words."""
    if any(len(side.results) > 1 for side in sides):
        runs = {side.name: [saved.result for saved in side.results] for side in sides}
        fewest = min(map(len, runs.values()))
        more = "" if fewest >= LEAST_REPEATS else f" A side has {fewest}; {LEAST_REPEATS} are the least that shows anything."
        return [(metric, series_of(metric, runs)) for metric in metrics], _METHODS["runs"] + more
    parts = min(_parts(side.results[0]) for side in sides)
    figures = []
    for metric in metrics:
        by_name = {}
        for side in sides:
            values = part_values(side.results[0], metric, parts)
            by_name[side.name] = Series(values, [bool(side.results[0].result["generator"]["limited"])] * len(values))
        figures.append((metric, by_name))
    short = (
        ""
        if parts >= LEAST_REPEATS
        else f" These are too short for it: {LEAST_REPEATS} s are the least that shows anything."
    )
    return figures, _METHODS["parts"].format(parts=parts) + short


def _parts(saved: Saved) -> int:
    steady = _steady(saved)
    length_s = float(steady[-1]["t_s"]) - float(steady[0]["t_s"]) if len(steady) > 1 else 0.0
    return min(PARTS, int(length_s / PART_S))


def _steady(saved: Saved) -> list[Mapping[str, Any]]:
    return [row for row in saved.timeline() if row.get("phase") == "steady" and row.get("t_s") is not None]


def part_values(saved: Saved, metric: Metric, parts: int) -> list[float | None]:
    """A metric's value in each of so many equal parts of a run; None where its files do not tell."""
    steady = _steady(saved)
    if not steady or parts < 1:
        return []
    begin_s, end_s = float(steady[0]["t_s"]), float(steady[-1]["t_s"])
    length_s = (end_s - begin_s) / parts

    def part_of(at_s: float) -> int:
        return min(parts - 1, int((at_s - begin_s) / length_s))

    intervals = [Interval() for _ in range(parts)]
    lengths_s = [0.0] * parts
    last_s = begin_s
    for row in steady[1:]:  # the first row may have begun in the warm-up
        part = part_of(last_s)
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
    return [
        value_of(metric, Figures(interval, lasted_s, {})) for interval, lasted_s in zip(intervals, lengths_s, strict=True)
    ]
