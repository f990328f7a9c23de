"""One memcached node: its connections, their replacement, and its state of health.

While a node is down, calls fail at once, so that they reach another zone without a wait. A node is down if it cannot be
connected to, or if its circuit is open because too many requests timed out. The reconnector then probes the node; calls
never do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from evcache.zones._tasks import abandon, cancel_once, ended
from evcache.zones.errors import NodeTimeout, NodeUnavailable
from evcache.zones.health.circuit_breaker import CircuitBreaker, CircuitState
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.health.node_health import HealthCounters, NodeHealth, Outage
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.connect import open_transport
from evcache.zones.nodes.connection_set import ConnectionSet
from evcache.zones.nodes.connection_waiters import ConnectionWaiters
from evcache.zones.nodes.reconnector import Reconnector
from evcache.zones.nodes.renewal import Renewal
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.base import Transport, TransportName
from evcache.zones.transport.byte_counter import ByteCounter

State = Literal["idle", "connecting", "ready", "down", "closed"]

_log = logging.getLogger("evcache.zones.nodes")


class Node:
    """A node and its connections. The first request opens the first connection."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: NodeSettings,
        counters: HealthCounters | None = None,
        *,
        lag: LoopLag | None = None,
        on_change: Callable[[Node], None] = lambda _: None,
        on_handshake: Callable[[Node], None] = lambda _: None,
        traffic: ByteCounter | None = None,
        zone: str = "",
    ) -> None:
        """Make a node without connections.

        Args:
            endpoint: Address and label.
            settings: Settings of all nodes of a client.
            counters: Health counters of the cluster. If None, the node has its own.
            lag: Lag of the event loop. If None, stalls of the loop are blamed on the node.
            on_change: Called with the node after it went down, and after it recovered.
            on_handshake: Called with the node after each handshake.
            traffic: Counter of the bytes of its zone. If None, the node has its own.
            zone: Name of its zone, for log lines. If empty, log lines name the node alone.
        """
        self.endpoint = endpoint
        self.label = endpoint.label
        self.name = f"{zone}/{endpoint}" if zone else str(endpoint)  # in log lines
        self.capabilities: Capabilities | None = None
        """Features that the server proved in the last handshake. None before the first one."""
        self.versioned_bytes = -1  # `Capabilities.versioned_bytes`; -1 before the first handshake
        self.wanted = settings.connections  # number of connections that are to be ready
        self._settings = settings
        self._tap = settings.tap
        self._loop = asyncio.get_running_loop()
        self._lag = lag
        self._traffic = traffic or ByteCounter()
        self._on_handshake = on_handshake
        self._health = NodeHealth(self._loop, counters or HealthCounters(), partial(on_change, self))
        self._circuit = CircuitBreaker(settings.circuit, self._loop.time())
        self.connections = ConnectionSet(self._loop)  # requests read `sole`
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()  # of the reconnector and the renewal
        self._reconnector = Reconnector(self, settings, self.connections, self._circuit, self._health, self._tasks)
        self._renewal = Renewal(self, settings, self._tasks)
        self._waiters = ConnectionWaiters(self._loop, lag)
        self._connect_timeouts = 0  # calls in a row that timed out before they had a connection
        self._last_error: Exception | None = None  # of the last attempt to connect; None if it succeeded
        self._closed = False

    def __repr__(self) -> str:
        classic = " classic" if self.transport == "classic" else ""
        return f"<Node {self.endpoint} {self.state}{classic} connections={len(self.connections.ready)}>"

    @property
    def transport(self) -> TransportName | None:
        """Transport of the last handshake. None before the first one."""
        return None if self.capabilities is None else self.capabilities.transport

    @property
    def state(self) -> State:
        """State for logs and tests. `idle`: no request was made yet. `down`: calls fail at once."""
        if self._closed:
            return "closed"
        if self.connections.ready:
            return "ready"
        if self._health.failure is not None:
            return "down"
        return "connecting" if self._reconnector.is_running else "idle"

    @property
    def circuit(self) -> CircuitState:
        """State of the circuit. `open`: a pause until the next probe. `half-open`: a probe is in flight."""
        return self._circuit.state

    @property
    def is_down(self) -> bool:
        """True if a call to this node would fail at once."""
        return not self.connections.ready and (self._health.failure is not None or self._closed)

    @property
    def may_answer(self) -> bool:
        """True if the node is not down, or if it is stalled and all zones are ejected.

        A stalled node has an open connection. It may answer before the deadline of a call that no other zone can serve. A
        node that refuses connections is not stalled.
        """
        return not self.is_down or (self._health.all_out and bool(self.connections.suspended) and not self._closed)

    @property
    def is_silent(self) -> bool:
        """True if reads wait on the node and no byte arrives."""
        return self._health.is_silent

    @property
    def failure(self) -> Exception | None:
        """Reason why the node is down. None if it is up."""
        return self._health.failure

    @property
    def pending(self) -> int:
        """Number of requests without a reply, on all connections."""
        return self.connections.pending

    @property
    def requests(self) -> int:
        """Number of requests ever sent."""
        return self.connections.requests

    def connection(self) -> Transport | None:
        """Return an open connection, round robin. None if there is none now, see `connected`."""
        ready = self.connections.ready
        if len(ready) < self.wanted:
            if not ready:
                return None
            self._reconnector.start()
        self._turn += 1
        connection = ready[self._turn % len(ready)]
        return connection if self._tap is None else self._tap.wrap(connection, self.endpoint)

    async def connected(self, deadline: float) -> Transport:
        """Return an open connection, and wait for one if the node may answer. See `connected_by`."""
        return (await self.connected_by(deadline))[0]

    async def connected_by(self, deadline: float) -> tuple[Transport, float]:
        """Return an open connection, and wait for one if the node may answer.

        The reconnector continues if this call is cancelled.

        Args:
            deadline: End of the wait, on the loop's clock.

        Returns:
            The connection, and the deadline. The deadline has moved by the time for which the event loop was stalled.

        Raises:
            NodeUnavailable: The node is down, or connecting fails.
            NodeTimeout: There is no connection at the deadline.
        """
        connection = self.connection()
        while connection is None:
            if self._closed or (self._health.failure is not None and not self.may_answer):
                raise self.unavailable()
            self._reconnector.start()
            moved = await self._waiters.wait(deadline)
            if moved is None:
                self._count_connect_timeout()
                raise NodeTimeout("no connection in time", self.label)
            deadline = moved
            connection = self.connection()
            if connection is None and self._health.failure is None:
                raise self.unavailable()
        return connection, deadline

    def _count_connect_timeout(self) -> None:
        """Count a call that timed out without a connection. Enough of them take the node down while a connect hangs."""
        # Not before the first handshake, because name lookups and TLS may take long then.
        if self.capabilities is None or self._closed or self._health.failure is not None:
            return
        if self._lag is not None and self._lag.stalled_lately(self._loop.time()):
            return  # the connection may have been ready, and the loop too late to see it
        self._connect_timeouts += 1
        if self._connect_timeouts >= self._settings.circuit.timeouts_in_a_row:
            self._go_down(NodeTimeout(f"{self._connect_timeouts} calls in a row had no connection in time", self.label))

    def unavailable(self) -> NodeUnavailable:
        """Return the error for a call that finds this node without a connection."""
        why = self._health.failure or "the connection ended as soon as it was made"
        return NodeUnavailable("it is closed" if self._closed else f"it is down: {why}", self.label)

    @property
    def outages(self) -> list[Outage]:
        """Outages that have ended, the earliest first."""
        return self._health.outages

    @property
    def is_warming(self) -> bool:
        """True if the node recovered recently and gets a share of its reads only."""
        return self._health.is_warming

    def admits_read(self) -> bool:
        """Return True if this read may go to the node first. Then report its result with `record_read`."""
        return self._health.admits_read()

    def record_read(self, *, hit: bool) -> None:
        """Record the reply to an admitted read. Has an effect during the warm-up only."""
        self._health.record_read(hit=hit)

    def hurry(self) -> None:
        """Shorten the pause before the next probe, because no healthy zone is left."""
        self._reconnector.hurry()

    def retire(self) -> None:
        """Refuse further requests. Outstanding ones still get their replies. `close` ends the node."""
        self._closed = True
        self._renewal.close()
        self._health.end()
        cancel_once(self._tasks)
        self.connections.retire(self.in_use())

    async def close(self, drain: float = 0.0) -> None:
        """Wait at most `drain` seconds for outstanding requests, then end all connections. May be called again."""
        self.retire()
        try:
            await ended(self._tasks, lambda _: f"connecting to {self.endpoint}")
            if drain > 0 and not await self.connections.drained(drain):
                _log.info("node %s closed: %d requests had no reply", self.name, self.pending)
        finally:
            self.abort()

    def abort(self) -> None:
        """End all connections now, and cancel the background tasks. `close` waits for those."""
        self.retire()
        for connection in list(self.connections.retiring):
            connection.abort()

    def abandon(self) -> None:
        """End the node after its loop was closed, when nothing can be awaited."""
        self._closed = True
        abandon(self._tasks)

    # Called by the reconnector and the renewal.

    async def open(self) -> tuple[Transport, Capabilities]:
        """Open a connection, which belongs to the caller. See `open_transport` for the errors."""
        self._renewal.follow()
        opened = await open_transport(self.endpoint, self._settings, self, self._lag, self._traffic)
        if self._closed:  # the dialer has caught its cancellation
            opened[0].abort()
            raise asyncio.CancelledError
        return opened

    def in_use(self) -> list[Transport]:
        """Return the connections that are open and not retired."""
        return self.connections.in_use()

    def exchange(self, opened: Transport, capabilities: Capabilities, gone: list[Transport]) -> None:
        """Use `opened` in place of the connections in `gone`. Those still deliver their outstanding replies."""
        self.connections.count_without_handshake(opened)
        self.take_over(capabilities)
        self.connections.add(opened)
        self._retire(gone)
        if self._health.failure is not None:
            self.recover()
        if len(self.connections.ready) >= self.wanted:
            self._reconnector.cancel()
        self.connection_added()

    def take_over(self, capabilities: Capabilities) -> None:
        """Use the result of a handshake. Retire all connections if the server's transport has changed."""
        if capabilities.transport != self.transport:
            self._retire(self.in_use())
        self.capabilities = capabilities  # a classic transport keeps the order of writes only among its own requests
        self.wanted = 1 if capabilities.transport == "classic" else self._settings.connections
        self.versioned_bytes = capabilities.versioned_bytes
        self.connections.may_be_sole = self.wanted == 1 and self._tap is None
        self._on_handshake(self)

    def recover(self) -> None:
        """End the outage: close the circuit, and use the suspended connections again."""
        assert self.capabilities is not None
        _log.info("node %s recovered (memcached %s)", self.name, self.capabilities.server)
        self._circuit.close(self._loop.time(), self.requests)
        self.connections.resume()
        self._health.recover(self._settings.circuit.slow_start)

    def connection_added(self) -> None:
        """Wake the waiting calls, and retire surplus connections."""
        self._retire(self.connections.ready[self.wanted :])
        self._last_error = None
        self._connect_timeouts = 0
        self._waiters.wake()

    def attempt_failed(self, error: BaseException | None) -> None:
        """Mark the node as down, unless a connection still works."""
        if self._closed:  # a dialer that has caught its cancellation
            raise asyncio.CancelledError
        self._circuit.fail_probe()
        self._last_error = error if isinstance(error, Exception) else NodeUnavailable("no connection", self.label)
        if not self.connections.ready:
            self._go_down(self._last_error)
        self._waiters.wake()

    def reconnector_ended(self, error: BaseException | None) -> None:
        """Wake the waiting calls. After a bug, mark the node as down, so that callers do not wait."""
        if error is not None:
            self._go_down(NodeUnavailable(f"{error!r}", self.label))
            _log.error("node %s: reconnector failed: unexpected exception", self.name, exc_info=error)
        self._waiters.wake()

    def _retire(self, connections: list[Transport]) -> None:
        self.connections.retire(connections)
        self._update_silence()

    def _update_silence(self) -> None:
        self._health.set_silent(silent=self.connections.is_silent)

    def _go_down(self, why: Exception) -> None:
        if self._health.failure is None:  # once for each outage, not for each attempt
            _log.warning("node %s is down: %s", self.name, why)
            self._circuit.open(self._loop.time())
        self._health.go_down(why)

    # Called by connections, see `evcache.zones.nodes.connect.Listener`.

    def on_draining(self, connection: Transport) -> None:
        """Open another connection in place of one that takes no more requests."""
        if self.connections.leave(connection):
            _log.debug("node %s: the server ends a connection; connecting again with a handshake", self.name)
            self._reconnector.start()

    def on_silent(self, connection: Transport) -> bool:
        """Note that reads wait and no byte arrives. Return True if the waiting reads can move to another zone."""
        self.connections.silence(connection)
        self._update_silence()
        return self._health.is_silent and self._health.elsewhere

    def on_bytes(self, connection: Transport) -> None:
        """Note the first byte after a silence or after timeouts. It may end the pause before the next probe."""
        self.connections.hear(connection)
        self._update_silence()
        if connection in self.connections.suspended and self._circuit.ends_early:
            self._reconnector.end_pause()

    def on_timeouts(self, connection: Transport, timeouts: int, in_a_row: int) -> None:
        """Count requests that timed out or were lost. Enough of them open the circuit."""
        if in_a_row and self._health.recovered_within(self._settings.probe_seconds):
            # Calls that waited for the node sent their requests in that moment, some with less than a round trip left.
            connection.forgive()
            return
        # A draining connection reports the requests that it loses when the server ends it.
        is_draining = connection in self.connections.retiring and not self._closed
        if connection in self.connections.ready or (is_draining and in_a_row == 0):
            self._renewal.doubt(connection)
            why = self._circuit.count_failures(self._loop.time(), timeouts, in_a_row, self.requests)
            if why is not None:
                self._open_circuit(NodeTimeout(why, self.label))

    def on_closed(self, connection: Transport, why: NodeUnavailable) -> None:
        """Connect again if the connection was in use."""
        was_ready = self.connections.forget(connection)
        self._update_silence()
        # For a suspended connection the next probe connects. A failed handshake is reported by `open_transport`.
        if self._closed or not was_ready:
            return
        _log.debug("node %s: connection ended: %s", self.name, why)
        if not self.connections.ready and self._last_error is not None:
            self._go_down(self._last_error)  # the last connection, while attempts to open more are failing
        failing = self._circuit.count_failures(self._loop.time(), connection.unanswered, 0, self.requests)
        if failing is not None:
            self._open_circuit(NodeUnavailable(failing, self.label))
        elif connection.pending:
            # A connection in use is needed again. Servers close idle ones; the next request replaces those.
            self._reconnector.start()

    def _open_circuit(self, why: Exception) -> None:
        """Open the circuit. The connections and their waiting calls stay, because a stalled server answers on them later."""
        self.connections.suspend()
        self._health.set_silent(silent=False)
        self._go_down(why)
        self._reconnector.cancel()  # an attempt for one more connection is no probe, and its pause may be a long one
        self._reconnector.start()
