"""Processes and their descendants, from `/proc`. The helper imports this, so it needs the standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NamedTuple


class ProcessStat(NamedTuple):
    """A line of `/proc/PID/stat`.

    Attributes:
        parent: Its parent.
        name: Its name, at most 15 octets.
        started: When it started, in ticks since the machine started.
    """

    parent: int
    name: str
    started: str


def stat_of(pid: int) -> ProcessStat | None:
    """Return what the kernel says of a process, also of a zombie; None if it does not exist."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(int(fields[1]), text[text.index("(") + 1 : text.rindex(")")], fields[19])


def descendants(root: int) -> dict[int, str]:
    """Return the descendants of a process, with their start times; zombies count."""
    children: dict[int, list[tuple[int, str]]] = {}
    for name in os.listdir("/proc"):
        stat = stat_of(int(name)) if name.isdecimal() else None
        if stat is not None:
            children.setdefault(stat.parent, []).append((int(name), stat.started))
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        for pid, started in children.get(waiting.pop(), ()):
            found[pid] = started
            waiting.append(pid)
    return found


def send_signal(pid: int, started: str, number: int) -> None:
    """Send a signal to a process, and to no other one that has got its number since."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            stat = stat_of(pid)
            if stat is not None and stat.started == started:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)
