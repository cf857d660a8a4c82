"""The register: all rules, by name and by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from smtpbench.errors import UsageError
from smtpbench.rules import arguments, auth, data, extensions, health, order, replies, tls
from smtpbench.rules.rule import Rule
from smtpbench.text import did_you_mean

#: Part of the protocol → its rules.
PARTS: Mapping[str, tuple[Rule, ...]] = {
    "Replies": replies.RULES,
    "Order of commands": order.RULES,
    "Arguments and sizes": arguments.RULES,
    "End of the message": data.RULES,
    "Extensions": extensions.RULES,
    "STARTTLS": tls.RULES,
    "AUTH": auth.RULES,
    "Health of the server": health.RULES,
}
RULES: tuple[Rule, ...] = tuple(sorted((rule for rules in PARTS.values() for rule in rules), key=lambda rule: rule.id))
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
