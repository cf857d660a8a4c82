"""Lines in the server's log as evidence: which session makes a line appear.

Theory of operation
===================

A line that speaks of an error belongs to one of the sessions that were open when it was read. Lines that differ only in
numbers, addresses and what a client sent are the same line; `line_key` returns what they have in common.

Half of the sessions run again at the same time. If the line appears, one of them causes it, otherwise one of the other half.
So a few rounds lead to one session, which then runs alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Final

import trio

from smtpbench.rules import rule as r
from smtpbench.session.client import ClientSession
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script
from smtpbench.supervisor.death import LogLine
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.text import visible
from smtpbench.units import NS_PER_MS

#: Lines of the server's log that a finding quotes, and characters of each.
MAX_QUOTED_LINES: Final = 5
_QUOTED_CHARACTERS: Final = 300
#: Characters of a line that distinguish it from others.
_KEY_CHARACTERS: Final = 200
#: A server may write a line this long after the end of the session, seconds.
_LATE_S: Final = 0.2
_POLL_S: Final = 0.01
#: A line may be read this long after the session ended that it belongs to.
LATE_NS: Final = 300 * NS_PER_MS
#: The lines of one error follow each other within this time.
_SAME_ERROR_NS: Final = 100 * NS_PER_MS
#: How the cause of a finding begins that a line of the log shows.
LOG_CAUSE: Final = "the server's log: "

_VARIABLE: Final = re.compile(
    r"<[^<>]*>|'[^']*'|\"[^\"]*\"|\b0x[0-9a-fA-F]+\b|\b(?=[0-9A-Fa-f]*\d)[0-9A-Fa-f]{6,}\b|\d+", re.ASCII
)
_BUG: Final = re.compile(r"panic|assert|traceback", re.IGNORECASE)
_TRACEBACK: Final = re.compile(r"Traceback \(most recent call last\)|stack ?trace:?\s*$", re.IGNORECASE)


def line_key(text: str) -> str:
    """Return a line without what differs from one occurrence to the next: numbers, addresses, quoted text; escaped."""
    return visible(_VARIABLE.sub("…", text[: 4 * _KEY_CHARACTERS]).strip(), _KEY_CHARACTERS)


def error_text(key: str, lines: Iterable[LogLine]) -> str:
    """Return what a finding says of the line with a key, which must be one of the lines."""
    return f"the server's log speaks of an error: {visible(next(line.text for line in lines if line_key(line.text) == key))}"


def severity_of_lines(lines: Iterable[LogLine]) -> str:
    """Return the severity of lines where the server lives: a failed assertion is a bug, other errors may be meant."""
    return r.VIOLATION if any(_BUG.search(line.text) for line in lines) else r.WARNING


def telling_lines(lines: Sequence[LogLine]) -> list[LogLine]:
    """Return the lines without those that only announce the next one, such as the first line of a traceback."""
    telling = []
    for line, following in zip_longest(lines, lines[1:]):
        if following is not None and _announces(line, following):
            continue
        telling.append(line)
    return telling


def _announces(line: LogLine, following: LogLine) -> bool:
    """Return whether a line only announces the next one."""
    if following.source != line.source or following.at_ns - line.at_ns >= _SAME_ERROR_NS:
        return False
    return bool(_TRACEBACK.search(line.text)) and not _TRACEBACK.search(following.text)


def quoted_lines(lines: Iterable[LogLine], known: Iterable[str] = ()) -> list[str]:
    """Return the first lines of the server's log as a finding quotes them, each one once.

    Args:
        lines: The lines.
        known: Keys of lines that any session causes.
    """
    by_key: dict[str, str] = {}
    known = set(known)
    for line in lines:
        key = line_key(line.text)
        if key not in known:
            by_key.setdefault(key, visible(line.text, _QUOTED_CHARACTERS))
    return [*by_key.values()][:MAX_QUOTED_LINES]


class LogSearch:
    """Repeats sessions, to find the one that makes a line appear in the server's log.

    Args:
        runner: Runs sessions with the server; nothing else may use the server meanwhile.
        server: The server.
        session_class: Class of the sessions.
        timeout_ns: Limit for one reply, nanoseconds; None for the runner's.
    """

    def __init__(
        self,
        runner: SessionRunner,
        server: SupervisedServer,
        session_class: type[ClientSession] = ClientSession,
        timeout_ns: int | None = None,
    ) -> None:
        self._runner = runner
        self._server = server
        self._session_class = session_class
        self._timeout_ns = timeout_ns

    @property
    def is_log_known(self) -> bool:
        """Whether there is a log: the output of a server that smtpbench started, or lines that were read."""
        return self._server.can_restart or bool(self._server.log_lines(0, time.monotonic_ns()))

    async def find(self, scripts: Sequence[Script], key: str) -> Script | None:
        """Return the script that makes a line appear; None if none does, or if it takes several."""
        if not scripts or not await self._appears(scripts, key):
            return None
        while len(scripts) > 1:
            half = scripts[: (len(scripts) + 1) // 2]
            if await self._appears(half, key):
                scripts = half
            elif not await self._appears(scripts := scripts[len(half) :], key):
                return None
        return scripts[0]

    async def run(self, script: Script, key: str) -> tuple[SessionResult, list[LogLine]]:
        """Run a script alone; return the session, and the lines of the log from its beginning on if the line is one."""
        from_ns = time.monotonic_ns()
        session_result = await self._runner.run(script, self._session_class, self._timeout_ns)
        return session_result, await self._lines(from_ns, key)

    async def _appears(self, scripts: Sequence[Script], key: str) -> bool:
        from_ns = time.monotonic_ns()
        async with trio.open_nursery() as nursery:
            for script in scripts:
                nursery.start_soon(self._runner.run, script, self._session_class, self._timeout_ns)
        return bool(await self._lines(from_ns, key))

    async def _lines(self, from_ns: int, key: str) -> list[LogLine]:
        """Return the lines since a moment, once one with the key is among them; none if it does not come in time."""
        with trio.move_on_after(_LATE_S):
            while True:
                lines = self._server.log_lines(from_ns, time.monotonic_ns())
                if any(line_key(line.text) == key for line in lines):
                    return lines
                await trio.sleep(_POLL_S)
        return []
