"""Pacing: arrival times of stages, uniform and Poisson."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from smtpbench.engine.pacing import Stage, duration_ns, schedule, share

S = 1_000_000_000


@pytest.mark.parametrize(
    ("stages", "expected_s"),
    [
        ([Stage(1 * S, 4, 4)], [0, 0.25, 0.5, 0.75]),
        ([Stage(2 * S, 0.5, 0.5)], [0]),
        ([Stage(1 * S, 2, 2), Stage(1 * S, 4, 4)], [0, 0.5, 1, 1.25, 1.5, 1.75]),
        # a ramp from nothing: the count is t², so the i-th is due at √i
        ([Stage(3 * S, 0, 6)], [0, 1, 2**0.5, 3**0.5, 2, 5**0.5, 6**0.5, 7**0.5, 8**0.5]),
        ([Stage(1 * S, 0, 0), Stage(1 * S, 2, 2)], [1, 1.5]),
        # half an arrival is carried over from one stage to the next
        ([Stage(1 * S, 1.5, 1.5), Stage(1 * S, 3, 3)], [0, 2 / 3, 1 + 0.5 / 3, 1 + 1.5 / 3, 1 + 2.5 / 3]),
        ([], []),
    ],
)
def test_uniform_arrivals(stages: list[Stage], expected_s: list[float]) -> None:
    found = list(schedule(stages))
    assert [i for i, _ in found] == list(range(len(expected_s)))
    assert [when_ns / S for _, when_ns in found] == pytest.approx(expected_s)


def test_steady_rate_does_not_drift() -> None:
    whens = [when_ns for _, when_ns in schedule([Stage(100 * S, 300, 300)])]
    assert len(whens) == 30_000
    assert all(abs(when_ns - i * S / 300) <= 1 for i, when_ns in enumerate(whens))


def test_gaps_grow_on_a_ramp_down() -> None:
    down = [when_ns for _, when_ns in schedule([Stage(10 * S, 100, 0)])]
    assert len(down) == 500
    gaps = [b - a for a, b in pairwise(down)]
    assert gaps == sorted(gaps)
    assert down[-1] < 10 * S


def test_poisson_gaps_have_the_mean_and_deviation_of_the_process() -> None:
    stages = [Stage(200 * S, 100, 100)]
    whens = [when_ns for _, when_ns in schedule(stages, poisson=True, seed=7)]
    gaps_s = [(b - a) / S for a, b in pairwise(whens)]
    assert len(whens) == pytest.approx(20_000, rel=0.03)
    assert statistics.stdev(gaps_s) == pytest.approx(statistics.mean(gaps_s), rel=0.05)
    assert whens == [when_ns for _, when_ns in schedule(stages, poisson=True, seed=7)]
    assert whens != [when_ns for _, when_ns in schedule(stages, poisson=True, seed=8)]


@pytest.mark.parametrize("poisson", [False, True])
def test_workers_share_one_schedule(poisson: bool) -> None:
    stages = [Stage(2 * S, 10, 90)]
    whole = list(schedule(stages, poisson=poisson))
    parts = [list(share(schedule(stages, poisson=poisson), worker, 3, 7)) for worker in range(3)]
    assert sorted(arrival for part in parts for arrival in part) == whole


def test_share_of_a_worker_is_that_of_its_connections() -> None:
    arrivals = [(i, i) for i in range(1000)]
    assert [len(list(share(iter(arrivals), worker, 4, 10))) for worker in range(4)] == [300, 300, 200, 200]
    assert [i for i, _ in share(iter(arrivals[:25]), 2, 4, 10)] == [2, 6, 12, 16, 22]
    assert [i for i, _ in share(iter(arrivals[:20]), 1, 4, 8)] == [1, 5, 9, 13, 17]


def test_duration_is_the_sum_of_the_stages() -> None:
    assert duration_ns([Stage(1 * S, 1, 2), Stage(2 * S, 2, 3)]) == 3 * S
