"""Made-up results of every kind with the files beside them, the same each time.

A run of ten minutes repeats twelve distinct seconds, slower in the middle, so that it is made quickly.
"""

from __future__ import annotations

import io
import math
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import figures

from smtpbench.measure.files import HLOG, TIMELINE, TIMELINE_COLUMNS, csv_line, hlog_header, hlog_lines, timeline_lines
from smtpbench.measure.health import Health
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval, Latency
from smtpbench.measure.result import domains_section, latency_section, messages_section, save
from smtpbench.measure.saved import CAPACITY, CHECK, COMPARISON, FUZZ, Saved

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
#: Metrics of a complete session with their median, milliseconds.
MEDIANS_MS = {
    "connect": 0.3, "tls": 4.0, "banner": 1.0, "EHLO": 0.5, "STARTTLS": 0.6, "AUTH": 3.0, "MAIL": 0.8, "RCPT": 1.5,
    "DATA": 0.7, "message": 9.0, "transaction": 14.0, "RSET": 0.4, "QUIT": 0.3, "session": 60.0,
}  # fmt: skip
_SECONDS = 12
SCENARIO = "name: relay\nsession:\n  - EHLO {client}\n  - repeat: 100\n    steps:\n      - MAIL FROM:<{sender}>\n"


def _second(generator: random.Random, slowness: float, samples: int) -> Interval:
    interval = Interval()
    for metric, median_ms in MEDIANS_MS.items():
        mu = math.log(median_ms * slowness * figures.MS)
        service = [int(generator.lognormvariate(mu, 0.35 + 0.2 * slowness)) for _ in range(samples)]
        late = [value + int(generator.expovariate(1 / (0.4 * slowness)) * figures.MS) for value in service]
        interval.latencies[metric, True] = Latency(Histogram.of(service), Histogram.of(late))
    interval.latencies["RCPT", False] = Latency(*(Histogram.of([2 * figures.MS] * 3) for _ in range(2)))
    interval.messages = Counter(accepted=samples, rejected=3, failed=int(slowness > 2))
    interval.replies = Counter({("RCPT", 250, "2.1.5", True): samples, ("RCPT", 550, "5.1.1", False): 3,
                                ("message", 250, "2.0.0", True): samples,
                                ("MAIL", 250, "2.1.0", True): samples})  # fmt: skip
    interval.errors = Counter(timeout=1) if slowness > 2 else Counter()
    interval.examples = {"timeout": "while waiting (message)", "RCPT 550 5.1.1": "550 5.1.1 <x@y.example>: unknown"}
    return interval


def _repeated_interval(interval: Interval, times: int) -> Interval:
    """Return an interval as if it had occurred `times` times."""
    found = Interval()
    for name in ("messages", "replies", "errors"):
        setattr(found, name, Counter({key: count * times for key, count in getattr(interval, name).items()}))
    found.examples = interval.examples
    for key, latency in interval.latencies.items():
        found.latencies[key] = Latency(*(_repeated(one, times) for one in (latency.service, latency.response)))
    return found


def _repeated(histogram: Histogram, times: int) -> Histogram:
    count, sum_ns, least, most, beyond, buckets, counts = histogram.to_data()
    return Histogram.from_data(
        [count * times, sum_ns * times, least, most, beyond, buckets, [one * times for one in counts]]
    )


