"""Comparisons from the command line and from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smtpbench.errors import ScenarioError, UsageError
from smtpbench.scenario.comparison import DEFAULT_METRICS, Comparison, overlaid, validate_comparison
from smtpbench.scenario.model import Load
from smtpbench.study.candidates import AccessOptions, CompareRequest, make_request
from smtpbench.study.options import document_of
from smtpbench.supervisor.server_options import Ready, ServerOptions, Watch
from smtpbench.units import NS_PER_S

A, B = "smtp://127.0.0.1:2525", "smtp://127.0.0.1:2526"


def comparison(
    source: str = "relay", settings: dict[str, Any] | None = None, **candidate_options: list[str] | None
) -> tuple[Comparison, Path]:
    options = {name: candidate_options.get(name) for name in ("target", "with", "start", "stop")}
    document, folder = document_of(source, options, settings or {}, "")
    return validate_comparison(document, folder), folder


def request_of(
    source: str = "relay", settings: dict[str, Any] | None = None, **candidate_options: list[str] | None
) -> CompareRequest:
    return make_request(*comparison(source, settings, **candidate_options), AccessOptions(), Path("out"), 7)


def test_targets_of_options_become_candidates() -> None:
    request = request_of(target=[f"old={A}", f"new={B}"])
    assert [(one.name, one.access.target.url) for one in request.candidates] == [("old", A), ("new", B)]
    assert [metric.text for metric in request.metrics] == list(DEFAULT_METRICS)
    plan = request.candidates[0].plan
    assert (plan.duration_ns, plan.warmup_ns, plan.seed) == (5 * NS_PER_S, NS_PER_S, 7)


def test_one_target_is_compared_with_two_sets_of_options() -> None:
    options: Any = {"with": ["few=-c 5 --size 4KiB", "many=-c 50 -r 100/s -d 2s"]}
    few, many = request_of(target=[A], **options).candidates
    assert (few.plan.connections, few.message_bytes, few.options) == (5, 4096, "connections 5, message size 4.00 KiB")
    assert (many.plan.connections, many.plan.open_model, many.access.target.url) == (50, True, A)
    assert many.options == "connections 50, duration 2.00 s, rate 100/s"


def test_commands_apply_to_the_candidate_they_name() -> None:
    one, other = request_of(target=[f"a={A}", f"b={A}"], start=["a=x --y=z", "b=q"], stop=["b=w"]).candidates
    assert (one.server.start, one.server.stop) == ("x --y=z", "")
    assert (other.server.start, other.server.stop) == ("q", "w")


def test_options_override_a_comparison_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("session: [EHLO c.example, QUIT]\nload: {messages: 10}\n")
    (tmp_path / "c.yaml").write_text(
        "scenario: mine.yaml\nload: {connections: 3}\nrepeats: 4\ncandidates:\n"
        f"  a: {{target: '{A}', ca: ca.pem}}\n  b: {{target: '{B}', load: {{messages: 7}}, recipient: r@x.example}}\n"
    )
    request = request_of(str(tmp_path / "c.yaml"), {"repeats": 9, "load": {"connections": 8, "rate": None}})
    assert (request.comparison.repeats, request.file.path) == (9, tmp_path / "mine.yaml")
    one, other = request.candidates
    assert one.access.trust.ca == tmp_path / "ca.pem"
    assert one.server.folder == tmp_path
    # the ten messages of the scenario do not limit the runs of a comparison
    assert (one.plan.connections, one.plan.arrivals, one.plan.duration_ns) == (8, None, 5 * NS_PER_S)
    assert (other.plan.arrivals, other.plan.duration_ns) == (7, None)
    # a scenario without a message has no message latency
    assert [metric.text for metric in request.metrics] == [
        "throughput",
        "transaction.p50",
        "transaction.p99",
        "rejected",
        "failed",
    ]


@pytest.mark.parametrize(
    ("candidate_options", "text"),
    [
        ({}, "no candidates to compare"),
        ({"target": [A]}, "one target needs two sets of options"),
        ({"target": [f"a={A}"]}, "needs two candidates"),
        ({"target": [f"a={A}", f"a={B}"]}, "is used twice"),
        ({"target": [f"a={A}", B]}, "use --(target|with) NAME=VALUE"),
        ({"target": [f"a={A}", f"b={B}"], "start": ["c=x"]}, "unknown candidate 'c'"),
        ({"target": [A], "with": ["a=-c 1", "b=--colour 3"]}, "unrecognized arguments"),
        ({"target": [A], "with": ["a=-c '", "b=-c 3"]}, "No closing quotation"),
        ({"target": [A], "with": ["a=-c 1", "b=-c lots"]}, "whole number"),
        ({"target": [A], "with": ["a=-c 1", "b=-r 5"]}, "is not a rate"),
        ({"target": [A], "with": ["a/b=-c 1", "b=-c 5"]}, "use --(target|with) NAME=VALUE"),
        ({"target": [f"a b={A}", f"b={B}"]}, "not allowed here"),
        ({"target": [f"a={A}", f"b={B}"], "stop": ["b=x"]}, "without a start command"),
        ({"target": ["a=http://x", f"b={B}"]}, "is not a target URL"),
    ],
)
def test_contradictory_or_incomplete_options_are_refused(candidate_options: dict[str, list[str]], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        request_of(**candidate_options)  # type: ignore[arg-type]  # one mapping for all the keywords


def test_mistakes_in_a_file_are_reported_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "scenario: relay\nrepeats: none\ncandidates:\n  a: {target: 'smtp://x', strat: y}\n"
        "  b: {load: {rate: 5, conections: 3}}\n"
    )
    with pytest.raises(ScenarioError) as caught:
        comparison(str(path))
    problems = [(problem.line, problem.column, problem.text) for problem in caught.value.problems]
    assert [place[:2] for place in problems] == [(2, 10), (4, 27), (5, 20), (5, 23)]
    assert "did you mean 'start'" in problems[1][2]
    assert "did you mean 'connections'" in problems[3][2]


def test_targets_with_a_comparison_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"scenario: relay\ncandidates: {{a: {{target: '{A}'}}, b: {{target: '{B}'}}}}\n")
    with pytest.raises(UsageError, match="defines its own candidates"):
        comparison(str(path), target=[f"a={A}", f"b={B}"])


def test_metric_that_the_scenario_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="no latency 'mesage'"):
        request_of(settings={"metrics": ["mesage.p99"]}, target=[f"a={A}", f"b={B}"])


@pytest.mark.parametrize(
    ("load", "other", "expected"),
    [
        ({"duration": "30s"}, {"messages": 5}, (5, None, None)),
        ({"messages": 5, "rate": "5/s"}, {"duration": "1s"}, (None, NS_PER_S, (5.0, 5.0))),
        ({"rate": "5/s", "duration": "1s"}, {"rate": "9/s"}, (None, NS_PER_S, (9.0, 9.0))),
        ({"rate": "5/s", "duration": "1s"}, {"stages": [{"for": "3s", "rate": "2/s"}]}, (None, None, None)),
    ],
)
def test_length_and_rate_are_taken_from_one_load_only(
    load: dict[str, Any], other: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    merged = overlaid(Load.model_validate(load), Load.model_validate(other))
    assert (merged.messages, merged.duration, merged.rate) == expected


def test_candidate_says_how_its_server_is_started_and_watched(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        f"""scenario: relay
candidates:
  a:
    target: {A}
    start: run
    stop: end
    ready: 5s
    ready-when: text:up
    server-log: [a.log]
    log-pattern: oops
  b:
    target: {B}
    watch: unit:postfix
"""
    )
    one, other = request_of(str(tmp_path / "c.yaml")).candidates
    assert one.server == ServerOptions(
        start="run", stop="end", ready=Ready("text", "up"), ready_ns=5 * NS_PER_S, logs=(tmp_path / "a.log",),
        log_pattern="oops", folder=tmp_path,
    )  # fmt: skip
    assert other.server.watch == Watch("unit", "postfix")


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ("start: x, watch: 'pid:1'", "candidate 'a': .* exclude each other; use one"),
        ("ready-when: port", "candidate 'a': `ready-when` is given without a start command; add `start`"),
        (
            "start: x, ready-when: soon",
            "candidate 'a': 'soon' does not say when a server is ready; allowed are greets, port",
        ),
        ("watch: 'x:1'", "candidate 'a': 'x:1' names no process; use pid:N"),
        ("log-pattern: '('", "candidate 'a': .* is not a regular expression"),
    ],
)
def test_mistake_about_the_server_of_a_candidate_is_named(tmp_path: Path, keys: str, mistake: str) -> None:
    text = f"scenario: relay\ncandidates:\n  a: {{target: '{A}', {keys}}}\n  b: {{target: '{B}'}}\n"
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError, match=mistake):
        request_of(str(tmp_path / "c.yaml"))
