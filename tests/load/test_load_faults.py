"""Servers and surroundings that fail: no traceback, no hang, the sum holds, what was measured is saved."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runner import Done, finish, run, sink, start
from servers import free_port

SHORT = ("-c", "20", "-n", "40", "--timeout", "300ms", "--drain", "500ms")


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
def test_a_server_that_misbehaves(tmp_path: Path, rule: str, error: str, model: str) -> None:
    with sink("--on", rule) as (port, counts):
        rate = ("-r", "100/s") if model == "open" else ()
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, *SHORT, *rate)
    assert done.code == 0, done.err
    assert done.balanced()
    assert done.result["messages"]["attempted"] == 40
    assert error in done.result["errors"]
    assert done.messages.get("accepted", 0) == counts["messages"]["accepted"]


def test_replies_that_come_an_octet_at_a_time(tmp_path: Path) -> None:
    verbs = ("connect", "EHLO", "MAIL", "RCPT", "DATA", "message", "QUIT")
    rules = [part for verb in verbs for part in ("--on", f"{verb}=drip")]
    with sink(*rules) as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "-c", "5", "-n", "20")
    assert done.messages == {"accepted": 20}
    assert done.result["errors"] == {}


@contextmanager
def fake(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does what no sink does, on a thread for each connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=guarded, args=(client,), daemon=True).start()

    def guarded(client: socket.socket) -> None:
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


def half_closes(client: socket.socket) -> None:
    client.sendall(b"220 x.example\r\n")
    client.recv(1000)
    client.sendall(b"250 x.example\r\n")
    client.recv(1000)
    client.shutdown(socket.SHUT_WR)
    while client.recv(1000):
        pass


def answers_twice(client: socket.socket) -> None:
    client.sendall(b"220 x.example\r\n")
    while client.recv(70_000):
        client.sendall(b"250 one\r\n250 two\r\n")


def never_ends(client: socket.socket) -> None:
    while True:
        client.sendall(b"220-" + b"x" * 4000 + b"\r\n")


def resets(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("serve", [half_closes, answers_twice, never_ends, resets])
def test_stranger_servers(tmp_path: Path, serve: Callable[[socket.socket], None]) -> None:
    with fake(serve) as port:
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "-c", "3", "-n", "12", "--timeout", "500ms")
    assert done.code == 0, done.err
    assert done.balanced()
    assert done.result["messages"]["attempted"] == 12
    assert done.result["errors"]


def test_nothing_listens(tmp_path: Path) -> None:
    done = run("relay", f"smtp://127.0.0.1:{free_port()}", tmp_path, *SHORT)
    assert done.code == 3
    assert "nothing listens there" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.result["outcome"]["status"] == "could-not-run"
    assert done.balanced()


def test_the_target_is_killed_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    argv = ["sink", "--listen", f"127.0.0.1:{port}", "--ready-json"]
    first = start(*argv)
    assert first.stdout is not None
    assert first.stdout.readline()
    process = start(
        "run", "relay", "--target", f"smtp://127.0.0.1:{port}", "-r", "200/s", "-c", "5", "-d", "5s",
        "--out", str(tmp_path), "--progress", "none",
    )  # fmt: skip
    time.sleep(2)
    first.kill()
    first.communicate()
    time.sleep(1)
    second = start(*argv)
    done = finish(process, tmp_path)
    second.terminate()
    finish(second)
    assert done.code == 0, done.err
    assert done.balanced()
    assert done.result["messages"]["attempted"] == 1000
    assert done.messages["failed"] > 50
    assert done.messages["accepted"] > 400
    assert done.result["errors"]["connect_refused"] > 10


def interrupted(tmp_path: Path, port: int, times: int, *options: str) -> Done:
    process = start(
        "run", "relay", "--target", f"smtp://127.0.0.1:{port}", "-d", "60s", "--out", str(tmp_path), "-c", "3",
        "--progress", "plain", "--drain", "30s", *options,
    )  # fmt: skip
    assert process.stderr is not None
    process.stderr.readline()  # the first line of progress: it is under way
    for _ in range(times):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.5)
    return finish(process, tmp_path)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupt_drains_and_saves(tmp_path: Path, workers: str) -> None:
    with sink() as (port, counts):
        done = interrupted(tmp_path, port, 1, "--workers", workers)
    assert done.code == 130
    assert done.result["outcome"]["status"] == "interrupted"
    assert done.balanced()
    assert set(done.messages) == {"accepted"}
    assert done.messages["accepted"] == counts["messages"]["accepted"]
    assert "INTERRUPTED" in done.out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_interrupt_stops_at_once(tmp_path: Path, workers: str) -> None:
    with sink("--delay", "message=20s") as (port, _):
        done = interrupted(tmp_path, port, 2, "--workers", workers)
    assert done.code == 130
    assert done.balanced()
    assert done.messages["interrupted"] == 3


def test_what_the_drain_cuts_off_is_interrupted(tmp_path: Path) -> None:
    with sink("--delay", "message=60s") as (port, _):
        target = f"smtp://127.0.0.1:{port}"
        done = run("relay", target, tmp_path, "-r", "20/s", "-c", "5", "-d", "1s", "--drain", "300ms")
    assert done.code == 0, done.err
    assert done.messages == {"interrupted": 20}


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    with sink() as (port, _):
        argv = [
            sys.executable, "-m", "smtpbench.cli.main", "run", "relay", "--target", f"smtp://127.0.0.1:{port}", "-n", "50",
            "-c", "2", "--out", str(tmp_path), "--progress", "none",
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, preexec_fn=small_files, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "could not be saved" in done.stderr
    assert "accepted 50" in done.stdout
    # with no room anywhere the result itself is printed: nothing that was measured is lost
    text = done.stdout[done.stdout.index("\n{") :]
    assert json.loads(text)["messages"]["accepted"] == 50


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with sink() as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path / "file", "-n", "20", "-c", "2")
    assert done.code == 0
    assert "accepted 20" in done.out
    saved = done.out.rpartition("saved: ")[2].partition(", report.html")[0].strip()
    assert json.loads(Path(saved).read_text())["messages"]["accepted"] == 20


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))


def test_too_few_descriptors_are_said_before_the_run(tmp_path: Path) -> None:
    argv = [
        sys.executable, "-m", "smtpbench.cli.main", "run", "relay", "--target", "smtp://127.0.0.1:1", "-c", "500",
        "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, preexec_fn=few_descriptors, timeout=60, check=False)
    assert done.returncode == 3
    assert "500 connections need 564 open files" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
