"""Mutants: server sessions that break exactly one rule each, to prove that the rule's probe sees it.

One file a part, as in `rules`; each holds `MUTANTS`, rule name → session class.
"""

from __future__ import annotations

from smtpbench.session.server import ServerSession
from smtpbench.sink.mutants import data, health

MUTANTS: dict[str, type[ServerSession]] = {**data.MUTANTS, **health.MUTANTS}
