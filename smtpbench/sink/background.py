"""A sink in a thread, for a program that does something else meanwhile.

The thread has an event loop of its own, so the program may have one too, of any kind, or none. It shares the
interpreter with the program: what is measured against such a sink should be measured from another process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import trio

from smtpbench.errors import CannotRun
from smtpbench.sink.serve import Sink, sink_running
from smtpbench.sink.setup import Setup

#: How long the thread may take to begin and to end.
TIMEOUT_S = 30.0


@contextmanager
def sink_in_a_thread(setup: Setup) -> Iterator[Sink]:
    """Run a sink on a free port of the loopback for as long as the context lasts. Raises CannotRun."""
    ready: Future[tuple[Sink, trio.lowlevel.TrioToken, trio.CancelScope]] = Future()
    trouble: list[BaseException] = []

    async def serve() -> None:
        with trio.CancelScope() as scope:
            async with sink_running(
                setup.service, tls=setup.tls, connections=setup.connections, session=setup.session
            ) as sink:
                ready.set_result((sink, trio.lowlevel.current_trio_token(), scope))
                await trio.sleep_forever()

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:  # whatever it was, it is raised where somebody sees it: in the other thread
            trouble.append(error)
            if not ready.done():
                ready.set_exception(error)

    thread = threading.Thread(target=run, name="smtpbench-sink", daemon=True)
    thread.start()
    sink, token, scope = ready.result(TIMEOUT_S)
    try:
        yield sink
    finally:
        if not trouble:
            token.run_sync_soon(scope.cancel)
        thread.join(TIMEOUT_S)
    if trouble:
        raise CannotRun(f"the sink died of {trouble[0]!r}") from trouble[0]
