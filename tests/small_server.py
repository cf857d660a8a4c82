"""A server of one process that runs what it is told, so that a test decides how and when it ends."""

from __future__ import annotations

import socket
import time

import trio

from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.target import Access, parse_target
from smtpbench.units import NS_PER_S

#: A server that greets, and does what a line says: a command of Python.
SERVER = """\
import os, signal, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if len(sys.argv) > 2:
    exec(sys.argv[2])
while True:
    connection, _ = listener.accept()
    try:
        connection.sendall(b"220 small.example ESMTP\\r\\n")
        for line in connection.makefile("rb"):
            if line[:4] not in (b"EHLO", b"QUIT"):
                exec(line)
            connection.sendall(b"250 small.example\\r\\n")
    except OSError:
        pass
    connection.close()
"""


def access(port: int) -> Access:
    return Access(parse_target(f"smtp://127.0.0.1:{port}"), timeout_ns=2 * NS_PER_S)


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return not sock.connect_ex(("127.0.0.1", port))


async def do(port: int, code: str) -> None:
    """Let the server run a line of Python, and wait until it has closed the connection."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(code.encode() + b"\r\nQUIT\r\n")
        await stream.send_eof()
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


async def death_of(server: SupervisedServer, port: int, code: str) -> str:
    """Return how the server ended that ran a line of Python."""
    before_ns = time.monotonic_ns()
    await do(port, code)
    death = await server.death_since(before_ns)
    return death.how if death is not None else "no death"
