"""Colours: one place decides, and each command that has any asks there."""

from __future__ import annotations

import ast
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from runner import sink, smtpbench

import smtpbench as package

PLAIN = {"NO_COLOR": "", "FORCE_COLOR": "", "TERM": "xterm"}


def test_one_function_decides_on_colours() -> None:
    root = Path(package.__file__).parent
    asked = 0
    for path in sorted((root / "cli").glob("*.py")):
        tree = ast.parse(path.read_text())
        keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "color"]
        colors = [ast.unparse(node.value) for node in keywords]
        asked += len(colors)
        assert set(colors) <= {"wants_color(sys.stdout)", "color", *(["True"] if path.name == "main.py" else [])}, path.name
        assert "color" not in colors or "color = wants_color(sys.stdout)" in path.read_text(), path.name
    assert asked >= 6
    deciding = [path.name for path in root.rglob("*.py") if "NO_COLOR" in path.read_text()]
    assert deciding == ["screen.py"]


def test_environment_decides_on_colours_of_every_command(tmp_path: Path) -> None:
    with sink("--mutant", "eod-lf-crlf") as (port, _):
        target = ("-t", f"smtp://127.0.0.1:{port}")
        for name in ("a", "b"):
            smtpbench("run", "relay", *target, "-n", "20", "--out", str(tmp_path / name))
        commands = [
            ("run", "relay", *target, "-n", "20", "--threshold", "rejected>5", "--out", str(tmp_path / "c"), "--overwrite"),
            ("check", "eod-lf-crlf", *target),
            ("diff", str(tmp_path / "a"), str(tmp_path / "b")),
            ("report", str(tmp_path / "c")),
            ("fuzz", "relay", *target, "--cases", "30", "--only", "end", "--out", str(tmp_path / "fuzz"), "--overwrite"),
        ]
        for command in commands:
            for environment, wanted in (({}, False), ({"FORCE_COLOR": "1"}, True), ({"NO_COLOR": "1"}, False)):
                done = smtpbench(*command, **{**PLAIN, **environment})
                assert ("\x1b[" in done.out) is wanted, (command, environment, done.out, done.err)
                assert "\x1b[" not in done.err


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"FORCE_COLOR": "0"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_environment_decides_on_colours_of_a_terminal(environment: dict[str, str], wanted: bool) -> None:
    with sink("--mutant", "eod-lf-crlf") as (port, _):
        ours, theirs = pty.openpty()
        process = subprocess.run(
            [sys.executable, "-m", "smtpbench.cli.main", "check", "eod-lf-crlf", "-t", f"smtp://127.0.0.1:{port}"],
            stdout=theirs, stderr=subprocess.PIPE, check=False, env={**os.environ, **PLAIN, **environment},
        )  # fmt: skip
        shown = os.read(ours, 65536)
        os.close(theirs)
        os.close(ours)
    assert process.returncode == 1, process.stderr
    assert (b"\x1b[" in shown) is wanted
