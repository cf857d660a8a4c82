"""Metrics of a run for Prometheus: read by its own parsers and compared with what was counted."""

from __future__ import annotations

import random
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence, Sized
from pathlib import Path

import pytest
import trio
from figures import MS, busy_recorder, sample, tick
from prometheus_client import parser as plain
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.samples import Sample
from runner import finish, sink, start

from smtpbench.errors import CannotRun
from smtpbench.measure.files import Tick
from smtpbench.measure.histogram import Histogram, index_of
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.measure.server_usage import UsageSample
from smtpbench.report.formats.buckets import EDGES_MS, Buckets
from smtpbench.report.formats.prometheus import PATH, Metrics, respond, serving
from smtpbench.report.terminal.run_progress import LiveServer, Watcher

OPEN = "application/openmetrics-text;version=1.0.0"


def read(text: bytes, *, open_format: bool = False) -> dict[str, list[Sample]]:
    """Return samples by name."""
    families: Iterable[object] = (openmetrics if open_format else plain).text_string_to_metric_families(text.decode())
    found: dict[str, list[Sample]] = {}
    for family in families:
        for one in getattr(family, "samples"):  # noqa: B009  (the library has no types for it)
            found.setdefault(one.name, []).append(one)
    return found


def counters(samples: dict[str, list[Sample]]) -> dict[tuple[str, ...], float]:
    """Return every value that may only grow, by name and labels."""
    return {
        (name, *(f"{label}={value}" for label, value in sorted(one.labels.items()))): one.value
        for name, found in samples.items()
        for one in found
        if name.endswith(("_total", "_bucket", "_count", "_sum"))
    }


def phase(samples: dict[str, list[Sample]]) -> str:
    """Return the phase of a run; empty before its first second."""
    states = {one.labels["smtpbench_phase"]: one.value for one in samples["smtpbench_phase"]}
    assert sorted(states) == ["drain", "over", "steady", "warmup"]
    return ",".join(name for name, value in states.items() if value)


def check(samples: dict[str, list[Sample]], totals: Interval) -> None:
    """Assert that the counters equal the totals."""
    messages = {one.labels["outcome"]: one.value for one in samples["smtpbench_messages_total"]}
    assert messages == {name: totals.messages[name] for name in messages}
    assert sum(messages.values()) == totals.attempted
    replies: Counter[tuple[str, str]] = Counter()
    for (verb, code, _, _), count in totals.replies.items():
        replies[verb, f"{code // 100}xx"] += count
    assert {(one.labels["verb"], one.labels["class"]): one.value for one in samples["smtpbench_replies_total"]} == replies
    assert {one.labels["kind"]: one.value for one in samples.get("smtpbench_errors_total", [])} == totals.errors
    counts = {tuple(sorted(one.labels.items())): one.value for one in samples["smtpbench_latency_seconds_count"]}
    sums = {tuple(sorted(one.labels.items())): one.value for one in samples["smtpbench_latency_seconds_sum"]}
    assert len(counts) == 2 * len(totals.latencies)
    for (metric, ok), latency in totals.latencies.items():
        for kind in ("service", "response"):
            key = ("expected", str(ok).lower()), ("slot", metric), ("time", kind)
            histogram: Histogram = getattr(latency, kind)
            assert counts[key] == histogram.count
            assert sums[key] == pytest.approx(histogram.sum_ns / 1e9)


