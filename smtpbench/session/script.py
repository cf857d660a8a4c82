"""Script and Step: what a client session sends and which replies it expects.

Theory of operation
===================

A script is a flat tuple of steps; a session executes it from step to step. Scenarios are compiled to scripts, mutations edit
them, rules build them, findings store them. So the octets of a step may be anything at all, and nothing here checks them.

A step is *written* (its `wire` octets, or what `render(n)` returns for arrival number n). Then the session waits for its
`expected_replies`, one `ExpectedReply` for each reply. Behind a step without any the session goes on at once. A pipelined
group is one step with several expected replies (RFC 2920). Replies beyond the expected ones are never dropped.

If a reply is not an expected one, the step's `on_unexpected` says what the session does:

    CONTINUE           goes on: the script is sent to its end, whatever the server replies (check, fuzz, replay)
    ABORT_TRANSACTION  sends RSET if the server has a transaction open, and goes on at `abort_target`; the message is lost
    ABORT_SESSION      goes on at the teardown (QUIT), then closes; the messages still open are lost

The three parts of a script:

    steps[0:loop_start]         setup: EHLO, STARTTLS, AUTH …
    steps[loop_start:teardown]  the loop: one iteration is one arrival; a connection makes up to `iterations` of them
    steps[teardown:]            teardown: QUIT

In a script without a loop the whole session is one arrival: `loop_start` is 0 and `iterations` is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

# Kinds of step. Ints and not an enum: they are compared in the shard's loop.
COMMAND = 0  #: write, then wait for the expected replies
MAIL = 1  #: the same, and a mail transaction begins
RCPT = 2  #: the same, and the transaction has one recipient more
MESSAGE = 3  #: the same, and the reply ends the transaction (LMTP: one reply for each recipient, RFC 2033 §4.2)
GROUP = 4  #: a pipelined group: several commands in one write, timed as one
STARTTLS = 5  #: a command whose 2yz reply is followed by a TLS handshake
TLS = 6  #: a TLS handshake at once, without a command
AUTH = 7  #: a SASL exchange: the mechanism decides what is written
PAUSE = 8  #: wait for pause_ns; replies that come meanwhile are unsolicited
CHOOSE = 9  #: go on at one of `targets`, drawn by arrival number
JUMP = 10  #: go on at targets[0]
CLOSE = 11  #: close the connection now (FIN)
RESET = 12  #: close it with a reset (RST)
HALF_CLOSE = 13  #: shut down the writing side, inside TLS by close_notify
FIN = 14  #: shut down the writing side of the TCP connection, also inside TLS

KIND_NAMES = (
    "command", "mail", "rcpt", "message", "group", "starttls", "tls",
    "auth", "pause", "choose", "jump", "close", "reset", "half-close", "fin",
)  # fmt: skip

# What a session does about an unexpected reply.
CONTINUE = 0
ABORT_TRANSACTION = 1
ABORT_SESSION = 2

#: One write: octets, or a pair (head, body) that is sent as one segment without being joined.
Wire = bytes | tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class ExpectedReply:
    """One reply that a step waits for.

    Attributes:
        verb: Verb that the reply is counted under (`replies.<verb>`); `banner` for the greeting.
        expect: Expected codes (250) and classes of codes (2 for 2yz).
    """

    verb: str
    expect: tuple[int, ...]

    def matches(self, code: int) -> bool:
        """Whether a code is one of those expected, or of an expected class."""
        return code in self.expect or code // 100 in self.expect


@dataclass(frozen=True, slots=True)
class Step:
    """One thing a session does. See the module's theory of operation.

    Attributes:
        kind: One of the kinds above.
        wire, render: What is written. `render`, if there is one, is called with the arrival's number.
        expected_replies: The replies to wait for.
        metric: Name that its time is recorded under (`MAIL`, `message`, `pipeline`).
        on_unexpected: What an unexpected reply leads to.
        abort_target: Where the script goes on after ABORT_TRANSACTION.
        split: Write `wire` in these pieces, each a segment of its own; empty for one write.
        mechanism: SASL mechanism of an AUTH step.
        credentials: (user, password) of an AUTH step if they are not those of the target.
        pause_ns: Length of a PAUSE, nanoseconds.
        targets, weights: Positions that CHOOSE and JUMP go on at, and how often each is chosen.
        line: Line of the scenario that it comes from, 0 if there is none.
        first_reply_index: Index of its first expected reply among all of the script.
    """

    kind: int = COMMAND
    wire: bytes = b""
    render: Callable[[int], Wire] | None = None
    expected_replies: tuple[ExpectedReply, ...] = ()
    metric: str = ""
    on_unexpected: int = CONTINUE
    abort_target: int = 0
    split: tuple[bytes, ...] = ()
    mechanism: str = ""
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    pause_ns: int = 0
    targets: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    line: int = 0
    first_reply_index: int = field(default=0, compare=False)

    @property
    def needs_recipient(self) -> bool:
        """Whether it is left out if every recipient was refused."""
        return (
            self.on_unexpected == ABORT_TRANSACTION
            and len(self.expected_replies) == 1
            and self.expected_replies[0].verb in ("DATA", "BDAT")
        )


def command(text: bytes, verb: str, *expect: int, on_unexpected: int = CONTINUE) -> Step:
    """Return the step of one command with one reply: `command(b"NOOP", "NOOP", 2)`."""
    return Step(
        COMMAND, text + b"\r\n", expected_replies=(ExpectedReply(verb, expect),), metric=verb, on_unexpected=on_unexpected
    )


GREETING = ExpectedReply("banner", (220,))
#: Any reply, for scripts that are sent to their end whatever the server replies.
ANY = (2, 3, 4, 5)
ANY_GREETING = ExpectedReply("banner", ANY)
RSET = Step(
    COMMAND, b"RSET\r\n", expected_replies=(ExpectedReply("RSET", (2,)),), metric="RSET", on_unexpected=ABORT_SESSION
)
#: Sent to a server that answered DATA with 354 although it refused every recipient (RFC 2920 §3.1). It has RSET's index.
EMPTY_MESSAGE = Step(
    COMMAND,
    b".\r\n",
    expected_replies=(ExpectedReply("message", (2, 4, 5)),),
    on_unexpected=ABORT_SESSION,
    first_reply_index=1,
)


@dataclass(frozen=True, slots=True)
class Script:
    """A compiled session. Build one with `Script.of`, which numbers the expected replies.

    Attributes:
        name: Name for reports.
        steps: See the module's theory of operation, for `loop_start`, `teardown` and `iterations` too.
        repeats: An arrival is one iteration of the loop, not a whole session.
        greeting: Expected before the first step; None if the client writes at once.
        implicit_tls: TLS begins before the greeting (RFC 8314 §3.3).
        lmtp: A message gets one reply for each accepted recipient (RFC 2033 §4.2).
        reply_count: Number of expected replies, those of the greeting and of RSET included.
        rset: The step that recovers from a refused transaction.
        draw: Returns, for arrival n and a position, the float in [0, 1) that decides a CHOOSE step.
    """

    name: str
    steps: tuple[Step, ...]
    loop_start: int = 0
    teardown: int = 0
    iterations: int = 1
    repeats: bool = False
    greeting: ExpectedReply | None = GREETING
    implicit_tls: bool = False
    lmtp: bool = False
    reply_count: int = 0
    rset: Step = RSET
    draw: Callable[[int, int], float] = field(default=lambda n, at: 0.0, compare=False)

    @classmethod
    def of(
        cls,
        name: str,
        steps: tuple[Step, ...],
        *,
        loop_start: int = 0,
        teardown: int | None = None,
        iterations: int = 1,
        repeats: bool | None = None,
        greeting: ExpectedReply | None = GREETING,
        implicit_tls: bool = False,
        lmtp: bool = False,
        draw: Callable[[int, int], float] | None = None,
    ) -> Script:
        """Number the expected replies (0 is the greeting's, 1 that of the recovering RSET) and return the script."""
        numbered, reply_index = [], 2
        for step in steps:
            numbered.append(_numbered(step, reply_index))
            reply_index += len(step.expected_replies)
        return cls(
            name=name,
            steps=tuple(numbered),
            loop_start=loop_start,
            teardown=len(steps) if teardown is None else teardown,
            iterations=iterations,
            repeats=loop_start > 0 if repeats is None else repeats,
            greeting=greeting,
            implicit_tls=implicit_tls,
            lmtp=lmtp,
            reply_count=reply_index,
            rset=_numbered(RSET, 1),
            draw=draw or (lambda n, at: 0.0),
        )

    def messages(self, n: int) -> int:
        """Return how many mail transactions arrival n attempts if no reply is unexpected."""
        count, at, end = 0, self.loop_start, self.teardown if self.repeats else len(self.steps)
        while at < end:
            step = self.steps[at]
            at += 1
            if step.kind == MESSAGE:
                count += 1
            elif step.kind == CHOOSE:
                at = choose(step, self.draw(n, at - 1))
            elif step.kind == JUMP:
                at = step.targets[0]
        return count


def choose(step: Step, draw: float) -> int:
    """Return the target of a CHOOSE step for a draw in [0, 1), each in proportion to its weight."""
    remaining = draw * sum(step.weights)
    for target, weight in zip(step.targets, step.weights, strict=True):
        remaining -= weight
        if remaining < 0:
            return target
    return step.targets[-1]


def _numbered(step: Step, first_reply_index: int) -> Step:
    return replace(step, first_reply_index=first_reply_index)
