"""The register: all rules, by name and by number."""

from __future__ import annotations

from collections.abc import Iterable

from smtpbench.errors import UsageError
from smtpbench.rules import arguments, auth, data, extensions, health, order, replies, tls
from smtpbench.rules.rule import Rule
from smtpbench.text import did_you_mean

_MODULES = (replies, order, arguments, data, extensions, tls, auth, health)
RULES: tuple[Rule, ...] = tuple(sorted((rule for module in _MODULES for rule in module.RULES), key=lambda rule: rule.id))
BY_NAME = {rule.name: rule for rule in RULES}
_BY_ID = {rule.id: rule for rule in RULES}


def find(names: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules with these names or numbers; all rules if there are no names.

    Raises:
        UsageError: There is no such rule.
    """
    found = []
    for name in names:
        rule = BY_NAME.get(name.lower()) or _BY_ID.get(name.upper())
        if rule is None:
            hint = did_you_mean(name, (*BY_NAME, *_BY_ID)) or "; `smtpbench rules` lists them"
            raise UsageError(f"there is no rule {name!r}{hint}")
        found.append(rule)
    return tuple(found) or RULES
