"""The folder of a result: no result is replaced unless the user asks for it, and no two commands write into one folder.

A command locks its folder (flock(2) on the folder itself) from before the first file until it ends. The kernel releases the
lock with the process, however it ends, so no stale lock is left. A file system that cannot lock folders, and a folder that
cannot be made, do not stop a command: a run continues in a temporary folder then.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from smtpbench.cli.server_control import SERVER_LOG
from smtpbench.errors import CannotRun, UsageError
from smtpbench.measure.files import HLOG, TIMELINE
from smtpbench.measure.partial import PARTIAL
from smtpbench.measure.saved import CAPACITY, COMPARISON, RESULT
from smtpbench.measure.server_usage import SERVER_CSV
from smtpbench.text import visible

_REPORT: Final = "report.html"
_FILES: Final = (RESULT, PARTIAL, _REPORT, TIMELINE, HLOG, SERVER_CSV, SERVER_LOG)
_FINDING_FOLDERS: Final = ("findings", "candidates")
_STEP_FOLDER: Final = re.compile(r"baseline|recovery|step-\d+-.*")


@contextmanager
def result_folder(out: Path | None, overwrite: bool, name: str = "", *, resume: bool = False) -> Iterator[Path]:
    """Lock the folder of a result while the context lasts, and return it.

    A folder that is still empty at the end is removed.

    Args:
        out: Folder that the user asked for; None for a new folder in `results/`.
        overwrite: Whether a result in it is replaced.
        name: Last part of the name of a new folder.
        resume: Whether a result in it is kept, because the command continues it.

    Raises:
        UsageError: The folder holds a result, and it must not be replaced, or the options contradict each other.
        CannotRun: Another command writes into the folder.
    """
    if resume and overwrite:
        raise UsageError("--resume keeps what the folder holds and --overwrite replaces it; use one of them")
    if resume and out is None:
        raise UsageError("--resume needs --out DIR, the folder of the interrupted command")
    with ExitStack() as stack:
        folder = out or Path("results") / name
        with suppress(OSError):
            folder, made = _make(out) if out is not None else _make_new(name)
            _lock(folder, stack)
            stack.callback(_remove_empty, made)
            if not resume or not has_result(folder):
                _clear(folder, overwrite)
        yield folder


def has_result(folder: Path) -> bool:
    """Return whether a folder holds a result, or what a command that was killed had found."""
    return any((folder / name).exists() for name in (RESULT, PARTIAL))


def _make_new(name: str) -> tuple[Path, list[Path]]:
    """Make a folder that nobody else has, such as `results/20260102-030405-relay`; see `_make`."""
    parent, _ = _make(Path("results"))
    stem = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"
    for number in itertools.count(1):
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder, [folder]
    raise AssertionError  # the count has no end


def _make(folder: Path) -> tuple[Path, list[Path]]:
    """Make a folder; return it, and those of it and its parents that were made now, the innermost first."""
    made = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    return folder, made


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _lock(folder: Path, stack: ExitStack) -> None:
    while True:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(
                f"{_named(folder)}: another smtpbench command writes its result there now; "
                "wait until it ends, or choose another folder with --out"
            ) from None
        except OSError:
            return  # this file system has no such locks
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return  # or else the command that had the lock before has removed the folder


def _clear(folder: Path, overwrite: bool) -> None:
    """Remove an earlier result, and no other file; raise UsageError where it must stay."""
    found = list(_earlier_files(folder))
    if found and not overwrite:
        raise UsageError(
            f"{_named(folder)}: the folder holds a result already ({found[0].relative_to(folder)}); "
            "add --overwrite to replace it, or choose another folder with --out"
        )
    for file in found:
        file.unlink(missing_ok=True)
    for parent in sorted({file.parent for file in found} - {folder}, reverse=True):
        with suppress(OSError):  # other files are in it
            parent.rmdir()


def _earlier_files(folder: Path) -> Iterator[Path]:
    """Yield the files that commands have left in a folder, those of the runs of a comparison or a search included."""
    for name in _FILES:
        if (folder / name).exists():
            yield folder / name
    for name in _FINDING_FOLDERS:
        yield from sorted((folder / name).glob("*.yaml"))
    part = _name_of_parts(folder)
    if part is not None:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and part.fullmatch(path.name):
                yield from _earlier_files(path)


def _name_of_parts(folder: Path) -> re.Pattern[str] | None:
    """Return what the folders of single runs are called in the folder of a comparison or a search; None in any other."""
    for name in (RESULT, PARTIAL):
        with suppress(OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
            result: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            if result["kind"] == CAPACITY:
                return _STEP_FOLDER
            if result["kind"] == COMPARISON:
                names = "|".join(re.escape(str(one["name"])) for one in result["candidates"])
                return re.compile(rf"(?:{names})-\d+")
    return None


def _named(folder: Path) -> str:
    return visible(str(folder))
