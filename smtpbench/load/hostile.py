"""The hostile part of a run, seen from the main process: another process fuzzes while the workers load.

What that process is told and answers stands in `smtpbench.fuzz.hostile`. It is started as a program and never imported: the
processes of honest sessions know nothing of mutations.
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
from smtpbench.measure.result import latency_section, messages_section


class Hostile:
    """The process. share: of all sessions, how many are to be hostile, from 0 to 1."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.answer: dict[str, Any] = {}
        self._arrivals = 0
        self._process: trio.Process | None = None
        self._lines: AsyncIterator[bytes] | None = None

    async def start(self, job: Job, *, authorized: bool, folder: Path) -> None:
        """Start it, and wait until it knows the target. folder: where its findings will be. Raises CannotRun."""
        # a session of its own: Ctrl-C on the terminal is for the main process
        self._process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "smtpbench.fuzz.hostile"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._lines = lines(self._process.stdout)
        await self._tell(asdict(job) | {"authorized": authorized, "folder": str(folder)})
        if "ready" not in await self._hear():
            raise CannotRun(self._trouble())

    async def follow(self, honest: Interval) -> None:
        """So much was honest since it may begin: allow its share of that, and of what the next second will bring."""
        sessions = honest.latencies.get(("session", True))
        arrivals = max(honest.attempted, sessions.service.count if sessions else 0)
        if arrivals:
            expected = arrivals + arrivals - self._arrivals
            self._arrivals = arrivals
            await self._tell({"allow": round(expected * self.share / (1 - self.share))})

    async def end(self) -> None:
        """The load is over: let it confirm what it found. Raises CannotRun where it fails."""
        await self._tell("end")
        if "result" not in await self._hear():
            raise CannotRun(self._trouble())

    async def close(self) -> None:
        """It is not wanted any more."""
        if self._process is not None:
            with trio.CancelScope(shield=True):
                self._process.kill()
                await self._process.wait()

    def _trouble(self) -> str:
        return f"the hostile sessions: {self.answer.get('error', 'their process failed')}"

    async def _hear(self) -> dict[str, Any]:
        assert self._lines is not None
        line = await anext(self._lines, b"{}")
        self.answer = json.loads(line)
        return self.answer

    async def _tell(self, data: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # one that has ended says so by its output
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._process.stdin.send_all(json.dumps(data).encode() + b"\n")


def section(
    share: float, answer: dict[str, Any], baseline: Interval, beside: Interval, windows_s: tuple[float, float]
) -> Any:
    """`hostile` of a result. quiet, beside: honest sessions before and beside the hostile ones; windows_s: how long each."""
    result = answer.get("result", {})
    cases = result.get("cases", {"generated": 0, "run": 0, "confirmed": 0, "may_have_killed_it": 0})
    honest = beside.attempted
    return {
        "share_wanted": share,
        "share": cases["run"] / (cases["run"] + honest) if honest else 0.0,
        "quiet": _phase(baseline, windows_s[0]),
        "beside": _phase(beside, windows_s[1]),
        "cases": cases,
        "findings": result.get("findings", []),
        "rules": result.get("rules", {}),
        "target_gone": result.get("target", {}).get("gone", False),
        "latency": result.get("latency", {}),
        "replies": result.get("replies", {}),
        "cpu_s": result.get("generator", {}).get("cpu_s", 0.0),
    }


def _phase(honest: Interval, window_s: float) -> dict[str, Any]:
    return {
        "window_s": window_s,
        "messages": messages_section(honest),
        "messages_per_s": honest.messages["accepted"] / window_s if window_s else 0.0,
        "latency": latency_section(honest, ok=True),
    }
