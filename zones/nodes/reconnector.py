"""Reconnector of one node: the background task that opens missing connections, and probes while the circuit is open.

Calls never probe. A call that finds no connection starts the reconnector and waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from evcache.zones._pause import Pause
from evcache.zones._tasks import unattended
from evcache.zones.errors import NodeError
from evcache.zones.health.circuit_breaker import CircuitBreaker
from evcache.zones.health.node_health import NodeHealth
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.connection_set import ConnectionSet
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.transport.base import Transport


class Reconnectable(Protocol):
    """The part of a node that a reconnector works on."""

    @property
    def label(self) -> str:
        """Label of the node."""
        ...

    @property
    def wanted(self) -> int:
        """Number of connections that are to be ready."""
        ...

    async def open(self) -> tuple[Transport, Capabilities]:
        """Open a connection."""
        ...

    def take_over(self, capabilities: Capabilities) -> None:
        """Use what the server has just proved in a handshake."""
        ...

    def recover(self) -> None:
        """End the outage."""
        ...

    def connection_added(self) -> None:
        """Notify the node of a connection that is ready."""
        ...

    def attempt_failed(self, error: BaseException | None) -> None:
        """Notify the node of a failed attempt. An exception raised here ends the reconnector."""
        ...

    def reconnector_ended(self, error: BaseException | None) -> None:
        """Notify the node of the end of the task, with its exception if a bug ended it."""
        ...


class Reconnector:
    """The reconnector of one node. At most one task is current; cancelled ones may still be ending."""

    def __init__(
        self,
        node: Reconnectable,
        settings: NodeSettings,
        connections: ConnectionSet,
        circuit: CircuitBreaker,
        health: NodeHealth,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        """`tasks` holds the running tasks. The node cancels and awaits them on close."""
        self._node = node
        self._settings = settings
        self._connections = connections
        self._circuit = circuit
        self._health = health
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._pause = Pause(self._loop)

    @property
    def is_running(self) -> bool:
        """True from `start` until the connections are there, or until `cancel`."""
        return self._task is not None

    def start(self) -> None:
        """Start the task, unless it runs."""
        if self._task is None or self._task.done():  # done, and its callback has not run yet
            self._task = unattended(self._loop.create_task(self._run(), name=f"evcache-connect-{self._node.label}"))
            self._tasks.add(self._task)
            self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Cancel the task. `start` starts another one at once."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def hurry(self) -> None:
        """Shorten the present pause to that of an emergency."""
        self._pause.shorten(self._loop.time() + self._circuit.next_pause(urgent=True))

    def end_pause(self) -> None:
        """End the present pause, if there is one."""
        self._pause.shorten(self._loop.time())

    async def probe(self, connection: Transport) -> None:
        """Send a probe on a connection, which is suspended until the circuit closes.

        Raises:
            NodeError: No reply came in time. The connection stays open.
        """
        if connection not in self._connections.suspended:
            self._connections.suspended.append(connection)
        await connection.probe(self._loop.time() + self._settings.probe_seconds)

    async def _run(self) -> None:
        retrying = AsyncRetrying(
            wait=lambda _: self._circuit.next_pause(urgent=self._health.is_urgent),
            # All exceptions: after any error of a dialer or a TLS library, the node is down and the client tries again.
            retry=retry_if_exception_type(Exception),
            after=self._failed,  # before the pause is drawn, which depends on the circuit
            sleep=self._pause.wait,
        )
        if self._circuit.state == "open":  # requests have just timed out, so a probe now would too
            await self._pause.wait(self._circuit.next_pause(urgent=self._health.is_urgent))
        while len(self._connections.ready) < self._node.wanted:
            await retrying(self._add_connection)

    async def _add_connection(self) -> None:
        """Add one connection. If the node is down, the connection has answered a probe."""
        self._circuit.begin_probe()
        connection = await self._answering_suspended()
        if connection is None:
            asked_at = self._loop.time()
            connection, capabilities = await self._node.open()
            self._connections.count_without_handshake(connection)
            self._node.take_over(capabilities)
            suspended = self._connections.suspended
            # A byte since the connect began shows that the server was only stalled.
            answering = [known for known in suspended if known.heard_at > asked_at][: self._node.wanted - 1]
            self._connections.retire([known for known in suspended if known not in answering])
            if self._health.failure is not None:
                await self.probe(connection)
        if self._health.failure is not None:
            self._node.recover()
        self._connections.add(connection)
        self._node.connection_added()

    async def _answering_suspended(self) -> Transport | None:
        """Probe a suspended connection. Return None if a new one is needed, because the network may have dropped the old."""
        if not self._connections.suspended:
            return None
        connection = self._connections.suspended[0]
        try:
            await self.probe(connection)
        except NodeError:
            if connection.renews_itself:
                raise
            return None
        return connection

    def _failed(self, retry: RetryCallState) -> None:
        self._node.attempt_failed(None if retry.outcome is None else retry.outcome.exception())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._task is not task:
            return  # the next one runs already
        self._task = None
        self._node.reconnector_ended(None if task.cancelled() else task.exception())
