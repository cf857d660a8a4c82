"""Writing of reports: completely or not at all, and without replacing anything but regular files.

A regular file is replaced by one that was written beside it. Anything else (a device, a FIFO, /dev/stdout) is opened and
written to, because renaming over a device would remove it for the whole machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

#: Folders whose entries are streams, even if they are links to files.
_STREAMS = ("/dev/", "/proc/")


def write_whole(text: str, path: Path) -> None:
    """Write a file, or to the device or FIFO at its path.

    Raises:
        OSError: The path cannot be written to.
    """
    octets = text.encode("utf-8", "backslashreplace")
    target = Path(os.path.realpath(path))
    if _is_stream(path) or _is_stream(target):
        with path.open("ab", buffering=0) as out:
            _write_all(out.fileno(), octets)
        return
    partial = target.with_name(f".smtpbench-{os.getpid()}.partial")
    try:
        with partial.open("xb") as out:
            out.write(octets)
            out.flush()
            os.fsync(out.fileno())
        if target.exists():
            shutil.copymode(target, partial)
        partial.replace(target)
    except FileExistsError:
        raise
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def append(text: str, path: Path) -> None:
    """Append to a file.

    Raises:
        OSError: The file cannot be written to.
    """
    with path.open("ab") as out:
        out.write(text.encode("utf-8", "backslashreplace"))


def _is_stream(path: Path) -> bool:
    if os.path.abspath(path).startswith(_STREAMS):
        return True
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _write_all(descriptor: int, octets: bytes) -> None:
    while octets:
        octets = octets[os.write(descriptor, octets) :]
