"""Comparisons and capacity searches that are resumed: what is kept, what is measured again, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from queueing import Queue

from smtpbench.check import run as check_run
from smtpbench.errors import UsageError
from smtpbench.load import run as loading
from smtpbench.load.plan import LoadPlan
from smtpbench.measure.partial import PARTIAL
from smtpbench.measure.result import save
from smtpbench.measure.saved import RESULT, load
from smtpbench.measure.schema import schema_text
from smtpbench.report.terminal.capacity import capacity_table
from smtpbench.report.terminal.comparison import comparison_table
from smtpbench.scenario.comparison import validate_comparison
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.study import candidates as comparing
from smtpbench.study import capacity as searching
from smtpbench.study.candidates import AccessOptions, CompareRequest, make_request
from smtpbench.study.capacity import CapacityRequest, capacity
from smtpbench.study.compare import compare
from smtpbench.study.options import document_of
from smtpbench.study.progress import StudyUpdate
from smtpbench.target import Access, parse_target
from smtpbench.units import NS_PER_S


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of the program handles it."""


class Runs:
    """Stands in for `load.run`: saves what a computed server would have given, and dies before one of the runs.

    Args:
        queue: The computed server.
        folder: Folder of the study.
        end: Number of the run, from 1, instead of which the process is killed; None for none.
        interrupted: Whether a signal ends that run instead.

    Attributes:
        made: Folder and seed of each run, in order.
    """

    def __init__(self, queue: Queue, folder: Path, end: int | None = None, *, interrupted: bool = False) -> None:
        self._queue, self._folder, self._end, self._interrupted = queue, folder, end, interrupted
        self.made: list[tuple[str, int]] = []

    async def __call__(self, request: loading.RunRequest, observer: loading.Observer) -> loading.RunResult:
        if len(self.made) + 1 == self._end and not self._interrupted:
            raise Killed
        done = await self._queue(request, observer)
        self.made.append((str(request.out.relative_to(self._folder)), request.plan.seed))
        interrupted = len(self.made) == self._end
        result = done.result | {"kind": "run", "schema": "smtpbench-result/1"}
        if interrupted:
            result["outcome"] = {"status": "interrupted", "reason": "by a signal"}
        return loading.RunResult(result, save(result, request.out), interrupted)


def comparison(folder: Path, scenario: str = "relay", seed: int = 7, **settings: Any) -> CompareRequest:
    settings = {"repeats": 4, "load": {"connections": 2, "messages": 20, "warmup": "0s"}, **settings}
    options: dict[str, Sequence[str] | None] = {
        "with": None, "start": None, "stop": None, "target": ["A=smtp://127.0.0.1:1", "B=smtp://127.0.0.1:2"],
    }  # fmt: skip
    document, base_folder = document_of(scenario, options, settings, "")
    return make_request(validate_comparison(document, base_folder), base_folder, AccessOptions(), folder, seed)


def search(folder: Path, **changes: Any) -> CapacityRequest:
    plan = LoadPlan(connections=100, warmup_ns=NS_PER_S, seed=7)
    access = Access(parse_target("smtp://127.0.0.1:9"))
    return replace(CapacityRequest(load_scenario(find_scenario("relay")), access, plan, [], folder), **changes)


def valid(result: dict[str, Any], schema: str) -> dict[str, Any]:
    result = json.loads(json.dumps(result))
    assert [error.message for error in Draft202012Validator(json.loads(schema_text(schema))).iter_errors(result)] == []
    return result


def ignore(update: StudyUpdate) -> None:
    pass


def leaves(error: BaseException) -> list[BaseException]:
    return [leaf for one in error.exceptions for leaf in leaves(one)] if isinstance(error, BaseExceptionGroup) else [error]


async def killed(study: Callable[[], Any]) -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011  (a nursery wraps it)
        await study()
    assert [type(leaf) for leaf in leaves(caught.value)] == [Killed]


@pytest.mark.parametrize(
    ("end", "kept", "again"),
    [
        (1, 0, ["A-01", "B-01", "B-02", "A-02", "B-03", "A-03", "A-04", "B-04"]),
        (2, 0, ["A-01", "B-01", "B-02", "A-02", "B-03", "A-03", "A-04", "B-04"]),
        (5, 2, ["B-03", "A-03", "A-04", "B-04"]),
        (6, 2, ["B-03", "A-03", "A-04", "B-04"]),
        (8, 3, ["A-04", "B-04"]),
    ],
)
async def test_killed_comparison_goes_on_with_the_first_round_that_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: int, kept: int, again: list[str]
) -> None:
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 1), tmp_path, end))
    await killed(lambda: compare(comparison(tmp_path), ignore))
    runs = Runs(Queue(0.01, 1), tmp_path)
    monkeypatch.setattr(loading, "run", runs)
    updates: list[StudyUpdate] = []
    result = valid(await compare(comparing.resumed(comparison(tmp_path), keep_seed=True), updates.append), "compared")
    assert runs.made == [(name, 7 + int(name[2:]) - 1) for name in again]
    assert result["outcome"] == {"status": "completed", "reason": ""}
    assert result["plan"]["repeats_done"] == 4
    assert [one["runs"] for one in result["candidates"]] == [
        [f"{name}-{number:02}" for number in range(1, 5)] for name in "AB"
    ]
    (resumption,) = result["resumed"]
    assert resumption["kept"] == kept
    assert f"Resumed at {resumption['at']}, after {kept} round{'' if kept == 1 else 's'}." in result["notes"]
    assert "note: Resumed at " in comparison_table(result)
    assert updates[0].text.startswith(f"resumed after {kept} of 4 rounds: {len(again)} runs left")
    assert [update.share for update in updates if update.milestone][1:] == [
        (number + 1) / len(again) for number in range(len(again))
    ]


