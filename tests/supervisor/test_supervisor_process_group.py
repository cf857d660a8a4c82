"""A process group that ends when the process that watches over it ends."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

from smtpbench.supervisor.process_group import ending_with_this_process


def test_group_ends_with_the_process_that_watches_over_it(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "from smtpbench.supervisor.process_group import ending_with_this_process\n"
        "child = subprocess.Popen(['/bin/sleep', '1000'], start_new_session=True)\n"
        f"with ending_with_this_process(child.pid, 'echo stopped > {tmp_path}/stopped'):\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        watched = os.pidfd_open(child)
        parent.kill()
    assert select.select([watched], [], [], 60)[0]
    os.close(watched)
    assert (tmp_path / "stopped").read_text() == "stopped\n"


def test_context_that_ends_leaves_the_group_running() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "read x; exit 7"], stdin=subprocess.PIPE, start_new_session=True) as child:
        with ending_with_this_process(child.pid):
            pass
        assert child.poll() is None
        child.communicate(b"\n")
        assert child.returncode == 7
