"""False positives and false negatives of `smtpbench compare` on a real machine: `make comparebench`.

First a target is compared with itself 20 times; at least 19 of these comparisons must find no difference in any metric. Then
two sinks are compared 5 times, one of which answers RCPT 10 % later; each comparison must call it slower.
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


def compare(urls: Sequence[str], metrics: Sequence[str], folder: Path, seed: int) -> list[dict[str, Any]]:
    """Make one comparison with the default number of repeats and return its differences."""
    argv = [str(SMTPBENCH), "compare", "relay", "--target", f"a={urls[0]}", "--target", f"b={urls[1]}", *LOAD,
            *(f"--metric={metric}" for metric in metrics), "--seed", str(seed), "--out", str(folder)]  # fmt: skip
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return list(result["differences"])


def sink_command(port: int, *options: str) -> list[str]:
    return [str(SMTPBENCH), "sink", "--listen", f"127.0.0.1:{port}", *options]


def compare_with_itself(count: int, folder: Path) -> bool:
    """Compare a target with itself; return whether at least 19 of 20 comparisons find no difference."""
    correct = 0
    port = bench.free_port()
    with bench.server(sink_command(port), port):
        url = f"smtp://127.0.0.1:{port}"
        for number in range(count):
            metrics = compare([url, url], [], folder / f"same-{number}", number)
            false_positives = [one for one in metrics if one["verdict"] != NOTHING]
            correct += not false_positives
            text = ", ".join(f"{one['metric']} {one['verdict']} ({one['change']})" for one in false_positives)
            print(f"  comparison {number + 1}: {text or NOTHING}", flush=True)
    required = math.ceil(count * 19 / 20)
    print(f"a target with itself: {correct} of {count} comparisons show no difference  (at least {required} required)")
    return correct >= required


def compare_with_slower(count: int, folder: Path) -> bool:
    """Compare a sink with one whose replies to RCPT come 10 % later; return whether all comparisons find that."""
    found = 0
    ports = [bench.free_port() for _ in DELAYS_MS]
    sinks = [sink_command(port, "--delay", f"RCPT={delay_ms:g}ms") for port, delay_ms in zip(ports, DELAYS_MS, strict=True)]
    with bench.server(sinks[0], ports[0]), bench.server(sinks[1], ports[1]):
        for number in range(count):
            urls = [f"smtp://127.0.0.1:{port}" for port in ports]
            (one,) = compare(urls, ["RCPT.p50"], folder / f"slower-{number}", number)
            found += one["verdict"] == "slower"
            text = f"{one['change']:+.1%} [{one['low']:+.1%} … {one['high']:+.1%}]"
            print(f"  comparison {number + 1}: RCPT.p50 {one['verdict']}, {text}", flush=True)
    print(f"10 % later: {found} of {count} comparisons show it  (all required)")
    return found == count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same", type=int, default=20, help="Comparisons of a target with itself. [default: %(default)s]")
    parser.add_argument("--slower", type=int, default=5, help="Comparisons with a slower target. [default: %(default)s]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        passed = [compare_with_itself(options.same, Path(folder)), compare_with_slower(options.slower, Path(folder))]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
