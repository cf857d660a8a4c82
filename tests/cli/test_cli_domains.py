"""Thresholds of one recipient domain: what is counted apart is what the server saw, and the whole stays the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from runner import run, sink, smtpbench

from smtpbench.measure.saved import load

# two of three recipients are taken; the strict sink refuses one that would need SMTPUTF8
SCENARIO = """\
session:
  - EHLO {client}
  - repeat: 7
    steps:
      - MAIL FROM:<{sender}>
      - RCPT TO:<{recipient}>
      - DATA
      - message
  - QUIT
values:
  recipient: {csv: to.csv, column: to}
thresholds: ["rejected@bad.example < 1%", "accepted@Good.Example == 200", "rejected@good.example == 0"]
"""


def scenario(folder: Path) -> Path:
    (folder / "to.csv").write_text("to\na@good.example\nb@good.example\nü@bad.example\n")
    (folder / "scenario.yaml").write_text(SCENARIO)
    return folder / "scenario.yaml"


@pytest.mark.parametrize(
    "options", [("-c", "6"), ("-c", "6", "--workers", "2"), ("-c", "6", "-r", "300/s", "--workers", "2")]
)
def test_threshold_of_a_domain_counts_its_messages_alone(tmp_path: Path, options: tuple[str, ...]) -> None:
    file, folder = scenario(tmp_path), tmp_path / "run"
    more = ("-n", "300", *options, "--threshold", "throughput@bad.example < 1/s", "--threshold", "rejected == 100")
    with sink() as (port, counts):
        done = run(file, f"smtp://127.0.0.1:{port}", folder, *more)
    assert done.code == 99, done.out + done.err
    result = done.result
    assert [(one["metric"], one["passed"], one["value"]) for one in result["thresholds"]] == [
        ("rejected@bad.example", False, 1.0),
        ("accepted@good.example", True, 200.0),
        ("rejected@good.example", True, 0.0),
        ("throughput@bad.example", True, 0.0),
        ("rejected", True, 100.0),
    ]
    assert "FAILED: rejected@bad.example < 1% is 100 %" in done.out
    Draft202012Validator(json.loads(smtpbench("schema", "result").out)).validate(result)
    good, bad = result["domains"]["good.example"], result["domains"]["bad.example"]
    assert set(result["domains"]) == {"good.example", "bad.example"}
    assert done.messages == {"accepted": 200, "rejected": 100}
    assert done.miscounted(counts) == []
    assert good["messages"]["accepted"] == counts["messages"]["accepted"] == 200
    assert bad["recipients"] == {"accepted": 0, "rejected": 100}
    assert bad["replies"]["RCPT"] == {"553": 100}
    assert good["replies"]["RCPT"] == {"250": 200}
    # what a session says before its first arrival is counted with it
    assert good["replies"]["EHLO"]["250"] + bad["replies"]["EHLO"]["250"] == result["replies"]["EHLO"]["250"]
    for metric in ("MAIL", "transaction"):
        parts = [part["latency"].get(metric, {"response": {"count": 0}})["response"]["count"] for part in (good, bad)]
        assert sum(parts) == result["latency"][metric]["response"]["count"] > 0
    saved = load(folder)
    assert sum(second.histogram.count for second in saved.seconds("MAIL")) == 300
    assert sum(float(row["rejected"] or 0) for row in saved.timeline()) == 100


def test_failed_threshold_of_a_domain_ends_the_run(tmp_path: Path) -> None:
    options = ("-c", "3", "-d", "60s", "--abort-on-fail", "--abort-grace", "0s")
    file = scenario(tmp_path)
    file.write_text(SCENARIO.replace(', "accepted@Good.Example == 200"', ""))
    with sink() as (port, _):
        done = run(file, f"smtp://127.0.0.1:{port}", tmp_path / "run", *options)
    assert done.code == 99
    assert done.result["outcome"]["status"] == "aborted"
    assert "rejected@bad.example" in done.result["outcome"]["reason"]
    assert done.result["load"]["window_s"] < 50


def test_halves_of_a_hostile_run_add_up(tmp_path: Path) -> None:
    options = ("-c", "6", "-r", "100/s", "-d", "3s", "--warmup", "1s", "--hostile", "10%", "--seed", "1")
    with sink() as (port, _):
        done = run(scenario(tmp_path), f"smtp://127.0.0.1:{port}", tmp_path / "run", *options)
    result = done.result
    assert done.miscounted() == []
    halves = [result["hostile"][phase]["messages"] for phase in ("quiet", "beside")]
    parts = [part["messages"] for part in result["domains"].values()]
    assert done.messages == {"accepted": 200, "rejected": 100}
    assert result["warmup"]["messages"]["attempted"] == 100
    for name, count in result["messages"].items():
        assert sum(half[name] for half in halves) == sum(part[name] for part in parts) == count


def test_unknown_domains_are_reported(tmp_path: Path) -> None:
    file = scenario(tmp_path)
    for text, expected_texts in (
        ("failed@nosuch.example < 1%", "the recipient domains are bad.example, good.example"),
        ("generator.cpu@good.example < 1%", "for the whole run only"),
    ):
        done = run(file, "smtp://127.0.0.1:1", tmp_path / "run", "--threshold", text)
        assert (done.code, expected_texts in done.err) == (2, True), done.err
