"""Servers that a comparison starts and stops itself, by the commands it was given."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from smtpbench.errors import CannotRun
from smtpbench.rules.discover import is_greeting
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.runner import session_runner
from smtpbench.target import Access
from smtpbench.text import visible
from smtpbench.units import NS_PER_S

#: How often a server that starts or ends is looked at.
LOOK_S = 0.1
#: How long it has to end: by its own command, then by SIGTERM, and then to leave its port.
END_S = 20.0
_LOG_LINES = 5
_LOG_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Commands:
    """How a server is started and stopped.

    start, stop: shell commands, run in `folder`; empty for none. ready_ns: how long it may take until it greets.
    """

    start: str = ""
    stop: str = ""
    ready_ns: int = 30 * NS_PER_S
    folder: Path = Path()


@asynccontextmanager
async def started(commands: Commands, access: Access, log: Path) -> AsyncIterator[None]:
    """Run a server for as long as the context lasts; nothing where there is no command.

    What it prints goes to `log`. What it started in its process group is ended: asked by its own command, then by SIGTERM,
    then by SIGKILL. Raises CannotRun where somebody else is there already, where it ends or does not greet, and where it
    still greets after its end.
    """
    if not commands.start:
        yield
        return
    if await _greets(access):
        raise CannotRun(f"{access.target.url} answers before its server was started: end what runs there")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = await _open(commands.start, commands.folder, out.fileno())
    try:
        await _until_it_greets(process, commands, access, log)
        yield
    finally:
        with trio.CancelScope(shield=True):
            await _end(process, commands, access, log)
    if await _greets(access):
        raise CannotRun(f"{access.target.url} still answers after its server was ended: give it a command with --stop")


async def _open(command: str, folder: Path, out: int) -> trio.Process:
    # a session of its own: Ctrl-C on the terminal is for us, and all that it starts can be ended together
    return await trio.lowlevel.open_process(
        ["/bin/sh", "-c", command], cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
    )


async def _until_it_greets(process: trio.Process, commands: Commands, access: Access, log: Path) -> None:
    with trio.move_on_after(commands.ready_ns / NS_PER_S):
        while not await _greets(access):  # no event tells of another process
            if process.poll():
                raise CannotRun(f"the server of {access.target.url} ended with status {process.returncode}{_tail(log)}")
            await trio.sleep(LOOK_S)
        return
    waited_s = commands.ready_ns / NS_PER_S
    raise CannotRun(f"the server of {access.target.url} did not greet within {waited_s:g} s{_tail(log)}")


async def _greets(access: Access) -> bool:
    """Whether a new connection is greeted, with whatever words."""
    target = access.target
    target_info = TargetInfo(lmtp=target.lmtp, implicit_tls=target.implicit_tls)
    for route in access.routes():
        async with session_runner(route, access.timeout_ns) as here:
            if await is_greeting(here, target_info):
                return True
    return False


async def _end(process: trio.Process, commands: Commands, access: Access, log: Path) -> None:
    if commands.stop:
        with log.open("ab") as out:
            stopping = await _open(commands.stop, commands.folder, out.fileno())
        with trio.move_on_after(END_S):
            await stopping.wait()
        _signal(stopping.pid, signal.SIGKILL)
        await stopping.wait()
    _signal(process.pid, signal.SIGTERM)
    with trio.move_on_after(END_S):
        await process.wait()
        while await _greets(access):  # noqa: ASYNC110  (no event tells of another process)
            await trio.sleep(LOOK_S)
    _signal(process.pid, signal.SIGKILL)  # whoever of its group is left
    await process.wait()


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _tail(log: Path) -> str:
    """The last lines of a log, for a message."""
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:].splitlines()[-_LOG_LINES:]
        if lines:
            return "; its last words: " + " / ".join(visible(line) for line in lines)
    return ""
