"""Dialogues of the rules' probes, as they are with a server that keeps the rules: the built-in sink, in this process."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Final

import trio
import trustme

from smtpbench.engine.connection import Route
from smtpbench.rules.discover import Fixture, discover
from smtpbench.rules.finding import dialogue_lines
from smtpbench.rules.register import RULES
from smtpbench.rules.rule import Rule
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.runner import SessionRunner, session_runner
from smtpbench.session.script import Script
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.serve import sink_running

USER: Final = ("user", "password")
TIMEOUT_NS: Final = 10_000_000_000
#: Limit for messages, low enough for the probes of SIZE.
SIZE_BYTES: Final = 100_000
#: Extensions that the sink does not offer and that some probes are about.
EXTENSIONS: Final = ("DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "REQUIRETLS")
#: Sessions at the same time.
CONCURRENCY: Final = 16
#: A probe of many sessions is shown by the first of them.
MOST: Final = 8

Lines = list[str]


@cache
def dialogues() -> dict[str, list[Lines]]:
    """Rule name → its dialogues, each as `C:` and `S:` lines; none for a rule that the sink gives no occasion to try."""
    return trio.run(_all)


async def _all() -> dict[str, list[Lines]]:
    found: dict[str, list[Lines]] = {}
    for lmtp in (False, True):
        rules = [rule for rule in RULES if rule.probe is not None and ("lmtp" in rule.needs) == lmtp]
        found |= await _with_sink(rules, lmtp)
    return found


async def _with_sink(rules: Sequence[Rule], lmtp: bool) -> dict[str, list[Lines]]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    server_context = ServerContext(lmtp=lmtp, starttls=True, users=dict([USER]), size_bytes=SIZE_BYTES)
    found: dict[str, list[Lines]] = {}
    async with sink_running(server_context, tls=server) as sink:
        route = Route(socket.AF_INET, ("127.0.0.1", sink.port), client, "localhost")
        async with session_runner(route, TIMEOUT_NS, USER) as runner:
            target_info, _ = await discover(runner, Fixture(credentials=USER, lmtp=lmtp))
            for rule in rules:
                found[rule.name] = await _run(runner, _scripts(rule, target_info))
    return found


def _scripts(rule: Rule, target_info: TargetInfo) -> Sequence[Script]:
    """The probe's sessions; where the sink gives no occasion to try the rule, as if it offered more."""
    assert rule.probe is not None
    offered = {**dict.fromkeys(EXTENSIONS, ""), **target_info.keywords_before_tls}
    scripts = rule.probe(target_info) or rule.probe(replace(target_info, keywords_before_tls=offered))
    return scripts[:MOST]


async def _run(runner: SessionRunner, scripts: Sequence[Script]) -> list[Lines]:
    found: dict[int, Lines] = {}
    limiter = trio.CapacityLimiter(CONCURRENCY)

    async def one(at: int, script: Script) -> None:
        async with limiter:
            found[at] = dialogue_lines((await runner.run(script)).transcript)

    async with trio.open_nursery() as nursery:
        for at, script in enumerate(scripts):
            nursery.start_soon(one, at, script)
    return [found[at] for at in sorted(found)]
