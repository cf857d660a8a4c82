"""Thresholds from the command line and the scenario: exit code 99, and the end of a run that has failed."""

from __future__ import annotations

from pathlib import Path

from runner import run, sink, smtpbench

SCENARIO = """\
session:
  - EHLO {client}
  - MAIL FROM:<{sender}>
  - RCPT TO:<{recipient}>
  - DATA
  - message
  - QUIT
load: {connections: 2, messages: 10}
thresholds: ["message.p99 < 30s", "%s"]
"""


def test_failed_threshold_is_99_and_each_is_shown(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO % "accepted == 11")
    with sink() as (port, _):
        done = run(tmp_path / "scenario.yaml", f"smtp://127.0.0.1:{port}", tmp_path, "--threshold", "failed<1%")
    assert done.code == 99
    assert [one["passed"] for one in done.result["thresholds"]] == [True, False, True]
    assert done.result["outcome"]["status"] == "completed"
    assert "FAILED: accepted == 11 is 10" in done.out
    assert "PASSED: failed < 1% is 0 %, 100% to spare" in done.out


def test_exit_code_is_0_when_thresholds_hold(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO % "accepted == 10")
    with sink() as (port, _):
        assert run(tmp_path / "scenario.yaml", f"smtp://127.0.0.1:{port}", tmp_path).code == 0


def test_exit_code_is_4_when_nothing_is_accepted(tmp_path: Path) -> None:
    with sink("--on", "RCPT=550") as (port, _):
        target = f"smtp://127.0.0.1:{port}"
        done = run("relay", target, tmp_path / "a", "-n", "20")
        wanted = run("relay", target, tmp_path / "b", "-n", "20", "--threshold", "rejected > 99%")
        failed = run("relay", target, tmp_path / "c", "-n", "20", "--threshold", "rejected < 1%")
    assert (done.code, wanted.code, failed.code) == (4, 0, 99)
    assert "NOTHING ACCEPTED: 0 of 20 messages; most often: RCPT 550 5.0.0, 20 times: 550 5.0.0" in done.out
    for folder, code in (("a", 4), ("b", 0), ("c", 99)):
        assert smtpbench("report", "--fail", str(tmp_path / folder)).code == code


def test_scenario_without_messages_may_end_well(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("session: [EHLO x, NOOP, QUIT]\n")
    with sink() as (port, _):
        assert run(tmp_path / "s.yaml", f"smtp://127.0.0.1:{port}", tmp_path, "-n", "2").code == 0


def test_invalid_threshold_in_a_scenario_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO % "accepted == lots")
    done = run(tmp_path / "scenario.yaml", "smtp://127.0.0.1:1", tmp_path)
    assert done.code == 2
    assert "scenario.yaml:9:" in done.err


def test_abort_on_fail_ends_the_run(tmp_path: Path) -> None:
    options = ("-c", "2", "-d", "60s", "--threshold", "rejected < 1%", "--abort-on-fail", "--abort-grace", "0s")
    with sink("--on", "RCPT=550") as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, *options)
    assert done.code == 99
    assert done.result["outcome"]["status"] == "aborted"
    assert "rejected < 1%" in done.result["outcome"]["reason"]
    assert done.result["load"]["window_s"] < 50
