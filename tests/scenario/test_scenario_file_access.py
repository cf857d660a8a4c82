"""Files that scenarios, fixtures and comparisons name: those outside their folder are refused, unless all are allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpbench.errors import ScenarioError
from smtpbench.scenario.comparison import read_comparison, validate_comparison
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import load_fixture, load_text

STEPS = "session: ['NOOP {a}', DATA, message]\n"
REFUSED = r"{position}: .* is outside the folder of this file; use --allow-files"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of the scenario, beside a folder with files that are none of its business."""
    (tmp_path / "private").mkdir()
    for name in ("secret.txt", "m.eml"):
        (tmp_path / "private" / name).write_text("Subject: x\n\nsecret\n")
    found = tmp_path / "scenario"
    (found / "sub").mkdir(parents=True)
    (found / "sub" / "m.eml").write_text("Subject: x\n\nmine\n")
    (found / "link").symlink_to(tmp_path / "private")
    (found / "link.eml").symlink_to(tmp_path / "private" / "m.eml")
    (found / "inner.eml").symlink_to(found / "sub" / "m.eml")
    return found


def compiled(text: str, folder: Path, *, allow_files: bool = False) -> None:
    compile_scenario(load_text(text, folder / "s.yaml", allow_files=allow_files), CompileOptions())


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("values: {a: x}\nmessage: {eml: '{private}/m.eml'}\n", "3:16"),
        ("values: {a: x}\nmessage: {eml: '{private}/*.eml'}\n", "3:16"),
        ("values: {a: x}\nmessage: {eml: ../private/m.eml}\n", "3:16"),
        ("values: {a: x}\nmessage: {eml: '*/../../private/*.eml'}\n", "3:16"),
        ("values: {a: x}\nmessage: {eml: link/m.eml}\n", "3:16"),
        ("values: {a: x}\nmessage: {eml: '*.eml'}\n", "3:16"),
        ("values: {a: {lines: '{private}/secret.txt'}}\n", "2:21"),
        ("values: {a: {lines: link/secret.txt}}\n", "2:21"),
        ("values: {a: {csv: ../private/secret.txt}}\n", "2:19"),
    ],
)
def test_file_outside_the_folder_is_refused_unless_allowed(folder: Path, text: str, position: str) -> None:
    scenario = STEPS + text.replace("{private}", str(folder.parent / "private"))
    with pytest.raises(ScenarioError, match=REFUSED.format(position=f"s.yaml:{position}")):
        compiled(scenario, folder)
    compiled(scenario, folder, allow_files=True)


def test_message_of_a_step_is_held_to_the_same(folder: Path) -> None:
    with pytest.raises(ScenarioError, match=REFUSED.format(position="s.yaml:1:33")):
        compiled("session: [DATA, {message: {eml: ../private/m.eml}}]", folder)


@pytest.mark.parametrize("pattern", ["sub/m.eml", "sub/../sub/m.eml", "**/m.eml", "inner.eml", "{here}/sub/*.eml"])
def test_file_in_the_folder_may_be_named_in_any_way(folder: Path, pattern: str) -> None:
    compiled(f"session: [DATA, message]\nmessage: {{eml: '{pattern.replace('{here}', str(folder))}'}}\n", folder)


def test_file_that_does_not_exist_is_reported_as_such(folder: Path) -> None:
    with pytest.raises(ScenarioError, match=r"s.yaml:2:16: 'none.eml' matches no file"):
        compiled("session: [DATA, message]\nmessage: {eml: none.eml}\n", folder)


def test_password_file_of_a_fixture_must_be_in_its_folder(folder: Path) -> None:
    file = folder / "fixture.yaml"
    file.write_text("recipient: a@x.example\npassword-file: ../private/secret.txt\n")
    with pytest.raises(ScenarioError, match=REFUSED.format(position="fixture.yaml:2:16")):
        load_fixture(file)
    assert load_fixture(file, allow_files=True).password_file == str(folder / "../private/secret.txt")
    file.write_text("password-file: sub/m.eml\n")
    assert load_fixture(file).password_file == str(folder / "sub/m.eml")


def test_password_file_of_a_candidate_must_be_in_the_folder_of_the_comparison(folder: Path) -> None:
    file = folder / "c.yaml"
    file.write_text(
        "scenario: relay\ncandidates:\n  a: {target: 'smtp://u@127.0.0.1', password-file: /etc/passwd}\n"
        "  b: {target: 'smtp://127.0.0.1'}\n"
    )
    with pytest.raises(ScenarioError, match=REFUSED.format(position="c.yaml:3:52")):
        validate_comparison(read_comparison(file), folder)
    validate_comparison(read_comparison(file), folder, allow_files=True)
