"""Lines between two processes of one run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio


async def lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    """The lines of a stream."""
    rest = bytearray()
    async for data in stream:
        rest += data
        while (end := rest.find(b"\n")) >= 0:
            yield bytes(rest[:end])
            del rest[: end + 1]
