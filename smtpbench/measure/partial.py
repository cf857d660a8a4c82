"""What a command has found so far: `result.partial.json`, which a command that is killed leaves and a result replaces.

`check`, `fuzz`, `compare` and `capacity` write the result that they would have if they ended now, as they find something.
`run` writes its file before the load begins, and after a death of the server; what it measures is in `timeline.csv`,
`histograms.hlog` and `server.csv`, of which `rebuilt_run` makes the rest of the result.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from smtpbench.errors import UsageError
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import MESSAGE_COUNTS, Interval, Latency
from smtpbench.measure.result import latency_section, messages_section, throughput_section
from smtpbench.measure.server_usage import rebuilt_section
from smtpbench.measure.thresholds import Figures, evaluate
from smtpbench.threshold import OUTCOMES, Threshold, parse_threshold

#: Name of the file; the name of the result's own file would be taken for a finished result.
PARTIAL: Final = "result.partial.json"
KILLED: Final = "killed"
RUNNING: Final = "running"
REASONS: Final = {
    KILLED: "the command was killed; this is what it had found until then",
    RUNNING: "the command has not ended; this is what it has found so far",
}
#: Note of a result that was put together from the files of a run.
RUN_NOTE: Final = (
    "Counts and latencies are those of timeline.csv and histograms.hlog, up to the last second that was written. Replies, "
    "recipients and kinds of errors were not written."
)
#: A row belongs to the sending window if it ends at most this long after it, as in `load.meter`.
_ROW_TOLERANCE_S: Final = 0.5
#: Kind of the errors whose kind is not known.
_UNKNOWN_ERROR: Final = "unknown"


def save_partial(result: Mapping[str, Any], folder: Path) -> None:
    """Write what a command has found so far. A file that cannot be written is no reason to end: the result comes later."""
    whole = isinstance(result.get("outcome"), Mapping)
    outcome = {"status": KILLED, "reason": REASONS[KILLED]} if whole else KILLED
    partial = folder / f".{PARTIAL}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**result, "outcome": outcome}, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        partial.replace(folder / PARTIAL)
    except OSError:
        with suppress(OSError):
            partial.unlink()  # it takes the space that the result will need


def remove_partial(folder: Path) -> None:
    """Remove the file: the result is written."""
    with suppress(OSError):
        (folder / PARTIAL).unlink(missing_ok=True)


def is_locked(folder: Path) -> bool:
    """Return whether a command that runs now writes into a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def rebuilt_run(
    result: Mapping[str, Any],
    timeline: Iterable[Mapping[str, float | str | None]],
    histograms: Iterable[tuple[str, str, bool, Histogram]],
    server_rows: Iterable[Mapping[str, float | None]] = (),
) -> dict[str, Any]:
    """Return the result of a run that was killed.

    Args:
        result: What was written before the load began.
        timeline: Rows of `timeline.csv`.
        histograms: Metric, time, whether the replies were expected, and histogram of each line of `histograms.hlog`.
        server_rows: Rows of `server.csv`.
    """
    totals, warmup, end_s, open_peak, lag_ms = Interval(), Counter[str](), 0.0, 0, 0.0
    warmup_s, planned_s = float(result["load"]["warmup_s"]), _planned_sending_s(result["load"])
    for row in timeline:
        counts = {name: _natural(row.get(name)) for name in (*MESSAGE_COUNTS, "errors")}
        row_end_s = float(row.get("t_s") or 0.0)
        end_s = max(end_s, row_end_s)
        open_peak = max(open_peak, _natural(row.get("connections_open")))
        lag_ms = max(lag_ms, float(row.get("loop_lag_ms") or 0.0))
        if row.get("phase") == "warmup":
            warmup.update(counts)
        else:
            totals.messages.update({name: counts[name] for name in MESSAGE_COUNTS})
            if row.get("phase") == "drain" or row_end_s > warmup_s + planned_s + _ROW_TOLERANCE_S:
                totals.accepted_late += counts["accepted"]
            totals.errors.update({_UNKNOWN_ERROR: counts["errors"]} if counts["errors"] else {})
    for metric, time, ok, histogram in histograms:
        latency = totals.latencies.setdefault((metric, ok), Latency(Histogram(), Histogram()))
        (latency.service if time == "service" else latency.response).add(histogram)
    window_s = max(0.0, end_s - warmup_s)
    sending_s = min(window_s, planned_s)
    generator = {**result["generator"], "connections_peak": open_peak, "loop_lag_max_ms": lag_ms}
    server = result.get("server")
    if isinstance(server, Mapping):
        server = rebuilt_section(server, server_rows, from_s=warmup_s, messages=totals.messages["accepted"])
    figures = Figures(totals, window_s, generator, sending_s=sending_s, server=server)
    return {
        **result,
        "load": {
            **result["load"],
            "window_s": window_s,
            "sending_s": sending_s,
            "draining_s": window_s - sending_s,
        },
        "messages": messages_section(totals),
        "throughput": throughput_section(totals, sending_s),
        "latency": latency_section(totals, ok=True),
        "latency_failed": latency_section(totals, ok=False),
        "errors": dict(totals.errors),
        "generator": generator,
        **({"server": server} if server is not None else {}),
        "warmup": {"messages": messages_section(Interval(warmup))},
        "thresholds": [_evaluated(one, figures) for one in result.get("thresholds", [])],
        "notes": [*result.get("notes", []), RUN_NOTE],
    }


def _planned_sending_s(load: Mapping[str, Any]) -> float:
    """Return how long a run was to send, after the warm-up, seconds; infinite if a number of arrivals was to end it."""
    # a run that has not begun states the length that was planned, or 0 where it depends on what happens
    return float(load.get("sending_s") or load.get("duration_s") or math.inf)


def _evaluated(entry: Mapping[str, Any], figures: Figures) -> Mapping[str, Any]:
    """Return the entry of a threshold with its value; one on what was not written fails, as any without data does."""
    with suppress(UsageError):
        threshold: Threshold = parse_threshold(str(entry.get("threshold")))
        known = threshold.latency_name or threshold.path[0] in ("throughput", "server", *OUTCOMES)
        if known and not threshold.domain:
            (evaluated,) = evaluate([threshold], figures)
            return evaluated.to_data()
    return entry


def _natural(value: float | str | None) -> int:
    return max(0, int(value)) if isinstance(value, float) else 0
