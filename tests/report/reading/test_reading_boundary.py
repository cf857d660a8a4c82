"""Only `report.reading` reads raw results; pages, formats and console reports use its typed values."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPORT = Path(__file__).resolve().parents[3] / "smtpbench" / "report"
MODULES = sorted(path for package in ("html", "formats", "terminal") for path in (REPORT / package).glob("*.py"))


def is_result(node: ast.expr) -> bool:
    """Return whether an expression is named like a raw result."""
    return (isinstance(node, ast.Name) and node.id == "result") or (
        isinstance(node, ast.Attribute) and node.attr == "result"
    )


def raw_reads(source: str) -> list[int]:
    """Return the lines that read a raw result or that import the functions for it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript | ast.Attribute) and is_result(node.value):
            found.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module == "smtpbench.report.reading.lenient":
            # `greatest` works on numbers
            found += [node.lineno for alias in node.names if alias.name != "greatest"]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_module_reads_no_raw_result(path: Path) -> None:
    assert raw_reads(path.read_text()) == []


@pytest.mark.parametrize("source", ["x = saved.result['target']", "x = saved.result.get('target')", "x = result['target']"])
def test_raw_read_is_noticed(source: str) -> None:
    assert raw_reads(f"\n{source}\n") == [2]
    assert raw_reads("from smtpbench.report.reading.lenient import records\n") == [1]


def test_reading_does_not_import_the_reports() -> None:
    for path in (REPORT / "reading").glob("*.py"):
        modules = {node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        siblings = {module for module in modules if module.startswith("smtpbench.report.")}
        assert all(module.startswith("smtpbench.report.reading.") for module in siblings), path
