"""`smtpbench doctor`, here and now."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import servers
from runner import finish, sink, smtpbench, start

NAMES = {
    "open files", "local ports", "listen queue", "cores", "CPU quota", "CPU governor", "memory", "swap", "other load",
    "stolen time", "clock", "timers", "Python", "cost of a message", "results folder",
}  # fmt: skip


def test_machine_and_target_are_examined(tmp_path: Path) -> None:
    with sink() as (port, counts):
        done = smtpbench("doctor", "--json", "-t", f"smtp://127.0.0.1:{port}", "-o", str(tmp_path / "results"),
                         "--progress", "none")  # fmt: skip
    report = json.loads(done.out)
    assert done.err == ""
    assert (report["schema"], report["target"]) == ("smtpbench-doctor/1", f"smtp://127.0.0.1:{port}")
    of = {place: {one["name"] for one in report["checks"] if one["of"] == place} for place in ("machine", "target")}
    assert of["machine"] >= NAMES
    assert of["target"] >= {"target", "greeting", "round trip", "extensions", "place"}
    verdicts = {one["verdict"] for one in report["checks"]}
    assert verdicts <= {"ok", "unknown", "warn", "bad"}
    assert report["verdict"] == next(one for one in ("bad", "warn", "unknown", "ok") if one in verdicts)
    assert done.code == (1 if report["verdict"] == "bad" else 0)  # whatever else this machine does just now
    cost = next(one for one in report["checks"] if one["name"] == "cost of a message")
    assert cost["figures"]["cpu_us"] > 0
    assert counts["messages"]["accepted"] == 0
    assert list(tmp_path.iterdir()) == []


def test_unreachable_target_is_bad() -> None:
    done = smtpbench("doctor", "-t", f"smtp://127.0.0.1:{servers.free_port()}")
    assert done.code == 1
    assert "  bad   target" in done.out
    assert "connection refused" in done.out
    assert "\x1b" not in done.out


def test_signal_ends_the_examination(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it waits for a greeting that never comes
        process = start("doctor", "-t", f"smtp://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "60s")
        client, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        done = finish(process)
        client.close()
    assert (done.code, done.out) == (130, "")


def test_invalid_options_are_reported() -> None:
    for options, expected_texts in (
        (("-t", "nonsense"), "is not a target URL"),
        (("-t", "smtp://192.0.2.1"), "--authorized"),
        (("--timeout", "soon"), "is not a duration"),
    ):
        done = smtpbench("doctor", *options)
        assert (done.code, expected_texts in done.err) == (2, True), done.err
