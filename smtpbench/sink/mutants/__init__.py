"""Mutants: server sessions that break exactly one rule each, to prove that the rule's probe detects it.

One module for each part, as in `rules`. Each defines `MUTANTS`: the session class by rule name.
"""

from __future__ import annotations

from smtpbench.session.server import ServerSession
from smtpbench.sink.mutants import arguments, auth, data, extensions, health, order, replies, tls

_PARTS = (replies, order, arguments, data, extensions, tls, auth, health)
MUTANTS: dict[str, type[ServerSession]] = {name: mutant for part in _PARTS for name, mutant in part.MUTANTS.items()}