async def test_comparison_that_is_killed_in_a_repeated_round_keeps_no_run_of_the_first_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 1), tmp_path, 4))  # in round 2, B is measured and A is not
    await killed(lambda: compare(comparison(tmp_path), ignore))
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 1), tmp_path, 1))  # nothing is measured
    await killed(lambda: compare(comparing.resumed(comparison(tmp_path), keep_seed=True), ignore))
    assert not (tmp_path / "B-02" / RESULT).exists()
    runs = Runs(Queue(0.01, 1), tmp_path)
    monkeypatch.setattr(loading, "run", runs)
    result = await compare(comparing.resumed(comparison(tmp_path), keep_seed=True), ignore)
    assert [name for name, _ in runs.made][:2] == ["B-02", "A-02"]
    assert [one["kept"] for one in result["resumed"]] == [1, 1]


async def test_comparison_ended_by_a_signal_is_resumed_with_its_start_and_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 1), tmp_path, 4, interrupted=True))
    first = await compare(comparison(tmp_path), ignore)
    save(first, tmp_path)
    assert first["outcome"]["status"] == "interrupted"
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 1), tmp_path, 2))
    request = comparing.resumed(comparison(tmp_path, seed=123), keep_seed=False)
    assert request.seed == 7
    await killed(lambda: compare(request, ignore))
    assert not (tmp_path / RESULT).exists()  # what lies there now is that of the resumed command
    assert load(tmp_path).result["started"] == first["started"]
    assert load(tmp_path).result["plan"]["repeats_done"] == 1


async def test_checks_of_an_interrupted_comparison_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Check:
        def __init__(self, most: int) -> None:
            self.ports: list[int | None] = []
            self._most = most

        async def __call__(self, request: check_run.CheckRequest, _: object) -> Any:
            if len(self.ports) == self._most:
                raise Killed
            self.ports.append(request.access.target.port)
            return check_run.CheckResult({"rules": {"eod-lf-lf": {"verdict": "pass"}}}, [], stopped=False)

    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 1), tmp_path))
    monkeypatch.setattr(check_run, "run_check", Check(1))
    await killed(lambda: compare(comparison(tmp_path, check=True), ignore))
    again, runs = Check(9), Runs(Queue(0.01, 1), tmp_path)
    monkeypatch.setattr(loading, "run", runs)
    monkeypatch.setattr(check_run, "run_check", again)
    updates: list[StudyUpdate] = []
    result = await compare(comparing.resumed(comparison(tmp_path, check=True), keep_seed=True), updates.append)
    assert (runs.made, again.ports) == ([], [2])
    assert set(result["rules"]) == {"A", "B"}
    assert updates[0].text.startswith("resumed after 4 of 4 rounds: 0 runs left;")


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"repeats": 5}, ["repeats was 4 and is 5"]),
        ({"seed": 8}, ["seed was 7 and is 8"]),
        ({"scenario": "bounces"}, ["scenario.name was ", "scenario.sha256 was "]),
        ({"load": {"connections": 3, "messages": 20, "warmup": "1s"}},
         ["candidates.A.connections was 2 and is 3", "candidates.A.warmup_s was 0.0 and is 1.0", "candidates.B.c"]),
        ({"metrics": ["throughput"]}, ["metrics was [", 'is ["throughput"]']),
        ({"size": "2KB"}, ["candidates.A.message_bytes was not given and is 2000"]),
    ],
)  # fmt: skip
async def test_other_settings_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], texts: list[str]
) -> None:
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 1), tmp_path, 4))
    await killed(lambda: compare(comparison(tmp_path), ignore))
    with pytest.raises(UsageError, match="--resume needs the options and the scenario of the interrupted command") as caught:
        comparing.resumed(comparison(tmp_path, **changes), keep_seed=True)
    assert [text for text in texts if text not in str(caught.value)] == []


