"""YAML reader that keeps the position of every value and avoids the surprises of YAML.

It reads the event stream of PyYAML and never uses its constructors. A plain `no`, `1:30`, `0x10` or `2026-01-01` is text.
Only `true` and `false` are booleans. A duplicate key is an error. Aliases are followed while the document stays within its
limits. The result is a `Document`: plain data, with the position of each part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smtpbench.errors import Problem, ScenarioError
from smtpbench.text import printable

#: Largest file; people write scenarios by hand, so a larger file is something else.
MAX_FILE_BYTES = 1024 * 1024
#: The same for the file of a finding: a probe sends up to 4 MB, and the file escapes an octet by four characters.
MAX_FINDING_BYTES = 32 * 1024 * 1024
#: Largest number of values in a document, aliases expanded.
MAX_NODES = 100_000
MAX_DEPTH = 40
MAX_POSITIONS = 5_000

_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_STANDARD_TAGS = ("!", "tag:yaml.org,2002:")

Position = tuple[int, int]


@dataclass
class Document:
    """Data of a YAML document and the positions of its parts.

    Attributes:
        file: Name of the file, for error texts.
        data: Dicts, lists, str, int, float, bool and None.
        positions: Path of keys and indices → line and column, counted from 1. `path + (KEY,)` is the position of a key.
        problems: Mistakes found so far.
    """

    file: str
    data: Any = None
    positions: dict[tuple[Any, ...], Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: tuple[Any, ...], text: str, *, key: bool = False) -> None:
        """Add a mistake at the position of a path, or of the nearest part above it that has a position.

        Args:
            path: Keys and indices.
            text: What is wrong and what is allowed.
            key: Whether the mistake is the last key itself and not its value.
        """
        position = self.positions.get((*path, KEY)) if key else None
        while position is None and path:
            position = self.positions.get(path)
            path = path[:-1]
        line, column = position or self.positions.get((), (0, 0))
        # the text quotes the file, which may be a stranger's: it stays one line, without control characters
        self.problems.append(Problem(self.file, line, column, printable(text).replace("\n", "\\n")))


KEY = "\0key"


class _Unreadable(Exception):  # noqa: N818  (control flow: ends the nested calls of the reader)
    def __init__(self, mark: Any, text: str) -> None:
        super().__init__(text)
        self.line: int = mark.line + 1 if mark is not None else 0
        self.column: int = mark.column + 1 if mark is not None else 0


def read_text(path: Path, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Return the text of a scenario file. Raises ScenarioError if it cannot be one, or is larger than `max_bytes`."""

    def error_of(text: str) -> ScenarioError:
        return ScenarioError([Problem(str(path), 0, 0, text)])

    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise error_of(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(raw) > max_bytes:
        raise error_of(f"is larger than {max_bytes // 1024} KiB, the limit for scenario files")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error_of("is UTF-16 text; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise ScenarioError([Problem(str(path), line, column, "is not UTF-8 text; save it as UTF-8")]) from None
    if "\0" in text:
        raise error_of("is a binary file; scenarios are YAML text")
    return text


def parse(text: str, file: str, *, if_empty: str = "a scenario needs at least the key `session`") -> Document:
    """Parse one YAML document.

    Args:
        text: Text of the file.
        file: Name of the file for error texts.
        if_empty: What the error text for an empty document adds.

    Raises:
        ScenarioError: The text is not YAML, is empty, or has several documents.
    """
    document = Document(file)
    try:
        reader = _Reader(document, yaml.parse(text, Loader=yaml.CSafeLoader))
        reader.read(if_empty)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        problem = str(error.problem or error)
        # libyaml reads ahead of its events, so its own limit (PyYAML 6.0.4 and later) may apply before ours
        text = _TOO_DEEP if "nesting depth" in problem else f"not YAML: {problem}"
        raise ScenarioError([Problem(file, line, column, text)]) from None
    except yaml.YAMLError as error:
        raise ScenarioError([Problem(file, 0, 0, f"not YAML: {' '.join(str(error).split())[:200]}")]) from None
    except _Unreadable as error:
        raise ScenarioError([*document.problems, Problem(file, error.line, error.column, str(error))]) from None
    return document


class _Reader:
    """Converts events to data, within limits of values and of depth."""

    def __init__(self, document: Document, events: Iterator[Any]) -> None:
        self._document = document
        self._events = events
        self._nodes = 0
        self._anchors: dict[str, tuple[Any, tuple[Any, ...]]] = {}

    def read(self, if_empty: str) -> None:
        next(self._events)  # start of the stream
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise _Unreadable(None, f"is empty; {if_empty}")
        self._document.data = self._value(next(self._events), (), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _Unreadable(event.start_mark, "a second document starts here; only one is allowed")

    def _value(self, event: Any, path: tuple[Any, ...], depth: int) -> Any:
        mark = event.start_mark
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Unreadable(mark, f"the document has more than {MAX_NODES:,} values, aliases expanded")
        if depth > MAX_DEPTH:
            raise _Unreadable(mark, _TOO_DEEP)
        self._document.positions.setdefault(path, (mark.line + 1, mark.column + 1))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if event.tag and not event.tag.startswith(_STANDARD_TAGS):
            self._document.problem(path, f"the tag {event.tag!r} is not allowed; omit it")
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(path, depth)
        else:
            value = self._mapping(path, depth)
        if event.anchor:
            self._anchors[event.anchor] = (value, path)
        return value

    def _sequence(self, path: tuple[Any, ...], depth: int) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*path, len(found)), depth + 1))
        return found

    def _mapping(self, path: tuple[Any, ...], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _Unreadable(event.start_mark, "a key must be text, not a list, a mapping or an alias")
            key: str = event.value
            mark: Any = event.start_mark
            where = (*path, key)
            if key in found:
                self._document.problems.append(
                    Problem(self._document.file, mark.line + 1, mark.column + 1, f"duplicate key {key!r}")
                )
                self._value(next(self._events), (*path, key, "\0again"), depth + 1)
                continue
            self._document.positions[(*where, KEY)] = (mark.line + 1, mark.column + 1)
            found[key] = self._value(next(self._events), where, depth + 1)
        return found

    def _alias(self, event: Any, path: tuple[Any, ...]) -> Any:
        if event.anchor not in self._anchors:
            raise _Unreadable(event.start_mark, f"the alias *{event.anchor} has no anchor before it, or contains itself")
        value, original = self._anchors[event.anchor]
        self._nodes += _count_values(value, MAX_NODES - self._nodes)
        if self._nodes > MAX_NODES:
            raise _Unreadable(event.start_mark, f"the aliases expand to more than {MAX_NODES:,} values")
        positions = self._document.positions
        depth = len(original)
        if len(positions) < MAX_POSITIONS:  # beyond that, mistakes are reported at the alias itself
            for known in [known for known in positions if known[:depth] == original and len(known) > depth]:
                positions.setdefault((*path, *known[depth:]), positions[known])
        return value


def _count_values(value: Any, budget: int) -> int:
    """Return the number of values in a value; counting stops soon after `budget`."""
    count, todo = 0, [value]
    while todo and count <= budget:
        item = todo.pop()
        count += 1
        if isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    return count


def _scalar(event: Any) -> Any:
    text = event.value
    if event.style:  # quoted and block scalars are text
        return text
    if text in ("true", "false"):
        return text == "true"
    if text in ("", "~", "null"):
        return None
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
