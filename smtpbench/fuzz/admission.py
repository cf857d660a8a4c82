"""How many cases run at the same time, and which run again because the server did not serve them.

Theory of operation
===================

A server that is busy greets with 421 or another refusal, or not at all, and nothing is learned from such a case. It runs
again later: after a delay that doubles each time, at most `ATTEMPTS` times in all, then it is given up.

A refusal also lowers the number of cases that run at the same time, to three quarters of those that ran. Cases that began
before the last reduction do not lower it again. Each time that many times the number of cases were served in a row, the
number rises by one, up to what the plan allows.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from smtpbench.fuzz.mutation import Mutation

#: Attempts to run a case, in all.
ATTEMPTS = 8
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 2.0
_REDUCTION = 0.75
#: The number of connections rises once this many times as many cases were served in a row.
_SERVED_PER_INCREASE = 8


class Case(NamedTuple):
    """One attempt to run a case.

    Attributes:
        number: Its number, from 0.
        mutations: What makes it a case.
        attempts: How often it was refused.
        due_s: When it may begin, in trio's time.
    """

    number: int
    mutations: tuple[Mutation, ...]
    attempts: int = 0
    due_s: float = 0.0


class Admission:
    """Decides how many cases may run, and keeps those that were refused.

    Args:
        connections: Cases that run at the same time, at most.

    Attributes:
        connections: The same, as long as the server is busy.
        lowest: Its lowest value so far.
        retried: How often a case ran again.
        given_up: Cases that were refused each time.
        refusal: What the server did in place of serving the last of the refused cases.
    """

    def __init__(self, connections: int) -> None:
        self._most = self.connections = self.lowest = connections
        self.retried = self.given_up = 0
        self.refusal = ""
        self._waiting: deque[Case] = deque()
        self._begun = 0  # attempts so far
        self._begun_at_reduction = 0
        self._served = 0  # in a row

    def begin(self) -> int:
        """Return the serial number of an attempt that begins now."""
        self._begun += 1
        return self._begun

    def serve(self) -> None:
        """Note that the server served a case."""
        self._served += 1
        if self._served >= _SERVED_PER_INCREASE * self.connections and self.connections < self._most:
            self.connections += 1
            self._served = 0

    def refuse(self, case: Case, serial: int, running: int, now_s: float, refusal: str, *, is_busy: bool = True) -> None:
        """Note that the server refused a case, which runs again later.

        Args:
            case: The case.
            serial: Serial number of the attempt.
            running: Cases that were running, this one among them.
            now_s: Time, seconds.
            refusal: What the server did.
            is_busy: Whether fewer connections help; they do not where the server is being started again.
        """
        self.refusal, self._served = refusal, 0
        if is_busy and serial > self._begun_at_reduction:
            self.connections = max(1, int(min(self.connections, running) * _REDUCTION))
            self.lowest = min(self.lowest, self.connections)
            self._begun_at_reduction = self._begun
        attempts = case.attempts + 1
        if attempts >= ATTEMPTS:
            self.given_up += 1
        else:
            delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**case.attempts)
            self._waiting.append(case._replace(attempts=attempts, due_s=now_s + delay_s))

    def next_due(self, now_s: float) -> Case | None:
        """Return a refused case that may run again now; None if there is none."""
        case = min(self._waiting, key=lambda one: one.due_s, default=None)
        if case is None or case.due_s > now_s:
            return None
        self._waiting.remove(case)
        self.retried += 1
        return case

    @property
    def is_full(self) -> bool:
        """Whether so many cases wait that no new one should begin."""
        return len(self._waiting) >= self._most

    @property
    def next_due_s(self) -> float:
        """When the next refused case may run again; infinite if none waits."""
        return min((case.due_s for case in self._waiting), default=float("inf"))

    def give_up_the_rest(self) -> None:
        """Give up the cases that still wait: the campaign begins no more cases."""
        self.given_up += len(self._waiting)
        self._waiting.clear()
