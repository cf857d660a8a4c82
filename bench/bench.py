"""CPU time of a message, compared with the tools that mail administrators know: `make bench`.

Client and server run on one core each. smtpbench and the peer alternate from round to round, so that a machine that slows
down slows down both. The CPU time (user and system) of one message is compared, and not wall time. smtpbench records every
latency, counts every reply and writes the files of the run.

The start of smtpbench (importing Python modules) is left out: its CPU time is what the run itself reports for its window. Of
the peers, which are written in C, the whole process is counted.
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

from smtpbench.text import plural

CLIENT_CORE, SERVER_CORE = 0, 1
HERE = Path(__file__).resolve().parent
CONNECTIONS = 100
BYTES = 1024


@dataclass(frozen=True)
class Cost:
    """CPU time of one message.

    Attributes:
        user_us: Time in user mode, microseconds.
        system_us: Time in the kernel, microseconds.
    """

    user_us: float
    system_us: float

    @property
    def total_us(self) -> float:
        """User and system time, microseconds."""
        return self.user_us + self.system_us


def pin_to(core: int) -> Callable[[], None]:
    """Return a function that a child process calls to stay on one core."""
    cores = sorted(os.sched_getaffinity(0))
    return lambda: os.sched_setaffinity(0, {cores[core % len(cores)]})


def free_port() -> int:
    """Return a free TCP port on loopback."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_until_listening(port: int) -> None:
    """Wait until a server accepts connections; end the program after ten seconds."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"no server listens on port {port}")


@contextmanager
def server(argv: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on its own core while the context lasts."""
    process = subprocess.Popen(argv, preexec_fn=pin_to(SERVER_CORE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_listening(port)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def smtp_sink_command(port: int) -> list[str]:
    return ["smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "1000"]


def smtpbench_sink_command(port: int) -> list[str]:
    return [sys.executable, "-m", "smtpbench.cli.main", "sink", "--listen", f"127.0.0.1:{port}"]


def run_smtp_source(port: int, messages: int, *, reuse_connections: bool) -> Cost:
    """Send messages with smtp-source and return their cost."""
    reuse = ["-d"] if reuse_connections else []
    argv = ["smtp-source", *reuse, "-s", str(CONNECTIONS), "-m", str(messages), "-l", str(BYTES), "-f", "a@sender.example",
            "-t", "b@recipient.example", f"127.0.0.1:{port}"]  # fmt: skip
    process = subprocess.Popen(argv, preexec_fn=pin_to(CLIENT_CORE))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("smtp-source failed")
    return Cost(usage.ru_utime * 1e6 / messages, usage.ru_stime * 1e6 / messages)


def run_smtpbench(port: int, messages: int, scenario: str) -> Cost:
    """Send messages with `smtpbench run` and return their cost."""
    with tempfile.TemporaryDirectory() as out:
        argv = [sys.executable, "-m", "smtpbench.cli.main", "run", str(HERE / f"{scenario}.yaml"),
                "--target", f"smtp://127.0.0.1:{port}", "-c", str(CONNECTIONS), "-n", str(messages), "--out", out,
                "--progress", "none"]  # fmt: skip
        subprocess.run(argv, preexec_fn=pin_to(CLIENT_CORE), check=True, stdout=subprocess.DEVNULL)
        result = json.loads(Path(out, "result.json").read_text())
    if result["messages"]["accepted"] != messages:
        raise SystemExit(f"not all messages were accepted: {result['messages']}")
    generator = result["generator"]
    return Cost(generator["cpu_user_s"] * 1e6 / messages, generator["cpu_system_s"] * 1e6 / messages)


def cpu_of(pid: int) -> tuple[float, float]:
    """Return user and system time of a running process with its threads, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return int(fields[11]) * tick_s, int(fields[12]) * tick_s


def server_cost(argv: list[str], port: int, messages: int) -> Cost:
    """Return the cost of a message of smtp-source, on reused connections, for a server."""
    with server(argv, port) as process:
        run_smtp_source(port, messages // 10, reuse_connections=True)
        before = cpu_of(process.pid)
        run_smtp_source(port, messages, reuse_connections=True)
        after = cpu_of(process.pid)
    user_us, system_us = ((b - a) * 1e6 / messages for a, b in zip(before, after, strict=True))
    return Cost(user_us, system_us)


def compare(title: str, limit: float, rounds: int, ours: Callable[[], Cost], peer: Callable[[], Cost]) -> bool:
    """Run both in turns and print the result; return whether the median ratio is within the limit."""
    pairs = [(ours(), peer()) for _ in range(rounds)]
    ratios = sorted(own.total_us / other.total_us for own, other in pairs)
    ratio = statistics.median(ratios)
    own_us = statistics.median(own.total_us for own, _ in pairs)
    peer_us = statistics.median(other.total_us for _, other in pairs)
    kernel_us = statistics.median(own.system_us for own, _ in pairs)
    passed = ratio <= limit
    print(
        f"{title:<34} {own_us:6.1f} us  (kernel {kernel_us:5.1f})  peer {peer_us:6.1f} us  "
        f"ratio {ratio:.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}]  {'≤' if passed else 'NOT ≤'} {limit}",
        flush=True,
    )
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--only", default="", help="Run only what has this text in its title.")
    options = parser.parse_args()
    if not shutil.which("smtp-source"):
        raise SystemExit("make bench needs smtp-source and smtp-sink; run: apt-get install postfix")
    rounds, messages = options.rounds, options.messages
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(f"{cpu[1] if cpu else 'unknown CPU'}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    size = f"{CONNECTIONS} connections, {BYTES} octets a message"
    print(f"{size}, {plural(messages, 'message')} a round, {plural(rounds, 'round')}, median\n")
    passed = True
    port = free_port()
    with server(smtp_sink_command(port), port):
        for scenario, limit, reuse in (("kept-alive", 1.0, True), ("reconnecting", 0.9, False), ("pipelined", 0.7, True)):
            title = f"client, {scenario}, to smtp-sink"
            if options.only in title:
                count = messages if reuse else messages // 2
                passed &= compare(
                    title, limit, rounds,
                    partial(run_smtpbench, port, count, scenario),
                    partial(run_smtp_source, port, count, reuse_connections=reuse),
                )  # fmt: skip
    if options.only in "sink, under smtp-source":
        passed &= compare(
            "sink, under smtp-source", 1.0, rounds,
            lambda: server_cost(smtpbench_sink_command(port := free_port()), port, messages),
            lambda: server_cost(smtp_sink_command(port := free_port()), port, messages),
        )  # fmt: skip
    print("\nAll ratios are within their limits." if passed else "\nA ratio is over its limit.")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
