"""`compare --resume` and `capacity --resume` as their users run them: killed, interrupted, and with other options."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from runner import finish, sink, smtpbench, start, wait_for_line

from smtpbench.measure.partial import PARTIAL


def test_killed_comparison_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "c"
    with sink() as (port, counts):
        targets = [word for name in "ab" for word in ("-t", f"{name}=smtp://127.0.0.1:{port}")]
        command = ("compare", "relay", *targets, "-c", "1", "-n", "10", "--warmup", "0s", "--repeats", "12", "-o", str(out))
        process = start(*command, "--progress", "plain")
        wait_for_line(process, "round 2 of 12, a: ")
        process.kill()
        process.communicate()
        kept = min(len(list(out.glob(f"{name}-*/result.json"))) for name in "ab")
        first = {path: path.stat().st_mtime_ns for path in out.glob("*/result.json") if int(path.parent.name[2:]) <= kept}
        other = smtpbench(*command, "--resume", "--repeats", "13", "--seed", "1")
        done = smtpbench(*command, "--resume", "--no-html")
        again = smtpbench(*command, "--resume")
    assert (again.code, again.err) == (2, f"smtpbench: {out}: the comparison is complete; nothing is left to resume\n")
    assert other.code == 2
    assert "repeats was 12 and is 13; seed was " in other.err
    assert done.code == 0, done.err
    assert f"resumed after {kept} of 12 rounds: {2 * (12 - kept)} runs left" in done.err
    assert "12 rounds in turns" in done.out
    assert "note: Resumed at " in done.out
    assert {path: path.stat().st_mtime_ns for path in first} == first
    result = json.loads((out / "result.json").read_text())
    assert [one["kept"] for one in result["resumed"]] == [kept]
    seeds = [json.loads((out / f"b-{number:02}" / "result.json").read_text())["seed"] for number in range(1, 13)]
    assert seeds == [result["plan"]["seed"] + number for number in range(12)]
    assert not (out / PARTIAL).exists()
    # a kill may have come in the middle of two runs at most
    assert 240 <= counts["messages"]["accepted"] <= 280


def test_search_ended_by_ctrl_c_says_how_it_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "limit"
    with sink("--on", "message=serve:10ms/2") as (port, _):
        command = ("capacity", "relay", "-t", f"smtp://127.0.0.1:{port}", "--step", "1s", "--warmup", "0s", "--from", "20/s",
                   "--max-rate", "100/s", "--precision", "50%", "-o", str(out))  # fmt: skip
        process = start(*command, "--progress", "plain")
        wait_for_line(process, "step 1, 20/s: ")
        process.send_signal(signal.SIGINT)
        ended = finish(process, out)
        assert ended.code == 130
        assert f"to continue: the same command with --resume --out {out}" in ended.out.splitlines()
        assert "\nINTERRUPTED: by a signal\n" in ended.out
        kept = [step["folder"] for step in ended.result["steps"]]
        done = smtpbench(*command, "--resume")
    assert done.code in (0, 99), done.err
    assert f"resumed after {len(kept)} step" in done.err
    result = json.loads((out / "result.json").read_text())
    assert result["outcome"]["status"] == "completed"
    assert [step["folder"] for step in result["steps"]][: len(kept)] == kept
    assert result["started"] == ended.result["started"]


def test_resume_needs_a_folder_and_replaces_nothing(tmp_path: Path) -> None:
    command = ("compare", "relay", "-t", "a=smtp://127.0.0.1:1", "-t", "b=smtp://127.0.0.1:1", "--resume")
    assert smtpbench(*command).err == "smtpbench: --resume needs --out DIR, the folder of the interrupted command\n"
    both = smtpbench(*command, "-o", str(tmp_path / "out"), "--overwrite")
    assert (both.code, both.err) == (
        2, "smtpbench: --resume keeps what the folder holds and --overwrite replaces it; use one of them\n",
    )  # fmt: skip


def test_nothing_to_resume_starts_from_the_beginning(tmp_path: Path) -> None:
    with sink() as (port, _):
        targets = [word for name in "ab" for word in ("-t", f"{name}=smtp://127.0.0.1:{port}")]
        load = ("-c", "1", "-n", "5", "--warmup", "0s", "--repeats", "1")
        done = smtpbench("compare", "relay", *targets, *load, "-o", str(tmp_path / "new"), "--resume")
    assert done.code == 0, done.err
    assert "the folder holds nothing to resume; starting from the beginning" in done.err
    assert json.loads((tmp_path / "new" / "result.json").read_text())["resumed"] == []
