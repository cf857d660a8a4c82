"""Only `report.reading` reads raw results; the pages and the formats use its typed values."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPORT = Path(__file__).resolve().parents[3] / "smtpbench" / "report"
MODULES = sorted(path for package in ("html", "formats") for path in (REPORT / package).glob("*.py"))


def raw_reads(source: str) -> list[int]:
    """Return the lines that read a raw result or that import the functions for it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "result":
            found.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module == "smtpbench.report.reading.lenient":
            # `greatest` works on numbers
            found += [node.lineno for alias in node.names if alias.name != "greatest"]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_module_reads_no_raw_result(path: Path) -> None:
    assert raw_reads(path.read_text()) == []


def test_raw_read_is_noticed() -> None:
    assert raw_reads("x = 1\ny = saved.result['target']\n") == [2]
    assert raw_reads("from smtpbench.report.reading.lenient import records\n") == [1]
