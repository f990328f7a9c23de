"""Buffer for the bytes that arrive on connections."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

# For a plain asyncio.Protocol, each read allocates 256 KiB and shrinks it to the bytes that arrived. That costs as much as
# the rest of a reply: without it, a client reads a fifth more per second. All connections of a loop share one buffer. The
# loop fills it and calls the connection in one step, and the connection copies the bytes before other code runs.
READ_BUFFER_BYTES = 256 * 1024

_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def read_buffer_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    """Return the buffer that all connections of a loop share."""
    buffer = _buffers.get(loop)
    if buffer is None:
        buffer = _buffers[loop] = memoryview(bytearray(READ_BUFFER_BYTES))
    return buffer
