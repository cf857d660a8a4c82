"""Where a message ends: each rule fires on its mutant, alone, and is silent on the clean sink."""

from __future__ import annotations

import pytest
from judging import judged, verdicts

from smtpbench.rules import data
from smtpbench.sink.mutants.data import MUTANTS

NAMES = [rule.name for rule in data.RULES]


def test_the_clean_sink_keeps_them_all() -> None:
    assert verdicts(judged(NAMES)) == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_mutant_breaks_its_rule_and_no_other(name: str) -> None:
    outcomes = judged(NAMES, MUTANTS[name])
    also = ["data-desync"] if name == "eod-crlf-lf" else []  # the same octets, and the rest is read as commands
    assert [other for other, outcome in outcomes.items() if outcome.broken] == [name, *also]
