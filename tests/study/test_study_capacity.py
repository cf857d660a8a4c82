"""Capacity searches on a simulated server: results, number of steps, and what ends them."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from jsonschema import Draft202012Validator
from queueing import Queue

from smtpbench.errors import CannotRun, UsageError
from smtpbench.load import run as loading
from smtpbench.load.plan import LoadPlan
from smtpbench.measure.health import Health
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.result import save
from smtpbench.measure.saved import CAPACITY, Saved, load
from smtpbench.measure.schema import schema_text
from smtpbench.report.terminal.capacity import capacity_table
from smtpbench.report.terminal.verdict import verdict_text
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.behaviour import Behaviour, parse_rule
from smtpbench.sink.serve import sink_running
from smtpbench.study.capacity import CapacityRequest, capacity
from smtpbench.study.progress import StudyUpdate
from smtpbench.target import Access, parse_target
from smtpbench.threshold import parse_threshold
from smtpbench.units import NS_PER_MS, NS_PER_S

SCHEMA = json.loads(schema_text("capacity"))


def request_for(folder: Path, *slo: str, port: int = 9, **changes: Any) -> CapacityRequest:
    plan = LoadPlan(connections=100, warmup_ns=NS_PER_S, seed=7)
    access = Access(parse_target(f"smtp://127.0.0.1:{port}"))
    request = CapacityRequest(load_scenario(find_scenario("relay")), access, plan, list(map(parse_threshold, slo)), folder)
    return replace(request, **changes)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that searches on a simulated queue and checks that the result is valid and can be shown."""

    async def on(queue: Queue, *slo: str, **changes: Any) -> dict[str, Any]:
        monkeypatch.setattr(loading, "run", queue)
        result = await capacity(request_for(tmp_path, *slo, **changes), lambda update: None)
        assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(result)))] == []
        assert load(save(result, tmp_path)).kind == CAPACITY
        assert capacity_table(result)
        return result

    return on


@pytest.mark.parametrize(("service_s", "workers"), [
    (0.010, 4), (0.005, 1), (0.0123, 7), (0.002, 3), (0.050, 2), (0.200, 4), (0.0007, 1), (0.03, 17),
])  # fmt: skip
async def test_capacity_is_within_the_precision_of_the_true_limit(search: Any, service_s: float, workers: int) -> None:
    queue = Queue(service_s, workers)
    result = await search(queue, "message.p99<1s")
    found = result["capacity"]
    assert found["limited_by"] == "objective"
    assert found["rate_per_s"] == pytest.approx(queue.limit_per_s, rel=0.05)
    assert found["rate_per_s"] < queue.limit_per_s * 1.0125 < found["failed_rate_per_s"] * 1.0125
    assert found["precision_share"] <= 0.05
    assert len(result["steps"]) <= 12
    assert result["steps"][-1]["purpose"] == "confirm"


@pytest.mark.parametrize("precision_share", [0.02, 0.1, 0.3])
async def test_search_reaches_the_requested_precision(search: Any, precision_share: float) -> None:
    result = await search(Queue(0.01, 4), precision_share=precision_share, first_per_s=37.0)
    assert result["capacity"]["rate_per_s"] == pytest.approx(400, rel=precision_share)
    assert result["capacity"]["precision_share"] <= precision_share
    assert len(result["steps"]) <= 12


async def test_poisson_arrivals_and_random_service_times(search: Any) -> None:
    queue = Queue(0.004, 4, random_work=True)
    plan = LoadPlan(connections=100, warmup_ns=NS_PER_S, seed=3, poisson=True)
    result = await search(queue, plan=plan)
    assert result["capacity"]["rate_per_s"] == pytest.approx(1000, rel=0.1)
    assert result["plan"]["arrival_process"] == "poisson"


async def test_latency_objective_limits_before_the_backlog_grows(search: Any) -> None:
    queue = Queue(0.010, 1, random_work=True)  # M/M/1: p99 of the response is ln(100) / (μ - λ)
    plan = LoadPlan(connections=100, warmup_ns=NS_PER_S, seed=3, poisson=True)
    result = await search(queue, "message.p99<100ms", step_s=50.0, plan=plan)
    assert result["capacity"]["rate_per_s"] == pytest.approx(100 - 4.605 / 0.1, rel=0.2)
    assert result["capacity"]["limited_by"] == "objective"
    assert len(result["steps"]) <= 20


