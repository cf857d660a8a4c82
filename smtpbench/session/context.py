"""What all client sessions of a run share, and what they need of a recorder and of a source of arrivals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.reply_cache import opening_mail
from smtpbench.session.script import Script, Step

if TYPE_CHECKING:
    from smtpbench.session.client import ClientSession

#: A sample is `service_ns + (late_us << LATE_SHIFT)`. The bits below are enough for a service time of 4.8 hours.
LATE_SHIFT = 44
#: Intended start of an arrival without a schedule (closed model). It is never late.
UNSCHEDULED = api.NEVER

# Decisions of an arrival source at the end of an iteration.
START = 0  #: an arrival was assigned: begin it
WAIT = 1  #: no arrival is due yet: stay open until `resume` or `finish_waiting` is called
STOP = 2  #: there is no arrival left: go on with the teardown


class UnansweredSample(NamedTuple):
    """What is known of a latency whose reply did not come.

    Attributes:
        metric: Latency metric.
        service_ns: Least service time; None if it has not begun.
        response_ns: Least response time.
    """

    metric: str
    service_ns: int | None
    response_ns: int


class SessionRecorder(Protocol):
    """Counts messages and keeps samples (`measure.recorder.Recorder`).

    Attributes:
        reply_caches: One cache for each expected reply of the script.
        accepted, rejected, failed, dropped, interrupted: Messages by outcome.
        recipients_accepted, recipients_rejected: LMTP: recipients by their replies after the final dot.
    """

    reply_caches: list[dict[bytes, Any]]
    accepted: int
    rejected: int
    failed: int
    dropped: int
    interrupted: int
    recipients_accepted: int
    recipients_rejected: int

    def samples(self, verb: str, metric: str, raw: bytes, ok: bool) -> list[int]:
        """Return the list for the latencies of this verb's replies that begin like `raw`."""

    def timing(self, metric: str, ok: bool = True) -> list[int]:
        """Return the list for a time that no single reply gives."""

    def error(self, kind: str, detail: str = "", count: int = 1) -> None:
        """Count an error and keep an example of it."""

    def censor(self, samples: Iterable[UnansweredSample], waits_ns: Sequence[int] = ()) -> None:
        """Record latencies of which only a lower bound is known."""


class ArrivalSource(Protocol):
    """Assigns arrivals to sessions (`load.scheduler`)."""

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        """Return START (after `session.assign`), WAIT or STOP: the session may begin an iteration."""

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        """Take notice that the session's connection is gone and all its messages are counted."""


class SessionContext:
    """What all client sessions of a run share.

    Attributes:
        script: What they send.
        scheduler: Assigns their arrivals.
        timeout_ns: How long each wait may take, nanoseconds.
        credentials: (user, password) of AUTH steps that name none.
        greeting_step: Stands for the wait for the greeting.
        opening_mail: The step that begins every iteration if it is a plain MAIL, else None.
        messages: Mail transactions of one arrival; None if arrivals differ.
        message_metric: Metric of the message step; empty if there is none, or if there are several.
    """

    __slots__ = (
        "credentials",
        "greeting_step",
        "message_metric",
        "messages",
        "opening_mail",
        "scheduler",
        "script",
        "timeout_ns",
    )

    def __init__(
        self, script: Script, scheduler: ArrivalSource, timeout_ns: int, credentials: tuple[str, str] | None = None
    ) -> None:
        self.script = script
        self.scheduler = scheduler
        self.timeout_ns = timeout_ns
        self.credentials = credentials
        expected_replies = () if script.greeting is None else (script.greeting,)
        self.greeting_step = Step(
            s.COMMAND, expected_replies=expected_replies, metric="banner", on_unexpected=s.ABORT_SESSION, first_reply_index=0
        )
        self.opening_mail = opening_mail(script)
        metrics = {step.metric for step in script.steps if step.kind == s.MESSAGE}
        self.message_metric = metrics.pop() if len(metrics) == 1 else ""
        kinds = {step.kind for step in script.steps}
        self.messages: int | None = None if s.CHOOSE in kinds else script.messages(0) if s.MESSAGE in kinds else 0

    def __repr__(self) -> str:
        return f"SessionContext({self.script.name!r})"
