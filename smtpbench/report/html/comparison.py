"""The page of a comparison: what differs, with every interval drawn on one axis, and which rules are broken differently."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from smtpbench.measure.comparison import CANNOT_TELL, NONE, worse
from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Cell, Heading, Notice, Pairs, Section
from smtpbench.report.html.common import UNITS, ending, machine_section, notes_of, scenario_texts, started, status_of, table
from smtpbench.report.html.drawing import interval_svg, scale_svg, strip_svg
from smtpbench.report.reading import lenient as sift
from smtpbench.report.terminal.comparison import change_text
from smtpbench.report.terminal.scorecard import mark
from smtpbench.threshold import format_value

_NUMBERS = ("baseline_value", "candidate_value", "change", "low", "high")
_TEXTS = ("metric", "unit", "better", "baseline", "candidate", "verdict")


def comparison_heading(saved: Saved) -> Heading:
    """Of its page."""
    status, tone, _ = status_of(saved)
    keys = [Cell(_candidate(one), key=at) for at, one in enumerate(sift.records(saved.result.get("candidates"), 20))]
    about = [sift.text(saved.result.get("about")), started(saved)]
    return Heading(
        sift.text(saved.result.get("name"), 120) or "a comparison", status, tone, [one for one in about if one], keys
    )


def comparison_sections(saved: Saved) -> list[Section]:
    """Everything below the heading."""
    sections = [
        Section("What differs", [*_limited(saved), *ending(saved), *notes_of(saved), *_differences(saved)], _how(saved)),
        Section("Every run", list(_figures(saved)), "One dot a round, so what the intervals are made of can be seen."),
        Section("Rules that are broken differently", list(_rules(saved))),
        Section("Candidates", list(_candidates(saved))),
        Section("Scenario", scenario_texts([saved])),
        machine_section([saved]),
    ]
    return [section for section in sections if section.blocks]


def _candidate(side: Mapping[str, Any]) -> str:
    about = [
        sift.text(sift.at(side, "target", "url"), 120),
        *(sift.text(side.get(key), 120) for key in ("options", "about")),
    ]
    return f"{sift.text(side.get('name'), 60)}: {', '.join(one for one in about if one)}"


def _how(saved: Saved) -> str:
    plan = saved.result.get("plan")
    repeats = sift.count(sift.at(plan, "repeats_done"))
    how = f"{repeats} rounds in turns" if sift.at(plan, "paired") is True else f"{repeats} values a side"
    return (
        f"{how}, {sift.seconds(sift.at(plan, 'duration_s'))} a run. All intervals together hold with "
        f"{sift.share(sift.at(plan, 'confidence'), 0)}; ratios nearer to 1 than {sift.share(sift.at(plan, 'least_share'))} "
        "are called no difference. Left of the line is less, right of it is more, by ratio; shares have their own scale."
    )


def _limited(saved: Saved) -> Iterator[Block]:
    for side in sift.records(saved.result.get("candidates"), 20):
        runs = sift.natural(side.get("limited_runs"))
        if runs:
            of = len(sift.entries(side.get("runs"), 10_000)) or runs
            yield Notice(f"{sift.text(side.get('name'), 60)}: GENERATOR LIMITED in {runs:,} of {of:,} runs", (), "bad")


def _sifted(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of `differences` whose every field is of its type."""
    found: dict[str, Any] = {name: sift.text(entry.get(name), 80) for name in _TEXTS}
    found |= {name: sift.number(entry.get(name)) for name in _NUMBERS}
    if found["unit"] not in UNITS:
        found["unit"] = "count"
    if found["low"] is None or found["high"] is None:
        found["change"] = None
    return found | {"relative": entry.get("relative") is True, "repeats": sift.natural(entry.get("repeats"))}


def _differences(saved: Saved) -> Iterator[Block]:
    entries = [_sifted(one) for one in sift.records(saved.result.get("differences"))]
    for (candidate, baseline), found in groupby(entries, key=lambda entry: (entry["candidate"], entry["baseline"])):
        group = list(found)
        ends = [_log(one[end]) for one in group if one["relative"] and one["change"] is not None for end in ("low", "high")]
        # an interval that cannot be told must not make all others invisible
        widest = min(math.log(1e4), max(map(abs, ends), default=0.1) * 1.05 or 0.1)
        rows = [_difference(one, widest) for one in group]
        heads = ["metric", baseline, candidate, "change and its interval", Cell("", drawing=_scale(widest)), "verdict"]
        yield table(heads, rows, caption=f"{candidate} against {baseline}, medians")


def _log(change: float) -> float:
    """Where a relative change is drawn: by the logarithm of the ratio, so that half and double are as far from no change."""
    return math.log1p(max(-0.9999, change))