@pytest.mark.parametrize("accept", ["", "text/plain", OPEN, "*/*;q=0.1"])
async def test_counters_grow_to_the_totals_without_the_warmup(accept: str) -> None:
    metrics, totals = Metrics({"scenario": "relay"}), Interval()
    warm = busy_recorder(500, seed=99).drain()
    metrics.tick(tick(warm, phase="warmup", measured=Interval()))
    before: dict[tuple[str, ...], float] = {}
    for second in range(5):
        interval = busy_recorder(800, seed=second, late_us=2000).drain()
        totals.add(interval)
        metrics.tick(tick(interval, end_s=2.0 + second))
        kind, text = await metrics.answer(accept)
        found = read(text, open_format=accept == OPEN)
        check(found, totals)
        now = counters(found)
        assert all(now[name] >= value for name, value in before.items())
        before = now
    assert kind.startswith("application/openmetrics-text" if accept == OPEN else "text/plain")
    assert text.count(b"# TYPE smtpbench_latency_seconds histogram\n") == 1
    assert found["smtpbench_run_info"][0].labels == {"scenario": "relay"}
    assert phase(found) == "steady"
    gauges = {"elapsed_seconds": 6.0, "connections_open": 10, "connections_busy": 4, "arrivals_waiting": 0}
    assert {name: found[f"smtpbench_{name}"][0].value for name in gauges} == gauges
    assert found["smtpbench_generator_cpu_cores"][0].value == 0.256
    assert found["smtpbench_generator_loop_lag_seconds"][0].value == pytest.approx(0.0015)


async def test_counters_are_zero_before_the_first_second() -> None:
    found = read((await Metrics({}).answer(""))[1])
    assert [one.value for one in found["smtpbench_messages_total"]] == [0] * 5
    assert found["smtpbench_elapsed_seconds"][0].value == 0


class Server:
    """A server that was watched for two seconds."""

    samples: Sequence[UsageSample] = (
        UsageSample(0, 1.0, 0.5, memory_bytes=1 << 20, processes=3),
        UsageSample(10**9, 1.75, 0.75, memory_bytes=3 << 20, processes=4, fds=30, write_bytes=4096, restarts=1),
    )
    deaths: Sized = ("one",)


@pytest.mark.parametrize("accept", ["", OPEN])
async def test_server_under_test_is_served_by_its_last_sample(accept: str) -> None:
    metrics = Metrics({})
    before = (await metrics.answer(accept))[1]
    assert b"smtpbench_server" not in before
    unknown = Server()
    unknown.samples = ()
    metrics.watch(unknown)
    assert b"smtpbench_server" not in (await metrics.answer(accept))[1]
    metrics.watch(Server())
    found = read((await metrics.answer(accept))[1], open_format=accept == OPEN)
    cpu_s = {one.labels["mode"]: one.value for one in found["smtpbench_server_cpu_seconds_total"]}
    assert cpu_s == {"user": 1.75, "system": 0.75}
    assert {one.labels["direction"]: one.value for one in found["smtpbench_server_disk_bytes_total"]} == {"write": 4096}
    values = {name.removeprefix("smtpbench_server_"): one[0].value for name, one in found.items() if "_server_" in name}
    assert values["memory_bytes"] == 3 << 20
    assert (values["descriptors"], values["processes"]) == (30, 4)
    assert (values["restarts_total"], values["deaths_total"]) == (1, 1)
    assert "threads" not in values  # they are not known


