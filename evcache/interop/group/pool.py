"""A server group whose keys or values have another form: to the rest of the client, a zone with one node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TypeVar, cast

from evcache._helpers.background import BackgroundTasks
from evcache.interop.forms.group_rules import GroupRules
from evcache.interop.group.limits import GroupCapabilities, least_of
from evcache.interop.group.transport import GroupTransport
from evcache.interop.settings import Interop
from evcache.zones.errors import NodeError, NodeUnavailable
from evcache.zones.health.node_health import Outage
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.node import Node, State
from evcache.zones.routing.ketama import Ring
from evcache.zones.topology.model import Zone
from evcache.zones.transport.base import Transport, TransportName
from evcache.zones.zone_pool import ZonePool

T = TypeVar("T")

GroupPoolMaker = Callable[[Zone, Sequence[Node], Ring | None], ZonePool]


def pool_maker(interop: Interop, background: BackgroundTasks, unix_time: Callable[[], float]) -> GroupPoolMaker:
    """Return the function that makes the pools of a client.

    Args:
        interop: Settings of the JVM clients.
        background: Owner of the tasks of the client.
        unix_time: Returns seconds since 1970.
    """

    def make(zone: Zone, nodes: Sequence[Node], ring: Ring | None) -> ZonePool:
        rules = GroupRules(interop, zone.name)
        return GroupPool(zone, nodes, ring, rules, background, unix_time)

    return make


class GroupPool(ZonePool):
    """The nodes of one group. Health is that of the nodes, and requests go through one node in front of them."""

    def __init__(
        self,
        zone: Zone,
        nodes: Sequence[Node],
        ring: Ring | None,
        rules: GroupRules,
        background: BackgroundTasks,
        unix_time: Callable[[], float],
    ) -> None:
        """Make a pool. The first three arguments are those of `ZonePool`, and the others those of `GroupTransport`."""
        super().__init__(zone, nodes, ring)
        transport = GroupTransport(zone.name, ZonePool(zone, nodes, self.ring), rules, background, unix_time)
        # It has what calls use of a node. A base class for both would have nothing else in it.
        self._front = cast("Node", GroupNode(zone.name, self.nodes, transport, rules))
        self.only = self._front

    def node(self, position: int) -> Node:
        """Return the node in front of the group."""
        del position
        return self._front

    def placement(self) -> tuple[Sequence[Node], Ring | None]:
        """Return the node in front of the group alone."""
        return (self._front,), None

    def batches(self, keys: Sequence[bytes], given: Sequence[T]) -> list[tuple[Node, Sequence[bytes], Sequence[T]]]:
        """Return all keys as one batch."""
        return [(self._front, keys, given)] if keys else []


class GroupNode:
    """The node in front of a group. The attributes are those of `Node` that calls use."""

    is_warming = False
    """A node that recovered gets all of its reads, because the group does not know the node of a read in advance."""
    is_silent = False
    versioned_bytes = -1
    outages: tuple[Outage, ...] = ()

    def __init__(self, name: str, nodes: Sequence[Node], transport: GroupTransport, rules: GroupRules) -> None:
        """Bind the parts of a group."""
        self.label = name
        self._nodes = nodes
        self._transport = cast("Transport", transport)
        self._rules = rules
        self.connections = SimpleNamespace(sole=None, ready=())
        """No connection serves an ordinary call alone."""

    @property
    def capabilities(self) -> Capabilities | None:
        """Features that all known servers have, without versions. None before the first handshake."""
        least = least_of(self._nodes)
        if least is None:
            return None
        return GroupCapabilities(
            least.server,
            explicit_cas=False,
            cas=all(node.capabilities.cas for node in self._nodes if node.capabilities is not None),
            item_bytes=least.item_bytes,
            transport=least.transport,
            rules=self._rules,
        )

    @property
    def transport(self) -> TransportName | None:
        """Transport of the servers. None before the first handshake."""
        least = least_of(self._nodes)
        return None if least is None else least.transport

    @property
    def state(self) -> State:
        """The best state of the nodes."""
        states = {node.state for node in self._nodes}
        order: tuple[State, ...] = ("ready", "connecting", "idle", "down", "closed")
        return next(state for state in order if state in states)

    @property
    def is_down(self) -> bool:
        """True if all nodes are down."""
        return all(node.is_down for node in self._nodes)

    @property
    def may_answer(self) -> bool:
        """True if any node may answer."""
        return any(node.may_answer for node in self._nodes)

    @property
    def failure(self) -> Exception | None:
        """Reason why the group is down. None if it is up."""
        return next((node.failure for node in self._nodes), None) if self.is_down else None

    def unavailable(self) -> NodeUnavailable:
        """Return the error for a call that finds all nodes down."""
        return self._nodes[0].unavailable()

    def connection(self) -> Transport | None:
        """Return the transport of the group. None before the first handshake, and while all nodes are down."""
        is_known = any(node.capabilities is not None for node in self._nodes)
        return self._transport if is_known and not self.is_down else None

    async def connected(self, deadline: float) -> Transport:
        """Return the transport of the group. See `connected_by`."""
        return (await self.connected_by(deadline))[0]

    async def connected_by(self, deadline: float) -> tuple[Transport, float]:
        """Return the transport of the group, and the deadline. Wait for a first connection if there was none.

        Raises:
            NodeError: No node can be connected to.
        """
        connection = self.connection()
        if connection is not None:
            return connection, deadline
        opening = [asyncio.ensure_future(node.connected_by(deadline)) for node in self._nodes]
        for one in opening:
            one.add_done_callback(lambda task: task.cancelled() or task.exception())  # asyncio reports one not looked at
        error: NodeError | None = None
        try:
            for first in asyncio.as_completed(opening):
                try:
                    return self._transport, (await first)[1]
                except NodeError as failed:
                    error = error or failed
        finally:
            for other in opening:
                other.cancel()  # the reconnector continues
        assert error is not None  # a group has at least one node
        raise error

    def admits_read(self) -> bool:
        """Return True: see `is_warming`."""
        return True

    def record_read(self, *, hit: bool) -> None:
        """Record nothing: see `is_warming`."""
        del hit
