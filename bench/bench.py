"""How much CPU a message costs, beside the tools that mail engineers know: `make bench`.

Client and server are pinned to a core each. Ours and the peer alternate, round by round, so that a machine which slows
down slows both; what is compared is CPU seconds (user and system) for one message, not wall time. Every figure of
ours is taken with every latency recorded, every reply counted and the run's files written.

Of our own processes the start (importing Python modules) is left out: its CPU is what the run itself reports for its
window. Of the peers, written in C, the whole process is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

CLIENT_CORE, SERVER_CORE = 0, 1
HERE = Path(__file__).resolve().parent
CONNECTIONS = 100
BYTES = 1024


@dataclass(frozen=True)
class Cost:
    """CPU of one message, in microseconds."""

    user_us: float
    system_us: float

    @property
    def us(self) -> float:
        return self.user_us + self.system_us


def pinned(core: int) -> Callable[[], None]:
    """For a child: stay on this core where there is more than one."""
    cores = sorted(os.sched_getaffinity(0))
    return lambda: os.sched_setaffinity(0, {cores[core % len(cores)]})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"no server came up on port {port}")


@contextmanager
def server(argv: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, preexec_fn=pinned(SERVER_CORE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def smtp_sink(port: int) -> list[str]:
    return ["smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "1000"]


def our_sink(port: int) -> list[str]:
    return [sys.executable, "-m", "smtpbench.cli.main", "sink", "--listen", f"127.0.0.1:{port}"]


def smtp_source(port: int, messages: int, *, keep: bool) -> Cost:
    argv = ["smtp-source", *(["-d"] if keep else []), "-s", str(CONNECTIONS), "-m", str(messages), "-l", str(BYTES),
            "-f", "a@sender.example", "-t", "b@recipient.example", f"127.0.0.1:{port}"]  # fmt: skip
    process = subprocess.Popen(argv, preexec_fn=pinned(CLIENT_CORE))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("smtp-source failed")
    return Cost(usage.ru_utime * 1e6 / messages, usage.ru_stime * 1e6 / messages)


def our_client(port: int, messages: int, scenario: str) -> Cost:
    with tempfile.TemporaryDirectory() as out:
        argv = [sys.executable, "-m", "smtpbench.cli.main", "run", str(HERE / f"{scenario}.yaml"),
                "--target", f"smtp://127.0.0.1:{port}", "-c", str(CONNECTIONS), "-n", str(messages), "--out", out,
                "--progress", "none"]  # fmt: skip
        subprocess.run(argv, preexec_fn=pinned(CLIENT_CORE), check=True, stdout=subprocess.DEVNULL)
        result = json.loads(Path(out, "result.json").read_text())
    if result["messages"]["accepted"] != messages:
        raise SystemExit(f"not every message was accepted: {result['messages']}")
    generator = result["generator"]
    return Cost(generator["cpu_user_s"] * 1e6 / messages, generator["cpu_system_s"] * 1e6 / messages)


def cpu_of(pid: int) -> tuple[float, float]:
    """User and system seconds of a running process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return int(fields[11]) * tick_s, int(fields[12]) * tick_s


def served(argv: list[str], port: int, messages: int) -> Cost:
    """CPU of a server for one message of smtp-source, kept-alive."""
    with server(argv, port) as process:
        smtp_source(port, messages // 10, keep=True)
        before = cpu_of(process.pid)
        smtp_source(port, messages, keep=True)
        after = cpu_of(process.pid)
    user_us, system_us = ((b - a) * 1e6 / messages for a, b in zip(before, after, strict=True))
    return Cost(user_us, system_us)


def compare(title: str, limit: float, rounds: int, ours: Callable[[], Cost], peer: Callable[[], Cost]) -> bool:
    """Alternate, print, and say whether the median ratio is within the limit."""
    pairs = [(ours(), peer()) for _ in range(rounds)]
    ratios = sorted(mine.us / theirs.us for mine, theirs in pairs)
    ratio = statistics.median(ratios)
    mine_us, theirs_us, kernel_us = (
        statistics.median(values)
        for values in ([m.us for m, _ in pairs], [t.us for _, t in pairs], [m.system_us for m, _ in pairs])
    )
    held = ratio <= limit
    print(
        f"{title:<34} {mine_us:6.1f} us  (kernel {kernel_us:5.1f})  peer {theirs_us:6.1f} us  "
        f"ratio {ratio:.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}]  {'≤' if held else 'NOT ≤'} {limit}",
        flush=True,
    )
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--only", default="", help="a part of the titles to run")
    options = parser.parse_args()
    if not shutil.which("smtp-source"):
        raise SystemExit("make bench wants smtp-source and smtp-sink: apt-get install postfix")
    rounds, messages = options.rounds, options.messages
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(f"{cpu[1] if cpu else 'unknown CPU'}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print(f"{CONNECTIONS} connections, {BYTES} octets a message, {messages} messages a round, {rounds} rounds, median\n")
    held = True
    port = free_port()
    with server(smtp_sink(port), port):
        for scenario, limit, keep in (("kept-alive", 1.0, True), ("reconnecting", 0.9, False), ("pipelined", 0.7, True)):
            title = f"client, {scenario}, to smtp-sink"
            if options.only in title:
                count = messages if keep else messages // 2
                held &= compare(
                    title, limit, rounds,
                    partial(our_client, port, count, scenario),
                    partial(smtp_source, port, count, keep=keep),
                )  # fmt: skip
    if options.only in "sink, under smtp-source":
        held &= compare(
            "sink, under smtp-source", 1.0, rounds,
            lambda: served(our_sink(ours := free_port()), ours, messages),
            lambda: served(smtp_sink(theirs := free_port()), theirs, messages),
        )  # fmt: skip
    print("\nAll ratios are within their limits." if held else "\nA ratio is over its limit.")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
