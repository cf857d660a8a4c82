"""A long campaign keeps what it found, and nothing of the cases that it ran."""

from __future__ import annotations

import tracemalloc

import pytest
from fakes import FakeRecorder, FakeScheduler

from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.mutation import command_step
from smtpbench.fuzz.oracle import Oracle
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, fuzz_target
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.session.context import SessionContext
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult
from smtpbench.session.script import Script
from smtpbench.session.transcript import CLIENT, SERVER, Transcript
from smtpbench.sink.serve import sink_running
from smtpbench.target import Access, parse_target


def queued(number: int) -> SessionResult:
    """Return a session whose only reply holds a queue id and is long."""
    transcript = Transcript()
    transcript.add(0, SERVER, b"220 mx.example ESMTP\r\n")
    transcript.add(1000, CLIENT, b"NOOP\r\n")
    transcript.add(2000, SERVER, b"250 2.0.0 Ok: queued as %d %s\r\n" % (number, b"x" * 400))
    script = Script.of("noop", (command_step(b"NOOP\r\n"),))
    context = SessionContext(script, FakeScheduler(FakeRecorder(0)), timeout_ns=10**9)
    return SessionResult(script, transcript, None, TrackedSession(context, transcript))


def growth_of_oracle(oracle: Oracle, cases: int) -> int:
    """Return by how much memory grows while that many cases are evaluated."""
    tracemalloc.start()
    for number in range(cases):
        session_result = queued(number)
        assert not oracle.evaluate(session_result, Dialogue.of(session_result.transcript), 10**9)
    growth_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return growth_bytes


def test_memory_of_exchanges_does_not_depend_on_the_number_of_cases() -> None:
    oracle = Oracle(TargetInfo(), strict=False)
    assert growth_of_oracle(oracle, 12_000) < 7_000_000


async def test_samples_of_a_campaign_are_counted_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks for a result meanwhile, as in the process of the hostile sessions."""
    counted = []
    drain = Recorder.drain

    def keep_count(recorder: Recorder) -> Interval:
        interval = drain(recorder)
        counted.append(interval.replies.total())
        return interval

    monkeypatch.setattr(Recorder, "drain", keep_count)
    plan = CampaignPlan(20, None, 1, 4, tuple(FAMILIES), 20)
    async with sink_running() as sink:
        access = Access(parse_target(f"smtp://127.0.0.1:{sink.port}"))
        fuzz_result = await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access, plan))
    replies = sum(sum(codes.values()) for codes in fuzz_result.result["replies"].values())
    assert replies > 20
    assert counted[-2:] == [0, 0]  # nothing was left for the result
