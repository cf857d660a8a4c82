"""JSON Schema as tables: a row a key, with its type, its default and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from docs_build.markup import REQUIRED, anchored, code, sentence, table

Schema = Mapping[str, Any]
#: Keyword of our own schemas that names a kind of text, `duration`, or of mapping, `step`.
TYPE_KEYWORD = "x-type"


class Key(NamedTuple):
    """A key of an object.

    Attributes:
        path: Keys from the root, `load.stages[].rate`; a key that may have any name is `<name>`.
        schema: Its own schema, references resolved.
        required: Whether it must be there.
    """

    path: str
    schema: Schema
    required: bool


@dataclass(frozen=True, slots=True)
class SchemaDocument:
    """A schema, and where the documentation explains the types that have a name.

    Attributes:
        root: The whole schema, where references lead.
        links: Name of a type → address of its explanation, `duration` → `#duration`.
    """

    root: Schema
    links: Mapping[str, str] = field(default_factory=dict)

    def resolved(self, schema: Schema) -> Schema:
        """Return a schema with the one that it refers to filled in; what stands beside the reference wins."""
        reference = schema.get("$ref")
        if not reference:
            return schema
        found: Any = self.root
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return {**self.resolved(found), **{key: value for key, value in schema.items() if key != "$ref"}}

    def alternatives(self, schema: Schema) -> list[Schema]:
        """Return what a value may be, `null` left out: the schema itself, or the members of anyOf and oneOf."""
        schema = self.resolved(schema)
        members = schema.get("anyOf") or schema.get("oneOf") or ()
        found = [one for member in members for one in self.alternatives(member)] or [schema]
        return [one for one in found if one.get("type") != "null"]

    def own_keys(self, schema: Schema) -> list[Key]:
        """Return the keys of an object, without those of the objects in it."""
        schema = self.resolved(schema)
        required = schema.get("required", ())
        return [Key(name, one, name in required) for name, one in (schema.get("properties") or {}).items()]

    def all_keys(self, schema: Schema, above: str = "") -> Iterator[Key]:
        """Yield the keys of an object and of all objects in it, by their paths."""
        for one in self.alternatives(schema):
            for name, member, required in self.own_keys(one):
                yield Key(f"{above}{name}", member, required)
                yield from self.all_keys(member, f"{above}{name}.")
            others = one.get("additionalProperties")
            if isinstance(others, Mapping):
                yield Key(f"{above}<name>", others, False)
                yield from self.all_keys(others, f"{above}<name>.")
            items = one.get("items")
            if isinstance(items, Mapping):
                yield from self.all_keys(items, f"{above.removesuffix('.')}[].")

    def type_of(self, schema: Schema) -> str:
        """Return what a value may be, as Markdown: `integer`, 1 to 256."""
        named = schema.get(TYPE_KEYWORD)
        if named:
            return self._link(named)
        reference = str(schema.get("$ref", "")).rpartition("/")[2]
        if reference in self.links:
            return self._link(reference)
        schema = self.resolved(schema)
        if schema.get(TYPE_KEYWORD):
            return self._link(schema[TYPE_KEYWORD])
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return " or ".join(self._single({**schema, "type": kind}) for kind in kinds)
        members = schema.get("anyOf") or schema.get("oneOf")
        if members:
            return " or ".join(dict.fromkeys(self.type_of(one) for one in members if one.get("type") != "null"))
        return self._single(schema)

    def _link(self, name: str) -> str:
        parts = name if name.islower() else self.links[name].rpartition("#")[2]
        return f"[{parts}]({self.links[name]})" if name in self.links else parts

    def _single(self, schema: Schema) -> str:
        if "const" in schema:
            return code(_json(schema["const"]))
        if "enum" in schema:
            return ", ".join(code(_json(value)) for value in schema["enum"])
        kind = str(schema.get("type", "any value"))
        if kind == "array":
            inside = self.type_of(schema["items"]) if isinstance(schema.get("items"), Mapping) else ""
            return f"list of {inside}" if inside else "list"
        if kind == "object":
            others = schema.get("additionalProperties")
            return f"mapping of names to {self.type_of(others)}" if isinstance(others, Mapping) else "mapping"
        return " ".join(filter(None, (kind, _bounds(schema))))

    def table(self, found: Iterable[Key], anchor: str = "", *, defaults: bool = True) -> str:
        """Return the table of these keys.

        Args:
            found: The keys, in order.
            anchor: What the names of the anchors begin with, `load.`.
            defaults: Whether there is a column for defaults.
        """
        table_rows = []
        for key in found:
            cells = [anchored(_anchor(anchor + key.path), code(key.path)), self.type_of(key.schema)]
            cells += [_default(key)] if defaults else []
            table_rows.append([*cells, sentence(str(self.resolved(key.schema).get("description", "")))])
        head = ("Key", "Value", "Default", "Meaning") if defaults else ("Key", "Value", "Meaning")
        return table("options" if defaults else "keys", head, table_rows)


def _anchor(path: str) -> str:
    return path.replace("[]", "").replace("<", "").replace(">", "")


def _bounds(schema: Schema) -> str:
    text = schema.get("type") == "string"
    low, high = (None, schema.get("maxLength")) if text else (schema.get("minimum"), schema.get("maximum"))
    if low is not None and high is not None:
        return f"from {low:,} to {high:,}"
    if low is not None:
        return f"≥ {low:,}"
    return f"≤ {high:,}{' characters' if text else ''}" if high is not None else ""


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _default(key: Key) -> str:
    if key.required:
        return REQUIRED
    value = key.schema.get("default")
    return code(_json(value)) if value not in (None, "", [], {}) else ""
