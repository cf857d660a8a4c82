"""The server under test: started, ready, dead, started again, and ended with all its processes."""

from __future__ import annotations

import os
import select
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
from small_server import SERVER, access, death_of, listens

from smtpbench.errors import CannotRun
from smtpbench.supervisor import helper_process
from smtpbench.supervisor.server_options import Ready, ServerOptions
from smtpbench.supervisor.started import StartedServer, as_main_process
from smtpbench.supervisor.supervised import supervised
from smtpbench.units import NS_PER_S


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return path


@contextmanager
def process_with(program: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program in a process of its own until the context ends."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "command", ["exec {}", "{} & wait", "cd / && {}", "{} &", "setsid {} &", "setsid setsid {} & exit 0"]
)
async def test_server_runs_while_the_context_lasts(tmp_path: Path, program: Path, command: str) -> None:
    port = servers.free_port()
    start = command.format(f"{sys.executable} {program} {port} 'print(\"up\", flush=True)'")
    async with supervised(ServerOptions(start, folder=tmp_path), access(port), tmp_path / "log") as server:
        assert server.known
        assert listens(port)
    assert not listens(port)
    assert server.deaths == []
    assert "up" in (tmp_path / "log").read_text()


async def test_stop_command_stops_a_server_that_runs_elsewhere(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    read, write = os.pipe()
    with process_with(f"import sys; sys.argv[1:] = ['{port}']; sys.stdin.readline()\n" + SERVER) as elsewhere:
        assert elsewhere.stdin is not None
        os.close(read)
        os.close(write)
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        options = ServerOptions(f"echo > {fifo}", f"kill {elsewhere.pid}", folder=tmp_path)

        def start() -> None:
            fifo.read_text()
            assert elsewhere.stdin is not None
            elsewhere.stdin.write("\n")
            elsewhere.stdin.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, start)
            async with supervised(options, access(port)) as server:
                assert not server.known
                assert listens(port)
        assert not listens(port)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("echo 'no \033[31m licence'; exit 3", r"ended with status 3; its last output: no \\x1b\[31m licence"),
        ("echo oops; kill -SEGV $$", r"ended with signal 11 \(SIGSEGV\); its last output: oops"),
        ("printf 'not yet'; sleep 60", r"did not greet within 0.3 s; its last output: not yet"),
    ],
)
async def test_server_that_does_not_start_is_reported_with_its_output(tmp_path: Path, command: str, text: str) -> None:
    ready_ns = NS_PER_S * 3 // 10 if "sleep" in command else 20 * NS_PER_S
    with pytest.raises(CannotRun, match=text):
        async with supervised(ServerOptions(command, ready_ns=ready_ns, folder=tmp_path), access(servers.free_port())):
            pytest.fail("it never greeted")


