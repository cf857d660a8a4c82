"""What Postfix uses: its processes, some of which live for a moment, against the kernel's count of a control group."""

from __future__ import annotations

from pathlib import Path

import pytest
import start_commands
from cgroups import cgroup_of_version_2
from runner import run
from servers import free_port, started

from smtpbench.measure.server_usage import UsageSample
from smtpbench.supervisor.usage import UsageSampler, cgroup_cpu_ns
from smtpbench.units import NS_PER_S

MESSAGES = 2000


def measured(sampler: UsageSampler) -> UsageSample:
    sample = sampler.measure()
    assert sample is not None
    return sample


def kernel_cpu_s(group: Path) -> float:
    found = cgroup_cpu_ns(group)
    assert found is not None
    return found[0] / NS_PER_S


def test_processes_of_postfix_use_what_the_kernel_counts(tmp_path: Path) -> None:
    port = free_port()
    command = ["/bin/sh", "-c", start_commands.postfix(tmp_path / "postfix", port)]
    with cgroup_of_version_2() as group, started(command, port, tmp_path / "start.log") as master:
        sampler = UsageSampler(lambda: [master.pid])
        for _ in range(2):  # one that started meanwhile is seen the second time; later ones start in the group
            measured(sampler)
            for pid in sampler.pids:
                (group / "cgroup.procs").write_text(str(pid))
        before_s, before = kernel_cpu_s(group), measured(sampler)
        target = f"smtp://127.0.0.1:{port}"
        # every session is a connection, so that Postfix starts many processes, of which some end
        options = ("-n", str(MESSAGES), "-c", "20", "--watch", f"pid:{master.pid}")
        done = run("one-per-connection", target, tmp_path / "run", *options)
        after_s, after = kernel_cpu_s(group), measured(sampler)
    assert done.code == 0, done.err
    assert done.messages == {"accepted": MESSAGES}
    assert after.cpu_s - before.cpu_s == pytest.approx(after_s - before_s, rel=0.02)
    server = done.result["server"]
    assert (server["started_by"], server["name"], server["source"]) == ("others", "master", "processes")
    assert server["processes_max"] > 20
    # before the window there is the first session, after it Postfix discards the last messages
    assert 0.7 * (after_s - before_s) < server["cpu_s"] <= 1.02 * (after_s - before_s)
    assert server["cpu_ms_per_message"] == pytest.approx(1000 * server["cpu_s"] / MESSAGES)
