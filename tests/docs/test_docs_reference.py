"""The generated pages say all that the code says: every command, option, key, metric, rule, action and exit code."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from mkdocs.exceptions import PluginError

from docs_build import command_line, hooks, markup, reference, rules
from docs_build.layers import LAYERS
from docs_build.schema import SchemaDocument
from smtpbench.cli.exit_codes import EXIT_CODES
from smtpbench.cli.main import COMMANDS, load
from smtpbench.measure.schema import schema_text
from smtpbench.rules.register import RULES
from smtpbench.scenario.comparison import Comparison
from smtpbench.scenario.model import Scenario
from smtpbench.sink.behaviour import ACTIONS, KEYS
from smtpbench.sink.mutants import MUTANTS
from smtpbench.threshold import METRIC_NAMES, METRICS, limits_of

PAGES = {page.path: page for page in reference.pages()}


def body(path: str) -> str:
    return PAGES[f"reference/{path}.md"].body


def property_names(schema: Any) -> set[str]:
    """The keys that a schema knows, at any depth."""
    if isinstance(schema, list):
        return set().union(*map(property_names, schema))
    if not isinstance(schema, dict):
        return set()
    found = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return found.union(*(property_names(value) for value in schema.values()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_of_a_command_has_its_row(name: str) -> None:
    text, command = body(f"command-line/{name}"), load(name)
    options = [option for one in command.params for option in (*one.opts, *one.secondary_opts) if option.startswith("-")]
    arguments = [entry.names[0] for entry in command_line.parameters(command, "argument")]
    assert options or arguments
    assert [shown for shown in (*options, *arguments, "--help") if f"`{shown}`" not in text] == []
    assert [title for title, _ in command.sections if f"## {title}\n" not in text] == []


def test_a_row_says_value_default_and_bounds() -> None:
    table_rows = dict(re.findall(r"^\| <a id=\"(.*?)\".*?\) \| (.*) \|$", body("command-line/run"), re.MULTILINE))
    assert table_rows["--target"].startswith("`URL` | **required** | ")
    assert table_rows["--workers"].startswith("`COUNT`, 1..256 | `1` | ")
    assert table_rows["--drain"].startswith("`DURATION` | `5s` | ")
    assert table_rows["--insecure"].startswith(" |  | ")
    assert table_rows["--threshold"].startswith("`EXPRESSION`, repeatable | ")
    assert table_rows["SCENARIO"].startswith(" | **required** | ")


@pytest.mark.parametrize(("page", "model"), [("scenario-file", Scenario), ("comparison-file", Comparison)])
def test_every_key_of_a_file_is_there(page: str, model: type[Scenario] | type[Comparison]) -> None:
    schema = model.model_json_schema(by_alias=True)
    known = property_names(schema["properties"]) | set(schema["properties"])
    known |= property_names(schema["$defs"]) if page == "scenario-file" else property_names(schema["$defs"]["CandidateSpec"])
    assert [key for key in sorted(known) if f"`{key}`" not in body(page)] == []


@pytest.mark.parametrize("model", [Scenario, Comparison])
def test_every_key_of_a_file_is_described(model: type[Scenario] | type[Comparison]) -> None:
    schema = model.model_json_schema(by_alias=True)
    document = SchemaDocument(schema)
    parts = [schema, *schema["$defs"].values()]
    keys = [(part["title"], key) for part in parts for key in document.own_keys(part)]
    assert [f"{title}.{key.path}" for title, key in keys if not key.schema.get("description")] == []


@pytest.mark.parametrize(
    ("page", "schema"),
    [("run", "result"), ("check-and-fuzz", "judgement"), ("compare", "compared"), ("capacity", "capacity")],
)
def test_every_key_of_a_result_is_there(page: str, schema: str) -> None:
    known = property_names(json.loads(schema_text(schema)))
    shown = {key for path in re.findall(r"\[`([^`]+)`\]\(#", body(f"results/{page}")) for key in re.split(r"[.\[\]]+", path)}
    assert known - shown == set()


def test_every_rule_has_a_page_with_its_source_and_its_dialogue() -> None:
    for rule in RULES:
        text = body(f"rules/{rule.name}")
        assert rule.section in text
        assert markup.sentence(rule.requirement) in text
        assert ("C: QUIT" in text) == (rule.probe is not None), rule.name
        assert f"`{rule.name}`" in body("rules/index")


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ("RFC 5321 §4.1.1.4", "https://www.rfc-editor.org/rfc/rfc5321.html#section-4.1.1.4"),
        ("RFC 5321 §F.2", "https://www.rfc-editor.org/rfc/rfc5321.html#appendix-F.2"),
    ],
)
def test_a_source_is_linked_to_its_section(section: str, url: str) -> None:
    assert rules.section_url(section) == url


def test_metrics_actions_mutants_and_exit_codes_are_there() -> None:
    assert [one.name for one in METRICS if f"`{one.name}`" not in body("metrics")] == []
    assert [name for name in (*ACTIONS, *KEYS, *MUTANTS) if f"`{name}`" not in body("sink")] == []
    assert [one for one in EXIT_CODES if f"`{one.code}`" not in body("exit-codes")] == []


def test_every_name_that_completion_offers_is_a_metric() -> None:
    assert len(set(METRIC_NAMES)) == len(METRIC_NAMES)
    assert all(map(limits_of, METRIC_NAMES))


def test_a_folder_of_the_navigation_becomes_its_pages() -> None:
    (rules_section,) = reference.expanded([{"Rules": "reference/rules/"}])
    first, *groups = rules_section["Rules"]
    assert first == "reference/rules/index.md"
    assert {"reference/rules/eod-cr.md"} <= {path for group in groups for paths in group.values() for path in paths}
    assert reference.expanded(["a.md", {"B": "b.md"}, {"C": ["c.md"]}]) == ["a.md", {"B": "b.md"}, {"C": ["c.md"]}]


def test_the_picture_has_every_layer_and_no_blank_line() -> None:
    text = hooks.on_page_markdown("before\n\n<!-- generated: layers -->\n\nafter", page=None)
    picture = text.removeprefix("before\n\n").removesuffix("\n\nafter")
    assert "\n\n" not in picture
    assert [name for layer in LAYERS for name in layer.packages if f">{name}<" not in picture] == []


def test_a_piece_that_nobody_generates_is_an_error() -> None:
    with pytest.raises(PluginError, match="no generated piece is called laiers"):
        hooks.on_page_markdown("<!-- generated: laiers -->", page=None)


@pytest.mark.parametrize(
    ("text", "markdown"),
    [("a_b <c> [d] `e|f_g`", r"a\_b &lt;c&gt; \[d\] `e|f_g`"), ("two\nlines", "two lines")],
)
def test_text_is_shown_as_it_stands(text: str, markdown: str) -> None:
    assert markup.escape_markdown(text) == markdown


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("how long", "How long."), ("smtp://host", "smtp://host."), ("`a` b.", "`a` b."), ("", "")],
)
def test_a_description_becomes_a_sentence(text: str, sentence: str) -> None:
    assert markup.sentence(text) == sentence


def test_a_pipe_in_code_does_not_end_a_cell() -> None:
    assert "| <code>a&#124;b</code> | c |" in markup.table("pairs", ("A", "B"), [("`a|b`", "c")])
