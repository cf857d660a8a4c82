"""The hostile part of a load: a process that fuzzes beside the workers of `smtpbench run --hostile`.

`python -m smtpbench.fuzz.hostile`. Its standard input carries a job (the worker's, with the password, whether the target
may be another machine, and where findings will be kept), then how many cases may have begun a second from now,
`{"allow": 120}`, about once a second, and at last `"end"`; where it ends before that, so does the process. Its standard
output carries `{"ready": true}` once the target is known and honest sessions were timed, and at last the result: what
`fuzz` would say, and its findings.

A campaign is drawn in a process of its own so that it takes no turn in the loop of the honest sessions: their latency is
what is measured.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from smtpbench.engine.pipe import lines
from smtpbench.errors import SmtpbenchError
from smtpbench.fuzz.campaign import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, fuzz_target
from smtpbench.fuzz.strategies import families
from smtpbench.measure.health import raise_descriptor_limit
from smtpbench.scenario.load import load_text
from smtpbench.target import Access, Trust, parse_target

#: Cases under way at once, at most.
_CONNECTIONS = 200
_MOST = 1 << 40
#: A permission is used up evenly over this long, for the next one comes then.
_SPREAD_S = 1.0


class Allowance:
    """When a case may begin: as many as are allowed, spread over the time until more are."""

    def __init__(self, ready: Callable[[], Awaitable[None]]) -> None:
        self._ready = ready
        self._begin = trio.Event()
        self._news = trio.Event()
        self._ended = False
        self._from, self._to, self._since_s = 0, 0, 0.0

    def allow(self, count: int) -> None:
        """So many cases may have begun a second from now."""
        self._from, self._to, self._since_s = self._to, max(count, self._to), trio.current_time()
        self._tell()

    def end(self) -> None:
        """No more may begin."""
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._begin.set()
        self._news.set()
        self._news = trio.Event()

    async def begin(self) -> None:
        """All is prepared: wait until there may be cases."""
        await self._ready()
        await self._begin.wait()

    async def turn(self, number: int) -> bool:
        """Wait until case `number` may begin; whether it may at all."""
        while not self._ended:
            due_s = self._due_s(number)
            if due_s <= trio.current_time():
                return True
            with trio.move_on_at(due_s):
                await self._news.wait()
        return False

    def _due_s(self, number: int) -> float:
        if number < self._from:
            return 0.0
        if number >= self._to:
            return float("inf")
        return self._since_s + _SPREAD_S * (number - self._from) / (self._to - self._from)


def request_of(job: dict[str, Any]) -> FuzzRequest:
    """What a job asks for; its keys are those of `smtpbench.load.job.Job`, `authorized` and `folder`."""
    ca, certificate, key = (None if job[name] is None else Path(job[name]) for name in ("ca", "certificate", "key"))
    trust = Trust(ca, job["insecure"], job["server_name"], certificate, key)
    target = parse_target(job["target"])
    access = Access(target, trust, job["password"], job["plan"]["timeout_ns"], job["authorized"])
    plan = CampaignPlan(_MOST, None, job["plan"]["seed"], _CONNECTIONS, families(), _MOST)
    return FuzzRequest(load_text(job["text"], Path(job["path"])), access, plan, folder=Path(job["folder"]))


def told(catch: FuzzResult) -> dict[str, Any]:
    """What the main process is told of a catch."""
    return {
        "result": catch.result,
        "new": catch.new_findings,
        "findings": [(finding.id, finding.to_text()) for finding in catch.findings],
        "candidates": [(finding.id, finding.to_text()) for finding in catch.candidates],
    }


async def serve(commands: AsyncIterator[bytes], send_line: Callable[[Any], Awaitable[None]]) -> None:
    """Do what the commands say. say: writes one line of JSON."""
    request = request_of(json.loads(await anext(commands)))
    allowance = Allowance(lambda: send_line({"ready": True}))

    async def obey(scope: trio.CancelScope) -> None:
        async for line in commands:
            command = json.loads(line)
            if command == "end":
                allowance.end()
            else:
                allowance.allow(command["allow"])
        scope.cancel()  # the main process is gone, or wants no more of it

    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey, nursery.cancel_scope)
        try:
            answer = told(await fuzz_target(request, pace=allowance))
        except SmtpbenchError as error:
            answer = {"error": str(error)}
        await send_line(answer)
        nursery.cancel_scope.cancel()


def main() -> None:
    """The entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_descriptor_limit()

    async def with_pipes() -> None:
        output = trio.lowlevel.FdStream(os.dup(1))
        await serve(
            lines(trio.lowlevel.FdStream(os.dup(0))), lambda data: output.send_all(json.dumps(data).encode() + b"\n")
        )

    trio.run(with_pipes)


if __name__ == "__main__":
    main()
