"""`--metrics`: figures of a run for Prometheus, while it is in progress.

Theory of operation
===================

Scrapes must not delay the event loop of the run. A tick therefore only queues its interval. A task adds the queued intervals
up and answers scrapes, in steps of less than a millisecond, and yields to the loop between two steps. A turn of a busy loop
handles some hundred replies, so a scrape takes some tenths of a second, which Prometheus tolerates.

The counters add up what the result counts (`Tick.measured`). After the last tick they equal the figures of the result. The
warm-up is in neither.

The listener is on 127.0.0.1, so only this machine can scrape.
"""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import accumulate
from typing import TypeVar

import trio

from smtpbench import __version__
from smtpbench.errors import CannotRun, UsageError
from smtpbench.load.run import RunRequest
from smtpbench.measure.files import PHASES, Tick
from smtpbench.measure.recorder import MESSAGE_COUNTS, Interval
from smtpbench.report.formats.buckets import EDGES_TEXT, Buckets
from smtpbench.report.terminal.run_progress import LiveServer, Watcher
from smtpbench.text import visible
from smtpbench.units import NS_PER_MS, NS_PER_S

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
        StateSetMetricFamily,
    )
    from prometheus_client.exposition import choose_encoder
except ModuleNotFoundError:
    raise UsageError("--metrics needs prometheus-client: pip install 'smtpbench-trio[metrics]'") from None

HOST = "127.0.0.1"
PATH = "/metrics"
#: Latencies that one step of an answer writes; each has a line for every bucket.
_LATENCIES_PER_STEP = 3
#: Duration after which the loop of the run gets its turn.
STEP_NS = NS_PER_MS // 2
_REQUEST_BYTES = 8192
#: Limit for a scraper to send its request and to read the answer.
_TIMEOUT_S = 10.0
_BACKLOG = 16


def about(request: RunRequest) -> dict[str, str]:
    """Return the labels of `smtpbench_run_info`."""
    return {
        "scenario": request.file.name,
        "target": request.target.url,
        "model": "open" if request.plan.open_model else "closed",
        "connections": str(request.plan.connections),
        "workers": str(request.plan.workers),
        "seed": str(request.plan.seed),
        "version": __version__,
    }


class _Yielder:
    """Yields to the loop of the run once a step took long enough; its turn may last for many replies."""

    def __init__(self) -> None:
        self._started_ns = 0

    async def if_due(self) -> None:
        """Yield if it is time to; call it between two steps."""
        if time.monotonic_ns() - self._started_ns > STEP_NS:
            await trio.lowlevel.checkpoint()
            self._started_ns = time.monotonic_ns()


