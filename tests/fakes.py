"""Fakes that the tests share: a recorder, a scheduler, and a client session to feed with replies."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from smtpbench.engine import api
from smtpbench.measure.server_usage import MeasuredServer, UsageSample
from smtpbench.session import script as s
from smtpbench.session.client import ClientSession
from smtpbench.session.context import LATE_SHIFT, START, STOP, UNSCHEDULED, SessionContext, UnansweredSample
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.session.transcript import Transcript
from smtpbench.supervisor.death import Death, LogLine


class FakeRecorder:
    """Keeps every sample and every count for a test to read."""

    def __init__(self, reply_count: int = 64) -> None:
        self.reply_caches: list[dict[bytes, Any]] = [{} for _ in range(reply_count)]
        self.accepted = self.rejected = self.failed = self.dropped = self.interrupted = 0
        self.recipients_accepted = self.recipients_rejected = 0
        self.replies: dict[tuple[str, str, bytes, bool], list[int]] = defaultdict(list)
        self.timings: dict[tuple[str, bool], list[int]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        self.details: list[str] = []
        self.censored: list[UnansweredSample] = []
        self.waits_ns: list[int] = []

    def samples(self, verb: str, metric: str, raw: bytes, ok: bool) -> list[int]:
        return self.replies[verb, metric, raw[:3], ok]

    def timing(self, metric: str, ok: bool = True) -> list[int]:
        return self.timings[metric, ok]

    def error(self, kind: str, detail: str = "", count: int = 1) -> None:
        self.errors[kind] += count
        self.details.append(detail)

    def censor(self, samples: Iterable[UnansweredSample], waits_ns: Sequence[int] = ()) -> None:
        self.censored += samples
        self.waits_ns += waits_ns

    @property
    def messages(self) -> dict[str, int]:
        """The counts that are not zero."""
        names = ("accepted", "rejected", "failed", "dropped", "interrupted")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def codes(self, verb: str) -> dict[str, int]:
        """How often each code answered a verb."""
        counts: Counter[str] = Counter()
        for (of, _, code, _), samples in self.replies.items():
            if of == verb:
                counts[code.decode("latin-1")] += len(samples)
        return dict(counts)

    def service_ns(self, verb: str) -> list[int]:
        """The service times of a verb's expected replies."""
        mask = (1 << LATE_SHIFT) - 1
        return [
            v & mask for (of, metric, _, ok), found in self.replies.items() if of == verb and metric and ok for v in found
        ]


class FakeScheduler:
    """Hands out arrivals 1, 2, 3 …, as many as `iterations`; then answers `at_end` (STOP or WAIT)."""

    def __init__(self, recorder: FakeRecorder, iterations: int = 0, at_end: int = STOP) -> None:
        self.recorder = recorder
        self.iterations = iterations
        self.at_end = at_end
        self.n = 0
        self.ended: list[ClientSession] = []

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        if not self.iterations:
            return self.at_end
        self.iterations -= 1
        self.n += 1
        session.assign(self.n, UNSCHEDULED, self.recorder)
        return START

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        self.ended.append(session)


def command_step(
    text: bytes, *expect: int, kind: int = s.COMMAND, on_unexpected: int = s.CONTINUE, abort_target: int = 0
) -> Step:
    """A command step; its verb is its first word."""
    verb = text.split(b" ")[0].decode()
    return Step(
        kind,
        text + b"\r\n",
        expected_replies=(ExpectedReply(verb, expect or (2,)),),
        metric=verb,
        on_unexpected=on_unexpected,
        abort_target=abort_target,
    )


def message_step(*, abort_target: int = 0) -> Step:
    """A message of one line."""
    return Step(
        s.MESSAGE,
        b"x\r\n.\r\n",
        expected_replies=(ExpectedReply("message", (2,)),),
        metric="message",
        on_unexpected=s.ABORT_TRANSACTION,
        abort_target=abort_target,
    )


