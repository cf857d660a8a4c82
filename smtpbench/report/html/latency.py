"""Latency of runs: percentile curves on the nines axis for every slot, and the table of all slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Cell, Plot, Section
from smtpbench.report.html.common import label_of, table
from smtpbench.report.html.curves import Chart, percentile_curve
from smtpbench.report.html.drawing import chart_svg
from smtpbench.report.reading import lenient as sift
from smtpbench.report.terminal.tables import metric_order

#: Slots that are shown, and curves of them: results may hold any number.
SLOTS: Final = 40
_CURVES = 24
_COLUMNS = ("min", "p50", "p90", "p95", "p99", "p99_9", "max")
_BIG = ("message", "transaction", "session")


def latency_section(runs: Sequence[Saved]) -> Section:
    """Curves first, then the figures."""
    slots = slots_of(runs)
    big = next((slot for slot in _BIG if slot in slots), slots[0] if slots else "")
    ordered = [big, *(slot for slot in slots if slot != big)] if slots else []
    blocks: list[Block] = []
    for slot in ordered[:_CURVES]:
        chart = _chart(runs, slot)
        if chart is not None:
            size = "small" if blocks else "wide"
            blocks.append(Plot(chart, chart_svg(chart, size), size))
    blocks += _tables(runs, slots)
    about = "Time below which a percentage of the samples lies; every further nine is as wide as the one before. "
    about += (
        "Response time counts from when an arrival was meant to begin, service time from when it was written."
        if any(sift.at(run.result, "load", "model") == "open" for run in runs)
        else "Service time: from what was written to the reply."
    )
    return Section("Latency", blocks, about)


def slots_of(runs: Sequence[Saved]) -> list[str]:
    """The slots of all, in the order of a session."""
    return sorted({slot for run in runs for slot, _ in sift.items(run.result.get("latency"), SLOTS)}, key=metric_order)


def _chart(runs: Sequence[Saved], slot: str) -> Chart | None:
    curves: list[tuple[str, int, str, Histogram]] = []
    for at, run in enumerate(runs):
        is_open = sift.at(run.result, "load", "model") == "open"
        kinds = (("response", ""), ("service", "dashed")) if is_open else (("service", ""),)
        for number, (time, look) in enumerate(kinds):
            found = sift.histogram(sift.at(run.result, "latency", slot, time))
            if found is not None:
                name = f"{label_of(run)}, {time}" if len(runs) > 1 else time
                curves.append((name, at if len(runs) > 1 else number, look or "line", found))
    return percentile_curve(sift.text(slot, 60), curves)


def _tables(runs: Sequence[Saved], slots: Sequence[str]) -> Iterator[Block]:
    for section, words in (("latency", "as expected"), ("latency_failed", "not as expected")):
        for time in ("service", "response"):
            if time == "response" and not any(sift.at(run.result, "load", "model") == "open" for run in runs):
                continue
            rows = list(_rows(runs, section, time))
            if rows:
                heads = [
                    "slot",
                    *(["run"] if len(runs) > 1 else []),
                    "count",
                    *(name.replace("_", ".") for name in _COLUMNS),
                ]
                numbers = 2 if len(runs) > 1 else 1
                yield table(heads, rows, caption=f"{time} time, replies {words}", numbers=numbers)


def _rows(runs: Sequence[Saved], section: str, time: str) -> Iterator[list[Cell | str]]:
    slots = sorted({slot for run in runs for slot, _ in sift.items(run.result.get(section), SLOTS)}, key=metric_order)
    for slot in slots:
        for at, run in enumerate(runs):
            times: Any = sift.at(run.result, section, slot, time)
            if times is not None:
                who = [Cell(label_of(run), key=at)] if len(runs) > 1 else []
                figures = (sift.ms(sift.at(times, f"{name}_ms")) for name in _COLUMNS)
                yield [sift.text(slot, 60), *who, sift.count(sift.at(times, "count")), *figures]
