"""A process group that ends when this process ends, whatever ends it.

A process that is killed runs no clean-up. A watcher therefore waits for the end of a pipe whose other end only this process
holds: the kernel closes it. Then the watcher runs the stop command, if there is one, and ends the group.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

#: Seconds that a group has after SIGTERM.
_GRACE_S: Final = 5
#: $1 is the process group, $2 the stop command.
_WATCHER: Final = f"""\
while read -r line; do :; done
[ -z "$2" ] || /bin/sh -c "$2"
kill -TERM "-$1"
for second in {" ".join(map(str, range(_GRACE_S)))}; do kill -0 "-$1" || exit 0; sleep 1; done
kill -KILL "-$1"
"""


@contextmanager
def ending_with_this_process(group: int, stop: str = "", folder: Path | None = None) -> Iterator[None]:
    """Watch over a process group while the context lasts. A context that ends leaves the group as it is.

    Args:
        group: Process group, which must not be that of this process.
        stop: Shell command that runs before the group is ended; empty for none.
        folder: Folder in which the stop command runs; None for the current one.
    """
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHER, "smtpbench-watcher", str(group), stop], cwd=folder, stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert watcher.stdin is not None
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(watcher.pid, signal.SIGKILL)
        watcher.wait()
        watcher.stdin.close()
