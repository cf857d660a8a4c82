"""Error of `smtpbench capacity` on a server whose limit is known: `make capacitybench`.

The sink serves its messages with a number of workers, each of which takes a fixed time: 4 workers of 10 ms serve 400 a
second, 1 worker of 5 ms serves 200. Each search is a run of the command line that does not know the limit. The sink is a
process of its own on the same machine. The output shows how busy the machine was otherwise, because that affects a search.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.bench import free_port, server

SMTPBENCH = [sys.executable, "-m", "smtpbench.cli.main"]
#: Time of a message and number of workers → limit, messages a second.
CASES = {"10ms/4": 400.0, "5ms/1": 200.0}
MAX_ERROR = 0.05


def cpu_ticks() -> tuple[float, float]:
    """Return the time of all cores since boot: total and idle (proc_stat(5), in USER_HZ)."""
    with open("/proc/stat", encoding="ascii") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    return float(sum(fields)), float(fields[3] + fields[4])


def search(port: int, slo: str, seed: int) -> tuple[dict[str, Any], float, float]:
    """Run one search; return its result, its length in seconds, and the share of all cores that was busy meanwhile."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ["--slo", slo, "--seed", str(seed), "--out", out]
        argv = [*SMTPBENCH, "capacity", "relay", "-t", f"smtp://127.0.0.1:{port}", *arguments]
        started, (all_before, idle_before) = time.monotonic(), cpu_ticks()
        subprocess.run(argv, check=True, capture_output=True)
        took_s, (all_after, idle_after) = time.monotonic() - started, cpu_ticks()
        busy = 1 - (idle_after - idle_before) / (all_after - all_before)
        return json.loads((Path(out) / "result.json").read_text()), took_s, busy


def main() -> None:
    """Run all cases, each several times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=5, help="Searches of each case. [default: %(default)s]")
    parser.add_argument("--slo", default="message.p99<100ms", help="Objective. [default: %(default)s]")
    options = parser.parse_args()
    for case, limit in CASES.items():
        errors = []
        port = free_port()
        sink = [*SMTPBENCH, "sink", "--listen", f"127.0.0.1:{port}", "--on", f"message=serve:{case}"]
        with server(sink, port):
            for seed in range(options.searches):
                result, took_s, busy = search(port, options.slo, seed)
                found = result["capacity"]
                rate = found["rate_per_s"] or 0.0
                errors.append(rate / limit - 1)
                steps = len(result["steps"])
                starved = result["generator"].get("starved_worker_share", 0.0)
                print(
                    f"{case:>7}  {rate:7.1f}/s of {limit:g}  {errors[-1]:+6.1%}  {steps:2} steps, {took_s:.0f} s, "
                    f"limited by {found['limited_by']}; cores {busy:.0%} busy, generator waited for a core {starved:.0%}, "
                    f"load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
                for step in result["steps"] if abs(errors[-1]) > MAX_ERROR else ():
                    print(f"         {step['rate_per_s']:8g}/s {'passed' if step['held'] else step['why']}", flush=True)
        within = sum(abs(error) <= MAX_ERROR for error in errors)
        print(
            f"{case:>7}  median {statistics.median(errors):+.1%} [{min(errors):+.1%} … {max(errors):+.1%}]  "
            f"{within} of {len(errors)} within {MAX_ERROR:.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
