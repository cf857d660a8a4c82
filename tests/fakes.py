"""Fakes that the tests share: a book that remembers, a conductor that says what it is told, and a client to feed."""

from __future__ import annotations

import resource
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.cast import GO, LATE_SHIFT, LEAVE, UNSCHEDULED, Cast
from smtpbench.session.client import ClientSession
from smtpbench.session.script import Ask, Script, Step
from smtpbench.session.transcript import Transcript


class FakeBook:
    """Keeps every sample and every count where a test can see it."""

    def __init__(self, rows: int = 64) -> None:
        self.rows: list[dict[bytes, Any]] = [{} for _ in range(rows)]
        self.accepted = self.rejected = self.failed = self.dropped = self.interrupted = 0
        self.replies: dict[tuple[str, str, bytes, bool], list[int]] = defaultdict(list)
        self.timings: dict[tuple[str, bool], list[int]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        self.details: list[str] = []

    def samples(self, verb: str, slot: str, raw: bytes, ok: bool) -> list[int]:
        return self.replies[verb, slot, raw[:3], ok]

    def timing(self, slot: str, ok: bool = True) -> list[int]:
        return self.timings[slot, ok]

    def error(self, kind: str, detail: str = "", count: int = 1) -> None:
        self.errors[kind] += count
        self.details.append(detail)

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
        """The service times of a verb's replies that said yes."""
        mask = (1 << LATE_SHIFT) - 1
        return [v & mask for (of, slot, _, ok), found in self.replies.items() if of == verb and slot and ok for v in found]


class FakeConductor:
    """Hands out arrivals 1, 2, 3 … while `passes` lasts; then `at_end` (LEAVE or WAIT)."""

    def __init__(self, book: FakeBook, passes: int = 0, at_end: int = LEAVE) -> None:
        self.book = book
        self.passes = passes
        self.at_end = at_end
        self.n = 0
        self.ended: list[ClientSession] = []

    def at_gate(self, session: ClientSession, now_ns: int) -> int:
        if not self.passes:
            return self.at_end
        self.passes -= 1
        self.n += 1
        session.assign(self.n, UNSCHEDULED, self.book)
        return GO

    def over(self, session: ClientSession, now_ns: int) -> None:
        self.ended.append(session)


def say(text: bytes, *expect: int, kind: int = s.SAY, otherwise: int = s.GO_ON, escape: int = 0) -> Step:
    """A command step; its verb is its first word."""
    verb = text.split(b" ")[0].decode()
    return Step(kind, text + b"\r\n", asks=(Ask(verb, expect or (2,)),), slot=verb, otherwise=otherwise, escape=escape)


def body(*, escape: int = 0) -> Step:
    """A message of one line."""
    return Step(s.BODY, b"x\r\n.\r\n", asks=(Ask("message", (2,)),), slot="message", otherwise=s.ABANDON, escape=escape)


def transaction(at: int, rcpts: int = 1) -> tuple[Step, ...]:
    """MAIL, RCPT …, DATA and a message, as steps that begin at program counter `at`."""
    escape = at + rcpts + 3
    return (
        say(b"MAIL FROM:<a@b.example>", kind=s.MAIL, otherwise=s.ABANDON, escape=escape),
        *(say(b"RCPT TO:<r%d@b.example>" % i, kind=s.RCPT, otherwise=s.ABANDON, escape=escape) for i in range(rcpts)),
        say(b"DATA", 3, otherwise=s.ABANDON, escape=escape),
        body(escape=escape),
    )


def repeated(rcpts: int = 1, passes: int = 10, **options: Any) -> Script:
    """EHLO, then transactions, then QUIT."""
    steps = (say(b"EHLO c.example", otherwise=s.GIVE_UP), *transaction(1, rcpts), say(b"QUIT", 221))
    return Script.of("repeated", steps, gate=1, farewell=len(steps) - 1, passes=passes, **options)


class Feed:
    """A client session under a test's thumb: `hears` a reply and says what it writes; time goes by 1 ms a call."""

    def __init__(
        self, script: Script, *, passes: int = 0, at_end: int = LEAVE, tape: bool = False,
        credentials: tuple[str, str] | None = None, late_ns: int | None = None,
    ) -> None:  # fmt: skip
        self.book = FakeBook(script.rows)
        self.conductor = FakeConductor(self.book, passes, at_end)
        cast = Cast(script, self.conductor, timeout_ns=10**9, credentials=credentials)
        self.session = ClientSession(cast, Transcript() if tape else None)
        self.now_ns = 10**9
        self.session.assign(0, UNSCHEDULED if late_ns is None else self.now_ns - late_ns, self.book)
        self.session.open(self.now_ns)
        self.said: deque[bytes] = deque()
        self._out(self.session.opened(self._tick()))

    def _tick(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    def _out(self, out: api.Out) -> bytes:
        segments = out if isinstance(out, list) else [b"".join(out)] if isinstance(out, tuple) else [out]
        self.said.extend(segment for segment in segments if segment)
        return b"".join(segments)

    def hears(self, data: bytes) -> bytes:
        """Feed octets; what the session writes in answer."""
        return self._out(self.session.receive(data, self._tick()))

    def secured(self) -> bytes:
        self.session.wants = api.NOTHING
        return self._out(self.session.secured(self._tick()))

    def wakes(self) -> bytes:
        self.session.wants = api.NOTHING
        return self._out(self.session.wake(self._tick()))

    def loses(self, why: str) -> None:
        self.session.lost(why, "", self._tick())

    def talks(self, *replies: bytes) -> list[bytes]:
        """Feed replies one after the other; what was written to each."""
        return [self.hears(reply) for reply in replies]


@contextmanager
def full_disk(largest_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond ``largest_bytes``.

    To be left before the test ends: pytest's own output is under the limit too, and it dies silently of it.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
