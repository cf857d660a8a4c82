"""The keys of `result.json` are public: they may gain company, but none is removed or changes its meaning."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpbench.measure.schema import schema_text

#: The schemas of version 1, as they were first published.
PUBLISHED = Path(__file__).resolve().parent.parent / "data" / "schemas-1"
NAMES = ("result", "judgement", "compared", "capacity")
#: Keywords whose values are schemas of the parts of a value.
PARTS = ("items", "additionalProperties", "propertyNames")
#: Keywords that describe a value to a reader of the schema and restrict nothing.
ANNOTATIONS = ("description", "title", "examples", "$comment", "$schema", "$defs")


def published(name: str) -> Any:
    return json.loads((PUBLISHED / f"{name}.schema.json").read_text(encoding="utf-8"))


class Comparison:
    """Compares two schemas of one format.

    Attributes:
        keys: Paths of the keys that both schemas have.
    """

    def __init__(self, old: Any, new: Any) -> None:
        self._old = old
        self._new = new
        self.keys: set[str] = set()

    def changes(self) -> list[str]:
        """Return what a program that reads results by the old schema would stumble over."""
        return list(self._changes(self._old, self._new, ""))

    def _changes(self, old: Any, new: Any, path: str) -> Iterator[str]:
        old, new = resolve(old, self._old), resolve(new, self._new)
        for keyword, value in old.items():
            found = new.get(keyword)
            if keyword in ANNOTATIONS:
                continue
            if keyword == "properties":
                for key, part in value.items():
                    if key not in (found or {}):
                        yield f"{path}/{key}: removed"
                    else:
                        self.keys.add(f"{path}/{key}")
                        yield from self._changes(part, found[key], f"{path}/{key}")
            elif keyword in ("required", "enum"):
                yield from (f"{path}: {item!r} is no longer in {keyword}" for item in value if item not in (found or ()))
            elif keyword in PARTS and isinstance(value, dict):
                if isinstance(found, dict):
                    yield from self._changes(value, found, f"{path}/*")
                else:
                    yield f"{path}: {keyword} was {value!r} and is {found!r}"
            elif value != found:
                yield f"{path}: {keyword} was {value!r} and is {found!r}"


def resolve(schema: Any, root: Any) -> Any:
    """Return a schema with its reference (`#/$defs/times`) replaced by what it refers to."""
    while "$ref" in schema:
        referred = root
        for name in schema["$ref"].split("/")[1:]:
            referred = referred[name]
        schema = {**referred, **{keyword: value for keyword, value in schema.items() if keyword != "$ref"}}
    return schema


@pytest.mark.parametrize("name", NAMES)
def test_no_published_key_is_removed_or_changed(name: str) -> None:
    comparison = Comparison(published(name), json.loads(schema_text(name)))
    assert comparison.changes() == []
    assert len(comparison.keys) >= 50


def remove(*path: str) -> Callable[[Any], None]:
    def change(schema: Any) -> None:
        for name in path[:-1]:
            schema = schema[name]
        del schema[path[-1]]

    return change


def put(value: Any, *path: str) -> Callable[[Any], None]:
    def change(schema: Any) -> None:
        for name in path[:-1]:
            schema = schema[name]
        schema[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (remove("properties", "seed"), ["/seed: removed"]),
        (remove("properties", "load", "properties", "stages", "items", "properties", "duration_s"),
         ["/load/stages/*/duration_s: removed"]),
        (put("string", "properties", "seed", "type"), ["/seed: type was 'integer' and is 'string'"]),
        (put(["schema"], "required"), None),
        (put(["open"], "properties", "load", "properties", "model", "enum"), ["/load/model: 'closed' is no longer in enum"]),
        (put("urn:another", "$id"), ["and is 'urn:another'"]),
        (put({"type": "string"}, "properties", "new_key"), []),
        (put("another text", "properties", "seed", "description"), []),
        (put(["closed", "open", "stepped"], "properties", "load", "properties", "model", "enum"), []),
    ],
)  # fmt: skip
def test_changes_are_reported_and_additions_are_not(change: Callable[[Any], None], reported: list[str] | None) -> None:
    old = published("result")
    new = copy.deepcopy(old)
    change(new)
    changes = Comparison(old, new).changes()
    if reported is None:
        assert len(changes) == len(old["required"]) - 1
    else:
        assert len(changes) == len(reported)
        assert all(text in found for text, found in zip(reported, changes, strict=True))


def test_changes_within_definitions_are_reported() -> None:
    old = published("result")
    for name in old["$defs"]:
        new = copy.deepcopy(old)
        definition = new["$defs"][name]
        definition["type"] = "null"
        assert Comparison(old, new).changes(), name
