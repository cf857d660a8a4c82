"""The third part of a run: put `result.json` together from the record of the run."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import Any

from smtpbench.engine.api import NEVER
from smtpbench.load.execute import COULD_NOT_RUN, RunRecord
from smtpbench.load.plan import LoadPlan
from smtpbench.measure import result as results
from smtpbench.measure.health import Health, shared_cores_note
from smtpbench.measure.notes import nothing_accepted_note, silence_note
from smtpbench.measure.recorder import Interval
from smtpbench.smtp.reply import ReplyReader
from smtpbench.text import plural, visible
from smtpbench.units import NS_PER_S

#: Share of the arrivals that must have waited to be worth a note with several workers; p99 is changed by twice as many.
_NOTABLE_SHARE = 0.005


def build(record: RunRecord) -> dict[str, Any]:
    """Return the result of a run. It reads no clock, sends nothing and does not change the record."""
    request, collector = record.prepared.request, record.collector
    plan = request.plan
    measured_ns = max(0, record.end_ns - collector.start_ns - plan.warmup_ns)
    window_s = measured_ns / NS_PER_S
    sending_s = _sending_ns(record, measured_ns) / NS_PER_S
    silences = collector.silences()
    health = record.health
    server = record.server.section(collector.totals.messages["accepted"]) if record.server is not None else None
    examples = {visible(kind): visible(text) for kind, text in collector.totals.examples.items()}
    result = results.build(
        run_id=record.prepared.job.run_id,
        started=record.prepared.started.isoformat(timespec="milliseconds"),
        scenario=request.file.to_data(),
        target=_target_section(record),
        load=_load_section(plan, request.message_bytes),
        seed=plan.seed,
        outcome={"status": record.status, "reason": visible(record.reason)},
        totals=replace(collector.totals, examples=examples),
        warmup=collector.warmup,
        health=health,
        window_s=window_s,
        sending_s=sending_s,
        notes=[
            *(silence_note(*silence) for silence in silences),
            *_nothing_accepted(collector.totals),
            *_separate_queues(plan, collector.health),
            *(record.server.notes() if record.server is not None else ()),
            *filter(None, [shared_cores_note(health, len(os.sched_getaffinity(0)))]),
            *_notes(record),
            *record.notes,
        ],
    )
    if silences:
        result["silences"] = [{"from_s": begin_s, "to_s": end_s} for begin_s, end_s in silences]
    if server is not None:
        result["server"] = server
    result["thresholds"] = request.monitor.results(collector, plan, window_s, sending_s, health, server)
    if record.lost_workers:
        result["lost_workers"] = [worker.to_data(planned) for worker, planned in record.lost_workers]
    if record.hostile is not None:
        result["hostile"] = _hostile_section(record, record.hostile, measured_ns)
    if request.monitor.domains:
        by_domain = {domain: collector.domains.get(domain, Interval()) for domain in request.monitor.domains}
        result["domains"] = results.domains_section(by_domain, sending_s)
    return result


def _sending_ns(record: RunRecord, measured_ns: int) -> int:
    """Return the length of the sending window: as planned, or until the arrivals were stopped, or until all had ended."""
    plan, start_ns = record.prepared.request.plan, record.collector.start_ns + record.prepared.request.plan.warmup_ns
    if plan.sending_ns == NEVER:
        return measured_ns
    if record.sending_end_ns is not None:
        return max(0, min(plan.sending_ns, measured_ns, record.sending_end_ns - start_ns))
    all_lost = len(record.lost_workers) == plan.workers
    ended_early = record.status == COULD_NOT_RUN or all_lost or (plan.arrivals is not None and not plan.open_model)
    return min(plan.sending_ns, measured_ns) if ended_early else plan.sending_ns


def _target_section(record: RunRecord) -> dict[str, Any]:
    found = record.preflight
    return {
        "url": record.prepared.request.target.url,
        "banner": visible(found.banner.rstrip(b"\r\n")) if found else "",
        "ehlo": [visible(line) for reply in ReplyReader().feed(found.ehlo) for line in reply.lines] if found else [],
    }


def _load_section(plan: LoadPlan, message_bytes: int | None) -> dict[str, Any]:
    stages = [
        {
            "duration_s": stage.duration_ns / NS_PER_S,
            "rate_from_per_s": stage.rate_from_per_s,
            "rate_to_per_s": stage.rate_to_per_s,
        }
        for stage in plan.stages
    ]
    return {
        "model": "open" if plan.open_model else "closed",
        "connections": plan.connections,
        "arrivals": plan.arrivals,
        "duration_s": None if plan.issuing_ns == NEVER else (plan.issuing_ns - plan.warmup_ns) / NS_PER_S,
        "stages": stages,
        "arrival_process": ("poisson" if plan.poisson else "uniform") if plan.open_model else None,
        "when_busy": ("drop" if plan.drop else "wait") if plan.open_model else None,
        "warmup_s": plan.warmup_ns / NS_PER_S,
        "drain_s": plan.drain_ns / NS_PER_S,
        "timeout_s": plan.timeout_ns / NS_PER_S,
        "workers": plan.workers,
        "quickack": plan.quickack,
        "message_bytes": message_bytes,
    }


def _nothing_accepted(totals: Interval) -> list[str]:
    """Return the sentence for a run of whose messages none was accepted, with its most frequent refusal or error."""
    if not totals.attempted or totals.messages["accepted"]:
        return []
    reasons = Counter(totals.errors)
    for (verb, code, enhanced, expected), count in totals.replies.items():
        if not expected:
            reasons[f"{verb} {code} {enhanced}".rstrip()] += count
    if not reasons:
        return [nothing_accepted_note(totals.attempted, "")]
    # of two that are equally frequent, the first by name, so that the sentence does not depend on the workers
    reason, count = min(reasons.items(), key=lambda item: (-item[1], item[0]))
    example = totals.examples.get(reason, "")
    detail = f": {visible(example)}" if example else ""
    return [nothing_accepted_note(totals.attempted, f"{visible(reason)}, {plural(count, 'time')}{detail}")]


def _separate_queues(plan: LoadPlan, health: Health) -> list[str]:
    """Return the sentence for a run whose arrivals waited in the queues of several workers, so often that p99 shows it."""
    arrivals = health.waited + health.late.count
    if plan.workers == 1 or health.waited < max(1, _NOTABLE_SHARE * arrivals):
        return []
    fewest, most = plan.connections // plan.workers, -(-plan.connections // plan.workers)
    each = str(most) if fewest == most else f"{fewest} or {most}"
    by_worker = ", ".join(
        f"worker {worker}: {count:,}" for worker, count in sorted(health.waited_by_worker.items()) if count
    )
    return [
        f"The connections were the limit: {health.waited:,} of {plural(arrivals, 'arrival')} found none free. Each of the "
        f"{plan.workers} workers has {each} of the {plural(plan.connections, 'connection')} and a queue of its own "
        f"({by_worker}); fewer --workers, or more --connections, wait less."
    ]


def _notes(record: RunRecord) -> list[str]:
    """Return the notes that follow from the plan and the first session."""
    found, notes = record.preflight, []
    if not record.prepared.request.plan.open_model:
        notes.append(
            "Closed model: a slow server receives less load, so the latencies are subject to coordinated omission; "
            "use --rate to measure latency."
        )
    if found and found.warning:
        notes.append(f"Before the run, {visible(found.warning)}.")
    pipelined = any(len(step.expected_replies) > 1 for step in record.prepared.script.steps)
    if found and found.ehlo and pipelined and b"PIPELINING" not in found.ehlo.upper():
        notes.append("The scenario uses pipelining, and the server does not offer PIPELINING.")
    return notes


def _hostile_section(record: RunRecord, answer: dict[str, Any], measured_ns: int) -> dict[str, Any]:
    """Return `hostile`: the honest sessions before and during the hostile ones, and the findings of the latter."""
    collector, request = record.collector, record.prepared.request
    baseline_ns = min(measured_ns, request.plan.baseline_ns)
    fuzzing = answer.get("result", {})
    cases = fuzzing.get("cases", {"generated": 0, "run": 0, "confirmed": 0, "may_have_killed_it": 0})
    honest = collector.with_hostile.attempted
    return {
        "share_wanted": request.hostile,
        "share": cases["run"] / (cases["run"] + honest) if honest else 0.0,
        "quiet": _honest_section(collector.baseline, baseline_ns / NS_PER_S),
        "beside": _honest_section(collector.with_hostile, (measured_ns - baseline_ns) / NS_PER_S),
        "cases": cases,
        "findings": fuzzing.get("findings", []),
        "rules": fuzzing.get("rules", {}),
        "target_gone": fuzzing.get("target", {}).get("gone", False),
        "latency": fuzzing.get("latency", {}),
        "replies": fuzzing.get("replies", {}),
        "cpu_s": fuzzing.get("generator", {}).get("cpu_s", 0.0),
    }


def _honest_section(honest: Interval, window_s: float) -> dict[str, Any]:
    return {
        "window_s": window_s,
        "messages": results.messages_section(honest),
        "messages_per_s": honest.messages["accepted"] / window_s if window_s else 0.0,
        "latency": results.latency_section(honest, ok=True),
    }
