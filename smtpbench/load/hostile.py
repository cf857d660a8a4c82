"""The process of the hostile sessions, seen from the main process: it fuzzes the target while the workers load it.

`smtpbench.fuzz.hostile` documents its input and output. The process is started as a program, and its code is never imported
here: the processes of the honest sessions load nothing of the fuzzer.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio

from smtpbench.engine.pipe import lines
from smtpbench.errors import CannotRun
from smtpbench.load.job import Job
from smtpbench.measure.recorder import Interval


class HostileProcess:
    """The process of the hostile sessions.

    Args:
        share: Share of all sessions that are to be hostile, from 0 to 1.

    Attributes:
        answer: Its last answer: what it found, once it has finished.
    """

    def __init__(self, share: float) -> None:
        self.answer: dict[str, Any] = {}
        self._share = share
        self._arrivals = 0
        self._process: trio.Process | None = None
        self._lines: AsyncIterator[bytes] | None = None

    async def start(self, job: Job, *, authorized: bool, folder: Path) -> None:
        """Start the process, and wait until it has examined the target.

        Args:
            job: Job of the workers.
            authorized: Whether the target may be another machine than this one.
            folder: Where the findings will be saved.

        Raises:
            CannotRun: The process failed.
        """
        # a session of its own: Ctrl-C on the terminal is for the main process
        self._process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "smtpbench.fuzz.hostile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._lines = lines(self._process.stdout)
        await self._send(asdict(job) | {"authorized": authorized, "folder": str(folder)})
        if "ready" not in await self._receive():
            raise CannotRun(self._error_text())

    async def set_allowance(self, honest: Interval) -> None:
        """Allow the share of hostile sessions that belongs to the honest ones, so far and in the next second.

        Args:
            honest: What the honest sessions did since the first hostile session was allowed.
        """
        sessions = honest.latencies.get(("session", True))
        arrivals = max(honest.attempted, sessions.service.count if sessions else 0)
        if arrivals:
            expected = arrivals + arrivals - self._arrivals
            self._arrivals = arrivals
            await self._send({"allow": round(expected * self._share / (1 - self._share))})

    async def finish(self) -> None:
        """Let the process confirm its findings, now that the load has ended. Raises CannotRun if it fails."""
        await self._send("end")
        if "result" not in await self._receive():
            raise CannotRun(self._error_text())

    async def close(self) -> None:
        """End the process."""
        if self._process is not None:
            with trio.CancelScope(shield=True):
                self._process.kill()
                await self._process.wait()

    def _error_text(self) -> str:
        return f"hostile sessions: {self.answer.get('error', 'their process failed')}"

    async def _receive(self) -> dict[str, Any]:
        assert self._lines is not None
        line = await anext(self._lines, b"{}")
        self.answer = json.loads(line)
        return self.answer

    async def _send(self, data: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # a process that has ended shows it by the end of its output
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._process.stdin.send_all(json.dumps(data).encode() + b"\n")
