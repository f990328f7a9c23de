"""Replacement of connections that are open and unusable.

Two kinds of them exist. A NAT or a load balancer drops the state of an idle connection: requests on it have no reply, and
new connections work. And a host name moves to another address while the server at the old one still answers.

In both cases the client opens a new connection first. Calls use the old connection until the new one has answered. The old
connection then takes no more requests, and still delivers outstanding replies.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from evcache.zones._tasks import unattended
from evcache.zones.errors import CacheError
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.base import Transport
from evcache.zones.transport.resolver import is_name

# Number of lookups in a row that must lack the address of a connection before the node moves. During an update, name servers
# answer with the old and the new address in turn. A node that alternates between two servers would read old values.
LOOKUPS_BEFORE_MOVE = 2

# Share of the lookup interval by which one is shorter or longer, at random. Processes that were started together must not
# ask the name server together.
INTERVAL_JITTER = 0.2

_log = logging.getLogger("evcache.zones.nodes")


class Renewable(Protocol):
    """The part of a node that a renewal works on."""

    @property
    def endpoint(self) -> Endpoint:
        """Address and label of the node."""
        ...

    @property
    def name(self) -> str:
        """Zone and address of the node, for log lines."""
        ...

    def in_use(self) -> list[Transport]:
        """Return the connections that are open and not retired."""
        ...

    async def open(self) -> tuple[Transport, Capabilities]:
        """Open another connection."""
        ...

    def exchange(self, opened: Transport, capabilities: Capabilities, gone: list[Transport]) -> None:
        """Use `opened` in place of the connections in `gone`."""
        ...


class Renewal:
    """The renewal of one node's connections. It has at most two tasks and one timer."""

    def __init__(
        self,
        node: Renewable,
        settings: NodeSettings,
        tasks: set[asyncio.Task[None]],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Make an idle renewal.

        Args:
            node: The node.
            settings: Its settings.
            tasks: Set of the running tasks. The node cancels and awaits them on close.
            draw: Return a random number from 0 to 1.
        """
        self._node = node
        self._settings = settings
        self._tasks = tasks
        self._draw = draw
        self._loop = asyncio.get_running_loop()
        self._check: asyncio.Task[None] | None = None
        self._next_check = -1e9
        self._timer: asyncio.TimerHandle | None = None
        self._missing = 0  # lookups in a row that lack the address of a connection
        self._closed = False

    def close(self) -> None:
        """End the timer, and start no more tasks. The node cancels the running ones."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Connections that the network has dropped.

    def doubt(self, connection: Transport) -> None:
        """Find out if new connections work, because a request on this one had no reply in time.

        This happens at most once in `CircuitLimits.calm` seconds. A node that answers only on new connections must not be
        renewed repeatedly.
        """
        now = self._loop.time()
        running = self._check is not None and not self._check.done()
        if running or self._closed or connection.renews_itself or now < self._next_check:
            return
        self._next_check = now + self._settings.circuit.calm
        self._check = self._start(partial(self._replace_silent, connection, now), "check")

    async def _replace_silent(self, doubted: Transport, began: float) -> None:
        # All connections with an equally long silence are suspect, with the idle ones. A byte on a connection since the
        # request on the doubted one shows that the network still has that connection.
        silent_since = doubted.quiet_since
        opened, capabilities = await self._node.open()
        try:
            await opened.probe(self._loop.time() + self._settings.probe_seconds)
            if doubted.heard_at > began or not doubted.pending:
                return  # the connection was only slow
            gone = [known for known in self._node.in_use() if not known.renews_itself and known.heard_at <= silent_since]
            if doubted in gone:
                _log.info("node %s: connection replaced: the node answers on a new connection only", self._node.name)
                self._node.exchange(opened, capabilities, gone)
        finally:
            if opened not in self._node.in_use():
                opened.abort("not needed")

    # Names that move.

    def follow(self) -> None:
        """Look up the node's name periodically from now on. Has no effect for an address."""
        settings = self._settings
        interval = settings.lookup_interval
        if self._timer is not None or self._closed or not interval or not is_name(self._node.endpoint.host):
            return
        if getattr(settings.dialer, "addresses", None) is None:
            return  # a dialer of the user without names
        jitter = INTERVAL_JITTER * (2 * self._draw() - 1)
        self._timer = self._loop.call_later(interval * (1 + jitter), self._look)

    def _look(self) -> None:
        if self._node.in_use():
            self._start(self._look_up, "lookup").add_done_callback(lambda _: self._again())
        else:
            self._again()  # the next connect looks the name up

    def _again(self) -> None:
        self._timer = None
        self.follow()

    async def _look_up(self) -> None:
        endpoint = self._node.endpoint
        addresses: frozenset[tuple[str, int]] = await self._settings.dialer.addresses(endpoint)  # type: ignore[attr-defined]
        gone = [connection for connection in self._node.in_use() if not connection.peers() <= addresses]
        self._missing = self._missing + 1 if gone else 0
        if self._missing < LOOKUPS_BEFORE_MOVE:
            return
        _log.info(
            "node %s moved: its name resolves to %s",
            self._node.name,
            ", ".join(f"{host} port {port}" for host, port in sorted(addresses)),
        )
        for connection in gone:
            opened, capabilities = await self._node.open()
            self._node.exchange(opened, capabilities, [connection])
        self._missing = 0

    def _start(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        task = unattended(self._loop.create_task(self._quietly(work), name=f"evcache-{name}-{self._node.endpoint.label}"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (OSError, CacheError) as error:
            # The connections stay in use. The circuit counts the failures on them.
            _log.debug("node %s: connection replacement failed: %s", self._node.name, error)
        except Exception:
            _log.exception("node %s: connection replacement failed: unexpected exception", self._node.name)
