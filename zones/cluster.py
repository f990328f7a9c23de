"""Live zones of one client: their nodes, and the change from one topology to the next."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from evcache.zones._tasks import abandon, cancel_once, closing, ended, unattended
from evcache.zones.discovery.base import Discovery, SourceStatus
from evcache.zones.discovery.gate import TopologyGate
from evcache.zones.discovery.guard import TopologyGuard
from evcache.zones.discovery.local_zone import LocalZonePlace
from evcache.zones.errors import InvalidTopology, UsageError
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.health.node_health import HealthCounters
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.routing.ketama import Ring
from evcache.zones.routing.zone_order import move_to_end, read_order
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.topology.model import Endpoint, Topology, Zone, difference
from evcache.zones.zone_pool import ZonePool, make_rings
from evcache.zones.zone_traffic import TrafficCounters

# Seconds in which a node that left the topology may answer earlier requests. Longer than any sensible write timeout.
RETIRE_SECONDS = 5.0

# Seconds for which a node is down before a topology may remove it without a hold. A network that fails for a moment, or this
# process, must not let a wrong topology through.
DOWN_SECONDS = 10.0

_log = logging.getLogger("evcache.zones.cluster")


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
        strict: bool = False,
        make_pool: Callable[[Zone, Sequence[Node], Ring | None], ZonePool] = ZonePool,
    ) -> None:
        """Make a cluster without nodes.

        Args:
            settings: Settings of all nodes.
            local_zone: Zone of this process. If None, reads are spread over all zones until `set_local_zone`.
            events: Receiver of changes.
            gutter: Nodes outside all zones, see `ClusterSnapshot.gutter`.
            guard: Limits of a change of the source that is applied at once. If None, every change is.
            strict: True if the first topology must have the local zone.
            make_pool: Makes the pool of a zone, from its nodes and their ring.
        """
        self._make_pool = make_pool
        self.gate: TopologyGate | None = None
        """Gate of the source that the cluster follows. None before the first topology."""
        self.discovery: Discovery | None = None
        """Source that the cluster follows."""
        self._guard = guard
        self.view: ClusterSnapshot | None = None
        self.traffic = TrafficCounters()
        """Bytes by zone, since the cluster was made. Those of the gutter have its name."""
        self._events = events
        self._gutter = gutter
        self._gutter_pool: ZonePool | None = None
        self._lag: LoopLag | None = None
        self._recovery_callbacks: list[Callable[[], None]] = []
        self._handshake: Callable[[str, Node], None] = lambda _zone, _node: None
        self._settings = settings
        self._strict = strict
        self.local_zone = LocalZonePlace(() if local_zone is None else (local_zone,), strict=strict)
        """Zone of this process, and its place in a topology."""
        self._seed = secrets.token_bytes(8)  # decides which zone follows the preferred one in this client's reads
        self._health = HealthCounters()
        self._nodes: dict[tuple[str, Endpoint], Node] = {}
        self._down_at: dict[Node, float] = {}  # time at which a node went down
        self._watcher: asyncio.Task[None] | None = None
        self._watch_error: str | None = None  # of a source that raised an error, and is not followed any more
        self._opening = object()  # replaced by `close`, so that a late source has no effect on the next opening
        self._retiring: dict[asyncio.Task[None], Node] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def nodes(self) -> Mapping[tuple[str, Endpoint], Node]:
        """The live nodes, by zone and endpoint."""
        return self._nodes

    @property
    def topology_age(self) -> float | None:
        """Seconds since the source last answered. None if the source does not report it."""
        status, view = self._status, self.view
        if status is None or status.confirmed_at is None or view is None:
            return None
        return view.loop.time() - status.confirmed_at

    @property
    def topology_error(self) -> str | None:
        """Reason for which the source did not answer. None if it did, or does not report it."""
        return self._watch_error or (None if self._status is None else self._status.error)

    @property
    def topology_held(self) -> tuple[str, ...]:
        """Reasons for which the latest topology of the source is held back. Empty if it is in use."""
        held = None if self.gate is None else self.gate.held
        return () if held is None else held.reasons

    def confirm_topology(self) -> bool:
        """Apply the topology that is held back. Return False if there is none."""
        return self.gate is not None and self.gate.confirm()

    @property
    def _status(self) -> SourceStatus | None:
        status = getattr(self.discovery, "status", None)
        return status if isinstance(status, SourceStatus) else None

    async def start(self, discovery: Discovery) -> ClusterSnapshot:
        """Load the first topology and follow the source from then on.

        Raises:
            InvalidTopology: The topology cannot be used.
            UsageError: The cluster was closed during the load, and the source caught its cancellation.
        """
        opening = self._opening
        try:
            topology = await discovery.load()
        except Exception as error:
            if self._watch_error is None:  # once, not for each call that tries
                _log.warning("topology unknown: %s", error)
            self._watch_error = str(error) or type(error).__name__
            raise
        self._watch_error = None
        if opening is not self._opening:
            raise UsageError("the client is closed")
        view = self.apply(topology, await make_rings(topology))
        self.follow(discovery)
        return view

    def follow(self, discovery: Discovery) -> None:
        """Apply the changes that the source reports, in a background task that `close` ends."""
        self.discovery = discovery
        self.gate = TopologyGate(self._guard, self._topology, self.apply, stale=self._stale_zones, is_down=self._is_down)
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
            InvalidTopology: The first topology lacks the local zone and the cluster is strict, or a zone has the name of the
                gutter.
        """
        self.local_zone.check(topology, first=self.view is None)
        if self._gutter is not None and topology.zone(self._gutter.name) is not None:
            raise InvalidTopology("zones", f"a zone is called {self._gutter.name!r}, which is the name of the gutter")
        if self._lag is None:
            self._lag = LoopLag(asyncio.get_running_loop())
        before = self.view
        change = difference(before.topology if before else None, topology)
        for zone_name, endpoint in change.added:
            self._nodes[zone_name, endpoint] = self._new_node(zone_name, endpoint)
        of_nodes = {} if before is None else {pool.nodes: pool.ring for pool in before.writers}  # of zones that stay
        pools: dict[str, ZonePool] = {}
        for zone in topology.zones:
            nodes = tuple(self._nodes[zone.name, endpoint] for endpoint in zone.nodes)
            pools[zone.name] = self._make_pool(zone, nodes, (rings or {}).get(zone.name) or of_nodes.get(nodes))
        readable = [zone.name for zone in topology.readable]
        local = self.local_zone.find(topology.readable)
        if before is not None and topology != before.topology:
            _log.info(
                "topology changed: %d nodes added, %d removed; the zones are %s",
                len(change.added),
                len(change.removed),
                topology.names_and_modes,
            )
        order = read_order(local, readable, self._seed)
        standby_names = [zone.name for zone in topology.standby]
        standby_order = read_order(self.local_zone.find(topology.standby), standby_names, self._seed)
        standby = tuple(pools[name] for name in standby_order)
        ejected = frozenset(name for name in readable if pools[name].is_ejected)
        self._count_ejected(len(ejected), len(readable))
        readers = tuple(pools[name] for name in move_to_end(ejected, order))
        self.view = ClusterSnapshot(
            topology=topology,
            local=local,
            writers=tuple(pools.values()),
            readers=readers,
            standby=standby,
            read_order=readers + standby,
            preferred_zone=order[0],
            ejected=ejected,
            gutter=self._gutter_nodes(),
            max_attempts=len(readers + standby) + (self._gutter is not None),
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
            traffic=self.traffic.of(zone),
            zone=zone,
        )

    def _gutter_nodes(self) -> ZonePool | None:
        if self._gutter is not None and self._gutter_pool is None:
            name = self._gutter.name
            traffic = self.traffic.of(name)
            nodes = [Node(node, self._settings, lag=self._lag, traffic=traffic, zone=name) for node in self._gutter.nodes]
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
        if down:
            self._down_at.setdefault(node, asyncio.get_running_loop().time())
        else:
            self._down_at.pop(node, None)
            for callback in self._recovery_callbacks:
                callback()

    def set_local_zone(self, names: Sequence[str]) -> None:
        """Read the zone with one of these names first from now on. The topology may have any of the names."""
        self.local_zone = LocalZonePlace(names, strict=self._strict)
        if self.view is not None:
            self.apply(self.view.topology)

    def _change_ejected(self, view: ClusterSnapshot, ejected: frozenset[str]) -> None:
        # Calls in progress keep their snapshot. The new order of zones applies to later calls.
        pools = {pool.name: pool for pool in view.readers}
        self._count_ejected(len(ejected), len(pools))
        order = read_order(view.local, sorted(pools), self._seed)
        readers = tuple(pools[name] for name in move_to_end(ejected, order))
        self.view = replace(view, ejected=ejected, readers=readers, read_order=readers + view.standby)
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
        self._watch_error = None
        self._health = HealthCounters()
        self._nodes, self._down_at, self._retiring, self._closing = {}, {}, {}, set()

    def _retire(self, node: Node) -> None:
        node.retire()
        self._down_at.pop(node, None)
        work = node.close(RETIRE_SECONDS)
        task = unattended(asyncio.get_running_loop().create_task(work, name=f"evcache-retire-{node.label}"))
        self._retiring[task] = node
        task.add_done_callback(lambda task: self._retiring.pop(task, None))

    def _topology(self) -> Topology:
        assert self.view is not None
        return self.view.topology

    def _is_down(self, zone: str, endpoint: Endpoint) -> bool:
        node = self._nodes.get((zone, endpoint))
        at = None if node is None else self._down_at.get(node)
        return at is not None and asyncio.get_running_loop().time() - at >= DOWN_SECONDS

    def _stale_zones(self) -> Collection[str] | None:
        """Return the zones whose source fails. None for all."""
        ask = getattr(self.discovery, "stale_zones", None)
        if self._watch_error is not None:
            return None
        if callable(ask):  # of a source that has several
            found: Collection[str] | None = ask()
            return found
        return frozenset() if self._status is None else self._status.stale

    async def _watch(self, discovery: Discovery) -> None:
        opening = self._opening
        try:
            async with closing(discovery.watch()) as topologies:
                async for topology in topologies:
                    rings = await make_rings(topology)
                    if opening is not self._opening or self.gate is None:
                        return
                    if topology != self._topology() or self.gate.held is not None:
                        self.gate.offer(topology, rings)
        except Exception as error:
            # A source that fails must not stop the service. The last known zones are the best guess.
            self._watch_error = str(error) or type(error).__name__
            _log.exception("discovery failed: unexpected exception; keeping the previous topology")