def run_folder(folder: Path, *, seconds: int = 600, samples: int = 150, seed: int = 1, **changes: Any) -> Path:
    """Make the folder of a run with result, timeline and histograms, and return the path of the result.

    Args:
        folder: The folder.
        seconds: Length of the run.
        samples: Messages per second.
        seed: Random seed.
        changes: Sections of the result to replace.
    """
    generator = random.Random(seed)
    pool = [_second(generator, 1 + 1.5 * at / (_SECONDS - 1), samples) for at in range(_SECONDS)]
    lines = ["".join(hlog_lines(figures.tick(one, end_s=1.0))) for one in pool]
    timeline, log, uses = io.StringIO(), io.StringIO(), Counter[int]()
    timeline.write(csv_line(TIMELINE_COLUMNS))
    log.write(hlog_header(STARTED))
    for second in range(seconds):
        at = round((_SECONDS - 1) * math.sin(math.pi * second / seconds) ** 2)
        warm = second < seconds // 20
        uses[at] += not warm
        phase = "warmup" if warm else "steady"
        tick = figures.tick(pool[at], end_s=second + 1.0, phase=phase, connections_open=40 + at)
        timeline.write("".join(timeline_lines(tick)))
        log.write(lines[at].replace(",0.000,", f",{second:.3f},"))
    totals = Interval()
    for at, times in uses.items():
        totals.add(_repeated_interval(pool[at], times))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TIMELINE).write_text(timeline.getvalue())
    (folder / HLOG).write_text(log.getvalue())
    health = Health(cpu_user_s=30.0, cpu_system_s=45.0, busiest_share=0.25, late=Histogram.of([figures.MS]))
    scenario = {"name": "relay", "file": "scenarios/relay.yaml", "sha256": "0" * 64, "text": SCENARIO}
    result = figures.result_of(totals, health=health, window_s=float(seconds), scenario=scenario)
    result["thresholds"] = [threshold(), threshold(threshold="failed < 0.1%", unit="share", passed=True, margin_share=0.4)]
    result["domains"] = domains_section({"gmail.example": pool[0], "bücher.example": pool[1]}, seconds)
    result["hostile"] = hostile(pool[0], pool[-1])
    return save(result | changes, folder)


def death(**changes: Any) -> dict[str, Any]:
    """Return an entry of `server.deaths`: an abort after a report of AddressSanitizer."""
    summary = "AddressSanitizer: heap-buffer-overflow in parse_rcpt"
    report = {"kind": "AddressSanitizer", "summary": summary, "frames": ["parse_rcpt", "handle_line", "serve"],
              "lines": [f"==71==ERROR: {summary}", "    #0 parse_rcpt", "    #1 handle_line"]}  # fmt: skip
    values = {"how": "signal 6 (SIGABRT)", "exit_status": None, "signal": 6, "cause": "AddressSanitizer: parse_rcpt",
              "at_s": 12.3, "report": report, "last_output": ["listening", "==71==ABORTING"], "core_file": "core.71",
              "restarted_by": "smtpbench"}  # fmt: skip
    return values | changes


def server(**changes: Any) -> dict[str, Any]:
    """Return `server` of a result."""
    values = {
        "started_by": "smtpbench", "name": "master", "source": "cgroup", "memory": "pss", "window_s": 30.0, "cpu_s": 21.6,
        "cpu_user_s": 15.0, "cpu_system_s": 6.6, "cpu_ms_per_message": 1.42, "cores_share": 0.36,
        "rss_max_bytes": 88_080_384, "rss_growth_bytes_per_hour": 3_250_586.0,
        "rss_growth_interval_bytes_per_hour": [2_097_152.0, 4_404_019.0], "fds_max": 131, "threads_max": 12,
        "processes_max": 9, "minor_faults": 51_234, "major_faults": 3, "read_bytes": 12_288, "write_bytes": 48_234_496,
        "fsyncs": None, "voluntary_switches": 98_765, "involuntary_switches": 4_321, "restarts": 0, "deaths": [],
        "log_lines": [], "log_lines_dropped": 0,
    }  # fmt: skip
    return values | changes


def log_line(**changes: Any) -> dict[str, Any]:
    """Return an entry of `log_lines`."""
    return {"at_s": 4.5, "source": "/var/log/mail.err", "text": "fatal: queue file write error"} | changes


#: Columns of `server.csv`.
SERVER_COLUMNS = (
    "end_s", "cpu_user_share", "cpu_system_share", "memory_bytes", "processes", "threads", "fds", "read_bytes",
    "write_bytes", "minor_faults", "major_faults", "voluntary_switches", "involuntary_switches", "restarts",
)  # fmt: skip


def server_csv(folder: Path, seconds: int) -> None:
    """Write `server.csv`: CPU time as the load, memory that grows, and a restart in the middle."""
    lines = [csv_line(SERVER_COLUMNS)]
    for second in range(1, seconds + 1):
        load = math.sin(math.pi * second / seconds) ** 2
        restarted = second == seconds // 2
        lines.append(csv_line((
            f"{second:.2f}", f"{0.2 + 0.6 * load:.4f}", f"{0.1 + 0.3 * load:.4f}", 60_000_000 + 40_000 * second, 9, 12,
            80 + round(40 * load), 4096 * (second % 5 == 0), 1_500_000 + round(500_000 * load), 900, 0, 3_000, 150,
            int(restarted),
        )))  # fmt: skip
    (folder / "server.csv").write_text("".join(lines))


