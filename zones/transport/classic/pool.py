"""Pool of classic connections to one server: bounded and fair.

aiomcache's own pool is not used. Each rule names the fault of that pool.

- A connection goes back only if the reply to its last request was read to the end. aiomcache (#489) returns that of
  a cancelled call, and the next caller reads the wrong reply.
- Connecting, and waiting for a connection, have time limits (#91: none).
- A waiting caller gets the first connection that is free, whether another caller returns it or the pool opens it. In
  aiomcache, callers wait on a queue that a lost connection is never put into.
- The pool grows while calls wait, and shrinks when none do. aiomcache's pool never grows beyond its minimum once it is warm,
  and opens one connection for each waiting caller while it is cold.
- A connection that cannot be opened fails no caller while other connections work. A server at its limit (`-c`) answers
  `ERROR Too many open connections`, or accepts nothing. So a connection beside working ones is lent after it has answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from aiomcache.pool import Connection

from evcache.zones.transport.base import peers_of
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.classic.wire import PooledSocket, exchange
from evcache.zones.validation import at_least_one, positive_seconds

# Seconds after a connection could not be opened before the pool tries again, one at a time, while others work. As
# `CircuitLimits.first_pause`: a server at its limit has many clients that try.
RETRY_SECONDS = 1.0

_log = logging.getLogger("evcache.zones.transport")


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Number of connections of a node with a classic server, and time limits."""

    connections: int = 16
    """Highest number of connections. Each carries one request at a time. memcached takes 1,024 connections by default
    (`-c`): enough for 64 processes that all use their share."""

    idle: float = 60.0
    """Seconds after which an unused connection is closed. One stays open, so that the end of the server is noticed."""

    acquire: float = 5.0
    """Seconds that a request may wait for a connection, if its own deadline is later. Equals `ConnectionLimits.silence`."""

    operation: float | None = 5.0
    """Seconds from a request to the end of its reply, if its own deadline is later. Equals `ConnectionLimits.silence`. If
    None, the deadline alone applies."""

    def __post_init__(self) -> None:
        at_least_one(self.connections, "connections")
        positive_seconds(self.idle, "idle")
        positive_seconds(self.acquire, "acquire")
        if self.operation is not None:
            positive_seconds(self.operation, "operation")


class CannotConnect(OSError):
    """The server refuses a connection, and the pool has none."""


Dial = Callable[[Callable[[], PooledSocket]], Awaitable[PooledSocket]]
"""Function that makes a socket with the factory, connects and returns it. It may raise any error."""

Greet = Callable[[Connection], Awaitable[None]]
"""Function that sends a request on a new connection. It may raise any error if the server does not answer."""


