"""Transport for servers that speak only the classic text protocol.

Each request is a task on the classic client, with the deadline of the request. A cancelled caller does not cancel the task:
the task reads the reply, and drops it. At the deadline the task ends together with its connection, which the pool replaces.

On one pipelined connection, a server sees the requests of a client in the order of the calls. Here they travel on several
connections, so a request waits for earlier writes to its own keys. Otherwise the older of two writes could arrive last.

When the server ends a connection, or refuses one, this transport takes no more requests. It ends once those in flight have
an answer. The node then reconnects, and asks which protocol the server speaks now.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from aiomcache.exceptions import ClientException

from evcache.zones._tasks import unattended
from evcache.zones.errors import ConnectionLost, NodeError, NodeTimeout, NodeUnavailable, Unsupported
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.operations import StoreMode
from evcache.zones.protocol.replies import AnyReply
from evcache.zones.protocol.requests import PROBE_KEY
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.classic import operations
from evcache.zones.transport.classic.client import ClassicClient, Refused
from evcache.zones.transport.classic.failures import node_error
from evcache.zones.transport.classic.pool import CannotConnect, Dial, PoolLimits
from evcache.zones.transport.classic.request_table import ClassicRequest, RequestTable
from evcache.zones.transport.in_flight import Waiter
from evcache.zones.transport.limits import ConnectionLimits

_log = logging.getLogger("evcache.zones.transport")


class ClassicConnection:
    """Connections to one node with a classic server, on one event loop: a `Transport`. It takes requests after `start`."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        dial: Dial,
        *,
        limits: ConnectionLimits,
        pool: PoolLimits,
        connect_timeout: float,
        traffic: ByteCounter,
        on_draining: Callable[[ClassicConnection], None],
        on_closed: Callable[[ClassicConnection, NodeUnavailable], None],
        on_timeouts: Callable[[ClassicConnection, int, int], None] | None = None,
        lag: LoopLag | None = None,
    ) -> None:
        """Make a transport without a connection.

        Args:
            name: Label of the node, for errors.
            loop: Event loop.
            dial: Opens a socket.
            limits: Limits on waiting requests.
            pool: Limits of the pool.
            connect_timeout: Seconds for opening a socket.
            traffic: Counter of the bytes of all sockets.
            on_draining: Called when the transport takes no more requests, and some have no answer yet.
            on_closed: Called once with the reason, when the transport has ended.
            on_timeouts: See `PipelinedConnection`. It also gets requests that were lost with one of several connections,
                with 0 in a row.
            lag: Lag of the event loop. A timeout is blamed on the loop if the loop stalled for most of the time of the
                request. The connection of a late request is closed, so a late reply can never prove the blame.
        """
        self.name = name
        self._loop = loop
        self._limits = limits
        self._on_draining = on_draining
        self._on_closed = on_closed
        self._on_timeouts = on_timeouts
        self._lag = lag
        self._late_in_a_row = 0
        self._begun = 0
        # One timer for each request, instead of one for each of its steps.
        self._longest = pool.acquire + (pool.operation or math.inf)
        self._client = ClassicClient(
            dial, pool, connect_timeout=connect_timeout, traffic=traffic, on_server_end=self._server_ended, name=name
        )
        self._turns = asyncio.Semaphore(pool.connections)  # a task that holds one finds a connection in the pool
        self._table = RequestTable()
        self._usable = False
        self._retiring = False
        self._why_ended: NodeUnavailable | None = None

    def __repr__(self) -> str:
        state = "closed" if self._why_ended else "retiring" if self._retiring else "open"
        return f"<ClassicConnection {self.name} {state} pending={len(self._table)} connections={self._client.connections}>"

    @property
    def is_open(self) -> bool:
        """True if it takes requests."""
        return self._usable

    @property
    def pending(self) -> int:
        """Number of requests without an answer, those of cancelled callers included."""
        return len(self._table)

    @property
    def unanswered(self) -> int:
        """Number of requests whose caller still waits."""
        return self._table.unanswered

    @property
    def requests(self) -> int:
        """Number of requests since the transport was made."""
        return self._begun

    @property
    def connections(self) -> int:
        """Number of open connections to the server."""
        return self._client.connections

    @property
    def heard_at(self) -> float:
        """Present time. See `renews_itself`."""
        return self._loop.time()

    quiet_since = heard_at

    @property
    def renews_itself(self) -> bool:
        """True: after a timeout it closes the connections that were idle."""
        return True

    def peers(self) -> frozenset[tuple[str, int]]:
        """Return the IP addresses and ports that its connections go to."""
        return self._client.peers()

    def forgive(self) -> None:
        """Reset the number of timeouts in a row."""
        self._late_in_a_row = 0

    # Handshake. The questions are sent one after another, because a server that does not know one may close, as some proxies
    # do. Only the first one must have an answer.

    async def probe(self, deadline: float | None = None) -> None:
        """Read a key that no caller uses. If `deadline` is None, there is no limit. Raises a `NodeError`."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._client.fetch([PROBE_KEY])
        except TimeoutError as error:
            self._client.drop_idle()
            raise self._problem(error) from error
        except Exception as error:
            # A proxy answers for a backend that has failed, and other keys have other backends.
            if not (isinstance(error, Refused) and error.line.startswith(b"SERVER_ERROR")):
                raise self._problem(error) from error

    async def version(self) -> str | None:
        """Return the version of the server, or None if it does not report one."""
        try:
            return (await self._client.version()).decode("latin-1")
        except (ClientException, OSError, EOFError):
            return None

    async def settings(self) -> dict[bytes, bytes]:
        """Return the settings of the server. They are empty if it shows none."""
        try:
            return await self._client.stats(b"settings")
        except (ClientException, OSError, EOFError):
            return {}

    def start(self) -> None:
        """Take requests from now on."""
        self._usable = self._why_ended is None

    # Operations. One that has no classic form raises `Unsupported` with the name of the feature, and nothing is sent.

    def get(self, key: bytes, fields: Fields, waiter: Waiter, deadline: float, *_: object, **__: object) -> None:
        """Read an item. See `Transport.get`. A pool of connections detects no silence, so `latest` has no effect."""
        self._start(partial(operations.get, self._client, key, fields), (key,), waiter, deadline)

    def read(self, key: bytes, fields: Fields, deadline: float, *_: object, **__: object) -> Awaitable[AnyReply]:
        """Read an item. See `Transport.read`. `latest` and a known CAS have no effect."""
        answer: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()
        self.get(key, fields, answer, deadline)
        return answer

    def get_many(
        self, keys: Sequence[bytes], fields: Fields, waiter: Waiter, deadline: float, *_: object, **__: object
    ) -> None:
        """Read several items. See `Transport.get_many`. `latest` and a known CAS have no effect."""
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

    def send_store(self, *_: object, **__: object) -> None:
        """Raise `Unsupported`."""
        raise Unsupported("versions", self.name)

    def replace_older(self, *_: object, **__: object) -> None:
        """Raise `Unsupported`."""
        raise Unsupported("versions", self.name)

    def delete(self, key: bytes, waiter: Waiter, deadline: float, compare: int | None = None) -> None:
        """Delete an item. See `Transport.delete`."""
        if compare is not None:
            raise Unsupported("deletes that compare", self.name)
        self._start(partial(operations.delete, self._client, key), (key,), waiter, deadline, writes=True)

    def touch(self, key: bytes, exptime: int, waiter: Waiter, deadline: float) -> None:
        """Set the TTL of an item. See `Transport.touch`."""
        self._start(partial(operations.touch, self._client, key, exptime), (key,), waiter, deadline, writes=True)

    def guarded_touch(self, *_: object, **__: object) -> None:
        """Raise `Unsupported`."""
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

    def lease(self, *_: object, **__: object) -> None:
        """Raise `Unsupported`."""
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
        table = self._table
        if len(table) >= self._limits.max_pending or table.bytes >= self._limits.max_queued_bytes:
            raise self._limits.refusal(len(table), table.bytes, self.name)
        self._begun += 1
        now, lost = self._loop.time(), 0.0
        if self._lag is not None:
            self._lag.watch()
            lost = self._lag.lost(now)
        request = ClassicRequest(waiter, size, tuple(keys) if writes else (), now, lost)
        execution = self._execute(work, table.writes_of(keys), request, deadline)
        task = unattended(self._loop.create_task(execution, name=f"evcache-classic-{self.name}"))
        table.add(task, request)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        request = self._table.get(task)
        self._table.remove(task)
        if request is not None and not request.waiter.done():  # the task was cancelled, perhaps before its first step
            request.waiter.set_exception(ConnectionLost("given up", self.name))
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("request to %s failed: the waiter raised an exception", self.name, exc_info=error)
        self._close_if_unused()

    async def _execute(
        self,
        work: Callable[[], Awaitable[Any]],
        earlier: list[asyncio.Task[None]],
        request: ClassicRequest,
        deadline: float,
    ) -> None:
        """Execute a request after the `earlier` writes, and pass the result to the waiter.

        Only `_end` cancels it, after it has failed the waiter.
        """
        task = asyncio.current_task()
        assert task is not None
        waiter, result, problem = request.waiter, None, None
        try:
            async with asyncio.timeout_at(min(deadline, self._loop.time() + self._longest)):
                if earlier:
                    await asyncio.wait(earlier)
                async with self._turns:
                    # A read without a caller is not sent. Otherwise calls that are cancelled faster than the server answers
                    # would take all of its time. A write goes on, as in every other zone.
                    if request.written or not waiter.done():
                        result = await work()
        except Exception as error:  # any error must reach the waiter, which would wait forever
            problem = self._problem(error)
            if isinstance(error, Refused | NodeError):  # an error reply proves that the server answers
                self._late_in_a_row = 0
        self._table.remove(task)  # before the waiter: its next request must find room
        is_timeout = isinstance(problem, NodeTimeout) and not self._was_stalled(request)
        if is_timeout:
            # A NAT may have forgotten the connections of this client. Those that were idle for longer are no better.
            self._client.drop_idle()
        if waiter.done():
            return
        if problem is None:
            self._late_in_a_row = 0
            waiter.set_result(result)
            return
        waiter.set_exception(problem)
        if is_timeout:
            self._late_in_a_row += 1
            self._report(self._late_in_a_row)
        elif isinstance(problem, ConnectionLost):
            self._report(0)

    def _report(self, in_a_row: int) -> None:
        if self._on_timeouts is not None and self._why_ended is None:
            self._on_timeouts(self, 1, in_a_row)

    def _was_stalled(self, request: ClassicRequest) -> bool:
        """Return True if the event loop stalled for most of the request's time."""
        now = self._loop.time()
        return self._lag is not None and self._lag.lost(now) - request.lost > (now - request.began) / 2

    def _problem(self, error: Exception) -> NodeError:
        if isinstance(error, CannotConnect):
            self._drain()  # the node's reconnect decides whether the node is down
        return node_error(error, self.name)

    # Life cycle.

    def _server_ended(self) -> None:
        if self._usable:  # during the handshake, the server may close
            self._drain()

    def _drain(self) -> None:
        if self._retiring or self._why_ended is not None:
            return
        self._retiring = True
        self._usable = False
        if self._table:
            self._on_draining(self)
        self._close_if_unused()

    def retire(self) -> None:
        """Take no more requests, and close once no caller waits for an answer."""
        self._retiring = True
        self._usable = False
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retiring and not self._table.unanswered:
            self._end(ConnectionLost("retired", self.name))

    def abort(self, why: str = "closed by this client") -> None:
        """Close now. Waiting callers get `ConnectionLost`. A second call has no effect."""
        self._end(ConnectionLost(why, self.name))

    def _end(self, why: NodeUnavailable) -> None:
        if self._why_ended is not None:
            return
        self._why_ended = why
        self._usable = False
        self._client.abort()
        tasks = list(self._table.tasks)
        # The node first: a waiter that tries again must not get this transport.
        self._on_closed(self, why)
        for task in tasks:
            request = self._table.get(task)
            if request is not None and not request.waiter.done():
                request.waiter.set_exception(ConnectionLost(why.problem, self.name))
            task.cancel()
