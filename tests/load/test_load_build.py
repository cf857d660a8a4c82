"""The result of a run is a function of its record."""

from __future__ import annotations

import copy
import json
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from figures import busy_recorder
from jsonschema import Draft202012Validator

from smtpbench.engine.connection import Route
from smtpbench.engine.pacing import Stage
from smtpbench.load.build import build
from smtpbench.load.execute import COMPLETED, COULD_NOT_RUN, RunRecord
from smtpbench.load.meter import Collector
from smtpbench.load.plan import LoadPlan
from smtpbench.load.preflight import PreflightResult
from smtpbench.load.prepare import prepare
from smtpbench.load.request import RunRequest
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval
from smtpbench.measure.saved import totals_of
from smtpbench.measure.schema import schema_text
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.target import parse_target
from smtpbench.threshold import parse_threshold
from smtpbench.units import NS_PER_S

SCHEMA = json.loads(schema_text("result"))
OPEN = LoadPlan(
    stages=(Stage(10 * NS_PER_S, 5.0, 7.0),), warmup_ns=2 * NS_PER_S, baseline_ns=4 * NS_PER_S, seed=9, poisson=True
)


def record_of(plan: LoadPlan = OPEN, scenario: str = "relay", thresholds: tuple[str, ...] = (), **changes: Any) -> RunRecord:
    """Return the record of a run from 100 s to 112 s of the clock, with hostile sessions if it has their answer."""
    monitor = ThresholdMonitor([parse_threshold(text) for text in thresholds])
    file, target = load_scenario(find_scenario(scenario)), parse_target("smtp://127.0.0.1")
    share = 0.2 if "hostile" in changes else 0.0
    request = RunRequest(file, target, plan, Path("/nowhere"), hostile=share, monitor=monitor)
    collector = Collector(plan, 100 * NS_PER_S)
    for interval, seed in ((collector.totals, 1), (collector.baseline, 2), (collector.with_hostile, 3)):
        interval.add(busy_recorder(seed=seed).drain())
    values: dict[str, Any] = {
        "prepared": prepare(request, datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)),
        "status": COMPLETED,
        "reason": "",
        "preflight": PreflightResult(Route(2, ""), b"220 mx \x1b[2J\r\n", b"250-mx\r\n250 SIZE 9\r\n", ""),
        "collector": collector,
        "end_ns": 112 * NS_PER_S,
        "notes": (),
        "hostile": None,
        "folder": Path("/nowhere"),
        "write_errors": "",
    }
    return RunRecord(**(values | changes))


def test_sections_of_a_result() -> None:
    record = record_of(notes=("a note",), thresholds=("failed < 1%", "attempted > 5"))
    result = build(record)
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(result)))
    assert result["run_id"] == record.prepared.job.run_id
    assert result["started"] == "2026-01-02T03:04:05.678+00:00"
    assert result["target"] == {"url": "smtp://127.0.0.1:25", "banner": r"220 mx \x1b[2J", "ehlo": ["mx", "SIZE 9"]}
    load = result["load"]
    assert (load["model"], load["duration_s"], load["warmup_s"], load["window_s"]) == ("open", 10.0, 2.0, 10.0)
    assert load["stages"] == [{"duration_s": 10.0, "rate_from_per_s": 5.0, "rate_to_per_s": 7.0}]
    assert (load["arrival_process"], load["when_busy"]) == ("poisson", "wait")
    assert result["throughput"]["messages_per_s"] == result["messages"]["accepted"] / 10.0
    assert [one["passed"] for one in result["thresholds"]] == [False, True]
    assert result["notes"] == ["a note"]
    assert not {"hostile", "domains"} & result.keys()


def at_rates(*stages: tuple[int, float, float], **changes: Any) -> LoadPlan:
    """Return a plan of the open model: (seconds, rate at the start, rate at the end) of each stage."""
    return LoadPlan(stages=tuple(Stage(length_s * NS_PER_S, *rates) for length_s, *rates in stages), **changes)


