"""Values: what the placeholders of a template stand for.

Every draw is a function of the random seed, the name of the value, the number n of the arrival and the number i of the
iteration of an unrolled repeat, and of nothing else. Arrival 17 has the same sender for any number of connections and
workers, and the same sender in all its lines.

A value with a line end would add commands or header fields of its own. It is allowed in the body of a message only, and
`Values.template` reports it anywhere else.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar
from zlib import crc32

from smtpbench.scenario.content import Csv, Lines, Numbers, Pick, Random
from smtpbench.scenario.file_access import FileAccess, OutsideFolder
from smtpbench.scenario.reader import Document

#: Function that returns a value for arrival n, iteration i.
Provider = Callable[[int, int], str]

_MASK = (1 << 64) - 1
_ALPHABETS = {
    "letters": "abcdefghijklmnopqrstuvwxyz",
    "digits": "0123456789",
    "hex": "0123456789abcdef",
    "alnum": "abcdefghijklmnopqrstuvwxyz0123456789",
}
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
MAX_VALUES = 5_000_000

DEFAULTS = {
    "client": "client.example",
    "sender": "sender{n}@sender.example",
    "recipient": "recipient{n}@recipient.example",
}
#: Values that are always there → what they are.
BUILT_IN: Mapping[str, str] = {
    "n": "Number of the arrival.",
    "i": "Number of the iteration of an inner `repeat`, from 1; 0 outside of one.",
    "run": "Identifier of the run.",
}


def mix(seed: int, name: str, n: int, i: int = 0) -> int:
    """Return 64 pseudo-random bits (the finaliser of splitmix64 over a sum of the arguments with odd factors)."""
    x = seed * 0x9E3779B97F4A7C15 + crc32(name.encode()) * 0xC2B2AE3D27D4EB4F
    x = x + n * 0xD6E8FEB86659FD93 + i * 0xA0761D6478BD642F & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def draw(seed: int, name: str, n: int, i: int = 0) -> float:
    """Return a pseudo-random float in [0, 1)."""
    return (mix(seed, name, n, i) >> 11) / (1 << 53)


def split_template(text: str) -> list[str | tuple[str]]:
    """Split a template into text and placeholders: `a{n}b` → ["a", ("n",), "b"]. Raises ValueError for a single brace."""
    parts: list[str | tuple[str]] = []
    at = 0
    for match in _PLACEHOLDER.finditer(text):
        parts.append(text[at : match.start()])
        at = match.end()
        if match[0] in ("{{", "}}"):
            parts.append(match[0][0])
        elif match[1] is None:
            raise ValueError(f"single {match[0]!r} in {text!r}; write {match[0] * 2!r} for the character itself")
        else:
            parts.append((match[1].strip(),))
    parts.append(text[at:])
    return merge_text(parts)


Part = TypeVar("Part")


def merge_text(parts: Iterable[str | Part]) -> list[str | Part]:
    """Join neighbouring texts and remove empty ones."""
    found: list[str | Part] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return found


class Values:
    """Values of one scenario. Mistakes are added to the problems of its document."""

    def __init__(
        self, specs: Mapping[str, str | Csv | Lines | Pick | Numbers | Random], document: Document, files: FileAccess,
        seed: int, run_id: str,
    ) -> None:  # fmt: skip
        self._document = document
        self._files = files
        self._seed = seed
        self._specs = {**DEFAULTS, **specs}
        self._providers: dict[str, Provider] = {
            "n": lambda n, i: str(n),
            "i": lambda n, i: str(i),
            "run": lambda n, i: run_id,
        }
        self._template_parts: dict[str, list[str | Provider]] = {"run": [run_id]}
        self._choices: dict[Provider, Sequence[str]] = {}
        # values that may contain a line end → the text of the scenario that has it
        self._line_ends: dict[str, tuple[object, ...]] = {}
        self._in_progress: list[str] = []

    def provider(self, name: str, path: tuple[object, ...]) -> Provider | None:
        """Return the provider of a value; None, with a problem at `path`, if there is none."""
        if name in self._providers:
            return self._providers[name]
        if name not in self._specs:
            known = ", ".join([*BUILT_IN, *self._specs])
            self._document.problem(path, f"unknown value {name!r}; defined values: {known}")
            return None
        if name in self._in_progress:
            self._document.problem(path, f"the value {name!r} refers to itself: {' → '.join([*self._in_progress, name])}")
            return None
        self._in_progress.append(name)
        try:
            found = self._make(name, self._specs[name])
        finally:
            self._in_progress.pop()
        if found is not None:
            self._providers[name] = found
        return found

    def template(self, text: str, path: tuple[object, ...], *, line_ends: bool = False) -> list[str | Provider] | None:
        """Return the parts of a template, with constant values filled in; None if it has a mistake.

        Args:
            text: The template.
            path: Its path in the document.
            line_ends: Whether its values may contain CR or LF, as in the body of a message.
        """
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
            if part[0] in self._line_ends and not line_ends:
                self._document.problem(
                    self._line_ends[part[0]],
                    f"the value {part[0]!r} contains a line end, and a command or a header field must not; "
                    "use {raw: …} for other octets",
                )
                return None
            # the parts of a value that is a template are inserted: they may consist of text and {n} only
            found += self._template_parts.get(part[0], [piece])
        return merge_text(found)

    def is_n(self, provider: Provider) -> bool:
        """Return whether a provider gives the number of the arrival, which can be formatted faster."""
        return provider is self._providers["n"]

    def choices(self, provider: Provider) -> Sequence[str] | None:
        """Return all values of a provider; None if they are not a list, and then they consist of letters and digits."""
        return self._choices.get(provider)

    def _with_choices(self, provider: Provider, items: Sequence[str]) -> Provider:
        self._choices[provider] = items
        return provider

    def _make(self, name: str, spec: str | Csv | Lines | Pick | Numbers | Random) -> Provider | None:
        path = ("values", name)
        if isinstance(spec, str):
            parts = self.template(spec, path, line_ends=True)
            if parts is None:
                return None
            self._note_line_ends(name, spec, path)
            self._template_parts[name] = parts
            return _join(parts)
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
        items = self._csv(spec, path) if isinstance(spec, Csv) else self._lines(spec, path)
        return self._from_list(name, items, spec.order) if items else None

    def _note_line_ends(self, name: str, text: str, path: tuple[object, ...]) -> None:
        """Remember whether a value that is a template may contain a line end, of its own or of a value in it."""
        inner = [part[0] for part in split_template(text) if not isinstance(part, str)]
        found = (
            path if _has_line_end(text) else next((self._line_ends[one] for one in inner if one in self._line_ends), None)
        )
        if found is not None:
            self._line_ends[name] = found

    def _from_list(self, name: str, items: list[str], order: str) -> Provider:
        count = len(items)
        if order == "sequential":
            return self._with_choices(lambda n, i: items[(n + i) % count], items)
        return self._with_choices(lambda n, i: items[mix(self._seed, name, n, i) % count], items)

    def _pick(self, name: str, spec: Pick) -> Provider | None:
        items = [str(item) for item in spec.pick]
        at = next((at for at, item in enumerate(items) if _has_line_end(item)), None)
        if at is not None:
            self._line_ends[name] = ("values", name, "pick", at)
        if spec.weights is None:
            return self._from_list(name, items, spec.order)
        if len(spec.weights) != len(items) or min(spec.weights) < 0 or not sum(spec.weights):
            self._document.problem(
                ("values", name, "weights"), f"weights must be {len(items):,} numbers of 0 or more, not all of them 0"
            )
            return None
        sums = list(accumulate(spec.weights))
        possible = [item for item, weight in zip(items, spec.weights, strict=True) if weight]
        return self._with_choices(
            lambda n, i: items[min(bisect(sums, draw(self._seed, name, n, i) * sums[-1]), len(items) - 1)], possible
        )

    def _csv(self, spec: Csv, path: tuple[object, ...]) -> list[str]:
        try:
            with self._files.path(spec.csv).open(encoding="utf-8-sig", newline="") as text:
                reader = csv.DictReader(text)
                columns = list(reader.fieldnames or [])
                column = spec.column or (columns[0] if len(columns) == 1 else "")
                if column not in columns:
                    wrong_column = f"the file {spec.csv} has no column {column!r}" if column else "the file needs a `column`"
                    self._document.problem((*path, "column"), f"{wrong_column}; its columns: {', '.join(columns) or 'none'}")
                    return []
                lines = [(reader.line_num, row[column] or "") for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error, OutsideFolder) as error:
            self._report_unreadable((*path, "csv"), spec.csv, error)
            return []
        return self._checked_items(lines, (*path, "csv"), spec.csv)

    def _lines(self, spec: Lines, path: tuple[object, ...]) -> list[str]:
        try:
            lines = self._files.path(spec.lines).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError, OutsideFolder) as error:
            self._report_unreadable((*path, "lines"), spec.lines, error)
            return []
        return self._checked_items(list(enumerate(lines, 1)), (*path, "lines"), spec.lines)

    def _report_unreadable(self, path: tuple[object, ...], file: str, error: Exception) -> None:
        if isinstance(error, OutsideFolder):
            self._document.problem(path, str(error))
            return
        reason = str(error) if isinstance(error, csv.Error) else getattr(error, "strerror", None) or "not UTF-8 text"
        self._document.problem(path, f"the file {file} cannot be read: {reason.lower()}")

    def _checked_items(self, lines: list[tuple[int, str]], path: tuple[object, ...], file: str) -> list[str]:
        """Return the items that are not empty; none, with a problem, if one of them contains a line end or NUL."""
        for number, text in lines:
            if any(character in text for character in "\r\n\0"):
                self._document.problem(path, f"{file}:{number}: a value must not contain a line end or NUL")
                return []
        items = [text for _, text in lines if text]
        if not items:
            self._document.problem(path, f"the file {file} contains no values")
        elif len(items) > MAX_VALUES:
            self._document.problem(path, f"the file {file} contains more than {MAX_VALUES:,} values, which is the limit")
        return items


def _has_line_end(text: str) -> bool:
    return "\r" in text or "\n" in text


def _join(parts: list[str | Provider]) -> Provider:
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
