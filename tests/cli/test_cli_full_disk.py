"""A disk without space: what was measured is saved elsewhere or printed, and the message says where and why."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fakes import NoSpace
from figures import result_of

from smtpbench.check.run import CheckResult
from smtpbench.cli.saving import ResultInProgress, save_result
from smtpbench.errors import CannotRun
from smtpbench.load.plan import LoadPlan
from smtpbench.load.run import RunRequest, run
from smtpbench.load.silent_observer import SilentObserver
from smtpbench.measure.partial import PARTIAL, save_partial
from smtpbench.measure.recorder import Interval
from smtpbench.measure.saved import RESULT, load
from smtpbench.rules.finding import Finding
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.session.script import Script
from smtpbench.session.transcript import CLIENT, Transcript
from smtpbench.sink.serve import sink_running
from smtpbench.target import parse_target

NO_SPACE = "no space left on device"


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary folders are made."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def finding(number: int) -> Finding:
    transcript = Transcript()
    transcript.add(0, CLIENT, b"NOOP %d\r\n" % number)
    return Finding("noop", "violation", "the server said nothing", Script("noop", ()), transcript, "check")


def result() -> dict[str, Any]:
    return result_of(Interval())


def test_result_and_findings_that_do_not_fit_are_in_a_temporary_folder(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    save_partial(result(), out)
    NoSpace(monkeypatch, out)
    save_result(result(), out, html=False, findings=[finding(1), finding(2)])
    (moved,) = temporary.iterdir()
    shown = capsys.readouterr()
    assert shown.err == f"smtpbench: {out} could not be written: {NO_SPACE}; the result is in {moved}\n"
    assert shown.out == f"saved: {moved / RESULT}\n"
    assert load(moved).result["seed"] == 7
    assert {path.stem for path in (moved / "findings").iterdir()} == {finding(1).id, finding(2).id}
    assert [path.name for path in out.iterdir()] == [PARTIAL]  # what was written before is kept, and nothing else is left


def test_findings_that_do_not_fit_beside_their_result_are_in_a_temporary_folder(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    NoSpace(monkeypatch, out, free=2)
    save_result(result(), out, html=False, findings=[finding(1), finding(2)])
    (moved,) = temporary.iterdir()
    shown = capsys.readouterr()
    assert shown.err == (
        f"smtpbench: {out / 'findings'} could not be written: {NO_SPACE}; the others are in {moved / 'findings'}\n"
    )
    assert shown.out == f"saved: {out / RESULT}\n"
    assert [path.name for path in (out / "findings").iterdir()] == [f"{finding(1).id}.yaml"]
    assert (moved / "findings" / f"{finding(2).id}.yaml").read_text() == finding(2).to_text()


def test_result_that_fits_nowhere_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    NoSpace(monkeypatch, tmp_path)
    with pytest.raises(CannotRun, match=f"the result could not be saved, it stands above: {NO_SPACE}"):
        save_result(result(), tmp_path / "out", html=False, findings=[finding(1)])
    assert json.loads(capsys.readouterr().out)["seed"] == 7


@pytest.mark.usefixtures("temporary")
def test_what_cannot_be_written_during_a_command_takes_no_space_and_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([10.0, 20.0])
    monkeypatch.setattr("smtpbench.cli.saving.time.monotonic", lambda: next(times))
    disk = NoSpace(monkeypatch, tmp_path)
    in_progress = ResultInProgress(tmp_path)
    found = CheckResult(result(), [finding(1)], stopped=False)
    in_progress.update(lambda: found)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    disk.free = 10
    in_progress.update(lambda: found)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {PARTIAL, f"{finding(1).id}.yaml"}


class Notified(SilentObserver):
    """Keeps the notifications of a run."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        super().__init__(self.texts.append)


async def test_run_whose_result_does_not_fit_keeps_its_files_together(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, observer = tmp_path / "out", Notified()
    async with sink_running() as sink:
        target = parse_target(f"smtp://127.0.0.1:{sink.port}")
        request = RunRequest(load_scenario(find_scenario("relay")), target, LoadPlan(connections=1, arrivals=5), out)
        NoSpace(monkeypatch, out, f".{RESULT}.partial")
        done = await run(request, observer)
    (name,) = os.listdir(temporary)
    moved = temporary / name
    assert done.saved == moved / RESULT
    assert observer.texts == [f"{out} could not be written: {NO_SPACE}; the result is in {moved / RESULT}"]
    assert load(moved).result["messages"]["accepted"] == 5
    assert load(moved).timeline()
    assert list(load(moved).seconds("message"))


async def test_run_that_can_write_nothing_is_in_a_temporary_folder(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, observer = tmp_path / "out", Notified()
    NoSpace(monkeypatch, out)
    async with sink_running() as sink:
        target = parse_target(f"smtp://127.0.0.1:{sink.port}")
        request = RunRequest(load_scenario(find_scenario("relay")), target, LoadPlan(connections=1, arrivals=5), out)
        done = await run(request, observer)
    assert done.saved is not None
    assert done.saved.is_relative_to(temporary)
    assert {path.name for path in done.saved.parent.iterdir()} == {RESULT, "timeline.csv", "histograms.hlog"}
    assert observer.texts[0].startswith(f"not everything could be saved: {out}/timeline.csv: No space left on device; ")
    assert observer.texts[1] == f"{out} could not be written; the result is in {done.saved}"
