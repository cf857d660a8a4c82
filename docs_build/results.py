"""Result files: a page for each of their JSON schemas."""

from __future__ import annotations

import json
from typing import Final

from docs_build.markup import Page, escape_markdown, table
from docs_build.schema import SchemaDocument
from smtpbench.measure.schema import schema_text

FOLDER: Final = "reference/results"
#: Page → schema, title, and the commands that write such a result.
SCHEMAS: Final = {
    "run": ("result", "Result of run", "`run` and `demo`"),
    "check-and-fuzz": ("judgement", "Result of check and fuzz", "`check` and `fuzz`"),
    "compare": ("compared", "Result of compare and diff", "`compare` and `diff`"),
    "capacity": ("capacity", "Result of capacity", "`capacity`"),
}


def pages() -> list[Page]:
    """Return the overview and a page for each schema."""
    return [_overview(), *(_page(page, *about) for page, about in SCHEMAS.items())]


def _overview() -> Page:
    table_rows = [
        (f"[{escape_markdown(title)}]({page}.md)", commands, f"`smtpbench schema {schema}`")
        for page, (schema, title, commands) in SCHEMAS.items()
    ]
    body = (
        "A command that measures or judges writes `result.json` into its folder. The key `schema` names the format and its "
        "version. Within a version keys may be added; none is removed or changes its meaning. "
        "Programs that read results must accept keys that they do not know.\n\n"
        + table("keys", ("Result", "Written by", "JSON Schema"), table_rows)
        + "\nEvery quantity has its unit in its key: `_s`, `_ms`, `_ns`, `_bytes`, `_per_s`; a `_share` is from 0 to 1.\n"
    )
    return Page(f"{FOLDER}/index.md", "Result files", body)


def _page(page: str, schema: str, title: str, commands: str) -> Page:
    root = json.loads(schema_text(schema))
    document = SchemaDocument(root, {name: f"#type.{name}" for name in root.get("$defs", {})})
    parts = [
        f"Written by {commands}. `smtpbench schema {schema}` prints the JSON Schema.\n",
        f"{escape_markdown(root.get('description', ''))}\n",
    ]
    own = document.own_keys(root)
    parts += ["## Keys { #keys }\n", document.table(own, defaults=False)]
    for key in own:
        inside = list(document.all_keys(key.schema, f"{key.path}."))
        if inside and "$ref" not in key.schema:
            parts += [f"## `{key.path}` {{ #section-{key.path} }}\n", document.table(inside, defaults=False)]
    for name, definition in root.get("$defs", {}).items():
        inside = list(document.all_keys(definition))
        parts += [f"## {_words(name)} {{ #type.{name} }}\n", f"{escape_markdown(definition.get('description', ''))}\n"]
        parts.append(
            document.table(inside, f"type.{name}.", defaults=False) if inside else f"{document.type_of(definition)}\n"
        )
    return Page(f"{FOLDER}/{page}.md", title, "\n".join(parts))


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
