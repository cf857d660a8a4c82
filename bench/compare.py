"""Whether `smtpbench compare` tells the truth on a real machine: `make comparebench`.

A target is compared with itself, 20 times: at least 19 of the verdicts, all figures taken together, must be "no difference
shown". Then two sinks of which one answers RCPT 10 % later: each of 5 trials must call it slower, and name an interval
that holds the difference.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import bench

SMTPBENCH = Path(sys.executable).with_name("smtpbench")
LOAD = ["--rate", "500/s", "--messages", "150", "--warmup", "0s", "--connections", "20"]
DELAYS_MS = 10.0, 11.0
NOTHING = "no difference shown"


def trial(urls: Sequence[str], metrics: Sequence[str], folder: Path, seed: int) -> list[dict[str, Any]]:
    """One comparison, of default repeats; its differences."""
    argv = [str(SMTPBENCH), "compare", "relay", "--target", f"a={urls[0]}", "--target", f"b={urls[1]}", *LOAD,
            *(f"--metric={metric}" for metric in metrics), "--seed", str(seed), "--out", str(folder)]  # fmt: skip
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    differences: list[dict[str, Any]] = json.loads((folder / "result.json").read_text())["differences"]
    return differences


def sink(port: int, *options: str) -> list[str]:
    return [str(SMTPBENCH), "sink", "--listen", f"127.0.0.1:{port}", *options]


def against_itself(trials: int, folder: Path) -> bool:
    """The target and itself."""
    clean = 0
    port = bench.free_port()
    with bench.server(sink(port), port):
        url = f"smtp://127.0.0.1:{port}"
        for number in range(trials):
            wrong = [one for one in trial([url, url], [], folder / f"same-{number}", number) if one["verdict"] != NOTHING]
            clean += not wrong
            told = ", ".join(f"{one['metric']} {one['verdict']} ({one['change']})" for one in wrong)
            print(f"  trial {number + 1}: {told or NOTHING}", flush=True)
    wanted = math.ceil(trials * 19 / 20)
    print(f"a target with itself: {clean} of {trials} trials show no difference  (≥ {wanted} wanted)")
    return clean >= wanted


def planted(trials: int, folder: Path) -> bool:
    """A sink, and one whose replies to RCPT come 10 % later."""
    found = 0
    ports = [bench.free_port() for _ in DELAYS_MS]
    sinks = [sink(port, "--delay", f"RCPT={delay_ms:g}ms") for port, delay_ms in zip(ports, DELAYS_MS, strict=True)]
    with bench.server(sinks[0], ports[0]), bench.server(sinks[1], ports[1]):
        for number in range(trials):
            urls = [f"smtp://127.0.0.1:{port}" for port in ports]
            (one,) = trial(urls, ["RCPT.p50"], folder / f"planted-{number}", number)
            found += one["verdict"] == "slower"
            told = f"{one['change']:+.1%} [{one['low']:+.1%} … {one['high']:+.1%}]"
            print(f"  trial {number + 1}: RCPT.p50 {one['verdict']}, {told}", flush=True)
    print(f"10 % later: {found} of {trials} trials show it  (all wanted)")
    return found == trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="comparisons of the target with itself")
    parser.add_argument("--planted", type=int, default=5, help="comparisons of two that differ")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = [against_itself(options.trials, Path(folder)), planted(options.planted, Path(folder))]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
