"""Growth of a server, on simulated series: warm-ups, noise, saw-teeth and steps are none, and leaks are."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from smtpbench.measure.server_usage import UsageSample
from smtpbench.supervisor.growth import DESCRIPTORS, MEMORY, THREADS, Resource, Usage, growing, may_grow, series, slope_of
from smtpbench.units import NS_PER_S

MIB = 1024 * 1024
#: A campaign: samples, and cases between two of them.
SAMPLES, STEP = 60, 100


def usages(
    memory: Callable[[int], float] = lambda done: 50 * MIB,
    descriptors: Callable[[int], float] = lambda done: 8,
    threads: Callable[[int], float] = lambda done: 2,
    restarts: Callable[[int], int] = lambda done: 0,
    samples: int = SAMPLES,
) -> list[Usage]:
    """What a server used, as functions of the cases done."""
    return [
        Usage(
            done,
            UsageSample(
                done * NS_PER_S, 0.0, 0.0, round(memory(done)), 1, round(threads(done)), round(descriptors(done)),
                restarts=restarts(done),
            ),
        )
        for done in range(0, samples * STEP, STEP)
    ]  # fmt: skip


def warm_up(done: int) -> float:
    """An allocator that takes 20 MiB from the kernel, and then has enough."""
    return 50 * MIB + 20 * MIB * (1 - math.exp(-done / 500))


def leaked_by(done: int, each: int, share: float, seed: int = 1) -> int:
    """What a share of the cases leaks."""
    return sum(random.Random(seed * 1_000_003 + case).random() < share for case in range(done)) * each


def test_flat_server_with_warm_up_does_not_grow() -> None:
    assert growing(usages(warm_up)) == []


def test_steps_of_an_allocator_are_no_growth() -> None:
    assert growing(usages(lambda done: warm_up(done) + 8 * MIB * (done > 3_000) + 2 * MIB * (done > 4_500))) == []


def test_curve_that_flattens_is_no_growth() -> None:
    assert growing(usages(lambda done: 50 * MIB + 60 * MIB * (1 - math.exp(-done / 1_200)))) == []


@pytest.mark.parametrize("period", [3, 7, 11])
def test_garbage_collector_is_no_growth(period: int) -> None:
    assert growing(usages(lambda done: warm_up(done) + done // STEP % period * 5 * MIB)) == []


def test_value_that_only_varies_grows_no_more_often_than_documented() -> None:
    draw = random.Random(5)
    found = [growing(usages(lambda done: 50 * MIB + draw.gauss(0, 5 * MIB))) for _ in range(2_000)]
    assert sum(map(bool, found)) <= 0.005 * 2_000


def test_leak_of_one_case_in_ten_is_growth() -> None:
    draw = random.Random(6)
    measured = usages(lambda done: warm_up(done) + leaked_by(done, 100_000, 0.1) + draw.gauss(0, MIB))
    assert growing(measured) == [MEMORY]
    slope = slope_of(series(measured, MEMORY))
    assert slope is not None
    assert slope.low < 10_000 < slope.high
    assert slope.each == pytest.approx(10_000, rel=0.1)


def test_leak_of_one_descriptor_in_a_hundred_cases_is_growth() -> None:
    draw = random.Random(7)
    # the connections of the cases that run at the moment are descriptors too
    measured = usages(warm_up, lambda done: 8 + draw.randint(0, 30) + leaked_by(done, 1, 0.01))
    assert growing(measured) == [DESCRIPTORS]


def test_leak_of_threads_is_growth() -> None:
    assert growing(usages(warm_up, threads=lambda done: 2 + done // 50)) == [THREADS]


@pytest.mark.parametrize("each", [0, 2_000])
def test_restart_is_no_growth_and_lives_add_up(each: int) -> None:
    draw = random.Random(8)

    def memory(done: int) -> float:
        age = done % 1_000
        return warm_up(age * 5) + each * age + draw.gauss(0, 20_000) + 10 * MIB * (done // 1_000)

    measured = usages(memory, restarts=lambda done: done // 1_000, samples=200)
    assert len(series(measured, MEMORY)) == 20
    assert (growing(measured) == [MEMORY]) is bool(each)


def test_growth_smaller_than_the_least_rise_is_none() -> None:
    assert growing(usages(lambda done: 50 * MIB + done * 10)) == []


@pytest.mark.parametrize(("rise", "expected"), [(MIB, [MEMORY]), (1_000, [])])
def test_short_campaign_is_searched_if_something_rose(rise: int, expected: Sequence[Resource]) -> None:
    measured = usages(lambda done: 50 * MIB + rise * (done > 0), samples=3)
    assert slope_of(series(measured, MEMORY)) is None
    assert may_grow(measured) == expected
    assert growing(measured) == []


def test_values_that_are_not_known_do_not_grow() -> None:
    samples = [Usage(done, UsageSample(done, 0.0, 0.0)) for done in range(100)]
    assert series(samples, MEMORY) == [[]]
    assert growing(samples) == []


def test_leak_of_few_cases_is_worth_a_search() -> None:
    measured = usages(lambda done: warm_up(done) + leaked_by(done, 100_000, 0.003, seed=3), samples=20)
    assert may_grow(measured) == [MEMORY]


def test_flat_server_with_warm_up_is_worth_no_search() -> None:
    assert may_grow(usages(lambda done: warm_up(done * 5))) == []
