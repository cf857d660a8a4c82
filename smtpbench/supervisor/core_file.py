"""Core files that the kernel writes when a signal ends a process (core(5))."""

from __future__ import annotations

import glob
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

_PATTERN: Final = Path("/proc/sys/kernel/core_pattern")
_USES_PID: Final = Path("/proc/sys/kernel/core_uses_pid")


def find_core_file(pid: int, name: str, folder: Path, started_s: float) -> str:
    """Return the name of the core file of a process for which the kernel wrote one; empty if it is not found.

    A pattern that begins with `|` gives the core to a program, so there is no file to look for.

    Args:
        pid: The process.
        name: Its name.
        folder: Folder in which it was started.
        started_s: When it was started, seconds since the epoch: older files are not its own.
    """
    with suppress(OSError):
        pattern = _PATTERN.read_text(encoding="utf-8").strip()
        if not pattern or pattern.startswith("|"):
            return ""
        if "%p" not in pattern and _USES_PID.read_text(encoding="utf-8").strip() == "1":
            pattern += ".%p"
        known = {"%p": str(pid), "%P": str(pid), "%i": str(pid), "%I": str(pid), "%e": glob.escape(name), "%%": "%"}
        text = re.sub(r"%.", lambda match: known.get(match[0], "*"), glob.escape(pattern))
        found = [
            path for path in map(Path, glob.glob(str(Path(glob.escape(str(folder.absolute())), text)))) if path.is_file()
        ]
        new = [path for path in found if path.stat().st_mtime >= started_s]
        if new:
            return str(max(new, key=lambda path: path.stat().st_mtime))
    return ""
