"""The result of one rule of a check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from smtpbench.rules import rule as r
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.session.runner import SessionResult
from smtpbench.supervisor.death import Death

#: The rule that a server violates by crashing.
HEALTH: Final = "health"


@dataclass(frozen=True, slots=True)
class RuleResult:
    """Result of one rule.

    Attributes:
        rule: The rule.
        verdict: Whether the server keeps it.
        session_result: The session that shows the verdict, where there is one.
        reproducibility: In how many attempts the verdict was reached, such as `2 of 2`.
        death: How the server's process ended in that session; None if it did not, or if that is not known.
        log_lines: Error lines in the server's log while the session ran alone, escaped.
        cause: What distinguishes the violation from others of the same rule; empty for most.
        about: Further keys for the file of the finding.
    """

    rule: Rule
    verdict: Verdict
    session_result: SessionResult | None = None
    reproducibility: str = "1 of 1"
    death: Death | None = None
    log_lines: Sequence[str] = ()
    cause: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> str:
        """Return the severity of the verdict."""
        return self.verdict.severity or self.rule.severity

    @property
    def violated(self) -> bool:
        """Return whether the server violates the rule."""
        return self.verdict.status == r.VIOLATED
