"""A comparison from the command line says the same as one from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smtpbench.errors import ScenarioError, UsageError
from smtpbench.scenario.comparison import METRICS, Comparison, check, overlaid
from smtpbench.scenario.model import Load
from smtpbench.study.candidates import AccessOptions, CompareRequest, make_request
from smtpbench.study.options import document_of
from smtpbench.units import NS_PER_S

A, B = "smtp://127.0.0.1:2525", "smtp://127.0.0.1:2526"


def comparison(
    what: str = "relay", told: dict[str, Any] | None = None, **sides: list[str] | None
) -> tuple[Comparison, Path]:
    every = {name: sides.get(name) for name in ("target", "with", "start", "stop")}
    document, folder = document_of(what, every, told or {}, "")
    return check(document, folder), folder


def request_of(what: str = "relay", told: dict[str, Any] | None = None, **sides: list[str] | None) -> CompareRequest:
    return make_request(*comparison(what, told, **sides), AccessOptions(), Path("out"), 7)


def test_two_targets() -> None:
    request = request_of(target=[f"old={A}", f"new={B}"])
    assert [(one.name, one.access.target.url) for one in request.candidates] == [("old", A), ("new", B)]
    assert [metric.text for metric in request.metrics] == list(METRICS)
    plan = request.candidates[0].plan
    assert (plan.duration_ns, plan.warmup_ns, plan.seed) == (5 * NS_PER_S, NS_PER_S, 7)


def test_two_option_sets_on_one_target() -> None:
    options: Any = {"with": ["few=-c 5 --size 4KiB", "many=-c 50 -r 100/s -d 2s"]}
    few, many = request_of(target=[A], **options).candidates
    assert (few.plan.connections, few.message_bytes, few.options) == (5, 4096, "connections 5, messages of 4.00 KiB")
    assert (many.plan.connections, many.plan.open_model, many.access.target.url) == (50, True, A)
    assert many.options == "connections 50, duration 2.00 s, rate 100/s"


def test_commands_belong_to_their_candidate() -> None:
    one, other = request_of(target=[f"a={A}", f"b={A}"], start=["a=x --y=z", "b=q"], stop=["b=w"]).candidates
    assert (one.commands.start, one.commands.stop) == ("x --y=z", "")
    assert (other.commands.start, other.commands.stop) == ("q", "w")


def test_a_file_with_options_over_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("session: [EHLO c.example, QUIT]\nload: {messages: 10}\n")
    (tmp_path / "c.yaml").write_text(
        "scenario: mine.yaml\nload: {connections: 3}\nrepeats: 4\ncandidates:\n"
        f"  a: {{target: '{A}', ca: ca.pem}}\n  b: {{target: '{B}', load: {{messages: 7}}, recipient: r@x.example}}\n"
    )
    request = request_of(str(tmp_path / "c.yaml"), {"repeats": 9, "load": {"connections": 8, "rate": None}})
    assert (request.comparison.repeats, request.file.path) == (9, tmp_path / "mine.yaml")
    one, other = request.candidates
    assert one.access.trust.ca == tmp_path / "ca.pem"
    assert one.commands.folder == tmp_path
    # how long: the scenario's own ten messages are not asked of a comparison, unless it says so
    assert (one.plan.connections, one.plan.arrivals, one.plan.duration_ns) == (8, None, 5 * NS_PER_S)
    assert (other.plan.arrivals, other.plan.duration_ns) == (7, None)
    # a scenario without a message has no latency of one
    assert [metric.text for metric in request.metrics] == [
        "throughput",
        "transaction.p50",
        "transaction.p99",
        "rejected",
        "failed",
    ]


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ({}, "who is compared"),
        ({"target": [A]}, "say what differs"),
        ({"target": [f"a={A}"]}, "cannot be compared"),
        ({"target": [f"a={A}", f"a={B}"]}, "stands there twice"),
        ({"target": [f"a={A}", B]}, "write NAME=VALUE"),
        ({"target": [f"a={A}", f"b={B}"], "start": ["c=x"]}, "no candidate 'c'"),
        ({"target": [A], "with": ["a=-c 1", "b=--colour 3"]}, "unrecognized arguments"),
        ({"target": [A], "with": ["a=-c '", "b=-c 3"]}, "No closing quotation"),
        ({"target": [A], "with": ["a=-c 1", "b=-c lots"]}, "whole number"),
        ({"target": [A], "with": ["a=-c 1", "b=-r 5"]}, "is not a rate"),
        ({"target": [A], "with": ["a/b=-c 1", "b=-c 5"]}, "write NAME=VALUE"),
        ({"target": [f"a b={A}", f"b={B}"]}, "not allowed here"),
        ({"target": [f"a={A}", f"b={B}"], "stop": ["b=x"]}, "never started"),
        ({"target": ["a=http://x", f"b={B}"]}, "is not understood"),
    ],
)
def test_what_cannot_be_meant(sides: dict[str, list[str]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        request_of(**sides)  # type: ignore[arg-type]  # one mapping for all the keywords


def test_mistakes_in_a_file_have_their_places(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "scenario: relay\nrepeats: none\ncandidates:\n  a: {target: 'smtp://x', strat: y}\n"
        "  b: {load: {rate: 5, conections: 3}}\n"
    )
    with pytest.raises(ScenarioError) as caught:
        comparison(str(path))
    told = [(problem.line, problem.column, problem.text) for problem in caught.value.problems]
    assert [place[:2] for place in told] == [(2, 10), (4, 27), (5, 20), (5, 23)]
    assert "did you mean 'start'" in told[1][2]
    assert "did you mean 'connections'" in told[3][2]


def test_a_file_and_targets_are_too_much(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"scenario: relay\ncandidates: {{a: {{target: '{A}'}}, b: {{target: '{B}'}}}}\n")
    with pytest.raises(UsageError, match="has candidates of its own"):
        comparison(str(path), target=[f"a={A}", f"b={B}"])


def test_a_metric_that_was_asked_for_must_be_there() -> None:
    with pytest.raises(UsageError, match="nothing is timed as 'mesage'"):
        request_of(told={"metrics": ["mesage.p99"]}, target=[f"a={A}", f"b={B}"])


@pytest.mark.parametrize(
    ("said", "other", "wanted"),
    [
        ({"duration": "30s"}, {"messages": 5}, (5, None, None)),
        ({"messages": 5, "rate": "5/s"}, {"duration": "1s"}, (None, NS_PER_S, (5.0, 5.0))),
        ({"rate": "5/s", "duration": "1s"}, {"rate": "9/s"}, (None, NS_PER_S, (9.0, 9.0))),
        ({"rate": "5/s", "duration": "1s"}, {"stages": [{"for": "3s", "rate": "2/s"}]}, (None, None, None)),
    ],
)
def test_how_long_and_how_fast_are_said_once(said: dict[str, Any], other: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    load = overlaid(Load.model_validate(said), Load.model_validate(other))
    assert (load.messages, load.duration, load.rate) == wanted
