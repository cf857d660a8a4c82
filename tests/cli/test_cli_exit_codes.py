"""How commands end: closed pipes, full disks, narrow encodings, Ctrl-C and bugs, and never a traceback."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import runner
import typer

from smtpbench.cli import exit_codes
from smtpbench.errors import CannotRun, UsageError

COMMAND = [sys.executable, "-m", "smtpbench.cli.main"]


def done(shell: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, where `$smtpbench` is the command, to its end."""
    environment = {**os.environ, "smtpbench": " ".join(COMMAND), **env}
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=environment, check=False, timeout=60)


def raising(error: BaseException) -> int:
    """The exit code of a command that raises it."""

    def command() -> None:
        raise error

    return exit_codes.exit_code_of(command)


@pytest.mark.parametrize("arguments", ["rules", "--help", "schema result", "run --help", "validate relay"])
def test_a_reader_that_has_gone(arguments: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [*COMMAND, *arguments.split()], stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (141, "")


@pytest.mark.parametrize("arguments", ["rules", "--help", "schema", "validate relay"])
def test_a_full_disk(arguments: str) -> None:
    ended = done(f"$smtpbench {arguments} > /dev/full")
    assert ended.returncode == 3
    assert ended.stderr == "smtpbench: the output cannot be written: no space left on device\n"


def test_what_was_measured_is_saved_whatever_becomes_of_the_output(tmp_path: Path) -> None:
    with runner.sink("--mutant", "eod-lf-crlf") as (port, _):
        target = f"-t smtp://127.0.0.1:{port}"
        for progress in ("plain", "live"):
            folder = tmp_path / progress
            ended = done(f"$smtpbench run relay {target} -n 20 -o {folder} --progress {progress} >/dev/full 2>/dev/full")
            assert ended.returncode == 3
            assert json.loads((folder / "result.json").read_text())["messages"]["accepted"] == 20
        failed = f"--threshold 'rejected>5' -o {tmp_path / 'failed'}"
        assert done(f"$smtpbench run relay {target} -n 20 {failed} >/dev/full 2>&1").returncode == 99
        ended = done(f"$smtpbench check eod-lf-crlf {target} --out {tmp_path / 'check'} >/dev/full")
        assert ended.returncode == 1
        assert (tmp_path / "check" / "result.json").exists()


def test_errors_onto_a_full_disk() -> None:
    assert done("$smtpbench rnu 2> /dev/full").returncode == 2
    assert done("$smtpbench rnu > /dev/full 2>&1").returncode == 2


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), ("<&-", 0), (">&- 2>&- <&-", 0)])
def test_closed_descriptors(closed: str, code: int, tmp_path: Path) -> None:
    ended = done(f"cd {tmp_path} && $smtpbench demo -d 1s -r 20/s --out out {closed}", PYTHONPATH=os.getcwd())
    assert (ended.returncode, ended.stderr if "2" not in closed else "") == (code, ended.stderr)
    assert "Traceback" not in ended.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["messages"]["accepted"] == 20


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_narrow_encoding(encoding: str, tmp_path: Path) -> None:
    scenario = tmp_path / "Ω→.yaml"
    scenario.write_text("session: [NOOP]\nabout: 'α…'\n", encoding="utf-8")
    for arguments in ("run --help", f"validate {scenario}", f"run '{scenario}x' -t smtp://127.0.0.1:1"):
        ended = subprocess.run(
            ["bash", "-c", f"{' '.join(COMMAND)} {arguments}"],
            capture_output=True, check=False, timeout=60,
            env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "LC_ALL": "C"},
        )  # fmt: skip
        assert ended.returncode == (2 if "yamlx" in arguments else 0), ended.stderr
        assert b"Traceback" not in ended.stderr


def test_what_an_encoding_cannot_hold_is_spelled_out() -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii", exit_codes.ASCII_ERRORS)
    text = json.dumps({"a → b…": "é 😀 \udcff ×"}, ensure_ascii=False)
    out.write(text)
    out.flush()
    written = out.buffer.getvalue() if isinstance(out.buffer, io.BytesIO) else b""
    assert json.loads(written) == {"a -> b...": "é 😀 \udcff x"}


def test_ctrl_c_outside_a_run(tmp_path: Path) -> None:
    fifo = tmp_path / "f.yaml"
    os.mkfifo(fifo)
    process = runner.start("validate", str(fifo))
    with fifo.open("w"):  # opened: it is reading
        process.send_signal(signal.SIGINT)
        ended = runner.finish(process)
    assert (ended.code, ended.out, ended.err) == (130, "", "")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("use smtp://"), 2, "smtpbench: use smtp://\n"),
        (CannotRun("no route"), 3, "smtpbench: no route\n"),
        (ExceptionGroup("", [ExceptionGroup("", [CannotRun("no route")])]), 3, "smtpbench: no route\n"),
        (KeyboardInterrupt(), 130, ""),
        (BaseExceptionGroup("", [ValueError("x"), KeyboardInterrupt()]), 130, ""),
        (typer.Exit(99), 99, ""),
        (typer.Abort(), 130, ""),
        (SystemExit(5), 5, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_what_is_raised_and_what_is_said(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(error) == code
    assert capsys.readouterr().err == words


def test_a_bug_says_that_it_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(exit_codes.DEBUG_VARIABLE, raising=False)
    assert raising(ZeroDivisionError("of \x1b[31m")) == exit_codes.BUG == 70
    told = capsys.readouterr().err
    (file,) = tmp_path.iterdir()
    assert told.splitlines() == [
        "smtpbench: this is a bug in smtpbench, not a mistake of yours: ZeroDivisionError: of \\x1b[31m",
        f"the traceback is in {file}; please attach it to a report",
    ]
    assert "Traceback" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_a_bug_shows_its_traceback_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(exit_codes.DEBUG_VARIABLE, "1")
    assert raising(OSError(28, "a disk is full that is not the output's")) == exit_codes.BUG
    assert "Traceback" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_bug_where_no_file_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert raising(KeyError("x")) == exit_codes.BUG
    assert capsys.readouterr().err.endswith("set SMTPBENCH_DEBUG=1 to see the traceback\n")
