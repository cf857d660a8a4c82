"""The time limit of a campaign: it holds whatever the server does, and what it left undone is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from saved_results import rules_result
from simulated import campaign_on

from smtpbench.engine import api
from smtpbench.fuzz.confirmation import QUIET_PERIOD
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.suspect import Suspect
from smtpbench.fuzz.time_limit import GRACE_S, TimeLimit
from smtpbench.measure.saved import FUZZ
from smtpbench.report.formats.markdown import markdown
from smtpbench.report.reading.findings import cases_of
from smtpbench.report.terminal.scorecard import findings_card
from smtpbench.sink.mutants import MUTANTS
from smtpbench.units import NS_PER_S


class _HangingSession(MUTANTS["rcpt-first"]):  # type: ignore[misc,valid-type]  # a class of the table
    """Never replies again after VRFY, EXPN or a long line, and accepts RCPT before MAIL."""

    __slots__ = ("hangs",)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        self.hangs = (
            getattr(self, "hangs", False)
            or data.startswith((b"VRFY", b"EXPN"))
            or max(map(len, data.splitlines()), default=0) > 300
        )
        return b"" if self.hangs else super().receive(data, now_ns)


@pytest.mark.parametrize("duration_s", [2, 5, 60])
def test_duration_bounds_the_whole_campaign(duration_s: int) -> None:
    stats, took_s = campaign_on(_HangingSession, duration_ns=duration_s * NS_PER_S)
    assert took_s <= duration_s + GRACE_S
    assert stats.generated == stats.run + stats.interrupted
    assert stats.suspects


def test_what_there_was_no_time_for_is_counted() -> None:
    stats, _ = campaign_on(_HangingSession, duration_ns=8 * NS_PER_S)
    texts = [suspect.reproducibility for suspect in stats.suspects.values()]
    assert stats.not_repeated == sum("the time was up" in text for text in texts) > 0
    assert "3 of 3, deterministic" in texts
    assert stats.confirmed == len(stats.suspects)
    assert all(suspect.violation and suspect.session_result.transcript.entries for suspect in stats.suspects.values())


def test_confirming_one_finding_is_bounded_without_a_duration() -> None:
    class HangsAtTheEnd(_HangingSession):
        __slots__ = ()

        def receive(self, data: bytes, now_ns: int) -> api.Out:
            return b"" if data.startswith(b"QUIT") else super().receive(data, now_ns)

    stats, took_s = campaign_on(HangsAtTheEnd, cases=60)
    plan = CampaignPlan(60, None, 1, 50, (), 50, shrink_s=6.0)
    # the cases, and for each suspect its control, its repetitions and its shrinking
    assert took_s < 60 + 3 * len(stats.suspects) * plan.confirmation_s
    assert stats.interrupted == stats.not_repeated == 0


def test_campaign_without_hangs_is_complete() -> None:
    stats, took_s = campaign_on(MUTANTS["rcpt-first"], duration_ns=300 * NS_PER_S, cases=100)
    assert took_s < 300
    assert (stats.run, stats.interrupted, stats.not_repeated, stats.not_shrunk) == (100, 0, 0, 0)
    assert [suspect.reproducibility for suspect in stats.suspects.values()] == ["3 of 3, deterministic"]


def test_time_is_kept_for_suspects() -> None:
    limit = TimeLimit(100.0, 30.0)
    assert limit.cases_end_s(0.0) == 130.0
    assert limit.cases_end_s(10.0) == 120.0
    assert limit.cases_end_s(90.0) == 115.0
    assert limit.share_of_the_rest_s(115.0) == 122.5
    assert limit.share_of_the_rest_s(115.0, 0.8) == 127.0
    assert limit.share_of_the_rest_s(130.0) == 131.0 == limit.latest_s
    assert TimeLimit(100.0).cases_end_s(30.0) == float("inf")


def test_output_says_what_there_was_no_time_for() -> None:
    counts = {"generated": 100, "run": 99, "interrupted": 1, "not_repeated": 2, "not_shrunk": 3}
    saved = rules_result(FUZZ, cases=counts)
    note = "1 case not run to the end, 2 findings not repeated, 3 findings not shrunk: the time was up"
    assert cases_of(saved).notes == [note]
    assert f"{note}.\n" in findings_card(saved.result, color=False)
    assert note in markdown([saved])


def test_reproducibility_of_an_unfinished_suspect() -> None:
    suspect = replace(_suspect(), time_up=True)
    assert suspect.reproducibility == "1 of 1, the time was up"
    assert replace(suspect, tried=2, seen=2).reproducibility == "2 of 2, the time was up"
    assert replace(suspect, tried=3, seen=3).reproducibility == "3 of 3, deterministic"


def _suspect() -> Suspect:
    return Suspect(0, None, None)  # type: ignore[arg-type]  # only its counts matter


def test_finding_of_extra_replies_waits_for_them_at_its_end() -> None:
    stats, _ = campaign_on(MUTANTS["eod-lf-crlf"], cases=300, families=("end",))
    (suspect,) = [suspect for (rule, _), suspect in stats.suspects.items() if rule == "eod-lf-crlf"]
    assert suspect.session_result.script.steps[-1] == QUIET_PERIOD
