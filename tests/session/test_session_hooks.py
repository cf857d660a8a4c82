"""Subclasses of the sessions use documented hooks only, never a name that begins with an underscore."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from smtpbench.session.client import ClientSession
from smtpbench.session.server import ServerSession

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = {"ClientSession": ClientSession, "ServerSession": ServerSession}


def session_classes(roots: tuple[Path, ...]) -> list[tuple[str, ast.ClassDef, type]]:
    """Return (file, class, session class) for each class that inherits from a session class, nested ones too."""
    defined = [
        (path.name, node)
        for root in roots
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    bases: dict[str, type] = dict(SESSIONS)
    found: list[tuple[str, ast.ClassDef, type]] = []
    while True:
        new = [
            (file, node, bases[base.id])
            for file, node in defined
            if node.name not in bases
            for base in node.bases
            if isinstance(base, ast.Name) and base.id in bases
        ]
        if not new:
            return found
        found += new
        bases |= {node.name: session for _, node, session in new}


def private_names_used(node: ast.ClassDef, session: type) -> list[str]:
    """Return the private names of the session class that a subclass defines, reads or writes."""
    private = {name for name in dir(session) if name.startswith("_") and not name.startswith("__")}
    names = [inner.name for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef)]
    names += [inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)]
    return sorted(private & set(names))


def test_subclasses_use_no_private_name() -> None:
    found = session_classes((ROOT / "smtpbench", ROOT / "tests"))
    assert len(found) > 40
    assert {node.name for _, node, _ in found} >= {"TrackedSession", "ClosesOn"}
    assert [
        f"{file}: {node.name}.{name}" for file, node, session in found for name in private_names_used(node, session)
    ] == []


def test_a_private_name_is_reported(tmp_path: Path) -> None:
    code = (
        "class Faulty(ServerSession):\n    def _take_unit(self, now_ns):\n        self._own = self._delayed\n"
        "        return super()._read_text(now_ns)\n"
    )
    (tmp_path / "faulty.py").write_text(code)
    ((_, node, session),) = session_classes((tmp_path,))
    assert private_names_used(node, session) == ["_delayed", "_read_text", "_take_unit"]


@pytest.mark.parametrize("session", SESSIONS.values())
def test_documented_hooks_exist(session: type) -> None:
    documented = (session.__doc__ or "").partition("Hooks for subclasses")[2]
    names = [
        name
        for entry in re.findall(
            r"^ {8}([a-z_]+(?:\([a-z_, ]*\))?(?:, [a-z_]+(?:\([a-z_, ]*\))?)*):", documented, re.MULTILINE
        )
        for name in re.findall(r"[a-z_]+", re.sub(r"\(.*?\)", "", entry))
    ]
    names += re.findall(r"`([a-z_]+)(?:\([a-z_]*\))?`", documented)
    assert len(names) > 15
    assert [name for name in names if not hasattr(session, name)] == []
