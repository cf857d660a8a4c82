"""Reports written to files: whole or not at all, and never over what is no file.

A regular file is replaced by one that was written beside it. Anything else (a device, a FIFO, /dev/stdout) is opened and
written as it is: renaming over a device would take it away from the whole machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

#: Where names are not files, even if they lead to some: what they lead to is somebody's stream.
_STREAMS = ("/dev/", "/proc/")


def write_whole(text: str, path: Path) -> None:
    """Write a file, or into what stands at its place. Raises OSError."""
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
    """Add to the end of a file. Raises OSError."""
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
