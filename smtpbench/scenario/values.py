"""Values: what stands in the braces of a template.

Every draw is a function of (seed, value's name, arrival number n, pass i of an unrolled repeat) and of nothing
else: however many connections and workers there are, arrival 17 has the same sender, and one sender in all its lines.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from smtpbench.scenario.model import Csv, Lines, Numbers, Pick, Random
from smtpbench.scenario.reader import Document

#: A value for arrival n, pass i.
Provider = Callable[[int, int], str]

_MASK = (1 << 64) - 1
_ALPHABETS = {
    "letters": "abcdefghijklmnopqrstuvwxyz",
    "digits": "0123456789",
    "hex": "0123456789abcdef",
    "alnum": "abcdefghijklmnopqrstuvwxyz0123456789",
}
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
MAX_ROWS = 5_000_000

DEFAULTS = {
    "client": "client.example",
    "sender": "sender{n}@sender.example",
    "recipient": "recipient{n}@recipient.example",
}
#: Values that are always there → what they are.
BUILT_IN: Mapping[str, str] = {
    "n": "Number of the arrival.",
    "i": "Number of the iteration of an inner `repeat`, from 0.",
    "run": "Identifier of the run.",
}


def mix(seed: int, name: str, n: int, i: int = 0) -> int:
    """64 well-mixed bits of the four (the finaliser of splitmix64, over their sum with odd factors)."""
    x = seed * 0x9E3779B97F4A7C15 + crc32(name.encode()) * 0xC2B2AE3D27D4EB4F
    x = x + n * 0xD6E8FEB86659FD93 + i * 0xA0761D6478BD642F & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def draw(seed: int, name: str, n: int, i: int = 0) -> float:
    """The same as a float in [0, 1)."""
    return (mix(seed, name, n, i) >> 11) / (1 << 53)


def split_template(text: str) -> list[str | tuple[str]]:
    """Text and placeholders: `a{n}b` → ["a", ("n",), "b"]. Raises ValueError for a brace that closes nothing."""
    parts: list[str | tuple[str]] = []
    at = 0
    for match in _PLACEHOLDER.finditer(text):
        parts.append(text[at : match.start()])
        at = match.end()
        if match[0] in ("{{", "}}"):
            parts.append(match[0][0])
        elif match[1] is None:
            raise ValueError(f"a single {match[0]!r} in {text!r}; a brace that is meant is written twice")
        else:
            parts.append((match[1].strip(),))
    parts.append(text[at:])
    return merged(parts)


P = TypeVar("P")


def merged(parts: Iterable[str | P]) -> list[str | P]:
    """The same parts with neighbouring text joined and empty text left out."""
    found: list[str | P] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return found


class Values:
    """The values of one scenario. Mistakes are noted in its document, each at its place."""

    def __init__(
        self, specs: Mapping[str, str | Csv | Lines | Pick | Numbers | Random], document: Document, folder: Path,
        seed: int, run_id: str,
    ) -> None:  # fmt: skip
        self._document = document
        self._folder = folder
        self._seed = seed
        self._specs = {**DEFAULTS, **specs}
        self._providers: dict[str, Provider] = {
            "n": lambda n, i: str(n),
            "i": lambda n, i: str(i),
            "run": lambda n, i: run_id,
        }
        self._spliced: dict[str, list[str | Provider]] = {"run": [run_id]}
        self._choices: dict[Provider, Sequence[str]] = {}
        self._making: list[str] = []

    def provider(self, name: str, path: tuple[object, ...]) -> Provider | None:
        """What gives the value; None, and a problem at `path`, where there is no such value."""
        if name in self._providers:
            return self._providers[name]
        if name not in self._specs:
            known = ", ".join([*BUILT_IN, *self._specs])
            self._document.problem(path, f"there is no value {name!r}; known are {known}")
            return None
        if name in self._making:
            self._document.problem(path, f"the value {name!r} is made of itself: {' → '.join([*self._making, name])}")
            return None
        self._making.append(name)
        try:
            found = self._make(name, self._specs[name])
        finally:
            self._making.pop()
        if found is not None:
            self._providers[name] = found
        return found

    def template(self, text: str, path: tuple[object, ...]) -> list[str | Provider] | None:
        """The parts of a template, values that never change filled in; None where it holds a mistake."""
        try:
            parts = split_template(text)
        except ValueError as error:
            self._document.problem(path, str(error))
            return None
        found: list[str | Provider] = []
        for part in parts:
            if isinstance(part, str):
                found.append(part)
                continue
            piece = self.provider(part[0], path)
            if piece is None:
                return None
            # a value that is itself a template is spliced in: what is left of it may be text and {n} alone
            found += self._spliced.get(part[0], [piece])
        return merged(found)

    def is_n(self, provider: Provider) -> bool:
        """Whether it is the arrival number itself, for which a cheaper template will do."""
        return provider is self._providers["n"]

    def choices(self, provider: Provider) -> Sequence[str] | None:
        """All that it can give; None where those are not a list, and then letters and digits are all it is made of."""
        return self._choices.get(provider)

    def _chosen(self, provider: Provider, rows: Sequence[str]) -> Provider:
        self._choices[provider] = rows
        return provider

    def _make(self, name: str, spec: str | Csv | Lines | Pick | Numbers | Random) -> Provider | None:
        path = ("values", name)
        if isinstance(spec, str):
            parts = self.template(spec, path)
            if parts is None:
                return None
            self._spliced[name] = parts
            return _joined(parts)
        if isinstance(spec, Numbers):
            low, high = spec.range
            span = high - low + 1
            if spec.order == "sequential":
                return lambda n, i: str(low + (n + i) % span)
            return lambda n, i: str(low + mix(self._seed, name, n, i) % span)
        if isinstance(spec, Random):
            alphabet, count = _ALPHABETS[spec.alphabet], spec.random
            return lambda n, i: _characters(alphabet, count, self._seed, name, n, i)
        if isinstance(spec, Pick):
            return self._pick(name, spec)
        rows = self._csv(spec, path) if isinstance(spec, Csv) else self._lines(spec, path)
        return self._rows(name, rows, spec.order) if rows else None

    def _rows(self, name: str, rows: list[str], order: str) -> Provider:
        count = len(rows)
        if order == "sequential":
            return self._chosen(lambda n, i: rows[(n + i) % count], rows)
        return self._chosen(lambda n, i: rows[mix(self._seed, name, n, i) % count], rows)

    def _pick(self, name: str, spec: Pick) -> Provider | None:
        rows = [str(item) for item in spec.pick]
        if spec.weights is None:
            return self._rows(name, rows, spec.order)
        if len(spec.weights) != len(rows) or min(spec.weights) < 0 or not sum(spec.weights):
            self._document.problem(("values", name, "weights"), f"there must be {len(rows)} weights, not all of them 0")
            return None
        marks = list(accumulate(spec.weights))
        weighed = [row for row, weight in zip(rows, spec.weights, strict=True) if weight]
        return self._chosen(
            lambda n, i: rows[min(bisect(marks, draw(self._seed, name, n, i) * marks[-1]), len(rows) - 1)], weighed
        )

    def _csv(self, spec: Csv, path: tuple[object, ...]) -> list[str]:
        file = self._folder / spec.csv
        try:
            with file.open(encoding="utf-8-sig", newline="") as text:
                reader = csv.DictReader(text)
                columns = list(reader.fieldnames or [])
                column = spec.column or (columns[0] if len(columns) == 1 else "")
                if column not in columns:
                    what = f"the file {spec.csv} has no column {column!r}" if column else "name one column of the file"
                    self._document.problem((*path, "column"), f"{what}; it has {', '.join(columns) or 'none'}")
                    return []
                lines = [(reader.line_num, row[column] or "") for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            self._unreadable((*path, "csv"), spec.csv, error)
            return []
        return self._usable(lines, (*path, "csv"), spec.csv)

    def _lines(self, spec: Lines, path: tuple[object, ...]) -> list[str]:
        try:
            lines = (self._folder / spec.lines).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self._unreadable((*path, "lines"), spec.lines, error)
            return []
        return self._usable(list(enumerate(lines, 1)), (*path, "lines"), spec.lines)

    def _unreadable(self, path: tuple[object, ...], file: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, csv.Error) else getattr(error, "strerror", None) or "not UTF-8 text"
        self._document.problem(path, f"the file {file} cannot be read: {reason.lower()}")

    def _usable(self, lines: list[tuple[int, str]], path: tuple[object, ...], file: str) -> list[str]:
        """The rows that are not empty; one that would break out of a command line is a mistake."""
        for number, text in lines:
            if any(character in text for character in "\r\n\0"):
                self._document.problem(path, f"{file}:{number}: a line end or NUL would break out of a command")
                return []
        rows = [text for _, text in lines if text]
        if not rows:
            self._document.problem(path, f"the file {file} holds no values")
        elif len(rows) > MAX_ROWS:
            self._document.problem(path, f"the file {file} holds more than {MAX_ROWS:,} values")
        return rows


def _joined(parts: list[str | Provider]) -> Provider:
    return lambda n, i: "".join([part if isinstance(part, str) else part(n, i) for part in parts])


def _characters(alphabet: str, count: int, seed: int, name: str, n: int, i: int) -> str:
    found, bits, left = [], 0, 0
    for at in range(count):
        if left == 0:
            bits, left = mix(seed, f"{name}/{at}", n, i), 10
        found.append(alphabet[bits % len(alphabet)])
        bits //= len(alphabet)
        left -= 1
    return "".join(found)