class ClassicPool:
    """Connections to one server, on one event loop. The first is opened when a caller needs it."""

    def __init__(
        self,
        dial: Dial,
        limits: PoolLimits,
        *,
        connect_timeout: float,
        greet: Greet,
        traffic: ByteCounter,
        on_server_end: Callable[[], None] | None = None,
        name: str = "a server",
    ) -> None:
        """Create a pool without a connection.

        Args:
            dial: Opens a connection.
            limits: The number of connections, and times.
            connect_timeout: Seconds for opening a connection, `greet` included.
            greet: Checks that a new connection answers. The first connection of a pool is not greeted, because no other
                connection could serve the caller that waits for it.
            traffic: Counter of the bytes of all connections.
            on_server_end: Called when the server has ended a connection that the pool has lent, or could lend.
            name: The server's name in the log.
        """
        self._dial = dial
        self._limits = limits
        self._connect_timeout = connect_timeout
        self._on_server_end = on_server_end
        self._loop = asyncio.get_running_loop()
        self._greet = greet
        self._traffic = traffic
        self._name = name
        self._idle: deque[tuple[PooledSocket, float]] = deque()  # the one used last is at the right, and is used next
        self._used: set[PooledSocket] = set()
        self._greeted: set[PooledSocket] = set()
        self._waiting: deque[asyncio.Future[PooledSocket]] = deque()  # nothing is idle while one waits
        self._opening: dict[asyncio.Task[None], PooledSocket | None] = {}  # with what is being greeted
        self._pause_ends: float | None = None  # after an opening that failed; None after one that did not
        self._retry: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def size(self) -> int:
        """Open connections, in use and idle."""
        return len(self._idle) + len(self._used)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Connection]:
        """Lend a connection for one request and all of its reply. Callers get one in the order of their calls.

        A new connection is opened if none is idle. The caller gets it, or one that is returned before it is open. If the
        body raises, or more than the reply arrives, the connection is closed.

        Raises:
            TimeoutError: No connection was free in time.
            CannotConnect: The server cannot be reached, and no connection is open.
            ConnectionError: The pool is closed.
            OutOfStep: More than the reply arrived.
        """
        if self._closed:
            raise ConnectionAbortedError("the pool is closed")
        socket = None if self._waiting else self._take_idle()
        if socket is None:
            socket = await self._turn()
        self._used.add(socket)
        try:
            with exchange(socket) as streams:
                yield streams
        finally:
            self._release(socket)

    async def _turn(self) -> PooledSocket:
        """Wait for a connection. It counts as used already. A cancelled caller takes none."""
        turn: asyncio.Future[PooledSocket] = self._loop.create_future()
        self._waiting.append(turn)
        self._grow()
        try:
            async with asyncio.timeout(self._limits.acquire):
                return await turn
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._open_no_more_than(len(self._waiting))
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # in the tick of the cancellation
                self._release(turn.result())
            raise

    def _release(self, socket: PooledSocket) -> None:
        """Take a connection back. If it is in step, keep it, else close it and open another for the next in line."""
        self._used.discard(socket)
        if self._closed or not socket.in_step:
            self._drop(socket)
            self._grow()
        else:
            self._offer(socket)

    def _offer(self, wire: PooledSocket) -> None:
        """Lend a connection to the next in line, or keep it."""
        wire.pooled = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._used.add(wire)  # now: it takes room until its caller runs
                turn.set_result(wire)
                return
        self._idle.append((wire, self._loop.time()))
        self._sweep_later()

    def peers(self) -> frozenset[tuple[str, int]]:
        """Return the IP addresses and ports that its connections go to."""
        wires = [*(wire for wire, _ in self._idle), *self._used]
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
        for wire in self._used:
            self._drop(wire)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._open_no_more_than(0)
        for turn in self._take_waiting():
            turn.set_exception(ConnectionAbortedError("the pool is closed"))

    def _take_idle(self) -> PooledSocket | None:
        while self._idle:
            wire, _ = self._idle.pop()
            if wire.in_step:
                return wire
            self._drop(wire)
        return None

    def _grow(self) -> None:
        """Open connections for callers that wait, as far as the limit and the pause after a failure allow."""
        if self._closed:
            return
        working = self.size()
        wanted = min(len(self._waiting), self._limits.connections - working) - len(self._opening)
        if working and self._pause_ends is not None and wanted > 0:
            if self._loop.time() < self._pause_ends:
                if self._retry is None:
                    self._retry = self._loop.call_at(self._pause_ends, self._grow_again)
                return
            wanted = min(wanted, 1 - len(self._opening))
        for _ in range(wanted):
            greet = bool(working)
            task = self._loop.create_task(self._add(greet=greet), name="evcache-classic-open")
            self._opening[task] = None
            task.add_done_callback(partial(self._opened, greeted=greet))

    def _open_no_more_than(self, most: int) -> None:
        """Give up connections that are being opened and that no caller waits for."""
        for task, wire in list(self._opening.items())[most:]:
            del self._opening[task]  # its end says nothing about the server
            # A task that is cancelled in the tick of a reset would leave the error unseen, for asyncio to report.
            if wire is None:
                task.cancel()
            else:
                self._drop(wire)

    def _grow_again(self) -> None:
        self._retry = None
        self._grow()

    async def _add(self, *, greet: bool) -> None:
        """Open one connection for the callers that wait. Raises `CannotConnect`."""
        wire = await self._open(greet=greet)
        if self._closed:
            self._drop(wire)
            return
        self._pause_ends = None
        self._offer(wire)

    def _opened(self, task: asyncio.Task[None], *, greeted: bool) -> None:
        wanted = task in self._opening
        self._opening.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None and wanted:
            if self._pause_ends is None and self.size():
                _log.warning("%s takes no more than %d connections of this client: %s", self._name, self.size(), error)
            self._pause_ends = self._loop.time() + RETRY_SECONDS
            # One that was to be greeted may have been slow to answer. Without it, the next is lent as soon as it is open.
            if not greeted and not self.size():
                for turn in self._take_waiting():
                    turn.set_exception(CannotConnect(*error.args))
        self._grow()

    def _take_waiting(self) -> list[asyncio.Future[PooledSocket]]:
        turns, self._waiting = self._waiting, deque()
        return [turn for turn in turns if not turn.done()]

    async def _open(self, *, greet: bool) -> PooledSocket:
        made: list[PooledSocket] = []

        def make() -> PooledSocket:
            made.append(PooledSocket(self._loop, self._ended, self._traffic))
            return made[-1]

        try:
            async with asyncio.timeout(self._connect_timeout):
                wire = await self._dial(make)
                if greet:
                    await self._greet_on(wire)
            if not wire.in_step:
                raise ConnectionResetError(wire.unread_text or "closed as soon as it was open")  # noqa: TRY301
        except BaseException as error:
            for wire in made:  # a dialer may have connected it, and been cancelled before it could say so
                self._drop(wire)
            if isinstance(error, TimeoutError) and not str(error):  # ours; the system's own has words
                raise CannotConnect(f"no connection in {self._connect_timeout:g} s") from error
            if isinstance(error, Exception):
                raise CannotConnect(str(error) or type(error).__name__) from error
            raise
        return wire

    async def _greet_on(self, wire: PooledSocket) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._greeted.add(wire)
        self._opening[task] = wire
        try:
            with exchange(wire) as streams:
                await self._greet(streams)
        finally:
            self._greeted.discard(wire)

    def _drop(self, wire: PooledSocket) -> None:
        wire.given_up = True
        if wire.streams is not None:
            # Not close(): that would wait for a server that takes nothing, and what is unsent must not be sent.
            wire.streams.writer.transport.abort()

    def _ended(self, wire: PooledSocket) -> None:
        for entry in self._idle:
            if entry[0] is wire:
                self._idle.remove(entry)
                break
        if wire not in self._used:
            if wire not in self._greeted:
                self._drop(wire)
            self._grow()
        if wire.pooled and self._on_server_end is not None and not self._closed:
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
