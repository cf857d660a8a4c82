"""Lines that two processes of one run exchange."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio


async def lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, without their line ends."""
    buffer = bytearray()
    async for data in stream:
        buffer += data
        while (end := buffer.find(b"\n")) >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
