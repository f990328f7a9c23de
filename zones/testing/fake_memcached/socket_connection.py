"""Connection to the fake server through a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from evcache.zones.testing.fake_memcached.server import FakeMemcached

# Unread bytes of one client after which a paused server stops reading from the socket. The client's own buffers then fill,
# as with a stopped process.
_PAUSED_BACKLOG = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds


class SocketConnection(asyncio.Protocol):
    """The server's end of one socket."""

    def __init__(self, server: FakeMemcached, serial: int) -> None:
        self.serial = serial
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server = server
        self._session = server.session()
        self._requests = bytearray()  # arrived while the server is paused
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the server."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.adopt(self)

    def data_received(self, data: bytes) -> None:
        """Process requests, or keep them while the server is paused."""
        self._requests += data
        if not self._server.paused:
            self.process()
        elif len(self._requests) >= _PAUSED_BACKLOG and self._transport is not None:
            self._transport.pause_reading()

    def process(self) -> None:
        """Run the commands that have arrived, also those of a client that has gone."""
        requests = bytes(self._requests)
        self._requests.clear()
        replies = self._session.receive(requests)
        transport = self._transport
        if transport is None:
            self._server.forget(self)
            return
        if transport.is_closing():
            return
        transport.resume_reading()
        transport.write(replies)
        if self._session.closed:
            transport.close()

    def refuse(self, text: bytes) -> None:
        """Send a text, and close."""
        if self._transport is not None:
            self._transport.write(text)
            self._transport.close()

    def pause_writing(self) -> None:
        """Take no more requests from a client that does not read its replies."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Take requests again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def hang_up(self, *, reset: bool) -> None:
        """End the connection, by a reset or in the usual way."""
        self._requests.clear()
        transport = self._transport
        if transport is None:
            self._server.forget(self)
            return
        if reset:
            sock = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # unix sockets have no reset, or the client closed first
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if reset or transport.get_write_buffer_size():
            transport.abort()  # close() would wait for a client that does not read
        else:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the server, after the requests of a paused one."""
        del exc  # a client may end a connection in any way
        self._transport = None
        if not self._requests:
            self._server.forget(self)
        self.lost.set_result(None)
