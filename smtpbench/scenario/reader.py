"""YAML with a place for every value and without YAML's traps.

PyYAML's event stream is read, never its constructors: a plain `no`, `1:30`, `0x10` or `2026-01-01` is text, only `true`
and `false` are booleans, a doubled key is an error, and an alias is followed as long as the document does not grow
out of hand. What comes out is a `Document`: plain data, and where each part of it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smtpbench.errors import Problem, ScenarioError

#: A scenario is something that people write; what is larger is another kind of file.
MAX_FILE_BYTES = 1024 * 1024
#: Values in a document once every alias is written out.
MAX_NODES = 100_000
MAX_DEPTH = 40
MAX_PLACES = 5_000

_TOO_DEEP = f"nested more than {MAX_DEPTH} deep"
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_STANDARD_TAGS = ("!", "tag:yaml.org,2002:")

Place = tuple[int, int]


@dataclass
class Document:
    """data: dicts, lists, str, int, float, bool, None. places: path of keys and indices → (line, column) from 1.

    A key itself stands at `path + (KEY,)`.
    """

    file: str
    data: Any = None
    places: dict[tuple[Any, ...], Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: tuple[Any, ...], text: str, *, key: bool = False) -> None:
        """Note a mistake at a path, or at the nearest part above it that has a place."""
        place = self.places.get((*path, KEY)) if key else None
        while place is None and path:
            place = self.places.get(path)
            path = path[:-1]
        line, column = place or self.places.get((), (0, 0))
        self.problems.append(Problem(self.file, line, column, text))


KEY = "\0key"


class _Stop(Exception):  # noqa: N818  (it carries a problem out of nested calls, and no further)
    def __init__(self, mark: Any, text: str) -> None:
        super().__init__(text)
        self.line: int = mark.line + 1 if mark is not None else 0
        self.column: int = mark.column + 1 if mark is not None else 0


def read_text(path: Path) -> str:
    """The text of a scenario file. Raises ScenarioError for what is no such thing."""

    def refuse(text: str) -> ScenarioError:
        return ScenarioError([Problem(str(path), 0, 0, text)])

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise refuse(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise refuse(f"is larger than {MAX_FILE_BYTES // 1024} KiB; a scenario is a short text file")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refuse("is UTF-16; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise ScenarioError([Problem(str(path), line, column, "is not UTF-8 text")]) from None
    if "\0" in text:
        raise refuse("is a binary file; a scenario is YAML text")
    return text


def parse(text: str, file: str, *, empty: str = "a scenario has at least a `session`") -> Document:
    """Read one YAML document. Raises ScenarioError where it is not YAML, or not one document.

    empty: what the message about an empty file adds.
    """
    document = Document(file)
    try:
        reader = _Reader(document, yaml.parse(text, Loader=yaml.CSafeLoader))
        reader.read(empty)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        problem = str(error.problem or error)
        # libyaml reads ahead of its events, so that its own limit (PyYAML 6.0.4 on) may be met before ours.
        text = _TOO_DEEP if "nesting depth" in problem else f"not YAML: {problem}"
        raise ScenarioError([Problem(file, line, column, text)]) from None
    except yaml.YAMLError as error:
        raise ScenarioError([Problem(file, 0, 0, f"not YAML: {' '.join(str(error).split())[:200]}")]) from None
    except _Stop as stop:
        raise ScenarioError([*document.problems, Problem(file, stop.line, stop.column, str(stop))]) from None
    return document


class _Reader:
    """Events to data, with a budget of nodes and of depth."""

    def __init__(self, document: Document, events: Iterator[Any]) -> None:
        self._document = document
        self._events = events
        self._nodes = 0
        self._anchors: dict[str, tuple[Any, tuple[Any, ...]]] = {}

    def read(self, empty: str) -> None:
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise _Stop(None, f"is empty; {empty}")
        self._document.data = self._value(next(self._events), (), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _Stop(event.start_mark, "a second document begins here; a scenario is one document")

    def _value(self, event: Any, path: tuple[Any, ...], depth: int) -> Any:
        mark = event.start_mark
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Stop(mark, f"more than {MAX_NODES:,} values, aliases written out; that is no scenario")
        if depth > MAX_DEPTH:
            raise _Stop(mark, _TOO_DEEP)
        self._document.places.setdefault(path, (mark.line + 1, mark.column + 1))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if event.tag and not event.tag.startswith(_STANDARD_TAGS):
            self._document.problem(path, f"the tag {event.tag!r} means nothing here")
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
                raise _Stop(event.start_mark, "a key must be a word, not a list, a mapping or an alias")
            key: str = event.value
            mark: Any = event.start_mark
            where = (*path, key)
            if key in found:
                self._document.problems.append(
                    Problem(self._document.file, mark.line + 1, mark.column + 1, f"the key {key!r} stands here twice")
                )
                self._value(next(self._events), (*path, key, "\0again"), depth + 1)
                continue
            self._document.places[(*where, KEY)] = (mark.line + 1, mark.column + 1)
            found[key] = self._value(next(self._events), where, depth + 1)
        return found

    def _alias(self, event: Any, path: tuple[Any, ...]) -> Any:
        if event.anchor not in self._anchors:
            raise _Stop(event.start_mark, f"the alias *{event.anchor} refers to nothing before it, or to itself")
        value, original = self._anchors[event.anchor]
        self._nodes += _size(value, MAX_NODES - self._nodes)
        if self._nodes > MAX_NODES:
            raise _Stop(event.start_mark, f"aliases that grow to more than {MAX_NODES:,} values")
        places = self._document.places
        depth = len(original)
        if len(places) < MAX_PLACES:  # past that, mistakes are reported at the alias itself
            for known in [known for known in places if known[:depth] == original and len(known) > depth]:
                places.setdefault((*path, *known[depth:]), places[known])
        return value


def _size(value: Any, budget: int) -> int:
    """How many values there are in a value, counting no further than a little past the budget."""
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
    if event.style:  # quoted, or a block: text
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
