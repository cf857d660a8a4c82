"""A real SMTP server in a process of its own that leaks or spins on demand, and the server under test as tests see it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from smtpbench.measure.server_usage import MeasuredServer, UsageSample
from smtpbench.supervisor.death import Death, LogLine

CLEAN, MEMORY, DESCRIPTORS, THREADS, SPIN, SILENT_SPIN = "clean", "memory", "descriptors", "threads", "spin", "silent-spin"

_PROGRAM = r"""
import os, resource, socket, sys, threading, time
fault = sys.argv[1]
kept = []
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
threading.stack_size(128 * 1024)

def spin():
    if not kept:  # several such threads would keep each other from the interpreter's lock
        kept.append(True)
        while True:
            pass

def end_with_parent():
    sys.stdin.read()
    os._exit(0)

def serve(connection):
    send = lambda text: connection.sendall(text + b"\r\n")
    if fault == "descriptors":
        kept.append(os.open("/dev/null", os.O_RDONLY))
    file = connection.makefile("rb")
    send(b"220 leaking.example ESMTP")
    envelope = b""
    for line in file:
        verb = line[:4].upper().strip()
        if verb in (b"EHLO", b"HELO"):
            envelope = b""
            send(b"250-leaking.example\r\n250 8BITMIME" if verb == b"EHLO" else b"250 leaking.example")
        elif verb == b"MAIL":
            send(b"503 nested" if envelope else b"250 ok")
            envelope = envelope or b"MAIL"
        elif verb == b"RCPT":
            send(b"250 ok" if envelope else b"503 no")
            envelope = envelope and b"RCPT"
        elif verb == b"DATA":
            if envelope != b"RCPT":
                send(b"503 no")
                continue
            send(b"354 go")
            last = b"\r\n"
            for text in file:
                if text == b".\r\n" and last.endswith(b"\r\n"):
                    break
                last = text
            else:
                return
            envelope = b""
            send(b"250 taken")
        elif verb == b"RSET":
            if fault == "memory":
                kept.append(bytearray(os.urandom(100_000)))
            envelope = b""
            send(b"250 ok")
        elif verb == b"NOOP":
            send(b"250 ok")
        elif verb == b"VRFY":
            if fault == "threads":
                threading.Thread(target=threading.Event().wait, daemon=True).start()
            if fault == "spin":
                threading.Thread(target=spin, daemon=True).start()
            if fault == "silent-spin":
                spin()
            send(b"252 ok")
        elif verb == b"QUIT":
            send(b"221 bye")
            return
        else:
            send(b"500 what")

def run(connection):
    try:
        serve(connection)
    except OSError:
        pass
    finally:
        connection.close()

listener = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=200)
threading.Thread(target=end_with_parent, daemon=True).start()
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=run, args=(connection,), daemon=True).start()
"""


class LeakingServer:
    """The server; it is a `SupervisedServer`.

    Args:
        fault: One of the constants of this module.
        can_restart: See `SupervisedServer`.
    """

    known = True

    def __init__(self, fault: str, *, can_restart: bool = True) -> None:
        self._fault = fault
        self.can_restart = can_restart
        self.deaths: list[Death] = []
        self.samples: list[UsageSample] = []
        self.measured = MeasuredServer()
        self.restarts = 0
        self._cpu_before_s = 0.0
        self.port = 0
        self._start()

    def _start(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, self._fault, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None
        self.port = int(self._server.stdout.readline())
        self._process = psutil.Process(self._server.pid)

    def stop(self) -> None:
        """End the process."""
        self._cpu_before_s += sum(self._process.cpu_times()[:2])
        self._server.kill()
        self._server.communicate()

    async def death_since(self, at_ns: int) -> Death | None:
        return None

    async def wait_until_ready(self) -> bool:
        return True

    async def restart(self) -> bool:
        self.stop()
        self.restarts += 1
        self._start()
        return True

    def log_lines(self, from_ns: int, to_ns: int) -> list[LogLine]:
        return []

    def measure(self) -> UsageSample | None:
        times, switches = self._process.cpu_times(), self._process.num_ctx_switches()
        return UsageSample(
            time.monotonic_ns(),
            times.user + self._cpu_before_s,
            times.system,
            self._process.memory_info().rss,
            1,
            self._process.num_threads(),
            len(os.listdir(f"/proc/{self._server.pid}/fd")),
            voluntary_switches=switches.voluntary,
            involuntary_switches=switches.involuntary,
            restarts=self.restarts,
        )


@contextmanager
def leaking_server(fault: str, *, can_restart: bool = True) -> Iterator[LeakingServer]:
    """Return a server that serves; see `LeakingServer`."""
    server = LeakingServer(fault, can_restart=can_restart)
    try:
        yield server
    finally:
        server.stop()
