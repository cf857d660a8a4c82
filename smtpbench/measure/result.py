"""`result.json`: what a run measured, with a version and with a unit in every key (schema: `smtpbench schema result`)."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from smtpbench import __version__
from smtpbench.measure.censoring import is_lower_bound
from smtpbench.measure.health import Health, cpu_times_s, limit_reasons, machine, moved_percentiles, peak_rss_bytes
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import MESSAGE_COUNTS, Interval, Latency

#: Increases when programs that read results must change; `result.schema.json` describes this version.
VERSION = 1
SCHEMA = f"smtpbench-result/{VERSION}"
_PERCENTS = {"p50_ms": 50.0, "p90_ms": 90.0, "p95_ms": 95.0, "p99_ms": 99.0, "p99_9_ms": 99.9}


def summary(histogram: Histogram, censored: Histogram | None = None) -> dict[str, Any]:
    """Return `latency.<metric>.service`: count, milliseconds, and the whole histogram in the encoding of HdrHistogram.

    Args:
        histogram: All samples.
        censored: Those of them that are lower bounds, of replies that did not come; None if there are none.
    """
    found = histogram.percentiles_ms(_PERCENTS.values())
    return {
        "count": histogram.count,
        "min_ms": histogram.min_ns / 1e6,
        "mean_ms": histogram.sum_ns / histogram.count / 1e6 if histogram.count else 0.0,
        **{name: found[percent] for name, percent in _PERCENTS.items()},
        "max_ms": histogram.max_ns / 1e6,
        "out_of_range": histogram.out_of_range,
        "histogram": histogram.encode(),
        **_bounds(histogram, censored),
    }


def _bounds(histogram: Histogram, censored: Histogram | None) -> dict[str, Any]:
    """Return the keys of a summary that say which of its statistics are lower bounds."""
    if censored is None or not censored.count:
        return {"censored": 0, "lower_bounds": []}
    marked = [name for name, percent in _PERCENTS.items() if is_lower_bound(histogram, censored, percent)]
    return {
        "censored": censored.count,
        "lower_bounds": ["mean_ms", *marked, "max_ms"],
        "censored_histogram": censored.encode(),
    }


def latency_section(totals: Interval, ok: bool) -> dict[str, Any]:
    """Return service and response time of every metric, of the expected replies (`ok`) or of the unexpected ones."""
    return {
        metric: _times(latency, totals.censored.get(metric) if ok else None)
        for (metric, expected), latency in sorted(totals.latencies.items())
        if expected is ok
    }


def _times(latency: Latency, bounds: Latency | None) -> dict[str, Any]:
    if bounds is None:
        return {"service": summary(latency.service), "response": summary(latency.response)}
    return {
        "service": summary(latency.service, bounds.service),
        "response": summary(latency.response, bounds.response),
    }


def messages_section(totals: Interval) -> dict[str, int]:
    """Return the number of messages of each outcome, and `attempted`, their sum."""
    counts = {name: totals.messages[name] for name in MESSAGE_COUNTS}
    return {"attempted": sum(counts.values()), **counts}


def replies_section(totals: Interval) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """Return counts by verb and code, and by verb and code with enhanced code; a reply without code is `malformed`."""
    codes: dict[str, Counter[str]] = {}
    enhanced: dict[str, Counter[str]] = {}
    for (verb, code, status, _), count in sorted(totals.replies.items()):
        text = str(code) if code else "malformed"
        codes.setdefault(verb, Counter())[text] += count
        if status:
            enhanced.setdefault(verb, Counter())[f"{text} {status}"] += count
    return {verb: dict(found) for verb, found in codes.items()}, {verb: dict(found) for verb, found in enhanced.items()}


def domains_section(domains: Mapping[str, Interval], sending_s: float) -> dict[str, dict[str, Any]]:
    """Return `domains`: what was counted for each recipient domain."""
    return {domain: _domain_section(counted, sending_s) for domain, counted in domains.items()}


def throughput_section(counted: Interval, sending_s: float) -> dict[str, Any]:
    """Return `throughput`: the messages that were accepted in the sending window, and how many a second."""
    messages = counted.accepted_while_sending
    return {"messages_per_s": messages / sending_s if sending_s else 0.0, "messages": messages}


def _domain_section(counted: Interval, sending_s: float) -> dict[str, Any]:
    accepted, rejected = counted.recipients()
    return {
        "messages": messages_section(counted),
        "recipients": {"accepted": accepted, "rejected": rejected},
        "throughput": throughput_section(counted, sending_s),
        "latency": latency_section(counted, ok=True),
        "latency_failed": latency_section(counted, ok=False),
        "replies": replies_section(counted)[0],
        "errors": dict(counted.errors),
    }


def generator_section(health: Health, totals: Interval, window_s: float, *, closed_model: bool) -> dict[str, Any]:
    """Return `generator`: what the generator used, how late it was, and whether it was the bottleneck."""
    reasons = limit_reasons(health, totals.errors, closed_model=closed_model)
    late = health.late.percentiles_ms([50, 99])
    return {
        "cpu_s": health.cpu_user_s + health.cpu_system_s,
        "cpu_user_s": health.cpu_user_s,
        "cpu_system_s": health.cpu_system_s,
        "cpu_share_of_window": (health.cpu_user_s + health.cpu_system_s) / window_s if window_s else 0.0,
        "busiest_worker_share": health.busiest_share,
        "starved_worker_share": health.starved_share,
        "starved_by_others_share": health.starved_by_others_share,
        "limited": bool(reasons),
        "limited_reasons": reasons,
        "late_p50_ms": late[50],
        "late_p99_ms": late[99],
        "late_max_ms": health.late.max_ns / 1e6,
        "read_delay": _read_delay_section(health.read_delay, totals),
        "clock_steps": health.clock_steps,
        "loop_lag_max_ms": health.loop_lag_max_ms,
        "arrivals_waited": health.waited,
        "arrivals_waited_by_worker": [
            health.waited_by_worker[at] for at in range(max(health.waited_by_worker, default=-1) + 1)
        ],
        "peak_rss_bytes": health.peak_rss_bytes,
        "connections_peak": health.connections_peak,
        "descriptor_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def _read_delay_section(read_delay: Histogram, totals: Interval) -> dict[str, Any]:
    """Return `generator.read_delay`."""
    found = read_delay.percentiles_ms([50, 99])
    return {
        "count": read_delay.count,
        "p50_ms": found[50],
        "p99_ms": found[99],
        "max_ms": read_delay.max_ns / 1e6,
        "would_add": moved_percentiles(read_delay, totals),
    }


def common_sections(totals: Interval, started: tuple[float, float, float], connections_peak: int) -> dict[str, Any]:
    """Return the sections that the results of `check` and `fuzz` share with those of `run`.

    Args:
        totals: What was counted.
        started: Time (`time.monotonic`) and CPU times (`cpu_times_s`) at the start.
        connections_peak: Most connections open at once.
    """
    now = (time.monotonic(), *cpu_times_s())
    window_s, user_s, system_s = (after - before for after, before in zip(now, started, strict=True))
    health = Health(user_s, system_s, connections_peak=connections_peak, peak_rss_bytes=peak_rss_bytes())
    replies, enhanced = replies_section(totals)
    return {
        "latency": latency_section(totals, ok=True),
        "replies": replies,
        "enhanced": enhanced,
        "errors": dict(totals.errors),
        "generator": generator_section(health, totals, window_s, closed_model=True),
    }


def versions() -> dict[str, str]:
    """Return `versions`: the programs that the measurements may depend on."""
    return {
        "smtpbench": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("trio", "hdrhistogram")},
        "openssl": ssl.OPENSSL_VERSION,
        "os": _os_name(),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def build(
    *,
    run_id: str,
    started: str,
    scenario: dict[str, Any],
    target: dict[str, Any],
    load: dict[str, Any],
    seed: int,
    outcome: dict[str, str],
    totals: Interval,
    warmup: Interval,
    health: Health,
    window_s: float,
    notes: list[str],
    sending_s: float | None = None,
) -> dict[str, Any]:
    """Return the result of a run; `result.schema.json` describes its sections.

    Text from the server must have been made printable before (`text.visible`).

    Args:
        run_id: Identifier of the run.
        started: Start of the run, ISO 8601.
        scenario: `scenario` of the result.
        target: `target` of the result.
        load: `load` of the result, without `window_s`.
        seed: Random seed.
        outcome: `outcome` of the result.
        totals: What was counted in the measured window.
        warmup: What was counted before the measured window.
        health: What the generator used.
        window_s: Length of the measured window, seconds.
        notes: Sentences for the reader of the result.
        sending_s: Length of the part of the window in which arrivals were issued, seconds; None for all of it.
    """
    sending_s = window_s if sending_s is None else sending_s
    accepted, rejected = totals.recipients()
    replies, enhanced = replies_section(totals)
    closed_model = load["model"] == "closed"
    return {
        "schema": SCHEMA,
        "kind": "run",
        "run_id": run_id,
        "started": started,
        "outcome": outcome,
        "scenario": scenario,
        "target": target,
        "load": {
            **load,
            "window_s": window_s,
            "sending_s": sending_s,
            "draining_s": max(0.0, window_s - sending_s),
        },
        "seed": seed,
        "messages": messages_section(totals),
        "recipients": {"accepted": accepted, "rejected": rejected},
        "throughput": throughput_section(totals, sending_s),
        "latency": latency_section(totals, ok=True),
        "latency_failed": latency_section(totals, ok=False),
        "replies": replies,
        "enhanced": enhanced,
        "errors": dict(totals.errors),
        "examples": totals.examples,
        "warmup": {"messages": messages_section(warmup)},
        "generator": generator_section(health, totals, window_s, closed_model=closed_model),
        "notes": notes,
        "machine": machine(),
        "versions": versions(),
    }


def to_text(result: dict[str, Any]) -> str:
    """Return the content of `result.json`."""
    return json.dumps(result, indent=2, ensure_ascii=False) + "\n"


ReportError = Callable[[OSError], None]


def save(result: dict[str, Any], folder: Path, report_error: ReportError = lambda error: None) -> Path:
    """Write `result.json` to a folder or, if that fails, to a new temporary folder; return its path.

    The file is written completely or not at all.

    Args:
        result: Content of the file.
        folder: Folder of the result; it is made if there is none.
        report_error: Called with the error if the folder cannot be written.

    Raises:
        OSError: Neither folder can be written.
    """
    text = to_text(result)
    try:
        return _write_atomically(text, folder / "result.json")
    except OSError as error:
        path = _write_atomically(text, _temporary_folder() / "result.json")
        report_error(error)
        return path


def save_findings(files: Iterable[tuple[str, str]], folder: Path, report_error: ReportError = lambda error: None) -> Path:
    """Write each (name, text) as `<name>.yaml` to a folder or, once that fails, to one of its name in a temporary folder.

    Each file is written completely or not at all.

    Args:
        files: Names and texts.
        folder: Folder of the findings; it is made if there is none.
        report_error: Called with the error if the folder cannot be written.

    Returns:
        The folder in which the last one was written.

    Raises:
        OSError: Neither folder can be written.
    """
    moved = False
    for name, text in files:
        try:
            save_finding(name, text, folder)
        except OSError as error:
            if moved:
                raise
            folder, moved = _temporary_folder() / folder.name, True
            save_finding(name, text, folder)
            report_error(error)
    return folder


def save_finding(name: str, text: str, folder: Path) -> None:
    """Write `folder/<name>.yaml`, completely or not at all. Raises OSError."""
    _write_atomically(text, folder / f"{name}.yaml", sync=False)


def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="smtpbench-"))


def _write_atomically(text: str, path: Path, *, sync: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        # a path may contain octets that are not UTF-8: the lone surrogate for each is written as JSON escape
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as out:
            out.write(text)
            out.flush()
            if sync:
                os.fsync(out.fileno())
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    return path
