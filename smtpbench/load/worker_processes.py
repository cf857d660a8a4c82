"""Several worker processes that share one schedule; their reports are added.

Each worker is `python -m smtpbench.load.worker_processes`. Its standard input carries the job, the start time, and the
commands `drain` and `stop`. The job holds the password, which therefore appears in no process list. Its standard output
carries reports, one line of JSON each. A worker stops when its standard input ends, so that no worker outlives the run.
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
from smtpbench.load.job import Job
from smtpbench.load.lost_worker import LostWorker
from smtpbench.load.meter import Meter, WorkerReport
from smtpbench.load.worker import START_DELAY_NS, Controls, Worker, make_worker
from smtpbench.measure.health import raise_descriptor_limit

#: How a worker is started.
COMMAND = (sys.executable, "-m", "smtpbench.load.worker_processes")


class WorkerProcesses:
    """The workers of a run, seen from the main process.

    Args:
        job: Job of the workers.
        controls: Ways to end the run early; they are forwarded.
        on_report: Called with every report of a worker.

    Attributes:
        end_ns: When the last worker had finished, of `time.monotonic_ns`; 0 before.
        lost: Workers that ended before the end of their share.
    """

    def __init__(self, job: Job, controls: Controls, on_report: Callable[[WorkerReport], None]) -> None:
        self._job = job
        self._controls = controls
        self._on_report = on_report
        self._processes: list[trio.Process] = []
        self._ready = 0
        self._ended = 0
        self._all_ready = trio.Event()
        self.end_ns = 0
        self.lost: list[LostWorker] = []
        self._start_ns = 0

    @property
    def started(self) -> bool:
        """Whether a worker was ready, so that the arrivals began."""
        return bool(self._start_ns)

    async def run(self, on_start: Callable[[int], None]) -> None:
        """Start the workers, and return when all have ended.

        Args:
            on_start: Called with the time of the first arrival, of `time.monotonic_ns`, once all workers are ready.
        """
        workers = self._job.plan.workers
        async with trio.open_nursery() as nursery:
            for number in range(workers):
                # a session of its own: Ctrl-C on the terminal is for the main process, which then sends `drain`
                process = await trio.lowlevel.open_process(
                    COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                    pass_fds=tuple(self._job.corpora.values()),
                )
                self._processes.append(process)
                nursery.start_soon(self._receive_reports, process, number, nursery.cancel_scope)
                await self._send(process, json.dumps({"job": self._job.to_json(), "worker": number}))
            await self._all_ready.wait()
            if len(self.lost) < workers:
                self._start_ns = time.monotonic_ns() + START_DELAY_NS
                on_start(self._start_ns)
                await self._send_all(json.dumps({"start_ns": self._start_ns}))
                nursery.start_soon(self._forward, self._controls.drain, "drain")
                nursery.start_soon(self._forward, self._controls.stop, "stop")

    async def _receive_reports(self, process: trio.Process, number: int, scope: trio.CancelScope) -> None:
        finished, last_ns, counted = False, 0, 0
        assert process.stdout is not None
        try:
            async for line in lines(process.stdout):
                message: dict[str, Any] = json.loads(line)
                if "ready" in message:
                    self._count_ready()
                elif "report" in message:
                    report = WorkerReport.from_data(message["report"])
                    last_ns = report.end_ns - self._start_ns
                    counted += report.measured_messages
                    self._on_report(report)
                else:
                    finished = True
                    self.end_ns = max(self.end_ns, message["end_ns"])
            await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await trio.aclose_forcefully(process.stdout)
        if not finished:
            self.lost.append(LostWorker(number, process.returncode or 0, last_ns, counted))
            self._count_ready()
        self._processes.remove(process)
        self._ended += 1
        if self._ended == self._job.plan.workers:
            scope.cancel()

    def _count_ready(self) -> None:
        """Count a worker that is ready, or will never be."""
        self._ready += 1
        if self._ready == self._job.plan.workers:
            self._all_ready.set()

    async def _forward(self, event: trio.Event, command: str) -> None:
        await event.wait()
        await self._send_all(json.dumps(command))

    async def _send_all(self, line: str) -> None:
        for process in list(self._processes):
            await self._send(process, line)

    @staticmethod
    async def _send(process: trio.Process, line: str) -> None:
        assert process.stdin is not None
        # a process that has ended shows it by the end of its output
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await process.stdin.send_all(line.encode() + b"\n")


async def serve() -> None:
    """Run one worker, as standard input says."""
    raise_descriptor_limit()
    commands = lines(trio.lowlevel.FdStream(os.dup(0)))
    output = trio.lowlevel.FdStream(os.dup(1))
    first = json.loads(await anext(commands))
    number = first["worker"]
    worker = make_worker(Job.from_json(first["job"]), number)
    await output.send_all(b'{"ready": true}\n')
    start = json.loads(await anext(commands))
    await _run_worker(worker, number, start["start_ns"], commands, output)


async def _run_worker(
    worker: Worker, number: int, start_ns: int, commands: AsyncIterator[bytes], output: trio.lowlevel.FdStream
) -> None:
    controls, meter = Controls(), Meter(number)
    send, receive = trio.open_memory_channel[WorkerReport](1000)

    async def read_commands() -> None:
        async for line in commands:
            (controls.drain if json.loads(line) == "drain" else controls.stop).set()
        controls.stop.set()  # the main process has ended

    async def on_tick(worker: Worker, now_ns: int, lag_ns: int) -> None:
        send.send_nowait(await meter.read(worker, now_ns, lag_ns))

    async def write_reports() -> None:
        async for report in receive:
            await output.send_all(json.dumps({"report": report.to_data()}).encode() + b"\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_commands)
        async with trio.open_nursery() as writing:
            writing.start_soon(write_reports)
            async with send:
                await worker.run(start_ns, controls, on_tick)
        await output.send_all(json.dumps({"end_ns": worker.end_ns}).encode() + b"\n")
        nursery.cancel_scope.cancel()


def main() -> None:
    """Entry point of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trio.run(serve)


if __name__ == "__main__":
    main()
