"""One memcached node: opens its connections when they are needed, replaces those that end, says when it is down."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from zones.capabilities import Capabilities
from zones.checks import at_least_one, login, seconds
from zones.connection import Connection, ConnectionLimits
from zones.dialer import Dialer, SocketDialer
from zones.errors import InvalidArgument, NodeTimeout, NodeUnavailable
from zones.handshake import SpeaksNoMeta, meet_classic, shake_hands
from zones.topology import Endpoint
from zones.transports.base import Transport, TransportChoice, TransportName
from zones.transports.classic import ClassicConnection
from zones.transports.pool import PoolLimits

# The first attempt to reconnect comes at once, the next after up to this long, then up to twice as long each time. Drawn
# evenly from 0 up ("full jitter"), so that the clients of a node that restarts do not all knock in the same moment.
RECONNECT_FIRST_SECONDS = 0.1
RECONNECT_MAX_SECONDS = 5.0

State = Literal["idle", "connecting", "ready", "down", "closed"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How nodes are connected to."""

    transport: TransportChoice = "auto"
    """`meta`, `classic` (through aiomcache, for servers that only speak the classic text protocol), or `auto`: each node is
    asked on every connect. A proxy that closes on a command it does not know has to be named `classic`."""

    connections: int = 1
    """Connections to each node with the meta protocol. One carries about 100,000 requests a second; more help where values
    are large, since a reply of a megabyte holds up the ones behind it."""

    connect_timeout: float = 0.5
    """Seconds for connecting, TLS, login and the first questions. Between zones a TCP connect takes a few milliseconds."""

    auth: tuple[str, str] | None = field(default=None, repr=False)
    """User and password for servers run with `-Y`. They travel in clear text unless TLS is on."""

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    classic: PoolLimits = field(default_factory=PoolLimits)
    """The pool of connections to a node with a classic server."""

    dialer: Dialer = field(default_factory=SocketDialer)

    def __post_init__(self) -> None:
        if self.transport not in get_args(TransportChoice):
            names = ", ".join(map(repr, get_args(TransportChoice)))
            raise InvalidArgument("transport", f"{self.transport!r} is none of {names}")
        at_least_one(self.connections, "connections")
        seconds(self.connect_timeout, "connect_timeout")
        login(self.auth, "auth")


class Tally:
    """How many of a cluster's nodes could not be connected to: while it is 0, calls need not ask each node."""

    __slots__ = ("failing",)

    def __init__(self) -> None:
        self.failing = 0


