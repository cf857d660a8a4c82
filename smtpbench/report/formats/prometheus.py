"""`--metrics`: a run's figures for Prometheus, while it goes on.

Theory of operation
===================

The run's loop must not wait for whoever watches it. So a tick only puts its interval aside; a task adds the intervals up,
and answers scrapes, in steps of less than a millisecond between which the loop goes on. In a busy loop a turn lasts for
some hundred replies, so a scrape takes some tenths of a second, which hurts nobody.

What is added up is what the result counts (`Tick.measured`): after the last tick the counters are the result's figures,
and the warm-up is in neither.

Only this machine can scrape: the listener is on 127.0.0.1.
"""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import accumulate
from typing import Protocol, TypeVar

import trio

from smtpbench import __version__
from smtpbench.errors import CannotRun, UsageError
from smtpbench.load.run import RunRequest
from smtpbench.measure.files import PHASES, Tick
from smtpbench.measure.recorder import MESSAGE_COUNTS, Interval
from smtpbench.report.formats.buckets import EDGES_TEXT, Buckets
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
#: Latencies that one step of an answer writes; each has a line for every edge.
_LATENCIES_A_STEP = 3
#: After so long the run's loop gets its turn.
STEP_NS = NS_PER_MS // 2
_REQUEST_BYTES = 8192
#: How long a scraper may take to ask, or to read the answer.
_TIMEOUT_S = 10.0
_BACKLOG = 16


class Watcher(Protocol):
    """Who watches the run besides: a view."""

    def tick(self, tick: Tick, totals: Interval) -> None: ...
    def notify(self, text: str) -> None: ...


def about(request: RunRequest) -> dict[str, str]:
    """The labels of `smtpbench_run_info`."""
    return {
        "scenario": request.file.name,
        "target": request.target.url,
        "model": "open" if request.plan.open_model else "closed",
        "connections": str(request.plan.connections),
        "workers": str(request.plan.workers),
        "seed": str(request.plan.seed),
        "version": __version__,
    }


class _Pause:
    """Lets the run's loop go on once enough time was spent: its turn may last for many replies, so not oftener."""

    def __init__(self) -> None:
        self._since_ns = 0

    async def if_due(self) -> None:
        """Between two steps."""
        if time.monotonic_ns() - self._since_ns > STEP_NS:
            await trio.lowlevel.checkpoint()
            self._since_ns = time.monotonic_ns()


