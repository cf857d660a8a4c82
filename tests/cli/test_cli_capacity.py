"""`smtpbench capacity` as a user calls it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from jsonschema import Draft202012Validator
from runner import finish, sink, smtpbench, start

QUICK = ("--step", "500ms", "--warmup", "0s", "--precision", "30%")


def test_search_is_shown_and_saved_with_its_steps(tmp_path: Path) -> None:
    with sink("--on", "message=serve:1ms/4") as (port, _):
        argv = ("capacity", "relay", "--target", f"smtp://127.0.0.1:{port}", "--slo", "message.p99<20s", "--from", "50/s",
                "--max-rate", "60/s", "--seed", "1", "--out", str(tmp_path))  # fmt: skip
        done = finish(start(*argv, *QUICK), tmp_path)
    assert done.code == 0, done.err
    assert "PASSED: the capacity is at least " in done.out
    assert f"saved: {tmp_path}/result.json, report.html" in done.out
    assert "Latency by rate" in (tmp_path / "report.html").read_text()
    assert done.result["plan"]["objectives"][0] == "message.p99 < 20s"
    assert all((tmp_path / step["folder"] / "result.json").exists() for step in done.result["steps"])
    schema = json.loads(smtpbench("schema", "capacity").out)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(done.result)


def test_exit_code_is_99_when_no_rate_holds(tmp_path: Path) -> None:
    with sink("--on", "message=drop@50%") as (port, _):
        argv = ("capacity", "relay", "-t", f"smtp://127.0.0.1:{port}", "--from", "30/s", "--out", str(tmp_path))
        done = finish(start(*argv, *QUICK), tmp_path)
    assert done.code == 99, done.err
    assert done.result["capacity"]["rate_per_s"] is None
    assert "FAILED: no rate met the objectives: " in done.out


def test_interrupted_search_keeps_its_steps(tmp_path: Path) -> None:
    with sink() as (port, _):
        process = start("capacity", "relay", "-t", f"smtp://127.0.0.1:{port}", "--from", "10/s", "--step", "1s", "--warmup",
                        "0s", "--out", str(tmp_path))  # fmt: skip
        assert process.stderr is not None
        for _ in range(2):
            process.stderr.readline()
        process.send_signal(signal.SIGINT)
        done = finish(process, tmp_path)
    assert done.code == 130, done.err
    assert done.result["outcome"]["status"] == "interrupted"
    assert done.result["steps"]


def test_invalid_options_give_one_message(tmp_path: Path) -> None:
    for argv, code, expected_texts in (
        (("relay", "-t", "smtp://127.0.0.1:1", "--slo", "throughput>5/s"), 2, "is about the rate"),
        (("relay", "-t", "smtp://127.0.0.1:1", "--precision", "0.1%"), 2, "allowed is 0.5% to 100%"),
        (("relay", "-t", "smtp://127.0.0.1:1", "--step", "0s"), 2, "--step"),
        (("relay", "-t", "smtp://127.0.0.1:1", "--from", "0/s"), 2, "--from"),
        (("relay", "-t", "smtp://127.0.0.1:1", "--slo", "nosuch.p99<5ms"), 2, "no latency"),
        (("relay", "-t", "smtp://127.0.0.1:1", "--out", str(tmp_path)), 3, "nothing listens there"),
    ):
        done = smtpbench("capacity", *argv)
        assert done.code == code, done.err
        assert expected_texts in done.err
        assert code == 3 or len(done.err.strip().splitlines()) == 1
