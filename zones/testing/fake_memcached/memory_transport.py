"""Connection to the fake server without a socket: an asyncio transport whose other end is a Session.

All work happens in callbacks of the event loop (`call_soon` only), so a run is deterministic, also in virtual time. Bytes of
the client reach the server at once, as they would reach the kernel. A paused server reads them when it is resumed, even if
the client has gone by then.
"""

# ruff: noqa: D102  (the public methods are those of asyncio.Transport, and are documented there)
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evcache.zones.testing.fake_memcached.session import Session

_HIGH_WATER = 64 * 1024  # asyncio's default; the low mark is a quarter of it
_READ_SIZE = 256 * 1024  # largest data_received of asyncio's own transports
_SERVER_READ_SIZE = 64 * 1024
# Unread bytes of replies above which a server stops reading from a client. The kernel buffers about this amount.
_UNREAD_REPLIES = 256 * 1024


class Host(Protocol):
    """Part of a server that a transport uses."""

    @property
    def paused(self) -> bool:
        """True if the server sends no replies until it is resumed."""

    def forget(self, transport: MemoryTransport, /) -> None:
        """Remove a connection that has ended on both sides. Called once."""


class MemoryTransport(asyncio.Transport):
    """The client's end. `get_extra_info` reads `extra`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: Host,
        session: Session,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(extra or {})
        self.lost: asyncio.Future[None] = loop.create_future()  # done after connection_lost was called
        self._loop = loop
        self._host = host
        self._session = session
        self._protocol = protocol
        self._requests = bytearray()  # written, not yet read by the server
        self._replies = bytearray()  # answered, not yet read by the client
        self._closing = False
        self._server_gone = False
        self._forgotten = False
        self._eof_told = False
        self._reading = True
        self._scheduled = False
        self._protocol_paused = False
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4

    # --- asyncio.Transport: the client's side ----------------------------------------------------------------------

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._schedule()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._closing:
            return  # as asyncio's transports do
        if self._server_gone:
            self._lose(ConnectionResetError("the server has closed the connection"))
            return
        self._requests += data
        self._schedule()
        self._watch_buffer()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return len(self._requests)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._watch_buffer()

    def close(self) -> None:
        """Close. Written bytes still reach the server. The protocol gets no more bytes."""
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    # --- the server's side -----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Continue after the server was resumed."""
        self._schedule()

    def hang_up(self, error: Exception | None) -> None:
        """End the connection. Without an error, the client sees an end of file. An error acts as a reset."""
        self._server_gone = True
        self._requests.clear()
        self._forget()
        if error is not None:
            self._replies.clear()
            self._lose(error)
        else:
            self._schedule()

    def refuse(self, text: bytes) -> None:
        """Send a text and close, without counting the connection."""
        self._forgotten = True
        self._server_gone = True
        self._replies += text
        self._schedule()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._transfer)

    def _transfer(self) -> None:
        """Let the server read and answer, then deliver replies if the client reads."""
        self._scheduled = False
        if self._requests and not self._stalled():
            requests = bytes(self._requests[:_SERVER_READ_SIZE])
            del self._requests[:_SERVER_READ_SIZE]
            self._replies += self._session.receive(requests)
            self._server_gone = self._server_gone or self._session.closed
        self._watch_buffer()
        if self._closing:
            self._replies.clear()
            if self._server_gone or not self._requests:
                self._forget()
            elif not self._stalled():
                self._schedule()
            return
        if self._replies and self._reading:
            self._deliver(bytes(self._replies[:_READ_SIZE]))
        if self._server_gone:
            self._requests.clear()
            if not self._replies and not self._closing and not self._eof_told:
                self._end_of_file()
        if (self._replies and self._reading) or (self._requests and not self._stalled()):
            self._schedule()

    def _deliver(self, data: bytes) -> None:
        if isinstance(self._protocol, asyncio.BufferedProtocol):
            buffer = memoryview(self._protocol.get_buffer(len(data)))
            size = min(len(buffer), len(data))  # the rest is delivered next
            buffer[:size] = data[:size]
            del self._replies[:size]
            self._protocol.buffer_updated(size)
        else:
            assert isinstance(self._protocol, asyncio.Protocol)
            del self._replies[: len(data)]
            self._protocol.data_received(data)

    def _stalled(self) -> bool:
        return self._host.paused or (len(self._replies) >= _UNREAD_REPLIES and not self._closing)

    def _end_of_file(self) -> None:
        assert isinstance(self._protocol, (asyncio.Protocol, asyncio.BufferedProtocol))
        self._eof_told = True
        self._forget()
        if not self._protocol.eof_received():
            self._lose(None)

    def _watch_buffer(self) -> None:
        """Pause the protocol while the server does not read, and resume it afterwards."""
        waiting = len(self._requests) if self._stalled() else 0
        if self._closing:
            return
        if waiting > self._high and not self._protocol_paused:
            self._protocol_paused = True
            self._protocol.pause_writing()
        elif waiting <= self._low and self._protocol_paused:
            self._protocol_paused = False
            self._protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._loop.call_soon(self._connection_lost, error)
        self._schedule()

    def _connection_lost(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            if not self.lost.done():
                self.lost.set_result(None)

    def _forget(self) -> None:
        if not self._forgotten:
            self._forgotten = True
            self._host.forget(self)
