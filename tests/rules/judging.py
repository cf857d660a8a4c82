"""For tests of rules: a sink, clean or a mutant, judged inside this process."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import trio
import trustme

from smtpbench.check.checker import Checker, RuleResult
from smtpbench.engine.connection import Route
from smtpbench.rules.discover import Fixture, discover
from smtpbench.rules.register import RULES, find
from smtpbench.session.runner import session_runner
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.serve import sink_running

#: Sinks at once.
AT_ONCE = 8
USER = ("judge", "s3cret-word")
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


async def judge(
    names: Iterable[str] = (),
    session: type[ServerSession] = ServerSession,
    *,
    lmtp: bool = False,
    timeout_ns: int = 2_000_000_000,
    size_bytes: int = 100_000,
) -> dict[str, RuleResult]:
    """The outcomes of these rules (all of them where none is named) on a sink with TLS, a login and this session class."""
    rules = find(names) if names else RULES
    service = ServerContext(lmtp=lmtp, starttls=True, users=dict([USER]), size_bytes=size_bytes)
    async with sink_running(service, tls=server_context(), session_class=session) as sink:
        route = Route(socket.AF_INET, ("127.0.0.1", sink.port), client_context(), "localhost")
        async with session_runner(route, timeout_ns, USER) as here:
            target_info, _ = await discover(here, Fixture(credentials=USER, lmtp=lmtp))
            outcomes = await Checker(here, target_info).run(rules)
            return {outcome.rule.name: outcome for outcome in outcomes}


def judged(names: Iterable[str] = (), session: type[ServerSession] = ServerSession, **options: Any) -> dict[str, RuleResult]:
    """`judge`, in an event loop of its own."""
    return trio.run(partial(judge, names, session, **options))


def judged_all(mutants: Mapping[str, type[ServerSession]]) -> dict[str, dict[str, RuleResult]]:
    """Rule name → the outcomes of all rules on its mutant; several at once, for most of judging is waiting."""
    matrix: dict[str, dict[str, RuleResult]] = {}
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def one(name: str, session: type[ServerSession]) -> None:
        async with limiter:
            matrix[name] = await judge(session=session, lmtp=name == "lmtp", timeout_ns=5_000_000_000)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name, session in mutants.items():
                nursery.start_soon(one, name, session)

    trio.run(main)
    return matrix


def verdicts(outcomes: dict[str, RuleResult]) -> dict[str, str]:
    """Rule name → verdict and what was seen, for those that did not pass."""
    return {
        name: f"{outcome.verdict.status}: {outcome.verdict.actual}"
        for name, outcome in outcomes.items()
        if outcome.verdict.status != "pass"
    }
