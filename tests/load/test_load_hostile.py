"""`run --hostile`: honest sessions are counted before and beside the hostile ones, whose findings are saved."""

from __future__ import annotations

import json
from pathlib import Path

import servers
from jsonschema import Draft202012Validator
from runner import run, sink, smtpbench

OPTIONS = ("-r", "150/s", "-c", "10", "-d", "5s", "--seed", "1")


def test_honest_sessions_are_measured_before_and_beside_hostile_ones(tmp_path: Path) -> None:
    with sink() as (port, counts):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, *OPTIONS, "--hostile", "20%")
    assert done.code == 0, done.out + done.err
    Draft202012Validator(json.loads(smtpbench("schema", "result").out)).validate(done.result)
    hostile = done.result["hostile"]
    baseline, beside = hostile["quiet"], hostile["beside"]
    assert done.miscounted() == []  # the sink counts the hostile sessions too
    for name, count in done.result["messages"].items():
        assert baseline["messages"][name] + beside["messages"][name] == count
    assert abs(baseline["messages"]["attempted"] - beside["messages"]["attempted"]) <= 2
    assert (baseline["window_s"], hostile["findings"], hostile["target_gone"]) == (2.5, [], False)
    assert baseline["latency"]["message"]["service"]["count"] == baseline["messages"]["accepted"]
    # one case for every four honest sessions, so far and in the next second, may have begun
    assert 0 < hostile["share"] <= 1 / 3
    assert hostile["cases"]["run"] == hostile["cases"]["generated"] > 0
    assert hostile["latency"]["MAIL"]["service"]["count"] > 0
    assert counts["connections"] > hostile["cases"]["run"]
    assert "beside: " in done.out
    assert not (tmp_path / "findings").exists()


def test_findings_of_hostile_sessions_are_saved(tmp_path: Path) -> None:
    with sink("--mutant", "rcpt-first") as (port, _):
        url = f"smtp://127.0.0.1:{port}"
        done = run("relay", url, tmp_path, *OPTIONS, "--hostile", "50%")
        assert done.code == 1, done.out + done.err
        rules = {finding["rule"] for finding in done.result["hostile"]["findings"]}
        assert "rcpt-first" in rules
        assert "rcpt-first" in done.out
        again = smtpbench("replay", str(tmp_path / "findings"), "-t", url)
        assert again.code == 1
    assert done.result["messages"]["attempted"] == 750
    assert done.messages["accepted"] > 0
    assert "failed" not in done.messages


def test_options_that_are_not_valid() -> None:
    unused = f"smtp://127.0.0.1:{servers.free_port()}"
    for options, text in (
        (("--hostile", "60%"), "at most 50%"),
        (("--hostile", "0%"), "more than 0%"),
        (("--hostile", "much"), "much"),
        (("--hostile", "5%", "-n", "100"), "needs a --duration"),
    ):
        done = smtpbench("run", "relay", "-t", unused, *options)
        assert (done.code, text in done.err) == (2, True), done.err
