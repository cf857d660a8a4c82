"""The generator's verdict on itself, and the readers that feed it."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from figures import MS

from smtpbench.measure import health
from smtpbench.measure.health import Health, limit_reasons
from smtpbench.measure.histogram import Histogram


@pytest.mark.parametrize(
    ("suffered", "errors", "closed_model", "reason"),
    [
        ({}, {}, True, None),
        ({"busiest_share": 0.9}, {}, True, None),
        ({"busiest_share": 0.97}, {}, True, "97% of its core"),
        ({"busiest_share": 0.97}, {}, False, "97% of its core"),
        ({"starved_share": 0.1}, {}, False, None),
        ({"starved_share": 0.4}, {}, True, "waited 40% of the time"),
        ({"late": Histogram.of([9 * MS] * 100)}, {}, False, None),
        ({"late": Histogram.of([0] * 99 + [14 * MS])}, {}, False, None),
        ({"late": Histogram.of([0] * 95 + [14 * MS] * 5)}, {}, False, "began 14.0 ms late (p99)"),
        ({}, {"no_ports": 3}, True, "local ports ran out (3 times)"),
        ({}, {"no_descriptors": 1}, False, "file descriptors ran out (1 times)"),
        ({}, {"reset": 100, "timeout": 9}, True, None),
    ],
)
def test_what_limits_the_generator(
    suffered: dict[str, Any], errors: dict[str, int], closed_model: bool, reason: str | None
) -> None:
    found = limit_reasons(Health(**suffered), Counter(errors), closed_model=closed_model)
    assert [reason in text for text in found if reason] == ([True] if reason else [])
    assert bool(found) is (reason is not None)


def test_a_process_is_not_charged_with_what_its_parent_held() -> None:
    child = "from smtpbench.measure.health import peak_rss_bytes; print(peak_rss_bytes())"
    parent = (
        "import subprocess, sys; from smtpbench.measure.health import peak_rss_bytes; held = b'x' * 150_000_000\n"
        f"child = subprocess.run([sys.executable, '-c', {child!r}], capture_output=True, text=True, check=True)\n"
        "print(peak_rss_bytes(), child.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    of_parent, of_child = map(int, done.stdout.split())
    assert of_parent > 150_000_000
    assert 1_000_000 < of_child < 100_000_000


def test_the_descriptor_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert health.raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_processor_times_only_grow() -> None:
    before, waited_s = health.cpu_times_s(), health.cpu_wait_s()
    sum(range(1_000_000))
    assert all(now >= then for now, then in zip(health.cpu_times_s(), before, strict=True))
    assert health.cpu_wait_s() >= waited_s >= 0.0


def test_the_machine_is_told() -> None:
    machine = health.machine()
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 1 << 26
    assert machine["kernel"]
