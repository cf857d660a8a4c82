"""The help of each command: its examples are there, fit on a screen, and can be typed as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from smtpbench.cli import exit_codes
from smtpbench.cli.main import COMMANDS, call, load
from smtpbench.rules.register import find
from smtpbench.scenario.shipped import shipped_scenarios
from smtpbench.study.options import document_of
from smtpbench.target import parse_target
from smtpbench.threshold import parse_metric, parse_threshold

MOST_COLUMNS = 100


def help_of(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    assert exit_codes.exit_code_of(lambda: call([command, "--help"])) == 0
    return capsys.readouterr().out


def examples(text: str, command: str) -> list[list[str]]:
    """The arguments of each example, without the shell's own: variables before, redirections and pipes behind."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        match = re.fullmatch(rf"\s+(?:[A-Z_]+=\S+ )*smtpbench {command}\b(.*)", line)
        if match:
            lexer = shlex.shlex(match[1], posix=True, punctuation_chars="><|&;")
            lexer.whitespace_split, lexer.commenters = True, ""
            words = list(lexer)
            found.append(words[: next((at for at, word in enumerate(words) if word in (">", "|", "&", ";")), None)])
    return found


def test_examples_are_read_as_a_shell_does() -> None:
    text = "  smtpbench x a > b\n  V=1 smtpbench x --t 'c<5' | d\n  smtpbench x \\\n     e\n  smtpbench y\n `smtpbench x`"
    assert examples(text, "x") == [["a"], ["--t", "c<5"], ["e"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_it_fits_and_its_examples_can_be_typed(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of(command, capsys, monkeypatch)
    assert max(map(len, text.splitlines())) <= MOST_COLUMNS
    found = examples(text, command)
    assert found, "there is no example"
    for arguments in found:
        with load(command).make_context(command, arguments) as context:  # raises for what typer does not take
            meant(command, context.params)


def meant(command: str, told: dict[str, Any]) -> None:
    """Look closer at the values that typer takes as text."""
    wanted = [told.get("scenario"), *(_list(told.get("files")) if command == "validate" else ())]
    if command == "compare":
        sides = {name: told[key] for name, key in (("target", "target"), ("with", "with_"), ("start", "start"))}
        if not Path(told["scenario"]).suffix:
            document_of(told["scenario"], {**sides, "stop": None}, {}, "")
    for scenario in wanted:
        assert scenario is None or scenario in shipped_scenarios() or str(scenario).endswith(".yaml"), scenario
    for target in _list(told.get("target")) if command != "compare" else ():
        parse_target(str(target))
    for threshold in [*_list(told.get("threshold")), *_list(told.get("slo"))]:
        parse_threshold(str(threshold))
    for metric in _list(told.get("metric")):
        parse_metric(str(metric))
    find(map(str, _list(told.get("rules"))))
    if command == "rules":
        find(map(str, _list(told.get("name"))))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
