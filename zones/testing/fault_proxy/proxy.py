"""TCP proxy in front of a server, with faults that can be set while connections are open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from evcache.zones.testing.fault_proxy.pipes import Connection, Cut, Faults, close_now

if TYPE_CHECKING:
    from types import TracebackType


class FaultProxy:
    """Proxy between clients and the server at `target` ("host:port"), with faults on request.

        async with FaultProxy("127.0.0.1:11211") as proxy:
            client = connect(proxy.address)
            proxy.stall = True

    A fault applies at once to all open and future connections, and to bytes that wait in the proxy. If the server ends a
    connection, the client sees the same end: end of stream or reset. If the server cannot be reached, the client sees a
    reset. All methods and attributes belong to the event loop that called start().
    """

    def __init__(self, target: str) -> None:
        """Make a proxy without a socket.

        Args:
            target: Address of the server, "host:port".

        Raises:
            ValueError: The target has another form.
        """
        host, _, port = target.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"target {target!r} is not host:port")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._address: tuple[str, int] | None = None
        self._open: dict[asyncio.Task[None], Connection] = {}
        self._total = 0
        self._stall = False
        self._stall_replies = False
        self._requests = Faults()
        self._replies = Faults()
        self.refuse = False
        """True to reset new connections at once, as a load balancer without servers. Open ones continue."""

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1, and after stop() on the former one. Has no effect if started."""
        if self._server is not None:
            return
        # In two steps, so that a cancelled start has the listener that it must close.
        self._server = await asyncio.start_server(self._accept, *(self._address or ("127.0.0.1", 0)), start_serving=False)
        try:
            self._address = self._server.sockets[0].getsockname()
            await self._server.start_serving()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the listener, and reset all connections. Returns when no task or socket is left."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.drop_connections(reset=True)  # also those of a cancelled stop
        if server is not None:
            await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        """Address for clients, "127.0.0.1:port". RuntimeError before start()."""
        if self._address is None:
            raise RuntimeError("the proxy is not listening: use `async with FaultProxy(...)`, or await start()")
        return "{}:{}".format(*self._address)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._open)

    @property
    def connections_total(self) -> int:
        """Number of connections accepted so far, without refused ones."""
        return self._total

    @property
    def stall(self) -> bool:
        """True to hold all bytes in both directions, like a server that hangs.

        The proxy still accepts connections and bytes. It delivers the held bytes when this is False again.
        """
        return self._stall

    @stall.setter
    def stall(self, value: bool) -> None:
        self._stall = value
        self._apply_stalls()

    @property
    def stall_replies(self) -> bool:
        """True to hold replies only. The server executes requests, and the client gets no reply."""
        return self._stall_replies

    @stall_replies.setter
    def stall_replies(self, value: bool) -> None:
        self._stall_replies = value
        self._apply_stalls()

    @property
    def delay(self) -> float:
        """Seconds from the arrival of reply bytes to their delivery, in order. It does not limit throughput."""
        return self._replies.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        _set_delay(self._replies, seconds)

    @property
    def delay_requests(self) -> float:
        """Seconds from the arrival of request bytes to their delivery."""
        return self._requests.delay

    @delay_requests.setter
    def delay_requests(self, seconds: float) -> None:
        _set_delay(self._requests, seconds)

    @property
    def fragment(self) -> int | None:
        """Size in bytes of the pieces of replies, each a segment of its own. None delivers bytes as they arrive."""
        return self._replies.fragment

    @fragment.setter
    def fragment(self, size: int | None) -> None:
        if size is not None and size < 1:
            raise ValueError(f"fragment is a number of bytes from 1, or None; not {size}")
        self._replies.fragment = size

    def cut_after(self, reply_bytes: int) -> None:
        """Close one connection by end of stream after this number of further reply bytes.

        Bytes are counted over all connections, and the one that gets the last byte is closed. 0 closes the first that would
        get a reply. The server has then executed the request, and no byte of its reply arrives.

        Args:
            reply_bytes: Number of further bytes.
        """
        self._replies.cut = Cut(reply_bytes, reset=False)

    def reset_after(self, reply_bytes: int) -> None:
        """Reset one connection, where cut_after() closes it. Replaces a planned cut_after().

        Args:
            reply_bytes: Number of further bytes.
        """
        self._replies.cut = Cut(reply_bytes, reset=True)

    def cut_requests_after(self, request_bytes: int) -> None:
        """Close one connection by end of stream on both sides after this number of further request bytes.

        Bytes are counted as for cut_after(). 0 closes the first that would send a request, before the server gets it.

        Args:
            request_bytes: Number of further bytes.
        """
        self._requests.cut = Cut(request_bytes, reset=False)

    def inject(self, data: bytes) -> None:
        """Send bytes directly before the next reply bytes of any connection.

        Args:
            data: Bytes to send.
        """
        self._replies.injected.append(data)

    async def drop_connections(self, *, reset: bool = False) -> None:
        """Close all open connections. Held bytes are lost. Returns when all are closed.

        Args:
            reset: True to reset them. False to close them by end of stream.
        """
        for connection in self._open.values():
            connection.end(reset=reset)
        if self._open:
            await asyncio.wait(list(self._open))

    def forget_connections(self) -> None:
        """Drop all bytes on the present connections, like a NAT that has dropped their state.

        Neither side gets a notice. New connections work.
        """
        for connection in self._open.values():
            connection.is_forgotten = True

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse or self._server is None:
            close_now(writer, reset=True)
            return
        self._total += 1
        connection = Connection(reader, writer)
        task = asyncio.create_task(connection.serve(self._target, self._requests, self._replies))
        self._open[task] = connection
        task.add_done_callback(self._open.pop)

    def _apply_stalls(self) -> None:
        self._requests.stalled = self._stall
        self._replies.stalled = self._stall or self._stall_replies
        self._requests.wake()
        self._replies.wake()


def _set_delay(faults: Faults, seconds: float) -> None:
    if not seconds >= 0:
        raise ValueError(f"a delay is a number of seconds from 0, not {seconds}")
    faults.delay = seconds
    faults.wake()