@pytest.mark.parametrize(
    ("plan", "changes", "sending_s", "draining_s"),
    [
        pytest.param(at_rates((20, 0.1, 0.1)), {}, 20.0, 0.0, id="0.1/s: no arrival in the second half"),
        pytest.param(at_rates((5, 1e4, 1e4)), {}, 5.0, 7.0, id="10,000/s, and a long drain"),
        pytest.param(at_rates((4, 0.0, 9.0), (3, 9.0, 9.0)), {}, 7.0, 5.0, id="stages"),
        pytest.param(at_rates((99, 4.0, 4.0), arrivals=10), {}, 2.5, 9.5, id="-r 4/s -n 10"),
        pytest.param(at_rates((2, 4.0, 4.0), arrivals=10), {}, 2.0, 10.0, id="fewer than -n 10"),
        pytest.param(LoadPlan(duration_ns=9 * NS_PER_S), {}, 9.0, 3.0, id="closed model"),
        pytest.param(LoadPlan(duration_ns=9 * NS_PER_S, warmup_ns=2 * NS_PER_S), {}, 9.0, 1.0, id="warm-up"),
        pytest.param(LoadPlan(arrivals=10), {}, 12.0, 0.0, id="closed model with a number of messages"),
        pytest.param(LoadPlan(duration_ns=60 * NS_PER_S, arrivals=10), {}, 12.0, 0.0, id="number before the duration"),
        pytest.param(
            at_rates((60, 1.0, 1.0)), {"status": "aborted", "sending_end_ns": 107 * NS_PER_S}, 7.0, 5.0, id="aborted"
        ),
    ],
)
def test_throughput_is_over_the_sending_window(
    plan: LoadPlan, changes: dict[str, Any], sending_s: float, draining_s: float
) -> None:
    record = record_of(plan, thresholds=("throughput > 1/s",), **changes)
    record.collector.totals.accepted_late = 30
    result = build(record)
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(result)))
    assert (result["load"]["sending_s"], result["load"]["draining_s"]) == (sending_s, draining_s)
    messages = result["messages"]["accepted"] - 30
    assert result["throughput"] == {"messages": messages, "messages_per_s": messages / sending_s}
    assert result["thresholds"][0]["value"] == messages / sending_s
    assert totals_of(result).accepted_while_sending == messages


def test_record_is_not_changed() -> None:
    record = record_of(hostile={})
    record.collector.totals.examples = {"RCPT 550 \x1b": "550 \x1b[2J"}
    before = copy.deepcopy(record.collector.totals.to_data())
    first, second = build(record), build(record)
    assert first["examples"] == {r"RCPT 550 \x1b": r"550 \x1b[2J"}
    assert first == second
    assert record.collector.totals.to_data() == before


def totals(attempted: str, errors: dict[str, int], replies: dict[tuple[str, int, str, bool], int]) -> Interval:
    examples = {"RCPT 550 5.7.1": "550 5.7.1 \x1b[2Jno", "connect_refused": "port 25"}
    return Interval(Counter({attempted: 300}), Counter(replies), errors=Counter(errors), examples=examples)


@pytest.mark.parametrize(
    ("figures", "note"),
    [
        (
            totals("rejected", {"reset": 3}, {("RCPT", 550, "5.7.1", False): 290, ("MAIL", 250, "", True): 300}),
            r"Nothing was accepted, 0 of 300 messages; most often: RCPT 550 5.7.1, 290 times: 550 5.7.1 \x1b[2Jno",
        ),
        (
            totals("failed", {"connect_refused": 299, "reset": 1}, {}),
            "Nothing was accepted, 0 of 300 messages; most often: connect_refused, 299 times: port 25",
        ),
        (
            totals("interrupted", {}, {("MAIL", 250, "", True): 300}),
            "Nothing was accepted, 0 of 300 messages; no reply and no error says why.",
        ),
    ],
)
def test_run_without_an_accepted_message_says_why(figures: Interval, note: str) -> None:
    record = record_of()
    record.collector.totals = figures
    assert build(record)["notes"] == [note]


def test_run_without_messages_needs_none_to_be_accepted() -> None:
    record = record_of()
    record.collector.totals = Interval()
    assert build(record)["notes"] == []


