"""The live zones of one client: what calls see at this moment, and how one topology becomes the next under way."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from zones.discovery import Discovery
from zones.errors import InvalidTopology
from zones.node import Node, NodeSettings, Tally
from zones.pool import ZonePool
from zones.ring import position
from zones.selector import coordinator_order, read_order
from zones.topology import Endpoint, Topology, difference

# How long a node that left the topology may take to answer what it was asked before: longer than any sensible write timeout.
RETIRE_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """The zones as a call sees them. A call takes one view and keeps it, whatever changes meanwhile."""

    topology: Topology
    local: str | None
    """The zone that is read first; None when this process is in none of them."""
    writers: tuple[ZonePool, ...]
    """Every zone."""
    readers: tuple[ZonePool, ...]
    """The zones that can be read, in the order in which this client asks them."""
    sharded: bool
    """Whether any zone has more than one node, so that a key's place on the ring matters."""
    tally: Tally
    """How many nodes could not be connected to."""
    loop: asyncio.AbstractEventLoop
    """The event loop that all of this belongs to."""

    def place(self, key: bytes) -> int:
        """The key's place on the rings: 0 where no zone has more than one node and nothing needs hashing."""
        return position(key) if self.sharded else 0

    def coordinators(self, key: bytes) -> list[ZonePool]:
        """The readable zones, in the order in which they may decide about this key: the same for every client."""
        by_name = {pool.name: pool for pool in self.readers}
        return [by_name[name] for name in coordinator_order(key, tuple(by_name))]


class Cluster:
    """Owns the nodes. Belongs to one event loop; nothing is connected before it is asked for."""

    def __init__(self, settings: NodeSettings, local_zone: str | None) -> None:
        self.view: View | None = None
        self._settings = settings
        self._local_zone = local_zone
        self._seed = secrets.token_bytes(8)  # which neighbour this client's reads fall back to first
        self._tally = Tally()
        self._nodes: dict[tuple[str, Endpoint], Node] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._retiring: dict[asyncio.Task[None], Node] = {}

    @property
    def nodes(self) -> Mapping[tuple[str, Endpoint], Node]:
        """The live nodes, by zone and endpoint."""
        return self._nodes

    async def start(self, discovery: Discovery) -> View:
        """Load the first topology and follow the source from then on. Raises `InvalidTopology`."""
        view = self.apply(await discovery.load())
        self.follow(discovery)
        return view

    def follow(self, discovery: Discovery) -> None:
        """Apply what the source reports from now on, in a background task that `close` ends."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch(discovery), name="evcache-discovery")

    def apply(self, topology: Topology) -> View:
        """Make this the topology. Calls that are under way keep the view they began with.

        Nodes that stay keep their connections; nodes that left answer what they were asked and are then closed.
        Raises `InvalidTopology` when it does not hold the local zone and there is no view yet.
        """
        check_local_zone(self._local_zone, topology, first=self.view is None)
        change = difference(self.view.topology if self.view else None, topology)
        for place in change.added:
            self._nodes[place] = Node(place[1], self._settings, self._tally)
        pools = {
            zone.name: ZonePool(zone, [self._nodes[zone.name, endpoint] for endpoint in zone.nodes])
            for zone in topology.zones
        }
        readable = [zone.name for zone in topology.readable]
        local = self._local_zone if self._local_zone in readable else None
        if self.view is not None:
            _log.info("topology changed: %d nodes added, %d removed", len(change.added), len(change.removed))
        self.view = View(
            topology=topology,
            local=local,
            writers=tuple(pools.values()),
            readers=tuple(pools[name] for name in read_order(local, readable, self._seed)),
            sharded=any(len(pool.nodes) > 1 for pool in pools.values()),
            tally=self._tally,
            loop=asyncio.get_running_loop(),
        )
        for place in change.removed:
            self._retire(self._nodes.pop(place))
        return self.view

    async def close(self, drain: float) -> None:
        """Let requests that wait be answered for up to `drain` seconds, then end everything. May be called again."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        nodes, self._nodes = [*self._nodes.values(), *self._retiring.values()], {}
        closing = [asyncio.ensure_future(node.close(drain)) for node in nodes]
        waiting = [*closing, *self._retiring]
        if waiting:
            try:
                await asyncio.wait(waiting)
            finally:
                for task in waiting:  # cancelled while draining: each still ends its connections
                    task.cancel()

    def _retire(self, node: Node) -> None:
        node.retire()
        task = asyncio.get_running_loop().create_task(node.close(RETIRE_SECONDS), name=f"evcache-retire-{node.label}")
        self._retiring[task] = node
        task.add_done_callback(lambda task: self._retiring.pop(task, None))

    async def _watch(self, discovery: Discovery) -> None:
        try:
            async for topology in discovery.watch():
                try:
                    self.apply(topology)
                except InvalidTopology as error:
                    _log.warning("the topology stays as it is: %s", error)
        except Exception:
            # A source that fails must not take the service with it: the zones known last are the best there is.
            _log.exception("discovery ended with an error; the topology stays as it is")


def check_local_zone(local_zone: str | None, topology: Topology, *, first: bool = True) -> None:
    """Raise `InvalidTopology` when the local zone is not one of the zones; on a later change, only log it."""
    if local_zone is None or topology.zone(local_zone) is not None:
        return
    names = ", ".join(zone.name for zone in topology.zones)
    if first:
        raise InvalidTopology("local_zone", f"{local_zone!r} is not one of the zones: {names}")
    _log.warning("the local zone %s left the topology: reads are spread over %s", local_zone, names)
