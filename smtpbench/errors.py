"""Errors that smtpbench raises: mistakes of the user, and surroundings that make a run impossible.

What a server does is never raised. It is data, and part of the transcript.

    SmtpbenchError
    ├── UsageError          exit code 2: an option, a URL or a file is wrong
    │   └── ScenarioError   exit code 2: a scenario file is wrong; holds all mistakes in it
    └── CannotRun           exit code 3: the target, a certificate, a login or this machine prevents a run

Error texts start in lower case and have no full stop at the end. They say what is wrong, where, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class SmtpbenchError(Exception):
    """Base of all errors of smtpbench.

    Attributes:
        exit_code: Exit code of the command line.
    """

    exit_code = 1


class UsageError(SmtpbenchError):
    """An option, a URL or a file is wrong; the text says what is allowed."""

    exit_code = 2


class Problem(NamedTuple):
    """One mistake in a file.

    Attributes:
        file: Name of the file.
        line: Line, counted from 1; 0 for the file as a whole.
        column: Column, counted from 1.
        text: What is wrong and what is allowed.
    """

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.text}"


class ScenarioError(UsageError):
    """A scenario file is wrong.

    Attributes:
        problems: Every mistake that was found.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class CannotRun(SmtpbenchError):  # noqa: N818  (named after its exit code, "could not run")
    """The input is right, but a run is not possible: the target is unreachable, not trusted or refuses the login."""

    exit_code = 3
