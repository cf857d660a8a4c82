"""What all sessions of a run share: the script, who hands out arrivals, who counts, and the credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.reply_cache import opening_mail
from smtpbench.session.script import Script, Step

if TYPE_CHECKING:
    from smtpbench.session.client import ClientSession

#: In a sample, `service_ns + (late_us << LATE_SHIFT)`, the lateness begins here; a service time below it can be 4.8 hours.
LATE_SHIFT = 44
#: The intended start of an arrival that has none (closed model): it begins when it begins, and is never late.
UNSCHEDULED = api.NEVER

# What a conductor says at the gate.
START = 0  #: an arrival was assigned, begin it
WAIT = 1  #: none has come yet: stay open, `resume` will be called
STOP = 2  #: there will be none: say farewell


class SessionRecorder(Protocol):
    """What a session counts in (`measure.recorder.Recorder`)."""

    reply_caches: list[dict[bytes, Any]]
    accepted: int
    rejected: int
    failed: int
    dropped: int
    interrupted: int

    def samples(self, verb: str, metric: str, raw: bytes, ok: bool) -> list[int]:
        """The list for the latencies of this verb's replies that begin like `raw`."""

    def timing(self, metric: str, ok: bool = True) -> list[int]:
        """The list for a time that no single reply gives."""

    def error(self, kind: str, detail: str = "", count: int = 1) -> None:
        """Count an error and keep an example of it."""


class ArrivalSource(Protocol):
    """Who hands out arrivals."""

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        """A pass may begin: GO (after `session.assign`), WAIT or LEAVE."""

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        """The session's connection is gone and all its messages are counted."""


class SessionContext:
    """What all sessions of a run share: the script, its conductor, its patience and its credentials.

    timeout_ns: how long a reply may take.
    credentials: (user, password) for AUTH steps.
    """

    __slots__ = ("credentials", "greeting_step", "messages", "opening_mail", "scheduler", "script", "timeout_ns")

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
        kinds = {step.kind for step in script.steps}
        #: mail transactions of one arrival; None where it varies
        self.messages: int | None = None if s.CHOOSE in kinds else script.messages(0) if s.MESSAGE in kinds else 0

    def __repr__(self) -> str:
        return f"Cast({self.script.name!r})"
