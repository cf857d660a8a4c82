"""Comparison of candidates: order of the rounds, results of the runs, and early ends."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import saved_results
import trio
from fakes import NoSpace
from figures import busy_recorder, result_of
from jsonschema import Draft202012Validator

from smtpbench.load import run as loading
from smtpbench.measure.partial import PARTIAL
from smtpbench.measure.schema import schema_text
from smtpbench.scenario.comparison import validate_comparison
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.behaviour import Behaviour, parse_rule
from smtpbench.sink.mutants import MUTANTS
from smtpbench.sink.serve import sink_running
from smtpbench.study.candidates import AccessOptions, Candidate, CompareRequest, make_request
from smtpbench.study.compare import ComparisonStudy, compare, extent_text, round_order, rule_differences
from smtpbench.study.options import document_of
from smtpbench.study.progress import StudyUpdate
from smtpbench.supervisor.server_options import ServerOptions

SCHEMA = json.loads(schema_text("compared"))


def request_for(folder: Path, *ports: int, **settings: Any) -> CompareRequest:
    targets = {"target": [f"{name}=smtp://127.0.0.1:{port}" for name, port in zip("ABC", ports, strict=False)]}
    settings = {"repeats": 2, "load": {"connections": 2, "messages": 20, "warmup": "0s"}, **settings}
    options = {"with": None, "start": None, "stop": None, **targets}
    document, base_folder = document_of("relay", options, settings, "")
    return make_request(validate_comparison(document, base_folder), base_folder, AccessOptions(), folder, 7)


def with_behaviour(rule: str) -> ServerContext:
    return ServerContext(faults=Behaviour([parse_rule(rule)]))


def candidates_named(request: CompareRequest, *names: str) -> list[Candidate]:
    return [replace(request.candidates[0], name=name) for name in names]


def test_order_of_candidates_alternates_between_rounds(tmp_path: Path) -> None:
    request = request_for(tmp_path, 1, 2)
    two = [[one.name for one in round_order(candidates_named(request, "A", "B"), number)] for number in range(4)]
    assert two == [["A", "B"], ["B", "A"], ["B", "A"], ["A", "B"]]
    three = [
        "".join(one.name for one in round_order(candidates_named(request, "A", "B", "C"), number)) for number in range(6)
    ]
    assert three == ["ABC", "CBA", "BCA", "ACB", "CAB", "BAC"]
    for place in range(3):
        assert sorted(order[place] for order in three) == ["A", "A", "B", "B", "C", "C"]


@pytest.mark.parametrize(
    ("repeats", "load", "text"),
    [
        (12, {"duration": "5s", "warmup": "1s"}, "2 candidates take turns in 12 rounds: 24 runs, about 2 min 24 s"),
        (5, {"duration": "500ms", "warmup": "0s"}, "2 candidates take turns in 5 rounds: 10 runs, about 5 s"),
        (1000, {"duration": "9s", "warmup": "1s"}, "2 candidates take turns in 1,000 rounds: 2,000 runs, about 5 h 33 min"),
        (5, {"messages": 20}, "2 candidates take turns in 5 rounds: 10 runs"),
        (
            1,
            {"duration": "30s", "warmup": "0s"},
            "2 candidates take turns in 1 round: 2 runs, about 1 min 0 s; 1 round is too few for an interval; "
            "at least 5 are needed (--repeats 5)",
        ),
    ],
)
def test_comparison_says_how_long_it_takes(tmp_path: Path, repeats: int, load: dict[str, str], text: str) -> None:
    assert extent_text(request_for(tmp_path, 1, 2, repeats=repeats, load=load)) == text


def test_length_of_a_comparison_leaves_out_its_servers_and_says_so(tmp_path: Path) -> None:
    request = request_for(tmp_path, 1, 2, repeats=5, load={"duration": "2s", "warmup": "0s"})
    started = [replace(one, server=ServerOptions(start="exec true")) for one in request.candidates]
    text = "2 candidates take turns in 5 rounds: 10 runs, about 20 s"
    assert extent_text(request) == text
    assert extent_text(replace(request, candidates=started)) == f"{text} without the starts and stops of the servers"


async def test_every_run_is_made_measured_and_saved(tmp_path: Path) -> None:
    progress: list[StudyUpdate] = []
    async with sink_running() as one, sink_running(with_behaviour("message=550@30%")) as other:
        result = await compare(request_for(tmp_path, one.port, other.port), progress.append)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(result)))] == []
    assert result["outcome"]["status"] == "completed"
    assert (one.counts.accepted, other.counts.accepted + other.counts.rejected) == (40, 40)
    assert [one["runs"] for one in result["candidates"]] == [["A-01", "A-02"], ["B-01", "B-02"]]
    assert sorted(os.listdir(tmp_path)) == ["A-01", "A-02", "B-01", "B-02", PARTIAL]
    rejected = next(figure for figure in result["figures"] if figure["metric"] == "rejected")
    assert rejected["values"]["A"] == [0.0, 0.0]
    assert sum(rejected["values"]["B"]) * 20 == other.counts.rejected
    assert {entry["verdict"] for entry in result["differences"]} == {"cannot tell"}  # two rounds are too few
    assert result["notes"][0] == "2 rounds are too few for an interval; at least 5 are needed (--repeats 5)."
    assert progress[0].text.startswith("2 candidates take turns in 2 rounds: 4 runs; 2 rounds are too few for an interval")
    runs = [update for update in progress[1:] if update.milestone]
    assert [update.share for update in runs] == [0.25, 0.5, 0.75, 1.0]
    assert runs[0].text.startswith("round 1 of 2, A: throughput ")
    assert all(update.text.startswith("round ") for update in progress[1:])


async def test_candidates_are_checked_against_the_rules_if_asked_for(tmp_path: Path) -> None:
    async with sink_running() as one, sink_running(session_class=MUTANTS["eod-lf-lf"]) as other:
        result = await compare(request_for(tmp_path, one.port, other.port, repeats=1, check=True), lambda update: None)
    (entry,) = (entry for entry in result["rule_differences"] if entry["rule"] == "eod-lf-lf")
    assert entry["verdicts"] == {"A": "pass", "B": "violation"}
    assert (entry["severity"], entry["section"]) == ("security", "RFC 5321 §4.1.1.4")


def test_rule_that_all_candidates_violate_is_no_difference() -> None:
    verdicts = {"A": {"eod-lf-lf": "violation", "auth-order": "violation", "re-ehlo": "inconclusive"},
                "B": {"eod-lf-lf": "violation", "auth-order": "inconclusive", "re-ehlo": "pass"}}  # fmt: skip
    assert [entry["rule"] for entry in rule_differences(verdicts)] == ["auth-order"]
    assert rule_differences({}) == []


def test_difference_has_the_severity_of_the_gravest_violation() -> None:
    verdicts = {name: {"health": "violation", "re-ehlo": "violation"} for name in "AB"} | {"C": {}}
    severities = {"A": {"health": "security"}, "B": {"health": "hang"}, "C": {"health": "crash"}}
    entries = rule_differences(verdicts, severities)
    assert [(entry["rule"], entry["severity"]) for entry in entries] == [("health", "hang"), ("re-ehlo", "violation")]


async def test_unreachable_candidate_ends_the_comparison_and_keeps_its_runs(tmp_path: Path) -> None:
    async with sink_running() as one:
        async with sink_running() as gone:
            port = gone.port
        result = await compare(request_for(tmp_path, one.port, port), lambda update: None)
    assert result["outcome"]["status"] == "could-not-run"
    assert "nothing listens there" in result["outcome"]["reason"]
    assert result["plan"]["repeats_done"] == 0
    assert (tmp_path / "A-01" / "result.json").exists()


async def test_comparison_on_a_full_disk_has_all_its_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    NoSpace(monkeypatch, tmp_path / "out", free=12)
    progress: list[StudyUpdate] = []
    async with sink_running() as one, sink_running() as other:
        result = await compare(request_for(tmp_path / "out", one.port, other.port), progress.append)
    assert result["outcome"]["status"] == "completed"
    assert result["plan"]["repeats_done"] == 2
    assert "no space left on device" in " ".join(update.text for update in progress).lower()


class _Interrupted:
    """Stands in for `load.run`: returns prepared results, then a run that the user interrupted."""

    def __init__(self, results: Sequence[dict[str, Any]]) -> None:
        self._results = iter(results)

    async def __call__(self, request: loading.RunRequest, observer: loading.Observer) -> loading.RunResult:
        await trio.lowlevel.checkpoint()
        result = next(self._results, None)
        return loading.RunResult(result or {}, None, result is None)


async def test_interrupt_in_a_run_keeps_the_completed_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sink_running() as sink:
        study = ComparisonStudy(request_for(tmp_path, sink.port, sink.port, repeats=1), lambda update: None)
        await study.run()
        runs = [*study.runs["A"], *study.runs["B"], *study.runs["A"]]
        monkeypatch.setattr(loading, "run", _Interrupted(runs))
        result = await compare(request_for(tmp_path, sink.port, sink.port, repeats=9), lambda update: None)
    assert result["outcome"] == {"status": "interrupted", "reason": "by a signal"}
    assert (result["plan"]["repeats"], result["plan"]["repeats_done"]) == (9, 1)


async def test_interrupt_between_runs_ends_the_comparison(tmp_path: Path) -> None:
    def report_progress(update: StudyUpdate) -> None:
        if update.milestone:
            os.kill(os.getpid(), signal.SIGINT)

    async with sink_running() as sink:
        result = await compare(request_for(tmp_path, sink.port, sink.port, repeats=9), report_progress)
    assert result["outcome"]["status"] == "interrupted"
    assert result["plan"]["repeats_done"] < 9


@pytest.mark.parametrize(
    ("settings", "servers", "compared"),
    [
        ({}, (4.0, 5.0), True),
        ({}, (4.0, None), False),  # it could not be read
        ({}, (4.0,), False),  # the processes of the other server are not known
        ({"metrics": ["throughput"]}, (4.0, 5.0), False),
    ],
)
def test_cpu_time_of_the_servers_is_compared_where_both_are_known(
    tmp_path: Path, settings: dict[str, Any], servers: tuple[float | None, ...], compared: bool
) -> None:
    study = ComparisonStudy(request_for(tmp_path, 1, 2, repeats=6, **settings), lambda update: None)
    study.runs = {name: [result_of(busy_recorder(50).drain()) for _ in range(6)] for name in "AB"}
    for results, cpu_ms in zip(study.runs.values(), servers, strict=False):
        for number, result in enumerate(results):
            value = None if cpu_ms is None else cpu_ms + number / 100
            result["server"] = saved_results.server(cpu_ms_per_message=value)
            result["generator"]["limited"] = True  # server and generator share the cores
    result = study.result()
    found = {entry["metric"]: entry for entry in result["differences"]}
    assert ("server.cpu_ms_per_message" in found) is compared
    if compared:
        assert found["server.cpu_ms_per_message"]["verdict"] == "more"
        assert found["server.cpu_ms_per_message"]["better"] == "lower"
    assert not list(Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(result))))
