"""How near `smtpbench capacity` comes to a limit that arithmetic knows: `make capacitybench`.

The sink works off its messages with so many workers of so many milliseconds each: 4 of 10 ms can do 400 a second, 1 of 5 ms
can do 200. Each trial is a whole search by the command line, told nothing of the limit; the sink is a process of its own on
the same machine. With each trial stands how busy the machine was with other things, because a search measures those as well.
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
#: Milliseconds of a message, workers → messages a second.
CASES = {"10ms/4": 400.0, "5ms/1": 200.0}
WANTED = 0.05


def cpu_ticks() -> tuple[float, float]:
    """What all cores did since the machine began: in all, and idle (proc_stat(5), in USER_HZ)."""
    with open("/proc/stat", encoding="ascii") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    return float(sum(fields)), float(fields[3] + fields[4])


def trial(port: int, slo: str, seed: int) -> tuple[dict[str, Any], float, float]:
    """One search: its result, how long it took, and the share of all cores that was not idle meanwhile."""
    with tempfile.TemporaryDirectory() as out:
        options = ["--slo", slo, "--seed", str(seed), "--out", out]
        argv = [*SMTPBENCH, "capacity", "relay", "-t", f"smtp://127.0.0.1:{port}", *options]
        begun, (all_before, idle_before) = time.monotonic(), cpu_ticks()
        subprocess.run(argv, check=True, capture_output=True)
        took_s, (all_after, idle_after) = time.monotonic() - begun, cpu_ticks()
        busy = 1 - (idle_after - idle_before) / (all_after - all_before)
        return json.loads((Path(out) / "result.json").read_text()), took_s, busy


def main() -> None:
    """Every case, some trials each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--slo", default="message.p99<100ms")
    given = parser.parse_args()
    for case, limit in CASES.items():
        errors = []
        port = free_port()
        sink = [*SMTPBENCH, "sink", "--listen", f"127.0.0.1:{port}", "--on", f"message=serve:{case}"]
        with server(sink, port):
            for seed in range(given.trials):
                result, took_s, busy = trial(port, given.slo, seed)
                found = result["capacity"]
                rate = found["rate_per_s"] or 0.0
                errors.append(rate / limit - 1)
                steps = len(result["steps"])
                starved = result["generator"].get("starved_worker_share", 0.0)
                print(
                    f"{case:>7}  {rate:7.1f}/s of {limit:g}  {errors[-1]:+6.1%}  {steps:2} steps, {took_s:.0f} s, "
                    f"limited by {found['limited_by']}; cores {busy:.0%} busy, generator kept waiting {starved:.0%}, "
                    f"load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
                for step in result["steps"] if abs(errors[-1]) > WANTED else ():
                    print(f"         {step['rate_per_s']:8g}/s {'held' if step['held'] else step['why']}", flush=True)
        within = sum(abs(error) <= WANTED for error in errors)
        print(
            f"{case:>7}  median {statistics.median(errors):+.1%} [{min(errors):+.1%} … {max(errors):+.1%}]  "
            f"{within} of {len(errors)} within {WANTED:.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
