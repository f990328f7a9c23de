"""One memcached node: opens its connections when they are needed, replaces those that end, and says when it is down.

Down means that calls fail at once, so that they go to another zone without waiting. A node is down when it can't be
connected to, and when its circuit is open: too many requests got no reply in time. One task, the keeper, then looks from
time to time whether it answers; callers never do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from evcache.zones._pause import Pause
from evcache.zones._tasks import abandon, cancel_once, ended, unattended
from evcache.zones.errors import NodeError, NodeTimeout, NodeUnavailable
from evcache.zones.health.circuit_breaker import CircuitBreaker, CircuitState
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.health.node_health import HealthCounters, NodeHealth, Outage
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.connect import open_transport
from evcache.zones.nodes.connection_set import ConnectionSet
from evcache.zones.nodes.connection_waiters import ConnectionWaiters
from evcache.zones.nodes.renewal import Renewal
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.base import Transport, TransportName

State = Literal["idle", "connecting", "ready", "down", "closed"]

_log = logging.getLogger("evcache.zones.nodes")


class Node:
    """A node and its connections. Nothing is opened before the first request."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: NodeSettings,
        tally: HealthCounters | None = None,
        *,
        lag: LoopLag | None = None,
        on_change: Callable[[Node], None] | None = None,
        on_handshake: Callable[[Node], None] = lambda _: None,
    ) -> None:
        """`on_change(node)` is called when it goes down and when it is back, `on_handshake(node)` after each handshake."""
        self.endpoint = endpoint
        self.label = endpoint.label
        self.capabilities: Capabilities | None = None
        """What the server said when it was last connected to; None before that."""
        self._settings = settings
        self._tap = settings.tap
        self._loop = asyncio.get_running_loop()
        self._lag = lag
        self._on_change = on_change
        self._on_handshake = on_handshake
        self._standing = NodeHealth(self._loop, HealthCounters() if tally is None else tally, self._changed)
        self._circuit = CircuitBreaker(settings.circuit, self._loop.time())
        self._connections = ConnectionSet(self._loop)
        self._wanted = settings.connections  # how many are to be ready
        self._turn = 0
        self._keeper: asyncio.Task[None] | None = None
        self._keepers: set[asyncio.Task[None]] = set()  # it, and those before it that have not ended
        self._pause = Pause(self._loop)
        self._renewal = Renewal(self, settings, self._keepers)
        self._waiters = ConnectionWaiters(self._loop, lag)
        self._in_vain = 0  # calls that had no connection in time, since there was one
        self._last_error: Exception | None = None  # why the last attempt to connect failed; None after one that did not
        self._closed = False

    def __repr__(self) -> str:
        classic = " classic" if self.transport == "classic" else ""
        return f"<Node {self.endpoint} {self.state}{classic} connections={len(self._connections.ready)}>"

    @property
    def transport(self) -> TransportName | None:
        """How the server was talked to when it was last connected to; None before that."""
        return None if self.capabilities is None else self.capabilities.transport

    @property
    def state(self) -> State:
        """`idle`: nothing was asked of it yet. `down`: calls fail at once."""
        if self._closed:
            return "closed"
        if self._connections.ready:
            return "ready"
        if self._standing.failure is not None:
            return "down"
        return "idle" if self._keeper is None else "connecting"

    @property
    def circuit(self) -> CircuitState:
        """`open`: not asked, and a pause until the next probe; `half-open`: a probe is on its way."""
        return self._circuit.state

    @property
    def is_down(self) -> bool:
        """Whether a call to this node would fail at once."""
        return not self._connections.ready and (self._standing.failure is not None or self._closed)

    @property
    def may_answer(self) -> bool:
        """True if a call to this node has a chance: the node is not down, or it stands still and every zone is out.

        A node that stands still has a connection open. It answers as soon as it goes on, perhaps before the deadline of a
        call, and the call has nowhere else to go. A node that refuses connections is no such node.
        """
        return not self.is_down or (self._standing.all_out and bool(self._connections.suspended) and not self._closed)

    @property
    def is_silent(self) -> bool:
        """True if reads wait on the node and no byte arrives."""
        return self._standing.is_silent

    @property
    def failure(self) -> Exception | None:
        """Why it is down; None when it is not."""
        return self._standing.failure

    @property
    def pending(self) -> int:
        """Requests without a reply, on all of its connections."""
        return self._connections.pending

    @property
    def requests(self) -> int:
        """Requests that it was ever sent."""
        return self._connections.requests

    def connection(self) -> Transport | None:
        """An open connection, in turn; None when there is none at this moment (see `connected`)."""
        ready = self._connections.ready
        if len(ready) < self._wanted:
            if not ready:
                return None
            self._keep_connected()
        if len(ready) == 1:
            connection = ready[0]
        else:
            self._turn += 1
            connection = ready[self._turn % len(ready)]
        return connection if self._tap is None else self._tap.over(connection, self.endpoint)

    async def connected(self, deadline: float) -> Transport:
        """Return an open connection, and wait for one if the node may answer. See `connected_by`."""
        return (await self.connected_by(deadline))[0]

    async def connected_by(self, deadline: float) -> tuple[Transport, float]:
        """Return an open connection, and wait for one if the node may answer.

        Connecting goes on in the background, also when this call is cancelled.

        Args:
            deadline: When to give up, on the loop's clock.

        Returns:
            The connection, and the deadline. It has moved by the time for which the event loop stood still during the wait.

        Raises:
            NodeUnavailable: The node is down, or connecting fails.
            NodeTimeout: There is no connection at the deadline.
        """
        connection = self.connection()
        while connection is None:
            if self._closed or (self._standing.failure is not None and not self.may_answer):
                raise self.unavailable()
            self._keep_connected()
            moved = await self._waiters.wait(deadline)
            if moved is None:
                self._waited_in_vain()
                raise NodeTimeout("no connection in time", self.label)
            deadline = moved
            connection = self.connection()
            if connection is None and self._standing.failure is None:
                raise self.unavailable()
        return connection, deadline

    def _waited_in_vain(self) -> None:
        """A call had no connection in time: enough of them take the node down, though the connect is still under way.

        For a network that drops what it is sent keeps a connect waiting, and with it each call for its share of the time.
        Not before the first connection ever: names are looked up then, and everything is new.
        """
        if self.capabilities is None or self._closed or self._standing.failure is not None:
            return
        if self._lag is not None and self._lag.stalled_lately(self._loop.time()):
            return  # it may have been there already
        self._in_vain += 1
        if self._in_vain >= self._settings.circuit.timeouts_in_a_row:
            self._go_down(NodeTimeout(f"{self._in_vain} calls in a row had no connection in time", self.label))

    def unavailable(self) -> NodeUnavailable:
        """The error for a call that meets this node without a connection: why it is down."""
        if self._closed:
            return NodeUnavailable("it is closed", self.label)
        why = self._standing.failure or "the connection ended as soon as it was made"
        return NodeUnavailable(f"it is down: {why}", self.label)

    @property
    def outages(self) -> list[Outage]:
        """When it was down, the earliest first, as far as it is back from it."""
        return self._standing.outages

    @property
    def is_warming(self) -> bool:
        """Whether it has just come back, and gets a share of the reads only."""
        return self._standing.is_warming

    def admits_read(self) -> bool:
        """Whether this read may go to it first. With True, `was_read` is to be told what came of it."""
        return self._standing.admits_read()

    def was_read(self, *, hit: bool) -> None:
        """A read was answered, while it was warming up."""
        self._standing.was_read(hit=hit)

    # Its end.

    def retire(self) -> None:
        """Take no more requests; those that wait are still answered. `close` ends the node."""
        self._closed = True
        self._renewal.close()
        self._standing.end()
        cancel_once(self._keepers)
        self._connections.retire(self.in_use())

    async def close(self, drain: float = 0.0) -> None:
        """Wait up to `drain` seconds for requests that are waiting, then end every connection. May be called again."""
        self.retire()
        try:
            await ended(self._keepers, lambda _: f"connecting to {self.endpoint}")
            if drain > 0 and not await self._connections.drained(drain):
                _log.info("%s: %d requests were not answered before it was closed", self.endpoint, self.pending)
        finally:
            self.abort()

    def abort(self) -> None:
        """End every connection now. What runs in the background is cancelled; `close` waits for it."""
        self.retire()
        for connection in list(self._connections.retiring):
            connection.abort()

    def abandon(self) -> None:
        """End the node when its loop is closed, so that nothing can be awaited."""
        self._closed = True
        abandon(self._keepers)

    # The keeper: connects, and probes while the circuit is open.

    def _keep_connected(self) -> None:
        """Have the wanted number of connections opened. Each end of an attempt wakes the calls that wait."""
        if self._keeper is None or self._keeper.done():  # done, and its callback has not run yet
            self._keeper = unattended(self._loop.create_task(self._keep(), name=f"evcache-connect-{self.label}"))
            self._keepers.add(self._keeper)
            self._keeper.add_done_callback(self._keeper_ended)

    async def _keep(self) -> None:
        retrying = AsyncRetrying(
            wait=lambda _: self._circuit.pause(urgent=self._standing.is_urgent),
            # Everything: whatever a dialer or a TLS library raises, the node is down and is tried again.
            retry=retry_if_exception_type(Exception),
            after=self._failed,  # before the pause is drawn, which depends on what it does
            sleep=self._pause.wait,
        )
        if self._circuit.state == "open":  # by what became of requests: it has just shown that it does not answer
            await self._pause.wait(self._circuit.pause(urgent=self._standing.is_urgent))
        while len(self._connections.ready) < self._wanted:
            await retrying(self._get_ready)

    def hurry(self) -> None:
        """Shorten the pause before the next probe, if there is one: calls have nowhere to go from now on."""
        self._pause.shorten(self._loop.time() + self._circuit.pause(urgent=True))

    async def _get_ready(self) -> None:
        """One more connection that can be used; with the circuit open, one that has answered a probe."""
        self._circuit.probe()
        connection = await self._suspended_that_answers()
        if connection is None:
            asked_at = self._loop.time()
            connection, capabilities = await self.open()
            self._connections.count_without_handshake(connection)
            self._take_over(capabilities)
            suspended = self._connections.suspended
            heard = [known for known in suspended if known.heard_at > asked_at]  # the server only stood still
            self._connections.retire([known for known in suspended if known not in heard[: self._wanted - 1]])
            if self._standing.failure is not None:
                await self._probe(connection)
        if self._standing.failure is not None:
            self._come_back()
        self._connections.add(connection)
        self._connected_again()

    async def _suspended_that_answers(self) -> Transport | None:
        """Probe a suspended connection. Return None if a new one is needed: the network may have forgotten the old one."""
        if not self._connections.suspended:
            return None
        connection = self._connections.suspended[0]
        try:
            await self._probe(connection)
        except NodeError:
            if connection.renews_itself:
                raise
            return None
        return connection

    async def open(self) -> tuple[Transport, Capabilities]:
        """Open a connection, which belongs to the caller. See `open_transport` for the errors."""
        self._renewal.follow()
        connection, capabilities = await open_transport(self.endpoint, self._settings, self, self._lag)
        if self._closed:  # the dialer has caught its cancellation
            connection.abort()
            raise asyncio.CancelledError
        return connection, capabilities

    def in_use(self) -> list[Transport]:
        """Return the connections that are open and were not retired."""
        return self._connections.in_use()

    def exchange(self, opened: Transport, capabilities: Capabilities, gone: list[Transport]) -> None:
        """Use `opened` in place of the connections that are gone. Those still deliver the replies that they owe."""
        self._connections.count_without_handshake(opened)
        self._take_over(capabilities)
        self._connections.ready.append(opened)
        self._retire(gone)
        if self._standing.failure is not None:
            self._come_back()
        if self._keeper is not None and len(self._connections.ready) >= self._wanted:
            self._keeper.cancel()
            self._keeper = None
        self._connected_again()

    def _retire(self, connections: list[Transport]) -> None:
        """Take connections out of use."""
        self._connections.retire(connections)
        self._standing.is_silent = self._connections.is_silent

    def _connected_again(self) -> None:
        self._retire(self._connections.ready[self._wanted :])
        self._last_error = None
        self._in_vain = 0
        self._waiters.wake()

    async def _probe(self, connection: Transport) -> None:
        if connection not in self._connections.suspended:
            self._connections.suspended.append(connection)  # which a probe that is not answered does not end
        timeout = self._settings.circuit.probe_timeout
        await connection.probe(self._loop.time() + (self._settings.connect_timeout if timeout is None else timeout))

    def _come_back(self) -> None:
        assert self.capabilities is not None
        _log.info("node %s is back (memcached %s)", self.endpoint, self.capabilities.server)
        self._circuit.close(self._loop.time(), self.requests)
        self._connections.resume()
        self._standing.come_back(self._settings.circuit.slow_start)

    def _take_over(self, capabilities: Capabilities) -> None:
        """Know from now on what the server has said, and use no connection that was made for a server of another kind."""
        if capabilities.transport != self.transport:
            self._retire(self.in_use())
        self.capabilities = capabilities
        # A classic transport has a pool of its own, and keeps the order of writes only among its own requests.
        self._wanted = 1 if capabilities.transport == "classic" else self._settings.connections
        self._on_handshake(self)

    def _failed(self, retry: RetryCallState) -> None:
        if self._closed:  # a dialer that has caught its cancellation
            raise asyncio.CancelledError
        self._circuit.probe_failed()
        error = retry.outcome.exception() if retry.outcome is not None else None
        self._last_error = error if isinstance(error, Exception) else NodeUnavailable("no connection", self.label)
        if not self._connections.ready:  # with a connection that works, it is only short of the others
            self._go_down(self._last_error)
        self._waiters.wake()

    def _go_down(self, why: Exception) -> None:
        if self._standing.failure is None:  # once for each outage, not for each attempt
            _log.warning("node %s is down: %s", self.endpoint, why)
            self._circuit.open(self._loop.time())
        self._standing.go_down(why)

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change(self)

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        self._keepers.discard(keeper)
        if self._keeper is not keeper:
            return  # the next one runs already
        self._keeper = None
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            # Only a bug gets here, since every attempt's error is retried; it must not leave callers waiting.
            self._go_down(NodeUnavailable(f"{error!r}", self.label))
            _log.error("connecting to %s ended with a bug", self.endpoint, exc_info=error)
        self._waiters.wake()

    # What connections report (see `evcache.zones.nodes.connect.Listener`).

    def leaving(self, connection: Transport) -> None:
        """It takes no more requests, and still answers those it has."""
        if self._connections.leave(connection):
            _log.debug("node %s: its server ended a connection; it is asked again what it is", self.endpoint)
            self._keep_connected()

    def silent(self, connection: Transport) -> bool:
        """Reads wait, and no byte arrives: send further reads elsewhere, and those that wait, if there is an elsewhere."""
        self._connections.silence(connection)
        self._standing.is_silent = self._connections.is_silent
        return self._standing.is_silent and self._standing.elsewhere

    def heard(self, connection: Transport) -> None:
        """A byte has arrived after silence or after timeouts: the server goes on."""
        self._connections.hear(connection)
        self._standing.is_silent = self._connections.is_silent
        if connection in self._connections.suspended and self._circuit.ends_early:
            self._pause.shorten(self._loop.time())

    def late(self, connection: Transport, timeouts: int, in_a_row: int) -> None:
        """Requests had no reply in time, or were lost: enough of them open the circuit."""
        # One that leaves, since its server ends connections, still reports what it loses by that.
        connections = self._connections
        if in_a_row and self._has_just_come_back():
            # Calls that waited for the node sent their requests in that moment, some with less than a round trip left.
            connection.forgive()
            return
        if connection in connections.ready or (connection in connections.retiring and in_a_row == 0 and not self._closed):
            self._renewal.doubt(connection)
            why = self._circuit.failed(self._loop.time(), timeouts, in_a_row, self.requests)
            if why is not None:
                self._stop_asking(NodeTimeout(why, self.label))

    def _has_just_come_back(self) -> bool:
        outages, limits = self._standing.outages, self._settings.circuit
        grace = self._settings.connect_timeout if limits.probe_timeout is None else limits.probe_timeout
        return bool(outages) and self._loop.time() - outages[-1].ended < grace

    def _stop_asking(self, why: Exception) -> None:
        """Keep the connections, and what waits on them: a server that only stood still answers on them when it goes on."""
        self._connections.suspend()
        self._standing.is_silent = False
        self._go_down(why)
        if self._keeper is not None:  # it was after one more connection: that is no probe, and its pause may be a long one
            self._keeper.cancel()
            self._keeper = None
        self._keep_connected()

    def lost(self, connection: Transport, why: NodeUnavailable) -> None:
        """It has ended: connect anew if it was in use."""
        was_ready = self._connections.forget(connection)
        self._standing.is_silent = self._connections.is_silent
        # For a suspended connection the next probe connects. A failed handshake is reported by `open_transport`.
        if self._closed or not was_ready:
            return
        _log.debug("node %s: a connection ended: %s", self.endpoint, why)
        if not self._connections.ready and self._last_error is not None:
            self._go_down(self._last_error)  # the last connection, and the keeper has been failing to open another
        failing = self._circuit.failed(self._loop.time(), connection.unanswered, 0, self.requests)
        if failing is not None:
            self._stop_asking(NodeUnavailable(failing, self.label))
        elif connection.pending:
            # It was in use, so it will be again. An idle one that ends (servers close those) is replaced on demand.
            self._keep_connected()
