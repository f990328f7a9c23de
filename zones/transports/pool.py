"""The pool of classic connections: bounded, fair, and sure of what it hands out.

aiomcache's own pool is replaced but for the two methods that its client calls, `acquire` and `release`. Each rule names
what makes it necessary; where a release of aiomcache keeps it, it can go from here.

- A connection goes back only when the reply to its last request was read to the end. aiomcache (#489) returns one whose
  caller was cancelled in between, and the next caller reads the wrong answer.
- Connecting, waiting for a turn and talking have limits (#91: there are none).
- Whoever waits for a turn is always woken: a permit comes back with every release, whatever became of the connection.
  aiomcache's waiters sleep on a queue that a lost connection is never put into.
- The pool grows while calls wait, and shrinks when they don't. aiomcache's never grows beyond its minimum once it is warm,
  and opens one for each waiting caller while it is cold.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import cast

from aiomcache.exceptions import ClientException
from aiomcache.pool import Connection, MemcachePool

from zones.transports.base import peers_of


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections a node with classic servers gets, and how long what may take."""

    connections: int = 16
    """The most at once; each carries one request at a time. memcached takes 1,024 connections by default (`-c`): enough for
    64 processes that all use their share."""

    idle: float = 60.0
    """Seconds after which a connection that nobody needed is closed; one stays, so that a server that goes is noticed."""

    acquire: float = 5.0
    """Seconds that a request may wait for a connection, where its own deadline is later. As `ConnectionLimits.silence`."""

    operation: float | None = 5.0
    """Seconds from a request to the end of its reply, where its own deadline is later. As `ConnectionLimits.silence`. None:
    the caller has a limit of its own."""


class OutOfStep(ClientException):
    """The server sent something that is not the reply to what was asked."""


class CannotConnect(OSError):
    """There is no connection, and no idle one to use instead."""


