"""The processes of a server that runs already: behind a port, and named by --watch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from smtpbench.engine.connection import Route
from smtpbench.errors import CannotRun, UsageError
from smtpbench.supervisor import processes
from smtpbench.supervisor.processes import WatchedProcesses, listener_of, resolve_watch
from smtpbench.supervisor.server_options import Watch, parse_watch

#: Listens on the address in argv, says the port, and ends with its input.
LISTENS = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
sock.bind((sys.argv[1], int(sys.argv[2])))
sock.listen()
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""
#: Two processes that accept connections from one socket.
FORKS = """
import os, socket, sys
sock = socket.create_server(("127.0.0.1", 0))
inside, outside = os.pipe()
if not os.fork():
    os.close(outside)
    os.read(inside, 1)
    os._exit(0)
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""
#: Two processes of one parent, each with a socket of its own on the same port.
SHARES_PORT = """
import os, socket, sys
def listen(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock
reserved = socket.socket()
reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
reserved.bind(("127.0.0.1", 0))
port = reserved.getsockname()[1]
inside, outside = os.pipe()
for _ in range(2):
    ready, done = os.pipe()
    if not os.fork():
        os.close(outside)
        sock = listen(port)
        os.write(done, b"x")
        os.read(inside, 1)
        os._exit(0)
    os.read(ready, 1)
print(port, flush=True)
sys.stdin.read()
"""


@contextmanager
def python(program: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], bytes]]:
    """Run a program until the context ends; yield it with the first line that it writes."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.stdin.close()
            process.wait()


def route(host: str, port: bytes | int) -> Route:
    return Route(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, int(port)))


def pid_of(process: psutil.Process | None) -> int | None:
    return None if process is None else process.pid


@pytest.mark.parametrize(
    ("listens", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.8.9.1", "127.8.9.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "::1"),
        ("::", "::1"),
        ("::", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_process_that_listens_is_found(listens: str, host: str) -> None:
    with python(LISTENS, listens, "0") as (process, port):
        assert pid_of(listener_of([route(host, port)])) == process.pid


def test_listener_on_the_address_itself_counts_before_one_on_all_addresses() -> None:
    with python(LISTENS, "127.0.0.2", "0") as (process, port), python(LISTENS, "127.0.0.3", port.decode()) as (other, _):
        assert pid_of(listener_of([route("127.0.0.2", port)])) == process.pid
        assert pid_of(listener_of([route("127.0.0.3", port)])) == other.pid
        assert listener_of([route("127.0.0.4", port)]) is None


def test_first_route_with_a_listener_counts() -> None:
    with python(LISTENS, "127.0.0.1", "0") as (process, port):
        assert pid_of(listener_of([route("::1", port), route("127.0.0.1", port)])) == process.pid


@pytest.mark.parametrize("linked", [False, True])
def test_process_that_listens_on_a_unix_socket_is_found(tmp_path: Path, linked: bool) -> None:
    place = tmp_path / "lmtp socket"
    program = (
        "import socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX); sock.bind(sys.argv[1]); sock.listen()\n"
        "print(flush=True); sys.stdin.read()"
    )
    with python(program, str(place)) as (process, _):
        if linked:
            (tmp_path / "link").symlink_to(tmp_path)
            place = tmp_path / "link" / place.name
        assert pid_of(listener_of([Route(socket.AF_UNIX, str(place))])) == process.pid


def test_of_parent_and_child_with_one_socket_the_parent_is_the_server() -> None:
    with python(FORKS) as (process, port):
        assert pid_of(listener_of([route("127.0.0.1", port)])) == process.pid


def test_parent_of_processes_that_share_a_port_is_the_server() -> None:
    with python(SHARES_PORT) as (process, port):
        assert pid_of(listener_of([route("127.0.0.1", port)])) == process.pid


def test_port_without_a_listener_has_no_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert listener_of([route("127.0.0.1", client.getsockname()[1])]) is None


def test_own_process_is_not_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert listener_of([route("127.0.0.1", sock.getsockname()[1])]) is None


def test_address_of_another_machine_has_no_process() -> None:
    with python(LISTENS, "0.0.0.0", "0") as (_, port):
        assert listener_of([route("192.0.2.1", port)]) is None


def test_for_who_may_not_read_who_holds_the_socket_the_first_process_of_its_service_is_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with python(FORKS) as (process, port):
        (child,) = psutil.Process(process.pid).children()
        group = cgroup_of(tmp_path / "mail.service", child.pid, process.pid)
        monkeypatch.setattr(processes, "_holders", lambda inodes: [])
        monkeypatch.setattr(processes, "cgroup_of", lambda inodes: group)
        assert pid_of(listener_of([route("127.0.0.1", port)])) == process.pid
        monkeypatch.setattr(processes, "_FORWARDERS", frozenset({psutil.Process(process.pid).name()}))
        assert listener_of([route("127.0.0.1", port)]) is None
        monkeypatch.setattr(processes, "cgroup_of", lambda inodes: None)
        assert listener_of([route("127.0.0.1", port)]) is None


def test_program_that_forwards_connections_is_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with python(LISTENS, "127.0.0.1", "0") as (process, port):
        monkeypatch.setattr(processes, "_FORWARDERS", frozenset({psutil.Process(process.pid).name()}))
        assert listener_of([route("127.0.0.1", port)]) is None


@pytest.mark.parametrize("text", ["", "pid", "pid:", "pid:x", "pid:-1", "pid:0", "pid:²", "process:1", "unit:"])
def test_malformed_watch_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="use pid:N, cgroup:PATH, unit:NAME or none"):
        parse_watch(text)


def test_watched_process_is_found_by_its_identifier() -> None:
    with python("import sys; print(flush=True); sys.stdin.read()") as (process, _):
        assert resolve_watch(parse_watch(f"pid:{process.pid}")) == WatchedProcesses(psutil.Process(process.pid))
    with pytest.raises(CannotRun, match=f"there is no process {process.pid}"):
        resolve_watch(Watch("pid", str(process.pid)))


@pytest.mark.parametrize("own", [os.getpid, os.getppid])
def test_own_process_is_not_watched(own: Callable[[], int]) -> None:
    with pytest.raises(UsageError, match="is smtpbench itself, or a process that started it"):
        resolve_watch(Watch("pid", str(own())))


def test_absent_cgroup_is_named() -> None:
    with pytest.raises(CannotRun, match="cgroup:/no/such: there is no such cgroup"):
        resolve_watch(Watch("cgroup", "/no/such"))


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the mounted cgroups."""
    part = psutil.disk_partitions(all=True)[0]._replace(mountpoint=str(tmp_path / "cgroup"), fstype="cgroup2", opts="rw")
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [part])  # noqa: A006  (the name that psutil uses)
    return tmp_path / "cgroup"


