"""All formats: hostile text is shown as text, and a misshapen result is shown or an error without a traceback."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import pytest
from hostile_results import CONTROLS, HOSTILE, MAKERS, saved
from junitparser import JUnitXml
from markdown_it import MarkdownIt
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from smtpbench.errors import UsageError
from smtpbench.measure.saved import Saved
from smtpbench.report.formats.registry import FORMATS, render
from smtpbench.report.reading.formatting import safe

EVERYTHING = ["html", "junit", "sarif", "markdown", "csv", "jsonl", "hgrm", "openmetrics", "annotations", "summary"]
JUNK: list[Any] = [
    None, True, -1, 10**400, float("nan"), float("inf"), "", CONTROLS, HOSTILE, [], [[]], [1, None], {}, {"": {}},
    {"a": [{"b": 1}]},
]  # fmt: skip
#: Formats that hold nothing of a kind of result.
EMPTY = {("sarif", "comparison"), ("sarif", "capacity"), ("csv", "comparison"), ("annotations", "capacity")}


def texts_of_json(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from (name, *texts_of_json(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of_json(inner)


def read_junit(text: str) -> list[str]:
    JUnitXml.fromstring(text.encode())
    root = ElementTree.fromstring(text.encode())
    assert {element.tag for element in root.iter()} <= {
        "testsuites", "testsuite", "testcase", "properties", "property", "failure", "error", "skipped", "system-out",
    }  # fmt: skip
    return [found for element in root.iter() for found in (element.text or "", *element.attrib.values())]


def read_markdown(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    found = []
    for token in tokens:
        for one in [token, *(token.children or [])]:
            if one.type.startswith("html"):
                tags = re.findall(r"<[^>]*>", one.content)
                assert set(tags) <= {"<details>", "</details>", "<summary>", "</summary>", "<code>", "</code>"}, one.content
            if one.type == "link_open":
                assert str(one.attrs["href"]).startswith("https://www.rfc-editor.org/rfc/rfc"), one
            assert one.type not in ("image", "hr", "code_block"), one
            if one.type in ("text", "html_inline"):
                assert not set("@#$<") & set(one.content), one.content
            if one.type in ("code_inline", "fence", "text"):
                found.append(one.content)
    return found


def read_openmetrics(text: str) -> list[str]:
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # the library's own
    return [value for family in families for one in family.samples for value in one.labels.values()]


def read_annotations(text: str) -> list[str]:
    """As actions/runner reads a line: `::command name=value,…::message`."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"::(error|warning|notice) ([^:]*)::(.*)", line)
        assert match, line
        properties = dict(one.split("=", 1) for one in match[2].split(","))
        assert set(properties) <= {"file", "line", "title"}
        for value in (*properties.values(), match[3]):
            for code, character in (("%3A", ":"), ("%2C", ","), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
                value = value.replace(code, character)
            found.append(value)
    return found


READERS: dict[str, Callable[[str], list[str]]] = {
    "junit": read_junit,
    "sarif": lambda text: list(texts_of_json(json.loads(text))),
    "markdown": read_markdown,
    "summary": read_markdown,
    "csv": lambda text: [cell for row in csv.reader(io.StringIO(text)) for cell in row],
    "jsonl": lambda text: [found for line in text.splitlines() for found in texts_of_json(json.loads(line))],
    "openmetrics": read_openmetrics,
    "annotations": read_annotations,
}


def test_every_format_is_read_by_an_independent_parser() -> None:
    # .hgrm and the page have tests of their own, and a terminal interprets no markup
    assert set(READERS) | {"hgrm", "html", "console"} == set(FORMATS)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in itertools.product(READERS, MAKERS) if pair not in EMPTY])
@pytest.mark.parametrize("text", [HOSTILE, CONTROLS], ids=["markup", "controls"])
def test_hostile_text_is_shown_as_text(name: str, kind: str, text: str) -> None:
    shown = render(name, [saved(MAKERS[kind](text))])
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028\ud800-\udfff\ufffe]", shown)
    wanted = safe(text)[:60].split("](")[0]
    assert any(wanted in found or wanted.replace("\\|", "\\\\x7c") in found for found in READERS[name](shown))


@pytest.mark.parametrize("name", [*EVERYTHING, "console"])
@pytest.mark.parametrize("kind", MAKERS)
def test_misshapen_result_is_shown_or_a_one_line_error(name: str, kind: str) -> None:
    original = MAKERS[kind]()
    draw = random.Random(f"{name} {kind}")
    for _ in range(25):
        result = copy.deepcopy(original)
        for _ in range(draw.randint(1, 3)):
            spoil(result, draw)
        result["schema"] = original["schema"]
        shown = shown_or_error(name, [saved(result), saved(original)] if draw.random() < 0.3 else [saved(result)])
        shown.encode()
        if name in READERS and shown:
            READERS[name](shown)


def shown_or_error(name: str, results: Sequence[Saved]) -> str:
    """Return what a format makes of results; empty if it raises an error of one line."""
    try:
        return render(name, results)
    except UsageError as error:
        lines = str(error).splitlines()
    assert len(lines) == 1
    return ""


def broken_format(several: Sequence[Saved]) -> str:
    """A format with a bug."""
    raise KeyError("\x1b[2J")


def test_error_names_the_file_and_holds_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "broken", f"{__name__}:broken_format")
    with pytest.raises(UsageError, match=r"^a\\x1bb/result.json: cannot be converted to broken: .*KeyError.*x1b"):
        render("broken", [saved(MAKERS["check"](), "a\x1bb")])


def spoil(value: Any, draw: random.Random) -> None:
    """Replace something in a value by junk, or delete it."""
    while True:
        names = list(value) if isinstance(value, dict) else list(range(len(value)))
        at = draw.choice(names)
        inner = value[at]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.8:
            value = inner
            continue
        if draw.random() < 0.2:
            del value[at]
        else:
            value[at] = draw.choice(JUNK)
        return
