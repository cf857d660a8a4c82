"""The register: all rules, by name and by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from smtpbench.errors import UsageError
from smtpbench.rules import arguments, auth, data, extensions, health, order, replies, tls, verbs
from smtpbench.rules.rule import Rule
from smtpbench.text import did_you_mean

#: Part of the protocol → its rules.
PARTS: Mapping[str, tuple[Rule, ...]] = {
    "Replies": replies.RULES,
    "Order of commands": (*order.RULES, *verbs.RULES),
    "Arguments and sizes": arguments.RULES,
    "End of the message": data.RULES,
    "Extensions": extensions.RULES,
    "STARTTLS": tls.RULES,
    "AUTH": auth.RULES,
    "Health of the server": health.RULES,
}
RULES: tuple[Rule, ...] = tuple(sorted((rule for rules in PARTS.values() for rule in rules), key=lambda rule: rule.id))
BY_NAME = {rule.name: rule for rule in RULES}
_BY_FOLDED_NAME = {text.casefold(): rule for rule in RULES for text in (rule.id, rule.name)}


def find(names: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules with these names or numbers, in upper or lower case; all rules if there are no names.

    Raises:
        UsageError: There is no such rule.
    """
    found = []
    for name in names:
        rule = _BY_FOLDED_NAME.get(name.casefold())
        if rule is None:
            hint = did_you_mean(name, (*BY_NAME, *(rule.id for rule in RULES))) or "; `smtpbench rules` lists them"
            raise UsageError(f"there is no rule {name!r}{hint}")
        found.append(rule)
    return tuple(found) or RULES