class Wire(asyncio.StreamReaderProtocol):
    """One socket as aiomcache wants it, a reader and a writer; and a watch on what happens while nobody reads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[Wire], None]) -> None:
        """`on_end(wire)` is called when the server has closed it, or has said something that nobody asked for."""
        self.reader = asyncio.StreamReader(loop=loop)
        super().__init__(self.reader, loop=loop)
        self.streams: Connection | None = None
        self.busy = False
        """Whether a reply is expected, or was not read to its end: such a connection is never handed on."""
        self.given_up = False
        """Whether it was closed from this side."""
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
    def unread(self) -> int:
        """Bytes that arrived and that nobody has read."""
        # StreamReader has no public name for this, and it is the one sign of a reply too many before it does harm.
        return len(self.reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001


class Exchange:
    """See `HardenedPool.exchange`."""

    __slots__ = ("_limit", "_wire")

    def __init__(self, wire: Wire, seconds: float | None) -> None:
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


Dial = Callable[[Callable[[], Wire]], Awaitable[Wire]]
"""Connects what the factory makes, and returns it. Raises what it likes when that fails."""


class HardenedPool(MemcachePool):
    """Connections to one server. Belongs to one event loop; nothing is opened before it is asked for."""

    def __init__(
        self, dial: Dial, limits: PoolLimits, *, connect_timeout: float, on_server_end: Callable[[], None] | None = None
    ) -> None:
        """`connect_timeout` in seconds. `on_server_end()` is called when the server has ended a connection."""
        super().__init__("", 0, minsize=0, maxsize=limits.connections)
        self._dial = dial
        self._limits = limits
        self._connect_timeout = connect_timeout
        self._on_server_end = on_server_end
        self._loop = asyncio.get_running_loop()
        self._permits = asyncio.Semaphore(limits.connections)
        self._idle: deque[tuple[Wire, float]] = deque()  # the one used last is at the right, and is used next
        self._used: dict[Connection, Wire] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def size(self) -> int:
        """Open connections, in use and idle."""
        return len(self._idle) + len(self._used)

    async def acquire(self) -> Connection:
        """Lend a connection, opening one if none is idle. First come, first served.

        Raises `TimeoutError` when none is free in time, `CannotConnect` when the server can't be reached, and
        `ConnectionError` when the pool is closed. Cancelling costs nothing.
        """
        if self._permits.locked():
            async with asyncio.timeout(self._limits.acquire):
                await self._permits.acquire()
        else:  # at once; a timer costs as much as the rest of this
            await self._permits.acquire()
        try:
            wire = self._take_idle()
            if wire is None:
                wire = await self._open()
            if self._closed:
                self._drop(wire)
                raise ConnectionAbortedError("the pool is closed")  # noqa: TRY301
        except BaseException:
            self._permits.release()
            raise
        assert wire.streams is not None
        self._used[wire.streams] = wire
        return wire.streams

    def release(self, conn: Connection) -> None:
        """Take a connection back: keep it if it is in step, else close it. Either way the next in line gets a turn."""
        wire = self._used.pop(conn)
        if self._closed or not wire.in_step:
            self._drop(wire)
        else:
            self._idle.append((wire, self._loop.time()))
            self._sweep_later()
        self._permits.release()

    def exchange(self, conn: Connection) -> Exchange:
        """Around one request and all of its reply. Leaving it in any other way than by its end costs the connection.

        Raises `TimeoutError` when it takes too long, and `OutOfStep` when there is more than the reply.
        """
        return Exchange(self._used[conn], self._limits.operation)

    def peers(self) -> frozenset[tuple[str, int]]:
        """Return the IP addresses and ports that its connections go to."""
        wires = [*(wire for wire, _ in self._idle), *self._used.values()]
        return frozenset().union(*(peers_of(wire.streams.writer.transport) for wire in wires if wire.streams is not None))

    def drop_idle(self) -> None:
        """Close the connections that carry no request."""
        while self._idle:
            self._drop(self._idle.pop()[0])

    def close(self) -> None:
        """Close every connection; requests that are on one end with `ConnectionError` or `IncompleteReadError`."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self.drop_idle()
        for wire in self._used.values():
            self._drop(wire)

    async def clear(self) -> None:
        """Close: what aiomcache's `close` calls. There, connections in use come back to life afterwards."""
        self.close()

    def _take_idle(self) -> Wire | None:
        while self._idle:
            wire, _ = self._idle.pop()
            if wire.in_step:
                return wire
            self._drop(wire)
        return None

    async def _open(self) -> Wire:
        made: list[Wire] = []

        def make() -> Wire:
            made.append(Wire(self._loop, self._ended))
            return made[-1]

        try:
            async with asyncio.timeout(self._connect_timeout):
                return await self._dial(make)
        except BaseException as error:
            for wire in made:  # a dialer may have connected it, and been cancelled before it could say so
                self._drop(wire)
            if isinstance(error, TimeoutError) and not str(error):  # ours; the system's own has words
                raise CannotConnect(f"no connection in {self._connect_timeout:g} s") from error
            if isinstance(error, Exception):
                raise CannotConnect(str(error) or type(error).__name__) from error
            raise

    def _drop(self, wire: Wire) -> None:
        wire.given_up = True
        if wire.streams is not None:
            # Not close(): that would wait for a server that takes nothing, and what is unsent must not be sent.
            wire.streams.writer.transport.abort()

    def _ended(self, wire: Wire) -> None:
        for entry in self._idle:
            if entry[0] is wire:
                self._idle.remove(entry)
                break
        if wire.streams is None or wire.streams not in self._used:
            self._drop(wire)
        if self._on_server_end is not None and not self._closed:
            self._on_server_end()

    def _sweep_later(self) -> None:
        if self._sweep is None and len(self._idle) > 1:
            self._sweep = self._loop.call_later(self._limits.idle, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        unused_since = self._loop.time() - self._limits.idle
        while len(self._idle) > 1 and self._idle[0][1] <= unused_since:
            self._drop(self._idle.popleft()[0])
        if len(self._idle) > 1:
            self._sweep = self._loop.call_at(self._idle[0][1] + self._limits.idle, self._close_idle)
