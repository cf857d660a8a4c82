"""Servers by command: started, waited for, ended with all that they started, and told about where that fails."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import servers

from smtpbench.errors import CannotRun
from smtpbench.study.servers import Commands, started
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
async def test_it_runs_for_as_long_as_it_is_wanted(tmp_path: Path, command: str) -> None:
    port = servers.free_port()
    async with started(Commands(command.format(sink(port)), folder=tmp_path), access(port), tmp_path / "log"):
        assert listens(port)
    assert not listens(port)
    assert "sink: listening on" in (tmp_path / "log").read_text()


async def test_a_daemon_is_ended_by_its_own_command(tmp_path: Path) -> None:
    port = servers.free_port()
    start = f"setsid {sink(port)} & echo $! > pid"
    async with started(Commands(start, "kill $(cat pid)", folder=tmp_path), access(port), tmp_path / "log"):
        assert listens(port)
    assert not listens(port)


async def test_one_that_stays_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpbench.study.servers.END_S", 0.5)
    port = servers.free_port()
    start = f"setsid {sink(port)} & echo $! > pid"
    try:
        with pytest.raises(CannotRun, match="give it a command with --stop"):
            async with started(Commands(start, folder=tmp_path), access(port), tmp_path / "log"):
                pass
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo 'no \033[31m licence'; exit 3", r"ended with status 3; its last words: no \\x1b\[31m licence"),
        ("sleep 60", r"did not greet within 0.3 s"),
    ],
)
async def test_what_does_not_come_up(tmp_path: Path, command: str, words: str) -> None:
    commands = Commands(command, ready_ns=NS_PER_S * 3 // 10 if "sleep" in command else 20 * NS_PER_S, folder=tmp_path)
    with pytest.raises(CannotRun, match=words):
        async with started(commands, access(servers.free_port()), tmp_path / "log"):
            pytest.fail("it never greeted")


async def test_somebody_else_in_its_place_is_told(tmp_path: Path) -> None:
    port = servers.free_port()
    async with started(Commands(f"exec {sink(port)}", folder=tmp_path), access(port), tmp_path / "log"):
        with pytest.raises(CannotRun, match="answers before its server was started"):
            async with started(Commands("true", folder=tmp_path), access(port), tmp_path / "other"):
                pytest.fail("it was another's server")


async def test_without_a_command_nothing_is_done(tmp_path: Path) -> None:
    async with started(Commands(), access(1), tmp_path / "log"):
        assert not (tmp_path / "log").exists()
