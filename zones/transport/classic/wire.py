"""One connection of the classic transport, and the rule by which it may be used again.

A connection may carry the next request only if the reply to its last one was read to the end, and nothing came after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from aiomcache.exceptions import ClientException
from aiomcache.pool import Connection

from evcache.zones.transport.byte_counter import ByteCounter


class OutOfStep(ClientException):
    """The server sent bytes that are not the reply to the request."""


class _CountingWriter(asyncio.StreamWriter):
    """Writer that counts its bytes. The classic transport sends with `write` only."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.StreamReaderProtocol,
        reader: asyncio.StreamReader,
        loop: asyncio.AbstractEventLoop,
        traffic: ByteCounter,
    ) -> None:
        super().__init__(transport, protocol, reader, loop)
        self._traffic = traffic

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes."""
        self._traffic.sent += len(data)
        super().write(data)


class PooledSocket(asyncio.StreamReaderProtocol):
    """Socket with a reader and a writer. It notices bytes and ends that come while no request is in flight."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_end: Callable[[PooledSocket], None], traffic: ByteCounter
    ) -> None:
        """Make a socket that is not connected.

        Args:
            loop: Event loop of the socket.
            on_end: Called with the socket when the server closes it, or sends bytes without a request.
            traffic: Counter of the bytes that are written and received.
        """
        self.reader = asyncio.StreamReader(loop=loop)
        super().__init__(self.reader, loop=loop)
        self.streams: Connection | None = None
        self.busy = False
        """True if a reply is expected, or was not read to its end. Such a socket gets no other request."""
        self.given_up = False
        """True once this process has closed it."""
        self.pooled = False
        """True once the pool has lent it, or could."""
        self._loop_of_writer = loop
        self._on_end = on_end
        self._traffic = traffic

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Handle an event of the loop."""
        super().connection_made(transport)
        # By its kind, not by its class: uvloop's transports are not asyncio's.
        socket = cast("asyncio.Transport", transport)
        writer = _CountingWriter(socket, self, self.reader, self._loop_of_writer, self._traffic)
        self.streams = Connection(self.reader, writer)

    def data_received(self, data: bytes) -> None:
        """Handle an event of the loop."""
        self._traffic.received += len(data)
        super().data_received(data)
        if not self.busy:
            self._ended()

    def eof_received(self) -> bool | None:
        """Handle an event of the loop."""
        super().eof_received()
        self._ended()
        return False  # close: half a connection is unusable

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle an event of the loop."""
        super().connection_lost(exc)
        # asyncio looks at the error of its future in `__del__`. If the garbage collector finds both in one cycle and takes
        # the future first, asyncio reports an exception that was never retrieved.
        closed: asyncio.Future[None] | None = getattr(self, "_closed", None)
        if exc is not None and closed is not None:
            closed.exception()
        self._ended()

    def _ended(self) -> None:
        if not self.given_up:
            self._on_end(self)

    @property
    def in_step(self) -> bool:
        """True if the next request will get its own reply."""
        ended = self.reader.at_eof() or self.reader.exception() is not None
        return not self.busy and not ended and not self.given_up and not self.unread

    @property
    def unread_text(self) -> str:
        """Text of the unread bytes, for messages."""
        return bytes(self.reader._buffer[:200]).decode("ascii", "backslashreplace").strip()  # type: ignore[attr-defined]  # noqa: SLF001

    @property
    def unread(self) -> int:
        """Number of bytes that arrived and were not read."""
        # StreamReader has no public name for this. It is the only sign of an extra reply before the next request.
        return len(self.reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001


@contextmanager
def exchange(socket: PooledSocket) -> Iterator[Connection]:
    """Enter around one request and all of its reply. If the body raises, the socket stays busy, and cannot be used again.

    Raises:
        OutOfStep: The server sent more than the reply.
    """
    assert socket.streams is not None
    socket.busy = True
    yield socket.streams
    if socket.unread:
        raise OutOfStep("more than the reply arrived")
    socket.busy = False
