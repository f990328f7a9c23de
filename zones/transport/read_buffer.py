"""Where connections put what arrives."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

# A plain asyncio.Protocol is read for with a new object of 256 KiB each time, which is cut to what arrived: as much work as
# all the rest of a reply (a fifth more gets a second without it). All connections of a loop share one buffer: loops fill it
# and hand it over in one step, and what is in it is copied before anything else runs.
READ_BUFFER_BYTES = 256 * 1024

_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def read_buffer_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    """Return the buffer that all connections of a loop share."""
    buffer = _buffers.get(loop)
    if buffer is None:
        buffer = _buffers[loop] = memoryview(bytearray(READ_BUFFER_BYTES))
    return buffer
