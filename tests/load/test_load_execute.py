"""Runs whose server or machine fails: they end, every message is counted, and what was measured is saved."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from runner import Done, finish, run, sink, start, wait_for_line
from servers import free_port

from smtpbench.load import run as load
from smtpbench.load.meter import Collector
from smtpbench.load.plan import LoadPlan
from smtpbench.load.request import RunRequest
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.files import Tick
from smtpbench.measure.recorder import Interval
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.supervisor.server_record import ServerRecord
from smtpbench.target import parse_target
from smtpbench.units import NS_PER_S


def expected_code(done: Done) -> int:
    """Return the exit code of a run that ended by itself: 4 where nothing was accepted."""
    return 0 if done.result["messages"]["accepted"] else 4


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("connect=close", "closed"),
        ("connect=421", "closed_421"),
        ("connect=garbage", "malformed_reply"),
        ("connect=554 go away", "banner_refused"),
        ("connect=mute", "timeout"),
        ("EHLO=mute", "timeout"),
        ("EHLO=long", "reply_too_long"),
        ("EHLO=garbage", "malformed_reply"),
        ("MAIL=long", "reply_too_long"),
        ("MAIL=garbage@50%", "malformed_reply"),
        ("RCPT=mute@20%", "timeout"),
        ("DATA=drop@50%", "closed"),
        ("DATA=reset@50%", "reset"),
        ("message=drop@50%", "closed"),
        ("message=421@50%", "closed_421"),
        ("QUIT=mute", "timeout"),
    ],
)
@pytest.mark.parametrize("model", ["closed", "open"])
def test_every_message_to_a_faulty_server_is_counted(tmp_path: Path, rule: str, error: str, model: str) -> None:
    mute = "=mute" in rule
    options = (
        "-c",
        "20",
        "-n",
        "40",
        *(("-r", "100/s") if model == "open" else ()),
        *(("--timeout", "300ms") if mute else ()),
    )
    with sink("--on", rule) as (port, counts):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, *options)
    assert done.code == expected_code(done), done.err
    # on a slow machine, a reply may arrive after the short timeout that silent servers need
    assert done.miscounted(None if mute else counts) == []
    assert error in done.result["errors"]
    assert done.messages.get("accepted", 0) <= counts["messages"]["accepted"]


def test_replies_that_arrive_octet_by_octet(tmp_path: Path) -> None:
    verbs = ("connect", "EHLO", "MAIL", "RCPT", "DATA", "message", "QUIT")
    rules = [part for verb in verbs for part in ("--on", f"{verb}=drip")]
    with sink(*rules) as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "-c", "5", "-n", "20")
    assert done.messages == {"accepted": 20}
    assert done.result["errors"] == {}


@contextmanager
def custom_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a server that does what no sink does, with a thread for each connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve_and_close, args=(client,), daemon=True).start()

    def serve_and_close(client: socket.socket) -> None:
        with client:
            try:
                serve(client)
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def close_half(client: socket.socket) -> None:
    client.sendall(b"220 x.example\r\n")
    client.recv(1000)
    client.sendall(b"250 x.example\r\n")
    client.recv(1000)
    client.shutdown(socket.SHUT_WR)
    while client.recv(1000):
        pass


def reply_twice(client: socket.socket) -> None:
    client.sendall(b"220 x.example\r\n")
    while client.recv(70_000):
        client.sendall(b"250 one\r\n250 two\r\n")


def reply_without_end(client: socket.socket) -> None:
    while True:
        client.sendall(b"220-" + b"x" * 4000 + b"\r\n")


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("serve", [close_half, reply_twice, reply_without_end, reset])
def test_every_message_to_a_broken_server_is_counted(tmp_path: Path, serve: Callable[[socket.socket], None]) -> None:
    with custom_server(serve) as port:
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "-c", "3", "-n", "12", "--timeout", "500ms")
    assert done.code == expected_code(done), done.err
    assert done.miscounted() == []
    assert done.result["errors"]


def test_a_refused_connection_prevents_the_run(tmp_path: Path) -> None:
    done = run("relay", f"smtp://127.0.0.1:{free_port()}", tmp_path, "-c", "20", "-n", "40")
    assert done.code == 3
    assert "nothing listens there" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.result["outcome"]["status"] == "could-not-run"
    assert done.messages == {}


@dataclass(frozen=True, slots=True)
class AbortOnRequest(ThresholdMonitor):
    """Ends a run when a test sets the event."""

    requested: trio.Event = field(default_factory=trio.Event)

    def abort_reason(self, collector: Collector, plan: LoadPlan, end_s: float, server: ServerRecord | None = None) -> str:
        return "the test requested it" if self.requested.is_set() else ""


class TickWaiter:
    """Lets a test wait for what a run has counted."""

    def __init__(self) -> None:
        self._totals = Interval()
        self._ticked = trio.Event()

    def preparing(self, done: int, total: int) -> None: ...

    def tick(self, tick: Tick, totals: Interval) -> None:
        self._totals = totals
        self._ticked.set()
        self._ticked = trio.Event()

    def notify(self, text: str) -> None: ...

    async def wait_for(self, outcome: str, more_than: int) -> int:
        """Wait until more messages than that had an outcome; return their number."""
        while self._totals.messages[outcome] <= more_than:
            await self._ticked.wait()
        return self._totals.messages[outcome]


async def test_a_target_that_is_killed_and_restarted(tmp_path: Path) -> None:
    port, waiter, monitor = free_port(), TickWaiter(), AbortOnRequest()
    results: list[dict[str, Any]] = []
    plan = LoadPlan(connections=5, duration_ns=600 * NS_PER_S, drain_ns=60 * NS_PER_S)
    target = parse_target(f"smtp://127.0.0.1:{port}")
    request = RunRequest(load_scenario(find_scenario("relay")), target, plan, tmp_path, monitor=monitor)

    async def run_load() -> None:
        results.append((await load.run(request, waiter)).result)

    first = await start_sink(port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_load)
        accepted_by_first = await waiter.wait_for("accepted", more_than=0)
        first.kill()
        first.communicate()
        await waiter.wait_for("failed", more_than=10)
        second = await start_sink(port)
        await waiter.wait_for("accepted", more_than=await waiter.wait_for("accepted", more_than=0))
        monitor.requested.set()
    second.terminate()
    accepted_by_second = json.loads(finish(second).out)["messages"]["accepted"]
    (result,) = results
    assert result["outcome"] == {"status": "aborted", "reason": "the test requested it"}
    assert result["errors"]["connect_refused"] > 0
    assert result["messages"]["failed"] > 10
    assert result["messages"]["interrupted"] == 0
    assert accepted_by_second > 0
    assert result["messages"]["accepted"] >= accepted_by_first + accepted_by_second


async def start_sink(port: int) -> subprocess.Popen[str]:
    """Start a sink and wait until it listens, without blocking the run in this process."""
    process = start("sink", "--listen", f"127.0.0.1:{port}", "--ready-json")
    assert process.stdout is not None
    assert await trio.to_thread.run_sync(process.stdout.readline)
    return process


def start_run(port: int, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start a run of three connections that does not end by itself, and wait until it is in progress."""
    target = f"smtp://127.0.0.1:{port}"
    argv = ("--target", target, "--out", str(out), "--progress", "plain", "-d", "600s", "-c", "3", "--drain", "600s")
    process = start("run", "relay", *argv, *options)
    wait_for_line(process, "msg/s")
    return process


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_run_drains_and_saves_its_result(tmp_path: Path, workers: str) -> None:
    with sink() as (port, counts):
        process = start_run(port, tmp_path, "--workers", workers)
        process.send_signal(signal.SIGINT)
        done = finish(process, tmp_path)
    assert done.code == 130
    assert done.result["outcome"]["status"] == "interrupted"
    assert done.miscounted(counts) == []
    assert set(done.messages) == {"accepted"}
    assert "INTERRUPTED" in done.out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_interrupt_does_not_wait_for_messages(tmp_path: Path, workers: str) -> None:
    # neither the messages nor the drain would end within the time limit of a test
    with sink("--delay", "message=600s") as (port, _):
        process = start_run(port, tmp_path, "--workers", workers)
        process.send_signal(signal.SIGINT)
        wait_for_line(process, "press Ctrl-C again to stop at once")
        process.send_signal(signal.SIGINT)
        done = finish(process, tmp_path)
    assert done.code == 130
    assert done.miscounted() == []
    assert done.messages == {"interrupted": 3}


