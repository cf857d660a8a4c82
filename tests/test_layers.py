"""Imports run down only: the layers of `docs_build.layers`, held by walking the AST."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from docs_build.layers import LAYERS

ROOT = Path(__file__).resolve().parent.parent / "smtpbench"

FLOOR_OF = {package: floor for floor, layer in enumerate(LAYERS) for package in layer.packages}
STANDARD_LIBRARY_ONLY = {"smtp", "errors", "units", "text", "threshold"}
#: Libraries that belong to one floor.
OWNERS = {
    "typer": {"cli"}, "rich": {"report"}, "yaml": {"scenario"}, "pydantic": {"scenario"}, "hdrh": {"measure"},
    "hypothesis": {"fuzz"}, "markupsafe": {"report"}, "prometheus_client": {"report"}, "pytest": {"pytest_plugin"},
    "psutil": {"supervisor"},
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """The modules a file imports, by their dotted names; with what is imported from the package itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "smtpbench" else {node.module}
    return found


def violations(root: Path) -> list[str]:
    """Every import that climbs, or that takes a library where it does not belong."""
    found = []
    for path in sorted(root.rglob("*.py")):
        package = path.relative_to(root).parts[0].removesuffix(".py")
        if package == "__init__":
            continue
        for name in imports(path):
            first, *rest = name.split(".")
            if first == "smtpbench" and rest and rest[0] != "__version__":
                other = rest[0]
                if other != package and FLOOR_OF[other] >= FLOOR_OF[package]:
                    found.append(f"{path.name}: {package} imports {other}")
            elif first != "smtpbench":
                if package in STANDARD_LIBRARY_ONLY and first not in sys.stdlib_module_names:
                    found.append(f"{path.name}: {package} imports {first}, which is not in the standard library")
                if package not in OWNERS.get(first, {package}):
                    found.append(f"{path.name}: {package} imports {first}")
    return found


def test_every_package_has_a_layer() -> None:
    packages = {
        path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert packages - {"__init__"} == set(FLOOR_OF)


def test_imports_run_down_only() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "climbs"),
    [
        ("smtp/reply.py", "from smtpbench.engine.shard import Shard", True),
        ("smtp/reply.py", "import trio", True),
        ("engine/shard.py", "from smtpbench.session import client", True),
        ("load/run.py", "from smtpbench import report", True),
        ("load/run.py", "import smtpbench.fuzz.campaign", True),
        ("report/console.py", "import typer", True),
        ("load/run.py", "from smtpbench.measure.result import save", False),
        ("cli/run.py", "import typer", False),
    ],
)
def test_the_walk_sees_what_climbs(tmp_path: Path, file: str, text: str, climbs: bool) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(text)
    assert bool(violations(tmp_path)) is climbs


def test_a_load_run_never_imports_hypothesis() -> None:
    # its trio plugin would sort and shuffle every batch of the scheduler
    code = "import sys, smtpbench.cli.run, smtpbench.load.worker_processes; print('hypothesis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
