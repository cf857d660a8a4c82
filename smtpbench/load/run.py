"""A run, from the request to the saved result: prepare, execute, build, save.

1. `prepare` checks everything that needs no network.
2. `execute` runs the load and returns a record of what was measured, also for a run that could not begin or was cut short.
3. `build` turns the record into the content of `result.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smtpbench.errors import CannotRun
from smtpbench.load.build import build
from smtpbench.load.execute import COULD_NOT_RUN, INCOMPLETE, INTERRUPTED, RunRecord, execute
from smtpbench.load.prepare import prepare
from smtpbench.load.request import Observer, RunRequest, RunResult
from smtpbench.measure.files import HLOG, TIMELINE
from smtpbench.measure.partial import remove_partial, save_partial
from smtpbench.measure.result import save, save_findings
from smtpbench.measure.server_usage import SERVER_CSV
from smtpbench.text import visible

__all__ = ["Observer", "RunRequest", "RunResult", "run"]


async def run(request: RunRequest, observer: Observer) -> RunResult:
    """Run the load that was asked for, and save the result.

    Raises:
        UsageError: The request cannot be run.
        CannotRun: This machine does not allow enough open files, or the target cannot be used. In the second case a
            result with the status `could-not-run` was saved before.
    """
    prepared = prepare(request, datetime.now(UTC), observer.preparing)
    try:
        record = await execute(prepared, observer, lambda record: save_partial(build(record), record.folder))
    finally:
        prepared.corpora.close()
    result = build(record)
    saved = _save(result, record, observer)
    if record.status == COULD_NOT_RUN:
        raise CannotRun(record.reason)
    incomplete = record.reason if record.status == INCOMPLETE else ""
    return RunResult(result, saved, record.status == INTERRUPTED, (record.hostile or {}).get("new", 0), incomplete)


def _save(result: dict[str, Any], record: RunRecord, observer: Observer) -> Path | None:
    """Write the result and the findings; return the path of the result, or None if no folder could be written."""
    out, found = record.prepared.request.out, record.hostile or {}
    if record.write_errors:
        observer.notify(f"not everything could be saved: {visible(record.write_errors)}")
    failures: list[OSError] = []
    saved: Path | None = None
    try:
        saved = save(result, record.folder, failures.append)
    except OSError as error:
        observer.notify(f"the result could not be saved: {_reason(error)}")
    else:
        if saved.parent == record.folder:
            remove_partial(record.folder)
        else:
            _copy_files(record.folder, saved.parent)
        if saved.parent != out:
            why = f": {_reason(failures[0])}" if failures else ""
            observer.notify(f"{visible(str(out))} could not be written{why}; the result is in {saved}")
    for name in ("findings", "candidates"):
        _save_findings(found.get(name, []), (saved.parent if saved else record.folder) / name, observer)
    return saved


def _copy_files(folder: Path, other: Path) -> None:
    """Copy the files that the run has appended to; the report of the result reads them beside it."""
    for name in (TIMELINE, HLOG, SERVER_CSV):
        with suppress(OSError):
            shutil.copyfile(folder / name, other / name)


def _save_findings(files: Iterable[tuple[str, str]], folder: Path, observer: Observer) -> None:
    failures: list[OSError] = []
    try:
        used = save_findings(files, folder, failures.append)
    except OSError as error:
        observer.notify(f"{visible(str(folder))}: not all of them could be saved: {_reason(error)}")
    else:
        if failures:
            observer.notify(f"{visible(str(folder))} could not be written: {_reason(failures[0])}; the others are in {used}")


def _reason(error: OSError) -> str:
    return visible(error.strerror or str(error)).lower()
