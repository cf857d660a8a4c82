"""A sink in a thread, for a program that does something else at the same time.

The thread has an event loop of its own, so the program may have one too, of any kind, or none. Sink and program share the
interpreter, so measure such a sink from another process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import trio

from smtpbench.errors import CannotRun
from smtpbench.sink.serve import Sink, sink_running
from smtpbench.sink.setup import SinkSetup

#: Limit for the start and for the end of the thread, seconds.
THREAD_TIMEOUT_S = 30.0


@contextmanager
def sink_in_a_thread(setup: SinkSetup) -> Iterator[Sink]:
    """Run a sink on a free port of the loopback interface for as long as the context lasts.

    Raises:
        CannotRun: The sink cannot listen, or its thread failed.
    """
    ready: Future[tuple[Sink, trio.lowlevel.TrioToken, trio.CancelScope]] = Future()
    failures: list[BaseException] = []

    async def serve() -> None:
        with trio.CancelScope() as scope:
            async with sink_running(
                setup.context, tls=setup.tls, max_connections=setup.max_connections, session_class=setup.session_class
            ) as sink:
                ready.set_result((sink, trio.lowlevel.current_trio_token(), scope))
                await trio.sleep_forever()

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:  # raised again in the thread that uses the sink
            failures.append(error)
            if not ready.done():
                ready.set_exception(error)

    thread = threading.Thread(target=run, name="smtpbench-sink", daemon=True)
    thread.start()
    sink, token, scope = ready.result(THREAD_TIMEOUT_S)
    try:
        yield sink
    finally:
        if not failures:
            token.run_sync_soon(scope.cancel)
        thread.join(THREAD_TIMEOUT_S)
    if failures:
        raise CannotRun(f"the sink failed: {failures[0]!r}") from failures[0]
