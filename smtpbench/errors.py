"""One tree of errors: what smtpbench raises when it, its input or its surroundings are at fault.

What a peer does is never raised: it is data, and part of the transcript.

    SmtpbenchError
    ├── UsageError          exit 2: an option or a URL that cannot be meant
    │   └── ScenarioError   exit 2: a scenario file, every mistake at once
    └── CannotRun           exit 3: the target, a certificate, a login or this machine stands in the way
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class SmtpbenchError(Exception):
    """The root; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(SmtpbenchError):
    """What the user asked for cannot be meant; the text says what to do instead."""

    exit_code = 2


class Problem(NamedTuple):
    """One mistake in a file; line and column count from 1, and 0 means the file as a whole."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.text}"


class ScenarioError(UsageError):
    """A scenario that cannot be run, with every mistake found in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class CannotRun(SmtpbenchError):  # noqa: N818  (it names a state of the world, as its exit code does)
    """Nothing is wrong with the input, yet the run cannot begin: unreachable, not trusted, refused."""

    exit_code = 3
