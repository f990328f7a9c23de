"""Live zones of one client: the snapshot that calls see, and the change from one topology to the next."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from evcache.zones._tasks import abandon, cancel_once, ended, unattended
from evcache.zones.discovery.base import Discovery
from evcache.zones.discovery.gate import TopologyGate
from evcache.zones.discovery.guard import TopologyGuard
from evcache.zones.errors import InvalidTopology, UsageError
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.health.node_health import HealthCounters
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.routing.ketama import Ring, ring_in_steps, ring_position
from evcache.zones.routing.zone_order import coordinator_order, move_to_end, read_order
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone, difference
from evcache.zones.zone_pool import ZonePool

# Seconds in which a node that left the topology may answer earlier requests. Longer than any sensible write timeout.
RETIRE_SECONDS = 5.0

# Rings of fewer nodes are made without a pause, which takes at most 10 ms.
YIELDING_NODES = 100

_log = logging.getLogger("evcache.zones.cluster")


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """The zones as one call sees them. A call takes one snapshot and keeps it while the cluster changes."""

    topology: Topology
    local: str | None
    """Zone that is read first. None if this process runs in none of the zones."""
    writers: tuple[ZonePool, ...]
    """All zones."""
    readers: tuple[ZonePool, ...]
    """Readable zones in this client's order of reads. Ejected zones come last."""
    preferred_zone: str
    """Zone of this client's reads while all nodes are healthy: the local zone, if there is one."""
    ejected: frozenset[str]
    """Readable zones of which too many nodes are down."""
    gutter: ZonePool | None
    """Nodes outside all zones, for keys that no zone can serve. None if there are none."""
    max_attempts: int
    """Number of places where a read may look: the readable zones, and the gutter if there is one."""
    sharded: bool
    """True if any zone has more than one node, so that the ring position of a key matters."""
    health: HealthCounters
    """Number of nodes that are not healthy, and the state of the zones."""
    lag: LoopLag
    """Lag of this process's event loop."""
    loop: asyncio.AbstractEventLoop
    """Event loop that the nodes belong to."""

    def ring_position(self, key: bytes) -> int:
        """Return the key's position on the rings of all zones. 0 if no zone has more than one node, without hashing."""
        return ring_position(key) if self.sharded else 0

    def gutter_position(self, key: bytes) -> int:
        """Return the key's position on the ring of the gutter."""
        return ring_position(key) if self.gutter is not None and len(self.gutter.nodes) > 1 else 0

    def coordinators(self, key: bytes) -> list[ZonePool]:
        """Return the readable zones in the order in which they may coordinate writes of this key, equal for all clients."""
        by_name = {pool.name: pool for pool in self.readers}
        return [by_name[name] for name in coordinator_order(key, tuple(by_name))]


class Events(Protocol):
    """Receiver of changes of nodes and zones. The cluster calls it on the event loop."""

    def node_changed(self, zone: str, node: str, *, down: bool, why: Exception | None) -> None:
        """Report that a node, named by its label, went down or recovered."""
        ...

    def zone_changed(self, zone: str, *, out: bool) -> None:
        """Report that a zone was ejected, or is no longer ejected."""
        ...


