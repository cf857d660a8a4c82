"""For tests of rules: check the test server, correct or a mutant, inside this process."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import trio
import trustme

from smtpbench.check.checker import Checker
from smtpbench.check.rule_result import RuleResult
from smtpbench.engine.connection import Route
from smtpbench.rules.discover import Fixture, discover
from smtpbench.rules.register import RULES, find
from smtpbench.session.runner import session_runner
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.serve import sink_running

#: Servers at the same time.
CONCURRENT_SERVERS = 8
USER = ("user", "s3cret-word")
_CA = trustme.CA()
_CERTIFICATE = _CA.issue_cert("localhost", "127.0.0.1")


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _CERTIFICATE.configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    _CA.configure_trust(context)
    return context


async def check_sink_async(
    names: Iterable[str] = (),
    session: type[ServerSession] = ServerSession,
    *,
    lmtp: bool = False,
    timeout_ns: int = 2_000_000_000,
    size_bytes: int = 100_000,
) -> dict[str, RuleResult]:
    """Return the results of these rules (all rules if there are no names) on a server with TLS and a login."""
    rules = find(names) if names else RULES
    service = ServerContext(lmtp=lmtp, starttls=True, users=dict([USER]), size_bytes=size_bytes)
    async with sink_running(service, tls=server_context(), session_class=session) as sink:
        route = Route(socket.AF_INET, ("127.0.0.1", sink.port), client_context(), "localhost")
        async with session_runner(route, timeout_ns, USER) as runner:
            target_info, _ = await discover(runner, Fixture(credentials=USER, lmtp=lmtp))
            results = await Checker(runner, target_info).run(rules)
            return {result.rule.name: result for result in results}


def check_sink(
    names: Iterable[str] = (), session: type[ServerSession] = ServerSession, **options: Any
) -> dict[str, RuleResult]:
    """Run `check_sink_async` in an event loop of its own."""
    return trio.run(partial(check_sink_async, names, session, **options))


def check_mutants(mutants: Mapping[str, type[ServerSession]]) -> dict[str, dict[str, RuleResult]]:
    """Return for each mutant the results of all rules. Several run at the same time, for a check is mostly waiting."""
    matrix: dict[str, dict[str, RuleResult]] = {}
    limiter = trio.CapacityLimiter(CONCURRENT_SERVERS)

    async def check_mutant(name: str, session: type[ServerSession]) -> None:
        async with limiter:
            matrix[name] = await check_sink_async(session=session, lmtp=name == "lmtp", timeout_ns=5_000_000_000)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name, session in mutants.items():
                nursery.start_soon(check_mutant, name, session)

    trio.run(main)
    return matrix


def not_passed(results: dict[str, RuleResult]) -> dict[str, str]:
    """Return rule name → status and text of the verdict, for rules that did not pass."""
    return {
        name: f"{result.verdict.status}: {result.verdict.actual}"
        for name, result in results.items()
        if result.verdict.status != "pass"
    }