class Node:
    """A node and its connections. Nothing is opened before the first request."""

    def __init__(self, endpoint: Endpoint, settings: NodeSettings, tally: Tally | None = None) -> None:
        self.endpoint = endpoint
        self.label = endpoint.label
        self.capabilities: Capabilities | None = None
        """What the server said when it was last connected to; None before that."""
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._ready: list[Transport] = []
        self._wanted = settings.connections  # how many are to be ready
        self._turn = 0
        self._retiring: set[Transport] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._attempt: asyncio.Future[None] | None = None
        self._tally = Tally() if tally is None else tally
        self._last_error: Exception | None = None  # why the last attempt to connect failed; None after one that did not
        self._failure: Exception | None = None  # the same, once there is no connection either: the node is down
        self._closed = False
        self._all_retired: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        classic = " classic" if self.transport == "classic" else ""
        return f"<Node {self.endpoint} {self.state}{classic} connections={len(self._ready)}>"

    @property
    def transport(self) -> TransportName | None:
        """How the server was talked to when it was last connected to; None before that."""
        return None if self.capabilities is None else self.capabilities.transport

    @property
    def state(self) -> State:
        """`idle`: nothing was asked of it yet. `down`: the last attempt to connect failed; calls fail at once."""
        if self._closed:
            return "closed"
        if self._ready:
            return "ready"
        if self._failure is not None:
            return "down"
        return "idle" if self._keeper is None else "connecting"

    @property
    def is_down(self) -> bool:
        """Whether a call to this node would fail at once."""
        return not self._ready and (self._failure is not None or self._closed)

    @property
    def pending(self) -> int:
        """Requests without a reply, on all of its connections."""
        return sum(connection.pending for connection in (*self._ready, *self._retiring))

    def connection(self) -> Transport | None:
        """An open connection, in turn; None when there is none at this moment (see `connected`)."""
        ready = self._ready
        if len(ready) < self._wanted:
            if not ready:
                return None
            self._keep_connected()
        if len(ready) == 1:
            return ready[0]
        self._turn += 1
        return ready[self._turn % len(ready)]

    async def connected(self, deadline: float) -> Transport:
        """An open connection, waiting for one if the node is not known to be down.

        Raises `NodeUnavailable` at once when it is down, or when connecting fails; `NodeTimeout` at the deadline (on the
        loop's clock). Connecting goes on in the background, also when this call is cancelled.
        """
        connection = self.connection()
        if connection is not None:
            return connection
        if self._failure is not None or self._closed:
            raise self.unavailable()
        attempt = self._keep_connected()
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(attempt)
        except TimeoutError:
            raise NodeTimeout("no connection in time", self.label) from None
        connection = self.connection()
        if connection is None:
            raise self.unavailable()
        return connection

    def retire(self) -> None:
        """Take no more requests; those that wait are still answered. `close` ends the node."""
        self._closed = True
        self._set_failure(None)
        if self._keeper is not None:
            self._keeper.cancel()
        ready, self._ready = self._ready, []
        self._retiring.update(ready)
        for connection in ready:
            connection.retire()

    async def close(self, drain: float = 0.0) -> None:
        """Wait up to `drain` seconds for requests that are waiting, then end every connection. May be called again."""
        self.retire()
        keeper = self._keeper
        try:
            if keeper is not None:
                await asyncio.wait([keeper])
            if self._retiring and drain > 0:
                await self._drained(drain)
        finally:
            for connection in list(self._retiring):
                connection.abort()

    async def _drained(self, seconds: float) -> None:
        if self._all_retired is None:
            self._all_retired = self._loop.create_future()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._all_retired)
        except TimeoutError:
            _log.info("%s: %d requests were not answered before it was closed", self.endpoint, self.pending)

    def unavailable(self) -> NodeUnavailable:
        """The error for a call that meets this node without a connection: why it is down."""
        if self._closed:
            return NodeUnavailable("it is closed", self.label)
        return NodeUnavailable(f"it is down: {self._failure or 'the connection ended as soon as it was made'}", self.label)

    # Connecting.

    def _keep_connected(self) -> asyncio.Future[None]:
        """Have the wanted number of connections opened. The future is done when the attempt that runs now has ended."""
        if self._attempt is None or self._attempt.done():
            self._attempt = self._loop.create_future()
        if self._keeper is None or self._keeper.done():  # done, and its callback has not run yet
            self._keeper = self._loop.create_task(self._open_all(), name=f"evcache-connect-{self.label}")
            self._keeper.add_done_callback(self._keeper_ended)
        return self._attempt

    async def _open_all(self) -> None:
        retrying = AsyncRetrying(
            wait=wait_random_exponential(multiplier=RECONNECT_FIRST_SECONDS, max=RECONNECT_MAX_SECONDS),
            # Everything: whatever a dialer or a TLS library raises, the node is down and is tried again.
            retry=retry_if_exception_type(Exception),
            before_sleep=self._failed,
            sleep=asyncio.sleep,
        )
        while len(self._ready) < self._wanted:
            await retrying(self._open)

    async def _open(self) -> None:
        made: list[Transport] = []
        timeout = self._settings.connect_timeout
        try:
            async with asyncio.timeout(timeout):
                capabilities = await self._meet(made, self._loop.time() + timeout)
        except BaseException as error:
            for connection in made:
                connection.abort("the first words failed")
            if isinstance(error, TimeoutError):
                raise NodeTimeout(f"no connection in {timeout:g} s", self.label) from None
            raise
        opened = made.pop()
        if not opened.is_open:
            raise NodeUnavailable("closed right after the first words", self.label)
        self._take_over(capabilities)
        self._ready.append(opened)
        if self._failure is not None:
            _log.info("node %s is back (memcached %s)", self.endpoint, capabilities.server)
        self._last_error = None
        self._set_failure(None)
        self._end_attempt()

    async def _meet(self, made: list[Transport], deadline: float) -> Capabilities:
        """Connect and ask. What was made is in `made`, also after an error; the last of it is what is to be used."""

        def make() -> Connection:
            connection = Connection(self.label, self._loop, self._settings.limits, self._lost)
            made.append(connection)
            return connection

        if self._settings.transport != "classic":
            opened = await self._settings.dialer(self.endpoint, make)
            try:
                return await shake_hands(opened, deadline, self._settings.auth)
            except SpeaksNoMeta:
                opened.abort("it does not speak the meta protocol")
                if self._settings.transport == "meta":
                    raise
        classic = ClassicConnection(
            self.label,
            self._loop,
            partial(self._settings.dialer, self.endpoint),
            limits=self._settings.limits,
            pool=self._settings.classic,
            connect_timeout=self._settings.connect_timeout,
            on_leaving=self._leaving,
            on_lost=self._lost,
        )
        made.append(classic)
        return await meet_classic(classic, self._settings.auth)

    def _take_over(self, capabilities: Capabilities) -> None:
        """Know from now on what the server has said, and use no connection that was made for a server of another kind."""
        if capabilities.transport != self.transport:
            others, self._ready = self._ready, []
            self._retiring.update(others)
            for connection in others:
                connection.retire()
        self.capabilities = capabilities
        # A classic transport has a pool of its own, and keeps the order of writes only among its own requests.
        self._wanted = 1 if capabilities.transport == "classic" else self._settings.connections

    def _failed(self, retry: RetryCallState) -> None:
        error = retry.outcome.exception() if retry.outcome is not None else None
        self._last_error = error if isinstance(error, Exception) else NodeUnavailable("no connection", self.label)
        if not self._ready:  # with a connection that works, it is only short of the others
            self._go_down(self._last_error)
        self._end_attempt()

    def _go_down(self, why: Exception) -> None:
        if self._failure is None:  # once for each outage, not for each attempt
            _log.warning("node %s is down: %s", self.endpoint, why)
        self._set_failure(why)

    def _set_failure(self, failure: Exception | None) -> None:
        self._tally.failing += (failure is not None) - (self._failure is not None)
        self._failure = failure

    def _end_attempt(self) -> None:
        if self._attempt is not None and not self._attempt.done():
            self._attempt.set_result(None)

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        if self._keeper is not keeper:
            return  # the next one runs already
        self._keeper = None
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            # Only a bug gets here, since every attempt's error is retried; it must not leave callers waiting.
            self._set_failure(NodeUnavailable(f"{error!r}", self.label))
            _log.error("connecting to %s ended with a bug", self.endpoint, exc_info=error)
        self._end_attempt()

    def _leaving(self, connection: Transport) -> None:
        """It takes no more requests, and still answers those it has."""
        if connection in self._ready:
            self._ready.remove(connection)
            self._retiring.add(connection)
            _log.debug("node %s: its server ended a connection; it is asked again what it is", self.endpoint)
            self._keep_connected()

    def _lost(self, connection: Transport, why: NodeUnavailable) -> None:
        self._retiring.discard(connection)
        if self._closed:
            if not self._retiring and self._all_retired is not None and not self._all_retired.done():
                self._all_retired.set_result(None)
            return
        if connection not in self._ready:
            return  # it never got past its first words: the keeper hears of that from `_open`
        self._ready.remove(connection)
        _log.debug("node %s: a connection ended: %s", self.endpoint, why)
        if not self._ready and self._last_error is not None:
            self._go_down(self._last_error)  # the last connection, and the keeper has been failing to open another
        if connection.pending:
            # It was in use, so it will be again. An idle one that ends (servers close those) is replaced on demand.
            self._keep_connected()