def threshold(**changes: Any) -> dict[str, Any]:
    """Return an entry of `thresholds` that failed."""
    values = {"threshold": "message.p99 < 20ms", "metric": "message.response.p99", "unit": "ms", "limit": 20.0,
              "value": 31.5, "margin_share": -0.575, "passed": False}  # fmt: skip
    return values | changes


def finding(**changes: Any) -> dict[str, Any]:
    """Return an entry of `findings`."""
    lines = ["S: 220 mx.example ESMTP\\r\\n", "C: EHLO a.example\\r\\n", "S: 250 mx.example\\r\\n", "(closed)"]
    values = {"id": "eod-lf-lf-1234abcd", "rule": "eod-lf-lf", "severity": "security", "actual": "it took a bare LF",
              "reproducibility": "2 of 2", "hits": 17, "file": "findings/eod-lf-lf-1234abcd.yaml", "dialogue": lines,
              "repeat": "smtpbench replay findings/eod-lf-lf-1234abcd.yaml --target smtp://127.0.0.1:2525"}  # fmt: skip
    return values | changes


def rules(**verdicts: str) -> dict[str, dict[str, str]]:
    """Return `rules` of a result. The verdicts are given by rule name, with `_` for `-`."""
    verdict_of = {"eod_lf_lf": "violation", "helo_first": "pass", "long_line": "inconclusive", "quit_221": "violation",
                  "vrfy": "not-run"} | verdicts  # fmt: skip
    severities = ("security", "violation", "violation", "advice", "warning")
    return {
        name.replace("_", "-"): {
            "verdict": verdict, "severity": severity, "id": f"R-5321-{number}", "section": f"RFC 5321 §4.{number}",
            "requirement": "A line ends with CRLF and with nothing else.", "expected": "5yz", "actual": "250 2.0.0 Ok",
        }
        for number, ((name, verdict), severity) in enumerate(zip(verdict_of.items(), severities, strict=False))
    }  # fmt: skip


def hostile(baseline: Interval, beside: Interval) -> dict[str, Any]:
    """Return `hostile` of a result."""
    phases = {
        name: {"window_s": 300.0, "messages": messages_section(one), "messages_per_s": 450.0,
               "latency": latency_section(one, ok=True)}
        for name, one in (("quiet", baseline), ("beside", beside))
    }  # fmt: skip
    return phases | {
        "share_wanted": 0.05, "share": 0.048, "cases": {"run": 5120}, "findings": [finding()], "rules": rules(),
        "target_gone": True, "latency": {}, "replies": {}, "cpu_s": 3.0,
    }  # fmt: skip


def _base() -> dict[str, Any]:
    run = figures.result_of(figures.busy_recorder(200).drain())
    return {name: run[name] for name in ("started", "machine", "versions", "generator", "scenario", "outcome", "notes")}


def rules_result(kind: str = CHECK, path: str = "check/result.json", **changes: Any) -> Saved:
    """Return a result of `check` or `fuzz`."""
    target = {"url": "smtp://127.0.0.1:2525", "banner": "220 mx.example ESMTP", "extensions": ["8BITMIME", "PIPELINING"],
              "extensions_inside_tls": [], "recipient": "b@mx.example"}  # fmt: skip
    result = _base() | {"schema": f"smtpbench-{kind}/1", "kind": kind, "target": target, "rules": rules(), "strict": False,
                        "findings": [finding()], "latency": {}, "replies": {}, "errors": {}}  # fmt: skip
    if kind == FUZZ:
        result |= {"seed": 1, "cases": {"generated": 1001, "run": 1000, "confirmed": 1, "may_have_killed_it": 2},
                   "outcome": "complete", "target": target | {"gone": True}, "families": ["order", "end"]}  # fmt: skip
    return Saved(kind, result | changes, Path(path))


def compared_metric(**changes: Any) -> dict[str, Any]:
    """Return an entry of `differences`."""
    values = {"metric": "message.p99", "unit": "ms", "better": "lower", "baseline": "old", "candidate": "new",
              "baseline_value": 12.3, "candidate_value": 10.1, "change": -0.18, "low": -0.25, "high": -0.11,
              "relative": True, "verdict": "faster", "repeats": 8}  # fmt: skip
    return values | changes


