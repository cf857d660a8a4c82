"""Artificial measurements: recorders, ticks and results like those of a run."""

from __future__ import annotations

import random
from typing import Any

from smtpbench.measure import result as results
from smtpbench.measure.files import Tick
from smtpbench.measure.health import Health
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.session.context import LATE_SHIFT

MS = 1_000_000
REPLIES = (
    ("banner", "banner", b"220 mx.example ESMTP\r\n", True),
    ("EHLO", "EHLO", b"250-mx.example\r\n250 PIPELINING\r\n", True),
    ("MAIL", "MAIL", b"250 2.1.0 Ok\r\n", True),
    ("RCPT", "RCPT", b"250 2.1.5 Ok\r\n", True),
    ("RCPT", "RCPT", b"550 5.1.1 <x@y.example>: no such user\r\n", False),
    ("DATA", "DATA", b"354 End data with <CR><LF>.<CR><LF>\r\n", True),
    ("message", "message", b"250 2.0.0 Ok: queued\r\n", True),
    ("message", "message", b"451 4.3.0 try again\r\n", False),
    ("RSET", "", b"250 2.0.0 Ok\r\n", True),
)
TIMINGS = (("connect", True), ("tls", True), ("transaction", True), ("transaction", False), ("session", True))
ERRORS = (("reset", "while waiting (MAIL)"), ("timeout", "while waiting (message)"))


def sample(service_ns: int, late_us: int = 0) -> int:
    """Return a sample as the client session records it."""
    return service_ns + (late_us << LATE_SHIFT)


def record_random(recorder: Recorder, draw: random.Random, count: int, late_us: int = 0) -> None:
    """Record that many random samples and message outcomes, each sample late by up to late_us."""
    for _ in range(count):
        value = sample(int(draw.lognormvariate(0, 1) * 5 * MS), draw.randrange(late_us + 1))
        if draw.random() < 0.6:
            recorder.samples(*draw.choice(REPLIES)).append(value)
        else:
            recorder.timing(*draw.choice(TIMINGS)).append(value)
        name = draw.choice(("accepted", "accepted", "accepted", "rejected", "failed", "dropped", "interrupted"))
        setattr(recorder, name, getattr(recorder, name) + 1)
        if draw.random() < 0.05:
            recorder.error(*draw.choice(ERRORS))


def tick(interval: Interval, **changes: Any) -> Tick:
    """Return the tick of the third second of a run."""
    values: dict[str, Any] = {
        "end_s": 3.0, "length_s": 1.0, "phase": "steady", "interval": interval, "connections_open": 10, "busy": 4,
        "waiting": 0, "cpu_share": 0.256, "lag_ms": 1.5,
    }  # fmt: skip
    return Tick(**(values | changes))


def result_of(totals: Interval, *, model: str = "open", health: Health | None = None, **changes: Any) -> dict[str, Any]:
    """Return a result with these totals."""
    is_open = model == "open"
    stage = {"duration_s": 30.0, "rate_from_per_s": 500.0, "rate_to_per_s": 500.0}
    load = {
        "model": model, "connections": 100, "arrivals": None, "duration_s": 30.0, "stages": [stage] if is_open else [],
        "arrival_process": "poisson" if is_open else None, "when_busy": "wait" if is_open else None, "warmup_s": 2.0,
        "drain_s": 5.0, "timeout_s": 30.0, "workers": 1, "quickack": False, "message_bytes": None,
    }  # fmt: skip
    values: dict[str, Any] = {
        "run_id": "20260102-030405-abcdef",
        "started": "2026-01-02T03:04:05.678+00:00",
        "scenario": {"name": "relay", "file": "scenarios/relay.yaml", "sha256": "0" * 64, "text": "name: relay\n"},
        "target": {"url": "smtp://127.0.0.1:2525", "banner": "220 mx.example ESMTP", "ehlo": ["mx.example"]},
        "load": load,
        "seed": 7,
        "outcome": {"status": "completed", "reason": ""},
        "totals": totals,
        "warmup": Interval(),
        "health": health or Health(cpu_user_s=3.0, cpu_system_s=4.5, busiest_share=0.25, late=Histogram.of([MS])),
        "window_s": 30.0,
        "notes": [],
    }
    return results.build(**(values | changes))


def busy_recorder(count: int = 2000, seed: int = 1, late_us: int = 0) -> Recorder:
    """Return a recorder with some of everything that can be counted."""
    recorder = Recorder()
    record_random(recorder, random.Random(seed), count, late_us)
    return recorder
