"""The slope of a figure over time, and how often its interval misses the true slope."""

from __future__ import annotations

import math
import random

import pytest

from smtpbench.measure.trend import linear_trend, student_quantile


def autocorrelated(count: int, correlation: float, rng: random.Random, slope: float = 0.0) -> list[tuple[float, float]]:
    value, points = rng.gauss(0, 1) / math.sqrt(1 - correlation**2), []
    for at in range(count):
        value = correlation * value + rng.gauss(0, 1)
        points.append((float(at), value + slope * at))
    return points


@pytest.mark.parametrize(
    ("count", "correlation", "most"),
    [(12, 0.0, 0.07), (12, 0.5, 0.13), (30, 0.5, 0.09), (30, 0.9, 0.15), (100, 0.9, 0.09), (300, 0.0, 0.07)],
)
def test_interval_holds_the_true_slope(count: int, correlation: float, most: float) -> None:
    rng = random.Random(7)
    missed = 0
    for _ in range(400):
        trend = linear_trend(autocorrelated(count, correlation, rng, slope=0.3))
        assert trend is not None
        missed += not trend.low <= 0.3 <= trend.high
    assert missed / 400 < most


def test_slope_of_a_line_is_exact() -> None:
    trend = linear_trend([(at, 5.0 + 2.5 * at) for at in range(11)])
    assert trend is not None
    assert trend == pytest.approx((2.5, 2.5, 2.5))


def test_values_that_change_in_steps_have_an_interval_although_they_are_constant() -> None:
    trend = linear_trend([(float(at), 4096.0) for at in range(20)], resolution=4096)
    assert trend is not None
    assert trend.slope == 0
    assert trend.low < 0 < trend.high
    assert trend.high < 4096 / 10


def test_memory_that_rises_and_then_stays_gives_a_wide_interval() -> None:
    rises = linear_trend([(float(at), 100.0 * min(at, 8)) for at in range(30)])
    steady = linear_trend([(float(at), 100.0 * at + (at % 2)) for at in range(30)])
    assert rises is not None
    assert steady is not None
    assert rises.low < 0 < rises.slope
    assert steady.low > 99


@pytest.mark.parametrize(
    "points", [[], [(0.0, 1.0)], [(float(at), 1.0) for at in range(9)], [(at / 2, 1.0) for at in range(19)]]
)
def test_short_times_and_few_points_have_no_trend(points: list[tuple[float, float]]) -> None:
    assert linear_trend(points) is None


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)]
)
def test_quantiles_of_students_t(freedom: float, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=0.01)
