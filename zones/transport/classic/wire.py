"""One connection of the classic transport, and the rule by which it may be used again.

A connection may carry the next request only if the reply to its last one was read to the end, and nothing came after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import cast

from aiomcache.exceptions import ClientException
from aiomcache.pool import Connection


class OutOfStep(ClientException):
    """The server sent something that is not the reply to what was asked."""


class PooledSocket(asyncio.StreamReaderProtocol):
    """One socket as aiomcache wants it, a reader and a writer; and a watch on what happens while nobody reads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[PooledSocket], None]) -> None:
        """`on_end(wire)` is called when the server has closed it, or has said something that nobody asked for."""
        self.reader = asyncio.StreamReader(loop=loop)
        super().__init__(self.reader, loop=loop)
        self.streams: Connection | None = None
        self.busy = False
        """Whether a reply is expected, or was not read to its end: such a connection is never handed on."""
        self.given_up = False
        """Whether it was closed from this side."""
        self.pooled = False
        """True once the pool has lent it, or could."""
        self._loop_of_writer = loop
        self._on_end = on_end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        super().connection_made(transport)
        # By its kind, not by its class: uvloop's transports are not asyncio's.
        writer = asyncio.StreamWriter(cast("asyncio.Transport", transport), self, self.reader, self._loop_of_writer)
        self.streams = Connection(self.reader, writer)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        super().data_received(data)
        if not self.busy:
            self._ended()

    def eof_received(self) -> bool | None:
        """Called by the event loop."""
        super().eof_received()
        self._ended()
        return False  # nothing is gained by half a connection

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
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
        """Whether the next request on it will get its own reply."""
        ended = self.reader.at_eof() or self.reader.exception() is not None
        return not self.busy and not ended and not self.given_up and not self.unread

    @property
    def said(self) -> str:
        """The text of what nobody has read."""
        return bytes(self.reader._buffer[:200]).decode("ascii", "backslashreplace").strip()  # type: ignore[attr-defined]  # noqa: SLF001

    @property
    def unread(self) -> int:
        """Bytes that arrived and that nobody has read."""
        # StreamReader has no public name for this, and it is the one sign of a reply too many before it does harm.
        return len(self.reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001


class Exchange:
    """See `ClassicPool.exchange`."""

    __slots__ = ("_limit", "_wire")

    def __init__(self, wire: PooledSocket, seconds: float | None) -> None:
        self._wire = wire
        self._limit = None if seconds is None else asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        self._wire.busy = True
        if self._limit is not None:
            await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._limit is not None:
            await self._limit.__aexit__(kind, error, traceback)
        if error is None:
            if self._wire.unread:
                raise OutOfStep("more than the reply arrived")
            self._wire.busy = False
