"""`smtpbench compare` and `smtpbench diff` as their users run them: processes, sinks, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import servers
from jsonschema import Draft202012Validator
from runner import finish, sink, smtpbench, start

from smtpbench.scenario.reader import parse

QUICK = ("-c", "2", "-n", "30", "--warmup", "0s")


def candidates(*ports: int) -> list[str]:
    return [word for name, port in zip("ab", ports, strict=True) for word in ("--target", f"{name}=smtp://127.0.0.1:{port}")]


def test_compare_and_diff_report_the_same_change(tmp_path: Path) -> None:
    with sink() as (one, counts), sink("--delay", "message=30ms") as (other, _):
        done = smtpbench("compare", "relay", *candidates(one, other), *QUICK, "--repeats", "5", "--out", str(tmp_path / "c"),
                         "--metric", "message.p50", "--metric", "throughput", "--fail-if-worse")  # fmt: skip
    assert counts["messages"]["accepted"] == 150
    result: dict[str, Any] = json.loads((tmp_path / "c" / "result.json").read_text())
    time, rate = result["differences"]
    assert time["low"] > 10
    assert rate["high"] < -0.5
    # on a machine that is busy with other things the generator may be the bottleneck, and then nothing is said
    slower = [entry["verdict"] == "slower" for entry in (time, rate)]
    assert all(slower) or "GENERATOR LIMITED" in done.out
    assert done.code == any(slower), done.err
    assert "b against a" in done.out
    assert done.err.count("round ") == 10
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(5):
            (tmp_path / "c" / f"{name}-{number + 1:02}").rename(tmp_path / name / str(number))
    again = smtpbench("diff", str(tmp_path / "a"), str(tmp_path / "b"), "--metric", "message.p50", "--fail-if-worse",
                      "--out", str(tmp_path / "d"))  # fmt: skip
    assert again.code == slower[0], again.err
    assert json.loads((tmp_path / "d" / "result.json").read_text())["differences"][0]["low"] > 10
    assert smtpbench("diff", str(tmp_path / "a")).code == 2


def test_comparison_file_starts_two_servers_on_one_port(tmp_path: Path) -> None:
    port = servers.free_port()
    command = f"exec {sys.executable} -m smtpbench.cli.main sink --listen 127.0.0.1:{port}"
    (tmp_path / "c.yaml").write_text(f"""\
name: mild or harsh
scenario: relay
load: {{connections: 2, messages: 20, warmup: 0s}}
repeats: 1
metrics: [rejected]
candidates:
  mild: {{target: "smtp://127.0.0.1:{port}", start: "{command}"}}
  harsh: {{target: "smtp://127.0.0.1:{port}", start: "{command} --on message=550"}}
""")
    done = smtpbench("compare", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out"))
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["figures"][0]["values"] == {"mild": [0.0], "harsh": [1.0]}
    assert "listening on" in (tmp_path / "out" / "harsh.log").read_text()
    schema = json.loads(smtpbench("schema", "comparison").out)
    Draft202012Validator(schema).validate(parse((tmp_path / "c.yaml").read_text(), "c.yaml").data)
    assert not Draft202012Validator(schema).is_valid({"scenario": "relay"})


def test_interrupted_comparison_is_saved(tmp_path: Path) -> None:
    with sink() as (port, _):
        options = ("-c", "2", "-d", "1s", "--warmup", "0s", "--repeats", "50", "--out", str(tmp_path))
        process = start("compare", "relay", *candidates(port, port), *options)
        assert process.stderr is not None
        for _ in range(3):
            process.stderr.readline()
        process.send_signal(signal.SIGINT)
        done = finish(process, tmp_path)
    assert done.code == 130
    assert done.result["outcome"]["status"] == "interrupted"
    assert done.result["plan"]["repeats_done"] >= 1
    assert "INTERRUPTED" in done.out


def test_comparison_is_saved_when_a_target_ends(tmp_path: Path) -> None:
    with sink() as (port, _):
        doomed = subprocess.Popen(
            [sys.executable, "-m", "smtpbench.cli.main", "sink", "--listen", "127.0.0.1:0", "--ready-json"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert doomed.stdout is not None
        other = int(json.loads(doomed.stdout.readline())["listening"][0].rpartition(":")[2])
        process = start("compare", "relay", *candidates(port, other), *QUICK, "--repeats", "100", "--out", str(tmp_path))
        assert process.stderr is not None
        for _ in range(4):
            process.stderr.readline()
        doomed.kill()
        doomed.communicate()
        done = finish(process, tmp_path)
    assert done.code == 3
    assert done.result["outcome"]["status"] == "could-not-run"
    assert done.result["plan"]["repeats_done"] >= 1
    assert "nothing listens there" in done.err


def test_invalid_options_give_one_message() -> None:
    for argv, expected_texts in (
        (("relay",), "no candidates to compare"),
        (
            ("relay", "--target", "a=smtp://127.0.0.1:1", "--target", "b=smtp://127.0.0.1:1", "--confidence", "lots"),
            "not a percentage",
        ),
        (("nosuch", "--target", "a=smtp://127.0.0.1:1", "--target", "b=smtp://127.0.0.1:1"), "unknown scenario"),
    ):
        done = smtpbench("compare", *argv)
        assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
        assert expected_texts in done.err
