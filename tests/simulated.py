"""Connections to a simulated server, on trio's clock: with `MockClock`, a server that hangs costs no time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio
from trio.testing import MockClock

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.fuzz.campaign import Campaign
from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.mutation import command_step, fixed_script, replace_steps
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.suspect import CampaignStats
from smtpbench.rules.target_info import TargetInfo
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.session.runner import SessionRunner
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.units import NS_PER_S

_ENDS = {api.RESET: api.CONNECTION_RESET, api.CLOSE: api.CLOSED, api.LINGER: api.CLOSED}


def joined(out: api.Out) -> bytes:
    return out if isinstance(out, bytes) else b"".join(out)


class SimulatedConnection:
    def __init__(self, session: Any, server: ServerSession) -> None:
        self.session = session
        self.server = server
        self.closing = False


class SimulatedShard:
    """Stands in for `engine.shard.Shard`: every connection reaches a server session of its own in the same process.

    Args:
        nursery: Where the connections are served.
        make_server: Returns the server's side of the next connection.
    """

    def __init__(self, nursery: trio.Nursery, make_server: Callable[[], ServerSession]) -> None:
        self._nursery = nursery
        self._make_server = make_server
        self._zero_ns = time.monotonic_ns() - int(trio.current_time() * NS_PER_S)
        self.connections_open = 0

    def runner(self, timeout_ns: int = 3 * NS_PER_S) -> SessionRunner:
        return SessionRunner(self, Route(2, ("127.0.0.1", 25), None), timeout_ns, None, None)  # type: ignore[arg-type]  # it is no Shard

    def connect(self, session: Any, route: Route) -> SimulatedConnection:
        connection = SimulatedConnection(session, self._make_server())
        self.connections_open += 1
        self._nursery.start_soon(self._serve, connection)
        return connection

    def stop(self, connection: SimulatedConnection) -> None:
        self._lose(connection, api.STOPPED)

    def _now_ns(self) -> int:
        return self._zero_ns + int(trio.current_time() * NS_PER_S)

    async def _sleep_until(self, at_ns: int) -> None:
        await trio.sleep_until((at_ns - self._zero_ns) / NS_PER_S)

    def _lose(self, connection: SimulatedConnection, reason: str) -> None:
        if not connection.closing:
            connection.closing = True
            self.connections_open -= 1
            connection.server.connection_lost(reason, "", self._now_ns())
            connection.session.connection_lost(reason, "", self._now_ns())

    async def _serve(self, connection: SimulatedConnection) -> None:
        client, server = connection.session, connection.server
        to_client = joined(server.connected(self._now_ns()))
        to_server = joined(client.connected(self._now_ns()))
        while not connection.closing:
            await trio.lowlevel.checkpoint()
            if to_server:
                to_client += joined(server.receive(to_server, self._now_ns()))
                to_server = b""
            action, client.pending_action = client.pending_action, api.NOTHING
            if to_client and not connection.closing:
                received, to_client = to_client, b""
                to_server = joined(client.receive(received, self._now_ns()))
                action = client.pending_action or action
                client.pending_action = api.NOTHING
            elif server.pending_action in _ENDS:
                self._lose(connection, _ENDS[server.pending_action])
            elif action == api.NOTHING and not to_server:
                await self._sleep_until(client.deadline_ns)
                self._lose(connection, api.TIMEOUT)
            if action == api.SLEEP:
                await self._sleep_until(client.wake_ns)
                if not connection.closing:
                    to_server += joined(client.wake(self._now_ns()))
            elif action in (api.HALF_CLOSE, api.FIN):
                to_client += joined(server.eof_received(self._now_ns()))
                to_server += joined(client.wake(self._now_ns()))
            elif action != api.NOTHING:
                self._lose(connection, api.ENDED)


def campaign_on(
    session_class: type[ServerSession], connections: int = 50, *, lines: dict[bytes, bytes] | None = None, **changes: Any
) -> tuple[CampaignStats, float]:
    """Run a fuzzing campaign on a simulated server; return what it collected, and the seconds that it took.

    `lines` has other lines for the scenario `relay`: the beginning of the line to replace → the line.
    """
    changes = {"cases": 1_000, "duration_ns": None, "shrink_s": 6.0, "families": tuple(FAMILIES)} | changes
    plan = CampaignPlan(seed=1, connections=connections, max_findings=50, **changes)
    script = fixed_script(compile_scenario(load_scenario(find_scenario("relay")), CompileOptions(message_bytes=300)))
    for beginning, line in (lines or {}).items():
        steps = [command_step(line) if step.wire[:4] == beginning else step for step in script.steps]
        script = replace_steps(script, steps)
    context = ServerContext(size_bytes=100_000)

    async def main() -> tuple[CampaignStats, float]:
        async with trio.open_nursery() as nursery:
            shard = SimulatedShard(nursery, lambda: session_class(context))
            campaign = Campaign(shard.runner(), shard.runner(), script, TargetInfo("user@recipient.example"), plan)
            began_s = trio.current_time()
            stats = await campaign.run()
            took_s = trio.current_time() - began_s
            nursery.cancel_scope.cancel()
        return stats, took_s

    return trio.run(main, clock=MockClock(autojump_threshold=0))
