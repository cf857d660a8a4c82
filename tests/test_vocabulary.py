"""Retired names stay retired: identifiers by definition, words in texts, and one meaning for each public class name.

docs/terms.md has the names that are used instead.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Identifiers that may not be defined: as a class, function, argument, variable, attribute or import alias.
RETIRED_IDENTIFIERS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        Account Act AccountedSession Ask Book Books Cast Catch ClosedConductor Conductor Course Court Crew Fleet Gauge
        Judgement Manners Memo Offer OpenConductor Outcome Ruling Scores Take Tally Told Wrong ABANDON GIVE_UP GO GO_ON
        HELD LEAVE SAY account act asks at_gate book books calm canary cast catch conductor course court crew differ
        difference differences escape even facts farewell fate gate gauge heard hunt judged judgement killer loose manners
        memo offer otherwise passes patience prologue quiet rows ruling said say sift slot slots speaker strikes takes
        tally tape tell told trial view wants wishes words wrong wrongs _EAR _account _act _be_late _book _calm _canaries
        _cast _conduct _conductor _fulfil _manners _memo _name_the_killer _offer _owed _rows _say _stay_patient _tape
        _tell _told _wish
        """,
    )
)
#: Identifiers that are allowed in one file, with the reason.
ALLOWED: Final = {
    ("smtpbench/cli/report.py", "slot"): "the option --slot",
    ("smtpbench/scenario/model.py", "take"): "a key of finding files",
}
#: Words and phrases that no text of the project uses: docstrings, comments, messages and documentation.
RETIRED_WORDS: Final = (
    r"\bconductors?\b", r"\bcanar(?:y|ies)\b", r"\bfarewell\b", r"\bmanners\b", r"\bcrew\b", r"\bcourt\b", r"\bthe killer\b",
    r"\bprologue\b", r"\bon trial\b", r"\bheld against\b", r"\bis not to be had\b", r"\bnobody reads the output\b",
    r"\bsay findings again\b", r"\bmistake in the call\b", r"\bhas no future\b", r"\bat the gate\b", r"\bstrikes\b",
)  # fmt: skip
#: Keys of result.json and identifiers that hold a retired word and stay.
KEYS: Final = re.compile(r"latency_canary")


def python_files() -> list[Path]:
    """The Python files that git tracks."""
    names = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in names if Path(name) != Path(__file__).relative_to(ROOT)]


def text_files() -> list[Path]:
    """The documentation and scenario files that git tracks; published results are as they were measured."""
    wanted = ["*.md", "*.yaml", "*.yml", "Makefile", "Dockerfile"]
    names = subprocess.run(["git", "ls-files", *wanted], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in names if name != "docs/terms.md"]


def defined_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that the code defines, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.alias(asname=str(name)):
                yield name, node.lineno


def texts(source: str) -> Iterator[tuple[str, int]]:
    """Docstrings, other string constants and comments, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            yield token.string, token.start[0]


def retired_words(text: str) -> list[str]:
    """The retired words and phrases in a text."""
    text = KEYS.sub("", " ".join(text.split()))
    return [found[0] for pattern in RETIRED_WORDS if (found := re.search(pattern, text, re.IGNORECASE))]


def test_no_retired_identifier_is_defined() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in python_files()
        for name, line in defined_names(ast.parse(path.read_text()))
        if name in RETIRED_IDENTIFIERS and (str(path.relative_to(ROOT)), name) not in ALLOWED
    ]
    assert found == []


def test_no_text_uses_a_retired_word() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in python_files()
        for text, line in texts(path.read_text())
        for word in retired_words(text)
    ]
    found += [f"{path.relative_to(ROOT)}: {word}" for path in text_files() for word in retired_words(path.read_text())]
    assert found == []


def test_a_public_class_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in (ROOT / "smtpbench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("class Cast: ...", ["Cast"]),
        ("def f(tape): ...", ["tape"]),
        ("self.strikes = 0", ["strikes"]),
        ("import report.facts as facts", ["facts"]),
        ("for said in (): ...", ["said"]),
        ("re.escape(html.escape(transcript))", []),
    ],
)
def test_definitions_are_found(source: str, names: list[str]) -> None:
    assert [name for name, _ in defined_names(ast.parse(source)) if name in RETIRED_IDENTIFIERS] == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The canary asks again.", ["canary"]),
        ("latency_canary", []),
        ("held\n    against it", ["held against"]),
        ("health check", []),
    ],
)
def test_words_are_found(text: str, words: list[str]) -> None:
    assert retired_words(text) == words
