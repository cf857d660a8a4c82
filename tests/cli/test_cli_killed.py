"""Commands that are killed: what they had found is kept, `report` shows it, and no server of theirs goes on."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import servers
from runner import sink, smtpbench, start, wait_for_line

from smtpbench.measure.partial import PARTIAL


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_killed_run_is_reported_from_its_timeline_and_histograms(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with sink() as (port, _):
        process = start("run", "relay", "-t", f"smtp://127.0.0.1:{port}", "-r", "50/s", "-d", "5m", "-o", str(out),
                        "--threshold", "accepted > 1", "--progress", "plain")  # fmt: skip
        wait_for_line(process, "accepted")
        while len((out / "timeline.csv").read_text().splitlines()) < 3:
            wait_for_line(process, "")
        running = smtpbench("report", str(out))
        kill(process)
    assert "\nRUNNING: the command has not ended" in running.out
    done = smtpbench("report", str(out), "--jsonl", str(tmp_path / "r.jsonl"))
    shown = smtpbench("report", str(out))
    assert (done.code, shown.code) == (0, 0), shown.err
    assert "\nKILLED: the command was killed; this is what it had found until then\n" in shown.out
    assert "attempted 0 =" not in shown.out
    assert "RCPT" in shown.out
    assert smtpbench("report", str(out), "--fail").code == 3


def test_killed_comparison_keeps_its_rounds_and_leaves_no_server(tmp_path: Path) -> None:
    out, port = tmp_path / "c", servers.free_port()
    server = f"exec {sys.executable} -m smtpbench.cli.main sink --listen 127.0.0.1:{port}"
    candidates = [word for name in "ab" for word in ("-t", f"{name}=smtp://127.0.0.1:{port}", "--start", f"{name}={server}")]
    process = start("compare", "relay", *candidates, "-c", "1", "-n", "10", "--warmup", "0s", "-o", str(out),
                    "--progress", "plain")  # fmt: skip
    wait_for_line(process, "round 1 of 12, b: ")
    wait_for_line(process, "round 2 of 12, a: ")
    kill(process)
    with pytest.raises(OSError, match=r"refused|reset"):  # noqa: PT012  (the server needs a moment to end)
        for _ in range(10_000):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.recv(100)
    shown = smtpbench("report", str(out))
    assert shown.code == 0, shown.err
    assert "KILLED" in shown.out
    assert "2 rounds in turns" in shown.out


def has_finding(path: Path, rule: str) -> bool:
    return path.exists() and rule in {one["rule"] for one in json.loads(path.read_text())["findings"]}


@pytest.mark.parametrize("command", [("check",), ("fuzz", "relay", "--cases", "100000", "-d", "10m")])
def test_killed_check_and_fuzz_keep_what_they_found(tmp_path: Path, command: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    delay = "1s" if command[0] == "check" else "300ms"  # a check must still run when its first finding is there
    with sink("--mutant", "eod-lf-crlf", "--delay", f"RCPT={delay}") as (port, _):
        process = start(*command, "-t", f"smtp://127.0.0.1:{port}", "-o", str(out), "--progress", "plain")
        while not has_finding(out / PARTIAL, "eod-lf-crlf"):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert sorted(path.name for path in out.iterdir()) == ["findings", PARTIAL, "server.csv"]
    assert json.loads((out / PARTIAL).read_text())["outcome"] == "killed"
    shown = smtpbench("report", str(out))
    assert shown.code == 0, shown.err
    assert "\nKILLED: " in shown.out
    assert "eod-lf-crlf" in shown.out
