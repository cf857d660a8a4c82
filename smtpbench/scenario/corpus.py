"""Message files, prepared once for all sessions and all workers of a run.

Theory of operation
===================

A message file is read, its line ends and dots are prepared, and the result is kept as it is sent. Up to `_MEMORY_BYTES`, the
messages of a corpus stay in memory. A larger corpus goes to a temporary file without a name. Each message is read from that
file when it is sent: the kernel caches the file once for all workers, and gives the memory back if something else needs it.
Small messages are read, which is cheaper than a map. Large ones are views of a map, so that many sessions that send the same
message share its octets.

The main process makes the file. A worker gets its descriptor. The offsets of the messages and their number, eight octets
each, are at the end of the file.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import IO

#: Messages from this size on are sent as a view, which is not copied.
VIEW_BYTES = 32 * 1024
#: A corpus up to this size stays in memory.
_MEMORY_BYTES = 4 * 1024 * 1024
_NUMBER_BYTES = 8

#: Receives how many files of a corpus are prepared, and how many there are.
ReportFiles = Callable[[int, int], None]


class Corpus:
    """The messages of a corpus as they are sent, without the header field of the run.

    Args:
        messages: The messages, each with its final dot.

    Raises:
        OSError: The temporary file cannot be written.
    """

    def __init__(self, messages: Iterable[bytes]) -> None:
        self._in_memory: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._descriptor = -1
        self._map: memoryview | None = None
        self._offsets = array("Q", [0])
        for message in messages:
            self._append(message)
        self._write_offsets()

    @classmethod
    def shared(cls, descriptor: int) -> Corpus:
        """Return the corpus that another process, or another part of this one, has written to a file."""
        corpus = cls(())
        corpus._descriptor = descriptor
        end = os.fstat(descriptor).st_size - _NUMBER_BYTES
        (count,) = struct.unpack("=Q", os.pread(descriptor, _NUMBER_BYTES, end))
        size_bytes = count * _NUMBER_BYTES
        corpus._offsets = array("Q", os.pread(descriptor, size_bytes, end - size_bytes))
        return corpus

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def descriptor(self) -> int:
        """Descriptor of the file; -1 for a corpus in memory."""
        return self._descriptor

    def message(self, at: int) -> bytes:
        """Return a message: its octets or, if they are many, a view of them, which sockets take like bytes."""
        if self._descriptor < 0:
            return self._in_memory[at]
        start, end = self._offsets[at], self._offsets[at + 1]
        if end - start < VIEW_BYTES:
            return os.pread(self._descriptor, end - start, start)
        if self._map is None:
            self._map = memoryview(mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ))
        return self._map[start:end]  # type: ignore[return-value]  # sockets take views like bytes

    def close(self) -> None:
        """Close the file, if this corpus has made it."""
        if self._file is not None:
            _close(self._file)

    def _write_offsets(self) -> None:
        if self._file is not None:
            self._file.write(self._offsets.tobytes() + struct.pack("=Q", len(self._offsets)))
            self._file.flush()

    def _append(self, message: bytes) -> None:
        self._offsets.append(self._offsets[-1] + len(message))
        if self._file is None and self._offsets[-1] > _MEMORY_BYTES:
            self._file = tempfile.TemporaryFile(prefix="smtpbench-")  # noqa: SIM115  (it stays open for the run)
            weakref.finalize(self, _close, self._file)
            self._descriptor = self._file.fileno()
            self._file.writelines(self._in_memory)
            self._in_memory.clear()
        if self._file is None:
            self._in_memory.append(message)
        else:
            self._file.write(message)


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # what could not be written was reported when it was written
        file.close()


class Corpora:
    """The corpora of a scenario, by the pattern of their files: each is prepared once.

    Args:
        descriptors: Pattern → descriptor of a corpus that was prepared before.
        report: Receives the progress of preparing a corpus.
    """

    def __init__(self, descriptors: Mapping[str, int] | None = None, report: ReportFiles = lambda done, total: None) -> None:
        self.report = report
        self._by_pattern = {pattern: Corpus.shared(descriptor) for pattern, descriptor in (descriptors or {}).items()}

    def find(self, pattern: str) -> Corpus | None:
        """Return the corpus of a pattern; None if it is not prepared yet."""
        return self._by_pattern.get(pattern)

    def add(self, pattern: str, messages: Iterable[bytes]) -> Corpus:
        """Prepare the corpus of a pattern. Raises OSError."""
        corpus = self._by_pattern[pattern] = Corpus(messages)
        return corpus

    @property
    def descriptors(self) -> dict[str, int]:
        """Pattern → descriptor, of the corpora that are in files."""
        return {pattern: one.descriptor for pattern, one in self._by_pattern.items() if one.descriptor >= 0}

    def close(self) -> None:
        """Close the files; no message can be read any more."""
        for corpus in self._by_pattern.values():
            corpus.close()
