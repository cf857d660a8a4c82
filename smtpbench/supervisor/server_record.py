"""The server under test in a result: `server`, and `server.csv` beside it.

A command that measures a server begins its window with `begin`, lets `flush` run about once a second, and ends with `end`:

    record = ServerRecord(server, folder)      # folder None: without server.csv
    record.begin()                             # from here on, what the server uses is counted
    ...
    record.flush()                             # about once a second, for server.csv
    ...
    record.end()
    section = record.section()                 # `server` of the result; None if nothing is known
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

from smtpbench.measure.files import csv_line
from smtpbench.measure.health import machine_busy_s
from smtpbench.measure.notes import DIED_AGAIN, SERVER_DIED
from smtpbench.measure.server_usage import (
    SERVER_COLUMNS,
    SERVER_CSV,
    UsageSample,
    UsageWindow,
    server_line,
    usage_section,
)
from smtpbench.supervisor.death import Death, LogLine
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.text import plural, visible
from smtpbench.units import NS_PER_S

#: First lines of `server.csv`.
SERVER_CSV_HEADER: Final = {SERVER_CSV: csv_line(SERVER_COLUMNS)}
_FOREVER_NS: Final = 2**63 - 1
#: Deaths that notes name, at most.
_MAX_DEATHS_NAMED: Final = 5


class ServerRecord:
    """What the server used in the measured window of a command, and what happened to it.

    Args:
        server: The server.
        append: Called with the lines for `server.csv`.

    Attributes:
        start_ns: Start of the command, of `time.monotonic_ns`; times in the result are seconds since then.
    """

    def __init__(self, server: SupervisedServer, append: Callable[[str], None] = lambda lines: None) -> None:
        self._server = server
        self._append = append
        self._window = UsageWindow()
        self._counted = len(server.samples)
        self._written = server.measure()
        self._latest: UsageSample | None = self._written
        self._busy_s: tuple[float, float] | None = None  # busy time of the machine at the start and the end of the window
        self._end_ns = 0
        self._ended = False
        self._deaths_seen = 0
        self.start_ns = time.monotonic_ns()

    @property
    def begun(self) -> bool:
        """Whether the window has begun."""
        return self._window.first is not None

    def begin(self) -> None:
        """Begin the window with a sample of this moment."""
        self._busy_s = machine_busy_s(), 0.0
        self._counted = len(self._server.samples)
        self._add(self._server.measure())

    def flush(self) -> None:
        """Take the samples since the last call."""
        samples = self._server.samples
        for sample in samples[self._counted :]:
            self._add(sample)
        self._counted = len(samples)

    def end(self) -> None:
        """End the window with a sample of this moment."""
        self.flush()
        self._add(self._server.measure())
        if self._busy_s is not None:
            self._busy_s = self._busy_s[0], machine_busy_s()
        self._end_ns = time.monotonic_ns()
        self._ended = True

    def _add(self, sample: UsageSample | None) -> None:
        if sample is None or (self._latest is not None and sample.at_ns < self._latest.at_ns):
            return
        self._latest = sample
        if not self._ended and self._busy_s is not None:
            self._window.add(sample)
        if sample.at_ns <= self.start_ns:
            self._written = sample
        elif self._written is not None:
            self._append(server_line(self._written, sample, self.start_ns))
            self._written = sample

    def has_new_deaths(self) -> bool:
        """Return whether the server has died since the last call."""
        seen, self._deaths_seen = self._deaths_seen, len(self._deaths())
        return self._deaths_seen > seen

    def section(self, messages: int | None = None, *, growth: bool = True) -> dict[str, Any] | None:
        """Return `server` of the result; None if nothing is known of the server.

        Args:
            messages: Messages that were accepted in the window; None if a message is not what was tested.
            growth: Whether the growth of memory is calculated; it is not while the command runs.
        """
        window = self._window
        if window.first is None and self._written is not None:
            window = UsageWindow()
            window.add(self._written)  # something is known, though not of the window
        deaths = [{"at_s": self._at_s(one.at_ns), **one.to_data()} for one in self._deaths()]
        lines = [
            {"at_s": self._at_s(one.at_ns), "source": visible(one.source), "text": visible(one.text)}
            for one in self._lines()
        ]
        return usage_section(self._server.measured, window, messages=messages, deaths=deaths, log_lines=lines, growth=growth)

    def notes(self) -> list[str]:
        """Return the sentences about the server for the reader of the result."""
        deaths = self._deaths()
        found = [_death_note(one, self._at_s(one.at_ns)) for one in deaths[:_MAX_DEATHS_NAMED]]
        if len(deaths) > _MAX_DEATHS_NAMED:
            found.append(f"{DIED_AGAIN}{plural(len(deaths) - _MAX_DEATHS_NAMED, 'more time')}.")
        lines = self._lines()
        if lines:
            number = plural(len(lines), "line")
            speak = "speaks" if len(lines) == 1 else "speak"
            found.append(f"{number} of the server's log {speak} of an error; the first: {visible(lines[0].text)}")
        return found

    def core_use(self, generator_s: float, workers: int = 1) -> tuple[float, float]:
        """Return how many cores the server used in the window, and how many others that took them from a worker did.

        Args:
            generator_s: CPU time of the generator in the window, seconds.
            workers: Processes of the generator; each takes cores from the others.
        """
        window, cpu_s = self._window, self._window.cpu_s
        if cpu_s is None or window.first is None or self._busy_s is None or not self._busy_s[0]:
            return 0.0, 0.0
        cores = self._server.measured.cores
        if cores and not cores & os.sched_getaffinity(0):
            return 0.0, 0.0  # it cannot have taken a core of the generator
        elapsed_s = ((self._end_ns or time.monotonic_ns()) - window.first.at_ns) / NS_PER_S
        busy_s = (self._busy_s[1] or machine_busy_s()) - self._busy_s[0]
        server_cores = cpu_s / window.length_s  # while it goes on, the last sample is some time ago
        others = max(0.0, (busy_s - generator_s) / elapsed_s - server_cores) + generator_s / elapsed_s * (1 - 1 / workers)
        return server_cores, others

    def _deaths(self) -> list[Death]:
        return [one for one in self._server.deaths if one.at_ns >= self.start_ns]

    def _lines(self) -> list[LogLine]:
        return self._server.log_lines(self.start_ns, _FOREVER_NS)

    def _at_s(self, at_ns: int) -> float:
        return (at_ns - self.start_ns) / NS_PER_S


def server_data(record: ServerRecord | None, *, ended: bool) -> dict[str, Any]:
    """Return the part of a result with the key `server`; empty if nothing is known of the server.

    Args:
        record: The record; None without a server.
        ended: Whether the command is over, so that the window ends now.
    """
    if record is None:
        return {}
    if ended:
        record.end()
    section = record.section(growth=ended)
    return {} if section is None else {"server": section}


def _death_note(death: Death, at_s: float) -> str:
    again = {"smtpbench": " and was started again", "others": " and was started again by others"}
    return f"{SERVER_DIED}{death.text}) after {at_s:.1f} s{again.get(death.restarted_by, '')}."
