"""Results that were made up or damaged are read leniently: nothing raises, and nothing that was not measured is shown."""

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
from smtpbench.report.reading import lenient as sift

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
    "fuzz": lambda: saved_results.judged(FUZZ),
    "comparison": saved_results.comparison,
    "capacity": saved_results.capacity,
}


def extras() -> dict[str, Any]:
    """Sections that not every run has."""
    interval = busy_recorder(100).drain()
    return {"thresholds": [saved_results.threshold()], "hostile": saved_results.hostile(interval, interval),
            "domains": {"a.example": {"messages": {"attempted": 3}, "latency": {}}}}  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a result with each of its keys or indices."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@pytest.mark.parametrize("kind", MAKERS)
def test_whatever_stands_in_a_result_there_is_a_page(kind: str) -> None:
    draw = random.Random(kind)
    whole = MAKERS[kind]()
    for _ in range(60):
        result = copy.deepcopy(whole.result)
        for _ in range(draw.randrange(1, 12)):
            container, key = draw.choice(list(places(result)))
            if draw.random() < 0.2:
                del container[key]
            else:
                container[key] = copy.deepcopy(draw.choice(WRONG))
        for name in SCHEMAS[whole.kind][1]:  # a file without these is no result, says `load`
            if not isinstance(result.get(name), dict):
                result[name] = {}
        page = html_report([Saved(whole.kind, result, whole.path)])
        assert not {"\ud800", "\x00"} & set(page)
        json.loads(page.partition('id="charts">')[2].partition("</script>")[0], parse_constant=pytest.fail)


@pytest.mark.parametrize(("kind", "names"), [("run", 400), ("fuzz", 3000)])
def test_what_there_is_too_much_of_is_cut(kind: str, names: int) -> None:
    whole = MAKERS[kind]()
    result = dict(whole.result)
    for section in ("latency", "replies", "enhanced", "errors", "domains", "examples", "versions", "rules"):
        if result.get(section):
            one = next(iter(result[section].values()))
            result[section] = {f"{section} {number}": one for number in range(names)}
    result["findings"] = [saved_results.finding(dialogue=["S: x"] * 5000)] * 500
    result["notes"] = ["a note"] * 5000
    assert len(html_report([Saved(whole.kind, result, whole.path)])) < 1_500_000


@pytest.mark.parametrize(
    ("value", "found"),
    [(3, 3), (2.5, 2.5), (-1e15, -1e15), (1e16, None), (10**400, None), (math.nan, None), (math.inf, None), (True, None),
     ("3", None), (None, None)],
)  # fmt: skip
def test_numbers(value: Any, found: float | None) -> None:
    assert sift.number(value) == found


def test_text_is_one_visible_line_and_no_longer_than_it_says() -> None:
    assert sift.text("a\r\nb\x1b[31m\u202e\ud800") == "a\\r\\nb\\x1b[31m\\u202e\\ud800"
    assert sift.text("a\\x1b") == "a\\x1b"  # what a result spells out is not spelled out twice
    assert sift.text("x" * 1000, 10) == "x" * 10 + "…"
    assert len(sift.text("\x1b" * 1000, 10)) == 11
    assert [sift.text(value) for value in EMPTY] == ["", "", "", "", "", "2.5"]


def test_lines_keep_their_ends_and_nothing_else_that_controls() -> None:
    assert sift.lines("a:\n\tb\r\nc\rd\x0b\u2028") == "a:\n\tb\nc\\rd\\x0b\\u2028"
    assert sift.lines("x\n" * 50_000).endswith("x\n\n…")
    assert sift.lines(7) == ""


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
def test_a_share_that_is_not_nothing_does_not_look_like_it(share: float | None, text: str) -> None:
    assert sift.share(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (1.5, "1.5 s"), (119, "119 s"), (120, "2 min"), (150, "2 min 30 s"), (7260, "2 h 1 min"), (-1, "–")],
)
def test_seconds(value: float, text: str) -> None:
    assert sift.seconds(value) == text
