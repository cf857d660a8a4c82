"""The end of a process that need not be a child of this one, with its exit status where the kernel tells it.

Theory of operation
===================

A pidfd becomes readable when the process has ended. It refers to that process for good: a process identifier that is used
again does not deceive it. Whoever is not the parent cannot wait for the exit status, but there are two other sources:

1. `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT` (Linux 6.15). The kernel stores the status when the parent collects it. The pidfd
   must be open before that moment.
2. Field 52 of `/proc/PID/stat`, while the parent has not collected the status. It is 0 for whoever may not trace the
   process, so a 0 there tells nothing.

The parent may take its time, so both are asked for `_STATUS_S`. After that the status is not known. It is never guessed.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

import psutil
import trio

#: Time after the end of a process in which its status may become known, seconds.
_STATUS_S: Final = 0.3
#: Seconds between two questions: for the status of a process that has ended, and for the end of one without a pidfd.
_STATUS_POLL_S: Final = 0.002
_END_POLL_S: Final = 0.05

# linux/pidfd.h: struct pidfd_info in its first version has 64 octets; `exit_code`, a status as of wait(), is the last member
_INFO_BYTES: Final = 64
_PIDFD_GET_INFO: Final = 3 << 30 | _INFO_BYTES << 16 | 0xFF << 8 | 11  # _IOWR(0xFF, 11, struct pidfd_info)
_PIDFD_INFO_EXIT: Final = 1 << 3
_MASK: Final = struct.Struct("=Q")
_EXIT_CODE: Final = struct.Struct("=60xi")

# proc_pid_stat(5): fields after the name, counted from the third
_STATE, _START_TIME, _EXIT_STATUS = 0, 19, 49


class HowEnded(NamedTuple):
    """How a process ended; both values are None if that is not known.

    Attributes:
        exit_status: Exit status; None if a signal ended it.
        signal_number: Signal that ended it; None if none did.
    """

    exit_status: int | None = None
    signal_number: int | None = None

    @property
    def known(self) -> bool:
        """Return whether anything is known."""
        return self != NOT_KNOWN


NOT_KNOWN: Final = HowEnded()


def how_ended(wait_status: int) -> HowEnded:
    """Return what a status of `os.waitpid` says."""
    if os.WIFSIGNALED(wait_status):
        return HowEnded(signal_number=os.WTERMSIG(wait_status))
    return HowEnded(exit_status=os.WEXITSTATUS(wait_status))


class ProcessEnd:
    """Watches for the end of a process while the context lasts.

    Args:
        process: The process. One that has ended already, or whose identifier belongs to another process by now, is an end
            of which nothing is known.
    """

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self._pidfd: int | None = None
        self._start_time = b""
        self._how = NOT_KNOWN
        with suppress(OSError):  # it has ended, or there are no pidfds here
            self._pidfd = os.pidfd_open(process.pid)
        with suppress(OSError):
            self._start_time = _stat(process.pid)[_START_TIME]
        self._ended = not process.is_running()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    @property
    def ended(self) -> bool:
        """Return whether the process has ended, without waiting."""
        if not self._ended:
            self._ended = bool(_readable(self._pidfd)) if self._pidfd is not None else not _alive(self.process)
        return self._ended

    async def wait(self) -> HowEnded:
        """Wait for the end, and at most 0.3 s longer for the status; return how the process ended."""
        while not self.ended:
            if self._pidfd is not None:
                await trio.lowlevel.wait_readable(self._pidfd)
            else:
                await trio.sleep(_END_POLL_S)
        with trio.move_on_after(_STATUS_S):
            while not self.how().known:  # noqa: ASYNC110  (the kernel gives no event)
                await trio.sleep(_STATUS_POLL_S)
        return self._how

    def how(self) -> HowEnded:
        """Return how the process ended, as far as that is known at this moment."""
        if not self._how.known and self.ended:
            self._how = self._from_pidfd() or self._from_proc() or NOT_KNOWN
        return self._how

    def _from_pidfd(self) -> HowEnded | None:
        if self._pidfd is None:
            return None
        info = bytearray(_INFO_BYTES)
        _MASK.pack_into(info, 0, _PIDFD_INFO_EXIT)
        try:
            fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, info)
        except OSError:  # an older kernel
            return None
        if not _MASK.unpack_from(info)[0] & _PIDFD_INFO_EXIT:
            return None
        return how_ended(_EXIT_CODE.unpack(info)[0])

    def _from_proc(self) -> HowEnded | None:
        with suppress(OSError):
            fields = _stat(self.process.pid)
            status = int(fields[_EXIT_STATUS])
            if fields[_STATE] in (b"Z", b"X") and fields[_START_TIME] == self._start_time and status:
                return how_ended(status)
        return None


def _readable(pidfd: int) -> bool:
    poll = select.poll()  # unlike select(), it has no limit on the number of a descriptor
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _stat(pid: int) -> list[bytes]:
    """Return the fields of `/proc/PID/stat` after the name, which may hold spaces and parentheses."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
