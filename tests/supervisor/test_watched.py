"""A server that somebody else runs: its end is noticed, and the process that comes after it is watched too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import servers
import trio
from small_server import SERVER, access, death_of

from smtpbench.errors import CannotRun, UsageError
from smtpbench.supervisor.observed import EndedListener
from smtpbench.supervisor.processes import listener_of, listening_sockets
from smtpbench.supervisor.server_options import ServerOptions, Watch, parse_watch
from smtpbench.supervisor.supervised import supervised
from smtpbench.supervisor.watched import WatchedServer


@contextmanager
def running(folder: Path, command: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a shell command with a server in it until the context ends; wait until the server accepts connections."""
    (folder / "server.py").write_text(SERVER)
    text = command.format(server=f"{sys.executable} server.py {port} 2>> errors")
    process = subprocess.Popen(["/bin/sh", "-c", text], cwd=folder, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        servers.wait_for(port, process)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def test_death_and_the_restart_by_a_loop_are_noticed(tmp_path: Path) -> None:
    port = servers.free_port()
    with running(tmp_path, "while :; do {server}; done", port):
        options = ServerOptions(logs=(tmp_path / "errors",))
        async with supervised(options, access(port)) as server:
            assert server.known
            assert not server.can_restart
            for number in (1, 2):
                before_ns = time.monotonic_ns()
                code = f"sys.stderr.write('fatal: bug {number}\\n'); sys.stderr.flush(); os.abort()"
                assert await death_of(server, port, code) in ("signal 6 (SIGABRT)", "cause not known")
                assert await server.wait_until_ready()
                assert [death.restarted_by for death in server.deaths] == ["others"] * number
                assert f"fatal: bug {number}" in server.deaths[-1].last_output
                assert f"fatal: bug {3 - number}" not in server.deaths[-1].last_output
                lines = server.log_lines(before_ns, time.monotonic_ns())
                assert [line.text for line in lines] == [f"fatal: bug {number}"]
            assert not await server.restart()


async def test_death_without_a_restart_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpbench.supervisor.observed.RESTART_TIMEOUT_S", 0.1)
    port = servers.free_port()
    with running(tmp_path, "exec {server}", port) as process:
        async with supervised(ServerOptions(watch=Watch("pid", str(process.pid))), access(port)) as server:
            before_ns = time.monotonic_ns()
            assert await server.death_since(before_ns) is None
            assert await death_of(server, port, "os._exit(3)") in ("exit status 3", "cause not known")
            assert [death.restarted_by for death in server.deaths] == [""]
            assert not await server.wait_until_ready()


async def test_watched_server_runs_on(tmp_path: Path) -> None:
    port = servers.free_port()
    with running(tmp_path, "exec {server}", port) as process:
        async with supervised(ServerOptions(), access(port)) as server:
            assert server.measure() is not None
            assert server.measured.started_by == "others"
        assert process.poll() is None


async def test_server_that_comes_later_is_watched(tmp_path: Path) -> None:
    port = servers.free_port()
    async with supervised(ServerOptions(), access(port)) as server:
        assert server.measure() is None
        with running(tmp_path, "exec {server}", port):
            with trio.fail_after(30):
                while server.measure() is None:  # noqa: ASYNC110  (no event tells of another process)
                    await trio.sleep(0.01)
            assert await death_of(server, port, "os._exit(1)") in ("exit status 1", "cause not known")


async def test_no_process_is_watched_where_that_is_asked_for(tmp_path: Path) -> None:
    port = servers.free_port()
    with running(tmp_path, "exec {server}", port):
        async with supervised(ServerOptions(watch=parse_watch("none")), access(port)) as server:
            assert not server.known
            assert server.measure() is None
            assert await server.wait_until_ready()


async def test_process_that_does_not_exist_is_reported() -> None:
    with pytest.raises(CannotRun, match="there is no process"):
        async with supervised(ServerOptions(watch=Watch("pid", "4194304")), access(1)):
            pytest.fail("there is no such process")


async def test_log_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder or a device"):
        async with supervised(ServerOptions(logs=(tmp_path,)), access(1)):
            pytest.fail("the log is a folder")


async def test_report_of_one_death_is_not_that_of_the_next(tmp_path: Path) -> None:
    port = servers.free_port()
    with running(tmp_path, "while :; do {server}; done", port):
        async with supervised(ServerOptions(logs=(tmp_path / "errors",)), access(port)) as server:
            report = "==1==ERROR: AddressSanitizer: heap-buffer-overflow in parse_rcpt"
            await death_of(server, port, f"sys.stderr.write('{report}\\n'); sys.stderr.flush(); os.abort()")
            assert await server.wait_until_ready()
            await death_of(server, port, "os.kill(os.getpid(), 9)")
            assert await server.wait_until_ready()
            first, second = server.deaths
    assert first.cause == "AddressSanitizer: heap-buffer-overflow in parse_rcpt"
    assert second.report is None
    assert first.at_ns < second.at_ns


async def test_exception_that_was_logged_is_no_cause_of_a_signal(tmp_path: Path) -> None:
    port = servers.free_port()
    with running(tmp_path, "while :; do {server}; done", port):
        async with supervised(ServerOptions(logs=(tmp_path / "errors",)), access(port)) as server:
            code = "import traceback; exec('try: 1 / 0\\nexcept ArithmeticError: traceback.print_exc()')"
            how = await death_of(server, port, f"{code}; os.kill(os.getpid(), 9)")
            (death,) = server.deaths
    assert "ZeroDivisionError: division by zero" in death.last_output
    if how == "signal 9 (SIGKILL)":  # the kernel tells
        assert death.report is None


#: A child that holds the socket of its parent lives on after it, until its input ends.
ORPHAN = """
import os, sys
if not os.fork():
    sys.stdin.read()
    os._exit(0)
"""


async def test_child_that_holds_the_socket_of_a_dead_server_is_no_restart(tmp_path: Path) -> None:
    port = servers.free_port()
    os.mkfifo(tmp_path / "alive")
    (tmp_path / "fork.py").write_text(ORPHAN)
    start = f"exec {sys.executable} server.py {port} 'exec(open(\"fork.py\").read())' < alive"
    with running(tmp_path, f"exec 3<> alive; {start}", port):
        async with supervised(ServerOptions(), access(port)) as server:
            await death_of(server, port, "os._exit(3)")
            assert isinstance(server, WatchedServer)
            now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            child = listener_of(server.routes)
            assert child is not None
            assert server.next_listener(EndedListener(listening_sockets(server.routes), now_s)) is None
            assert server.next_listener(EndedListener(frozenset(), now_s)) == child  # a socket of its own
            assert server.next_listener(EndedListener(listening_sockets(server.routes), 0)) == child  # it started later
            assert [death.restarted_by for death in server.deaths] == [""]
