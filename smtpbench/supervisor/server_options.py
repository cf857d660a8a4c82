"""How the server under test is started, watched and restarted, as the user says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smtpbench.units import NS_PER_S

#: Words in a line of the server's log that speak of an error in the server.
ERROR_PATTERN: Final = r"panic|assert|fatal|Traceback|error:"


@dataclass(frozen=True, slots=True)
class Ready:
    """When a server that was started is ready.

    Attributes:
        kind: `greets`, `port`, `text` or `file`.
        value: The text that its output must contain, or the path of the file that must exist; empty for the others.
    """

    kind: str = "greets"
    value: str = ""


@dataclass(frozen=True, slots=True)
class Watch:
    """Which processes are the server, where smtpbench does not start it.

    Attributes:
        kind: `pid`, `cgroup`, `unit`; empty for the process that listens on a loopback target.
        value: Process, path below the root of cgroups, or name of the systemd unit.
    """

    kind: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server under test is started, watched and restarted.

    Attributes:
        start: Shell command that runs the server; empty for none.
        stop: Shell command that stops it; empty if ending its processes is enough.
        ready: When it is ready.
        ready_ns: Time within which it must be ready, nanoseconds.
        restart: Whether it is started again after it died.
        logs: Log files to watch, besides standard output and error of `start`.
        log_pattern: Regular expression for lines that are evidence of an error.
        watch: Which processes are the server, where `start` is empty.
        folder: Folder in which the commands run.
    """

    start: str = ""
    stop: str = ""
    ready: Ready = Ready()
    ready_ns: int = 30 * NS_PER_S
    restart: bool = False
    logs: tuple[Path, ...] = ()
    log_pattern: str = ERROR_PATTERN
    watch: Watch = Watch()
    folder: Path = Path()
