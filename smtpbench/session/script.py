"""Script and Step: what a session says, whoever wrote it.

Theory of operation
===================

A script is a flat tuple of steps and a program counter walks it. Scenarios are compiled to it, mutations edit
it, rules build it, findings store it: so a step's octets may be anything at all, and nothing here checks them.

Each step *writes* (its `wire` octets, or what `render(n)` makes for arrival number n) and then *asks*: one
`ExpectedReply` for each reply to wait for. A step with no ask goes on at once; a pipelined group is one step with
many asks (RFC 2920). Replies beyond what was asked are never dropped: they are evidence.

Where a reply is not one that the ask expects, the step's `on_unexpected` says what becomes of the session:

    GO_ON     nothing: the script is spoken to its end, whatever the server says (check, fuzz, replay)
    ABANDON   the mail transaction is lost: RSET if the server holds one, then go to `escape`
    GIVE_UP   the session has no future: go to the farewell (QUIT), then close

so the two ways to live with a refusal are data of the script, not a mode of the client.

The shape of a script:

    steps[0:gate]        the prologue: EHLO, STARTTLS, AUTH …
    steps[gate:farewell] the body: one pass of it is one arrival, repeated `iterations` times on a connection
    steps[farewell:]     QUIT

Without a `repeat` the whole session is one arrival: `loop_start` is 0 and `iterations` is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

# Kinds of step. Ints and not an enum: they are compared in the shard's loop.
COMMAND = 0  #: write, then wait for the replies asked for
MAIL = 1  #: the same, and a mail transaction begins
RCPT = 2  #: the same, and the transaction has one recipient more
MESSAGE = 3  #: the same, and the reply settles the transaction (LMTP: a reply a recipient taken, RFC 2033 §4.2)
GROUP = 4  #: a pipelined group: several commands in one write, timed as one
STARTTLS = 5  #: a command whose 2xx reply is followed by a TLS handshake
TLS = 6  #: a TLS handshake at once, nothing said before it
AUTH = 7  #: a SASL exchange: the mechanism says what is written
PAUSE = 8  #: nothing, for pause_ns; what arrives meanwhile is unasked-for
CHOOSE = 9  #: go to one of `targets`, drawn by arrival number
JUMP = 10  #: go to targets[0]
CLOSE = 11  #: close the connection now (FIN)
RESET = 12  #: close it with a reset (RST)
HALF_CLOSE = 13  #: shut down the writing side

KIND_NAMES = (
    "say", "mail", "rcpt", "body", "group", "starttls", "tls",
    "auth", "pause", "choose", "jump", "close", "reset", "half-close",
)  # fmt: skip

# What an unexpected reply leads to.
CONTINUE = 0
ABORT_TRANSACTION = 1
ABORT_SESSION = 2

#: What is written at once: octets; or a pair (head, body) sent as one segment without being joined.
Wire = bytes | tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class ExpectedReply:
    """One reply that is waited for.

    verb: under which its code is counted (`replies.<verb>`); `banner` for the greeting.
    expect: codes (250) and classes (2 for 2yz) that are taken as a yes.
    """

    verb: str
    expect: tuple[int, ...]

    def matches(self, code: int) -> bool:
        """Whether the code is one of those expected, or of a class expected."""
        return code in self.expect or code // 100 in self.expect


@dataclass(frozen=True, slots=True)
class Step:
    """One thing a session does. See the module's theory of operation.

    slot: the latency slot its time is recorded under (`MAIL`, `message`, `pipeline`).
    wire / render: what is written; `render` wins, and is given the arrival's number.
    split: write `wire` in these pieces, each a segment of its own; empty for one write.
    escape: where the program counter goes on ABANDON.
    credentials: (user, password) of an AUTH step that are not the target's.
    source: `line` of the scenario it came from, 0 where there is none.
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
    first_reply_index: int = field(default=0, compare=False)  #: where its asks begin among all asks of the script

    @property
    def needs_recipient(self) -> bool:
        """Whether it is pointless where every recipient was refused."""
        return (
            self.on_unexpected == ABORT_TRANSACTION
            and len(self.expected_replies) == 1
            and self.expected_replies[0].verb in ("DATA", "BDAT")
        )


def command(text: bytes, verb: str, *expect: int, on_unexpected: int = CONTINUE) -> Step:
    """A command in lockstep, as one types it: `command(b"NOOP", "NOOP", 2)`."""
    return Step(
        COMMAND, text + b"\r\n", expected_replies=(ExpectedReply(verb, expect),), metric=verb, on_unexpected=on_unexpected
    )


GREETING = ExpectedReply("banner", (220,))
#: Any reply at all, for who says a script to its end whatever is answered.
ANY = (2, 3, 4, 5)
ANY_GREETING = ExpectedReply("banner", ANY)
RSET = Step(
    COMMAND, b"RSET\r\n", expected_replies=(ExpectedReply("RSET", (2,)),), metric="RSET", on_unexpected=ABORT_SESSION
)
#: What a server that took DATA without a recipient is given (RFC 2920 §3.1); it has the row of RSET.
EMPTY_MESSAGE = Step(
    COMMAND,
    b".\r\n",
    expected_replies=(ExpectedReply("message", (2, 4, 5)),),
    on_unexpected=ABORT_SESSION,
    first_reply_index=1,
)


@dataclass(frozen=True, slots=True)
class Script:
    """A compiled session. Build one with `Script.of`, which numbers the asks.

    repeats: an arrival is one pass of steps[gate:farewell], and not a whole session.
    greeting: what is waited for before the first step, None where the client speaks at once.
    implicit_tls: the TLS handshake comes before the greeting (RFC 8314 §3.3).
    lmtp: the final dot is answered once for each recipient taken (RFC 2033 §4.2).
    messages: mail transactions that one arrival attempts; a `choose` makes it depend on the arrival number.
    draw: the choice for arrival n at a CHOOSE step: a float in [0, 1) from (n, program counter).
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
        """Number the asks (row 0 is the greeting, row 1 the recovering RSET) and freeze the script."""
        numbered, row = [], 2
        for step in steps:
            numbered.append(_numbered(step, row))
            row += len(step.expected_replies)
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
            reply_count=row,
            rset=_numbered(RSET, 1),
            draw=draw or (lambda n, at: 0.0),
        )

    def messages(self, n: int) -> int:
        """How many mail transactions arrival n attempts if all goes well."""
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
    """The target of a CHOOSE step for a draw in [0, 1): each as often as its weight among all says."""
    mark = draw * sum(step.weights)
    for target, weight in zip(step.targets, step.weights, strict=True):
        mark -= weight
        if mark < 0:
            return target
    return step.targets[-1]


def _numbered(step: Step, row: int) -> Step:
    return replace(step, first_reply_index=row)