class Cluster:
    """Owner of the nodes. It belongs to one event loop, and connects to a node on the first request only."""

    def __init__(
        self,
        settings: NodeSettings,
        local_zone: str | None,
        *,
        events: Events | None = None,
        gutter: Zone | None = None,
        guard: TopologyGuard | None = None,
    ) -> None:
        """Make a cluster without nodes.

        Args:
            settings: Settings of all nodes.
            local_zone: Zone of this process. If None, reads are spread over all zones.
            events: Receiver of changes.
            gutter: Nodes outside all zones, see `ClusterSnapshot.gutter`.
            guard: Limits of a change of the source that is applied at once. If None, every change is.
        """
        self.gate: TopologyGate | None = None
        """Gate of the source that the cluster follows. None before the first topology."""
        self.discovery: Discovery | None = None
        """Source that the cluster follows."""
        self._guard = guard
        self.view: ClusterSnapshot | None = None
        self._events = events
        self._gutter = gutter
        self._gutter_pool: ZonePool | None = None
        self._lag: LoopLag | None = None
        self._recovery_callbacks: list[Callable[[], None]] = []
        self._handshake: Callable[[str, Node], None] = lambda _zone, _node: None
        self._settings = settings
        self._local_zone = local_zone
        self._seed = secrets.token_bytes(8)  # decides which zone follows the preferred one in this client's reads
        self._health = HealthCounters()
        self._nodes: dict[tuple[str, Endpoint], Node] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._opening = object()  # replaced by `close`, so that a late source has no effect on the next opening
        self._retiring: dict[asyncio.Task[None], Node] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def nodes(self) -> Mapping[tuple[str, Endpoint], Node]:
        """The live nodes, by zone and endpoint."""
        return self._nodes

    async def start(self, discovery: Discovery) -> ClusterSnapshot:
        """Load the first topology and follow the source from then on.

        Raises:
            InvalidTopology: The topology cannot be used.
            UsageError: The cluster was closed during the load, and the source caught its cancellation.
        """
        opening = self._opening
        topology = await discovery.load()
        if opening is not self._opening:
            raise UsageError("the client is closed")
        view = self.apply(topology, await make_rings(topology))
        self.follow(discovery)
        return view

    def follow(self, discovery: Discovery) -> None:
        """Apply the changes that the source reports, in a background task that `close` ends."""
        self.discovery = discovery
        self.gate = TopologyGate(self._guard, self._topology, self.apply)
        self._watcher = unattended(asyncio.get_running_loop().create_task(self._watch(discovery), name="evcache-discovery"))

    def apply(self, topology: Topology, rings: Mapping[str, Ring] | None = None) -> ClusterSnapshot:
        """Use this topology from now on. Calls in progress keep their snapshot.

        Nodes that stay keep their connections. Nodes that left answer their requests and are then closed.

        Args:
            topology: The new topology.
            rings: Rings by zone, as `make_rings` returns them. Missing rings are made here.

        Returns:
            The new snapshot.

        Raises:
            InvalidTopology: The first topology lacks the local zone, or a zone has the name of the gutter.
        """
        check_local_zone(self._local_zone, topology, first=self.view is None)
        if self._gutter is not None and topology.zone(self._gutter.name) is not None:
            raise InvalidTopology("zones", f"a zone is called {self._gutter.name!r}, which is the name of the gutter")
        if self._lag is None:
            self._lag = LoopLag(asyncio.get_running_loop())
        before = self.view
        change = difference(before.topology if before else None, topology)
        for zone_name, endpoint in change.added:
            self._nodes[zone_name, endpoint] = self._new_node(zone_name, endpoint)
        known = rings or {}
        pools = {
            zone.name: ZonePool(zone, [self._nodes[zone.name, endpoint] for endpoint in zone.nodes], known.get(zone.name))
            for zone in topology.zones
        }
        readable = [zone.name for zone in topology.readable]
        local = self._local_zone if self._local_zone in readable else None
        if before is not None and topology != before.topology:
            names = ", ".join(
                f"{zone.name} ({zone.mode})" if zone.mode is Mode.WRITE_ONLY else zone.name for zone in topology.zones
            )
            _log.info(
                "topology changed: %d nodes added, %d removed; the zones are %s",
                len(change.added),
                len(change.removed),
                names,
            )
        order = read_order(local, readable, self._seed)
        ejected = frozenset(name for name in readable if pools[name].is_ejected)
        self._count_ejected(len(ejected), len(readable))
        self.view = ClusterSnapshot(
            topology=topology,
            local=local,
            writers=tuple(pools.values()),
            readers=tuple(pools[name] for name in move_to_end(ejected, order)),
            preferred_zone=order[0],
            ejected=ejected,
            gutter=self._gutter_nodes(),
            max_attempts=len(order) + (self._gutter is not None),
            sharded=any(len(pool.nodes) > 1 for pool in pools.values()),
            health=self._health,
            lag=self._lag,
            loop=asyncio.get_running_loop(),
        )
        for removed in change.removed:
            self._retire(self._nodes.pop(removed))
        if before is not None:
            self._report_ejections(before.ejected ^ ejected)
        return self.view

    def _new_node(self, zone: str, endpoint: Endpoint) -> Node:
        return Node(
            endpoint,
            self._settings,
            self._health,
            lag=self._lag,
            on_change=partial(self._node_changed, zone),
            on_handshake=partial(self._handshake, zone),
        )

    def _gutter_nodes(self) -> ZonePool | None:
        if self._gutter is not None and self._gutter_pool is None:
            nodes = [Node(endpoint, self._settings, lag=self._lag) for endpoint in self._gutter.nodes]
            self._gutter_pool = ZonePool(self._gutter, nodes)
        return self._gutter_pool

    def on_node_recovered(self, callback: Callable[[], None]) -> None:
        """Call `callback()` each time that a node has recovered."""
        self._recovery_callbacks.append(callback)

    def on_handshake(self, callback: Callable[[str, Node], None]) -> None:
        """Call `callback(zone, node)` after each handshake with a node of a zone. Call this before `apply` or `start`."""
        self._handshake = callback

    def _node_changed(self, zone: str, node: Node) -> None:
        down = node.failure is not None
        if self._events is not None:
            self._events.node_changed(zone, node.label, down=down, why=node.failure)
        view = self.view
        if view is not None:
            ejected = frozenset(pool.name for pool in view.readers if pool.is_ejected)
            if ejected != view.ejected:
                self._change_ejected(view, ejected)
        if not down:
            for callback in self._recovery_callbacks:
                callback()

    def _change_ejected(self, view: ClusterSnapshot, ejected: frozenset[str]) -> None:
        # Calls in progress keep their snapshot. The new order of zones applies to later calls.
        pools = {pool.name: pool for pool in view.readers}
        self._count_ejected(len(ejected), len(pools))
        order = read_order(view.local, sorted(pools), self._seed)
        self.view = replace(view, ejected=ejected, readers=tuple(pools[name] for name in move_to_end(ejected, order)))
        self._report_ejections(ejected ^ view.ejected)

    def _count_ejected(self, ejected: int, readable: int) -> None:
        """Store the number of ejected zones. Shorten all pauses between probes if this begins an emergency."""
        if self._health.count_zones(ejected, readable):
            for node in self._nodes.values():
                node.hurry()

    def _report_ejections(self, changed: Collection[str]) -> None:
        """Log and report each readable zone whose ejected state changed."""
        assert self.view is not None
        ejected = self.view.ejected
        for pool in sorted(self.view.readers, key=lambda pool: pool.name):
            if pool.name not in changed:
                continue
            if pool.name in ejected:
                _log.warning("zone %s is ejected: %s; it is read last", pool.name, pool.nodes_down())
            else:
                _log.info("zone %s recovered: it is read in its usual order", pool.name)
            if self._events is not None:
                self._events.zone_changed(pool.name, out=pool.name in ejected)

    async def close(self, drain: float) -> None:
        """Wait for outstanding requests, then end all nodes and connections.

        A cancelled call ends all connections at once. A further call waits for the tasks that still run.

        Args:
            drain: Longest wait in seconds.
        """
        self._opening = object()
        watching = [] if self._watcher is None else [self._watcher]
        cancel_once(watching)
        if self.gate is not None:
            self.gate.close()
        if self._lag is not None:
            self._lag.close()
        nodes = [*self._nodes.values(), *self._retiring.values()]
        if self._gutter_pool is not None:
            nodes += self._gutter_pool.nodes
        for node in nodes:
            task = unattended(asyncio.get_running_loop().create_task(node.close(drain), name=f"evcache-close-{node.label}"))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        waiting = [*self._closing, *self._retiring]
        try:
            if waiting:
                await asyncio.wait(waiting)
            await ended(watching, lambda _: f"the discovery {type(self.discovery).__qualname__}")
        finally:  # also when cancelled, maybe before any of these tasks has begun
            for node in nodes:
                node.abort()
            cancel_once([*self._closing, *self._retiring])
        self._nodes = {}

    def reopen(self) -> None:
        """Forget the nodes, after `close` or when the loop is closed. `start` and `apply` make new ones."""
        abandon([*self._closing, *self._retiring, *([] if self._watcher is None else [self._watcher])])
        for node in [*self._nodes.values(), *self._retiring.values()]:
            node.abandon()
        if self._gutter_pool is not None:
            for node in self._gutter_pool.nodes:
                node.abandon()
        self.view = self._watcher = self._gutter_pool = self._lag = self.gate = self.discovery = None
        self._health = HealthCounters()
        self._nodes, self._retiring, self._closing = {}, {}, set()

    def _retire(self, node: Node) -> None:
        node.retire()
        work = node.close(RETIRE_SECONDS)
        task = unattended(asyncio.get_running_loop().create_task(work, name=f"evcache-retire-{node.label}"))
        self._retiring[task] = node
        task.add_done_callback(lambda task: self._retiring.pop(task, None))

    def _topology(self) -> Topology:
        assert self.view is not None
        return self.view.topology

    async def _watch(self, discovery: Discovery) -> None:
        opening = self._opening
        try:
            async for topology in discovery.watch():
                rings = await make_rings(topology)
                if opening is not self._opening or self.gate is None:
                    return
                self.gate.offer(topology, rings)
        except Exception:
            # A source that fails must not stop the service. The last known zones are the best guess.
            _log.exception("discovery failed: unexpected exception; keeping the previous topology")


async def make_rings(topology: Topology) -> dict[str, Ring]:
    """Return the rings of all zones with more than one node, by zone.

    The event loop runs other tasks every few milliseconds if a zone has `YIELDING_NODES` nodes or more.
    """
    rings: dict[str, Ring] = {}
    for zone in topology.zones:
        if len(zone.nodes) > 1:
            for ring in ring_in_steps([node.label for node in zone.nodes]):
                if ring is not None:
                    rings[zone.name] = ring
                if len(zone.nodes) >= YIELDING_NODES:
                    await asyncio.sleep(0)
    return rings


def check_local_zone(local_zone: str | None, topology: Topology, *, first: bool = True) -> None:
    """Check that the topology has the local zone.

    Args:
        local_zone: Name of the zone. None is always accepted.
        topology: The topology.
        first: True for the first topology of a client. For a later one the function logs and does not raise.

    Raises:
        InvalidTopology: The first topology lacks the zone.
    """
    if local_zone is None or topology.zone(local_zone) is not None:
        return
    names = ", ".join(zone.name for zone in topology.zones)
    if first:
        raise InvalidTopology("local_zone", f"{local_zone!r} is not one of the zones: {names}")
    _log.warning("the local zone %s left the topology: reads are spread over %s", local_zone, names)
