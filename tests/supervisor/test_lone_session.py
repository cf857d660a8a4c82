"""Sessions that run alone: what is known of the server after them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from dying_server import WatchedDyingServer, running

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionRunner, session_runner
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.supervisor import lone_session
from smtpbench.supervisor.death import Death
from smtpbench.supervisor.lone_session import LoneResult, run_alone
from smtpbench.target import Access, parse_target
from smtpbench.units import NS_PER_S


class Unnoticed(WatchedDyingServer):
    """A server of which nobody notices the end."""

    def _die(self, line: bytes) -> None:
        pass


def is_deadly(line: bytes) -> bool:
    return line.startswith(b"VRFY")


def run(server: WatchedDyingServer, line: bytes) -> LoneResult:
    script = Script.of(
        "x", (Step(s.COMMAND, line, expected_replies=(ExpectedReply("x", s.ANY),), metric="x"),), greeting=s.ANY_GREETING
    )

    async def main() -> LoneResult:
        async with running(server.process) as process:
            (route,) = Access(parse_target(f"smtp://127.0.0.1:{process.port}")).routes()
            async with session_runner(route, NS_PER_S) as runner:
                return await run_alone(runner, script, server, timeout_ns=NS_PER_S // 5)

    return trio.run(main)


@pytest.mark.parametrize("starts", [1, 2])
def test_death_of_the_process_is_that_of_the_session(starts: int) -> None:
    lone = run(WatchedDyingServer(is_deadly, starts, death_of=lambda line: Death(0, exit_status=3)), b"VRFY x\r\n")
    assert lone.death is not None
    assert (lone.death.cause, lone.how, lone.hung) == ("exit status 3", "exit status 3", False)


def test_server_that_refuses_the_next_client_is_dead_of_a_cause_that_is_not_known() -> None:
    lone = run(Unnoticed(is_deadly, 1), b"VRFY x\r\n")
    assert lone.death is not None
    assert (lone.death.cause, lone.hung) == ("cause not known", False)


def test_client_that_is_cut_off_with_a_dead_server_is_no_sign_of_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    greet, dialogues = lone_session._greet, list[Dialogue]()

    async def cut_off_first(runner: SessionRunner, script: Script, timeout_ns: int | None) -> Dialogue:
        dialogues.append(await greet(runner, script, timeout_ns))
        # a client that connected before the process ended, and was not accepted
        return dialogues[-1] if dialogues[1:] else replace(dialogues[-1], end_reason=api.CONNECTION_RESET)

    monkeypatch.setattr(lone_session, "_greet", cut_off_first)
    lone = run(Unnoticed(is_deadly, 1), b"VRFY x\r\n")
    assert lone.death is not None
    assert (lone.death.cause, lone.hung) == ("cause not known", False)


def test_server_that_lives_and_greets_nobody_hangs() -> None:
    lone = run(WatchedDyingServer(lambda line: False, is_hanging=is_deadly), b"VRFY x\r\n")
    assert (lone.death, lone.how, lone.hung) == (None, "", True)


@pytest.mark.parametrize("line", [b"NOOP\r\n", b"QUIT\r\n"])
def test_server_that_greets_the_next_client_lives(line: bytes) -> None:
    lone = run(WatchedDyingServer(is_deadly), line)
    assert (lone.death, lone.how, lone.hung) == (None, "", False)