class Metrics:
    """What has been measured so far. labels: what the run is called, and what of it does not change."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = {name: visible(value) for name, value in labels.items()}
        self._pending: deque[Tick] = deque()
        self._last: Tick | None = None
        self._messages: Counter[str] = Counter(dict.fromkeys(MESSAGE_COUNTS, 0))
        self._replies: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[str] = Counter()
        self._latencies: dict[tuple[str, bool, str], Buckets] = {}
        self._one_at_a_time = trio.Lock()
        self._pause = _Pause()
        self._scraped = trio.Event()
        self.over = False

    def tick(self, tick: Tick) -> None:
        """Put a second aside."""
        self._pending.append(tick)

    async def settle(self) -> None:
        """Add up what was put aside."""
        async with self._one_at_a_time:
            await self._settle()

    async def _settle(self) -> None:
        while self._pending:
            self._last = self._pending.popleft()
            for _ in self._add_steps(self._last.interval if self._last.measured is None else self._last.measured):
                await self._pause.if_due()

    def _add_steps(self, interval: Interval) -> Iterator[None]:
        self._messages.update(interval.messages)
        self._errors.update(interval.errors)
        for (verb, code, _, _), count in interval.replies.items():
            self._replies[verb, f"{code // 100}xx" if code else "malformed"] += count
        for (slot, expected), latency in interval.latencies.items():
            for which in ("service", "response"):
                yield
                self._latencies.setdefault((slot, expected, which), Buckets()).add(getattr(latency, which))

    async def answer(self, accept: str) -> tuple[str, bytes]:
        """Content type and text, of the format that an Accept header asks for."""
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # the library takes apart what it is sent, and it is sent anything
            encode, content_type = choose_encoder("")
        lines: list[bytes] = []
        async with self._one_at_a_time:
            last = self.over  # what is over now has nothing more to put aside
            await self._settle()
            name = ""
            for family in self._families():
                text = encode(_Only(family)).removesuffix(b"# EOF\n")
                if family.name == name:  # more of the same: the head was said
                    text = b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"#"))
                name = family.name
                lines.append(text)
                await self._pause.if_due()
            if last:
                self._scraped.set()
        return content_type, b"".join(lines) + (b"# EOF\n" if "openmetrics" in content_type else b"")

    def _families(self) -> Iterator[Metric]:
        yield InfoMetricFamily("smtpbench_run", "The run: what, where and how.", self._labels)
        yield from self._health()
        messages = CounterMetricFamily("smtpbench_messages", "Messages by outcome, but the warm-up's.", labels=["outcome"])
        for outcome, count in self._messages.items():
            messages.add_metric([outcome], count)
        yield messages
        replies = CounterMetricFamily(
            "smtpbench_replies", "Replies by the verb they answer and their code's class.", labels=["verb", "class"]
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
        """The one family of latencies, a few of them at a time."""
        found = list(self._latencies.items())
        for start in range(0, max(1, len(found)), _LATENCIES_A_STEP):
            family = HistogramMetricFamily(
                "smtpbench_latency_seconds",
                "Service and response times by slot; expected: whether what was timed went as the scenario says.",
                labels=["slot", "expected", "time"],
            )
            for (slot, expected, which), buckets in found[start : start + _LATENCIES_A_STEP]:
                family.add_metric(
                    [visible(slot), str(expected).lower(), which],
                    list(zip(EDGES_TEXT, map(float, accumulate(buckets.counts)), strict=True)),
                    buckets.sum_ns / NS_PER_S,
                )
            yield family

    def _health(self) -> Iterator[Metric]:
        last = self._last
        phases = {phase: last is not None and last.phase == phase and not self.over for phase in PHASES}
        states = StateSetMetricFamily("smtpbench_phase", "Where the run is; over when its last second is counted.")
        states.add_metric([], {**phases, "over": self.over})
        yield states
        gauges = {
            "smtpbench_elapsed_seconds": ("From the first arrival, warm-up included.", last.end_s if last else 0.0),
            "smtpbench_connections_open": ("Connections.", last.connections_open if last else 0),
            "smtpbench_connections_busy": ("Connections on which something is under way.", last.busy if last else 0),
            "smtpbench_arrivals_waiting": ("Arrivals without a connection.", last.waiting if last else 0),
            "smtpbench_generator_cpu_cores": ("The generator's CPU, summed over workers.", last.cpu_share if last else 0.0),
            "smtpbench_generator_loop_lag_seconds": (
                "The longest that a timer of the generator waited in the last second.",
                last.lag_ms * NS_PER_MS / NS_PER_S if last else 0.0,
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)

    async def let_scrape(self, hold_s: float) -> None:
        """The run is over: wait until somebody has read the last figures, for hold_s seconds at most or until a signal."""
        self.over = True
        if not hold_s:
            return
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, trio.move_on_after(hold_s) as waiting:
            async with trio.open_nursery() as nursery:

                async def obey() -> None:
                    async for _ in signals:
                        waiting.cancel()

                nursery.start_soon(obey)
                await self._scraped.wait()
                nursery.cancel_scope.cancel()


class _Only:
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class _Both:
    """Shows a run to a view and to scrapers."""

    def __init__(self, shown: Watcher, metrics: Metrics) -> None:
        self._shown = shown
        self._metrics = metrics
        self.notify = shown.notify

    def tick(self, tick: Tick, totals: Interval) -> None:
        self._metrics.tick(tick)
        self._shown.tick(tick, totals)


T = TypeVar("T")


async def serving(
    port: int, hold_ns: int, labels: Mapping[str, str], shown: Watcher, job: Callable[[Watcher], Awaitable[T]]
) -> T:
    """Do a job that is watched, and serve what it shows meanwhile; what the job returns or raises.

    port: 0 takes a free one, and the view is told which. hold_ns: after the job, how long to wait for a last scrape.
    Raises CannotRun where the port is taken, before the job begins.
    """
    sock = _listening(port)
    shown.notify(f"metrics: http://{HOST}:{sock.getsockname()[1]}{PATH}")
    metrics = Metrics(labels)
    done: list[T] = []
    trouble: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, lambda stream: _converse(stream, metrics), [trio.SocketListener(sock)])
        nursery.start_soon(_settle_now_and_then, metrics)
        try:
            done.append(await job(_Both(shown, metrics)))
        except Exception as error:  # it goes on outside the nursery, which would wrap it
            trouble = error
        else:
            await metrics.let_scrape(hold_ns / NS_PER_S)
        nursery.cancel_scope.cancel()
    if trouble is not None:
        raise trouble
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


async def _settle_now_and_then(metrics: Metrics) -> None:
    while True:
        await trio.sleep(1)
        await metrics.settle()


async def _converse(stream: trio.SocketStream, metrics: Metrics) -> None:
    """One request and its answer (RFC 9112), whatever the other side is."""
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
    """The answer to a request's head."""
    first, *fields = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if b"\r\n\r\n" not in head or not rest:
        return _response("400 Bad Request", "text/plain", b"this is no request\n")
    if path != PATH:
        return _response("404 Not Found", "text/plain", f"there is {PATH}\n".encode())
    if method != "GET":
        return _response("405 Method Not Allowed", "text/plain", b"there is GET\n", "Allow: GET\r\n")
    accept = [value for name, _, value in (field.partition(":") for field in fields) if name.lower() == "accept"]
    return _response("200 OK", *await metrics.answer(",".join(accept)))


def _response(status: str, content_type: str, body: bytes, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}Connection: close\r\n\r\n".encode() + body
