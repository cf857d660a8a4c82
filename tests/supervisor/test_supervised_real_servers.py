"""Real servers, started by smtpbench: watched as a whole, known when they die, and ended with all their processes."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import servers
import start_commands
from small_server import access

from smtpbench.rules.probe_steps import hello, line, script
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import session_runner
from smtpbench.supervisor.processes import listener_of
from smtpbench.supervisor.server_options import ServerOptions
from smtpbench.supervisor.supervised import supervised

COMMANDS: dict[str, Callable[[Path, int], str]] = {
    "postfix": start_commands.postfix,
    "exim": start_commands.exim,
    "aiosmtpd": lambda folder, port: start_commands.aiosmtpd(port),
    "node": start_commands.node,
}


@contextmanager
def ends_of(pids: list[int]) -> Iterator[list[int]]:
    """Descriptors that become readable when these processes end, whoever they belong to by then."""
    with ExitStack() as stack:
        descriptors = []
        for pid in pids:
            try:
                descriptors.append(os.pidfd_open(pid))
            except ProcessLookupError:
                continue  # a short-lived one
            stack.callback(os.close, descriptors[-1])
        yield descriptors


def all_ended(descriptors: list[int]) -> bool:
    """Whether the processes of these descriptors have ended."""
    return len(select.select(descriptors, [], [], 0)[0]) == len(descriptors)


def processes_behind(port: int) -> list[int]:
    """The process that listens, and all its descendants."""
    main = listener_of(access(port).routes())
    assert main is not None
    return [main.pid, *(one.pid for one in main.children(recursive=True))]


@pytest.mark.parametrize("name", COMMANDS)
async def test_death_of_a_real_server_is_known_and_nothing_of_it_is_left(tmp_path: Path, name: str) -> None:
    port = servers.free_port()
    options = ServerOptions(COMMANDS[name](tmp_path / name, port), restart=True)
    with ExitStack() as stack:
        async with supervised(options, access(port), tmp_path / "server.log") as server:
            sample = server.measure()
            assert sample is not None
            assert sample.cpu_s > 0
            begin_ns = time.monotonic_ns()
            os.kill(processes_behind(port)[0], signal.SIGSEGV)
            death = await server.death_since(begin_ns)
            assert death is not None
            assert death.how == "signal 11 (SIGSEGV)"
            assert await server.wait_until_ready()
            assert [one.restarted_by for one in server.deaths] == ["smtpbench"]
            descriptors = stack.enter_context(ends_of(processes_behind(port)))
            assert descriptors
            assert not all_ended(descriptors)
        assert all_ended(descriptors)
        assert not servers.accepts(port)


async def test_exception_of_a_real_runtime_is_the_cause_of_a_death(tmp_path: Path) -> None:
    port = servers.free_port()
    options = ServerOptions(start_commands.node(tmp_path / "node", port), restart=True)
    async with supervised(options, access(port), tmp_path / "server.log") as server:
        target_info = TargetInfo()
        begin_ns = time.monotonic_ns()
        route = access(port).routes()[0]
        async with session_runner(route, access(port).timeout_ns) as runner:
            session_result = await runner.run(
                script(target_info, hello(target_info), line("RCPT TO:nobody"), quiet_period=False)
            )
        assert Dialogue.of(session_result.transcript).greeted
        death = await server.death_since(begin_ns)
        assert death is not None
        assert death.how == "exit status 1"
        assert death.report is not None
        assert "parseRecipient" in death.report.frames[0]
        assert "TypeError" in death.text
