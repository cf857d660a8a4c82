"""The hostile sessions of a load: a process that fuzzes while the workers of `smtpbench run --hostile` load the target.

Started as `python -m smtpbench.fuzz.hostile`. A process of its own keeps the work of fuzzing out of the event loop of the
well-behaved sessions, because their latency is what is measured.

Standard input carries lines of JSON, in this order:

1. The job: that of a worker, with the password, whether the target may be another machine, and the folder for findings.
2. About once a second, `{"allow": 120}`: the number of cases that may have begun a second later.
3. `"end"`. The process also ends when its standard input closes.

Standard output carries `{"ready": true}` once the target is known and the baseline is measured, and at the end the result
and the findings of the campaign.
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
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, fuzz_target
from smtpbench.fuzz.strategies import select_families
from smtpbench.measure.health import raise_descriptor_limit
from smtpbench.scenario.load import load_text
from smtpbench.target import Access, Trust, parse_target

#: Cases that run at the same time, at most.
_CONNECTIONS = 200
#: More than a campaign can reach.
_UNLIMITED = 1 << 40
#: Allowed cases are spread evenly over this time, seconds: the main process allows more once a second.
_ALLOWANCE_PERIOD_S = 1.0


class CaseQuota:
    """Spreads the cases that are allowed evenly over the time until more are allowed.

    Args:
        on_ready: Called when the campaign may begin its first case.
    """

    def __init__(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        self._on_ready = on_ready
        self._first_allowance = trio.Event()
        self._changed = trio.Event()
        self._ended = False
        self._first, self._limit, self._since_s = 0, 0, 0.0

    def allow(self, count: int) -> None:
        """Set how many cases, in total, may have begun a second from now."""
        self._first, self._limit, self._since_s = self._limit, max(count, self._limit), trio.current_time()
        self._notify()

    def end(self) -> None:
        """Allow no more cases."""
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        self._first_allowance.set()
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for_start(self) -> None:
        """Report that the campaign is ready, and wait for the first allowance."""
        await self._on_ready()
        await self._first_allowance.wait()

    async def wait_for_case(self, number: int) -> bool:
        """Wait until case `number` may begin. Return False if no more cases may begin."""
        while not self._ended:
            due_s = self._due_s(number)
            if due_s <= trio.current_time():
                return True
            with trio.move_on_at(due_s):
                await self._changed.wait()
        return False

    def _due_s(self, number: int) -> float:
        if number < self._first:
            return 0.0
        if number >= self._limit:
            return float("inf")
        return self._since_s + _ALLOWANCE_PERIOD_S * (number - self._first) / (self._limit - self._first)


def build_request(job: dict[str, Any]) -> FuzzRequest:
    """Return what a job asks for. Its keys are those of `smtpbench.load.job.Job`, `authorized` and `folder`."""
    ca, certificate, key = (None if job[name] is None else Path(job[name]) for name in ("ca", "certificate", "key"))
    trust = Trust(ca, job["insecure"], job["server_name"], certificate, key)
    target = parse_target(job["target"])
    access = Access(target, trust, job["password"], job["plan"]["timeout_ns"], job["authorized"])
    plan = CampaignPlan(
        _UNLIMITED, None, job["plan"]["seed"], _CONNECTIONS, select_families(), _UNLIMITED, timeout_ns=access.timeout_ns
    )
    file = load_text(job["text"], Path(job["path"]), allow_files=job["allow_files"])
    return FuzzRequest(file, access, plan, folder=Path(job["folder"]))


def answer_data(fuzz_result: FuzzResult) -> dict[str, Any]:
    """Return the last line of standard output."""
    return {
        "result": fuzz_result.result,
        "new": fuzz_result.new_findings,
        "findings": [(finding.id, finding.to_text()) for finding in fuzz_result.findings],
        "candidates": [(finding.id, finding.to_text()) for finding in fuzz_result.candidates],
    }


async def serve(commands: AsyncIterator[bytes], send_line: Callable[[Any], Awaitable[None]]) -> None:
    """Run a campaign as the commands say.

    Args:
        commands: Lines of standard input.
        send_line: Writes one value as a line of JSON to standard output.
    """
    request = build_request(json.loads(await anext(commands)))
    quota = CaseQuota(lambda: send_line({"ready": True}))

    async def read_commands(scope: trio.CancelScope) -> None:
        async for line in commands:
            command = json.loads(line)
            if command == "end":
                quota.end()
            else:
                quota.allow(command["allow"])
        scope.cancel()  # the main process has ended, or wants no result

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_commands, nursery.cancel_scope)
        try:
            answer = answer_data(await fuzz_target(request, limiter=quota))
        except SmtpbenchError as error:
            answer = {"error": str(error)}
        await send_line(answer)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Run the process: serve standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_descriptor_limit()

    async def serve_pipes() -> None:
        output = trio.lowlevel.FdStream(os.dup(1))
        await serve(
            lines(trio.lowlevel.FdStream(os.dup(0))), lambda data: output.send_all(json.dumps(data).encode() + b"\n")
        )

    trio.run(serve_pipes)


if __name__ == "__main__":
    main()
