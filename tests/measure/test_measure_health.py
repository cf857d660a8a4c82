"""Whether the generator was the bottleneck, and the readings that decide it."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from figures import MS

from smtpbench.measure import health
from smtpbench.measure.health import Health, limit_reasons, shared_cores_note
from smtpbench.measure.histogram import Histogram


@pytest.mark.parametrize(
    ("health_values", "errors", "closed_model", "reason"),
    [
        ({}, {}, True, None),
        ({"busiest_share": 0.9}, {}, True, None),
        ({"busiest_share": 0.97}, {}, True, "97% of its core"),
        ({"busiest_share": 0.97}, {}, False, "97% of its core"),
        ({"starved_share": 0.1}, {}, False, None),
        ({"starved_share": 0.4}, {}, True, "waited 40% of the time"),
        ({"starved_share": 0.4, "server_cores": 1.5, "other_cores": 0.3}, {}, True, None),
        (
            {"starved_share": 0.4, "server_cores": 1.0, "other_cores": 0.5},
            {},
            True,
            "while the server used 1.0 cores and others 0.5",
        ),
        ({"starved_share": 0.4, "other_cores": 0.01}, {}, True, "waited 40% of the time for a core"),
        ({"late": Histogram.of([9 * MS] * 100)}, {}, False, None),
        ({"late": Histogram.of([0] * 99 + [14 * MS])}, {}, False, None),
        ({"late": Histogram.of([0] * 95 + [14 * MS] * 5)}, {}, False, "began 14.0 ms late (p99)"),
        (
            {"late": Histogram.of([14 * MS] * 100), "starved_share": 0.4, "server_cores": 1.5, "other_cores": 0.1},
            {},
            False,
            None,
        ),
        ({"late": Histogram.of([14 * MS] * 100), "server_cores": 1.5}, {}, False, "began 14.0 ms late (p99)"),
        (
            {"late": Histogram.of([14 * MS] * 100), "starved_share": 0.4, "server_cores": 1.5, "busiest_share": 0.95},
            {},
            False,
            "95% of its core",
        ),
        ({}, {"no_ports": 3}, True, "local ports ran out (3 times)"),
        ({}, {"no_descriptors": 1}, False, "file descriptors ran out (1 time)"),
        ({}, {"reset": 100, "timeout": 9}, True, None),
    ],
)
def test_reasons_why_the_generator_was_the_bottleneck(
    health_values: dict[str, Any], errors: dict[str, int], closed_model: bool, reason: str | None
) -> None:
    found = limit_reasons(Health(**health_values), Counter(errors), closed_model=closed_model)
    assert [text for text in found if reason and reason in text] == found[:1]
    assert bool(found) is (reason is not None)


def test_waiting_is_divided_among_those_that_used_the_cores() -> None:
    assert Health(starved_share=0.4).starved_by_others_share == 0.4
    assert Health(starved_share=0.4, server_cores=1.5, other_cores=0.5).starved_by_others_share == pytest.approx(0.1)
    assert Health(starved_share=0.4, server_cores=0.0, other_cores=0.5).starved_by_others_share == 0.4


def test_shared_cores_are_a_fact_and_no_limit() -> None:
    note = shared_cores_note(Health(starved_share=0.33, server_cores=1.24, other_cores=0.1), 2)
    assert note.startswith("Server and generator share 2 cores; the server used 1.2 of them")
    assert "waited 33% of the time" in note
    assert shared_cores_note(Health(starved_share=0.05, server_cores=1.24), 2) == ""
    assert shared_cores_note(Health(starved_share=0.33), 2) == ""


def test_busy_time_of_the_machine_grows_with_that_of_a_process() -> None:
    before_s, own_s = health.machine_busy_s(), sum(health.cpu_times_s())
    while sum(health.cpu_times_s()) < own_s + 0.3:
        pass
    assert health.machine_busy_s() - before_s >= 0.2


def test_peak_memory_of_a_process_excludes_that_of_its_parent() -> None:
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


def test_descriptor_limit_is_raised_to_the_hard_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert health.raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_cpu_times_do_not_decrease() -> None:
    before, waited_s = health.cpu_times_s(), health.cpu_wait_s()
    sum(range(1_000_000))
    assert all(now >= then for now, then in zip(health.cpu_times_s(), before, strict=True))
    assert health.cpu_wait_s() >= waited_s >= 0.0


def test_machine_section() -> None:
    machine = health.machine()
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 1 << 26
    assert machine["kernel"]
