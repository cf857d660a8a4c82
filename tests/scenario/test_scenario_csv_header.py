"""CSV files whose header is missing: the first value would be lost, so there is a warning that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpbench.scenario.csv_header import header_warnings
from smtpbench.scenario.load import load_text

SCENARIO = "session: ['RCPT TO:<{to}>']\nvalues:\n  to: {csv: to.csv}\n"


def warnings(folder: Path, content: str, scenario: str = SCENARIO) -> list[str]:
    (folder / "to.csv").write_text(content)
    return [str(warning) for warning in header_warnings(load_text(scenario, folder / "s.yaml"))]


@pytest.mark.parametrize(
    "content",
    [
        "a@x.example\nb@x.example\n",
        "\ufeffa@x.example\r\nb@x.example\r\n",
        '"a@x.example"\n"b@x.example"\n',
        "a@x.example",
        "<a@x.example>\n<b@x.example>\n",
        "one.example\ntwo.example\n",
        "1001\n1002\n",
        "user1\nuser2\nuser17\n",
        "box-1\nbox-2\n",
        "same\nother\nsame\n",
    ],
)
def test_first_line_that_looks_like_a_value_is_named(tmp_path: Path, content: str) -> None:
    (warning,) = warnings(tmp_path, content)
    assert warning.startswith(f"{tmp_path / 's.yaml'}:3:13: warning: to.csv seems to have no header line: its first line, ")
    assert repr(content.strip("\ufeff").splitlines()[0].strip('"')) in warning


@pytest.mark.parametrize(
    "content",
    [
        "address\na@x.example\n",
        "recipient\nuser1\nuser2\n",
        "recipient-2\na@x.example\n",
        "E-Mail\n",
        "first.name\nanna\n",
        "name\nanna\nben\n",
        "",
    ],
)
def test_header_line_gives_no_warning(tmp_path: Path, content: str) -> None:
    assert warnings(tmp_path, content) == []


def test_column_that_the_scenario_names_gives_no_warning(tmp_path: Path) -> None:
    scenario = SCENARIO.replace("to.csv", "to.csv, column: a@x.example")
    assert warnings(tmp_path, "a@x.example\nb@x.example\n", scenario) == []


def test_file_that_cannot_be_read_is_left_to_the_compiler(tmp_path: Path) -> None:
    assert header_warnings(load_text(SCENARIO, tmp_path / "s.yaml")) == []


def test_control_characters_of_the_first_line_are_spelled_out(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, "\x1b[2Ja@x.example\nb\n")
    assert "\x1b" not in warning
