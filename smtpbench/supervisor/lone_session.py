"""Running one session with a server that has no other, and telling whether the server died of it.

Theory of operation
===================

Where the server's processes are known, its death is a fact. Otherwise the session runs beside an idle one, and a server that
cuts off both died (`rules.crash`).

A server that replies 221 to QUIT has processed all that came before, and one that closed the connection and greets the next
client is alive. If it does neither, its process may be just ending, and `death_since` waits for that. A server that refuses
the next client is dead, even if the end of its process was not noticed: its cause is not known then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import trio

from smtpbench.engine import api
from smtpbench.rules import probe_steps
from smtpbench.rules.crash import run_watched, sanitizer_reported
from smtpbench.rules.discover import RESTART_TIMEOUT_S, is_greeting, outage, wait_until_back
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.client import ClientSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script
from smtpbench.supervisor.death import Death
from smtpbench.supervisor.supervised import SupervisedServer


@dataclass(frozen=True, slots=True)
class LoneResult:
    """A session that ran while the server had no other.

    Attributes:
        session_result: The session.
        how: How it is known that the server died; empty if it is not known to have died.
        death: The end of its process; None if it did not end, or if its processes are not known.
        hung: Whether its process lives, and it did not greet the next client in time.
        from_ns: When the session began, of `time.monotonic_ns`.
        to_ns: When it was known whether the server died.
    """

    session_result: SessionResult
    how: str = ""
    death: Death | None = None
    hung: bool = False
    from_ns: int = 0
    to_ns: int = 0


async def run_alone(
    runner: SessionRunner,
    script: Script,
    server: SupervisedServer | None,
    session_class: type[ClientSession] = ClientSession,
    timeout_ns: int | None = None,
) -> LoneResult:
    """Run a script, and find out whether the server died of it.

    Args:
        runner: Runs sessions with the server; nothing else may use the server meanwhile.
        script: What to run.
        server: The server under test; None if nothing is known of its processes.
        session_class: Class of the session.
        timeout_ns: Limit for one reply, nanoseconds; None for the runner's.
    """
    from_ns = time.monotonic_ns()
    if server is None or not server.known:
        watched = await run_watched(runner, script, session_class, timeout_ns)
        return LoneResult(watched.session_result, watched.death, None, False, from_ns, time.monotonic_ns())
    session_result = await runner.run(script, session_class, timeout_ns)
    death, hung = next((one for one in server.deaths if one.at_ns >= from_ns), None), False
    dialogue = Dialogue.of(session_result.transcript)
    if death is None and dialogue.last_code != 221:
        next_client = await _greet(runner, script, timeout_ns)
        if not next_client.greeted and next_client.end_reason not in (api.TIMEOUT, api.CONNECT_REFUSED):
            # it connected before the process ended, and was cut off with it
            next_client = await _greet(runner, script, timeout_ns)
        greets = next_client.greeted
        # a server may greet the next client first, and then read what a client sent that has left
        if not (greets and (dialogue.closed_by_server or dialogue.end_reason == api.TIMEOUT)):
            death = await server.death_since(from_ns)
        if not greets and death is None and next_client.end_reason == api.CONNECT_REFUSED:
            death = Death(time.monotonic_ns())  # of a process that others run, and that was not known yet
        hung = not greets and death is None
    how = "" if death is None else death.text
    if not how and sanitizer_reported(session_result.transcript):
        how = "its reply is the report of a sanitizer"  # of a process for this connection only
    return LoneResult(session_result, how, death, hung, from_ns, time.monotonic_ns())


async def _greet(runner: SessionRunner, script: Script, timeout_ns: int | None) -> Dialogue:
    """Return the dialogue of another client after a script, who only greets."""
    target_info = TargetInfo(lmtp=script.lmtp, implicit_tls=script.implicit_tls)
    hello = probe_steps.script(target_info, probe_steps.hello(target_info), quiet_period=False)
    return Dialogue.of((await runner.run(hello, timeout_ns=timeout_ns)).transcript)


async def bring_back(
    server: SupervisedServer | None, runner: SessionRunner, target_info: TargetInfo, *, hung: bool = False
) -> bool:
    """Wait for a server that died to greet again, or start one that hangs again. Return False if it does not greet in time.

    Args:
        server: The server under test; None if nothing is known of its processes.
        runner: Runs sessions with the server.
        target_info: What is known of the target.
        hung: Whether it did not die and greets nobody.
    """
    if server is not None and server.can_restart:
        if not hung and await server.wait_until_ready() and await is_greeting(runner, target_info):
            return True
        return await server.restart() and await is_greeting(runner, target_info)
    if server is not None and server.known and not hung:
        with trio.move_on_after(RESTART_TIMEOUT_S):
            await server.wait_until_ready()
    return await wait_until_back(runner, target_info)


async def find_outage(
    server: SupervisedServer | None, runner: SessionRunner, target_info: TargetInfo, lone: LoneResult
) -> str:
    """Return what happened to a server that no longer greets after a session: CRASH or HANG. Empty if it greets.

    Args:
        server: The server under test; None if nothing is known of its processes.
        runner: Runs sessions with the server.
        target_info: What is known of the target.
        lone: The session.
    """
    if server is not None and server.known and not lone.hung:
        return ""
    return await outage(runner, target_info)  # a server may be busy with what the session sent
