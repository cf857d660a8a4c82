"""Values that are read from any result are typed, bounded and safe to show."""

from __future__ import annotations

import copy
import math
import random
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hostile_results import CONTROLS, HOSTILE, MAKERS, check_result, compared_metric, comparison_result, run_result, saved

from smtpbench.measure.saved import Saved
from smtpbench.report.reading import capacity, comparison, findings, head, metrics, notes, server
from smtpbench.report.reading.lenient import MAX_FILE_TEXT, MAX_TEXT

READERS: list[Callable[[Saved], Any]] = [
    lambda one: head.heads_of([one, one]), head.scenario_of, head.target_of, head.generator_of, head.machine_of,
    notes.notes_of, head.seed_of, metrics.latencies_of, metrics.thresholds_of, metrics.load_of, metrics.throughput_of,
    metrics.messages_of, lambda one: metrics.counts_of(one, "replies"), metrics.examples_of, metrics.domains_of,
    metrics.hostile_of, metrics.key_figures_of, notes.all_notes_of, findings.rules_of, findings.verdicts_of,
    findings.recorded_findings_of, findings.findings_of, findings.cases_of, findings.peer_of, findings.families_of,
    comparison.title_of, comparison.schedule_of, comparison.candidates_of, comparison.compared_metrics_of,
    comparison.compared_rules_of, comparison.repeated_metrics_of, capacity.capacity_of, capacity.capacity_schedule_of,
    capacity.capacity_steps_of, server.server_of,
]  # fmt: skip
JUNK: list[Any] = [
    None, True, -1, 10**400, math.nan, math.inf, "", CONTROLS, HOSTILE, "x" * 100_000, [], [[]], [1, None], {}, {"": {}},
    {"a": [{"b": 1}]},
]  # fmt: skip
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def leaves(value: Any) -> Iterator[Any]:
    """Yield every text and number of a value."""
    if isinstance(value, Saved):
        return
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from (*leaves(name), *leaves(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def containers(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a result with each of its keys or indices."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from containers(value[key])


@pytest.mark.parametrize("kind", MAKERS)
def test_values_of_misshapen_results_are_typed_and_bounded(kind: str) -> None:
    generator = random.Random(kind)
    for _ in range(20):
        result = copy.deepcopy(MAKERS[kind]())
        for _ in range(generator.randint(1, 8)):
            container, key = generator.choice(list(containers(result)))
            if key not in ("schema", "histogram"):
                container[key] = copy.deepcopy(generator.choice(JUNK))
        for read in READERS:
            for leaf in leaves(read(saved(result))):
                assert leaf is None or isinstance(leaf, str | bool | int | float | Path) or hasattr(leaf, "tzinfo")
                if isinstance(leaf, float):
                    assert math.isfinite(leaf)
                if isinstance(leaf, str) and not leaf.startswith("HIST"):
                    assert len(leaf) <= max(MAX_TEXT, MAX_FILE_TEXT) + MAX_TEXT
                    assert not {unicodedata.category(character) for character in leaf.replace("\n", "")} & UNSAFE


def test_latency_has_its_histogram_with_exact_extremes() -> None:
    result = run_result()
    (latency,) = [
        one
        for one in metrics.latencies_of(saved(result))
        if (one.metric, one.time, one.expected) == ("RCPT", "service", True)
    ]
    data = result["latency"]["RCPT"]["service"]
    histogram = latency.decoded()
    assert histogram is not None
    assert latency.samples == histogram.count == data["count"]
    assert histogram.max_ns == round(data["max_ms"] * 1e6)
    assert latency._replace(histogram="HISTblah").decoded() is None


def test_metrics_are_in_the_order_of_a_session() -> None:
    names = ["QUIT", "message", "my step", "connect", "RCPT", "EHLO"]
    assert sorted(names, key=metrics.metric_order) == ["connect", "EHLO", "RCPT", "my step", "message", "QUIT"]


@pytest.mark.parametrize(
    ("verdict", "severity", "mark", "counts", "counts_if_strict"),
    [
        ("violation", "crash", "CRASH", True, True),
        ("violation", "hang", "HANG", True, True),
        ("violation", "security", "SECURITY", True, True),
        ("violation", "violation", "VIOLATION", True, True),
        ("violation", "warning", "warning", False, False),
        ("violation", "advice", "advice", False, True),
        ("pass", "security", "passed", False, False),
        ("inconclusive", "security", "inconclusive", False, False),
        ("not-run", "security", "not run", False, False),
    ],
)
def test_verdict_has_a_mark_and_counts_by_severity(
    verdict: str, severity: str, mark: str, counts: bool, counts_if_strict: bool
) -> None:
    assert findings.verdict_mark(verdict, severity) == mark
    assert findings.counts_against(verdict, severity, strict=False) is counts
    assert findings.counts_against(verdict, severity, strict=True) is counts_if_strict


def test_violated_rule_without_a_recorded_finding_is_a_finding() -> None:
    result = check_result("it accepted the line", findings=[])
    assert findings.recorded_findings_of(saved(result)) == []
    assert {one.rule for one in findings.findings_of(saved(result))} == {
        name for name, rule in result["rules"].items() if rule["verdict"] == "violation"
    }


def test_sections_are_sorted_by_number_with_appendices_last() -> None:
    sections = ["RFC 6531 §3", "RFC 5321 §F.2", "RFC 5321 §4.10", "RFC 5321 §4.9", "RFC 3207 §4"]
    assert sorted(sections, key=findings.section_order) == [
        "RFC 5321 §4.9", "RFC 5321 §4.10", "RFC 5321 §F.2", "RFC 3207 §4", "RFC 6531 §3",
    ]  # fmt: skip


#: A change of a metric in milliseconds.
CHANGE = {"change": -0.18, "low": -0.25, "high": -0.11}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "-18.0% [-25.0 … -11.0]"),
        ({"change": 0.0001, "low": -0.0002, "high": 0.0003}, "+0.010% [-0.020 … +0.030]"),
        ({"change": 0.0, "low": 0.0, "high": 0.0, "relative": False, "unit": "share"}, "+0.0 pts [+0.0 … +0.0]"),
        ({"change": 0.025, "low": 0.02, "high": 0.03, "relative": False, "unit": "share"}, "+2.5 pts [+2.0 … +3.0]"),
        ({"change": 25, "low": 20, "high": 1030, "relative": False, "unit": "count"}, "+25.0 [+20.0 … +1,030.0]"),
        ({"change": 17.196, "low": 8.44, "high": 34.066}, "+1,720% [+844 … +3,407]"),
        ({"change": None, "low": None, "high": None}, ""),
    ],
)
def test_change_is_written_with_its_interval(changes: dict[str, Any], text: str) -> None:
    (metric,) = comparison.compared_metrics_of(saved(comparison_result(differences=[compared_metric(**CHANGE | changes)])))
    assert metric.change_text == text
