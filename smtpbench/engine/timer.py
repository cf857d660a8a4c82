"""Timers with a resolution of microseconds: a heap of calls, and a kernel timer that wakes an epoll for the first.

The time-out of an event loop is rounded up to whole milliseconds. An arrival that waits for it starts half a millisecond
late on average, more than a fast server's whole service time. A timerfd is late by some tens of microseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import itertools
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE = 1
_NS_PER_S = 1_000_000_000


class _TimerSpec(ctypes.Structure):
    """struct itimerspec on 64-bit Linux: interval and first expiry, each in seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


_libc = ctypes.CDLL(None, use_errno=True)


class Timers:
    """Calls to make at given times of `time.monotonic_ns`.

    Attributes:
        fd: Descriptor that is readable once a call is due.
    """

    __slots__ = ("_armed_ns", "_heap", "_order", "_spec", "fd")

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = itertools.count()
        self._armed_ns = 0
        self._spec = _TimerSpec(0, 0, 0, 0)

    def call_at(self, when_ns: int, call: Callable[[int], None]) -> None:
        """Call `call(now_ns)` at `when_ns`, or as soon as possible if that is past."""
        heapq.heappush(self._heap, (when_ns, next(self._order), call))
        self._arm()

    def run_due(self, clock: Callable[[], int]) -> None:
        """Make the calls that are due now, each with its own time. A call may add others."""
        now_ns = clock()
        with contextlib.suppress(BlockingIOError):  # it was armed again since it became readable
            os.read(self.fd, 8)
        self._armed_ns = 0
        heap = self._heap
        while heap and heap[0][0] <= now_ns:
            heapq.heappop(heap)[2](clock())
        self._arm()

    def _arm(self) -> None:
        if not self._heap or self.fd < 0:
            return
        when_ns = max(self._heap[0][0], 1)  # zero would disarm it
        if self._armed_ns and self._armed_ns <= when_ns:
            return
        self._armed_ns = when_ns
        self._spec.value_s, self._spec.value_ns = divmod(when_ns, _NS_PER_S)
        if _libc.timerfd_settime(self.fd, _ABSOLUTE, ctypes.byref(self._spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def close(self) -> None:
        """Discard every call and close the descriptor. Calls added later are never made."""
        self._heap.clear()
        os.close(self.fd)
        self.fd = -1
