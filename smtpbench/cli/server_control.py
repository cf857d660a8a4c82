"""Options about the server under test itself: how it is started, watched, restarted and stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import trio
import typer

from smtpbench.cli.choices import RESTART, one_of, option_value
from smtpbench.errors import UsageError
from smtpbench.supervisor.server_options import ServerOptions, make_server_options, parse_pattern, parse_ready, parse_watch
from smtpbench.supervisor.supervised import SupervisedServer, supervised
from smtpbench.target import Access

#: File in the folder of a result: what the server wrote.
SERVER_LOG: Final = "server.log"
_PANEL: Final = "Server under test"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerControlOptions:
    """How the server under test is started, watched, restarted and stopped.

    Attributes:
        start: Shell command that runs it; None where it runs already.
        stop: Shell command that stops it; None if ending its processes is enough.
        ready: When it is ready.
        restart: Whether it is started again after it died: `always`, `never`; None for the command's default.
        server_log: Its log files.
        log_pattern: Regular expression for lines that speak of an error; None for the default.
        watch: Its processes, where it runs already; None for the process that listens on a loopback target.
    """

    start: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Shell command that runs the server; it is stopped at the end, with all its processes.  [default: it runs "
            "already]",
            rich_help_panel=_PANEL,
        ),
    ] = None
    stop: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Shell command that stops the server of --start.  [default: SIGTERM, then SIGKILL]",
            rich_help_panel=_PANEL,
        ),
    ] = None
    ready: Annotated[
        str | None,
        typer.Option(
            metavar="greets|port|text:TEXT|file:PATH",
            help="When the server of --start is ready: it greets, accepts connections, writes a text, or makes a file.  "
            "[default: greets]",
            rich_help_panel=_PANEL,
        ),
    ] = None
    restart: Annotated[
        str | None,
        typer.Option(
            metavar="always|never",
            help="Whether the server of --start is started again after it died.  [default: always for check, fuzz and "
            "replay, never for others]",
            rich_help_panel=_PANEL,
        ),
    ] = None
    server_log: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Log file of the server, whose lines are evidence too; repeat it for further ones.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    log_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Lines of the server's output and logs that speak of an error.  [default: panic, assert, fatal, "
            "error: and the like]",
            rich_help_panel=_PANEL,
        ),
    ] = None
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="pid:N|cgroup:PATH|unit:NAME|none",
            help="Processes of a server that runs already.  [default: the one that listens on a loopback target]",
            rich_help_panel=_PANEL,
        ),
    ] = None

    def repeat_options(self) -> list[str]:
        """Return the options with which a command that repeats a finding starts or watches the server in the same way."""
        given = {
            "start": self.start,
            "stop": self.stop,
            "ready": self.ready,
            "watch": self.watch,
            "log-pattern": self.log_pattern,
        }
        options = [f"--{name}={value}" for name, value in given.items() if value]
        return options + [f"--server-log={path}" for path in self.server_log or ()]

    def options(self, *, restart: bool) -> ServerOptions:
        """Return the options as the supervisor takes them.

        Args:
            restart: What applies without `--restart`.

        Raises:
            UsageError: A value is not allowed, or options contradict each other.
        """
        one_of("--restart", self.restart, RESTART)
        for name in ("stop", "ready", "restart"):
            if getattr(self, name) is not None and not self.start:
                raise UsageError(f"--{name} is about the server of --start; add --start COMMAND")
        if self.watch and self.start:
            raise UsageError("--watch is about a server that runs already, and --start runs one; use one of them")
        if self.ready is not None:
            option_value("--ready", parse_ready, self.ready)
        if self.watch is not None:
            option_value("--watch", parse_watch, self.watch)
        if self.log_pattern is not None:
            option_value("--log-pattern", parse_pattern, self.log_pattern)
        return make_server_options(
            start=self.start or "",
            stop=self.stop or "",
            ready=self.ready or "",
            restart=restart if self.restart is None else self.restart == "always",
            logs=self.server_log or (),
            log_pattern=self.log_pattern or "",
            watch=self.watch or "",
        )


def run_supervised(
    options: ServerOptions, access: Access, log: Path | None, work: Callable[[SupervisedServer], Awaitable[T]]
) -> T:
    """Run the work of a command in an event loop of its own, with the server started and watched around it.

    Args:
        options: How the server is started and watched.
        access: How it is reached.
        log: File for its output; None to keep only the last lines.
        work: The work.

    Raises:
        CannotRun: See `supervised`.
    """

    async def main() -> T:
        async with supervised(options, access, log) as server:
            return await work(server)

    return trio.run(main)
