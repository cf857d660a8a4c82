"""How many cases a fuzzer runs: `smtpbench fuzz` beside boofuzz, on the same sink, in turns: `make fuzzbench`.

Two sinks: one that answers at once, where cases for each CPU second of the fuzzer are compared, and one that holds each
reply back for 10 ms, where cases a second are. A case of ours is a whole session with a message (seven replies), judged by
all rules; boofuzz is taken at the depth of the text, where its cases have six (it sends no QUIT), and nothing judges them.
Its own log takes most of its time, so it is measured without the log, and with it, as it comes.
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

from bench.bench import CLIENT_CORE, free_port, pinned, server

HERE = Path(__file__).resolve().parent
#: A case of boofuzz from here on mutates the text behind DATA.
TEXT = 6500


def ours(port: int, cases: int, connections: int) -> tuple[float, float]:
    """Cases a CPU second, cases a second."""
    with tempfile.TemporaryDirectory() as out:
        options = ["--cases", str(cases), "-c", str(connections), "--max-findings", "1000", "--out", out]
        argv = [sys.executable, "-m", "smtpbench.cli.main", "fuzz", "relay", "-t", f"smtp://127.0.0.1:{port}", *options]
        subprocess.run(argv, check=True, capture_output=True, preexec_fn=pinned(CLIENT_CORE))
        result = json.loads((Path(out) / "result.json").read_text())
    generator = result["generator"]
    window_s = generator["cpu_s"] / generator["cpu_share_of_window"]
    return result["cases"]["run"] / generator["cpu_s"], result["cases"]["run"] / window_s


def theirs(python: str, port: int, cases: int, log: str) -> tuple[float, float]:
    """The same of boofuzz, with the log that it writes by default (`text`) or with none."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [python, str(HERE / "boofuzz_peer.py"), str(port), str(cases), str(TEXT), f"{folder}/boofuzz.db", log]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=folder, preexec_fn=pinned(CLIENT_CORE))
    told = json.loads(next(text for text in done.stdout.splitlines() if text.startswith("{")))
    return told["cases"] / told["cpu_s"], told["cases"] / told["wall_s"]


def first_of(rates: Callable[[], tuple[float, float]]) -> float:
    """Cases a CPU second."""
    return rates()[0]


def compare(what: str, rounds: int, one: Callable[[], float], other: Callable[[], float], wanted: float) -> None:
    """Alternate, and print the medians, their ratio, and its spread."""
    pairs = [(one(), other()) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    mine, peer = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    word = "≥" if ratio >= wanted else "NOT ≥"
    spread = f"[{ratios[0]:.1f}–{ratios[-1]:.1f}]"
    print(f"{what:34} {mine:6.0f}  boofuzz {peer:5.0f}  ratio {ratio:5.1f} {spread}  {word} {wanted:g}", flush=True)


def main() -> None:
    """Both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="of an environment with boofuzz")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    sink = [sys.executable, "-m", "smtpbench.cli.main", "sink"]
    port, slow = free_port(), free_port()
    with server([*sink, "--listen", f"127.0.0.1:{port}"], port):
        for log, cases in (("none", 400), ("text", 100)):
            rates = partial(theirs, given.python, port, cases, log)
            per_cpu_s = partial(first_of, rates)
            compare(f"cases a CPU second, its log: {log}", given.rounds, lambda: ours(port, 3000, 100)[0], per_cpu_s, 3)
    delays = [f"--delay={verb}=10ms" for verb in ("connect", "EHLO", "MAIL", "RCPT", "DATA", "message", "QUIT")]
    with server([*sink, "--listen", f"127.0.0.1:{slow}", *delays], slow):
        peer = partial(theirs, given.python, slow, 60, "none")
        compare("cases a second, 10 ms a reply", given.rounds, lambda: ours(slow, 4000, 1000)[1], lambda: peer()[1], 50)


if __name__ == "__main__":
    main()
