"""Log files of the server under test, followed from where they end: lines that speak of an error, and the last lines.

Theory of operation
===================

`follow` looks at the size of each file every 50 ms while the files grow, and every 100 ms otherwise. `poll_now` does it at
once: a line that the server wrote before its reply is there when the reply is. Only what is written after the start counts.

A file that is renamed is read further, and the new file of its name from the beginning: a server writes to the old one until
it is told. A file that becomes shorter was truncated, and is read from its beginning. A file that does not exist yet is read
from its beginning once it does.

Memory is bounded, whatever the server writes: lines are cut, and the oldest lines and matches are dropped and counted. One
look reads a bounded part of each file, so that a log that grows fast does not keep the program from its work; what is too
far behind is skipped and counted.
"""

from __future__ import annotations

import os
import re
import stat
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trio

from smtpbench.errors import UsageError
from smtpbench.supervisor.death import LogLine
from smtpbench.supervisor.server_options import ERROR_PATTERN
from smtpbench.text import visible

#: Longest line that is kept, octets.
LINE_BYTES: Final = 4096
#: Lines of each file, and matches of all files, that are kept.
_LAST_LINES: Final = 500
_MATCHES: Final = 1000
#: Part of a file that one look reads, and how far reading may be behind; octets.
_LOOK_BYTES: Final = 256 * 1024
_BEHIND_BYTES: Final = 16 * 1024 * 1024
#: Seconds between two looks: while files grow, and otherwise.
_BUSY_S: Final = 0.05
_IDLE_S: Final = 0.1

#: A regular expression of words for both cases: the usual form of a pattern for errors.
_WORDS: Final = re.compile(r"\(\?i\)[\w :;,=/@!-]+(?:\|[\w :;,=/@!-]+)*", re.ASCII)


def line_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a line matches a regular expression. Raises UsageError if it is none.

    Words for both cases are searched as texts, in less than a tenth of the time: `re` has no fast search for them.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{visible(pattern)!r} is not a regular expression: {error}") from None
    if not _WORDS.fullmatch(pattern):
        return lambda line: compiled.search(line) is not None
    literals = pattern.removeprefix("(?i)").lower().split("|")

    def contains(line: str) -> bool:
        lowered = line.lower()
        for literal in literals:  # noqa: SIM110  (a generator takes twice the time)
            if literal in lowered:
                return True
        return False

    return contains


