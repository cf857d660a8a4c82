"""The output of the server under test as its helper reads it: to the log file, and line by line."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections import deque
from collections.abc import Callable

_PIPE_OCTETS = 1 << 20
_LINE_OCTETS = 4096
#: Lines, and characters, of the output that are kept for the report of a death.
_TAIL_LINES, _TAIL_CHARACTERS = 1000, 200_000


def open_log(path: str) -> int:
    """Open a log to append to, or else the null device: a disk that is full does not keep a server from running."""
    for name in (path, os.devnull):
        with contextlib.suppress(OSError):
            return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    raise AssertionError("there is no null device")


class ServerOutput:
    """The output of one start of the server.

    Args:
        log: File that it is appended to.
        pattern: Regular expression for lines to report; empty for none.
        text: Text to report once; empty for none.
        emit: Takes events: `line` with `at_ns` and `text`, and `text`.

    Attributes:
        reader: End of the pipe that is read here.
        writer: End of the pipe that the server gets.
    """

    def __init__(self, log: str, pattern: str, text: str, emit: Callable[..., None]) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, _PIPE_OCTETS)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._pattern = re.compile(pattern) if pattern else None
        self._text = text
        self._emit = emit
        self._partial = b""
        self._log = open_log(log)

    def read(self) -> bool:
        """Read what is there. Return False at the end of the output."""
        while True:
            try:
                data = os.read(self.reader, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            with contextlib.suppress(OSError):
                os.write(self._log, data)
            *lines, self._partial = (self._partial + data).split(b"\n")
            if len(self._partial) > _LINE_OCTETS:
                lines.append(self._partial)
                self._partial = b""
            for line in lines:
                self._keep(line)
            self._look_for_text(self._partial.decode("utf-8", "replace"))  # a server may end no line when it is ready

    def finish(self) -> None:
        """Read what is left, the last line without an end too."""
        self.read()
        if self._partial:
            self._keep(self._partial)
            self._partial = b""

    def close(self) -> None:
        """Close the pipe and the log."""
        os.close(self.reader)
        os.close(self._log)

    def take_last_lines(self) -> list[str]:
        """Return the last lines, the oldest first, and forget them."""
        found, characters = deque[str](), 0
        for line in reversed(self._tail):
            characters += len(line)
            if characters > _TAIL_CHARACTERS:
                break
            found.appendleft(line)
        self._tail.clear()
        return list(found)

    def _keep(self, line: bytes) -> None:
        text = line[:_LINE_OCTETS].rstrip(b"\r").decode("utf-8", "replace")
        self._tail.append(text)
        self._look_for_text(text)
        if self._pattern is not None and self._pattern.search(text):
            self._emit("line", at_ns=time.monotonic_ns(), text=text)

    def _look_for_text(self, line: str) -> None:
        if self._text and self._text in line:
            self._text = ""
            self._emit("text")
