"""Run the command line as a user does: a process, its exit code, its output and its result."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Done:
    """A process that has ended.

    Attributes:
        code: Exit code.
        out: Standard output.
        err: Standard error.
        result: Content of `result.json`; empty without one.
    """

    code: int
    out: str
    err: str
    result: dict[str, Any]

    @property
    def messages(self) -> dict[str, int]:
        """The message counts that are not zero, without `attempted`."""
        return {name: count for name, count in self.result["messages"].items() if count and name != "attempted"}

    def balanced(self) -> bool:
        """Return whether `attempted` is the sum of the other message counts."""
        counts: dict[str, int] = dict(self.result["messages"])
        return counts.pop("attempted") == sum(counts.values())


def start(*argv: str, **env: str) -> subprocess.Popen[str]:
    """Start `smtpbench argv`."""
    return subprocess.Popen(
        [sys.executable, "-m", "smtpbench.cli.main", *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, **env}, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], folder: Path | None = None) -> Done:
    """Wait for the end of a process; one that does not end fails the test."""
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the process did not end\n{out}\n{err}") from None
    result: dict[str, Any] = {}
    if folder is not None:
        with contextlib.suppress(OSError):
            result = json.loads((folder / "result.json").read_text())
    assert "Traceback" not in err + out, err + out
    return Done(process.returncode, out, err, result)


def smtpbench(*argv: str, **env: str) -> Done:
    """Run `smtpbench argv` to its end."""
    return finish(start(*argv, **env))


def run(scenario: str | Path, target: str, out: Path, *argv: str, **env: str) -> Done:
    """Run `smtpbench run` to its end."""
    options = ("--target", target, "--out", str(out), "--progress", "none", *argv)
    return finish(start("run", str(scenario), *options, **env), out)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Wait for a line on standard error that contains a text; a process that ends before fails the test."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f"no line contains {text!r}\n{''.join(seen)}")


@contextmanager
def sink(*argv: str, **env: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run `smtpbench sink` on a free port; yield the port, and its counts, which are filled when the context ends."""
    process = start("sink", "--listen", "127.0.0.1:0", "--ready-json", *argv, **env)
    counts: dict[str, Any] = {}
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    try:
        yield int(json.loads(line)["listening"][0].rpartition(":")[2]), counts
    finally:
        process.terminate()
        counts.update(json.loads(finish(process).out))