class LogTail:
    """Follows log files while the context lasts.

    Args:
        files: The files; they need not exist.
        pattern: Regular expression for lines that are evidence of an error.
        on_match: Called with each line that matches.
        clock: Time of a line, as `time.monotonic_ns`.

    Attributes:
        dropped: Matches that were dropped because there were too many.
        skipped_bytes: Octets that were not read because a file grew too fast.

    Raises:
        UsageError: The pattern is no regular expression, or a file is none that can be read.
    """

    def __init__(
        self,
        files: Iterable[Path],
        pattern: str = ERROR_PATTERN,
        *,
        on_match: Callable[[LogLine], None] = lambda line: None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._matches_pattern = line_matcher(pattern)
        self._on_match = on_match
        self._clock = clock
        self._matches: deque[LogLine] = deque(maxlen=_MATCHES)
        self._last: dict[str, deque[LogLine]] = {}
        self.dropped = 0
        self._files: list[_FollowedFile] = []
        try:
            for file in dict.fromkeys(files):
                self._files.append(_FollowedFile(file))
        except UsageError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.poll_now(final=True)
        self.close()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    @property
    def skipped_bytes(self) -> int:
        """Octets that were not read because a file grew too fast."""
        return sum(file.skipped_bytes for file in self._files)

    async def follow(self) -> None:
        """Follow the files until cancelled."""
        while True:  # noqa: ASYNC110  (a file gives no event without a library)
            await trio.sleep(_BUSY_S if self.poll_now() else _IDLE_S)

    def poll_now(self, *, final: bool = False) -> bool:
        """Read what was written since the last look; return whether there was anything.

        Args:
            final: Whether the last line counts although it has no end; after a death.
        """
        grown = False
        for file in self._files:
            for line in file.read(final=final):
                grown = True
                self._add(line, file.name)
        return grown

    def matches(self, from_ns: int = 0, to_ns: int | None = None) -> list[LogLine]:
        """Return the lines that match the pattern and were read between two moments, in order; both may be included."""
        first = bisect_left(self._matches, from_ns, key=lambda line: line.at_ns)
        return [line for line in list(self._matches)[first:] if to_ns is None or line.at_ns <= to_ns]

    def last_lines(self, file: Path | None = None, from_ns: int = 0) -> list[str]:
        """Return the last lines of a file, or of all files in the order in which they were read, since a moment."""
        if file is not None:
            return [line.text for line in self._last.get(str(file), ()) if line.at_ns >= from_ns]
        kept = (line for lines in self._last.values() for line in lines if line.at_ns >= from_ns)
        lines = sorted(kept, key=lambda line: line.at_ns)
        return [line.text for line in lines[-_LAST_LINES:]]

    def _add(self, octets: bytes, source: str) -> None:
        line = LogLine(self._clock(), octets.removesuffix(b"\r").decode("utf-8", "replace"), source)
        self._last.setdefault(source, deque(maxlen=_LAST_LINES)).append(line)
        if self._matches_pattern(line.text):
            self.dropped += len(self._matches) == _MATCHES
            self._matches.append(line)
            self._on_match(line)


class _FollowedFile:
    """One file, by its name.

    Attributes:
        name: Its path, as given.
        skipped_bytes: Octets that were not read.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.skipped_bytes = 0
        self._renamed: _OpenFile | None = None
        try:
            self._file = _open(self.name)
        except FileNotFoundError:
            self._file = None  # it may appear
        except OSError as error:
            raise UsageError(
                f"log file {path}: {(error.strerror or str(error)).lower()}; use a file that can be read"
            ) from None
        else:
            if self._file is None:
                raise UsageError(f"log file {path} is a folder or a device; use a regular file")
            self._file.position = self._file.size()

    def close(self) -> None:
        for file in (self._renamed, self._file):
            if file is not None:
                file.close()
        self._renamed = self._file = None

    def read(self, *, final: bool) -> Iterator[bytes]:
        """Yield the lines that are new, cut to `LINE_BYTES`."""
        found: os.stat_result | None = None
        with suppress(OSError):
            found = os.stat(self.name)
        if found is not None and (self._file is None or not os.path.samestat(found, self._file.status())):
            with suppress(OSError):
                if (new := _open(self.name)) is not None:
                    if self._renamed is not None:
                        yield from self._read(self._renamed, final=True)
                        self._renamed.close()
                    self._renamed, self._file = self._file, new
        if self._renamed is not None:
            yield from self._read(self._renamed, final=final)
        if self._file is not None:
            yield from self._read(self._file, final=final)

    def _read(self, file: _OpenFile, *, final: bool) -> Iterator[bytes]:
        yield from file.read(final=final)
        self.skipped_bytes += file.skipped_bytes
        file.skipped_bytes = 0


def _open(name: str) -> _OpenFile | None:
    """Open a file; return None if it is no regular one. Raises OSError."""
    # a FIFO would wait for its writer
    file = _OpenFile(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    if stat.S_ISREG(file.status().st_mode):
        return file
    file.close()
    return None


class _OpenFile:
    """An open file and what was read of it.

    Attributes:
        position: Octets that were read.
        skipped_bytes: Octets that were skipped.
    """

    def __init__(self, descriptor: int) -> None:
        self.position = 0
        self.skipped_bytes = 0
        self._descriptor = descriptor
        self._partial = b""
        self._too_long = False

    def close(self) -> None:
        os.close(self._descriptor)

    def status(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    def size(self) -> int:
        return self.status().st_size

    def read(self, *, final: bool) -> Iterator[bytes]:
        """Yield the lines that are new, cut to `LINE_BYTES`."""
        size = self.size()
        if size < self.position:  # truncated
            yield from self._end_line()
            self.position = 0
        if size - self.position > _BEHIND_BYTES:
            yield from self._end_line()
            self.skipped_bytes += size - _LOOK_BYTES - self.position
            self.position = size - _LOOK_BYTES
            self._too_long = True  # what follows is the rest of a line
        if size > self.position:
            data = os.pread(self._descriptor, _LOOK_BYTES, self.position)
            self.position += len(data)
            yield from self._lines(data)
        if final and self.position >= size:
            yield from self._end_line()

    def _lines(self, data: bytes) -> Iterator[bytes]:
        *lines, rest = data.split(b"\n")
        for line in lines:
            if not self._too_long:
                yield (self._partial + line)[:LINE_BYTES]
            self._partial, self._too_long = b"", False
        if self._too_long:
            return
        self._partial += rest
        if len(self._partial) > LINE_BYTES:
            yield self._partial[:LINE_BYTES]
            self._partial, self._too_long = b"", True

    def _end_line(self) -> Iterator[bytes]:
        """Yield the line that has no end."""
        if self._partial:
            yield self._partial
        self._partial, self._too_long = b"", False
