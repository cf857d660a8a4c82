"""Finding rules by what a user types."""

from __future__ import annotations

import pytest

from smtpbench.errors import UsageError
from smtpbench.rules.register import RULES, find
from smtpbench.rules.rule import Rule


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_is_found_by_name_and_number_in_any_case(rule: Rule) -> None:
    names = [text for name in (rule.name, rule.id) for text in (name, name.lower(), name.upper(), name.title())]
    assert find(names) == (rule,) * len(names)


def test_no_two_rules_have_the_same_name_in_another_case() -> None:
    names = [text.casefold() for rule in RULES for text in (rule.name, rule.id)]
    assert len(set(names)) == len(names)


def test_unknown_rule_is_an_error_that_names_a_similar_one() -> None:
    with pytest.raises(UsageError, match=r"there is no rule 'message-65K'; did you mean message-64K\?"):
        find(["message-65K"])
