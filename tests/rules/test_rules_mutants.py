"""Every rule has a mutant of the sink that breaks it: it fires there, no other does, and none on the clean sink."""

from __future__ import annotations

import pytest
from judging import judged, judged_all, verdicts

from smtpbench.check.checker import RuleResult
from smtpbench.rules.register import BY_NAME, RULES
from smtpbench.sink.mutants import MUTANTS

#: What a mutant cannot but break as well.
ALSO = {
    "eod-crlf-lf": ["data-desync"],  # the same octets, and the rest is read as commands
    "empty-message": ["health"],  # no reply to the end of the data is a hang
}
NOT_OFFERED = {"greet-554", "rare-parameters"}

Matrix = dict[str, dict[str, RuleResult]]


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return judged_all(MUTANTS)


def test_the_register_is_whole() -> None:
    assert len(RULES) == len(BY_NAME) == 82
    assert {rule.name for rule in RULES} == set(MUTANTS)
    assert all(rule.evaluate or rule.invariant for rule in RULES)


@pytest.mark.parametrize("lmtp", [False, True])
def test_the_clean_sink_keeps_every_rule(lmtp: bool) -> None:
    open_questions = verdicts(judged(lmtp=lmtp))
    assert set(open_questions) == NOT_OFFERED | {"helo-plain" if lmtp else "lmtp"}
    assert all(text.startswith("inconclusive: ") for text in open_questions.values())


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_breaks_its_rule_and_no_other(name: str, matrix: Matrix) -> None:
    broken = {other: outcome.verdict.actual for other, outcome in matrix[name].items() if outcome.violated}
    assert sorted(broken) == sorted([name, *ALSO.get(name, [])]), broken
    assert matrix[name][name].reproducibility == "2 of 2"
