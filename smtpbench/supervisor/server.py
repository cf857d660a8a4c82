"""Servers that a command starts and stops itself, with commands that it was given."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import trio

from smtpbench.errors import CannotRun
from smtpbench.rules.discover import is_greeting
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.runner import session_runner
from smtpbench.supervisor.process_group import ending_with_this_process
from smtpbench.target import Access
from smtpbench.text import visible
from smtpbench.units import NS_PER_S

#: Seconds between two attempts to connect to a server that starts or stops.
POLL_S = 0.1
#: Time limit for each part of stopping a server, seconds: its own command, SIGTERM, and the release of its port.
STOP_S = 20.0
_LOG_LINES = 5
_LOG_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Commands:
    """How a server is started and stopped.

    Attributes:
        start: Shell command that runs the server; empty for none.
        stop: Shell command that stops it; empty if ending the process of `start` is enough.
        ready_ns: Time within which the server must greet, nanoseconds.
        folder: Folder in which the commands run.
    """

    start: str = ""
    stop: str = ""
    ready_ns: int = 30 * NS_PER_S
    folder: Path = Path()


@asynccontextmanager
async def server_running(commands: Commands, access: Access, log: Path) -> AsyncIterator[None]:
    """Run a server while the context lasts; do nothing if there is no command to start it.

    The server does not outlive this process. Its output goes to `log`. At the end its stop command runs, if there is one.
    Then its process group gets SIGTERM, and SIGKILL if that is not enough.

    Raises:
        CannotRun: Another server answers already, or the server ends early, does not greet, or still answers at the end.
    """
    if not commands.start:
        yield
        return
    if await _greets(access):
        raise CannotRun(f"another server already answers at {access.target.url}; stop it first")
    process = await _spawn(commands.start, commands.folder, log)
    with ending_with_this_process(process.pid, commands.stop, commands.folder):
        try:
            await _wait_for_greeting(process, commands, access, log)
            yield
        finally:
            with trio.CancelScope(shield=True):
                await _stop(process, commands, access, log)
    if await _greets(access):
        raise CannotRun(f"the server at {access.target.url} still answers after it was stopped; add a command with --stop")


async def _spawn(command: str, folder: Path, log: Path) -> trio.Process:
    # a session of its own: Ctrl-C does not reach the server, and all processes that it starts can be ended together
    with _open_log(log) as out:
        return await trio.lowlevel.open_process(
            ["/bin/sh", "-c", command], cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def _open_log(log: Path) -> BinaryIO:
    """Open a log to append to; if that fails, the null device: a full disk must not end a comparison."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError:
        return open(os.devnull, "ab")


async def _wait_for_greeting(process: trio.Process, commands: Commands, access: Access, log: Path) -> None:
    with trio.move_on_after(commands.ready_ns / NS_PER_S):
        while not await _greets(access):  # another process gives no event to wait for
            if process.poll():
                raise CannotRun(f"the server at {access.target.url} ended with status {process.returncode}{_log_tail(log)}")
            await trio.sleep(POLL_S)
        return
    waited_s = commands.ready_ns / NS_PER_S
    raise CannotRun(f"the server at {access.target.url} did not greet within {waited_s:g} s{_log_tail(log)}")


async def _greets(access: Access) -> bool:
    """Return whether the server greets a new connection, with any reply code."""
    target = access.target
    target_info = TargetInfo(lmtp=target.lmtp, implicit_tls=target.implicit_tls)
    for route in access.routes():
        async with session_runner(route, access.timeout_ns) as runner:
            if await is_greeting(runner, target_info):
                return True
    return False


async def _stop(process: trio.Process, commands: Commands, access: Access, log: Path) -> None:
    if commands.stop:
        stopping = await _spawn(commands.stop, commands.folder, log)
        with trio.move_on_after(STOP_S):
            await stopping.wait()
        _signal(stopping.pid, signal.SIGKILL)
        await stopping.wait()
    _signal(process.pid, signal.SIGTERM)
    with trio.move_on_after(STOP_S):
        await process.wait()
        while await _greets(access):  # noqa: ASYNC110  (another process gives no event to wait for)
            await trio.sleep(POLL_S)
    _signal(process.pid, signal.SIGKILL)  # processes of its group that ignored SIGTERM
    await process.wait()


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _log_tail(log: Path) -> str:
    """Return the last lines of a log for an error text."""
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:].splitlines()[-_LOG_LINES:]
        if lines:
            return "; its last output: " + " / ".join(visible(line) for line in lines)
    return ""
