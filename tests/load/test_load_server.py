"""What the server under test used, in the results of whole runs."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from runner import finish, run, sink, start
from servers import free_port, wait_until
from small_server import SERVER

from smtpbench.measure.saved import load
from smtpbench.measure.schema import schema_text


def sink_command(port: int, *options: str) -> str:
    sink = [sys.executable, "-m", "smtpbench.cli.main", "sink", "--listen", f"127.0.0.1:{port}", *options]
    return "exec " + shlex.join(sink)


@pytest.mark.parametrize(
    "options", [("-n", "300"), ("-n", "300", "--workers", "2"), ("-r", "200/s", "-d", "1s", "--warmup", "500ms")]
)
def test_result_says_what_the_server_used(tmp_path: Path, options: tuple[str, ...]) -> None:
    port = free_port()
    thresholds = ("--threshold", "server.cpu_ms_per_message < 100ms", "--threshold", "server.restarts < 1")
    done = run(
        "relay", f"smtp://127.0.0.1:{port}", tmp_path, "-c", "10", *options, "--start", sink_command(port), *thresholds
    )
    assert done.code == 0, done.err
    Draft202012Validator(json.loads(schema_text("result"))).validate(done.result)
    server = done.result["server"]
    assert server["started_by"] == "smtpbench"
    assert server["name"].startswith("python")
    assert server["cpu_s"] > 0
    assert server["cpu_ms_per_message"] == pytest.approx(1000 * server["cpu_s"] / done.messages["accepted"])
    assert server["window_s"] == pytest.approx(done.result["load"]["window_s"], abs=0.5)
    assert server["rss_max_bytes"] is None or server["rss_max_bytes"] > 10_000_000
    assert server["fds_max"] >= 10
    assert server["deaths"] == []
    assert all(one["passed"] for one in done.result["thresholds"])
    with (tmp_path / "server.csv").open() as lines:
        server_rows = [row for row in csv.DictReader(lines) if float(row["end_s"]) > done.result["load"]["warmup_s"]]
    used_s, last_s = 0.0, done.result["load"]["warmup_s"]
    for row in server_rows:
        length_s, last_s = float(row["end_s"]) - last_s, float(row["end_s"])
        used_s += length_s * (float(row["cpu_user_share"]) + float(row["cpu_system_share"]))
    assert used_s == pytest.approx(server["cpu_s"], rel=0.05, abs=0.01)


def test_threshold_on_a_growth_that_is_not_known_fails(tmp_path: Path) -> None:
    port = free_port()
    server = start("sink", "--listen", f"127.0.0.1:{port}", "--ready-json")
    assert server.stdout is not None
    server.stdout.readline()
    try:
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "-n", "20", "--threshold", "server.rss_growth < 1GiB/h")
    finally:
        server.terminate()
        finish(server)
    assert done.code == 99
    assert "server.rss_growth < 1GiB/h has no data" in done.out + done.err


def test_run_of_which_nothing_is_watched_says_nothing_of_the_server(tmp_path: Path) -> None:
    with sink() as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "-n", "20", "--watch", "none")
    assert "server" not in done.result
    assert not (tmp_path / "server.csv").exists()


def restarts_seen(file: Path) -> bool:
    """Whether `server.csv` has a row in which the server was started again."""
    if not file.exists():
        return False
    with file.open() as lines:
        return any(int(row["restarts"] or 0) for row in csv.DictReader(lines) if row["restarts"] is not None)


@pytest.mark.parametrize(("restart", "restarted_by"), [("always", "smtpbench"), ("never", "")])
def test_death_of_the_server_is_noted(tmp_path: Path, restart: str, restarted_by: str) -> None:
    port = free_port()
    # the server answers every line with 250, and dies of the first MAIL; it lives for the first session, which says none
    server = SERVER.replace("exec(line)", "os.kill(os.getpid(), signal.SIGABRT)")
    process = start(
        "run", "relay", "--target", f"smtp://127.0.0.1:{port}", "--out", str(tmp_path), "--progress", "none", "-c", "2",
        "-r", "20/s", "-d", "60s" if restarted_by else "2s", "--drain", "0s", "--restart", restart,
        "--start", "exec " + shlex.join([sys.executable, "-c", server, str(port)]),
    )  # fmt: skip
    if restarted_by:
        assert wait_until(lambda: restarts_seen(tmp_path / "server.csv"))
        process.send_signal(signal.SIGINT)
    done = finish(process, tmp_path)
    first = done.result["server"]["deaths"][0]
    assert (first["how"], first["signal"], first["restarted_by"]) == ("signal 6 (SIGABRT)", 6, restarted_by)
    assert first["at_s"] > 0
    note = next(note for note in done.result["notes"] if note.startswith("The server died"))
    assert note.startswith(f"The server died (signal 6 (SIGABRT)) after {first['at_s']:.1f} s")
    assert ("was started again" in note) is bool(restarted_by)


def test_failed_threshold_on_the_server_ends_the_run(tmp_path: Path) -> None:
    port = free_port()
    done = run(
        "relay", f"smtp://127.0.0.1:{port}", tmp_path, "-c", "5", "-d", "60s", "--start", sink_command(port), "--threshold",
        "server.fds_max < 2", "--abort-on-fail",
    )  # fmt: skip
    assert done.code == 99, done.err
    assert done.result["outcome"]["status"] == "aborted"
    assert "server.fds_max < 2 is" in done.result["outcome"]["reason"]
    assert done.result["load"]["window_s"] < 50


def test_run_that_is_killed_keeps_what_the_server_used(tmp_path: Path) -> None:
    port = free_port()
    process = start(
        "run", "relay", "--target", f"smtp://127.0.0.1:{port}", "--out", str(tmp_path), "--progress", "none", "-c", "5",
        "-d", "60s", "--start", sink_command(port),
    )  # fmt: skip
    file = tmp_path / "server.csv"
    assert wait_until(lambda: file.exists() and len(file.read_text().splitlines()) > 2)
    os.kill(process.pid, 9)
    process.communicate()
    saved = load(tmp_path)
    assert saved.result["outcome"]["status"] == "killed"
    assert saved.result["server"]["cpu_s"] > 0
    assert saved.result["server"]["started_by"] == "smtpbench"
    assert len(saved.server_timeline()) >= 2
