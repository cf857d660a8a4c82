"""The end of processes that are no children: noticed at once, with their status where the kernel tells it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
import trio

from smtpbench.supervisor.process_end import NOT_KNOWN, HowEnded, ProcessEnd, how_ended

#: Says the identifier of a process of its own, and collects its status when it has ended. Each waits for a line of input.
PARENT = """
import os, sys
pid = os.fork()
if not pid:
    sys.stdin.readline()
    exec(sys.argv[1])
print(pid, flush=True)
os.waitpid(pid, 0)
print("collected", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def grandchild(request: pytest.FixtureRequest) -> Iterator[tuple[psutil.Process, subprocess.Popen[bytes]]]:
    """A process that does what the parameter says once its parent gets a line of input."""
    command = [sys.executable, "-c", PARENT, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        yield psutil.Process(int(parent.stdout.readline())), parent
        parent.stdin.close()


def own_child(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, bufsize=0)


def go_on(parent: subprocess.Popen[bytes]) -> None:
    assert parent.stdin is not None
    parent.stdin.write(b"\n")


def tells_exit_status() -> bool:
    """Whether this kernel tells the status of a process that has been collected."""
    with own_child("exit 7") as child, ProcessEnd(psutil.Process(child.pid)) as end:
        child.wait()
        return end.how().known


@pytest.mark.parametrize(
    ("grandchild", "how"),
    [
        ("os.abort()", HowEnded(signal_number=6)),
        ("os.kill(os.getpid(), 9)", HowEnded(signal_number=9)),
        ("os._exit(3)", HowEnded(exit_status=3)),
        ("os._exit(0)", HowEnded(exit_status=0)),
        ("import threading; threading.Thread(target=os.abort).start(); threading.Event().wait()", HowEnded(signal_number=6)),
    ],
    indirect=["grandchild"],
)
async def test_end_of_a_process_of_others_is_noticed_with_its_status(
    grandchild: tuple[psutil.Process, subprocess.Popen[bytes]], how: HowEnded
) -> None:
    process, parent = grandchild
    with ProcessEnd(process) as end:
        assert not end.ended
        assert not end.how().known
        go_on(parent)
        found = await end.wait()
    assert found == how or (found == NOT_KNOWN and not tells_exit_status())


@pytest.mark.parametrize("grandchild", ["os._exit(3)"], indirect=True)
async def test_without_pidfds_the_end_is_noticed_and_its_status_is_not_known(
    grandchild: tuple[psutil.Process, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> int:
        raise OSError

    process, parent = grandchild
    monkeypatch.setattr(os, "pidfd_open", refuse)
    with ProcessEnd(process) as end:
        assert not end.ended
        go_on(parent)
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"collected\n"
        assert await end.wait() == NOT_KNOWN


async def test_status_that_nobody_has_collected_yet_is_read_from_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError

    monkeypatch.setattr(fcntl, "ioctl", refuse)  # as an older kernel
    with own_child("read x; exit 3") as child, ProcessEnd(psutil.Process(child.pid)) as end:
        go_on(child)
        assert await end.wait() == HowEnded(exit_status=3)


async def test_status_that_is_not_told_is_not_known(monkeypatch: pytest.MonkeyPatch, autojump_clock: object) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with own_child("read x; exit 3") as child, ProcessEnd(psutil.Process(child.pid)) as end:
        child.communicate(b"\n")
        assert await end.wait() == NOT_KNOWN


async def test_process_that_has_ended_before_is_an_end_of_which_nothing_is_known(autojump_clock: object) -> None:
    with own_child("read x") as child:
        process = psutil.Process(child.pid)
        child.communicate(b"\n")
    with ProcessEnd(process) as end:
        assert end.ended
        assert await end.wait() == NOT_KNOWN


async def test_wait_can_be_cancelled() -> None:
    with own_child("read x") as child:
        with ProcessEnd(psutil.Process(child.pid)) as end, trio.CancelScope() as scope:
            scope.cancel()
            await end.wait()
        assert scope.cancelled_caught
        child.communicate(b"\n")


@pytest.mark.parametrize(
    ("status", "how"), [(256, HowEnded(1)), (0, HowEnded(0)), (6, HowEnded(None, 6)), (139, HowEnded(None, 11))]
)
def test_status_of_wait_is_exit_status_or_signal(status: int, how: HowEnded) -> None:
    assert how_ended(status) == how
    assert how.known
