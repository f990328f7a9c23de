"""The transport for servers that only speak the classic text protocol, behind the same seam as the pipelined one.

Each request is a task of its own on the hardened aiomcache client, with the request's deadline. Once it is sent it goes on
when its caller has left, so that a cancelled call costs nothing and a reply is always read by whoever sent the request; the
reply then goes to nobody. At the deadline it is given up together with its connection, which the pool replaces.

On one pipelined connection a server sees a client's requests in the order in which they were made. Here they travel on
several connections, so a request waits for the writes of its own keys that were made before it: otherwise the older of two
writes could arrive last, and stay.

When the server ends a connection, or can't be connected to, this transport takes no more requests and ends once those it
has are answered. The node then connects anew and asks what the server is: it may be another one by now.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from aiomcache.exceptions import ClientException

from evcache.zones._tasks import unattended
from evcache.zones.errors import (
    ConnectionLost,
    NodeError,
    NodeTimeout,
    NodeUnavailable,
    Unsupported,
)
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.operations import GuardedStore, StoreMode
from evcache.zones.protocol.requests import PROBE_KEY
from evcache.zones.transport.classic import operations
from evcache.zones.transport.classic.client import ClassicClient, Refused
from evcache.zones.transport.classic.failures import node_error
from evcache.zones.transport.classic.pool import CannotConnect, Dial, PoolLimits
from evcache.zones.transport.in_flight import Waiter
from evcache.zones.transport.limits import ConnectionLimits

_log = logging.getLogger("evcache.zones.transport")


class _Request(NamedTuple):
    """What is to be undone when a request has been answered."""

    waiter: Waiter
    size: int
    """Bytes of its value."""
    written: tuple[bytes, ...]
    """The keys that it writes."""
    began: float
    lost: float
    """What the loop had lost by then (`LoopLag.lost`)."""


class ClassicConnection:
    """One node with a classic server. Made by `Node`; lives on one event loop. A `evcache.zones.transport.base.Transport`.

    It takes requests after `start`.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        dial: Dial,
        *,
        limits: ConnectionLimits,
        pool: PoolLimits,
        connect_timeout: float,
        on_draining: Callable[[ClassicConnection], None],
        on_closed: Callable[[ClassicConnection, NodeUnavailable], None],
        on_timeouts: Callable[[ClassicConnection, int, int], None] | None = None,
        lag: LoopLag | None = None,
    ) -> None:
        """`name` is the node's label, for errors. `dial` opens a socket.

        `on_draining(connection)` is called when it takes no more requests and still answers some;
        `on_closed(connection, why)` once, when it has ended. `on_timeouts` and `lag`: see `PipelinedConnection`. A timeout
        is the loop's when it was stalled for most of the time, since its connection is given up, and no reply can show it.
        A request that was lost with one of several connections is reported too, with none in a row.
        """
        self.name = name
        self._loop = loop
        self._limits = limits
        self._on_leaving = on_draining
        self._on_lost = on_closed
        self._on_late = on_timeouts
        self._lag = lag
        self._late_in_a_row = 0
        self._asked = 0
        # One timer for each request, and not one more for each of its steps.
        self._longest = pool.acquire + (pool.operation or math.inf)
        self._client = ClassicClient(
            dial,
            replace(pool, operation=None),
            connect_timeout=connect_timeout,
            on_server_end=self._server_ended,
            name=name,
        )
        self._turns = asyncio.Semaphore(pool.connections)  # so that whoever has one finds a connection in the pool
        self._requests: dict[asyncio.Task[None], _Request] = {}  # not answered yet, by the task that will
        self._bytes = 0  # of values that wait to be stored
        self._last_write: dict[bytes, asyncio.Task[None]] = {}
        self._usable = False
        self._retiring = False
        self._why_ended: NodeUnavailable | None = None

    def __repr__(self) -> str:
        state = "closed" if self._why_ended else "retiring" if self._retiring else "open"
        return (
            f"<ClassicConnection {self.name} {state} pending={len(self._requests)} connections={self._client.connections}>"
        )

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._usable

    @property
    def pending(self) -> int:
        """Requests that have not been answered, given up ones included."""
        return len(self._requests)

    @property
    def unanswered(self) -> int:
        """Requests whose caller still waits."""
        return sum(not request.waiter.done() for request in self._requests.values())

    @property
    def requests(self) -> int:
        """Requests ever sent on it."""
        return self._asked

    @property
    def connections(self) -> int:
        """Open connections to the server."""
        return self._client.connections

    @property
    def heard_at(self) -> float:
        """Now. See `renews_itself`."""
        return self._loop.time()

    @property
    def quiet_since(self) -> float:
        """Now. See `renews_itself`."""
        return self._loop.time()

    @property
    def renews_itself(self) -> bool:
        """True: after a timeout it uses none of the connections that were idle."""
        return True

    def peers(self) -> frozenset[tuple[str, int]]:
        """Return the IP addresses and ports that its connections go to."""
        return self._client.peers()

    def forgive(self) -> None:
        """Count timeouts in a row from the beginning."""
        self._late_in_a_row = 0

    # The first words. They are asked one after another, and a server that does not know a question may close, as some
    # proxies do: only the first one has to be answered.

    async def probe(self, deadline: float | None = None) -> None:
        """Make sure that a memcached answers, by the deadline if there is one. Raises a `NodeError`."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._client.fetch([PROBE_KEY])
        except TimeoutError as error:
            self._client.drop_idle()
            raise self._problem(error) from error
        except Exception as error:
            # A proxy whose backend of this key fails answers, and other keys have other backends.
            if not (isinstance(error, Refused) and error.line.startswith(b"SERVER_ERROR")):
                raise self._problem(error) from error

    async def version(self) -> str | None:
        """What the server says of itself; None when it does not."""
        try:
            return (await self._client.version()).decode("latin-1")
        except (ClientException, OSError, EOFError):
            return None

    async def settings(self) -> dict[bytes, bytes]:
        """The server's settings; empty when it shows none."""
        try:
            known = await self._client.stats(b"settings")
        except (ClientException, OSError, EOFError):
            return {}
        return {name: value for name, value in known.items() if value is not None}

    def start(self) -> None:
        """Take requests from now on."""
        self._usable = self._why_ended is None

    # Operations. See `Transport`. What has no classic form raises `Unsupported` naming the feature, with nothing sent.

    def get(self, key: bytes, fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None) -> None:
        """Read an item. See `Transport.get`. A pool of connections detects no silence, so `latest` has no effect."""
        del latest
        self._start(partial(operations.get, self._client, key, fields), (key,), waiter, deadline)

    def get_many(
        self, keys: Sequence[bytes], fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None
    ) -> None:
        """Read several items. See `Transport.get_many`. `latest` has no effect."""
        del latest
        self._start(partial(operations.get_many, self._client, keys, fields), keys, waiter, deadline)

    def store(
        self,
        key: bytes,
        data: bytes,
        flags: int,
        exptime: int,
        waiter: Waiter,
        deadline: float,
        *,
        mode: StoreMode = "set",
        compare: int | None = None,
        cas: int | None = None,
    ) -> None:
        """Store a value. See `Transport.store`. A `compare` of 0 is a token."""
        if cas is not None:
            raise Unsupported("versions", self.name)
        if compare is not None and mode != "set":
            raise Unsupported(f"{mode} that compares", self.name)
        verb = mode.encode() if compare is None else b"cas"
        work = partial(operations.store, self._client, verb, key, data, flags, exptime, compare)
        self._start(work, (key,), waiter, deadline, size=len(data), writes=True)

    def guarded_store(self, store: GuardedStore, waiter: Waiter, deadline: float) -> None:
        """Raise `Unsupported`."""
        del store, waiter, deadline
        raise Unsupported("versions", self.name)

    def replace_older(self, key: bytes, data: bytes, flags: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Raise `Unsupported`."""
        del key, data, flags, cas, waiter, deadline
        raise Unsupported("versions", self.name)

    def delete(self, key: bytes, waiter: Waiter, deadline: float, compare: int | None = None) -> None:
        """Delete an item. See `Transport.delete`."""
        if compare is not None:
            raise Unsupported("deletes that compare", self.name)
        self._start(partial(operations.delete, self._client, key), (key,), waiter, deadline, writes=True)

    def touch(self, key: bytes, exptime: int, waiter: Waiter, deadline: float) -> None:
        """Set the TTL of an item. See `Transport.touch`."""
        self._start(partial(operations.touch, self._client, key, exptime), (key,), waiter, deadline, writes=True)

    def guarded_touch(self, key: bytes, exptime: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Raise `Unsupported`."""
        del key, exptime, cas, waiter, deadline
        raise Unsupported("versions", self.name)

    def count(
        self,
        key: bytes,
        delta: int,
        waiter: Waiter,
        deadline: float,
        *,
        decrement: bool,
        compare: int | None = None,
        cas: int | None = None,
    ) -> None:
        """Add to a counter, or subtract from it. See `Transport.count`."""
        if compare is not None or cas is not None:
            raise Unsupported("versions", self.name)
        work = partial(operations.count, self._client, key, delta, decrement=decrement)
        self._start(work, (key,), waiter, deadline, writes=True)

    def lease(self, key: bytes, seconds: int, waiter: Waiter, deadline: float, cas: int | None = None) -> None:
        """Raise `Unsupported`."""
        del key, seconds, waiter, deadline, cas
        raise Unsupported("leases", self.name)

    def _start(
        self,
        work: Callable[[], Awaitable[Any]],
        keys: Iterable[bytes],
        waiter: Waiter,
        deadline: float,
        *,
        size: int = 0,
        writes: bool = False,
    ) -> None:
        if not self._usable:
            raise ConnectionLost("the connection is closed", self.name)
        if len(self._requests) >= self._limits.max_pending or self._bytes >= self._limits.max_queued_bytes:
            raise self._limits.refusal(len(self._requests), self._bytes, self.name)
        self._asked += 1
        now, lost = self._loop.time(), 0.0
        if self._lag is not None:
            self._lag.watch()
            lost = self._lag.lost(now)
        before = [task for key in keys if (task := self._last_write.get(key)) is not None]
        request = _Request(waiter, size, tuple(keys) if writes else (), now, lost)
        answer = self._answer(work, before, request, deadline)
        task = unattended(self._loop.create_task(answer, name=f"evcache-classic-{self.name}"))
        self._requests[task] = request
        self._bytes += size
        for key in request.written:
            self._last_write[key] = task
        task.add_done_callback(self._ended)

    def _settle(self, task: asyncio.Task[None]) -> None:
        """The request takes no room any more, and nobody has to wait for it. May be called again."""
        request = self._requests.pop(task, None)
        if request is None:
            return
        self._bytes -= request.size
        for key in request.written:
            if self._last_write.get(key) is task:
                del self._last_write[key]

    def _ended(self, task: asyncio.Task[None]) -> None:
        request = self._requests.get(task)
        self._settle(task)
        if request is not None and not request.waiter.done():  # somebody else cancelled it, perhaps before it began
            request.waiter.set_exception(ConnectionLost("given up", self.name))
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a waiter for %s could not be told its answer", self.name, exc_info=error)
        self._close_if_nobody_waits()

    async def _answer(
        self, work: Callable[[], Awaitable[Any]], before: list[asyncio.Task[None]], request: _Request, deadline: float
    ) -> None:
        # Cancelled only by `_end`, which has told the waiter then.
        task = asyncio.current_task()
        assert task is not None
        waiter, result, problem = request.waiter, None, None
        try:
            async with asyncio.timeout_at(min(deadline, self._loop.time() + self._longest)):
                if before:
                    await asyncio.wait(before)
                async with self._turns:
                    # A read that nobody waits for is not sent any more: else calls that are cancelled faster than they are
                    # served would take all of the server's time. A write goes on, as in every other zone.
                    if request.written or not waiter.done():
                        result = await work()
        except Exception as error:  # a waiter that is told nothing would wait for ever
            problem = self._problem(error)
            if isinstance(error, Refused | NodeError):  # an error reply is a sign of life
                self._late_in_a_row = 0
        self._settle(task)  # first: what the waiter asks for next must find room
        stalled = isinstance(problem, NodeTimeout) and self._stalled(request)
        if isinstance(problem, NodeTimeout) and not stalled:
            # A NAT may have forgotten the connections of this client. Those that were idle for longer are no better.
            self._client.drop_idle()
        if waiter.done():
            return
        if problem is None:
            self._late_in_a_row = 0
            waiter.set_result(result)
            return
        waiter.set_exception(problem)
        if isinstance(problem, NodeTimeout) and not stalled:
            self._late_in_a_row += 1
            self._report(self._late_in_a_row)
        elif isinstance(problem, ConnectionLost):
            self._report(0)

    def _report(self, in_a_row: int) -> None:
        if self._on_late is not None and self._why_ended is None:
            self._on_late(self, 1, in_a_row)

    def _stalled(self, request: _Request) -> bool:
        """Whether this process took most of the request's time."""
        now = self._loop.time()
        return self._lag is not None and self._lag.lost(now) - request.lost > (now - request.began) / 2

    def _problem(self, error: Exception) -> NodeError:
        if isinstance(error, CannotConnect):
            self._leave()  # the node finds out whether it is down
        return node_error(error, self.name)

    # Life.

    def _server_ended(self) -> None:
        if self._usable:  # during the first words it may
            self._leave()

    def _leave(self) -> None:
        if self._retiring or self._why_ended is not None:
            return
        self._retiring = True
        self._usable = False
        if self._requests:
            self._on_leaving(self)
        self._close_if_nobody_waits()

    def retire(self) -> None:
        """Take no more requests, and close once all that were taken are answered."""
        self._retiring = True
        self._usable = False
        self._close_if_nobody_waits()

    def _close_if_nobody_waits(self) -> None:
        if self._retiring and all(request.waiter.done() for request in self._requests.values()):
            self._end(ConnectionLost("retired", self.name))

    def abort(self, why: str = "closed by this client") -> None:
        """Close now. Everyone who waits gets `ConnectionLost`. Calling it again does nothing."""
        self._end(ConnectionLost(why, self.name))

    def _end(self, why: NodeUnavailable) -> None:
        if self._why_ended is not None:
            return
        self._why_ended = why
        self._usable = False
        self._client.abort()
        requests = dict(self._requests)
        # The node first: a waiter that tries again must not be handed this connection.
        self._on_lost(self, why)
        for task, request in requests.items():
            if not request.waiter.done():
                request.waiter.set_exception(ConnectionLost(why.problem, self.name))
            task.cancel()