def test_bucket_holds_samples_up_to_its_edge() -> None:
    draw = random.Random(5)
    samples_ns = [round(10 ** draw.uniform(3, 11)) for _ in range(3000)]
    samples_ns += [round(edge_ms * MS) for edge_ms in EDGES_MS]
    buckets = Buckets()
    buckets.add(Histogram.of(samples_ns[:1000]))
    buckets.add(Histogram.of(samples_ns[1000:]))
    assert sum(buckets.counts) == len(samples_ns)
    assert buckets.sum_ns == sum(samples_ns)
    below = 0
    for edge_ms, count in zip(EDGES_MS, buckets.counts, strict=False):
        below += count
        assert below == sum(index_of(ns // 1000) <= index_of(round(edge_ms * 1000)) for ns in samples_ns)
        edge_ns = edge_ms * MS
        assert sum(ns <= edge_ns for ns in samples_ns) <= below <= sum(ns < 1.001 * edge_ns + 1000 for ns in samples_ns)


@pytest.mark.parametrize("open_format", [False, True])
async def test_text_of_a_scenario_or_server_cannot_break_a_line(open_format: bool) -> None:
    hostile = 'x"} 1\nsmtpbench_messages_total{outcome="accepted"} 9e9\\\x1b\udcff\u202e'
    metrics, recorder = Metrics({"scenario": hostile}), Recorder()
    recorder.samples(hostile, hostile, b"250 ok\r\n", True).append(sample(MS))
    recorder.samples("RCPT", "", b"what?\r\n", False).append(sample(MS))
    recorder.error(hostile)
    metrics.tick(tick(recorder.drain()))
    found = read((await metrics.answer(OPEN if open_format else ""))[1], open_format=open_format)
    assert [one.value for one in found["smtpbench_messages_total"]] == [0] * 5
    assert {one.labels["class"] for one in found["smtpbench_replies_total"]} == {"2xx", "malformed"}
    shown = found["smtpbench_errors_total"][0].labels["kind"]
    assert "\\x1b" in shown
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK"),
        (b"GET /metrics?x=1 HTTP/1.1\r\nACCEPT: application/openmetrics-text;version=boo;escaping=;;,\r\n\r\n", b"200 OK"),
        (b"GET /metrics HTTP/1.1\r\nAccept: \xff\xfe;;;=,,text/plain;version=1.x\r\n\r\n", b"200 OK"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"EHLO\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics " + b"x" * 9000, b"400 Bad Request"),
    ],
)
async def test_every_request_is_answered(head: bytes, status: bytes) -> None:
    answer = await respond(head, Metrics({}))
    head_of_answer, _, body = answer.partition(b"\r\n\r\n")
    assert head_of_answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head_of_answer)
    assert length
    assert int(length[1]) == len(body) > 0


class RecordingWatcher:
    """A watcher that records what it is told."""

    def __init__(self) -> None:
        self.notifications: list[str] = []
        self.ticks = 0

    def preparing(self, done: int, total: int) -> None: ...
    def watch(self, server: LiveServer) -> None: ...

    def tick(self, tick: Tick, totals: Interval) -> None:
        self.ticks += 1

    def notify(self, text: str) -> None:
        self.notifications.append(text)

    @property
    def port(self) -> int:
        found = re.fullmatch(r"metrics: http://127\.0\.0\.1:(\d+)/metrics", self.notifications[0])
        assert found
        return int(found[1])


