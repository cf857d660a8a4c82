"""Comparisons find a change that exists and none that does not, with every kind of noise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from smtpbench.measure.comparison import (
    CANNOT_TELL,
    FASTER,
    FEWER,
    LESS,
    MORE,
    NO_DIFFERENCE,
    SLOWER,
    Change,
    Series,
    compare_series,
    is_worse,
    mean_and_error,
    verdict,
)
from smtpbench.threshold import parse_metric

TRIALS = 80
REPEATS = 12
METRICS = tuple(map(parse_metric, ("throughput", "message.p50", "message.p99", "transaction.p99", "failed", "connect.p50")))
Noise = Callable[[random.Random], float]
NOISES: dict[str, Noise] = {
    "even": lambda draw: math.exp(draw.gauss(0, 0.02)),
    "skewed": lambda draw: 1 + 0.03 * (math.exp(draw.gauss(0, 0.8)) - 1.4),
    "with stalls": lambda draw: math.exp(draw.gauss(0, 0.02)) + (0.4 if draw.random() < 0.05 else 0.0),
}


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpbench.measure.comparison.RESAMPLES", 800)


def simulate_verdicts(draw: random.Random, noise: Noise, factor: float, repeats: int = REPEATS) -> list[str]:
    """Return the verdicts on a candidate that is `factor` times the baseline, on a machine that becomes slower."""
    a: dict[str, list[float | None]] = {metric.text: [] for metric in METRICS}
    b: dict[str, list[float | None]] = {metric.text: [] for metric in METRICS}
    for repeat in range(repeats):
        drift = 1 + 0.05 * repeat
        for metric in METRICS:
            base = 0.01 if metric.kind == "share" else 100.0 * drift
            a[metric.text].append(base * noise(draw))
            b[metric.text].append(base * noise(draw) * (factor if metric.kind != "share" else 1))
    steady = [False] * repeats
    figures = [(metric, {"A": Series(a[metric.text], steady), "B": Series(b[metric.text], steady)}) for metric in METRICS]
    return [entry["verdict"] for entry in compare_series(figures, paired=True, confidence=0.95, seed=draw.randrange(1000))]


@pytest.mark.parametrize("noise", NOISES)
def test_equal_candidates_show_no_difference_in_19_of_20_comparisons(noise: str) -> None:
    draw = random.Random(noise)
    clean = sum(set(simulate_verdicts(draw, NOISES[noise], 1.0)) == {NO_DIFFERENCE} for _ in range(TRIALS))
    assert clean >= 0.95 * TRIALS


@pytest.mark.parametrize(("noise", "least"), [("even", 0.95), ("skewed", 0.85), ("with stalls", 0.75)])
@pytest.mark.parametrize("factor", [1.1, 0.9])
def test_a_change_of_a_tenth_is_found(noise: str, least: float, factor: float) -> None:
    draw = random.Random(f"{noise} {factor}")
    wanted = {"throughput": FASTER if factor > 1 else SLOWER, "message.p99": SLOWER if factor > 1 else FASTER}
    found = 0
    for _ in range(TRIALS // 2):
        verdicts = dict(
            zip((metric.text for metric in METRICS), simulate_verdicts(draw, NOISES[noise], factor), strict=True)
        )
        found += sum(verdicts[name] == expected for name, expected in wanted.items())
        assert SLOWER not in (verdicts[name] for name, expected in wanted.items() if expected == FASTER)
    assert found >= least * len(wanted) * (TRIALS // 2)


def compare_one(
    before: Sequence[float | None], after: Sequence[float | None], metric: str = "message.p99", **options: Any
) -> Any:
    """Return the entry of a comparison in one metric."""
    sides = {name: Series(values, [False] * len(values)) for name, values in (("A", before), ("B", after))}
    (entry,) = compare_series([(parse_metric(metric), sides)], **{"paired": True, "confidence": 0.95, **options})
    return entry


def test_estimate_and_interval_of_a_change() -> None:
    before = [100.0, 101, 99, 100.5, 102, 98]
    after = [1.1 * value for value in before]
    entry = compare_one(before, after)
    assert [round(entry[name], 6) for name in ("change", "low", "high")] == [0.1, 0.1, 0.1]
    assert (entry["baseline_value"], entry["verdict"]) == (100.25, SLOWER)
    unpaired = compare_one(before, after, paired=False)
    assert unpaired["low"] < 0.1 - 0.005 < 0.1 + 0.005 < unpaired["high"]
    share = compare_one([0.0] * 6, [0.02] * 6, "failed")
    assert (share["change"], share["relative"], share["verdict"]) == (0.02, False, MORE)


def test_one_outlier_does_not_change_the_trimmed_mean() -> None:
    values = [1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 50.0]
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(6.1 / 6)
    assert error < 0.1
    mean, error = mean_and_error(values[:4])
    assert mean == 1.0
    assert error == pytest.approx(math.sqrt(0.02 / 12))


@pytest.mark.parametrize(
    ("before", "after"),
    [([1.0] * 4, [2.0] * 4), ([0.0] * 6, [1.0] * 6), ([], []), ([1.0] * 6, [None] * 6)],
    ids=["too few", "no ratio to nothing", "nothing", "nothing on one side"],
)
@pytest.mark.parametrize("paired", [True, False])
def test_a_change_that_cannot_be_estimated(before: list[float | None], after: list[float | None], paired: bool) -> None:
    entry = compare_one(before, after, paired=paired)
    assert (entry["verdict"], entry["change"], entry["low"]) == (CANNOT_TELL, None, None)


@pytest.mark.parametrize(
    ("metric", "change", "expected", "worse"),
    [
        ("message.p99", Change(0.2, 0.1, 0.3, relative=True), SLOWER, True),
        ("message.p99", Change(-0.2, -0.3, -0.1, relative=True), FASTER, False),
        ("throughput", Change(0.2, 0.1, 0.3, relative=True), FASTER, False),
        ("throughput", Change(-0.2, -0.3, -0.1, relative=True), SLOWER, True),
        ("message.p99", Change(0.2, -0.1, 0.5, relative=True), NO_DIFFERENCE, False),
        ("message.p99", Change(0.004, 0.003, 0.005, relative=True), NO_DIFFERENCE, False),
        ("failed", Change(0.004, 0.003, 0.005, relative=False), MORE, True),
        ("failed", Change(-0.004, -0.005, -0.003, relative=False), FEWER, False),
        ("accepted", Change(-0.004, -0.005, -0.003, relative=False), FEWER, True),
        ("failed", None, CANNOT_TELL, False),
        ("server.cpu_ms_per_message", Change(0.2, 0.1, 0.3, relative=True), MORE, True),
        ("server.cpu_ms_per_message", Change(-0.2, -0.3, -0.1, relative=True), LESS, False),
        ("server.rss_growth", Change(-2e6, -3e6, -1e6, relative=False), LESS, False),
        ("server.fds_max", Change(-7, -8, -6, relative=False), FEWER, False),
    ],
)
def test_verdict_of_a_change(metric: str, change: Change | None, expected: str, worse: bool) -> None:
    parsed = parse_metric(metric)
    assert verdict(parsed, change) == expected
    entry = {"verdict": expected, "better": "higher" if parsed.more_is_better else "lower"}
    assert is_worse(entry) is worse


def test_no_verdict_if_the_generator_was_the_bottleneck_in_most_repeats() -> None:
    before, after = [1.0, 1.1, 1.0, 1.1, 1.0], [2.0, 2.1, 2.0, 2.1, 2.0]
    for limited, expected in (([True, True, True, False, False], CANNOT_TELL), ([True, True, False, False, False], SLOWER)):
        figures = [(parse_metric("message.p99"), {"A": Series(before, limited), "B": Series(after, [False] * 5)})]
        (entry,) = compare_series(figures, paired=True, confidence=0.9)
        assert entry["verdict"] == expected
        assert entry["change"] == pytest.approx(0.93, abs=0.05)


TIMES_MS = [2.0, 2.1, 2.0, 2.1, 2.0]


def verdict_of(metric: str, before: list[float], after: list[float], sides: dict[str, Any], baseline: Any = None) -> str:
    """Return the verdict where the generator was the bottleneck in all repeats of the candidate."""
    one = Series(before, **(baseline or {"limited": [False] * 5, "own": [False] * 5, "late_ms": [0.0] * 5}))
    other = Series(after, limited=[True] * 5, **sides)
    (entry,) = compare_series([(parse_metric(metric), {"A": one, "B": other})], paired=True, confidence=0.9)
    return str(entry["verdict"])


@pytest.mark.parametrize(
    ("late_ms", "factor", "expected"),
    [
        (0.0, 12.0, SLOWER),  # a core that the server used is no reason to doubt
        (5.0, 12.0, SLOWER),  # 21 ms and more are not the generator's 5 ms
        (5.0, 3.0, CANNOT_TELL),
        (5.0, 1.0, CANNOT_TELL),  # 5 ms could hide a difference
        (0.0, 1.0, NO_DIFFERENCE),
        (None, 12.0, CANNOT_TELL),
    ],
)
def test_time_is_judged_where_its_interval_dwarfs_the_lateness(late_ms: float | None, factor: float, expected: str) -> None:
    after = [value * factor for value in TIMES_MS]
    assert verdict_of("message.p50", TIMES_MS, after, {"own": [False] * 5, "late_ms": [late_ms] * 5}) == expected


def test_counts_are_judged_whatever_used_the_cores() -> None:
    lost = [0.1, 0.12, 0.1, 0.12, 0.1]
    assert verdict_of("failed", [0.0] * 5, lost, {"own": [False] * 5}) == MORE
    assert verdict_of("failed", [0.0] * 5, lost, {"own": [True] * 5}) == CANNOT_TELL, "ports or descriptors ran out"


def test_what_a_server_used_is_judged_whatever_limited_the_generator() -> None:
    used = [value * 1.5 for value in TIMES_MS]
    assert verdict_of("server.cpu_ms_per_message", TIMES_MS, used, {"own": [True] * 5, "late_ms": [90.0] * 5}) == MORE
    assert verdict_of("server.rss_max", used, TIMES_MS, {"own": [True] * 5}) == LESS


def test_growth_is_compared_by_its_difference() -> None:
    assert (
        verdict_of("server.rss_growth", [0.0, -1.0, 0.0, 1.0, 0.0], [5e6, 6e6, 5e6, 6e6, 5e6], {"own": [False] * 5}) == MORE
    )


def test_rate_is_judged_unless_the_generators_own_core_limited_the_worse_side() -> None:
    high, low = [900.0, 910.0, 900.0, 910.0, 900.0], [100.0, 110.0, 100.0, 110.0, 100.0]
    assert verdict_of("throughput", high, low, {"own": [False] * 5}) == SLOWER
    assert verdict_of("throughput", low, high, {"own": [True] * 5}) == FASTER
    assert verdict_of("throughput", high, low, {"own": [True] * 5}) == CANNOT_TELL


def test_a_repeat_without_a_value_is_left_out_with_its_pair() -> None:
    entry = compare_one([1.0, None, 1.0, 1.1, 1.0, 1.1, 1.0], [1.0, 9.0, None, 1.1, 1.0, 1.1, 1.0])
    assert (entry["verdict"], entry["change"]) == (NO_DIFFERENCE, 0.0)


def test_correlated_metrics_do_not_widen_the_intervals() -> None:
    draw = random.Random(5)
    before = [draw.gauss(100, 3) for _ in range(10)]
    after = [draw.gauss(112, 3) for _ in range(10)]
    sides = {"A": Series(before, [False] * 10), "B": Series(after, [False] * 10)}
    one, *_ = compare_series([(METRICS[2], sides)], paired=True, confidence=0.95)
    same, *_ = compare_series([(metric, sides) for metric in METRICS[:4]], paired=True, confidence=0.95)
    assert (one["low"], one["high"]) == (same["low"], same["high"])


def test_every_candidate_is_compared_with_the_baseline() -> None:
    sides = {
        name: Series([base + at / 10 for at in range(6)], [False] * 6) for name, base in zip("ABC", (9, 9, 5), strict=True)
    }
    found = compare_series([(METRICS[1], sides)], paired=False, confidence=0.95)
    verdicts = [(one["baseline"], one["candidate"], one["verdict"]) for one in found]
    assert verdicts == [("A", "B", NO_DIFFERENCE), ("A", "C", FASTER)]


def test_all_metrics_of_a_candidate_precede_those_of_the_next() -> None:
    sides = {name: Series([1.0, 1.1, 1.2, 1.3], [False] * 4) for name in "ABC"}
    found = compare_series([(metric, sides) for metric in METRICS[:2]], paired=True, confidence=0.95)
    assert [one["candidate"] for one in found] == ["B", "B", "C", "C"]
    assert [one["metric"] for one in found] == [METRICS[0].text, METRICS[1].text] * 2