def transaction(at: int, rcpts: int = 1) -> tuple[Step, ...]:
    """MAIL, RCPT …, DATA and a message, as steps that begin at program counter `at`."""
    abort_target = at + rcpts + 3
    return (
        command_step(b"MAIL FROM:<a@b.example>", kind=s.MAIL, on_unexpected=s.ABORT_TRANSACTION, abort_target=abort_target),
        *(
            command_step(
                b"RCPT TO:<r%d@b.example>" % i, kind=s.RCPT, on_unexpected=s.ABORT_TRANSACTION, abort_target=abort_target
            )
            for i in range(rcpts)
        ),
        command_step(b"DATA", 3, on_unexpected=s.ABORT_TRANSACTION, abort_target=abort_target),
        message_step(abort_target=abort_target),
    )


def repeated(rcpts: int = 1, iterations: int = 10, **options: Any) -> Script:
    """EHLO, then transactions, then QUIT."""
    steps = (
        command_step(b"EHLO c.example", on_unexpected=s.ABORT_SESSION),
        *transaction(1, rcpts),
        command_step(b"QUIT", 221),
    )
    return Script.of("repeated", steps, loop_start=1, teardown=len(steps) - 1, iterations=iterations, **options)


class FakeSession:
    """A session of the engine: it writes a given output, requests a given action, and records the engine's calls."""

    def __init__(self, output: api.Out = b"", pending_action: int = api.NOTHING, expect: int = 0) -> None:
        self.output, self.first_action, self.expect = output, pending_action, expect
        self.pending_action, self.wake_ns, self.deadline_ns = api.NOTHING, 0, api.NEVER
        self.sent_ns = self.received_ns = 0
        self.timeout_ns = 0  # for each progress of a write, if there is a limit
        self.received = b""
        self.events: list[str] = []
        self.reason = ""
        self.done = trio.Event()

    def connected(self, now_ns: int) -> api.Out:
        self.events.append("connected")
        self.pending_action = self.first_action
        if self.pending_action == api.SLEEP:
            self.wake_ns = now_ns + 5_000_000
        return self.output

    def tls_started(self, now_ns: int) -> api.Out:
        self.events.append("tls_started")
        return self.output

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        self.received += data
        if self.expect and len(self.received) >= self.expect:
            self.pending_action = api.CLOSE
        return b""

    def write_progressed(self, now_ns: int, left_bytes: int) -> None:
        self.events.append("write progressed" if left_bytes else "write finished")
        if self.timeout_ns:
            self.deadline_ns = now_ns + self.timeout_ns

    def octets_acknowledged(self, now_ns: int) -> None:
        self.events.append("octets acknowledged")
        self.deadline_ns = now_ns + self.timeout_ns

    def wake(self, now_ns: int) -> api.Out:
        self.events.append("wake")
        return b"awake"

    def eof_received(self, now_ns: int) -> api.Out:
        self.events.append("eof_received")
        self.pending_action = api.CLOSE
        return b""

    def connection_lost(self, reason: str, detail: str, now_ns: int) -> None:
        self.events.append("connection_lost")
        self.reason = reason
        self.done.set()


