"""Decisions of a capacity search on invented steps: the next rate, and the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smtpbench.study.search import (
    CONFIRM,
    CONNECTIONS,
    GENERATOR,
    MAX_RATE,
    MAX_TRIES,
    NEAR,
    NOTHING,
    OBJECTIVE,
    PROBE,
    NextStep,
    SearchLimits,
    SearchResult,
    SearchStep,
    decide,
    remaining_s,
    search_result,
    step_length_s,
)  # fmt: skip

LIMITS = SearchLimits(first_per_s=100.0, lowest_per_s=1.5625)


def passed(rate: float, purpose: str = PROBE) -> SearchStep:
    return SearchStep(rate, purpose, True)


def failed(
    rate: float, *, conclusive: bool = True, limited_by: str = "", served: float | None = None, purpose: str = PROBE
) -> SearchStep:
    return SearchStep(rate, purpose, False, conclusive, limited_by, served)


def search(
    answer: Callable[[NextStep, int], SearchStep], limits: SearchLimits = LIMITS
) -> tuple[SearchResult, list[SearchStep]]:
    """Run a whole search; `answer` gives the outcome of each step."""
    steps: list[SearchStep] = []
    while isinstance(next_step := decide(limits, steps), NextStep):
        steps.append(answer(next_step, len(steps)))
        assert len(steps) <= limits.max_steps
    return next_step, steps


def below(limit: float, *, shows_limit: bool = False) -> Callable[[NextStep, int], SearchStep]:
    """Return the outcomes of a server with this limit; its backlog shows the limit if `shows_limit` is set."""

    def answer(next_step: NextStep, at: int) -> SearchStep:
        if next_step.rate_per_s <= limit:
            return passed(next_step.rate_per_s, next_step.purpose)
        return failed(next_step.rate_per_s, served=limit if shows_limit else None, purpose=next_step.purpose)

    return answer


@pytest.mark.parametrize("limit", [1.7, 9.99, 100.0, 101.0, 155.5, 399.9, 1234.5, 7777.0, 23456.0])
@pytest.mark.parametrize("shows_limit", [True, False])
def test_limit_is_found_in_few_steps(limit: float, shows_limit: bool) -> None:
    found, steps = search(below(limit, shows_limit=shows_limit))
    assert found.rate_per_s is not None
    assert found.rate_per_s <= limit < found.rate_per_s * 1.05
    assert found.limited_by == OBJECTIVE
    assert steps[-1].purpose == CONFIRM
    most = 14 if limit > 2000 else 10  # more doublings to get there
    assert len(steps) <= (most if shows_limit else most + 2)


def test_growing_backlog_saves_steps() -> None:
    assert len(search(below(399.0, shows_limit=True))[1]) < len(search(below(399.0))[1])
    steps = [passed(100), passed(200), passed(400), failed(800, served=500)]
    assert decide(LIMITS, steps) == NextStep(487.5, NEAR)
    assert decide(LIMITS, [*steps, passed(487.5, NEAR)]) == NextStep(511.2, NEAR)
    assert decide(LIMITS, [*steps, failed(487.5, purpose=NEAR)]) == NextStep(441.6, NEAR)  # not a limit of throughput


def test_search_goes_down_to_the_lowest_rate_if_the_first_fails() -> None:
    assert decide(LIMITS, [failed(100)]) == NextStep(25, PROBE)
    found, steps = search(below(0.0))
    assert [step.rate_per_s for step in steps] == [100, 25, 6.25, 1.5625]
    assert (found.rate_per_s, found.failed_rate_per_s, found.precision_share) == (None, 1.5625, None)
    assert found.limited_by == OBJECTIVE


def test_inconclusive_failure_is_repeated() -> None:
    steps = [passed(100), failed(200, conclusive=False)]
    assert decide(LIMITS, steps) == NextStep(200, PROBE)
    assert decide(LIMITS, [*steps, passed(200)]) == NextStep(200, PROBE)
    assert decide(LIMITS, [*steps, passed(200), passed(200)]) == NextStep(400, PROBE)
    assert decide(LIMITS, [*steps, failed(200, conclusive=False)]) == NextStep(141.4, NEAR)
    assert decide(
        LIMITS, [passed(100), failed(200, conclusive=False), passed(200), failed(200, conclusive=False)]
    ) == NextStep(200, PROBE)


def test_upper_bound_without_conclusive_failure_is_tried_again_before_the_end() -> None:
    steps = [passed(100), failed(104, conclusive=False), failed(104, conclusive=False)]
    assert decide(LIMITS, steps) == NextStep(104, NEAR)
    assert decide(LIMITS, [*steps, failed(104, conclusive=False)]) == NextStep(100, CONFIRM)
    assert decide(LIMITS, [*steps, passed(104, NEAR)]) == NextStep(104, NEAR)
    assert decide(LIMITS, [*steps, passed(104, NEAR), passed(104, NEAR), passed(104, NEAR)]) == NextStep(208, PROBE)


def test_upper_bound_limited_by_the_generator_is_tried_again_as_well() -> None:
    limited = failed(104, conclusive=False, limited_by=GENERATOR)
    steps = [passed(100), limited, limited, limited]
    assert decide(LIMITS, steps) == NextStep(104, NEAR)
    assert decide(LIMITS, [*steps, limited]) == NextStep(100, CONFIRM)
    assert decide(LIMITS, [*steps, passed(104, NEAR)]) == NextStep(104, NEAR)
    assert decide(LIMITS, [*steps, passed(104, NEAR), passed(104, NEAR)]) == NextStep(208, PROBE)


def test_rate_is_tried_a_limited_number_of_times() -> None:
    def in_turns(next_step: NextStep, at: int) -> SearchStep:
        if next_step.rate_per_s < 200:
            return passed(next_step.rate_per_s, next_step.purpose)
        return failed(next_step.rate_per_s, conclusive=False, limited_by=GENERATOR if at % 2 else "")

    _, steps = search(in_turns)
    assert max(sum(step.rate_per_s == rate for step in steps) for rate in {step.rate_per_s for step in steps}) <= MAX_TRIES


def test_rate_is_confirmed_by_a_longer_step_or_the_search_continues_below() -> None:
    steps = [passed(100), failed(104)]
    assert decide(LIMITS, steps) == NextStep(100, CONFIRM)
    again = [*steps, failed(100, purpose=CONFIRM)]
    assert decide(LIMITS, again) == NextStep(100, CONFIRM)
    assert decide(LIMITS, [*again, passed(100, CONFIRM)]) == search_result(LIMITS, [*steps, passed(100, CONFIRM)])
    lost = [*again, failed(100, purpose=CONFIRM), failed(100, purpose=CONFIRM)]
    assert decide(LIMITS, lost) == NextStep(25, PROBE)
    assert decide(LIMITS, [passed(50), *lost]) == NextStep(70.71, NEAR)


@pytest.mark.parametrize(("limited_by", "text"), [(GENERATOR, "the generator"), (CONNECTIONS, "the number of connections")])
def test_result_names_the_limit_that_was_not_the_server(limited_by: str, text: str) -> None:
    def answer(next_step: NextStep, at: int) -> SearchStep:
        is_below = next_step.rate_per_s < 300
        return (
            passed(next_step.rate_per_s, next_step.purpose)
            if is_below
            else failed(next_step.rate_per_s, conclusive=False, limited_by=limited_by)
        )

    found, steps = search(answer)
    assert found.limited_by == limited_by
    assert found.reason.startswith("at least ")
    assert text in found.reason
    assert found.rate_per_s is not None
    assert 300 / 1.05 < found.rate_per_s < 300
    assert len(steps) <= LIMITS.max_steps


def test_conclusive_limit_of_the_generator_is_not_repeated() -> None:
    def answer(next_step: NextStep, at: int) -> SearchStep:
        if next_step.rate_per_s <= 300:
            return passed(next_step.rate_per_s, next_step.purpose)
        return failed(next_step.rate_per_s, limited_by=CONNECTIONS, served=300, purpose=next_step.purpose)

    found, steps = search(answer)
    assert [step.rate_per_s for step in steps] == [100, 200, 400, 292.5, 306.8, 292.5]
    assert (found.rate_per_s, found.limited_by) == (292.5, CONNECTIONS)


def test_search_ends_at_the_highest_rate_allowed() -> None:
    limits = SearchLimits(100.0, 1.0, max_rate_per_s=250.0)
    found, steps = search(below(1e9), limits)
    assert [(step.rate_per_s, step.purpose) for step in steps] == [(100, PROBE), (200, PROBE), (250, PROBE), (250, CONFIRM)]
    assert (found.rate_per_s, found.limited_by) == (250, MAX_RATE)
    assert search(below(1e9), SearchLimits(100.0, 1.0, max_rate_per_s=50.0))[0].rate_per_s == 50


def test_search_ends_after_the_largest_number_of_steps() -> None:
    found, steps = search(below(1234.0), SearchLimits(100.0, 1.0, max_steps=6))
    assert len(steps) == 6
    assert (found.rate_per_s, found.failed_rate_per_s) == (1131, 1600)
    assert "is wider than the precision" in found.reason
    unconfirmed, _ = search(below(103.0), SearchLimits(100.0, 1.0, max_steps=6))
    assert "not confirmed by a longer step" in unconfirmed.reason


def test_search_without_a_failed_rate_has_no_limit() -> None:
    assert search_result(LIMITS, []).limited_by == NOTHING
    assert search_result(LIMITS, [passed(100)]) == SearchResult(100, None, None, NOTHING, "at least 100/s: no rate failed")
    assert decide(LIMITS, []) == NextStep(100, PROBE)


def test_steps_near_the_limit_last_long_enough_for_their_arrivals() -> None:
    assert step_length_s(PROBE, 1000, 5.0, 0.05) == 3
    assert step_length_s(PROBE, 20, 5.0, 0.05) == 5
    assert step_length_s(NEAR, 1000, 5.0, 0.05) == 5
    assert step_length_s(NEAR, 40, 5.0, 0.05) == 10
    assert step_length_s(NEAR, 1, 5.0, 0.05) == 20
    assert step_length_s(CONFIRM, 1000, 5.0, 0.05) == 10
    assert step_length_s(NEAR, 1000, 0.4, 0.05) == 0.4


def test_time_left_is_unknown_until_the_rate_has_two_bounds() -> None:
    assert remaining_s(LIMITS, [], 5.0, 1.0) is None
    assert remaining_s(LIMITS, [passed(100.0)], 5.0, 1.0) is None
    assert remaining_s(LIMITS, [failed(100.0)], 5.0, 1.0) is None


@pytest.mark.parametrize("limit", [3.0, 130.0, 777.0, 6000.0])
def test_time_left_is_what_the_search_takes(limit: float) -> None:
    _, steps = search(below(limit))
    known = [at for at in range(len(steps)) if remaining_s(LIMITS, steps[:at], 5.0, 1.0) is not None]
    for at in known:
        taken_s = sum(1.0 + step_length_s(step.purpose, step.rate_per_s, 5.0, LIMITS.precision_share) for step in steps[at:])
        assert remaining_s(LIMITS, steps[:at], 5.0, 1.0) == pytest.approx(taken_s, rel=0.3, abs=25.0)
    assert remaining_s(LIMITS, steps, 5.0, 1.0) == 0.0
