"""Servers by command: starting, waiting for the greeting, stopping all processes, and error texts."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import servers
from fakes import NoSpace

from smtpbench.errors import CannotRun
from smtpbench.supervisor.server import Commands, server_running
from smtpbench.target import Access, parse_target
from smtpbench.units import NS_PER_S


def access(port: int) -> Access:
    return Access(parse_target(f"smtp://127.0.0.1:{port}"), timeout_ns=2 * NS_PER_S)


def sink(port: int) -> str:
    return f"{sys.executable} -m smtpbench.cli.main sink --listen 127.0.0.1:{port}"


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return not sock.connect_ex(("127.0.0.1", port))


@pytest.mark.parametrize("command", ["exec {}", "{} & wait", "cd / && {}"])
async def test_server_runs_while_the_context_lasts(tmp_path: Path, command: str) -> None:
    port = servers.free_port()
    async with server_running(Commands(command.format(sink(port)), folder=tmp_path), access(port), tmp_path / "log"):
        assert listens(port)
    assert not listens(port)
    assert "sink: listening on" in (tmp_path / "log").read_text()


async def test_daemon_is_stopped_by_its_stop_command(tmp_path: Path) -> None:
    port = servers.free_port()
    start = f"setsid {sink(port)} & echo $! > pid"
    async with server_running(Commands(start, "kill $(cat pid)", folder=tmp_path), access(port), tmp_path / "log"):
        assert listens(port)
    assert not listens(port)


async def test_server_that_survives_its_stop_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpbench.supervisor.server.STOP_S", 0.5)
    port = servers.free_port()
    start = f"setsid {sink(port)} & echo $! > pid"
    try:
        with pytest.raises(CannotRun, match="add a command with --stop"):
            async with server_running(Commands(start, folder=tmp_path), access(port), tmp_path / "log"):
                pass
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("echo 'no \033[31m licence'; exit 3", r"ended with status 3; its last output: no \\x1b\[31m licence"),
        ("sleep 60", r"did not greet within 0.3 s"),
    ],
)
async def test_server_that_does_not_start_is_reported_with_its_output(tmp_path: Path, command: str, text: str) -> None:
    commands = Commands(command, ready_ns=NS_PER_S * 3 // 10 if "sleep" in command else 20 * NS_PER_S, folder=tmp_path)
    with pytest.raises(CannotRun, match=text):
        async with server_running(commands, access(servers.free_port()), tmp_path / "log"):
            pytest.fail("it never greeted")


async def test_other_server_on_the_port_is_reported(tmp_path: Path) -> None:
    port = servers.free_port()
    async with server_running(Commands(f"exec {sink(port)}", folder=tmp_path), access(port), tmp_path / "log"):
        with pytest.raises(CannotRun, match="another server already answers"):
            async with server_running(Commands("true", folder=tmp_path), access(port), tmp_path / "other"):
                pytest.fail("the other server was taken for this one")


async def test_nothing_is_started_without_a_command(tmp_path: Path) -> None:
    async with server_running(Commands(), access(1), tmp_path / "log"):
        assert not (tmp_path / "log").exists()


async def test_server_is_started_although_its_log_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    NoSpace(monkeypatch, tmp_path, "log")
    port = servers.free_port()
    async with server_running(Commands(f"exec {sink(port)}", folder=tmp_path), access(port), tmp_path / "log"):
        assert listens(port)
    assert not listens(port)