async def test_other_server_on_the_port_is_reported(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    async with supervised(ServerOptions(f"{sys.executable} {program} {port}"), access(port)):
        with pytest.raises(CannotRun, match="another server already answers"):
            async with supervised(ServerOptions("true"), access(port)):
                pytest.fail("the other server was taken for this one")


async def test_log_of_a_server_that_writes_nothing_is_removed(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    async with supervised(ServerOptions(f"{sys.executable} {program} {port}"), access(port), tmp_path / "log"):
        assert (tmp_path / "log").exists()
    assert not (tmp_path / "log").exists()


async def test_server_is_started_although_its_log_cannot_be_written(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    log = tmp_path / "missing" / "log"
    async with supervised(ServerOptions(f"{sys.executable} {program} {port}"), access(port), log):
        assert listens(port)
    assert not log.exists()


@pytest.mark.parametrize(
    ("ready", "code"),
    [
        (Ready("port"), ""),
        (Ready("text", "at your service"), "sys.stdout.write('at your service'); sys.stdout.flush()"),
        (Ready("file", "ready"), "open('ready', 'w').close()"),
    ],
)
async def test_server_is_ready_when_the_user_says_so(tmp_path: Path, program: Path, ready: Ready, code: str) -> None:
    port = servers.free_port()
    start = f'{sys.executable} {program} {port} "{code}"'
    async with supervised(ServerOptions(start, ready=ready, folder=tmp_path), access(port)) as server:
        assert await server.wait_until_ready()


async def test_file_of_an_earlier_start_does_not_mean_ready(tmp_path: Path) -> None:
    (tmp_path / "ready").touch()
    options = ServerOptions("sleep 60", ready=Ready("file", "ready"), ready_ns=NS_PER_S // 5, folder=tmp_path)
    with pytest.raises(CannotRun, match=r"did not make the file ready within 0\.2 s"):
        async with supervised(options, access(servers.free_port())):
            pytest.fail("the file is old")


@pytest.mark.parametrize("command", ["exec {}", "{}; exit $?", "{} & exit 0"])
@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("os.kill(os.getpid(), 11)", "signal 11 (SIGSEGV)"),
        ("os._exit(3)", "exit status 3"),
        ("os._exit(0)", "exit status 0"),
    ],
)
async def test_death_has_its_cause(tmp_path: Path, program: Path, command: str, code: str, how: str) -> None:
    port = servers.free_port()
    start = command.format(f"{sys.executable} {program} {port}")
    async with supervised(ServerOptions(start, folder=tmp_path), access(port)) as server:
        assert await death_of(server, port, code) == how
        assert len(server.deaths) == 1
        assert server.deaths[0].restarted_by == ""
        assert not await server.wait_until_ready()


async def test_last_output_comes_with_the_death(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    async with supervised(ServerOptions(f"{sys.executable} {program} {port}"), access(port)) as server:
        await death_of(server, port, "print('first'); sys.stderr.write('Fatal: last'); sys.stdout.flush(); os._exit(1)")
        assert server.deaths[0].last_output == ("first", "Fatal: last")
        assert [line.text for line in server.log_lines(0, time.monotonic_ns())] == ["Fatal: last"]
        assert server.log_lines(0, server.log_lines(0, time.monotonic_ns())[0].at_ns - 1) == []


async def test_server_that_dies_is_started_again(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    async with supervised(ServerOptions(f"{sys.executable} {program} {port}", restart=True), access(port)) as server:
        for number in (1, 2, 3):
            assert await death_of(server, port, "os.abort()") == "signal 6 (SIGABRT)"
            assert await server.wait_until_ready()
            assert [death.restarted_by for death in server.deaths] == ["smtpbench"] * number
    assert len(server.deaths) == 3


async def test_start_that_fails_after_a_death_is_tried_again(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    start = f"echo >> starts; [ $(wc -l < starts) != 2 ] || exit 1; exec {sys.executable} {program} {port}"
    async with supervised(ServerOptions(start, restart=True, folder=tmp_path), access(port)) as server:
        await death_of(server, port, "os.abort()")
        assert await server.wait_until_ready()
        assert len(server.deaths) == 1
    assert (tmp_path / "starts").read_text() == "\n" * 3


async def test_server_that_never_starts_again_is_given_up(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smtpbench.supervisor.started.RESTART_S", 0.5)
    port = servers.free_port()
    start = f"[ ! -e started ] || exit 1; touch started; exec {sys.executable} {program} {port}"
    async with supervised(ServerOptions(start, restart=True, folder=tmp_path), access(port)) as server:
        await death_of(server, port, "os.abort()")
        assert not await server.wait_until_ready()
        assert [death.restarted_by for death in server.deaths] == [""]


async def test_restart_is_no_death_and_gives_a_new_process(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    start = f"{sys.executable} {program} {port} 'print(\"start\", flush=True)'"
    async with supervised(ServerOptions(start), access(port), tmp_path / "log") as server:
        assert await server.restart()
        assert server.deaths == []
        assert (tmp_path / "log").read_text() == "start\nstart\n"


async def test_restart_starts_a_server_that_died(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    async with supervised(ServerOptions(f"{sys.executable} {program} {port}"), access(port)) as server:
        await death_of(server, port, "os.abort()")
        assert await server.restart()
        assert [death.restarted_by for death in server.deaths] == ["smtpbench"]


@pytest.mark.parametrize(
    ("command", "runs"),
    [
        ("python3 server.py 2525", "exec python3 server.py 2525"),
        ("python3 -c 'import x; run()'", "exec python3 -c 'import x; run()'"),
        ("cd /; sh", "cd /; sh"),
        ("while :; do sh; done", "while :; do sh; done"),
        ("NAME=value sh", "NAME=value sh"),
        ("sh > /dev/null", "sh > /dev/null"),
        ("exec sh", "exec sh"),
        ("sh 'not closed", "sh 'not closed"),
        ("", ""),
    ],
)
def test_single_program_is_the_main_process(command: str, runs: str) -> None:
    assert as_main_process(command) == runs


async def test_loop_in_the_start_command_restarts_the_server(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    start = f"while :; do {sys.executable} {program} {port}; done"
    async with supervised(ServerOptions(start, restart=True), access(port)) as server:
        for number in (1, 2):
            await death_of(server, port, "sys.stderr.write('fatal: bug\\n'); os.abort()")
            assert await server.wait_until_ready()
            assert [death.restarted_by for death in server.deaths] == ["others"] * number
    assert server.deaths[0].last_output[0] == "fatal: bug"


async def test_main_process_that_ends_later_is_the_same_death(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smtpbench.supervisor.started._CONSEQUENCE_S", 0)
    port = servers.free_port()
    start = f"{sys.executable} {program} {port}; sleep 0.3; exit 7"
    async with supervised(ServerOptions(start, restart=True), access(port)) as server:
        await death_of(server, port, "os._exit(5)")
        with trio.fail_after(60):
            while not server.deaths[0].restarted_by:  # noqa: ASYNC110  (the server says nothing of it)
                await trio.sleep(0.01)
        assert await server.wait_until_ready()
        assert [death.restarted_by for death in server.deaths] == ["smtpbench"]
        assert server.deaths[0].how in ("exit status 5", "cause not known")  # before Linux 6.15


# Nothing is left running ------------------------------------------------------------------------------------------------

#: Commands whose processes are hard to end: each makes a file for each process, with its number.
STUBBORN = {
    "double fork": "(setsid sh -c 'setsid sh -c \"echo \\$\\$ > a; exec sleep 1000\" & exit 0' &); exec {server}",
    "ignores SIGTERM": "sh -c 'trap \"\" TERM; echo $$ > a; while :; do sleep 1000; done' & exec {server}",
    "stopped": "sh -c 'echo $$ > a; kill -STOP $$' & exec {server}",
    "loops": "sh -c 'trap \"\" TERM; echo $$ > a; while :; do sleep 0.01; done' & while :; do {server}; done",
}


def pidfd_in(file: Path) -> int:
    """Return a descriptor of a process, once the file holds its number."""
    assert servers.wait_until(lambda: file.exists() and file.read_text().strip() != "")
    return os.pidfd_open(int(file.read_text()))


def ended(pidfds: list[int]) -> bool:
    """Return whether all processes end within a minute; close their descriptors."""
    done = all(select.select([pidfd], [], [], 60)[0] for pidfd in pidfds)
    for pidfd in pidfds:
        os.close(pidfd)
    return done


#: A helper that cannot make a control group, as for most users.
WITHOUT_CGROUP = (
    "import sys; sys.path.insert(0, {root!r}); from smtpbench.supervisor import helper; "
    "helper._make_cgroup = lambda: ''; helper.main()"
)


@pytest.mark.parametrize("helper_program", [helper_process._PROGRAM, WITHOUT_CGROUP], ids=["cgroup", "without"])
@pytest.mark.parametrize("case", STUBBORN)
async def test_all_processes_end_with_the_context(
    tmp_path: Path, program: Path, case: str, helper_program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_process, "GRACE_S", 0.2)
    monkeypatch.setattr(helper_process, "_PROGRAM", helper_program)
    port = servers.free_port()
    start = STUBBORN[case].format(server=f'{sys.executable} {program} {port} \'open("b", "w").write(str(os.getpid()))\'')
    async with supervised(ServerOptions(start, folder=tmp_path), access(port)):
        pidfds = [pidfd_in(tmp_path / name) for name in ("a", "b")]
    assert all(select.select([pidfd], [], [], 0)[0] for pidfd in pidfds)
    assert ended(pidfds)


@pytest.mark.parametrize("case", STUBBORN)
def test_all_processes_end_when_smtpbench_is_killed(tmp_path: Path, program: Path, case: str) -> None:
    port = servers.free_port()
    start = STUBBORN[case].format(server=f'{sys.executable} {program} {port} \'open("b", "w").write(str(os.getpid()))\'')
    code = f"""
import trio
from pathlib import Path
from smtpbench.supervisor import helper_process
from smtpbench.supervisor.server_options import ServerOptions
from smtpbench.supervisor.supervised import supervised
from smtpbench.target import Access, parse_target
helper_process.GRACE_S = 0.2
async def main():
    options = ServerOptions({start!r}, "echo stopped >> stopped", folder=Path({str(tmp_path)!r}))
    async with supervised(options, Access(parse_target("smtp://127.0.0.1:{port}"))) as server:
        print(server.helper.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
    with process_with(code) as process:
        assert process.stdout is not None
        pidfds = [os.pidfd_open(int(process.stdout.readline()))]
        pidfds += [pidfd_in(tmp_path / name) for name in ("a", "b")]
        os.kill(process.pid, signal.SIGKILL)
    assert ended(pidfds)
    assert (tmp_path / "stopped").read_text() == "stopped\n"


async def test_stop_command_that_hangs_is_ended(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_process, "STOP_S", 0.2)
    port = servers.free_port()
    options = ServerOptions(
        f"{sys.executable} {program} {port}", "echo $$ >> a; trap '' TERM; while :; do sleep 1000; done", folder=tmp_path
    )
    async with supervised(options, access(port)):
        pass
    assert not listens(port)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "a").read_text()), 0)


async def test_cancelled_context_stops_the_server(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    with trio.CancelScope() as scope:
        async with supervised(ServerOptions(f"{sys.executable} {program} {port}"), access(port)):
            scope.cancel()
            await trio.sleep_forever()
    assert not listens(port)


async def test_error_of_the_context_leaves_it_as_it_is(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    with pytest.raises(KeyError):
        async with supervised(ServerOptions(f"{sys.executable} {program} {port}"), access(port)):
            raise KeyError
    assert not listens(port)


async def test_helper_that_is_killed_takes_the_server_with_it(tmp_path: Path, program: Path) -> None:
    port = servers.free_port()
    async with supervised(ServerOptions(f"{sys.executable} {program} {port}", restart=True), access(port)) as server:
        assert isinstance(server, StartedServer)
        os.kill(server.helper.pid, signal.SIGKILL)
        assert not await server.restart()
        assert not await server.wait_until_ready()
        assert not server.known
        assert server.deaths == []
    assert servers.wait_until(lambda: not listens(port))


async def test_helper_that_is_killed_before_a_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_process, "_PROGRAM", "{root!r}")
    with pytest.raises(CannotRun, match=r"the process that runs the server at .* was killed"):
        async with supervised(ServerOptions("true"), access(servers.free_port())):
            pytest.fail("nothing was started")
