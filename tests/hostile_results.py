"""Made-up results of every kind for tests of reports; the caller chooses the text in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import busy_recorder, result_of

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval
from smtpbench.measure.result import summary
from smtpbench.measure.saved import CAPACITY, CHECK, COMPARISON, FUZZ, RUN, SCHEMAS, Saved
from smtpbench.rules.register import BY_NAME

#: Markup of every format.
HOSTILE = (
    "]]></failure><script>alert(1)</script> |a\\|b`c``d``` @octocat #1 [x](http://evil.example) ::error::boo ##[group]x "
    "\"q\" 'a' & %0A {0} $HOME $(x) <!-- -->"
)
CONTROLS = "\x00\x07\x1b[2J\x1b]0;t\x07\r\n\t\u202e\ud800\udce9\ufffe\u2028::error::boo"


#: Latency of one metric.
METRIC_LATENCY = {"service": summary(Histogram.of([1_000_000, 2_000_000, 3_500_000]))}
#: Name of a rule whose severity is advice.
ADVICE_RULE = next(name for name, rule in BY_NAME.items() if rule.severity == "advice")


def saved(result: dict[str, Any], folder: str = "results/mine") -> Saved:
    """Return a result as if it had been loaded from a folder."""
    kind = next(kind for kind, (schema, _) in SCHEMAS.items() if schema == result["schema"])
    return Saved(kind, result, Path(folder) / "result.json")


def run_result(text: str = "220 mx.example ESMTP", **changes: Any) -> dict[str, Any]:
    """Return a result of `run` with a threshold that passed and one that failed."""
    totals = Interval()
    totals.add(busy_recorder().drain())
    result = result_of(totals, notes=[text])
    result["target"]["banner"] = text
    result["examples"] = {"RCPT 550 5.1.1": text}
    result["errors"] = {text: 3, "reset": 1}
    result["replies"]["RCPT"][text] = 2
    result["latency"][text] = result["latency"]["RCPT"]
    phase = {"messages_per_s": 123.0, "latency": {"message": {"response": summary(Histogram.of([1_000_000, 4_000_000]))}}}
    result["hostile"] = {
        "findings": [finding(text=text)], "rules": {"eod-lf-lf": rule_data("eod-lf-lf", "violation", text)}, "share": 0.2,
        "quiet": phase, "beside": phase, "cases": {"run": 151}, "target_gone": True,
    }  # fmt: skip
    result["thresholds"] = [
        {"threshold": "failed < 99%", "metric": "failed", "unit": "share", "limit": 0.99, "value": 0.16,
         "margin_share": 0.84, "passed": True},
        {"threshold": f"message.p99 < 1ms {text}", "metric": "message.response.p99", "unit": "ms", "limit": 1.0,
         "value": 42.5, "margin_share": -41.5, "passed": False},
    ]  # fmt: skip
    return {**result, **changes}


def rule_data(name: str, verdict: str, actual: str = "") -> dict[str, str]:
    """Return an entry of `rules` for a registered rule."""
    rule = BY_NAME[name]
    return {"verdict": verdict, "severity": rule.severity, "id": rule.id, "section": rule.section,
            "requirement": rule.requirement, "expected": rule.expected, "actual": actual}  # fmt: skip


def finding(rule: str = "eod-lf-lf", text: str = "the server sent 5 replies instead of 1", **changes: Any) -> dict[str, Any]:
    """Return an entry of `findings`."""
    values = {
        "id": f"{rule}-0123abcd", "rule": rule, "severity": BY_NAME[rule].severity, "actual": text, "cause": "",
        "reproducibility": "2 of 2", "hits": 1, "file": f"findings/{rule}-0123abcd.yaml",
        "dialogue": [f"S: {text}", "C: NOOP\\r\\n", "```", "S: 250 ok\\r\\n"],
        "repeat": f"smtpbench check --target smtp://127.0.0.1:2525 {rule}",
    }  # fmt: skip
    return {**values, **changes}


def check_result(text: str = "the server sent 5 replies instead of 1", **changes: Any) -> dict[str, Any]:
    """Return a result of `check` with two violated rules (security and advice) and others of every verdict."""
    rules = {
        "eod-lf-lf": rule_data("eod-lf-lf", "violation", text),
        "rcpt-100": rule_data("rcpt-100", "inconclusive", text),
        "dsn-arguments": rule_data("dsn-arguments", "pass"),
        "tls-inject": rule_data("tls-inject", "not-run"),
        ADVICE_RULE: rule_data(ADVICE_RULE, "violation", text),
    }
    values = {
        "schema": "smtpbench-check/1", "kind": "check", "started": "2026-01-02T03:04:05+00:00", "outcome": "complete",
        "target": {"url": "smtp://127.0.0.1:2525", "banner": text, "extensions": [], "recipient": ""}, "strict": False,
        "rules": rules, "findings": [finding(text=text), finding(ADVICE_RULE, text)],
        "latency": {text: METRIC_LATENCY}, "replies": {}, "enhanced": {}, "errors": {},
        "generator": {"cpu_s": 1.0}, "machine": {}, "versions": {"smtpbench": "1.2.3"},
    }  # fmt: skip
    return {**values, **changes}


def fuzz_result(text: str = "no reply", **changes: Any) -> dict[str, Any]:
    """Return a result of `fuzz` with a finding and one that is in the baseline."""
    findings = [finding("health", text, cause=f"no reply to {text}", hits=7, known=False),
             finding("eod-lf-lf", text, cause="x", known=True)]  # fmt: skip
    values = {
        "schema": "smtpbench-fuzz/1", "kind": "fuzz", "scenario": {"name": text}, "peer": "", "seed": 7, "families": [],
        "cases": {"generated": 400, "run": 300, "confirmed": 2, "may_have_killed_it": 0}, "findings": findings,
        "rules": {"health": rule_data("health", "violation", text), "eod-lf-lf": rule_data("eod-lf-lf", "violation", text)},
    }  # fmt: skip
    base = check_result(text)
    base["target"]["gone"] = False
    return {**base, **values, **changes}


def compared_metric(metric: str = "message.p99", **changes: Any) -> dict[str, Any]:
    """Return an entry of `differences` in which the candidate is slower."""
    values = {"metric": metric, "unit": "ms", "better": "lower", "baseline": "A", "candidate": "B", "baseline_value": 10.0,
              "candidate_value": 12.5, "change": 0.25, "low": 0.2, "high": 0.3, "relative": True, "verdict": "slower",
              "repeats": 8}  # fmt: skip
    return {**values, **changes}


def comparison_result(text: str = "mine", **changes: Any) -> dict[str, Any]:
    """Return a result of `compare`: the candidate is slower than A and violates a rule that A passes, among others."""
    target = {"url": "smtp://127.0.0.1:25", "banner": text, "ehlo": []}
    values = {
        "schema": "smtpbench-comparison/1", "kind": "comparison", "started": "2026-01-02T03:04:05+00:00", "name": text,
        "outcome": {"status": "completed", "reason": ""}, "scenario": {"name": text, "file": "", "sha256": "", "text": ""},
        "plan": {"repeats_done": 8, "duration_s": 5.0, "confidence": 0.95, "paired": True, "method": text},
        "candidates": [{"name": name, "target": target, "options": text, "about": text} for name in ("A", text)],
        "differences": [
            compared_metric(candidate=text),
            compared_metric("throughput", unit="per_s", better="higher", verdict="faster", change=0.1, low=0.05, high=0.2),
            compared_metric(
                "failed", unit="share", relative=False, verdict="no difference shown", change=0.0, low=0.0, high=0.0
            ),
            compared_metric(text, verdict="cannot tell", change=None, low=None, high=None),
        ],
        "rules": {"A": {}, text: {}},
        "rule_differences": [{"rule": "eod-lf-lf", "section": "RFC 5321 §4.1.1.4", "severity": "security",
                              "requirement": text, "verdicts": {"A": "pass", text: "violation"}}],
        "notes": [text], "machine": {}, "versions": {"smtpbench": "1.2.3"},
    }  # fmt: skip
    return {**values, **changes}


def capacity_result(text: str = "the objective", **changes: Any) -> dict[str, Any]:
    """Return a result of `capacity`: 400/s met the objective and 500/s did not."""

    def step(rate: float, held: bool) -> dict[str, Any]:
        objective = {
            "text": f"message.p99 < 10ms {text}",
            "unit": "ms",
            "value": 8.0 if held else 12.0,
            "passed": held,
            "margin": 0.2 if held else -0.2,
        }
        return {"rate_per_s": rate, "held": held, "measured_s": 5.0, "throughput_per_s": rate, "accepted": 5 * rate,
                "rejected": 0, "failed": 0, "dropped": 0, "objectives": [objective], "p50_ms": 1.0, "p99_ms": 8.0,
                "max_ms": 9.0, "limited_by": "" if held else "objective", "why": text}  # fmt: skip

    values = {
        "schema": "smtpbench-capacity/1", "kind": "capacity", "started": "2026-01-02T03:04:05+00:00",
        "outcome": {"status": "completed", "reason": ""}, "scenario": {"name": text, "file": "relay.yaml"},
        "target": {"url": "smtp://127.0.0.1:25", "banner": text, "ehlo": []},
        "plan": {"objectives": [f"message.p99 < 10ms {text}"]},
        "capacity": {"rate_per_s": 400.0, "failed_rate_per_s": 500.0, "precision_share": 0.2, "limited_by": "objective",
                     "reason": text},
        "steps": [step(400.0, held=True), step(500.0, held=False)],
        "generator": {}, "machine": {}, "versions": {"smtpbench": "1.2.3"},
    }  # fmt: skip
    return {**values, **changes}


def server(text: str = "master", **changes: Any) -> dict[str, Any]:
    """Return `server` of a result: a server that died."""
    values = {
        "started_by": "smtpbench", "name": text, "source": "cgroup", "memory": "pss", "window_s": 30.0, "cpu_s": 21.6,
        "cpu_user_s": 15.0, "cpu_system_s": 6.6, "cpu_ms_per_message": 1.42, "cores_share": 0.96,
        "rss_max_bytes": 88_080_384, "rss_growth_bytes_per_hour": -3_250_586.0,
        "rss_growth_interval_bytes_per_hour": [-4_404_019.0, -2_097_152.0], "fds_max": 131, "threads_max": 12,
        "processes_max": 9, "minor_faults": 51_234, "major_faults": 3, "read_bytes": 12_288, "write_bytes": 48_234_496,
        "fsyncs": 7, "voluntary_switches": 98_765, "involuntary_switches": 4_321, "restarts": 1, "deaths": [death(text)],
        "log_lines": [log_line(text)], "log_lines_dropped": 2,
    }  # fmt: skip
    return {**values, **changes}


def death(text: str = "heap-buffer-overflow", **changes: Any) -> dict[str, Any]:
    """Return an entry of `server.deaths`."""
    report = {"kind": text, "summary": text, "frames": [text, "serve"], "lines": [text]}
    values = {"how": "signal 6 (SIGABRT)", "exit_status": None, "signal": 6, "cause": text, "at_s": 12.3, "report": report,
              "last_output": [text], "core_file": text, "restarted_by": "smtpbench"}  # fmt: skip
    return {**values, **changes}


def log_line(text: str = "fatal: no memory", **changes: Any) -> dict[str, Any]:
    """Return an entry of `log_lines`."""
    return {"at_s": 4.5, "source": text, "text": text, **changes}


def _watched(make: Callable[[str], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return a maker of the same result with what is known of the server, in the result and in a finding."""

    def made(text: str = "x") -> dict[str, Any]:
        result = {**make(text), "server": server(text)}
        holder = result["hostile"] if result["kind"] == RUN else result
        holder["findings"][0] |= {"death": death(text), "log_lines": [log_line(text)]}
        return result

    return made


MAKERS = {
    RUN: _watched(run_result), CHECK: _watched(check_result), FUZZ: _watched(fuzz_result),
    COMPARISON: comparison_result, CAPACITY: capacity_result,
}  # fmt: skip
