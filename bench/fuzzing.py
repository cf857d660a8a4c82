"""Cases a second of `smtpbench fuzz`, compared with boofuzz on the same sink, in turns: `make fuzzbench`.

There are two sinks. One answers at once; with it, the cases for each CPU second of the fuzzer are compared. The other delays
each reply by 10 ms; with it, the cases a second are compared. A case of smtpbench is a whole session with a message (seven
replies), checked against all rules. boofuzz is measured at the depth of the message text, where its cases have six replies
(it sends no QUIT), and checks nothing. The log of boofuzz takes most of its time, so it is measured without and with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.bench import CLIENT_CORE, free_port, pin_to, server

HERE = Path(__file__).resolve().parent
#: Number of the first case of boofuzz that mutates the text after DATA.
FIRST_CASE = 6500


def smtpbench_rates(port: int, cases: int, connections: int) -> tuple[float, float]:
    """Run `smtpbench fuzz`; return cases a CPU second, and cases a second."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ["--cases", str(cases), "-c", str(connections), "--max-findings", "1000", "--out", out]
        argv = [sys.executable, "-m", "smtpbench.cli.main", "fuzz", "relay", "-t", f"smtp://127.0.0.1:{port}", *arguments]
        subprocess.run(argv, check=True, capture_output=True, preexec_fn=pin_to(CLIENT_CORE))
        result = json.loads((Path(out) / "result.json").read_text())
    generator = result["generator"]
    window_s = generator["cpu_s"] / generator["cpu_share_of_window"]
    return result["cases"]["run"] / generator["cpu_s"], result["cases"]["run"] / window_s


def boofuzz_rates(python: str, port: int, cases: int, log: str) -> tuple[float, float]:
    """Run boofuzz, with its default log (`text`) or without (`none`); return cases a CPU second, and cases a second."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [python, str(HERE / "boofuzz_peer.py"), str(port), str(cases), str(FIRST_CASE), f"{folder}/boofuzz.db", log]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=folder, preexec_fn=pin_to(CLIENT_CORE))
    counts = json.loads(next(text for text in done.stdout.splitlines() if text.startswith("{")))
    return counts["cases"] / counts["cpu_s"], counts["cases"] / counts["wall_s"]


def first(rates: Callable[[], tuple[float, float]]) -> float:
    """Return the first of two rates, cases a CPU second."""
    return rates()[0]


def compare(title: str, rounds: int, one: Callable[[], float], other: Callable[[], float], minimum: float) -> None:
    """Run both in turns and print the medians, their ratio and its spread."""
    pairs = [(one(), other()) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    own, peer = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    sign = "≥" if ratio >= minimum else "NOT ≥"
    spread = f"[{ratios[0]:.1f}–{ratios[-1]:.1f}]"
    print(f"{title:34} {own:6.0f}  boofuzz {peer:5.0f}  ratio {ratio:5.1f} {spread}  {sign} {minimum:g}", flush=True)


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="Python of an environment with boofuzz.")
    parser.add_argument("--rounds", type=int, default=5, help="Number of rounds. [default: %(default)s]")
    options = parser.parse_args()
    sink = [sys.executable, "-m", "smtpbench.cli.main", "sink"]
    port, slow = free_port(), free_port()
    with server([*sink, "--listen", f"127.0.0.1:{port}"], port):
        for log, cases in (("none", 400), ("text", 100)):
            rates = partial(boofuzz_rates, options.python, port, cases, log)
            per_cpu_s = partial(first, rates)
            compare(
                f"cases a CPU second, boofuzz log: {log}",
                options.rounds,
                lambda: smtpbench_rates(port, 3000, 100)[0],
                per_cpu_s,
                3,
            )
    delays = [f"--delay={verb}=10ms" for verb in ("connect", "EHLO", "MAIL", "RCPT", "DATA", "message", "QUIT")]
    with server([*sink, "--listen", f"127.0.0.1:{slow}", *delays], slow):
        peer = partial(boofuzz_rates, options.python, slow, 60, "none")
        compare(
            "cases a second, 10 ms a reply",
            options.rounds,
            lambda: smtpbench_rates(slow, 4000, 1000)[1],
            lambda: peer()[1],
            50,
        )


if __name__ == "__main__":
    main()
