"""CPU time of a message, compared with the tools that mail administrators know: `make bench`.

Client and server are measured with what real peers send: addresses with and without a dot, quoted local parts, parameters,
verbs in mixed case; replies with queue ids, replies with addresses, and replies of several lines. What smtp-source cannot
send, `smtpbench run` sends to both sinks.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from smtpbench.text import plural

CLIENT_CORE, SERVER_CORE = 0, 1
HERE = Path(__file__).resolve().parent
CONNECTIONS = 100
BYTES = 1024
#: Options of smtp-source; its own addresses are `foo@` and the name of the machine.
ADDRESSES: dict[str, tuple[str, ...]] = {
    "bench": ("-f", "a@sender.example", "-t", "b@recipient.example"),
    "dotless": ("-f", "foo@host", "-t", "foo@host"),
    "quoted": ("-f", '"a b"@sender.example', "-t", '"c d"@recipient.example'),
}
#: The lines of an envelope, as other clients write them.
ENVELOPES = {
    "unique": ("MAIL FROM:<{sender}>", "RCPT TO:<{recipient}>", "DATA"),
    "parameters": ("MAIL FROM:<a@sender.example> SIZE=1024 BODY=8BITMIME", "RCPT TO:<b@recipient.example>", "DATA"),
    "mixed-case": ("mail FROM:<a@sender.example>", "Rcpt To:<b@recipient.example>", "data"),
}
SHAPES = {
    "bench": "addresses with a dot",
    "dotless": "foo@host",
    "quoted": "quoted local parts",
    "unique": "addresses that never repeat",
    "parameters": "SIZE= and BODY=",
    "mixed-case": "verbs in mixed case",
}
#: Styles of `bench.replies`, and what is special about them.
REPLY_STYLES = {"postfix": "replies of Postfix", "exim": "replies of Exim", "echo": "replies with addresses, random ids"}
#: Limits of the ratios by style and use of connections. They reply to EHLO in several lines, and to the HELO of smtp-source
#: in one, which matters where each message has its connection.
CLIENT_LIMITS = {
    "postfix": {"kept-alive": 1.0, "reconnecting": 1.05, "pipelined": 0.65},
    "exim": {"kept-alive": 1.0},
    "echo": {"kept-alive": 1.0, "reconnecting": 1.05, "pipelined": 0.65},
}
MIN_ROUNDS = 3
#: A comparison ends after this time, seconds, so that all of them end within six minutes.
COMPARISON_S = 12


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


def replies_command(style: str, port: int) -> list[str]:
    return [sys.executable, "-m", "bench.replies", style, str(port)]


def run_smtp_source(
    port: int, messages: int, *, reuse_connections: bool, addresses: Sequence[str] = ADDRESSES["bench"]
) -> Cost:
    """Send messages with smtp-source and return their cost."""
    reuse = ["-d"] if reuse_connections else []
    argv = ["smtp-source", *reuse, "-s", str(CONNECTIONS), "-m", str(messages), "-l", str(BYTES), *addresses,
            f"127.0.0.1:{port}"]  # fmt: skip
    process = subprocess.Popen(argv, preexec_fn=pin_to(CLIENT_CORE))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("smtp-source failed")
    return Cost(usage.ru_utime * 1e6 / messages, usage.ru_stime * 1e6 / messages)


def run_smtpbench(port: int, messages: int, scenario: Path) -> Cost:
    """Send messages with `smtpbench run` and return their cost."""
    with tempfile.TemporaryDirectory() as out:
        argv = [sys.executable, "-m", "smtpbench.cli.main", "run", str(scenario),
                "--target", f"smtp://127.0.0.1:{port}", "-c", str(CONNECTIONS), "-n", str(messages), "--out", out,
                "--progress", "none", "--watch", "none"]  # fmt: skip
        subprocess.run(argv, preexec_fn=pin_to(CLIENT_CORE), check=True, stdout=subprocess.DEVNULL)
        result = json.loads(Path(out, "result.json").read_text())
    if result["messages"]["accepted"] != messages:
        raise SystemExit(f"not all messages were accepted: {result['messages']}")
    generator = result["generator"]
    return Cost(generator["cpu_user_s"] * 1e6 / messages, generator["cpu_system_s"] * 1e6 / messages)


def _step(line: str) -> object:
    """Return the step of a scenario that sends a line; the verb of a command is written in upper case there."""
    verb = line[:4].upper()
    return line if line.startswith(verb) else {"send": line, "expect": 354 if verb == "DATA" else "2xx", "as": verb}


def scenario_file(folder: Path, hello: str, envelope: Sequence[str], *, reuse_connections: bool) -> Path:
    """Write a scenario that sends these lines for each message; return its file."""
    message = [*map(_step, envelope), "message"]
    steps: list[object] = [{"repeat": "forever", "steps": message}] if reuse_connections else list(message)
    path = folder / f"{len(list(folder.iterdir()))}.json"  # JSON is YAML
    session = [_step(hello), *steps, "QUIT"]
    path.write_text(json.dumps({"name": path.stem, "session": session, "message": {"size": BYTES}}))
    return path


def cpu_of(pid: int) -> tuple[float, float]:
    """Return user and system time of a running process of one thread, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    # ticks of 10 ms are too coarse for the sum; they divide it
    total_s = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    user_share = user / ((user + system) or 1)
    return total_s * user_share, total_s * (1 - user_share)


