"""Files that users write: scenarios and comparisons, from the models that read them; and the scenarios that are shipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from docs_build.markup import Page, anchored, block, code, escape_markdown, sentence, table
from docs_build.schema import Schema, SchemaDocument
from smtpbench.scenario.comparison import Comparison
from smtpbench.scenario.fields import TEXT_TYPES
from smtpbench.scenario.model import Scenario
from smtpbench.scenario.shipped import shipped_scenarios
from smtpbench.scenario.steps import ACTIONS
from smtpbench.scenario.values import BUILT_IN, DEFAULTS

#: Steps in the order of the reference, values likewise: names of models in the schema.
STEPS: Final = ("Send", "Raw", "Pipeline", "Repeat", "Pause", "MessageStep", "Bdat", "Auth", "Choose")
VALUES: Final = ("Pick", "Numbers", "Random", "Csv", "Lines")
SCENARIO: Final = "reference/scenario-file.md"


def pages() -> list[Page]:
    """Return the pages on scenario files, comparison files and shipped scenarios."""
    return [_scenario(), _comparison(), _shipped()]


def _schema_of(model: Any) -> Schema:
    return model.model_json_schema(by_alias=True)  # type: ignore[no-any-return]  # pydantic's own dict


def _links(page: str) -> dict[str, str]:
    named = {name: f"{page}#{name.replace(' ', '-')}" for name in TEXT_TYPES}
    sections = {"step": "steps", "value": "values", "Message": "message", "Load": "load", "LoadStage": "stages"}
    return {
        **named,
        **{name: f"{page}#{anchor}" for name, anchor in sections.items()},
        "Branch": f"{page}#alternatives",
        "threshold": "metrics.md#thresholds",
        "metric": "metrics.md",
        "FindingMetadata": f"{page}#finding",
        "GrowthMetadata": f"{page}#growth",
    }


def _model(document: SchemaDocument, name: str, heading: str, anchor: str) -> str:
    """A section: the keys of one model."""
    model = document.root["$defs"][name]
    keys = document.table(document.own_keys(model), f"{anchor}.")
    return f"{heading} {{ #{anchor} }}\n\n{sentence(model.get('description', ''))}\n\n{keys}\n"


def _scenario() -> Page:
    document = SchemaDocument(_schema_of(Scenario), _links(""))
    actions = [(anchored(f"word.{name}", code(name)), sentence(text)) for name, text in ACTIONS.items()]
    defaults = [(anchored(f"value.{name}", code(f"{{{name}}}")), code(text)) for name, text in DEFAULTS.items()]
    built_in = [(anchored(f"value.{name}", code(f"{{{name}}}")), sentence(text)) for name, text in BUILT_IN.items()]
    parts = [
        "A scenario is a YAML file. `smtpbench validate FILE` checks it and names every mistake with its line. "
        "An editor that reads JSON Schema completes its keys: `smtpbench schema > scenario.schema.json`. "
        "Keys that are not listed here are mistakes.\n",
        block("yaml", shipped_scenarios()["relay"].read_text(encoding="utf-8")),
        "## Keys of the file { #keys }\n",
        document.table(document.own_keys(document.root), "keys."),
        "## Steps { #steps }\n",
        "A step is one of these:\n\n"
        "- a line that begins with a verb in capital letters, such as `MAIL FROM:<{sender}>`: an SMTP command, "
        "with CRLF added and values filled in;\n"
        "- one of the words in the table;\n"
        "- a mapping: the first key of each table below says which kind of step it is.\n",
        table("pairs", ("Word", "What it does"), actions),
        *(_model(document, name, f"### `{_key_of(document, name)}`", f"step.{_key_of(document, name)}") for name in STEPS),
        _model(document, "Branch", "#### Alternatives of `choose`", "alternatives"),
        "## Values { #values }\n",
        "`{name}` in a step or in the message stands for a value. A value is text, which may name other values, "
        "or one of the mappings below. All draws depend on the seed and on the number of the arrival only: "
        "an arrival has the same values however many connections and workers there are.\n",
        table("pairs", ("Value", "Default"), defaults),
        "These values are always there:\n",
        table("pairs", ("Value", "Meaning"), built_in),
        *(_model(document, name, f"### `{_key_of(document, name)}`", f"value.{_key_of(document, name)}") for name in VALUES),
        _model(document, "Message", "## `message`", "message"),
        _model(document, "Load", "## `load`", "load"),
        _model(document, "LoadStage", "### `stages`", "stages"),
        _model(document, "FindingMetadata", "## `finding`", "finding"),
        _model(document, "GrowthMetadata", "### `growth`", "growth"),
        "## Types { #types }\n",
        _types(),
    ]
    return Page(SCENARIO, "Scenario file", "\n".join(parts))


def _key_of(document: SchemaDocument, name: str) -> str:
    """The key that tells a kind of step or value from others: the first of its model."""
    return str(next(iter(document.root["$defs"][name]["properties"])))


def _types() -> str:
    table_rows = [
        (anchored(name.replace(" ", "-"), escape_markdown(name)), escape_markdown(form), ", ".join(map(code, examples)))
        for name, (form, examples) in TEXT_TYPES.items()
    ]
    return table("keys", ("Type", "How it is written", "Examples"), table_rows)


def _comparison() -> Page:
    document = SchemaDocument(_schema_of(Comparison), {**_links("scenario-file.md"), "CandidateSpec": "#candidates"})
    entry = document.root["$defs"]["CandidateSpec"]
    parts = [
        "A comparison file names the servers that `smtpbench compare` runs in turns, and how each is started and reached. "
        "`smtpbench schema comparison` prints its JSON Schema.\n",
        block("yaml", _example(_comparison_text())),
        "## Keys of the file { #keys }\n",
        document.table(document.own_keys(document.root), "keys."),
        f"## Candidates {{ #candidates }}\n\n{sentence(entry['description'])}\n",
        document.table(document.own_keys(entry), "candidate."),
    ]
    return Page("reference/comparison-file.md", "Comparison file", "\n".join(parts))


def _comparison_text() -> str:
    from smtpbench.scenario import comparison

    return comparison.__doc__ or ""


def _example(text: str) -> str:
    """The YAML in a module's docstring: all below its first paragraph."""
    return text.strip().partition("\n\n")[2]


def _shipped() -> Page:
    parts = [
        "These scenarios come with smtpbench. A command takes them by their names: "
        "`smtpbench run relay --target smtp://127.0.0.1:2525`.\n",
    ]
    found = {name: path.read_text(encoding="utf-8") for name, path in shipped_scenarios().items()}
    table_rows = [(f"[`{name}`](#{name})", sentence(_about(text))) for name, text in found.items()]
    parts.append(table("pairs", ("Scenario", "What it is for"), table_rows))
    parts += [f"## {name} {{ #{name} }}\n\n{block('yaml', text)}" for name, text in found.items()]
    return Page("reference/shipped-scenarios.md", "Shipped scenarios", "\n".join(parts))


def _about(text: str) -> str:
    lines: Iterator[str] = (line.removeprefix("about:").strip() for line in text.splitlines() if line.startswith("about:"))
    found = next(lines, "")
    return str(json.loads(found)) if found.startswith('"') else found