class Metrics:
    """What has been measured so far.

    Attributes:
        over: Whether the run has ended.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = {name: visible(value) for name, value in labels.items()}
        self._pending: deque[Tick] = deque()
        self._last: Tick | None = None
        self._messages: Counter[str] = Counter(dict.fromkeys(MESSAGE_COUNTS, 0))
        self._replies: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[str] = Counter()
        self._latencies: dict[tuple[str, bool, str], Buckets] = {}
        self._lock = trio.Lock()
        self._yielder = _Yielder()
        self._scraped = trio.Event()
        self._server: LiveServer | None = None
        self.over = False

    def watch(self, server: LiveServer) -> None:
        """Serve what the server uses, from now on."""
        self._server = server

    def tick(self, tick: Tick) -> None:
        """Queue a second."""
        self._pending.append(tick)

    async def add_pending(self) -> None:
        """Add up the queued seconds."""
        async with self._lock:
            await self._add_pending()

    async def _add_pending(self) -> None:
        while self._pending:
            self._last = self._pending.popleft()
            for _ in self._add_steps(self._last.interval if self._last.measured is None else self._last.measured):
                await self._yielder.if_due()

    def _add_steps(self, interval: Interval) -> Iterator[None]:
        self._messages.update(interval.messages)
        self._errors.update(interval.errors)
        for (verb, code, _, _), count in interval.replies.items():
            self._replies[verb, f"{code // 100}xx" if code else "malformed"] += count
        for (metric, expected), latency in interval.latencies.items():
            for time_kind in ("service", "response"):
                yield
                self._latencies.setdefault((metric, expected, time_kind), Buckets()).add(getattr(latency, time_kind))

    async def answer(self, accept: str) -> tuple[str, bytes]:
        """Return content type and text, in the format that an Accept header asks for."""
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # the library parses the header, which may hold anything
            encode, content_type = choose_encoder("")
        lines: list[bytes] = []
        async with self._lock:
            last = self.over  # no more ticks are queued then
            await self._add_pending()
            name = ""
            for family in self._families():
                text = encode(_SingleFamily(family)).removesuffix(b"# EOF\n")
                if family.name == name:  # a continued family, whose head was sent
                    text = b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"#"))
                name = family.name
                lines.append(text)
                await self._yielder.if_due()
            if last:
                self._scraped.set()
        return content_type, b"".join(lines) + (b"# EOF\n" if "openmetrics" in content_type else b"")

    def _families(self) -> Iterator[Metric]:
        yield InfoMetricFamily("smtpbench_run", "Settings of the run.", self._labels)
        yield from self._health()
        yield from self._server_families()
        messages = CounterMetricFamily("smtpbench_messages", "Messages by outcome, without the warm-up.", labels=["outcome"])
        for outcome, count in self._messages.items():
            messages.add_metric([outcome], count)
        yield messages
        replies = CounterMetricFamily(
            "smtpbench_replies", "Replies by verb and class of the code.", labels=["verb", "class"]
        )
        for (verb, kind), count in self._replies.items():
            replies.add_metric([visible(verb), kind], count)
        yield replies
        errors = CounterMetricFamily("smtpbench_errors", "Errors by kind.", labels=["kind"])
        for kind, count in self._errors.items():
            errors.add_metric([visible(kind)], count)
        yield errors
        yield from self._histograms()

    def _histograms(self) -> Iterator[Metric]:
        """Yield the family of latencies, a few of them at a time."""
        found = list(self._latencies.items())
        for start in range(0, max(1, len(found)), _LATENCIES_PER_STEP):
            family = HistogramMetricFamily(
                "smtpbench_latency_seconds",
                "Service and response times by metric; expected: whether the reply was one that the scenario expects.",
                labels=["slot", "expected", "time"],
            )
            for (metric, expected, time_kind), buckets in found[start : start + _LATENCIES_PER_STEP]:
                family.add_metric(
                    [visible(metric), str(expected).lower(), time_kind],
                    list(zip(EDGES_TEXT, map(float, accumulate(buckets.counts)), strict=True)),
                    buckets.sum_ns / NS_PER_S,
                )
            yield family

    def _health(self) -> Iterator[Metric]:
        last = self._last
        phases = {phase: last is not None and last.phase == phase and not self.over for phase in PHASES}
        states = StateSetMetricFamily("smtpbench_phase", "Phase of the run; over once its last second is counted.")
        states.add_metric([], {**phases, "over": self.over})
        yield states
        gauges = {
            "smtpbench_elapsed_seconds": ("Time since the first arrival, warm-up included.", last.end_s if last else 0.0),
            "smtpbench_connections_open": ("Open connections.", last.connections_open if last else 0),
            "smtpbench_connections_busy": ("Connections that wait for a reply.", last.busy if last else 0),
            "smtpbench_arrivals_waiting": ("Arrivals that wait for a connection.", last.waiting if last else 0),
            "smtpbench_generator_cpu_cores": ("CPU of the generator, summed over workers.", last.cpu_share if last else 0.0),
            "smtpbench_generator_loop_lag_seconds": (
                "Longest delay of a timer of the generator in the last second.",
                last.lag_ms * NS_PER_MS / NS_PER_S if last else 0.0,
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)

    def _server_families(self) -> Iterator[Metric]:
        """Yield what the server under test has used by its last sample; what cannot be read is left out."""
        server = self._server
        if server is None or not server.samples:  # nothing is known of its processes
            return
        yield CounterMetricFamily("smtpbench_server_deaths", "Deaths of the server.", len(server.deaths))
        last = server.samples[-1]
        for name, label, text, values in (
            ("cpu_seconds", "mode", "CPU time of the server under test, by mode.",
             {"user": last.cpu_user_s, "system": last.cpu_system_s}),
            ("disk_bytes", "direction", "Octets that the server read from disks and wrote to them.",
             {"read": last.read_bytes, "write": last.write_bytes}),
        ):  # fmt: skip
            family = CounterMetricFamily(f"smtpbench_server_{name}", text, labels=[label])
            for labelled, value in values.items():
                if value is not None:
                    family.add_metric([labelled], value)
            yield family
        yield CounterMetricFamily("smtpbench_server_restarts", "How often the server was started again.", last.restarts)
        for name, text, held in (
            ("memory_bytes", "Memory of the server.", last.memory_bytes),
            ("descriptors", "Open descriptors of the server.", last.fds),
            ("threads", "Threads of the server.", last.threads),
            ("processes", "Processes of the server.", last.processes),
        ):
            if held is not None:
                yield GaugeMetricFamily(f"smtpbench_server_{name}", text, held)

    async def let_scrape(self, hold_s: float) -> None:
        """Wait, after the run, until the last figures were read, for at most hold_s seconds or until a signal."""
        self.over = True
        if not hold_s:
            return
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, trio.move_on_after(hold_s) as waiting:
            async with trio.open_nursery() as nursery:

                async def wait_for_signal() -> None:
                    async for _ in signals:
                        waiting.cancel()

                nursery.start_soon(wait_for_signal)
                await self._scraped.wait()
                nursery.cancel_scope.cancel()


class _SingleFamily:
    """A registry that holds one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class _WatcherAndMetrics:
    """Passes a run on to another watcher and to the metrics."""

    def __init__(self, watcher: Watcher, metrics: Metrics) -> None:
        self._watcher = watcher
        self._metrics = metrics
        self.notify = watcher.notify
        self.preparing = watcher.preparing

    def tick(self, tick: Tick, totals: Interval) -> None:
        self._metrics.tick(tick)
        self._watcher.tick(tick, totals)

    def watch(self, server: LiveServer) -> None:
        self._metrics.watch(server)
        self._watcher.watch(server)