async def test_order_of_candidates_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 1), tmp_path, 4))
    request = comparison(tmp_path)
    await killed(lambda: compare(request, ignore))
    with pytest.raises(UsageError, match=r'order was \["A", "B"\] and is \["B", "A"\]'):
        comparing.resumed(replace(request, candidates=request.candidates[::-1]), keep_seed=True)


async def test_complete_study_and_other_results_are_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 1), tmp_path))
    assert comparing.resumed(comparison(tmp_path), keep_seed=True).interrupted is None  # an empty folder
    result = await compare(comparison(tmp_path), ignore)
    save(result, tmp_path)
    with pytest.raises(UsageError, match="the comparison is complete; nothing is left to resume"):
        comparing.resumed(comparison(tmp_path), keep_seed=True)
    with pytest.raises(UsageError, match="no capacity search to resume; the folder holds the result of a comparison"):
        searching.resumed(search(tmp_path), keep_seed=True)
    save(result | {"outcome": {"status": "interrupted", "reason": ""}, "settings": None}, tmp_path)
    with pytest.raises(UsageError, match="does not hold the settings of the comparison"):
        comparing.resumed(comparison(tmp_path), keep_seed=True)


@pytest.mark.parametrize("end", range(1, 10))
async def test_killed_search_goes_on_as_it_would_have_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: int
) -> None:
    whole = Runs(Queue(0.01, 4), tmp_path / "whole")
    monkeypatch.setattr(loading, "run", whole)
    expected = await capacity(search(tmp_path / "whole"), ignore)
    assert len(whole.made) == 9
    folder = tmp_path / "resumed"
    first, rest = Runs(Queue(0.01, 4), folder, end), Runs(Queue(0.01, 4), folder)
    monkeypatch.setattr(loading, "run", first)
    await killed(lambda: capacity(search(folder), ignore))
    assert load(folder).path.name == PARTIAL
    monkeypatch.setattr(loading, "run", rest)
    result = valid(await capacity(searching.resumed(search(folder), keep_seed=True), ignore), "capacity")
    assert result["capacity"] == expected["capacity"]
    assert result["steps"] == json.loads(json.dumps(expected["steps"]))
    assert result["plan"] == expected["plan"]
    assert result["generator"].keys() == expected["generator"].keys()
    steps = [one for one in whole.made if one[0].startswith("step")]
    assert [one for one in [*first.made, *rest.made] if one[0].startswith("step")] == steps
    assert [one[0] for one in [*first.made, *rest.made]].count("baseline") == 1
    assert [one["kept"] for one in result["resumed"]] == [sum(one[0].startswith("step") for one in first.made)]
    assert "note: Resumed at " in capacity_table(result)


async def test_search_whose_target_was_gone_measures_the_single_connection_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_fail(rate: float) -> float:
        return 1.0

    class Failing(Queue):
        def _closed(self, request: loading.RunRequest) -> loading.RunResult:
            done = super()._closed(request)
            count = done.result["messages"]["attempted"]
            messages = {**done.result["messages"], "accepted": 0, "failed": count}
            return loading.RunResult(done.result | {"messages": messages}, None, False)

    monkeypatch.setattr(loading, "run", Runs(Failing(0.01, 4, failing=all_fail), tmp_path))
    first = await capacity(search(tmp_path), ignore)
    save(first, tmp_path)
    assert first["outcome"]["status"] == "could-not-run"
    runs = Runs(Queue(0.01, 4), tmp_path)
    monkeypatch.setattr(loading, "run", runs)
    result = await capacity(searching.resumed(search(tmp_path), keep_seed=True), ignore)
    assert runs.made[0][0] == "baseline"
    assert result["outcome"]["status"] == "completed"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"first_per_s": 10.0}, "first_rate_per_s was not given and is 10.0"),
        ({"precision_share": 0.1}, "precision_share was 0.05 and is 0.1"),
        ({"access": Access(parse_target("smtp://127.0.0.1:10"))}, "target was "),
    ],
)
async def test_search_with_other_settings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], text: str
) -> None:
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 4), tmp_path, 4))
    await killed(lambda: capacity(search(tmp_path), ignore))
    with pytest.raises(UsageError, match=text):
        searching.resumed(search(tmp_path, **changes), keep_seed=True)
    other_seed = search(tmp_path, plan=replace(search(tmp_path).plan, seed=99))
    assert searching.resumed(other_seed, keep_seed=False).plan.seed == 7
    with pytest.raises(UsageError, match="seed was 7 and is 99"):
        searching.resumed(other_seed, keep_seed=True)


async def test_damaged_result_of_a_search_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "run", Runs(Queue(0.01, 4), tmp_path, 5))
    await killed(lambda: capacity(search(tmp_path), ignore))
    partial = json.loads((tmp_path / PARTIAL).read_text())
    del partial["steps"][0]["conclusive"]
    (tmp_path / PARTIAL).write_text(json.dumps(partial))
    with pytest.raises(UsageError, match="its result is not complete"):
        await capacity(searching.resumed(search(tmp_path), keep_seed=True), ignore)
