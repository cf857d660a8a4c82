"""A worker that is lost: what it had reported stays, the result says what is missing, and nobody compares the run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from figures import busy_recorder
from jsonschema import Draft202012Validator
from runner import sink

from smtpbench.cli.main import call
from smtpbench.engine.pacing import Stage
from smtpbench.errors import CannotRun
from smtpbench.load import worker_processes
from smtpbench.load.lost_worker import LostWorker, planned_messages
from smtpbench.load.meter import Meter
from smtpbench.load.plan import LoadPlan
from smtpbench.load.recorders import Recorders
from smtpbench.load.request import RunResult
from smtpbench.load.silence import ReplyMonitor
from smtpbench.measure.schema import schema_text
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.units import NS_PER_S

#: A worker that reports once and then kills itself, or ends in good order.
WORKER = """
import json, os, signal, sys
number = json.loads(sys.stdin.readline())["worker"]
print(json.dumps({"ready": True}), flush=True)
start_ns = json.loads(sys.stdin.readline())["start_ns"]
report = json.loads(open(%r).read())
report |= {"worker": number, "end_ns": start_ns + 1_500_000_000}
print(json.dumps({"report": report}), flush=True)
if number in %r:
    os.kill(os.getpid(), signal.SIGKILL)
print(json.dumps({"end_ns": start_ns + 2_000_000_000}), flush=True)
"""


def write_report(path: Path) -> int:
    """Write a report of a worker, and return how many messages it counts."""
    recorders = Recorders(0)
    recorders.steady = busy_recorder(seed=1)
    scheduler = SimpleNamespace(late_ns=[], waited=0, sessions=[], busy=0, waiting=0, connections_peak=1)
    scheduler.unanswered = lambda now_ns: iter(())
    shard = SimpleNamespace(take_read_delays=list, clock_steps=0)
    stands_in: Any = SimpleNamespace(
        scheduler=scheduler, recorders=recorders, shard=shard, start_ns=0, reply_monitor=ReplyMonitor(recorders)
    )

    async def read() -> Any:
        return await Meter(0).read(stands_in, NS_PER_S, 0)

    report = trio.run(read)
    path.write_text(json.dumps(report.to_data()))
    return int(report.measured_messages)


def run_with_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...], *options: str
) -> tuple[int, dict[str, Any], int]:
    """Run two workers of which some are lost; return exit code, result, and the messages that each had counted."""
    counted = write_report(tmp_path / "report.json")
    code = WORKER % (str(tmp_path / "report.json"), lost)
    monkeypatch.setattr(worker_processes, "COMMAND", (sys.executable, "-c", code))
    out = tmp_path / "out"
    with sink() as (port, _):
        target = ("--target", f"smtp://127.0.0.1:{port}")
        with pytest.raises(SystemExit) as end:
            raise SystemExit(
                _exit_code("run", "relay", *target, "--workers", "2", "--out", str(out), "--progress", "none", *options)
            )
    return int(end.value.code or 0), json.loads((out / "result.json").read_text()), counted


def _exit_code(*arguments: str) -> int:
    from smtpbench.cli.exit_codes import exit_code_of  # replaces the standard streams

    return exit_code_of(lambda: call(list(arguments)))


def test_lost_worker_makes_the_run_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result, counted = run_with_lost(tmp_path, monkeypatch, (1,), "-r", "10000/s", "-d", "10s")
    assert code == 4
    assert result["outcome"]["status"] == "incomplete"
    assert "worker 1 was killed by SIGKILL, its last report is of 1.5 s" in result["outcome"]["reason"]
    assert result["messages"]["attempted"] == 2 * counted  # what the dead worker had reported is kept
    assert result["lost_workers"] == [
        {
            "worker": 1, "cause": "worker 1 was killed by SIGKILL", "last_report_s": 1.5, "messages_counted": counted,
            "messages_planned": 50_000, "messages_unissued": 50_000 - counted,
        }
    ]  # fmt: skip
    assert list(Draft202012Validator(json.loads(schema_text("result"))).iter_errors(result)) == []
    assert "INCOMPLETE: worker 1 was killed by SIGKILL" in capsys.readouterr().out


def test_result_is_saved_if_all_workers_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, result, counted = run_with_lost(
        tmp_path, monkeypatch, (0, 1), "-c", "2", "-d", "10s", "--threshold", "failed<0.1%"
    )
    assert code == 4
    assert result["outcome"]["status"] == "incomplete"
    assert result["messages"]["attempted"] == 2 * counted
    assert [one["worker"] for one in result["lost_workers"]] == [0, 1]
    # a length of time, and not a number of messages, is what is missing
    assert {one["messages_unissued"] for one in result["lost_workers"]} == {None}


def test_worker_that_is_lost_before_the_start_is_no_reason_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "COMMAND", (sys.executable, "-c", "raise SystemExit(7)"))
    with sink() as (port, _):
        target = ("--target", f"smtp://127.0.0.1:{port}")
        arguments = ("run", "relay", *target, "--workers", "2", "--out", str(tmp_path), "--progress", "none", "-n", "2")
        assert _exit_code(*arguments) == 3
    assert json.loads((tmp_path / "result.json").read_text())["outcome"]["status"] == "could-not-run"


@pytest.mark.parametrize(
    ("plan", "messages"),
    [
        (LoadPlan(stages=(Stage(3 * NS_PER_S, 10.0, 10.0),), workers=2), [15, 15]),
        (LoadPlan(stages=(Stage(3 * NS_PER_S, 10.0, 10.0),), workers=2, warmup_ns=NS_PER_S), [15, 15]),
        (LoadPlan(stages=(Stage(3 * NS_PER_S, 10.0, 10.0),), workers=2, arrivals=7), [4, 3]),
        (LoadPlan(arrivals=11, workers=2), [6, 5]),
        (LoadPlan(duration_ns=NS_PER_S, workers=2), [None, None]),
    ],
)
def test_share_of_a_worker_is_counted_to_the_message(plan: LoadPlan, messages: list[int | None]) -> None:
    script = compile_scenario(load_scenario(find_scenario("relay")), CompileOptions())
    assert [planned_messages(plan, script, worker) for worker in range(2)] == messages


@pytest.mark.parametrize(
    ("status", "cause"), [(-9, "was killed by SIGKILL"), (-99, "was killed by signal 99"), (1, "ended with status 1")]
)
def test_cause_of_a_lost_worker(status: int, cause: str) -> None:
    lost = LostWorker(3, status, 0, 0)
    assert lost.describe(None) == f"worker 3 {cause}, without a report; the rest of its share was not issued"


def test_studies_refuse_an_incomplete_run() -> None:
    RunResult({}, None, interrupted=False).require_complete()
    with pytest.raises(CannotRun, match="a run is incomplete: worker 1 was killed"):
        RunResult({}, None, interrupted=False, incomplete="worker 1 was killed").require_complete()
