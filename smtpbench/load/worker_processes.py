"""Several worker processes that share one schedule; their reports are added.

Each worker is `python -m smtpbench.load.worker_processes`. Its standard input carries the job, the start time, and the words
`drain` or `stop`. The job holds the password, which therefore appears in no process list. Its standard output carries
reports, one line of JSON each. A worker stops when its standard input ends, so that no worker outlives the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from smtpbench.engine.pipe import lines
from smtpbench.errors import CannotRun
from smtpbench.load.job import Job, prepare
from smtpbench.load.meter import Meter, WorkerReport
from smtpbench.load.worker import HEAD_START_NS, Controls, Worker
from smtpbench.measure.health import raise_descriptor_limit


class WorkerProcesses:
    """The workers of a run, seen from the main process. end_ns: when the last of them had finished."""

    def __init__(self, job: Job, controls: Controls, on_report: Callable[[WorkerReport], None]) -> None:
        self._job = job
        self._controls = controls
        self._on_report = on_report
        self._processes: list[trio.Process] = []
        self._ready = 0
        self._all_ready = trio.Event()
        self.end_ns = 0
        self.failures: list[str] = []

    async def run(self, on_start: Callable[[int], None]) -> None:
        """Start the workers, tell `on_start` when they begin, and return when all have ended. Raises CannotRun."""
        workers = self._job.plan.workers
        async with trio.open_nursery() as nursery:
            for number in range(workers):
                # a session of its own: Ctrl-C on the terminal is for the main process, which then says `drain`
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "smtpbench.load.worker_processes"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
                self._processes.append(process)
                nursery.start_soon(self._follow, process, number, nursery.cancel_scope)
                await self._tell(process, json.dumps({"job": self._job.to_json(), "worker": number}))
            await self._all_ready.wait()
            start_ns = time.monotonic_ns() + HEAD_START_NS
            on_start(start_ns)
            await self._tell_all(json.dumps({"start_ns": start_ns}))
            nursery.start_soon(self._pass_on, self._controls.drain, "drain")
            nursery.start_soon(self._pass_on, self._controls.stop, "stop")
        if len(self.failures) == workers:
            raise CannotRun("every worker process failed: " + "; ".join(self.failures))

    async def _follow(self, process: trio.Process, number: int, scope: trio.CancelScope) -> None:
        done = False
        assert process.stdout is not None
        try:
            async for line in lines(process.stdout):
                message: dict[str, Any] = json.loads(line)
                if "ready" in message:
                    self._one_ready()
                elif "report" in message:
                    self._on_report(WorkerReport.from_data(message["report"]))
                else:
                    done = True
                    self.end_ns = max(self.end_ns, message["end_ns"])
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        if not done:
            self.failures.append(f"worker {number} ended with status {process.returncode}")
            self._one_ready()
        self._processes.remove(process)
        if not self._processes:
            scope.cancel()

    def _one_ready(self) -> None:
        self._ready += 1
        if self._ready == self._job.plan.workers:
            self._all_ready.set()

    async def _pass_on(self, event: trio.Event, word: str) -> None:
        await event.wait()
        await self._tell_all(json.dumps(word))

    async def _tell_all(self, line: str) -> None:
        for process in list(self._processes):
            await self._tell(process, line)

    @staticmethod
    async def _tell(process: trio.Process, line: str) -> None:
        assert process.stdin is not None
        # one that has ended says so by its output
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await process.stdin.send_all(line.encode() + b"\n")


async def serve() -> None:
    """A worker process: do what standard input says."""
    raise_descriptor_limit()
    commands = lines(trio.lowlevel.FdStream(os.dup(0)))
    output = trio.lowlevel.FdStream(os.dup(1))
    first = json.loads(await anext(commands))
    job, number = Job.from_json(first["job"]), first["worker"]
    script, route, credentials = prepare(job)
    worker = Worker(script, route, job.plan, number, credentials, job.domains)
    worker.make_ready()
    await output.send_all(b'{"ready": true}\n')
    start = json.loads(await anext(commands))
    await _work(worker, number, start["start_ns"], commands, output)


async def _work(
    worker: Worker, number: int, start_ns: int, commands: AsyncIterator[bytes], output: trio.lowlevel.FdStream
) -> None:
    controls, meter = Controls(), Meter(number)
    send, receive = trio.open_memory_channel[WorkerReport](1000)

    async def obey() -> None:
        async for line in commands:
            (controls.drain if json.loads(line) == "drain" else controls.stop).set()
        controls.stop.set()  # the main process is gone

    async def tick(worker: Worker, now_ns: int, lag_ns: int) -> None:
        send.send_nowait(await meter.read(worker, now_ns, lag_ns))

    async def tell() -> None:
        async for report in receive:
            await output.send_all(json.dumps({"report": report.to_data()}).encode() + b"\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey)
        async with trio.open_nursery() as telling:
            telling.start_soon(tell)
            async with send:
                await worker.run(start_ns, controls, tick)
        await output.send_all(json.dumps({"end_ns": worker.end_ns}).encode() + b"\n")
        nursery.cancel_scope.cancel()


def main() -> None:
    """The entry point of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trio.run(serve)


if __name__ == "__main__":
    main()
