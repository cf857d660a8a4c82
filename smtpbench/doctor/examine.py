"""An examination: everything read and tried, one after the other, and judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from smtpbench import __version__
from smtpbench.doctor.diagnosis import Diagnosis, worst
from smtpbench.doctor.machine import (
    activity_diagnoses,
    build_diagnosis,
    clock_diagnosis,
    disk_diagnosis,
    machine_diagnoses,
)
from smtpbench.doctor.measured import cost_diagnosis, timers_diagnosis
from smtpbench.doctor.readings import read_build, read_disk, read_machine, read_moment
from smtpbench.doctor.target import look, target_diagnoses
from smtpbench.doctor.trials import cost_of_a_message, time_clock, time_timers, write_speed
from smtpbench.errors import SmtpbenchError
from smtpbench.measure.health import machine as machine_section
from smtpbench.session.runner import interruptible
from smtpbench.target import Access

SCHEMA = "smtpbench-doctor/1"
#: How long the machine is watched at rest.
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class DoctorRequest:
    """out: the folder that results would go to. access: the target; None to look at this machine alone."""

    out: Path
    access: Access | None = None


async def examine(request: DoctorRequest, notify: Callable[[str], None]) -> dict[str, Any] | None:
    """The report, plain data; None where a signal came first. say: told what is being done. Raises UsageError."""
    found: list[dict[str, Any] | None] = []
    trouble: list[SmtpbenchError] = []

    async def work() -> None:
        try:
            found.append(await _examine(request, notify))
        except SmtpbenchError as error:
            trouble.append(error)

    came = await interruptible(work, lambda came, scope: scope.cancel())
    if trouble:
        raise trouble[0]
    return None if came else found[0]


async def _examine(request: DoctorRequest, notify: Callable[[str], None]) -> dict[str, Any] | None:
    target: list[Diagnosis] = []
    if request.access is not None:
        notify("looking at the target")
        seen = await look(request.access)
        target = target_diagnoses(
            seen, time.time(), insecure=request.access.trust.insecure, starttls=request.access.target.starttls
        )
    machine = read_machine()
    found = machine_diagnoses(machine)
    notify("watching this machine at rest")
    before = read_moment()
    await trio.sleep(LOOK_S)
    found += activity_diagnoses(before, read_moment())
    clock = time_clock()
    found.append(clock_diagnosis(machine.clocksource, clock.step_ns, clock.read_ns))
    notify("timing timers")
    found.append(timers_diagnosis(await time_timers()))
    found.append(build_diagnosis(read_build()))
    notify("sending to a sink on this machine")
    cost = await cost_of_a_message()
    if cost.interrupted:  # the signal was the run's, which listens to them as well
        return None
    found.append(cost_diagnosis(cost))
    found.append(disk_diagnosis(read_disk(request.out, write_speed), cost.written_bytes_per_s))
    return report(found, target, request.access.target.url if request.access else None)


def report(machine: list[Diagnosis], target: list[Diagnosis], url: str | None) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "verdict": worst([*machine, *target]),
        "machine": machine_section(),
        "target": url,
        "checks": [
            *({"of": "machine"} | one.to_data() for one in machine),
            *({"of": "target"} | one.to_data() for one in target),
        ],
    }
