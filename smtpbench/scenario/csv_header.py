"""CSV files of values whose header line is missing.

The first line of a CSV file is its header. Where the header is missing, the first value is taken for the name of the column
and is never sent. That is no mistake that a program can be sure of, so it is a warning.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from itertools import islice

from smtpbench.errors import Problem
from smtpbench.scenario.content import Csv
from smtpbench.scenario.file_access import OutsideFolder
from smtpbench.scenario.load import ScenarioFile
from smtpbench.text import visible

#: Rows that are compared with the first line.
_SAMPLE_ROWS = 100
_DIGITS, _LETTERS = re.compile(r"[0-9]+"), re.compile(r"[^\W\d_]+")


def header_warnings(file: ScenarioFile) -> list[Problem]:
    """Return a warning for each CSV file of a scenario whose first line looks like a value and not like a header.

    A file that cannot be read gives none: compiling the scenario reports it.
    """
    found = []
    for name, spec in file.scenario.values.items():
        if isinstance(spec, Csv) and spec.column is None:
            header = _suspicious_header(file, spec)
            if header is not None:
                line, column = file.document.positions.get(("values", name, "csv"), (0, 0))
                text = (
                    f"warning: {visible(spec.csv)} seems to have no header line: its first line, '{visible(header)}', is "
                    "taken for the name of the column and not used as a value; add a header line, or name the column with "
                    "`column` if this is one"
                )
                found.append(Problem(file.document.file, line, column, text))
    return found


def _suspicious_header(file: ScenarioFile, spec: Csv) -> str | None:
    try:
        with file.files.path(spec.csv).open(encoding="utf-8-sig", newline="") as text:
            lines = list(islice((row for row in csv.reader(text) if row), _SAMPLE_ROWS + 1))
    except (OSError, UnicodeDecodeError, csv.Error, OutsideFolder):
        return None
    if not lines or len(lines[0]) != 1:  # with several columns the scenario names the one it takes
        return None
    header = lines[0][0]
    return header if looks_like_value(header, [row[0] for row in lines[1:]]) else None


def looks_like_value(header: str, values: Iterable[str]) -> bool:
    """Return whether the first line of a column is an address or a number, or looks like all its other lines."""
    if "@" in header or header.strip().isdigit():
        return True
    others = list(values)
    if header in others or ("." in header and others and all("." in one for one in others)):
        return True
    # letters alone may be a header as well as a value
    has_digits = any(character.isdigit() for character in header)
    return has_digits and bool(others) and all(_shape(header) == _shape(one) for one in others)


def _shape(text: str) -> str:
    """Return text with each run of letters and of digits as one character: `user17` and `u1` have the same shape."""
    return _DIGITS.sub("9", _LETTERS.sub("a", text))
