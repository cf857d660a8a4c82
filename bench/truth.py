"""Latencies of smtpbench compared with a packet capture: `make truth` (as root, with tcpdump and Postfix's smtp-sink).

Each case is a run of some seconds against smtp-sink on loopback, with tcpdump beside it. The capture gives the time from the
last segment of a command to the last segment of its reply, and from SYN to SYN-ACK. Percentiles of both are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.bench import CLIENT_CORE, HERE, free_port, pin_to, server, smtp_sink_command

SECONDS: Final = 5
PERCENTS: Final = (50, 90, 99)
#: Allowed difference: a share of the captured percentile, or microseconds, whichever is larger.
BOUNDS: Final = {50: (0.05, 15.0), 90: (0.05, 15.0), 99: (0.10, 50.0)}
METRICS: Final = {
    "reconnecting": ("connect", "MAIL", "RCPT", "DATA", "message"),
    "pipelined": ("MAIL+RCPT+DATA", "message"),
}
_FIN, _SYN = 0x01, 0x02
_CAPTURE_BUFFER_KB = 65536
_SNAP_BYTES = 160


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment.

    Attributes:
        at_ns: When the kernel received it.
        client: Address and port of the client.
        from_client: Whether the client sent it.
        flags: Flags of the header.
        size_bytes: Number of octets of data.
        data: The first of them.
    """

    at_ns: int
    client: tuple[bytes, int]
    from_client: bool
    flags: int
    size_bytes: int
    data: bytes


def segments(path: Path, port: int) -> Iterator[Segment]:
    """Read the TCP segments of IPv4 from a capture with nanoseconds (pcap, link type Ethernet)."""
    content = path.read_bytes()
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHiIII", content)
    if magic != 0xA1B23C4D or link != 1:
        raise SystemExit(f"{path}: not a capture with nanoseconds of an Ethernet device")
    at = 24
    while at + 16 <= len(content):
        seconds, nanoseconds, kept, _ = struct.unpack_from("<IIII", content, at)
        frame = content[at + 16 : at + 16 + kept]
        at += 16 + kept
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            continue
        ip_bytes = (frame[14] & 15) * 4
        total_bytes = int.from_bytes(frame[16:18])
        tcp = frame[14 + ip_bytes :]
        source, destination = int.from_bytes(tcp[:2]), int.from_bytes(tcp[2:4])
        header_bytes = (tcp[12] >> 4) * 4
        from_client = destination == port
        client = (frame[26:30], source) if from_client else (frame[30:34], destination)
        size_bytes = total_bytes - ip_bytes - header_bytes
        yield Segment(
            seconds * 10**9 + nanoseconds, client, from_client, tcp[13], size_bytes, tcp[header_bytes:][:size_bytes]
        )


def captured_us(capture: Sequence[Segment]) -> dict[str, list[float]]:
    """Return metric → latencies on the wire, microseconds.

    A command is known by its first octets. What the client writes after a 354 is the message.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    syn_ns: dict[tuple[bytes, int], int] = {}
    sent: dict[tuple[bytes, int], tuple[str, int]] = {}
    awaits_text: set[tuple[bytes, int]] = set()
    due: dict[tuple[bytes, int], int] = {}
    for segment in capture:
        client = segment.client
        if segment.flags & _SYN:
            if segment.from_client:
                syn_ns[client] = segment.at_ns
                awaits_text.discard(client)
            elif client in syn_ns:
                found["connect"].append((segment.at_ns - syn_ns[client]) / 1000)
        elif not segment.size_bytes:
            continue
        elif segment.from_client:
            name = _command_of(segment.data) if client not in awaits_text else "message"
            sent[client] = name, segment.at_ns
            due[client] = 3 if "+" in name else 1
        elif client in sent:
            due[client] -= max(1, segment.data.count(b"\n"))
            name, sent_ns = sent[client]
            awaits_text.discard(client)
            if due[client] <= 0:
                found[name].append((segment.at_ns - sent_ns) / 1000)
                del sent[client]
                if name in ("DATA", "MAIL+RCPT+DATA"):
                    awaits_text.add(client)
    return found


def _command_of(data: bytes) -> str:
    verb = data[:4].decode("latin-1").upper()
    return "MAIL+RCPT+DATA" if verb == "MAIL" and data.count(b"\n") > 1 else verb


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of values that are in order, with the rank that HdrHistogram takes."""
    return values[max(1, math.floor(len(values) * percent / 100 + 0.5)) - 1]


