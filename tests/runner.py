"""Run the command line as a user does: a process, its exit code, its output and its result."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
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
        folder: Folder of the result; None without one.
    """

    code: int
    out: str
    err: str
    result: dict[str, Any]
    folder: Path | None = None

    @property
    def messages(self) -> dict[str, int]:
        """The message counts that are not zero, without `attempted`."""
        return {name: count for name, count in self.result["messages"].items() if count and name != "attempted"}

    def miscounted(self, sink: Mapping[str, Any] | None = None, *, one_each: bool = True) -> list[str]:
        """Return where the message counts disagree with what counted independently of them; empty if nowhere.

        That is the number of arrivals that were planned, the rows of the timeline, and the counts of a sink.

        Args:
            sink: Counts of the sink that the run had for itself; None if there was none, or if it counts more.
            one_each: Every arrival sends one message.
        """
        result, counts, found = self.result, self.result["messages"], []
        planned = planned_arrivals(result["load"]) if result["outcome"]["status"] == "completed" else None
        if one_each and planned is not None and counts["attempted"] != planned:
            found.append(f"attempted: {counts['attempted']}, planned: {planned}")
        assert self.folder is not None
        with (self.folder / "timeline.csv").open(newline="") as lines:
            seconds = [(row["phase"] == "warmup", row) for row in csv.DictReader(lines)]
        for warmup, totals in ((False, counts), (True, result["warmup"]["messages"])):
            for name in totals.keys() - {"attempted"}:
                in_timeline = sum(int(float(row[name] or 0)) for of_warmup, row in seconds if of_warmup is warmup)
                if totals[name] != in_timeline:
                    found.append(f"{name}: {totals[name]}, timeline: {in_timeline}")
        if sink is not None:
            accepted = counts["accepted"] + result["warmup"]["messages"]["accepted"]
            if accepted != sink["messages"]["accepted"]:
                found.append(f"accepted: {accepted}, sink: {sink['messages']['accepted']}")
        return found


def planned_arrivals(load: Mapping[str, Any]) -> int | None:
    """Return how many measured arrivals a load plans; None where their number is not planned, or is random."""
    if load["arrivals"] is not None:
        return int(load["arrivals"])
    if load["model"] != "open" or load["arrival_process"] != "uniform" or load["warmup_s"]:
        return None
    rates = {stage[end] for stage in load["stages"] for end in ("rate_from_per_s", "rate_to_per_s")}
    return round(rates.pop() * load["duration_s"]) if len(rates) == 1 and load["duration_s"] is not None else None


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
    return Done(process.returncode, out, err, result, folder)


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