T = TypeVar("T")


async def serving(
    port: int, hold_ns: int, labels: Mapping[str, str], watcher: Watcher, job: Callable[[Watcher], Awaitable[T]]
) -> T:
    """Run a job, serve its metrics meanwhile, and return or raise what the job returns or raises.

    Args:
        port: Port to listen on; 0 takes a free one, which the watcher is notified of.
        hold_ns: Longest wait for a last scrape after the job, nanoseconds.
        labels: Labels of `smtpbench_run_info`.
        watcher: Watcher to pass the run on to.
        job: The job, which reports to the watcher that it is given.

    Raises:
        CannotRun: The port is in use; the job is not started.
    """
    sock = _listening(port)
    watcher.notify(f"metrics: http://{HOST}:{sock.getsockname()[1]}{PATH}")
    metrics = Metrics(labels)
    done: list[T] = []
    job_error: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            trio.serve_listeners, lambda stream: _answer_request(stream, metrics), [trio.SocketListener(sock)]
        )
        nursery.start_soon(_add_pending_every_second, metrics)
        try:
            done.append(await job(_WatcherAndMetrics(watcher, metrics)))
        except Exception as error:  # raised outside the nursery, which would wrap it
            job_error = error
        else:
            await metrics.let_scrape(hold_ns / NS_PER_S)
        nursery.cancel_scope.cancel()
    if job_error is not None:
        raise job_error
    return done[0]


def _listening(port: int) -> trio.socket.SocketType:
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.bind((HOST, port))
        raw.listen(_BACKLOG)
    except OSError as error:
        raw.close()
        why = error.strerror or str(error)
        raise CannotRun(f"--metrics {port}: cannot listen on {HOST}: {why.lower()}; port 0 takes a free one") from None
    return trio.socket.from_stdlib_socket(raw)


async def _add_pending_every_second(metrics: Metrics) -> None:
    while True:
        await trio.sleep(1)
        await metrics.add_pending()


async def _answer_request(stream: trio.SocketStream, metrics: Metrics) -> None:
    """Answer one request (RFC 9112) of any client."""
    with trio.move_on_after(_TIMEOUT_S):
        try:
            async with stream:
                head = b""
                while b"\r\n\r\n" not in head and len(head) <= _REQUEST_BYTES:
                    piece = await stream.receive_some(_REQUEST_BYTES)
                    if not piece:
                        return
                    head += piece
                await stream.send_all(await respond(head, metrics))
        except trio.BrokenResourceError:
            return


async def respond(head: bytes, metrics: Metrics) -> bytes:
    """Return the answer to the head of a request."""
    first, *fields = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if b"\r\n\r\n" not in head or not rest:
        return _response("400 Bad Request", "text/plain", b"not an HTTP request\n")
    if path != PATH:
        return _response("404 Not Found", "text/plain", f"not found; available: {PATH}\n".encode())
    if method != "GET":
        return _response("405 Method Not Allowed", "text/plain", b"method not allowed; allowed: GET\n", "Allow: GET\r\n")
    accept = [value for name, _, value in (field.partition(":") for field in fields) if name.lower() == "accept"]
    return _response("200 OK", *await metrics.answer(",".join(accept)))


def _response(status: str, content_type: str, body: bytes, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}Connection: close\r\n\r\n".encode() + body
