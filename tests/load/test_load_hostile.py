"""`run --hostile`: honest sessions are counted before and beside the hostile ones, and what those find is kept."""

from __future__ import annotations

import json
from pathlib import Path

import servers
from jsonschema import Draft202012Validator
from runner import run, sink, smtpbench

OPTIONS = ("-r", "150/s", "-c", "10", "-d", "5s", "--seed", "1")


def test_honest_sessions_are_told_before_and_beside(tmp_path: Path) -> None:
    with sink() as (port, counts):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, *OPTIONS, "--hostile", "20%")
    assert done.code == 0, done.out + done.err
    Draft202012Validator(json.loads(smtpbench("schema", "result").out)).validate(done.result)
    hostile = done.result["hostile"]
    baseline, beside = hostile["quiet"], hostile["beside"]
    assert done.balanced()
    for name, count in done.result["messages"].items():
        assert baseline["messages"][name] + beside["messages"][name] == count
    assert abs(baseline["messages"]["attempted"] - beside["messages"]["attempted"]) <= 2
    assert (baseline["window_s"], hostile["findings"], hostile["target_gone"]) == (2.5, [], False)
    assert baseline["latency"]["message"]["service"]["count"] == baseline["messages"]["accepted"]
    assert 0.05 < hostile["share"] < 0.3
    assert hostile["cases"]["run"] == hostile["cases"]["generated"] > 20
    assert hostile["latency"]["MAIL"]["service"]["count"] > 0
    assert counts["connections"] > hostile["cases"]["run"]
    assert "beside: " in done.out
    assert not (tmp_path / "findings").exists()


def test_what_hostile_sessions_find_is_kept(tmp_path: Path) -> None:
    with sink("--mutant", "rcpt-first") as (port, _):
        url = f"smtp://127.0.0.1:{port}"
        done = run("relay", url, tmp_path, *OPTIONS, "--hostile", "50%")
        assert done.code == 1, done.out + done.err
        rules = {finding["rule"] for finding in done.result["hostile"]["findings"]}
        assert "rcpt-first" in rules
        assert "rcpt-first" in done.out
        again = smtpbench("replay", str(tmp_path / "findings"), "-t", url)
        assert again.code == 1
    assert done.messages == {"accepted": 750}


def test_mistakes() -> None:
    unheard = f"smtp://127.0.0.1:{servers.free_port()}"
    for options, words in (
        (("--hostile", "60%"), "50% at most"),
        (("--hostile", "0%"), "more than nothing"),
        (("--hostile", "much"), "much"),
        (("--hostile", "5%", "-n", "100"), "needs a --duration"),
    ):
        done = smtpbench("run", "relay", "-t", unheard, *options)
        assert (done.code, words in done.err) == (2, True), done.err