async def test_stalls_cost_steps_but_no_precision(search: Any) -> None:
    steady = await search(Queue(0.01, 4), "message.p99<100ms", first_per_s=100.0)
    stalled = await search(Queue(0.01, 4, stalls=(3, 6, 10)), "message.p99<100ms", first_per_s=100.0)
    assert [step["held"] for step in stalled["steps"]] != [step["held"] for step in steady["steps"]]
    assert stalled["capacity"]["rate_per_s"] == steady["capacity"]["rate_per_s"]
    assert len(steady["steps"]) < len(stalled["steps"]) <= 12  # including two repetitions of one rate


async def test_saturated_generator_is_named_as_the_limit(search: Any) -> None:
    def busy(rate: float) -> Health:
        return Health(busiest_share=min(1.0, rate / 300))

    result = await search(Queue(0.01, 3, health=busy), "message.p99<100ms")
    found = result["capacity"]
    assert found["limited_by"] == "generator"
    assert found["rate_per_s"] == pytest.approx(300, rel=0.05)
    assert found["reason"].startswith("at least ")
    assert "GENERATOR LIMITED: the capacity is at least " in verdict_text(Saved(CAPACITY, result, Path()))
    assert {step["limited_by"] for step in result["steps"] if not step["held"]} == {"generator"}


async def test_delayed_generator_still_finds_the_limit_of_the_server(search: Any) -> None:
    def starved(rate: float) -> Health:
        return Health(busiest_share=0.2, starved_share=0.3, late=Histogram.of([NS_PER_MS]))

    result = await search(Queue(0.01, 4, health=starved))
    assert all(step["generator_limited"] for step in result["steps"])
    assert result["capacity"]["limited_by"] == "objective"
    assert result["capacity"]["rate_per_s"] == pytest.approx(400, rel=0.05)


async def test_busy_connections_are_named_as_the_limit(search: Any) -> None:
    result = await search(Queue(0.05, 50, connections=10), first_per_s=50.0)
    found = result["capacity"]
    assert found["limited_by"] == "connections"
    assert found["rate_per_s"] == pytest.approx(200, rel=0.05)
    assert "use more connections (-c)" in next(step["why"] for step in result["steps"] if not step["held"])


async def test_search_ends_at_the_highest_rate_allowed(search: Any) -> None:
    result = await search(Queue(0.001, 4), first_per_s=100.0, max_rate_per_s=350.0)
    assert [step["rate_per_s"] for step in result["steps"]] == [100, 200, 350, 350]
    found = result["capacity"]
    assert (found["rate_per_s"], found["failed_rate_per_s"], found["limited_by"]) == (350, None, "max-rate")


async def test_no_rate_passes(search: Any) -> None:
    result = await search(Queue(0.1, 1, failing=lambda rate: 0.5))
    found = result["capacity"]
    assert (found["rate_per_s"], found["limited_by"]) == (None, "objective")
    assert found["reason"].startswith("the lowest rate tried, 0.1")
    assert "FAILED: no rate met the objectives: " in verdict_text(Saved(CAPACITY, result, Path()))
    above = await search(Queue(0.1, 1), first_per_s=50.0)
    assert (above["capacity"]["rate_per_s"], above["capacity"]["failed_rate_per_s"]) == (None, 50)
    assert len(above["steps"]) == 1


async def test_failed_messages_limit_the_capacity(search: Any) -> None:
    result = await search(Queue(0.001, 8, failing=lambda rate: 0.2 if rate > 1234 else 0.0), step_s=2.0)
    assert 1234 / 1.05 < result["capacity"]["rate_per_s"] <= 1234
    assert result["capacity"]["limited_by"] == "objective"


async def test_search_goes_below_the_rate_of_a_single_connection_if_that_fails(search: Any) -> None:
    result = await search(Queue(0.001, 1, failing=lambda rate: 0.2 if rate > 40 else 0.0))
    assert [step["rate_per_s"] for step in result["steps"]][:3] == [1000, 250, 62.5]
    assert 40 / 1.05 < result["capacity"]["rate_per_s"] <= 40


