"""Every rule has a mutant of the test server that violates it and no other rule. The correct server violates none."""

from __future__ import annotations

import pytest
from check_sink import check_mutants, check_sink, not_passed

from smtpbench.check.rule_result import RuleResult
from smtpbench.rules.register import BY_NAME, RULES
from smtpbench.sink.mutants import MUTANTS

#: Further rules that a mutant violates.
ALSO_VIOLATED = {
    "eod-crlf-lf": ["data-desync"],  # the same octets, and the server reads the rest as commands
    "empty-message": ["health"],  # the server does not reply to the end of the data
}
INCONCLUSIVE = {"greet-554", "rare-parameters"}

#: The fixture checks every mutant against every rule, which takes minutes on a busy machine.
pytestmark = pytest.mark.timeout(900)

Matrix = dict[str, dict[str, RuleResult]]


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return check_mutants(MUTANTS)


def test_every_rule_has_a_mutant_and_an_evaluation() -> None:
    assert len(RULES) == len(BY_NAME) == 84
    assert {rule.name for rule in RULES} == set(MUTANTS)
    assert all(rule.evaluate or rule.invariant for rule in RULES)


@pytest.mark.parametrize("lmtp", [False, True])
def test_correct_server_violates_no_rule(lmtp: bool) -> None:
    texts = not_passed(check_sink(lmtp=lmtp))
    assert set(texts) == INCONCLUSIVE | {"helo-plain" if lmtp else "lmtp"}
    assert all(text.startswith("inconclusive: ") for text in texts.values())


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_mutant_violates_its_rule_and_no_other(name: str, matrix: Matrix) -> None:
    violated = {rule: result.verdict.actual for rule, result in matrix[name].items() if result.violated}
    assert sorted(violated) == sorted([name, *ALSO_VIOLATED.get(name, [])]), violated
    assert matrix[name][name].reproducibility == "2 of 2"