@dataclass(frozen=True, slots=True)
class Case:
    """A run to compare.

    Attributes:
        title: What it is, for the table.
        scenario: Scenario in the folder of this file.
        options: Options of `smtpbench run`.
    """

    title: str
    scenario: str
    options: tuple[str, ...]


def measure(case: Case, port: int) -> tuple[dict[str, list[float]], dict[str, Any], int]:
    """Run a case; return the captured latencies in order, the result, and how many packets tcpdump lost."""
    with tempfile.TemporaryDirectory() as folder:
        pcap = Path(folder, "capture")
        argv = ["tcpdump", "-i", "lo", "-w", str(pcap), "-B", str(_CAPTURE_BUFFER_KB), "-s", str(_SNAP_BYTES), "-U",
                "--time-stamp-precision=nano", "-n", "-Z", "root", f"tcp port {port}"]  # fmt: skip
        tcpdump = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        assert tcpdump.stderr is not None
        if not any("listening on" in line for line in tcpdump.stderr):
            raise SystemExit("tcpdump does not start; it needs root")
        try:
            subprocess.run(
                [sys.executable, "-m", "smtpbench.cli.main", "run", str(HERE / f"{case.scenario}.yaml"), "--target",
                 f"smtp://127.0.0.1:{port}", "--out", str(Path(folder, "out")), "--progress", "none", "--no-html",
                 *case.options],
                preexec_fn=pin_to(CLIENT_CORE), check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            tcpdump.send_signal(signal.SIGINT)
            summary = tcpdump.communicate()[1]
        lost = next((int(line.split()[0]) for line in summary.splitlines() if "dropped by kernel" in line), 0)
        result = json.loads(Path(folder, "out", "result.json").read_text())
        found = captured_us(list(segments(pcap, port)))
    return {metric: sorted(values) for metric, values in found.items()}, result, lost


def compare(case: Case, port: int) -> bool:
    """Run a case and print its rows of the table; return whether all differences are within their bounds."""
    found, result, lost = measure(case, port)
    latency, passed = result["latency"], True
    group = "pipeline" if "pipeline" in latency else "group"
    for metric in METRICS[case.scenario]:
        values = found.get(metric)
        key = group if "+" in metric else metric
        if not values or key not in latency:
            print(f"| {case.title} | {metric} | no sample |", flush=True)
            passed = False
            continue
        cells = []
        for percent in PERCENTS:
            wire_us = percentile(values, percent)
            own_us = latency[key]["service"][f"p{percent}_ms"] * 1000
            share, least_us = BOUNDS[percent]
            within = abs(own_us - wire_us) <= max(share * wire_us, least_us)
            passed &= within
            cells.append(f"{wire_us:.0f} / {own_us:.0f}{'' if within else ' !'}")
        print(f"| {case.title} | {metric} | {len(values):,} | {' | '.join(cells)} |", flush=True)
    if lost:
        print(f"tcpdump lost {lost} packets", flush=True)
    return passed


def cases(capacity: dict[str, float]) -> Iterator[Case]:
    """Return the cases.

    Args:
        capacity: Scenario → messages a second that the closed model reached.
    """
    for scenario, name in (("reconnecting", "plain"), ("pipelined", "pipelined")):
        for share in (10, 50, 80):
            rate = max(1, round(capacity[scenario] * share / 100))
            yield Case(f"{name}, open, {share} %", scenario, ("-r", f"{rate}/s", "-d", f"{SECONDS}s", "-c", "500"))
        for connections in (1, 50, 500):
            load = ("-c", str(connections), "-d", f"{SECONDS}s")
            yield Case(f"{name}, closed, {connections}", scenario, load)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="Run only cases with this text in their title.")
    options = parser.parse_args()
    port = free_port()
    with server(smtp_sink_command(port), port):
        capacity = {}
        for scenario in METRICS:
            _, result, _ = measure(Case("", scenario, ("-c", "50", "-d", "3s")), port)
            capacity[scenario] = result["throughput"]["messages_per_s"]
        print(f"capacity with the capture: {', '.join(f'{name} {rate:,.0f}/s' for name, rate in capacity.items())}")
        print("\nMicroseconds, capture / smtpbench; ! is out of bounds.\n")
        print("| case | metric | count | p50 | p90 | p99 |\n|---|---|---|---|---|---|")
        passed = [compare(case, port) for case in cases(capacity) if options.only in case.title]
    print("\nAll percentiles are within their bounds." if all(passed) else "\nA percentile is out of its bounds.")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