def _scale(widest: float) -> Markup:
    ratio = math.exp(widest)
    if ratio < 2:
        return scale_svg([f"−{1 - 1 / ratio:.0%}", "0", f"+{ratio - 1:.0%}"])
    return scale_svg([f"1/{ratio:.3g}", "same", f"{ratio:.3g} times"])


def _difference(entry: Mapping[str, Any], widest: float) -> list[Cell | str]:
    values = ["–" if entry[f"{side}_value"] is None else format_value(entry["unit"], entry[f"{side}_value"])
              for side in ("baseline", "candidate")]  # fmt: skip
    word = entry["verdict"]
    tone = "faint" if word == NONE else "warn" if word == CANNOT_TELL else "bad" if worse(entry) else "good"
    drawing = Cell("")
    text = change_text(entry)
    if entry["change"] is not None:
        low, change, high = (entry[name] for name in ("low", "change", "high"))
        reach = max(abs(low), abs(high)) * 1.05 or 1.0
        if entry["relative"]:
            low, change, high, reach = _log(low), _log(change), _log(high), widest
        drawing = Cell("", drawing=interval_svg(low, change, high, (-reach, reach), tone, text))
    return [entry["metric"], *values, text, drawing, Cell(word, tone)]


def _figures(saved: Saved) -> Iterator[Block]:
    rows: list[list[Cell | str]] = []
    for figure in sift.records(saved.result.get("figures"), 40):
        unit = figure.get("unit") if figure.get("unit") in UNITS else "count"
        values = [
            (sift.text(name, 60), [value for value in map(sift.number, sift.entries(found)) if value is not None])
            for name, found in sift.items(figure.get("values"), 20)
        ]
        every = [value for _, found in values for value in found]
        if not every:
            continue
        ends = (min(every), max(every))
        for at, (name, found) in enumerate(values):
            metric = sift.text(figure.get("metric"), 80) if at == 0 else ""
            span = f"{format_value(str(unit), min(found))} … {format_value(str(unit), max(found))}" if found else "–"
            drawing = strip_svg(found, ends, at, f"{name}: {len(found)} values")
            rows.append([metric, Cell(name, key=at), Cell("", drawing=drawing), Cell(span, number=True)])
    if rows:
        yield table(["metric", "candidate", "", "least … greatest"], rows, numbers=9)


def _rules(saved: Saved) -> Iterator[Block]:
    if not sift.at(saved.result, "rules"):
        return
    found = sift.records(saved.result.get("rule_differences"))
    if not found:
        yield Notice("They break the same rules.", (), "good")
        return
    names = list(dict.fromkeys(name for entry in found for name, _ in sift.items(entry.get("verdicts"), 20)))[:20]
    rows: list[list[Cell | str]] = []
    for entry in found:
        cells = [_verdict(sift.at(entry, "verdicts", name), entry.get("severity")) for name in names]
        rows.append(
            [
                Cell(sift.text(entry.get("rule"), 80)),
                sift.text(entry.get("section"), 60),
                *cells,
                sift.text(entry.get("requirement")),
            ]
        )
    yield table(["rule", "section", *(sift.text(name, 60) for name in names), "what is required"], rows, numbers=99)


def _verdict(verdict: Any, severity: Any) -> Cell:
    word = mark({"verdict": sift.text(verdict, 40) or "not-run", "severity": sift.text(severity, 40)})
    tone = (
        "good"
        if word == "pass"
        else "bad"
        if word in ("SECURITY", "VIOLATION")
        else "warn"
        if word in ("warning", "advice")
        else "faint"
    )
    return Cell({"?": "inconclusive", "-": "not run"}.get(word, word), tone)


def _candidates(saved: Saved) -> Iterator[Block]:
    for side in sift.records(saved.result.get("candidates"), 20):
        load: Any = side.get("load")
        runs: Sequence[str] = sift.texts(side.get("runs"), 120)
        pairs = [
            ("candidate", sift.text(side.get("name"), 60)),
            ("about", sift.text(side.get("about"))),
            ("target", sift.text(sift.at(side, "target", "url"))),
            ("greeting", sift.text(sift.at(side, "target", "banner"))),
            ("options", sift.text(side.get("options"))),
            ("started by", sift.text(side.get("start"))),
            ("connections", sift.count(sift.at(load, "connections")) if load else ""),
            ("runs", f"{len(runs):,}: {runs[0]} …" if runs else ""),
        ]
        yield Pairs([(name, value) for name, value in pairs if value])
    method = sift.text(sift.at(saved.result, "plan", "method"), 1000)
    if method:
        yield Notice(f"How the intervals were made: {method}")
