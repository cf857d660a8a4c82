"""The folder of a result: an earlier result stays unless it may go, and two commands never share a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runner import run, sink, smtpbench

from smtpbench.cli.result_folder import result_folder
from smtpbench.errors import CannotRun, UsageError
from smtpbench.measure.partial import PARTIAL

HOLD = """
import sys
from pathlib import Path
from smtpbench.cli.result_folder import result_folder
with result_folder(Path(sys.argv[1]), False) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write(folder: Path, *names: str, text: str = "{}") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("left", ["result.json", PARTIAL, "timeline.csv", "findings/tls-partial-1.yaml"])
def test_earlier_result_is_refused_and_kept(tmp_path: Path, left: str) -> None:
    write(tmp_path, left)
    with pytest.raises(UsageError, match=f"holds a result already .*{left}.*--overwrite"), result_folder(tmp_path, False):
        pass
    assert listing(tmp_path) == [left]


def test_overwrite_removes_an_earlier_result_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, "result.json", "report.html", "timeline.csv", "findings/a.yaml", "candidates/b.yaml", "notes.txt")
    write(tmp_path, "findings/mine.txt", "20260102-030405-relay/result.json")
    with result_folder(tmp_path, True) as folder:
        assert folder == tmp_path
        assert listing(tmp_path) == ["20260102-030405-relay/result.json", "findings/mine.txt", "notes.txt"]
        assert not (tmp_path / "candidates").exists()


def test_overwrite_removes_the_runs_of_a_comparison(tmp_path: Path) -> None:
    write(tmp_path, "result.json", text=json.dumps({"kind": "comparison", "candidates": [{"name": "a"}, {"name": "b"}]}))
    write(tmp_path, "a-01/result.json", "b-12/timeline.csv", "c-01/result.json")
    with result_folder(tmp_path, True):
        assert listing(tmp_path) == ["c-01/result.json"]


def test_overwrite_removes_the_steps_of_a_search(tmp_path: Path) -> None:
    write(tmp_path, "result.json", text=json.dumps({"kind": "capacity"}))
    write(tmp_path, "baseline/result.json", "step-01-100/result.json", "monday/result.json")
    with result_folder(tmp_path, True):
        assert listing(tmp_path) == ["monday/result.json"]


def test_folder_in_use_is_refused_until_the_other_command_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "busy"
    argv = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        for overwrite in (False, True):
            with pytest.raises(CannotRun, match="another smtpbench command"), result_folder(folder, overwrite):
                pass
        other.kill()
    with result_folder(folder, False):
        assert folder.is_dir()


def test_two_commands_of_one_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with result_folder(None, False, "relay") as one, result_folder(None, False, "relay") as other:
        assert one != other
        assert one.parent == other.parent == Path("results")


def test_folder_in_which_nothing_was_written_is_removed(tmp_path: Path) -> None:
    with pytest.raises(CannotRun), result_folder(tmp_path / "a" / "b", False):
        raise CannotRun("no server")
    assert os.listdir(tmp_path) == []


def test_folder_that_cannot_be_made_does_not_stop_a_command(tmp_path: Path) -> None:
    write(tmp_path, "file")
    with result_folder(tmp_path / "file" / "out", False) as folder:
        assert folder == tmp_path / "file" / "out"


def test_second_run_into_a_folder_is_refused_without_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with sink() as (port, _):
        first = run("relay", f"smtp://127.0.0.1:{port}", out, "-n", "3", "--no-html")
        refused = run("relay", f"smtp://127.0.0.1:{port}", out, "-n", "4", "--no-html")
        again = run("relay", f"smtp://127.0.0.1:{port}", out, "-n", "5", "--no-html", "--overwrite")
    assert (first.code, refused.code, again.code) == (0, 2, 0)
    assert refused.err == (
        f"smtpbench: {out}: the folder holds a result already (result.json); "
        "add --overwrite to replace it, or choose another folder with --out\n"
    )
    assert refused.messages == {"accepted": 3}
    assert again.messages == {"accepted": 5}


@pytest.mark.parametrize(
    "command",
    [("check", "--target"), ("fuzz", "relay", "--target"), ("capacity", "relay", "--target"), ("run", "relay", "--target")],
)
def test_every_command_refuses_a_folder_with_a_result(tmp_path: Path, command: tuple[str, ...]) -> None:
    write(tmp_path, "result.json")
    done = smtpbench(*command, "smtp://127.0.0.1:1", "--out", str(tmp_path))
    assert done.code == 2
    assert "holds a result already" in done.err


def test_compare_and_diff_refuse_a_folder_with_a_result(tmp_path: Path) -> None:
    write(tmp_path, "result.json")
    for argv in (
        ("compare", "relay", "-t", "a=smtp://127.0.0.1:1", "-t", "b=smtp://127.0.0.1:1"),
        ("diff", str(tmp_path), str(tmp_path)),
    ):
        done = smtpbench(*argv, "--out", str(tmp_path))
        assert done.code == 2
        assert "holds a result already" in done.err
