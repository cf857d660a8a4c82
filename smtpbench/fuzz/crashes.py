"""What a campaign reports of crashes: what was proved, and what may have been the cause where nothing can be proved.

One crash is one finding. What the rules say of the ends of the sessions that it cut off is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

import trio

from smtpbench.engine import api
from smtpbench.fuzz.crash_search import CrashSearch
from smtpbench.fuzz.losses import END_RULES, CutOffCase, Loss, Losses, last_verb, likelihood
from smtpbench.fuzz.suspect import MAX_CANDIDATES, CampaignStats, Suspect
from smtpbench.fuzz.target_health import TargetHealth
from smtpbench.fuzz.time_limit import TimeLimit
from smtpbench.rules import rule as r
from smtpbench.rules.crash import is_cut_off
from smtpbench.rules.reply_tracker import Violation
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script

#: Time for finding the cases that kill the target, in times that shrinking one may take.
_SEARCHES: Final = 2
#: Share of the time that is left for it, where connections were refused after cases were cut off.
_SEARCH_SHARE: Final = 0.8
#: Causes of crashes that are not proved.
_DIED: Final = "the server died"
_GONE: Final = "the target is gone"
#: Later than any loss, nanoseconds.
_ALL_NS: Final = 1 << 62


class CrashFindings:
    """Collects the traces of crashes, and turns them into suspects.

    Args:
        stats: The suspects of the campaign.
        script: The scenario, unchanged.
        search: Repeats cases that may kill the target.
        health: Knows whether the target is gone.
        losses: The cases that were cut off.
        latest: The latest cases, for a target that dies or hangs without cutting off any.
        shrink_s: Time for shrinking one suspect, seconds.
    """

    def __init__(
        self,
        stats: CampaignStats,
        script: Script,
        search: CrashSearch,
        health: TargetHealth,
        losses: Losses,
        latest: deque[CutOffCase],
        shrink_s: float,
    ) -> None:
        self._stats = stats
        self._script = script
        self._search = search
        self._health = health
        self._losses = losses
        self._latest = latest
        self._shrink_s = shrink_s
        self._proved = False
        #: verb that the server was processing → the first case that was cut off then, alone
        self._closed: dict[str, CutOffCase] = {}

    def settle(self, now_ns: int) -> None:
        """Record the cases that were cut off and are no trace of a crash."""
        sudden, known = self._losses.sudden, len(self._losses.sudden)
        for case in self._losses.settle(now_ns):
            self._stats.add(*case)
            self._closed.setdefault(last_verb(case.session_result), case)
        if len(sudden) > known and sudden[-1].refused:  # until the cause is found, and if the command is killed before
            self._add_unproved_crash(sudden[-1], _DIED, "it was started again")

    @property
    def search_s(self) -> float:
        """What finding the cases that killed the target is likely to take, seconds."""
        return _SEARCHES * self._shrink_s if self._losses.sudden else 0.0

    async def find(
        self, slow_ns: int, limit: TimeLimit, *, recorded: bool = False, proved: Mapping[str, Suspect] | None = None
    ) -> None:
        """Find the cases that killed the target, and record what else was cut off.

        Args:
            slow_ns: Limit for a reply in a search, nanoseconds.
            limit: When the campaign ends.
            recorded: Whether the end of a target that is gone is recorded already.
            proved: Verb that the target was processing when it died → the suspect that was proved already. A death that
                nobody noticed, because others started the target again at once, has the same cause.
        """
        self.settle(_ALL_NS)
        self._proved = bool(proved)
        if self._stats.suspects.pop(("health", _DIED), None) is not None:
            self._stats.crash_candidates = []
        sudden, now_s = self._losses.sudden, trio.current_time()
        latest_s = limit.share_of_the_rest_s(now_s, _SEARCH_SHARE if any(loss.refused for loss in sudden) else 0.5)
        deadline_s = min(now_s + _SEARCHES * self._shrink_s, latest_s)
        loss, known = sudden[-1] if sudden else Loss(), dict(proved or {})
        unexplained = list(sudden)
        if not self._losses.deaths_are_known:
            unexplained.append(Loss([*self._closed.values()]))
        with trio.move_on_at(latest_s):
            for one in () if self._health.gone else tuple(unexplained):
                found = -1
                # a loss is one death, and the cases that were cut off alone may be several
                while not (self._health.gone or found == len(known) or (one.sudden and found >= 0)):
                    found = len(known)
                    await self._explain(one, known, slow_ns, deadline_s)
                if self._health.gone:
                    loss = one
                    break
                unexplained.remove(one)
        if not self._health.gone:
            for one in unexplained:  # the time was up
                self._add_loss(one, known, searched=False)
        self._drop_ends_of_crashes(known)
        self._stats.target_gone = self._health.gone
        if self._health.gone and not (known or recorded):
            for weak in sudden:
                if weak is not loss and not weak.refused:
                    self._record(weak)
            self._add_gone(loss)

    async def _explain(self, loss: Loss, known: dict[str, Suspect], slow_ns: int, deadline_s: float) -> None:
        """Find which case of a loss kills the target.

        Args:
            loss: The loss.
            known: Verb that the target was processing when it died → the suspect that was proved.
            slow_ns: See `find`.
            deadline_s: When no search begins any more, time of trio.
        """
        unknown = [case for case in loss.cases if last_verb(case.session_result) not in known]
        if self._proved and len(unknown) < len(loss.cases):
            self._add_loss(loss, known, searched=True)
            return
        fatal = await self._search.find(unknown, slow_ns) if unknown and trio.current_time() < deadline_s else None
        if fatal is not None:
            shrink_s = min(self._shrink_s, max(0.0, deadline_s - trio.current_time()))
            causes = {suspect.violation.cause for suspect in known.values()}
            suspect = await self._search.prove(fatal, slow_ns, shrink_s, causes)
            # the command that kills it, as it was drawn and as it was shrunk
            stored = self._add_crash(suspect)
            known |= {last_verb(one.session_result): stored for one in (fatal, suspect)}
            return
        if not self._health.gone:
            self._add_loss(loss, known, searched=trio.current_time() < deadline_s)

    def _add_loss(self, loss: Loss, known: dict[str, Suspect], *, searched: bool) -> None:
        """Record a loss of which no case was found to kill the target. `known`: see `_explain`."""
        if not loss.sudden:
            return
        verbs = [last_verb(case.session_result) for case in loss.cases]
        explained = next((known[verb] for verb in verbs if verb in known), None)
        if explained is not None:
            explained.hits += 1
        elif loss.refused and known and not searched:
            pass  # nobody looked for its cause, and a crash is known
        elif loss.refused:
            self._add_unproved_crash(loss, _DIED, "it was started again")
        else:
            self._record(loss)

    def _record(self, loss: Loss) -> None:
        """Record cases that were cut off at the same moment although the target did not die."""
        for case in loss.cases:
            self._stats.add(*case)

    def _drop_ends_of_crashes(self, known: dict[str, Suspect]) -> None:
        """Drop suspects that only say how a session ended in which the server died."""
        suspects = self._stats.suspects
        for key, suspect in list(suspects.items()):
            verb = last_verb(suspect.session_result)
            if key[0] in END_RULES and verb in known and is_cut_off(Dialogue.of(suspect.session_result.transcript)):
                del suspects[key]
                known[verb].hits += suspect.hits - 1
                for closed_after, case in self._closed.items():
                    if closed_after not in known:
                        self._stats.add(*case)

    def _add_crash(self, suspect: Suspect) -> Suspect:
        """Record a case that kills the target, and return the suspect that stands for it."""
        known = self._stats.suspects.setdefault((suspect.violation.rule, suspect.violation.cause), suspect)
        known.hits += known is not suspect
        return known

    def _add_gone(self, loss: Loss) -> None:
        """Record that the target is gone."""
        latest = [*self._latest]
        if self._health.hung:
            # the sessions without a reply are one hang, and it began with the first of them
            results = [case.session_result for case in latest]
            for key, suspect in list(self._stats.suspects.items()):
                if suspect.violation.severity == r.HANG and suspect.session_result in results:
                    del self._stats.suspects[key]
            waiting = [case for case in latest if Dialogue.of(case.session_result.transcript).end_reason == api.TIMEOUT]
            latest = waiting or latest
        latest.sort(key=lambda case: likelihood(case.session_result, self._script), reverse=True)
        cases = latest if self._health.hung or not loss.cases else loss.cases
        cut_off = max(loss.cut_off, len(cases))
        self._add_unproved_crash(Loss(cases, cut_off), _GONE, "it did not come back")

    def _add_unproved_crash(self, loss: Loss, cause: str, afterwards: str) -> None:
        """Record a crash whose cause cannot be proved: the likeliest case, and the others as candidates."""
        if not loss.cases:
            return
        likeliest, *others = loss.cases
        hung = self._health.gone and self._health.hung
        what = "stopped to greet, and accepts connections" if hung else "died"
        cases = (
            "this session was the only one at that moment"
            if loss.cut_off < 2
            else (f"of the {loss.cut_off} sessions at that moment, this one is the likeliest cause")
        )
        violation = Violation(
            "health", f"the server {what}; {afterwards}; {cases}; this is not proved", cause, r.HANG if hung else r.CRASH
        )
        suspect = Suspect(likeliest.number, likeliest.session_result, violation, unproved=True)
        earlier = self._stats.suspects.get(("health", cause))
        suspect.hits += earlier.hits if earlier is not None else 0
        self._stats.suspects["health", cause] = suspect
        self._stats.crash_candidates = [case.session_result for case in others[:MAX_CANDIDATES]]
