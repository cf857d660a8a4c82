"""Telling a server that died from one that only closed a connection.

Theory of operation
===================

A process that dies closes all its connections, and a supervisor may start it again a moment later. From the session that
killed it, this looks like a server that closes the connection in place of a reply. So a suspect runs beside an idle session
of another client, which sends nothing. If the server cuts off both at the same moment, it died. If it refuses the idle
session although it accepted the suspect a moment before, it died as well. A server that also writes the report of a
sanitizer to the connection needs no other evidence.

A server that has one process for each connection loses no other session when one of them dies. Whether it died is then not
known from outside.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import trio

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.client import ClientSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, SessionResult, SessionRunner
from smtpbench.session.script import Script, Step
from smtpbench.session.transcript import CLIENT, Transcript
from smtpbench.units import NS_PER_S

#: The kernel closes the connections of a process one after the other. Time for the second one, seconds.
_SAME_MOMENT_S: Final = 0.1
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

    # the suspect first: a server that serves one client after the other would otherwise wait for the idle session
    suspect = runner.start(script, on_suspect_end, session_class, timeout_ns)
    idle = runner.start(_idle_script(script), on_idle_end)
    try:
        await suspect_ended.wait()
        dialogue = Dialogue.of(suspects[0].transcript)
        if dialogue.last_code != 221 and dialogue.end_reason not in UNREACHABLE:
            with trio.move_on_after(_SAME_MOMENT_S):
                await idle_ended.wait()
    finally:
        runner.stop(suspect)
        runner.stop(idle)
    return WatchedResult(suspects[0], _death(suspects[0], dialogue, idles[0] if idles else None))


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
    if idle.end_reason == api.CONNECT_REFUSED:
        return "it refuses connections since this session"
    last_sent_ns = max((entry.at_ns for entry in session_result.transcript.entries if entry.who == CLIENT), default=0)
    if not idle.closed_by_server or idle.last_code // 100 in (4, 5):
        return ""  # a server that ends a session in order says so
    if idle_result.transcript.entries[-1].at_ns < last_sent_ns:
        return ""  # it was cut off before: the server takes few connections at the same time
    return "an idle session of another client was cut off at the same moment"