def server_cost(command: Callable[[int], list[str]], messages: int, send: Callable[[int, int], Cost]) -> Cost:
    """Return the cost of a message for a server.

    Args:
        command: Returns the command of the server, given its port.
        messages: How many messages are counted; a tenth of them are sent ahead.
        send: Sends messages, given the port and their number.
    """
    port = free_port()
    with server(command(port), port) as process:
        run_smtp_source(port, messages // 10, reuse_connections=True)
        before = cpu_of(process.pid)
        send(port, messages)
        after = cpu_of(process.pid)
    user_us, system_us = ((b - a) * 1e6 / messages for a, b in zip(before, after, strict=True))
    return Cost(user_us, system_us)


def compare(
    title: str, limit: float, rounds: int, limit_s: float, ours: Callable[[], Cost], peer: Callable[[], Cost]
) -> bool:
    """Run both in turns and print the result; return whether the median ratio is within the limit.

    Args:
        title: What is compared.
        limit: Limit of the median ratio.
        rounds: How often both are run; at least `MIN_ROUNDS` times, and fewer than asked for where the time is over.
        limit_s: How long this may take, seconds.
        ours: Measures smtpbench.
        peer: Measures the other program.
    """
    pairs: list[tuple[Cost, Cost]] = []
    began_s = time.monotonic()
    while len(pairs) < min(rounds, MIN_ROUNDS) or (len(pairs) < rounds and time.monotonic() - began_s < limit_s):
        pairs.append((ours(), peer()))
    ratios = sorted(own.total_us / other.total_us for own, other in pairs)
    ratio = statistics.median(ratios)
    own_us = statistics.median(own.total_us for own, _ in pairs)
    peer_us = statistics.median(other.total_us for _, other in pairs)
    kernel_us = statistics.median(own.system_us for own, _ in pairs)
    passed = ratio <= limit
    print(
        f"{title:<62} {own_us:6.1f} us  (kernel {kernel_us:5.1f})  peer {peer_us:6.1f} us  "
        f"ratio {ratio:.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}] of {len(pairs)}  {'≤' if passed else 'NOT ≤'} {limit}",
        flush=True,
    )
    return passed


@dataclass(frozen=True)
class Bench:
    """What is measured, and how often.

    Attributes:
        rounds: Rounds of each comparison.
        messages: Messages of a round; half of them on connections that are not reused.
        only: Text that the titles of the comparisons contain.
        folder: Folder for scenarios.
    """

    rounds: int
    messages: int
    only: str
    folder: Path

    def count(self, *, reuse: bool) -> int:
        """Return the number of messages of a round."""
        return self.messages if reuse else self.messages // 2

    def clients(self) -> bool:
        """Compare the client with smtp-source, which sends HELO; return whether all ratios are within their limits."""
        passed = True
        port = free_port()
        with server(smtp_sink_command(port), port):
            for connections, limit in (("kept-alive", 1.0), ("reconnecting", 0.85), ("pipelined", 0.65)):
                passed &= self._client(f"{connections}, to smtp-sink", limit, port, HERE / f"{connections}.yaml")
        for style, replies in REPLY_STYLES.items():
            port = free_port()
            scenarios = {
                "kept-alive": scenario_file(self.folder, "EHLO {client}", ENVELOPES["unique"], reuse_connections=True),
                "reconnecting": scenario_file(self.folder, "EHLO {client}", ENVELOPES["unique"], reuse_connections=False),
                "pipelined": HERE / "pipelined.yaml",
            }
            with server(replies_command(style, port), port):
                for connections, limit in CLIENT_LIMITS[style].items():
                    passed &= self._client(f"{connections}, {replies}", limit, port, scenarios[connections])
        return passed

    def _client(self, shape: str, limit: float, port: int, scenario: Path) -> bool:
        reuse = not shape.startswith("reconnecting")
        count = self.count(reuse=reuse)
        return self._compare(
            f"client, {shape}", limit,
            partial(run_smtpbench, port, count, scenario),
            partial(run_smtp_source, port, count, reuse_connections=reuse),
        )  # fmt: skip

    def sinks(self) -> bool:
        """Compare the sink with smtp-sink; return whether all ratios are within their limits."""
        passed = True
        for reuse in (True, False):
            connections = "kept-alive" if reuse else "reconnecting"
            for name, addresses in ADDRESSES.items():
                send = partial(run_smtp_source, reuse_connections=reuse, addresses=addresses)
                passed &= self._sink(f"{connections}, smtp-source, {SHAPES[name]}", send, reuse=reuse)
            for name, envelope in ENVELOPES.items():
                hello = "eHlo {client}" if name == "mixed-case" else "EHLO {client}"
                scenario = scenario_file(self.folder, hello, envelope, reuse_connections=reuse)
                send = partial(run_smtpbench, scenario=scenario)
                passed &= self._sink(f"{connections}, EHLO, {SHAPES[name]}", send, reuse=reuse)
        return passed

    def _sink(self, shape: str, send: Callable[[int, int], Cost], *, reuse: bool) -> bool:
        count = self.count(reuse=reuse)
        return self._compare(
            f"sink, {shape}", 1.0,
            partial(server_cost, smtpbench_sink_command, count, send),
            partial(server_cost, smtp_sink_command, count, send),
        )  # fmt: skip

    def _compare(self, title: str, limit: float, ours: Callable[[], Cost], peer: Callable[[], Cost]) -> bool:
        return self.only not in title or compare(title, limit, self.rounds, COMPARISON_S, ours, peer)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--only", default="", help="Run only what has this text in its title.")
    options = parser.parse_args()
    if not shutil.which("smtp-source"):
        raise SystemExit("make bench needs smtp-source and smtp-sink; run: apt-get install postfix")
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(f"{cpu[1] if cpu else 'unknown CPU'}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    size = f"{CONNECTIONS} connections, {BYTES} octets a message"
    counts = f"{plural(options.messages, 'message')} a round, half as many where each has its connection"
    print(f"{size}, {counts}, {plural(options.rounds, 'round')}, median\n")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.rounds, options.messages, options.only, Path(folder))
        passed = [bench.clients(), bench.sinks()]
    print("\nAll ratios are within their limits." if all(passed) else "\nA ratio is over its limit.")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
