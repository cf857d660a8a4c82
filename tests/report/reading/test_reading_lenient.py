"""Misshapen results are read without exceptions, and implausible values count as missing."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import saved_results
from figures import busy_recorder, result_of

from smtpbench.measure.saved import FUZZ, RUN, SCHEMAS, Saved
from smtpbench.report.html.page import html_report
from smtpbench.report.reading import formatting, lenient

WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    math.nan,
    math.inf,
    -math.inf,
    1e-300,
    "",
    "\ud800</script>",
    [],
    [None],
    {},
    {"a": [{}]},
    [[1]],
)
EMPTY: tuple[Any, ...] = (None, [], {}, math.nan, True, 2.5)
MAKERS: dict[str, Callable[[], Saved]] = {
    "run": lambda: Saved(RUN, result_of(busy_recorder(300).drain()) | extras(), Path("run/result.json")),
    "closed": lambda: Saved(RUN, result_of(busy_recorder(300).drain(), model="closed"), Path("run/result.json")),
    "fuzz": lambda: saved_results.rules_result(FUZZ, server=saved_results.server(deaths=[saved_results.death()])),
    "comparison": saved_results.comparison,
    "capacity": saved_results.capacity,
}


def extras() -> dict[str, Any]:
    """Return sections that not every run has."""
    interval = busy_recorder(100).drain()
    return {"thresholds": [saved_results.threshold()], "hostile": saved_results.hostile(interval, interval),
            "server": saved_results.server(deaths=[saved_results.death()] * 2, log_lines=[saved_results.log_line()]),
            "domains": {"a.example": {"messages": {"attempted": 3}, "latency": {}}}}  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a result with each of its keys or indices."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@pytest.mark.parametrize("kind", MAKERS)
def test_misshapen_result_still_has_a_page(kind: str) -> None:
    generator = random.Random(kind)
    original = MAKERS[kind]()
    for _ in range(60):
        result = copy.deepcopy(original.result)
        for _ in range(generator.randrange(1, 12)):
            container, key = generator.choice(list(places(result)))
            if generator.random() < 0.2:
                del container[key]
            else:
                container[key] = copy.deepcopy(generator.choice(WRONG))
        for name in SCHEMAS[original.kind][1]:  # `load` rejects a file without these
            if not isinstance(result.get(name), dict):
                result[name] = {}
        page = html_report([Saved(original.kind, result, original.path)])
        assert not {"\ud800", "\x00"} & set(page)
        json.loads(page.partition('id="charts">')[2].partition("</script>")[0], parse_constant=pytest.fail)


@pytest.mark.parametrize(("kind", "names"), [("run", 400), ("fuzz", 3000)])
def test_huge_result_has_a_page_of_limited_size(kind: str, names: int) -> None:
    original = MAKERS[kind]()
    result = dict(original.result)
    for section in ("latency", "replies", "enhanced", "errors", "domains", "examples", "versions", "rules"):
        if result.get(section):
            one = next(iter(result[section].values()))
            result[section] = {f"{section} {number}": one for number in range(names)}
    result["findings"] = [saved_results.finding(dialogue=["S: x"] * 5000)] * 500
    result["notes"] = ["a note"] * 5000
    assert len(html_report([Saved(original.kind, result, original.path)])) < 1_500_000


@pytest.mark.parametrize(
    ("value", "found"),
    [(3, 3), (2.5, 2.5), (-1e15, -1e15), (1e16, None), (10**400, None), (math.nan, None), (math.inf, None), (True, None),
     ("3", None), (None, None)],
)  # fmt: skip
def test_number_is_finite_and_plausible(value: Any, found: float | None) -> None:
    assert lenient.number(value) == found


def test_text_is_one_visible_line_of_limited_length() -> None:
    assert lenient.text("a\r\nb\x1b[31m\u202e\ud800") == "a\\r\\nb\\x1b[31m\\u202e\\ud800"
    assert lenient.text("a\\x1b") == "a\\x1b"  # text of a result has been made visible before
    assert lenient.text("x" * 1000, 10) == "x" * 10 + "…"
    assert len(lenient.text("\x1b" * 1000, 10)) == 11
    assert [lenient.text(value) for value in EMPTY] == ["", "", "", "", "", ""]


def test_lines_keep_line_ends_and_spell_out_other_controls() -> None:
    assert lenient.lines("a:\n\tb\r\nc\rd\x0b\u2028") == "a:\n\tb\nc\\rd\\x0b\\u2028"
    assert lenient.lines("x\n" * 50_000).endswith("x\n\n…")
    assert lenient.lines(7) == ""


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.5, "50 %"),
        (0.123, "12.3 %"),
        (0.00004, "0.004 %"),
        (1e-12, "< 0.000001 %"),
        (-1e-12, "< 0.000001 %"),
        (None, "–"),
    ],
)
def test_only_zero_is_written_as_zero_percent(share: float | None, text: str) -> None:
    assert formatting.format_share(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (1.5, "1.5 s"), (119, "119 s"), (120, "2 min"), (150, "2 min 30 s"), (7260, "2 h 1 min"), (-1, "–")],
)
def test_seconds_are_written_in_minutes_and_hours(value: float, text: str) -> None:
    assert formatting.format_seconds(value) == text
