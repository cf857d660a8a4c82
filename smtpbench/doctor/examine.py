"""Examination of this machine and of a target: everything is read and measured in turn, then judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from smtpbench import __version__
from smtpbench.doctor.diagnosis import Diagnosis, worst
from smtpbench.doctor.machine_checks import (
    activity_diagnoses,
    build_diagnosis,
    clock_diagnosis,
    disk_diagnosis,
    machine_diagnoses,
)
from smtpbench.doctor.measurement_checks import cost_diagnosis, timers_diagnosis
from smtpbench.doctor.measurements import measure_clock, measure_disk_speed, measure_message_cost, measure_timers
from smtpbench.doctor.system_info import read_build, read_counters, read_disk, read_machine
from smtpbench.doctor.target_checks import target_diagnoses
from smtpbench.doctor.target_probe import probe_target
from smtpbench.errors import SmtpbenchError
from smtpbench.measure.health import machine as machine_section
from smtpbench.session.runner import interruptible
from smtpbench.target import Access

SCHEMA = "smtpbench-doctor/1"
#: Time for which the machine is observed at rest, seconds.
OBSERVATION_S = 1.0


@dataclass(frozen=True, slots=True)
class DoctorRequest:
    """What to examine.

    Attributes:
        out: Folder to which results would go.
        access: The target and how to reach it; None to examine this machine only.
    """

    out: Path
    access: Access | None = None


async def examine(request: DoctorRequest, notify: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the report as plain data; None if a signal came first.

    Args:
        request: What to examine.
        notify: Function that receives a text at the beginning of each part.

    Raises:
        UsageError: The target is another machine and not authorized, or a file cannot be used.
    """
    found: list[dict[str, Any] | None] = []
    errors: list[SmtpbenchError] = []

    async def work() -> None:
        try:
            found.append(await _examine(request, notify))
        except SmtpbenchError as error:
            errors.append(error)

    signalled = await interruptible(work, lambda came, scope: scope.cancel())
    if errors:
        raise errors[0]
    return None if signalled else found[0]


async def _examine(request: DoctorRequest, notify: Callable[[str], None]) -> dict[str, Any] | None:
    target: list[Diagnosis] = []
    access = request.access
    if access is not None:
        notify("connecting to the target")
        observation = await probe_target(access)
        target = target_diagnoses(observation, time.time(), insecure=access.trust.insecure, starttls=access.target.starttls)
    machine = read_machine()
    diagnoses = machine_diagnoses(machine)
    notify("observing this machine at rest")
    before = read_counters()
    await trio.sleep(OBSERVATION_S)
    diagnoses += activity_diagnoses(before, read_counters())
    clock = measure_clock()
    diagnoses.append(clock_diagnosis(machine.clocksource, clock.step_ns, clock.read_ns))
    notify("measuring timers")
    diagnoses.append(timers_diagnosis(await measure_timers()))
    diagnoses.append(build_diagnosis(read_build()))
    notify("sending messages to a test server on this machine")
    cost = await measure_message_cost()
    if cost.interrupted:  # the run handles signals itself
        return None
    diagnoses.append(cost_diagnosis(cost))
    diagnoses.append(disk_diagnosis(read_disk(request.out, measure_disk_speed), cost.written_bytes_per_s))
    return report(diagnoses, target, access.target.url if access else None)


def report(machine: list[Diagnosis], target: list[Diagnosis], url: str | None) -> dict[str, Any]:
    """Return what `--json` prints."""
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