async def scrape(port: int, request: bytes = b"GET /metrics HTTP/1.1\r\n\r\n") -> bytes:
    """Return what the server sends until it closes the connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        return b"".join([piece async for piece in stream])


async def serve(
    job: Callable[[Watcher], Awaitable[str]], recording: RecordingWatcher, port: int = 0, hold_ns: int = 0
) -> str:
    with trio.fail_after(30):
        return await serving(port, hold_ns, {}, recording, job)


async def test_scrape_after_the_run_holds_its_last_second() -> None:
    recording, scraped = RecordingWatcher(), []
    totals = busy_recorder().drain()

    async def job(watcher: Watcher) -> str:
        watcher.tick(tick(totals, phase="drain"), totals)
        nursery.start_soon(late)
        return "done"

    async def late() -> None:
        await trio.testing.wait_all_tasks_blocked()  # the job has returned, and the hold has begun
        scraped.append(await scrape(recording.port))

    async with trio.open_nursery() as nursery:
        assert await serve(job, recording, hold_ns=20 * 10**9) == "done"
    found = read(scraped[0].partition(b"\r\n\r\n")[2])
    check(found, totals)
    assert phase(found) == "over"
    assert recording.ticks == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", recording.port))


async def test_misbehaving_client_does_not_end_the_run() -> None:
    recording = RecordingWatcher()

    async def job(watcher: Watcher) -> str:
        assert (await scrape(recording.port, b"x" * 8193)).startswith(b"HTTP/1.1 400")
        for request in (b"", b"GET /metrics HTTP/1.1\r\n\r\n"):  # gone before the answer
            gone = socket.create_connection(("127.0.0.1", recording.port))
            gone.sendall(request)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.close()
            await trio.testing.wait_all_tasks_blocked()
        assert (await scrape(recording.port)).startswith(b"HTTP/1.1 200")
        return "done"

    assert await serve(job, recording) == "done"


async def test_error_of_the_run_is_passed_on() -> None:
    async def job(watcher: Watcher) -> str:
        raise CannotRun("nothing listens there")

    with pytest.raises(CannotRun, match="nothing listens there"):
        await serve(job, RecordingWatcher(), hold_ns=20 * 10**9)


async def test_port_in_use_is_reported_before_the_run() -> None:
    async def job(watcher: Watcher) -> str:
        raise AssertionError("the run began")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotRun, match=f"--metrics {port}: cannot listen on 127.0.0.1: address already in use"):
            await serve(job, RecordingWatcher(), port)


@pytest.mark.parametrize("workers", [1, 2])
def test_run_is_scraped_from_start_to_end(tmp_path: Path, workers: int) -> None:
    with sink() as (port, _):
        argv = ["run", "relay", "--target", f"smtp://127.0.0.1:{port}", "-r", "300/s", "-d", "2s", "--warmup", "1s"]
        process = start(*argv, "--workers", str(workers), "--out", str(tmp_path), "--progress", "none", "--metrics", "0",
                        "--metrics-hold", "30s")  # fmt: skip
        assert process.stderr is not None
        announced = re.fullmatch(r"smtpbench: metrics: (http://127\.0\.0\.1:\d+" + PATH + r")\n", process.stderr.readline())
        assert announced
        scrapes: list[dict[str, list[Sample]]] = []
        while not scrapes or phase(scrapes[-1]) != "over":
            with urllib.request.urlopen(announced[1], timeout=30) as answer:
                scrapes.append(read(answer.read()))
            time.sleep(0.1)  # only limits how often it scrapes; the loop ends with the phase
        done = finish(process, tmp_path)
    assert done.code == 0
    assert len(scrapes) > 2
    for before, after in zip(map(counters, scrapes), map(counters, scrapes[1:]), strict=False):
        assert all(after[name] >= value for name, value in before.items())
    last, result = scrapes[-1], done.result
    accepted = {one.value for scraped in scrapes for one in scraped["smtpbench_messages_total"]}
    assert any(0 < value < 600 for value in accepted)  # it was scraped while it was running
    assert {one.labels["outcome"]: one.value for one in last["smtpbench_messages_total"]} == {
        name: count for name, count in result["messages"].items() if name != "attempted"
    }
    assert result["messages"]["accepted"] == 600
    for one in last["smtpbench_latency_seconds_count"]:
        section = result["latency" if one.labels["expected"] == "true" else "latency_failed"]
        assert one.value == section[one.labels["slot"]][one.labels["time"]]["count"]
    replies = {(one.labels["verb"], one.labels["class"]): one.value for one in last["smtpbench_replies_total"]}
    assert replies["RCPT", "2xx"] == result["replies"]["RCPT"]["250"]
    labels = last["smtpbench_run_info"][0].labels
    assert (labels["scenario"], labels["model"], labels["workers"]) == ("relay", "open", str(workers))
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(announced[1], timeout=30)


def python(code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False, timeout=60)


def test_missing_package_is_one_clear_error(tmp_path: Path) -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; from smtpbench.cli.main import main; main()"
    done = python(code, "run", "relay", "--target", "smtp://127.0.0.1:1", "--metrics", "0", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr == "smtpbench: --metrics needs prometheus-client: pip install 'smtpbench-trio[metrics]'\n"
    assert not (tmp_path / "out").exists()


def test_run_without_metrics_does_not_import_the_package() -> None:
    assert python("import sys, smtpbench.cli.run; print('prometheus_client' in sys.modules)").stdout == "False\n"