class ClientFeed:
    """A client session without a socket: give it replies, get what it writes. Each call takes 1 ms of its clock."""

    def __init__(
        self, script: Script, *, iterations: int = 0, at_end: int = STOP, transcript: bool = False,
        credentials: tuple[str, str] | None = None, late_ns: int | None = None, recorder: FakeRecorder | None = None,
    ) -> None:  # fmt: skip
        self.recorder = recorder or FakeRecorder(script.reply_count)
        self.scheduler = FakeScheduler(self.recorder, iterations, at_end)
        context = SessionContext(script, self.scheduler, timeout_ns=10**9, credentials=credentials)
        self.session = ClientSession(context, Transcript() if transcript else None)
        self.now_ns = 10**9
        self.session.assign(0, UNSCHEDULED if late_ns is None else self.now_ns - late_ns, self.recorder)
        self.session.open(self.now_ns)
        self.sent: deque[bytes] = deque()
        self._collect(self.session.connected(self._tick()))

    def _tick(self) -> int:
        self.now_ns += 1_000_000
        self.session.received_ns = self.now_ns  # as the engine does
        return self.now_ns

    def _collect(self, out: api.Out) -> bytes:
        segments = out if isinstance(out, list) else [b"".join(out)] if isinstance(out, tuple) else [out]
        self.sent.extend(segment for segment in segments if segment)
        return b"".join(segments)

    def receive(self, data: bytes) -> bytes:
        """Feed octets; return what the session writes in answer."""
        return self._collect(self.session.receive(data, self._tick()))

    def receive_each(self, *replies: bytes) -> list[bytes]:
        """Feed replies one after the other; return what the session writes after each."""
        return [self.receive(reply) for reply in replies]

    def write_progressed(self, *, finished: bool = False) -> None:
        """Say that the kernel has taken a part of the last write, or the rest of it."""
        self.session.write_progressed(self._tick(), 0 if finished else 300_000)

    def tls_started(self) -> bytes:
        self.session.pending_action = api.NOTHING
        return self._collect(self.session.tls_started(self._tick()))

    def wake(self) -> bytes:
        self.session.pending_action = api.NOTHING
        return self._collect(self.session.wake(self._tick()))

    def lose_connection(self, reason: str) -> None:
        self.session.connection_lost(reason, "", self._tick())


@contextmanager
def full_disk(largest_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond `largest_bytes`.

    Leave it before the test ends: the limit applies to pytest's own output too.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class NoSpace:
    """A folder whose disk has no space left: a file that is opened there to be written is made, and stays empty.

    Args:
        monkeypatch: Undoes it.
        folder: The folder.
        names: Pattern of the files that there is no space for.
        free: Number of such files that can still be written.

    Attributes:
        free: Number of files that can still be written.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, names: str = "*", free: int = 0) -> None:
        self.free = free
        self._folder, self._names, self._open = folder, names, Path.open
        monkeypatch.setattr(Path, "open", lambda path, mode="r", *args, **named: self._opened(path, mode, *args, **named))

    def _opened(self, path: Path, mode: str, *args: Any, **named: Any) -> Any:
        if mode[0] == "r" or not (path.is_relative_to(self._folder) and path.match(self._names)):
            return self._open(path, mode, *args, **named)
        opened = self._open(path, mode, *args, **named)
        if self.free:
            self.free -= 1
            return opened
        opened.close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class FakeServer:
    """A `SupervisedServer` that dies when a test says so.

    Attributes:
        restarts: How often `restart` was called.
        lines: Lines of its log that match the pattern.
    """

    def __init__(self, *, known: bool = True, can_restart: bool = True) -> None:
        self.known = known
        self.can_restart = can_restart
        self.deaths: list[Death] = []
        self.samples: list[UsageSample] = []
        self.measured = MeasuredServer()
        self.restarts = 0
        self.lines: list[LogLine] = []
        self._died = trio.Event()

    def die(self, death: Death) -> None:
        """End the process now, as `death` says."""
        self.deaths.append(replace(death, at_ns=time.monotonic_ns()))
        self._died.set()
        self._died = trio.Event()

    def log(self, text: str) -> None:
        """Write a line to its log now."""
        self.lines.append(LogLine(time.monotonic_ns(), text))

    async def death_since(self, at_ns: int) -> Death | None:
        with trio.move_on_after(0.3):
            while not (self.deaths and self.deaths[-1].at_ns >= at_ns):
                await self._died.wait()
        return next((death for death in self.deaths if death.at_ns >= at_ns), None)

    async def wait_until_ready(self) -> bool:
        return True

    async def restart(self) -> bool:
        self.restarts += 1
        return True

    def log_lines(self, from_ns: int, to_ns: int) -> list[LogLine]:
        return [line for line in self.lines if from_ns <= line.at_ns <= to_ns]

    def measure(self) -> UsageSample | None:
        return None
