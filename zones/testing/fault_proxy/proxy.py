"""FaultProxy: a TCP proxy in front of a server, with faults that are switched while connections are open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from evcache.zones.testing.fault_proxy.pipes import Connection, Cut, Faults, close_now

if TYPE_CHECKING:
    from types import TracebackType


class FaultProxy:
    """Stands between clients and the server at `target` ("host:port"), and misbehaves on request.

        async with FaultProxy("127.0.0.1:11211") as proxy:
            client = connect(proxy.address)
            proxy.stall = True

    Faults apply from the moment they are set, to every open and future connection, also to bytes that already wait in
    the proxy. A connection that ends on the server's side ends in the same way for the client, by end of stream or by
    reset; when the server can't be reached it is reset.
    All methods and attributes belong to the event loop that called start().
    """

    def __init__(self, target: str) -> None:
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
        """Whether new connections are reset at once, as by a load balancer without servers. Open ones go on."""

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1, after stop() on the former one. No effect when started."""
        if self._server is not None:
            return
        # In two steps, so that a cancelled start knows of the listener it has to close.
        self._server = await asyncio.start_server(self._accept, *(self._address or ("127.0.0.1", 0)), start_serving=False)
        try:
            self._address = self._server.sockets[0].getsockname()
            await self._server.start_serving()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the listener and, by reset, every connection. Returns when no task or socket is left."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.drop_connections(reset=True)  # also of a stop that was cancelled
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
        """Where clients connect, "127.0.0.1:port". RuntimeError before start()."""
        if self._address is None:
            raise RuntimeError("the proxy is not listening: use `async with FaultProxy(...)`, or await start()")
        return "{}:{}".format(*self._address)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    @property
    def connections_total(self) -> int:
        """Connections accepted so far, without refused ones."""
        return self._total

    @property
    def stall(self) -> bool:
        """Whether nothing is handed on, in either direction, as by a server that hangs.

        Connections and bytes are still accepted; once False again, what was held is delivered.
        """
        return self._stall

    @stall.setter
    def stall(self, value: bool) -> None:
        self._stall = value
        self._apply_stalls()

    @property
    def stall_replies(self) -> bool:
        """Whether replies alone are held: the server does what it is asked, and the client does not hear of it."""
        return self._stall_replies

    @stall_replies.setter
    def stall_replies(self, value: bool) -> None:
        self._stall_replies = value
        self._apply_stalls()

    @property
    def delay(self) -> float:
        """Seconds from the arrival of reply bytes to their delivery, in order. Latency: it does not limit throughput."""
        return self._replies.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        _set_delay(self._replies, seconds)

    @property
    def delay_requests(self) -> float:
        """The same for request bytes."""
        return self._requests.delay

    @delay_requests.setter
    def delay_requests(self, seconds: float) -> None:
        _set_delay(self._requests, seconds)

    @property
    def fragment(self) -> int | None:
        """Deliver replies in pieces of so many bytes, each a segment of its own. None delivers what there is."""
        return self._replies.fragment

    @fragment.setter
    def fragment(self, size: int | None) -> None:
        if size is not None and size < 1:
            raise ValueError(f"fragment is a number of bytes from 1, or None; not {size}")
        self._replies.fragment = size

    def cut_after(self, reply_bytes: int) -> None:
        """Close one connection, orderly, once that many more reply bytes were delivered; then all is well again.

        Bytes are counted over all connections; the one that gets the last of them is closed. 0 closes the first that
        would get a reply: the server has done what it was asked, and nothing of its answer arrives.
        """
        self._replies.cut = Cut(reply_bytes, reset=False)

    def reset_after(self, reply_bytes: int) -> None:
        """The same by a reset, which the client sees as ConnectionResetError. Replaces a pending cut_after()."""
        self._replies.cut = Cut(reply_bytes, reset=True)

    def cut_requests_after(self, request_bytes: int) -> None:
        """Close one connection, orderly on both sides, once the server was sent that many more request bytes.

        Counted as for cut_after(). 0 closes the first that would send a request: the server never sees it.
        """
        self._requests.cut = Cut(request_bytes, reset=False)

    def inject(self, data: bytes) -> None:
        """Send bytes that no server sent right before the next reply bytes, on whichever connection has them."""
        self._replies.injected.append(data)

    async def drop_connections(self, *, reset: bool = False) -> None:
        """Close every open connection, orderly or by reset. What the proxy holds is lost. Returns when all are closed."""
        for connection in self._open.values():
            connection.end(reset=reset)
        if self._open:
            await asyncio.wait(list(self._open))

    def forget_connections(self) -> None:
        """Drop whatever arrives on the connections that are open now, as a NAT does that has forgotten them.

        Neither side hears of it. New connections work.
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
