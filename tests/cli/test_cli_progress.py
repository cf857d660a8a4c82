"""Progress of the commands: in a pipe a line every few seconds on standard error, with the share done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from runner import sink, smtpbench

from smtpbench.cli.main import load
from smtpbench.cli.progress import ElapsedProgress, display_for
from smtpbench.errors import UsageError
from smtpbench.report.terminal.progress import NONE, ProgressUpdate
from smtpbench.study.progress import StudyUpdate

LONG_COMMANDS = ("run", "check", "fuzz", "compare", "capacity", "replay", "doctor", "demo")


class Recording:
    """A display that keeps its updates."""

    def __init__(self) -> None:
        self.updates: list[ProgressUpdate] = []

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *error: object) -> None: ...

    def update(self, update: ProgressUpdate) -> None:
        self.updates.append(update)

    def notify(self, text: str) -> None: ...


@pytest.mark.parametrize("command", LONG_COMMANDS)
def test_every_long_command_has_the_option(command: str) -> None:
    (option,) = [one for one in load(command).params if one.name == "progress"]
    assert (option.default, option.metavar) == ("auto", "auto|live|plain|none")


def test_unknown_mode_is_an_error() -> None:
    with pytest.raises(UsageError, match="did you mean live"):
        display_for("lvie", "relay", "smtp://127.0.0.1")
    display_for(NONE, "relay", "smtp://127.0.0.1")


@pytest.mark.parametrize(
    ("update", "share", "remaining_s"),
    [
        (StudyUpdate("round 1"), None, None),
        (StudyUpdate("round 1", share=0.25), 0.25, 30.0),
        (StudyUpdate("step 3", remaining_s=30.0), 0.25, 30.0),
        (StudyUpdate("step 9", remaining_s=0.0), 1.0, 0.0),
    ],
)
def test_share_and_time_left_of_a_study(update: StudyUpdate, share: float | None, remaining_s: float | None) -> None:
    display, clock = Recording(), iter([100.0, 110.0])
    ElapsedProgress(display, lambda: next(clock)).study(update)
    assert display.updates == [ProgressUpdate(10.0, update.text, share, remaining_s)]


@pytest.mark.parametrize(("equal_parts", "remaining_s"), [(True, 30.0), (False, None)])
def test_time_left_needs_parts_that_take_equally_long(equal_parts: bool, remaining_s: float | None) -> None:
    display, clock = Recording(), iter([100.0, 110.0])
    ElapsedProgress(display, lambda: next(clock)).update("now", 0.25, equal_parts=equal_parts)
    assert display.updates == [ProgressUpdate(10.0, "now", 0.25, remaining_s)]


def test_check_reports_rules_in_a_pipe_and_nothing_on_request(tmp_path: Path) -> None:
    with sink("--delay", "EHLO=400ms") as (port, _):
        url = f"smtp://127.0.0.1:{port}"
        done = smtpbench("check", "-t", url, "noop-250", "rset-250", "quit", "health")
        silent = smtpbench("check", "-t", url, "noop-250", "rset-250", "--progress", "none")
    line = rf"smtpbench: protocol rules → {url}  \d+% done  [a-z ]+, \d of 4 rules.*"
    assert done.code == 0, done.err
    assert re.fullmatch(line, done.err.splitlines()[0]), done.err
    assert (silent.code, silent.err) == (0, "")