def test_messages_that_exceed_the_drain_are_interrupted(tmp_path: Path) -> None:
    with sink("--delay", "message=600s") as (port, _):
        target = f"smtp://127.0.0.1:{port}"
        done = run("relay", target, tmp_path, "-r", "20/s", "-c", "5", "-d", "1s", "--drain", "300ms")
    assert done.code == expected_code(done), done.err
    assert set(done.messages) == {"interrupted"}
    assert 5 <= done.messages["interrupted"] <= 20


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def test_a_full_disk_leaves_the_result_on_standard_output(tmp_path: Path) -> None:
    with sink() as (port, _):
        argv = [
            sys.executable, "-m", "smtpbench.cli.main", "run", "relay", "--target", f"smtp://127.0.0.1:{port}", "-n", "50",
            "-c", "2", "--out", str(tmp_path), "--progress", "none",
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, preexec_fn=limit_file_size, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "could not be saved" in done.stderr
    assert "accepted 50" in done.stdout
    # no folder could be written, so the result itself is printed
    text = done.stdout[done.stdout.index("\n{") :]
    assert json.loads(text)["messages"]["accepted"] == 50


def test_a_folder_that_cannot_be_written_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with sink() as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path / "file", "-n", "20", "-c", "2")
    assert done.code == 0
    assert "accepted 20" in done.out
    saved = done.out.rpartition("saved: ")[2].partition(", report.html")[0].strip()
    assert json.loads(Path(saved).read_text())["messages"]["accepted"] == 20


def limit_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))


def test_too_few_descriptors_prevent_the_run(tmp_path: Path) -> None:
    argv = [
        sys.executable, "-m", "smtpbench.cli.main", "run", "relay", "--target", "smtp://127.0.0.1:1", "-c", "500",
        "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, preexec_fn=limit_descriptors, timeout=60, check=False)
    assert done.returncode == 3
    assert "500 connections: each worker needs 564 open files" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
