"""How the server under test is started, watched and restarted, as the user says it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smtpbench.errors import UsageError
from smtpbench.text import visible
from smtpbench.units import NS_PER_S

#: Words in a line of the server's log that speak of an error in the server.
ERROR_PATTERN: Final = r"(?i)panic|assert|fatal|Traceback|error:"
_READY_KINDS: Final = ("greets", "port")
_READY_VALUES: Final = {"text": "text:TEXT", "file": "file:PATH"}
_WATCH_EXAMPLES: Final = (
    "use pid:N, cgroup:PATH, unit:NAME or none, like pid:1234, cgroup:/system.slice/postfix.service or unit:postfix"
)


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
        kind: `pid`, `cgroup`, `unit`, `none`; empty for the process that listens on a loopback target.
        value: Process, path below the root of cgroups, or name of the systemd unit; empty for the other kinds.
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


def make_server_options(
    *,
    start: str,
    stop: str,
    ready: str,
    restart: bool = False,
    ready_ns: int = 30 * NS_PER_S,
    logs: Iterable[Path] = (),
    log_pattern: str = "",
    watch: str = "",
    folder: Path = Path(),
) -> ServerOptions:
    """Return options from texts that a user wrote; empty ones are not given. Raises UsageError."""
    if watch and start:
        raise UsageError("a server that is started (start) and one that runs already (watch) exclude each other; use one")
    for name, text in (("stop", stop), ("ready-when", ready)):
        if text and text != "greets" and not start:
            raise UsageError(f"`{name}` is given without a start command; add `start`")
    return ServerOptions(
        start=start,
        stop=stop,
        ready=parse_ready(ready or "greets"),
        ready_ns=ready_ns,
        restart=restart and bool(start),
        logs=tuple(logs),
        log_pattern=parse_pattern(log_pattern) if log_pattern else ERROR_PATTERN,
        watch=parse_watch(watch) if watch else Watch(),
        folder=folder,
    )


def parse_ready(text: str) -> Ready:
    """Parse when a server is ready: `greets`, `port`, `text:TEXT` or `file:PATH`. Raises UsageError."""
    kind, _, value = text.partition(":")
    if text in _READY_KINDS or (kind in _READY_VALUES and value):
        return Ready(kind, value)
    allowed = ", ".join((*_READY_KINDS, *_READY_VALUES.values()))
    raise UsageError(f"{visible(text)!r} does not say when a server is ready; allowed are {allowed}")


def parse_pattern(text: str) -> str:
    """Return a regular expression. Raises UsageError if it is none."""
    try:
        re.compile(text)
    except re.error as error:
        raise UsageError(f"{visible(text)!r} is not a regular expression: {error}") from None
    return text


def parse_watch(text: str) -> Watch:
    """Parse which processes are the server: `pid:N`, `cgroup:PATH`, `unit:NAME` or `none`. Raises UsageError."""
    if text == "none":
        return Watch(text)
    kind, separator, value = text.partition(":")
    if kind not in ("pid", "cgroup", "unit") or not separator or not value:
        raise UsageError(f"{visible(text)!r} names no process; {_WATCH_EXAMPLES}")
    if kind == "pid" and not (value.isascii() and value.isdigit() and int(value) > 0):
        raise UsageError(f"{visible(value)!r} is not a process identifier; {_WATCH_EXAMPLES}")
    return Watch(kind, value)
