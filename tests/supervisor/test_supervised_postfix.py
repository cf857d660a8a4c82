"""Postfix, started in the foreground and as a daemon: its master and the processes that it starts for each message."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import servers
import start_commands
import trio
from small_server import access, listens

from smtpbench.supervisor.server_options import ServerOptions
from smtpbench.supervisor.supervised import SupervisedServer, supervised


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that Postfix's users can reach; another session of pytest closes the one of `tmp_path` to them."""
    with TemporaryDirectory(prefix="smtpbench-postfix-") as name:
        yield Path(name)


@pytest.fixture
def port(folder: Path) -> int:
    """Port of a Postfix whose configuration is in `folder/conf`."""
    port = servers.free_port()
    start_commands.postfix(folder, port)
    return port


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return Postfix's processes, which run in the folder of its queue."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            pass
    return found


async def send(port: int) -> None:
    """Send a message, so that Postfix starts its other processes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        for line in ("EHLO a.example", "MAIL FROM:<a@a.example>", "RCPT TO:<b@b.example>", "DATA", "x\r\n.", "QUIT"):
            await stream.receive_some()
            await stream.send_all(f"{line}\r\n".encode())
        await stream.receive_some()


def start(folder: Path, how: str) -> str:
    return f"script -qec 'postfix -c {folder}/conf {how}' /dev/null" if how == "start" else f"postfix -c {folder}/conf {how}"


async def death_after_kill(server: SupervisedServer, folder: Path) -> str:
    """Kill Postfix's master and return how the server ended."""
    masters = [process for process in processes_of(folder) if process.name() == "master"]
    master = min(masters, key=lambda process: process.create_time())  # a child has this name for a moment
    before_ns = time.monotonic_ns()
    os.kill(master.pid, signal.SIGKILL)
    death = await server.death_since(before_ns)
    assert death is not None
    return death.how


@pytest.mark.parametrize("how", ["start-fg", "start"])
async def test_all_processes_of_postfix_end_with_the_context(folder: Path, port: int, how: str) -> None:
    async with supervised(ServerOptions(start(folder, how)), access(port)) as server:
        assert server.known
        await send(port)
        names = {process.name() for process in processes_of(folder)}
        assert names >= {"master", "smtpd", "cleanup", "qmgr"}
    assert processes_of(folder) == []
    assert not listens(port)
    assert server.deaths == []


@pytest.mark.parametrize("how", ["start-fg", "start"])
async def test_death_of_the_master_is_noticed_and_postfix_is_started_again(folder: Path, port: int, how: str) -> None:
    options = ServerOptions(start(folder, how), f"postfix -c {folder}/conf stop", restart=True)
    async with supervised(options, access(port)) as server:
        await send(port)
        how = await death_after_kill(server, folder)
        assert how in ("signal 9 (SIGKILL)", "exit status 137")  # of the script that waits for it, before Linux 6.15
        assert await server.wait_until_ready()
        await send(port)
        assert [death.restarted_by for death in server.deaths] == ["smtpbench"]
    assert processes_of(folder) == []
