"""Which rate comes next, and when the search is over: decisions on made-up steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smtpbench.study.steps import (
    CONFIRM,
    CONNECTIONS,
    GENERATOR,
    MAX_RATE,
    NEAR,
    NOTHING,
    OBJECTIVE,
    PROBE,
    TRIES,
    Limits,
    Next,
    SearchResult,
    SearchStep,
    decide,
    length_s,
    verdict,
)  # fmt: skip

LIMITS = Limits(first_per_s=100.0, lowest_per_s=1.5625)


def held(rate: float, purpose: str = PROBE) -> SearchStep:
    return SearchStep(rate, purpose, True)


def failed(
    rate: float, *, clear: bool = True, blame: str = "", served: float | None = None, purpose: str = PROBE
) -> SearchStep:
    return SearchStep(rate, purpose, False, clear, blame, served)


def search(answer: Callable[[Next, int], SearchStep], limits: Limits = LIMITS) -> tuple[SearchResult, list[SearchStep]]:
    """A whole search, each step answered."""
    steps: list[SearchStep] = []
    while isinstance(ahead := decide(limits, steps), Next):
        steps.append(answer(ahead, len(steps)))
        assert len(steps) <= limits.most_steps
    return ahead, steps


def below(limit: float, *, shows: bool = False) -> Callable[[Next, int], SearchStep]:
    """What a server answers that holds up to a limit, and shows it by its backlog or not."""

    def answer(ahead: Next, at: int) -> SearchStep:
        if ahead.rate_per_s <= limit:
            return held(ahead.rate_per_s, ahead.purpose)
        return failed(ahead.rate_per_s, served=limit if shows else None, purpose=ahead.purpose)

    return answer


@pytest.mark.parametrize("limit", [1.7, 9.99, 100.0, 101.0, 155.5, 399.9, 1234.5, 7777.0, 23456.0])
@pytest.mark.parametrize("shows", [True, False])
def test_every_limit_is_found_in_few_steps(limit: float, shows: bool) -> None:
    found, steps = search(below(limit, shows=shows))
    assert found.rate_per_s is not None
    assert found.rate_per_s <= limit < found.rate_per_s * 1.05
    assert found.limited_by == OBJECTIVE
    assert steps[-1].purpose == CONFIRM
    most = 14 if limit > 2000 else 10  # more doublings to get there
    assert len(steps) <= (most if shows else most + 2)


def test_a_backlog_that_shows_the_limit_saves_steps() -> None:
    assert len(search(below(399.0, shows=True))[1]) < len(search(below(399.0))[1])
    steps = [held(100), held(200), held(400), failed(800, served=500)]
    assert decide(LIMITS, steps) == Next(487.5, NEAR)
    assert decide(LIMITS, [*steps, held(487.5, NEAR)]) == Next(511.2, NEAR)
    assert decide(LIMITS, [*steps, failed(487.5, purpose=NEAR)]) == Next(441.6, NEAR)  # it was no limit of throughput


def test_it_goes_down_where_the_first_rate_does_not_hold_and_no_further_than_it_may() -> None:
    assert decide(LIMITS, [failed(100)]) == Next(25, PROBE)
    found, steps = search(below(0.0))
    assert [step.rate_per_s for step in steps] == [100, 25, 6.25, 1.5625]
    assert (found.rate_per_s, found.failed_rate_per_s, found.precision_share) == (None, 1.5625, None)
    assert found.limited_by == OBJECTIVE


def test_a_failure_that_is_not_clear_is_tried_again() -> None:
    steps = [held(100), failed(200, clear=False)]
    assert decide(LIMITS, steps) == Next(200, PROBE)
    assert decide(LIMITS, [*steps, held(200)]) == Next(200, PROBE)
    assert decide(LIMITS, [*steps, held(200), held(200)]) == Next(400, PROBE)
    assert decide(LIMITS, [*steps, failed(200, clear=False)]) == Next(141.4, NEAR)
    assert decide(LIMITS, [held(100), failed(200, clear=False), held(200), failed(200, clear=False)]) == Next(200, PROBE)


def test_a_bound_that_never_failed_clearly_is_challenged_before_the_end() -> None:
    steps = [held(100), failed(104, clear=False), failed(104, clear=False)]
    assert decide(LIMITS, steps) == Next(104, NEAR)
    assert decide(LIMITS, [*steps, failed(104, clear=False)]) == Next(100, CONFIRM)
    assert decide(LIMITS, [*steps, held(104, NEAR)]) == Next(104, NEAR)
    assert decide(LIMITS, [*steps, held(104, NEAR), held(104, NEAR), held(104, NEAR)]) == Next(208, PROBE)


def test_a_bound_that_was_the_generators_is_challenged_as_well() -> None:
    blamed = failed(104, clear=False, blame=GENERATOR)
    steps = [held(100), blamed, blamed, blamed]
    assert decide(LIMITS, steps) == Next(104, NEAR)
    assert decide(LIMITS, [*steps, blamed]) == Next(100, CONFIRM)
    assert decide(LIMITS, [*steps, held(104, NEAR)]) == Next(104, NEAR)
    assert decide(LIMITS, [*steps, held(104, NEAR), held(104, NEAR)]) == Next(208, PROBE)


def test_a_rate_is_tried_no_more_often_than_that() -> None:
    def in_turns(ahead: Next, at: int) -> SearchStep:
        if ahead.rate_per_s < 200:
            return held(ahead.rate_per_s, ahead.purpose)
        return failed(ahead.rate_per_s, clear=False, blame=GENERATOR if at % 2 else "")

    _, steps = search(in_turns)
    assert max(sum(step.rate_per_s == rate for step in steps) for rate in {step.rate_per_s for step in steps}) <= TRIES


def test_what_was_found_is_tried_for_longer_and_the_search_goes_on_below_where_that_fails() -> None:
    steps = [held(100), failed(104)]
    assert decide(LIMITS, steps) == Next(100, CONFIRM)
    again = [*steps, failed(100, purpose=CONFIRM)]
    assert decide(LIMITS, again) == Next(100, CONFIRM)
    assert decide(LIMITS, [*again, held(100, CONFIRM)]) == verdict(LIMITS, [*steps, held(100, CONFIRM)])
    lost = [*again, failed(100, purpose=CONFIRM), failed(100, purpose=CONFIRM)]
    assert decide(LIMITS, lost) == Next(25, PROBE)
    assert decide(LIMITS, [held(50), *lost]) == Next(70.71, NEAR)


@pytest.mark.parametrize(("blame", "word"), [(GENERATOR, "the generator"), (CONNECTIONS, "the number of connections")])
def test_whose_limit_it_was(blame: str, word: str) -> None:
    def answer(ahead: Next, at: int) -> SearchStep:
        good = ahead.rate_per_s < 300
        return held(ahead.rate_per_s, ahead.purpose) if good else failed(ahead.rate_per_s, clear=False, blame=blame)

    found, steps = search(answer)
    assert found.limited_by == blame
    assert found.reason.startswith("at least ")
    assert word in found.reason
    assert found.rate_per_s is not None
    assert 300 / 1.05 < found.rate_per_s < 300
    assert len(steps) <= LIMITS.most_steps


def test_a_clear_limit_of_our_own_needs_no_second_look_and_shows_itself_as_well() -> None:
    def answer(ahead: Next, at: int) -> SearchStep:
        if ahead.rate_per_s <= 300:
            return held(ahead.rate_per_s, ahead.purpose)
        return failed(ahead.rate_per_s, blame=CONNECTIONS, served=300, purpose=ahead.purpose)

    found, steps = search(answer)
    assert [step.rate_per_s for step in steps] == [100, 200, 400, 292.5, 306.8, 292.5]
    assert (found.rate_per_s, found.limited_by) == (292.5, CONNECTIONS)


def test_the_highest_rate_that_was_asked_for() -> None:
    limits = Limits(100.0, 1.0, max_rate_per_s=250.0)
    found, steps = search(below(1e9), limits)
    assert [(step.rate_per_s, step.purpose) for step in steps] == [(100, PROBE), (200, PROBE), (250, PROBE), (250, CONFIRM)]
    assert (found.rate_per_s, found.limited_by) == (250, MAX_RATE)
    assert search(below(1e9), Limits(100.0, 1.0, max_rate_per_s=50.0))[0].rate_per_s == 50


def test_a_budget_of_steps_ends_it_with_what_it_has() -> None:
    found, steps = search(below(1234.0), Limits(100.0, 1.0, most_steps=6))
    assert len(steps) == 6
    assert (found.rate_per_s, found.failed_rate_per_s) == (1131, 1600)
    assert "did not bring down" in found.reason
    unconfirmed, _ = search(below(103.0), Limits(100.0, 1.0, most_steps=6))
    assert "a longer step was not made" in unconfirmed.reason


def test_what_has_only_begun_has_found_nothing() -> None:
    assert verdict(LIMITS, []).limited_by == NOTHING
    assert verdict(LIMITS, [held(100)]) == SearchResult(
        100, None, None, NOTHING, "at least 100/s: no rate was found that does not hold"
    )
    assert decide(LIMITS, []) == Next(100, PROBE)


def test_steps_near_the_limit_last_for_enough_arrivals() -> None:
    assert length_s(PROBE, 1000, 5.0, 0.05) == 3
    assert length_s(PROBE, 20, 5.0, 0.05) == 5
    assert length_s(NEAR, 1000, 5.0, 0.05) == 5
    assert length_s(NEAR, 40, 5.0, 0.05) == 10
    assert length_s(NEAR, 1, 5.0, 0.05) == 20
    assert length_s(CONFIRM, 1000, 5.0, 0.05) == 10
    assert length_s(NEAR, 1000, 0.4, 0.05) == 0.4