def cgroup_of(folder: Path, *pids: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return folder


def test_first_process_of_a_cgroup_is_found(cgroups: Path) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(python("import sys; print(flush=True); sys.stdin.read()"))[0] for _ in "12")
        group = cgroup_of(cgroups / "mail", second.pid)
        cgroup_of(group / "workers", first.pid)
        assert resolve_watch(Watch("cgroup", "/mail")) == WatchedProcesses(psutil.Process(first.pid), group)


def test_cgroup_without_processes_or_with_smtpbench_is_refused(cgroups: Path) -> None:
    cgroup_of(cgroups / "empty")
    cgroup_of(cgroups / "own", os.getpid())
    with pytest.raises(CannotRun, match="has no process that can be seen here; start the server first"):
        resolve_watch(Watch("cgroup", "empty"))
    with pytest.raises(UsageError, match="cgroup:own holds smtpbench itself"):
        resolve_watch(Watch("cgroup", "own"))


def systemctl(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "systemctl").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_unit_is_its_main_process_and_its_cgroup(cgroups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with python("import sys; print(flush=True); sys.stdin.read()") as (process, _):
        group = cgroup_of(cgroups / "system.slice" / "mail.service", process.pid)
        shown = f"LoadState=loaded\nActiveState=active\nMainPID={process.pid}\nControlGroup=/system.slice/mail.service"
        systemctl(tmp_path, monkeypatch, f'[ "$7" = mail ] && echo "{shown}"')
        assert resolve_watch(Watch("unit", "mail")) == WatchedProcesses(psutil.Process(process.pid), group)


def test_unit_without_a_main_process_is_its_cgroup(cgroups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with python("import sys; print(flush=True); sys.stdin.read()") as (process, _):
        group = cgroup_of(cgroups / "mail.service", process.pid)
        systemctl(tmp_path, monkeypatch, 'echo "LoadState=loaded\nMainPID=0\nControlGroup=/mail.service"')
        assert resolve_watch(Watch("unit", "mail")) == WatchedProcesses(psutil.Process(process.pid), group)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ('echo "LoadState=not-found\nMainPID=0"', "unit:mail: there is no such unit"),
        (
            'echo "LoadState=loaded\nActiveState=inactive\nMainPID=0\nControlGroup="',
            "the unit has no process; it is inactive",
        ),
        ('printf "no \\033[31m bus" >&2; exit 1', r"systemctl says: no \\x1b\[31m bus; use pid:N or cgroup:PATH"),
    ],
)
def test_unit_that_cannot_be_watched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    systemctl(tmp_path, monkeypatch, script)
    with pytest.raises(CannotRun, match=problem):
        resolve_watch(Watch("unit", "mail"))


def test_absent_systemctl_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRun, match="systemctl is not installed here; use pid:N or cgroup:PATH"):
        resolve_watch(Watch("unit", "mail"))
