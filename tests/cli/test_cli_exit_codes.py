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
    """Run a line of bash, in which `$smtpbench` is the command."""
    environment = {**os.environ, "smtpbench": " ".join(COMMAND), **env}
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=environment, check=False, timeout=60)


def raising(error: BaseException) -> int:
    """Return the exit code of a command that raises an error."""

    def command() -> None:
        raise error

    return exit_codes.exit_code_of(command)


@pytest.mark.parametrize("arguments", ["rules", "--help", "schema result", "run --help", "validate relay"])
def test_closed_output_pipe_is_141(arguments: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [*COMMAND, *arguments.split()], stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (141, "")


@pytest.mark.parametrize("arguments", ["rules", "--help", "schema", "validate relay"])
def test_full_disk_is_3(arguments: str) -> None:
    process = done(f"$smtpbench {arguments} > /dev/full")
    assert process.returncode == 3
    assert process.stderr == "smtpbench: the output cannot be written: no space left on device\n"


def test_result_is_saved_when_output_fails(tmp_path: Path) -> None:
    with runner.sink("--mutant", "eod-lf-crlf") as (port, _):
        target = f"-t smtp://127.0.0.1:{port}"
        for progress in ("plain", "live"):
            folder = tmp_path / progress
            process = done(f"$smtpbench run relay {target} -n 20 -o {folder} --progress {progress} >/dev/full 2>/dev/full")
            assert process.returncode == 3
            assert json.loads((folder / "result.json").read_text())["messages"]["accepted"] == 20
        failed = f"--threshold 'rejected>5' -o {tmp_path / 'failed'}"
        assert done(f"$smtpbench run relay {target} -n 20 {failed} >/dev/full 2>&1").returncode == 99
        process = done(f"$smtpbench check eod-lf-crlf {target} --out {tmp_path / 'check'} >/dev/full")
        assert process.returncode == 1
        assert (tmp_path / "check" / "result.json").exists()


def test_error_that_cannot_be_printed_keeps_its_exit_code() -> None:
    assert done("$smtpbench rnu 2> /dev/full").returncode == 2
    assert done("$smtpbench rnu > /dev/full 2>&1").returncode == 2


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), ("<&-", 0), (">&- 2>&- <&-", 0)])
def test_closed_descriptors_do_not_fail_a_run(closed: str, code: int, tmp_path: Path) -> None:
    process = done(f"cd {tmp_path} && $smtpbench demo -d 1s -r 20/s --out out {closed}", PYTHONPATH=os.getcwd())
    assert process.returncode == code
    assert "Traceback" not in process.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["messages"]["accepted"] == 20


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_encoding_without_all_characters(encoding: str, tmp_path: Path) -> None:
    scenario = tmp_path / "Ω→.yaml"
    scenario.write_text("session: [NOOP]\nabout: 'α…'\n", encoding="utf-8")
    for arguments in ("run --help", f"validate {scenario}", f"run '{scenario}x' -t smtp://127.0.0.1:1"):
        process = subprocess.run(
            ["bash", "-c", f"{' '.join(COMMAND)} {arguments}"],
            capture_output=True, check=False, timeout=60,
            env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "LC_ALL": "C"},
        )  # fmt: skip
        assert process.returncode == (2 if "yamlx" in arguments else 0), process.stderr
        assert b"Traceback" not in process.stderr


def test_missing_characters_are_replaced_or_escaped_as_in_json() -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii", exit_codes.ASCII_ERRORS)
    text = json.dumps({"a → b…": "é 😀 \udcff ×"}, ensure_ascii=False)
    out.write(text)
    out.flush()
    written = out.buffer.getvalue() if isinstance(out.buffer, io.BytesIO) else b""
    assert json.loads(written) == {"a -> b...": "é 😀 \udcff x"}


def test_interrupt_outside_a_run_is_130(tmp_path: Path) -> None:
    fifo = tmp_path / "f.yaml"
    os.mkfifo(fifo)
    process = runner.start("validate", str(fifo))
    with fifo.open("w"):  # opened: it is reading
        process.send_signal(signal.SIGINT)
        interrupted = runner.finish(process)
    assert (interrupted.code, interrupted.out, interrupted.err) == (130, "", "")


@pytest.mark.parametrize(
    ("error", "code", "message"),
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
def test_errors_give_their_exit_code_and_message(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(error) == code
    assert capsys.readouterr().err == message


def test_bug_writes_its_traceback_into_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(exit_codes.DEBUG_VARIABLE, raising=False)
    assert raising(ZeroDivisionError("of \x1b[31m")) == exit_codes.BUG == 70
    message = capsys.readouterr().err
    (file,) = tmp_path.iterdir()
    assert message.splitlines() == [
        "smtpbench: this is a bug in smtpbench, not a mistake of yours: ZeroDivisionError: of \\x1b[31m",
        f"the traceback is in {file}; please attach it to a report",
    ]
    assert "Traceback" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_bug_prints_its_traceback_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(exit_codes.DEBUG_VARIABLE, "1")
    assert raising(OSError(28, "a disk is full that is not the output's")) == exit_codes.BUG
    assert "Traceback" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bug_without_a_writable_folder_names_the_variable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert raising(KeyError("x")) == exit_codes.BUG
    assert capsys.readouterr().err.endswith("set SMTPBENCH_DEBUG=1 to see the traceback\n")
