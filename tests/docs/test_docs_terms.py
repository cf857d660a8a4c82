"""Names of the code in docs/terms.md and in the pages for contributors exist."""

from __future__ import annotations

import ast
import re

import pytest

from docs_tools.shell import ROOT

_ROW = re.compile(r"^\| ([^|]+) \| [^|]+ \| ([^|]*) ?\|$", re.MULTILINE)
ROWS = [(term, code) for term, code in _ROW.findall((ROOT / "docs" / "terms.md").read_text()) if term != "term"]


def defined_names(source: str) -> set[str]:
    """Classes, functions and variables of a module."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def test_page_has_terms() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize(("term", "code"), ROWS, ids=[term for term, _ in ROWS])
def test_name_of_the_term_exists(term: str, code: str) -> None:
    for path, name in re.findall(r"`([\w/.]+)`(?: `(\w+)`)?", code):
        file = ROOT / "smtpbench" / path
        assert file.exists(), path
        assert not name or name in defined_names(file.read_text()), f"{path} has no {name}"


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_paths_and_classes_of_the_page_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for path in re.findall(r"`((?:[\w-]+/)+[\w-]*(?:\.\w+)?|\w+\.py)`", text):
        assert any((base / path).exists() for base in (ROOT, ROOT / "smtpbench", ROOT / "smtpbench" / "report")), path
    classes = {name for file in (ROOT / "smtpbench").rglob("*.py") for name in defined_names(file.read_text())}
    assert set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)(?:\.\w+)?`", text)) - {"RFC"} <= classes


def test_architecture_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) < 80
