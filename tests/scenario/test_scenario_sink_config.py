"""Configuration files of the sink: plain data out, and every mistake at its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpbench.errors import ScenarioError
from smtpbench.scenario.sink_config import load_sink_config
from smtpbench.sink.behaviour import behaviour_from, parse_rule


def load(folder: Path, text: str) -> dict[str, object]:
    path = folder / "sink.yaml"
    path.write_text(text)
    return load_sink_config(path, parse_rule)


def test_values_come_as_the_sink_takes_them(tmp_path: Path) -> None:
    text = "on: [RCPT=delay:20ms, 'message=450 4.2.1 full@5%']\nstall: 4s..5s\ngreylist: 30s\nseed: 7\n"
    config = load(tmp_path, text)
    assert config == {
        "on": ["RCPT=delay:20ms", "message=450 4.2.1 full@5%"], "stall": "4s..5s", "greylist": "30s", "seed": 7,
    }  # fmt: skip
    assert behaviour_from(config)


def test_every_key_may_be_left_out(tmp_path: Path) -> None:
    assert not behaviour_from(load(tmp_path, "seed: 1"))


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("rules: [RCPT=450]", ["1:1: unknown key 'rules'; allowed: on, stall"]),
        ("seed: 1\nstal: 4s..5s", ["2:1: unknown key 'stal'; did you mean 'stall'? "]),
        ("on:\n- RCPT=450\n- RCPT=teapot\n- FOO=1", ["3:3: 'RCPT=teapot': unknown action", "4:3: 'FOO=1' is not a rule"]),
        ("on: RCPT=450", ["1:5: a list is expected"]),
        ("greylist: soon\nseed: x", ["1:11: 'soon' is not a duration", "2:7: a whole number is expected"]),
        ("stall: 5s..4s", ["1:8: range '5s..4s' ends below its start"]),
        ("[RCPT=450]", ["1:1: the document is not a mapping; a sink configuration has the keys"]),
        ("", [" is empty; a sink configuration has the keys"]),
    ],
)
def test_mistakes_are_reported_at_their_place(tmp_path: Path, text: str, messages: list[str]) -> None:
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path, text)
    found = str(caught.value).splitlines()
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert line.startswith(f"{tmp_path}/sink.yaml:{message}")


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such file"):
        load_sink_config(tmp_path / "none.yaml", parse_rule)