def test_run_that_could_not_begin() -> None:
    record = record_of(status=COULD_NOT_RUN, reason="no \x1b route", preflight=None, end_ns=100 * NS_PER_S)
    result = build(record)
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(result)))
    assert result["outcome"] == {"status": "could-not-run", "reason": r"no \x1b route"}
    assert result["target"] == {"url": "smtp://127.0.0.1:25", "banner": "", "ehlo": []}
    assert (result["load"]["window_s"], result["throughput"]["messages_per_s"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("end_s", "windows_s"),
    [(112, (4.0, 6.0)), (105, (3.0, 0.0)), (101, (0.0, 0.0))],
    ids=["complete", "ended in the baseline", "ended in the warm-up"],
)
def test_windows_of_the_hostile_section(end_s: int, windows_s: tuple[float, float]) -> None:
    result = build(record_of(hostile={}, end_ns=end_s * NS_PER_S))["hostile"]
    assert (result["quiet"]["window_s"], result["beside"]["window_s"]) == windows_s
    assert (result["share_wanted"], result["share"], result["findings"], result["target_gone"]) == (0.2, 0.0, [], False)


def test_hostile_section() -> None:
    cases = {"generated": 3000, "run": 2000, "confirmed": 1, "may_have_killed_it": 0}
    answer = {"result": {"cases": cases, "findings": [], "target": {"gone": True}, "generator": {"cpu_s": 1.5}}}
    result = build(record_of(hostile=answer))
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(result)))
    hostile = result["hostile"]
    assert hostile["cases"] == cases
    assert hostile["share"] == 0.5  # 2,000 honest messages
    assert (hostile["target_gone"], hostile["cpu_s"]) == (True, 1.5)
    for phase, window_s in (("quiet", 4.0), ("beside", 6.0)):
        assert hostile[phase]["messages_per_s"] == hostile[phase]["messages"]["accepted"] / window_s
        assert hostile[phase]["latency"]["message"]["service"]["count"] > 0


def test_notes_name_what_limits_the_measurements() -> None:
    warned = PreflightResult(Route(2, ""), b"220 mx\r\n", b"250 mx\r\n", "the first session failed with reset: \x1b")
    notes = build(record_of(LoadPlan(duration_ns=NS_PER_S), "pipelined", preflight=warned))["notes"]
    assert [text.partition(" ")[0] for text in notes] == ["Closed", "Before", "The"]
    assert "coordinated omission" in notes[0]
    assert r"reset: \x1b" in notes[1]
    assert "does not offer PIPELINING" in notes[2]
    offered = PreflightResult(Route(2, ""), b"220 mx\r\n", b"250-mx\r\n250 pipelining\r\n", "")
    assert build(record_of(OPEN, "pipelined", preflight=offered))["notes"] == []


def test_domains_of_thresholds_are_a_section() -> None:
    record = record_of(thresholds=("failed@recipient.example < 1%",))
    record.collector.domains["recipient.example"] = busy_recorder(seed=4).drain()
    domains = build(record)["domains"]
    assert list(domains) == ["recipient.example"]
    assert domains["recipient.example"]["messages"]["attempted"] == 2000


@pytest.mark.parametrize("arrivals", [None, 0, 1, 9, 10, 23, 400])
@pytest.mark.parametrize(("connections", "workers"), [(10, 4), (8, 4), (3, 3), (7, 2), (5, 1)])
def test_numbers_of_the_workers_are_those_of_the_plan(connections: int, workers: int, arrivals: int | None) -> None:
    plan = LoadPlan(connections=connections, workers=workers, arrivals=arrivals)
    parts = [list(islice(plan.numbers(worker), 300 * plan.connections_of(worker))) for worker in range(workers)]
    assert all(part == sorted(part) for part in parts)
    whole = sorted(n for part in parts for n in part)
    assert whole == list(range(300 * connections if arrivals is None else arrivals))


@pytest.mark.parametrize(
    ("workers", "waited", "note"),
    [
        (1, {0: 500}, ""),
        (4, {0: 2, 2: 2}, ""),
        (
            4,
            {0: 300, 3: 1200},
            "The connections were the limit: 1,500 of 2,500 arrivals found none free. Each of the 4 workers has 2 or 3 of "
            "the 10 connections and a queue of its own (worker 0: 300, worker 3: 1,200); fewer --workers, or more "
            "--connections, wait less.",
        ),
    ],
)
def test_waits_in_the_queues_of_several_workers_are_noted(workers: int, waited: dict[int, int], note: str) -> None:
    record = record_of(at_rates((10, 250.0, 250.0), connections=10, workers=workers))
    health = record.collector.health
    health.late = Histogram.of([1000] * 1000)
    health.waited, health.waited_by_worker = sum(waited.values()), Counter(waited)
    result = build(record)
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(result)))
    assert [one for one in result["notes"] if "connections" in one] == ([note] if note else [])
    by_worker = result["generator"]["arrivals_waited_by_worker"]
    assert {worker: count for worker, count in enumerate(by_worker) if count} == waited