async def test_signal_keeps_the_completed_steps(search: Any) -> None:
    def on_run(number: int) -> None:
        if number == 4:
            os.kill(os.getpid(), signal.SIGINT)

    result = await search(Queue(0.01, 4, on_run=on_run), precision_share=0.005)
    assert result["outcome"] == {"status": "interrupted", "reason": "by a signal"}
    assert result["steps"]
    assert result["steps"][-1]["purpose"] != "confirm"
    assert result["capacity"]["limited_by"] == "nothing"
    assert result["capacity"]["rate_per_s"] is not None


async def test_target_that_disappears_ends_the_search_with_the_completed_steps(search: Any) -> None:
    def on_run(number: int) -> None:
        if number == 3:
            raise CannotRun("cannot use it: nothing listens there")

    result = await search(Queue(0.01, 4, on_run=on_run))
    assert result["outcome"]["status"] == "could-not-run"
    assert len(result["steps"]) == 1


class SlowToRecover(Queue):
    """A queue that is slow for a number of single-connection runs after the first step."""

    def __init__(self, times: int) -> None:
        super().__init__(0.01, 4)
        self.times = times

    def _closed(self, request: loading.RunRequest) -> loading.RunResult:
        slow = len(self.requests) > 1 and self.times > 0
        self.times -= slow
        self.service_s = 0.5 if slow else 0.01
        try:
            return super()._closed(request)
        finally:
            self.service_s = 0.01


@pytest.mark.parametrize(("times", "waited_s"), [(0, 0.0), (3, 0.25 + 0.5 + 1.0), (99, 2 * 0.25 * 63)])
async def test_search_waits_for_a_busy_server_for_a_limited_time(
    search: Any, autojump_clock: trio.testing.MockClock, times: int, waited_s: float
) -> None:
    queue = SlowToRecover(times)
    started_s = trio.current_time()
    result = await search(queue)
    assert trio.current_time() - started_s == pytest.approx(waited_s)
    assert result["capacity"]["rate_per_s"] == pytest.approx(400, rel=0.05)
    rates = [request.plan.stages[0].rate_from_per_s for request in queue.requests if request.plan.stages]
    assert rates == [step["rate_per_s"] for step in result["steps"]]


async def test_own_objectives_replace_the_default_ones(search: Any) -> None:
    added = await search(Queue(0.01, 4), "message.p99<100ms")
    assert added["plan"]["objectives"] == ["message.p99 < 100ms", "dropped <= 0", "failed < 0.1%", "rejected < 0.1%"]
    own = await search(Queue(0.01, 4), "failed<5%")
    assert own["plan"]["objectives"] == ["failed < 5%", "dropped <= 0", "rejected < 0.1%"]


def test_contradictory_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is about the rate"):
        request_for(tmp_path, "throughput>450/s")
    with pytest.raises(UsageError, match="is above the highest rate"):
        request_for(tmp_path, first_per_s=10.0, max_rate_per_s=5.0)


async def test_search_on_a_real_sink(tmp_path: Path) -> None:
    progress: list[StudyUpdate] = []
    async with sink_running(ServerContext(faults=Behaviour([parse_rule("message=serve:1ms/4")]))) as sink:
        plan = LoadPlan(connections=10, seed=7)
        rates = {"first_per_s": 40.0, "max_rate_per_s": 60.0, "step_s": 0.5, "precision_share": 0.3}
        request = request_for(tmp_path, port=sink.port, plan=plan, **rates)
        result = await capacity(request, progress.append)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(result)))] == []
    assert result["outcome"]["status"] == "completed"
    assert {step["rate_per_s"] for step in result["steps"]} == {40, 60}
    steps = [update for update in progress if update.milestone and update.text.startswith("step ")]
    assert len(steps) == len(result["steps"])
    assert steps[-1].remaining_s == 0.0
    attempted = sum(step["accepted"] for step in result["steps"])
    assert 0 < attempted < sink.counts.accepted  # messages of the baseline are not counted
    assert "220 sink.example" in result["target"]["banner"]
    for step in result["steps"]:
        assert load(tmp_path / step["folder"]).result["messages"]["accepted"] == step["accepted"]


async def test_server_that_accepts_nothing_ends_the_search(tmp_path: Path) -> None:
    async with sink_running(ServerContext(faults=Behaviour([parse_rule("message=drop")]))) as sink:
        result = await capacity(request_for(tmp_path, port=sink.port), lambda update: None)
    assert result["outcome"]["status"] == "could-not-run"
    assert "all of the first" in result["outcome"]["reason"]
    assert result["steps"] == []