def comparison(**changes: Any) -> Saved:
    """Return a result of `compare`."""
    sides = [
        {"name": name, "about": "", "target": {"url": f"smtp://127.0.0.1:{port}", "banner": "220 mx", "ehlo": []},
         "options": "", "load": {"connections": 10}, "start": "", "stop": "", "runs": ["runs/01-old"],
         "limited_runs": port - 2525}
        for name, port in (("old", 2525), ("new", 2526))
    ]  # fmt: skip
    generator = random.Random(3)
    figure = {"metric": "message.p99", "unit": "ms", "better": "lower",
              "values": {name: [least + generator.random() for _ in range(8)] for name, least in (("old", 12), ("new", 10))}
             }  # fmt: skip
    same = {"verdict": "no difference shown", "change": 0.004, "low": -0.02, "high": 0.03}
    slower = {"verdict": "slower", "change": 0.09, "low": 0.06, "high": 0.13}
    plan = {"repeats": 8, "repeats_done": 8, "warmup_s": 1.0, "duration_s": 5.0, "confidence": 0.95, "least_share": 0.01,
            "seed": 1, "paired": True, "method": "a studentised bootstrap of trimmed means"}  # fmt: skip
    result = _base() | {
        "schema": "smtpbench-comparison/1", "kind": COMPARISON, "name": "old and new", "about": "", "plan": plan,
        "candidates": sides, "figures": [figure],
        "differences": [compared_metric(),
                        compared_metric(metric="throughput", unit="per_s", baseline_value=450.0, candidate_value=452.0,
                                        **same),
                        compared_metric(metric="RCPT.p50", **slower),
                        compared_metric(metric="failed", unit="share", relative=False, baseline_value=0.0,
                                        candidate_value=0.001, change=0.001, low=-0.0005, high=0.002,
                                        verdict="cannot tell")],
        "rules": {"old": {"eod-lf-lf": "violation"}, "new": {"eod-lf-lf": "pass"}},
        "rule_differences": [{"rule": "eod-lf-lf", "section": "RFC 5321 §4.1.1.4", "severity": "security",
                              "requirement": "Only CRLF.CRLF ends a message.",
                              "verdicts": {"old": "violation", "new": "pass"}}],
    }  # fmt: skip
    return Saved(COMPARISON, result | changes, Path("comparison/result.json"))


def step(rate: float, **changes: Any) -> dict[str, Any]:
    """Return a step of a capacity search on a target that saturates at 1,000 messages per second."""
    held = rate <= 950
    p99 = 4 / max(0.004, 1 - rate / 1005)
    values = {"rate_per_s": rate, "held": held, "measured_s": 10.0, "throughput_per_s": min(rate, 990.0),
              "accepted": int(10 * min(rate, 990.0)), "rejected": 0, "failed": 0, "dropped": int(max(0, rate - 990) * 10),
              "objectives": [{"text": "message.p99 < 100ms", "value": p99, "passed": held, "margin": 0.2}],
              "p50_ms": p99 / 4,
              "p99_ms": p99, "max_ms": p99 * 3, "generator_limited": False,
              "why": "" if held else f"message.p99 < 100ms: {p99:.1f} ms"}  # fmt: skip
    return values | changes


def capacity(**changes: Any) -> Saved:
    """Return a result of `capacity`."""
    found = {"rate_per_s": 950.0, "failed_rate_per_s": 980.0, "precision_share": 0.031, "limited_by": "objective",
             "reason": "message.p99 < 100ms did not hold at 980/s"}  # fmt: skip
    plan = {"objectives": ["message.p99 < 100ms", "failed < 0.1%"], "precision_share": 0.05, "step_s": 10.0,
            "warmup_s": 2.0, "connections": 50, "workers": 1, "max_rate_per_s": None, "seed": 1}  # fmt: skip
    result = _base() | {
        "schema": "smtpbench-capacity/1", "kind": CAPACITY, "plan": plan, "capacity": found,
        "target": {"url": "smtp://127.0.0.1:2525", "banner": "220 mx.example ESMTP", "ehlo": []},
        "steps": [step(rate) for rate in (50.0, 100.0, 200.0, 400.0, 800.0, 1600.0, 1200.0, 1000.0, 900.0, 950.0, 980.0)],
    }  # fmt: skip
    return Saved(CAPACITY, result | changes, Path("capacity/result.json"))
