"""`smtpbench report`, as a user runs it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_results import HOSTILE, check_result, run_result
from junitparser import JUnitXml
from runner import run, sink, smtpbench

ALL = ("junit", "sarif", "markdown", "csv", "jsonl", "hgrm", "openmetrics")


def put(folder: Path, result: dict[str, object]) -> str:
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))
    return str(folder)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    return put(tmp_path / "mine", run_result("x"))


def test_hostile_server_text_in_every_format(tmp_path: Path) -> None:
    reply = f"550 5.7.1 {HOSTILE.replace('@', '')}"  # which the sink takes for a share
    with sink("--on", f"RCPT={reply}") as (port, _):
        target = f"smtp://127.0.0.1:{port}"
        run("relay", target, tmp_path / "run", "-c", "1", "--messages", "5", "--warmup", "0s")
        checked = smtpbench("check", "--target", target, "--out", str(tmp_path / "check"))
    assert checked.code in (0, 1)
    options = [part for name in ALL for part in (f"--{name}", str(tmp_path / f"report.{name}"))]
    done = smtpbench("report", str(tmp_path / "run"), *options, "--slot", "RCPT", GITHUB_STEP_SUMMARY="")
    assert (done.code, done.err) == (2, "smtpbench: these results hold no histogram of RCPT response; available metrics: "
                                     "EHLO, MAIL, QUIT, RSET, banner, connect, session\n"), done.err  # fmt: skip
    done = smtpbench("report", str(tmp_path / "run"), str(tmp_path / "check"), *options[:-4], *options[-2:])
    assert (done.code, done.out, done.err) == (0, "", "")
    assert {path.name for path in tmp_path.glob("report.*")} == {f"report.{name}" for name in ALL} - {"report.hgrm"}
    (of_run, of_check) = JUnitXml.fromstring((tmp_path / "report.junit").read_bytes())
    assert (of_run.name, of_check.name) == ("run: run", "check: check")
    assert "<script>" not in (tmp_path / "report.junit").read_text()


def test_results_are_shown_without_a_format(mine: str, tmp_path: Path) -> None:
    assert "no such file" in smtpbench("report", str(tmp_path / "nosuch")).err
    (tmp_path / "other").mkdir()
    shown = smtpbench("report", put(tmp_path / "checked", check_result("it went on")))
    assert (shown.code, "SECURITY eod-lf-lf" in shown.out) == (0, True)
    assert smtpbench("report", str(tmp_path / "checked"), "--fail").code == 1
    assert smtpbench("report", mine, "--fail", "--junit", "-").code == 99


def test_unwritable_file_is_one_error_and_the_others_are_written(mine: str, tmp_path: Path) -> None:
    done = smtpbench("report", mine, "--junit", str(tmp_path / "no" / "j.xml"), "--csv", "-", "--hgrm", str(tmp_path / "h"))
    assert done.code == 3
    assert done.err == f"smtpbench: the junit was not written: {tmp_path}/no/j.xml: no such file or directory\n"
    assert done.out.startswith("result,kind,started")
    assert (tmp_path / "h").exists()


def test_fifo_is_written_and_kept(mine: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-m", "smtpbench.cli.main", "report", mine, "--junit", str(fifo)]) as process:
        JUnitXml.fromstring(fifo.read_bytes())
    assert process.returncode == 0
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def test_github_annotations_and_summary(mine: str, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    done = smtpbench("report", mine, "--github", "--fail", GITHUB_STEP_SUMMARY=str(summary))
    assert done.code == 99
    assert all(line.startswith(("::error ", "::warning ")) for line in done.out.splitlines())
    assert summary.read_text().startswith("before\n## Run mine — **FAILED**\n")
    assert smtpbench("report", mine, "--github", GITHUB_STEP_SUMMARY="").out == done.out


@pytest.mark.parametrize(
    ("argv", "expected_texts"),
    [
        (("--junit", "-", "--csv", "-"), "--junit and --csv cannot both go to standard output"),
        (("--junit", "-", "--github"), "--junit and --github cannot"),
        (("--hgrm", "-", "--time", "wall"), "allowed are response, service"),
        (("--hgrm", "-", "--slot", "NOSUCH"), "no histogram of NOSUCH"),
    ],
)
def test_invalid_options_give_one_message(mine: str, argv: tuple[str, ...], expected_texts: str) -> None:
    done = smtpbench("report", mine, *argv)
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert expected_texts in done.err


def test_full_disk_is_3(mine: str) -> None:
    command = [sys.executable, "-m", "smtpbench.cli.main", "report", mine, "--markdown", "-"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "smtpbench: the output cannot be written: no space left on device\n")
