"""Telling a server that died from one that only closed a connection.

Theory of operation
===================

A process that dies closes all its connections, and a supervisor may start it again a moment later. From the session that
killed it, this looks like a server that closes the connection in place of a reply. So a suspect runs beside an idle session
of another client, which is greeted and sends nothing. If the server cuts off both at the same moment, it died. A server that
writes the report of a sanitizer to the connection needs no other evidence.

A server that has one process for each connection loses no other session when one of them dies. Whether it died is then not
known from outside. A server that serves one client at a time greets no second one: there the suspect runs alone.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import trio

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.client import ClientSession
from smtpbench.session.context import SessionContext
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, SessionResult, SessionRunner
from smtpbench.session.script import Script, Step
from smtpbench.session.transcript import CLIENT, Transcript
from smtpbench.smtp.reply import Reply
from smtpbench.units import NS_PER_S

#: The kernel closes the connections of a process one after the other. Time for the second one, seconds.
_SAME_MOMENT_S: Final = 0.1
#: Time for the greeting of the idle session, seconds.
_GREETING_S: Final = 0.3
_SANITIZER_REPORT: Final = re.compile(rb"==\d+==\s*ERROR: \w+Sanitizer|\b(?:Address|Memory|Thread|Leak)Sanitizer:")
_IDLE_STEPS: Final = (Step(s.PAUSE, pause_ns=3600 * NS_PER_S),)


class WatchedResult(NamedTuple):
    """A session that ran beside an idle one.

    Attributes:
        session_result: The session.
        death: How it is known that the server died; empty if it is not known to have died.
    """

    session_result: SessionResult
    death: str


def is_cut_off(dialogue: Dialogue) -> bool:
    """Return whether the server ended a session without a reply that says so, and the client did not begin to end it."""
    return not dialogue.half_closed and dialogue.greeted and dialogue.closed_without_221 and not dialogue.closed_with_reply


def sanitizer_reported(transcript: Transcript) -> bool:
    """Return whether the server sent the report of a sanitizer, such as AddressSanitizer."""
    if _SANITIZER_REPORT.search(transcript.received()) is None:
        return False
    return not any(entry.who == CLIENT and _SANITIZER_REPORT.search(entry.data) for entry in transcript.entries)


async def run_watched(
    runner: SessionRunner, script: Script, session_class: type[ClientSession] = ClientSession, timeout_ns: int | None = None
) -> WatchedResult:
    """Run a script beside an idle session of another client.

    Args:
        runner: Runs sessions with the target; nothing else may use the target meanwhile.
        script: What to run.
        session_class: Class of the session.
        timeout_ns: Limit for one reply, nanoseconds; None for the runner's.
    """
    suspects, idles = list[SessionResult](), list[SessionResult]()
    suspect_ended, idle_ended = trio.Event(), trio.Event()

    def on_suspect_end(session_result: SessionResult) -> None:
        suspects.append(session_result)
        suspect_ended.set()

    def on_idle_end(session_result: SessionResult) -> None:
        idles.append(session_result)
        idle_ended.set()

    started = [idle := runner.start(_idle_script(script), on_idle_end, _IdleSession)]
    assert isinstance(idle, _IdleSession)
    try:
        with trio.move_on_after(_GREETING_S):
            await idle.greeted_or_ended.wait()
        if not idle.greeted_or_ended.is_set():
            runner.stop(idle)
        started.append(runner.start(script, on_suspect_end, session_class, timeout_ns))
        await suspect_ended.wait()
        dialogue = Dialogue.of(suspects[0].transcript)
        if dialogue.last_code != 221 and dialogue.end_reason not in UNREACHABLE:
            with trio.move_on_after(_SAME_MOMENT_S):
                await idle_ended.wait()
        idle_result = idles[0] if idles else None
    finally:
        for session in started:
            runner.stop(session)
    if not _was_served(dialogue) and idle_result is None:  # the server may take one client only, and that was the idle one
        return WatchedResult(await runner.run(script, session_class, timeout_ns), "")
    return WatchedResult(suspects[0], _death(suspects[0], dialogue, idle_result))


def _was_served(dialogue: Dialogue) -> bool:
    """Return whether the server greeted a session and took commands."""
    return dialogue.greeted and dialogue.exchanges[0].code // 100 not in (4, 5)


class _IdleSession(ClientSession):
    """A session that is greeted and sends nothing.

    Attributes:
        greeted_or_ended: Set when the greeting came, or the connection is gone.
    """

    __slots__ = ("greeted_or_ended",)

    def __init__(self, context: SessionContext, transcript: Transcript | None = None) -> None:
        super().__init__(context, transcript)
        self.greeted_or_ended = trio.Event()

    def on_reply(self, reply: Reply, now_ns: int) -> api.Out:
        self.greeted_or_ended.set()
        return super().on_reply(reply, now_ns)

    def connection_lost(self, reason: str, detail: str, now_ns: int) -> None:
        self.greeted_or_ended.set()
        super().connection_lost(reason, detail, now_ns)


def _idle_script(script: Script) -> Script:
    return Script.of("idle", _IDLE_STEPS, greeting=s.ANY_GREETING, implicit_tls=script.implicit_tls, lmtp=script.lmtp)


def _death(session_result: SessionResult, dialogue: Dialogue, idle_result: SessionResult | None) -> str:
    """Return how it is known that the server died in a session; empty if it is not known."""
    if sanitizer_reported(session_result.transcript):
        return "its reply is the report of a sanitizer"
    ended_by_client = dialogue.end_reason == api.ENDED and dialogue.last_code != 221
    if idle_result is None or not dialogue.greeted or not (is_cut_off(dialogue) or ended_by_client):
        return ""
    idle = Dialogue.of(idle_result.transcript)
    last_sent_ns = max((entry.at_ns for entry in session_result.transcript.entries if entry.who == CLIENT), default=0)
    if not (idle.greeted and idle.closed_by_server) or idle.last_code // 100 in (4, 5):
        return ""  # a server that ends a session in order says so
    if idle_result.transcript.entries[-1].at_ns < last_sent_ns:
        return ""  # it was cut off before
    return "an idle session of another client was cut off at the same moment"
