"""The live zones of one client: what calls see at this moment, and how one topology becomes the next under way."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from evcache.zones._tasks import abandon, cancel_once, ended, unattended
from evcache.zones.errors import InvalidTopology, UsageError
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.health.node_health import HealthCounters
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.routing.ketama import ring_in_steps, ring_position
from evcache.zones.routing.zone_order import coordinator_order, is_emergency, move_to_end, read_order
from evcache.zones.topology.discovery import Discovery
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone, difference
from evcache.zones.zone_pool import ZonePool

# How long a node that left the topology may take to answer what it was asked before: longer than any sensible write timeout.
RETIRE_SECONDS = 5.0

# Zones of fewer nodes get their ring at one go, which takes 10 ms at the most.
YIELDING_NODES = 100

_log = logging.getLogger("evcache.zones.cluster")


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """The zones as a call sees them. A call takes one view and keeps it, whatever changes meanwhile."""

    topology: Topology
    local: str | None
    """The zone that is read first; None when this process is in none of them."""
    writers: tuple[ZonePool, ...]
    """Every zone."""
    readers: tuple[ZonePool, ...]
    """The zones that can be read, in the order in which this client asks them; those that are out come last."""
    home: str
    """The zone that this client's reads go to when all is well: the local one, if there is one."""
    out: frozenset[str]
    """The readable zones that are out: too many of their nodes are down."""
    spare: ZonePool | None
    """Nodes that belong to no zone, for keys that no zone can serve; None: there are none."""
    places: int
    """Where a read may look, one after another: every readable zone, and the spare nodes."""
    sharded: bool
    """Whether any zone has more than one node, so that a key's place on the ring matters."""
    tally: HealthCounters
    """How many nodes are down, or have just come back."""
    lag: LoopLag
    """How late this process's event loop is."""
    loop: asyncio.AbstractEventLoop
    """The event loop that all of this belongs to."""

    def place(self, key: bytes) -> int:
        """The key's place on the rings: 0 where no zone has more than one node and nothing needs hashing."""
        return ring_position(key) if self.sharded else 0

    def place_in_spare(self, key: bytes) -> int:
        """The key's place on the ring of the spare nodes."""
        return ring_position(key) if self.spare is not None and len(self.spare.nodes) > 1 else 0

    def coordinators(self, key: bytes) -> list[ZonePool]:
        """The readable zones, in the order in which they may decide about this key: the same for every client."""
        by_name = {pool.name: pool for pool in self.readers}
        return [by_name[name] for name in coordinator_order(key, tuple(by_name))]


class Events(Protocol):
    """Whoever wants to know what becomes of nodes and zones. Called on the event loop."""

    def node_changed(self, zone: str, node: str, *, down: bool, why: Exception | None) -> None:
        """A node (its label) has gone down, or is back."""
        ...

    def zone_changed(self, zone: str, *, out: bool) -> None:
        """A zone is out, or is read again."""
        ...


class Cluster:
    """Owns the nodes. Belongs to one event loop; nothing is connected before it is asked for."""

    def __init__(
        self, settings: NodeSettings, local_zone: str | None, *, events: Events | None = None, spare: Zone | None = None
    ) -> None:
        """`spare`: nodes that belong to no zone (see `ClusterSnapshot.spare`)."""
        self.view: ClusterSnapshot | None = None
        self._events = events
        self._spare = spare
        self._spare_pool: ZonePool | None = None
        self._lag: LoopLag | None = None
        self._back: list[Callable[[], None]] = []
        self._handshake: Callable[[str, Node], None] = lambda _zone, _node: None
        self._settings = settings
        self._local_zone = local_zone
        self._seed = secrets.token_bytes(8)  # which neighbour this client's reads fall back to first
        self._tally = HealthCounters()
        self._nodes: dict[tuple[str, Endpoint], Node] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._opening = object()  # replaced by `close`, so that a late source has no effect on the next opening
        self._followed = ""  # the name of the source, for the log
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
            UsageError: The cluster was closed in the meantime, and the source has caught its cancellation.
        """
        opening = self._opening
        topology = await discovery.load()
        if opening is not self._opening:
            raise UsageError("the client is closed")
        view = await self._apply_in_steps(topology)
        self.follow(discovery)
        return view

    def follow(self, discovery: Discovery) -> None:
        """Apply what the source reports from now on, in a background task that `close` ends."""
        self._followed = type(discovery).__qualname__
        self._watcher = unattended(asyncio.get_running_loop().create_task(self._watch(discovery), name="evcache-discovery"))

    def apply(self, topology: Topology) -> ClusterSnapshot:
        """Make this the topology. Calls that are under way keep the view they began with.

        Nodes that stay keep their connections; nodes that left answer what they were asked and are then closed.
        Raises `InvalidTopology` when it does not hold the local zone and there is no view yet.
        """
        check_local_zone(self._local_zone, topology, first=self.view is None)
        if self._spare is not None and topology.zone(self._spare.name) is not None:
            raise InvalidTopology("zones", f"a zone is called {self._spare.name!r}, as the nodes that belong to none are")
        if self._lag is None:
            self._lag = LoopLag(asyncio.get_running_loop())
        change = difference(self.view.topology if self.view else None, topology)
        for place in change.added:
            zone, endpoint = place
            self._nodes[place] = Node(
                endpoint,
                self._settings,
                self._tally,
                lag=self._lag,
                on_change=partial(self._node_changed, zone),
                on_handshake=partial(self._handshake, zone),
            )
        pools = {
            zone.name: ZonePool(zone, [self._nodes[zone.name, endpoint] for endpoint in zone.nodes])
            for zone in topology.zones
        }
        readable = [zone.name for zone in topology.readable]
        local = self._local_zone if self._local_zone in readable else None
        if self.view is not None and topology != self.view.topology:
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
        out = frozenset(name for name in readable if pools[name].is_ejected)
        self._count_out(len(out), len(readable))
        before = self.view
        self.view = ClusterSnapshot(
            topology=topology,
            local=local,
            writers=tuple(pools.values()),
            readers=tuple(pools[name] for name in move_to_end(out, order)),
            home=order[0],
            out=out,
            spare=self._spare_nodes(),
            places=len(order) + (self._spare is not None),
            sharded=any(len(pool.nodes) > 1 for pool in pools.values()),
            tally=self._tally,
            lag=self._lag,
            loop=asyncio.get_running_loop(),
        )
        for place in change.removed:
            self._retire(self._nodes.pop(place))
        if before is not None:
            self._tell_of_zones(before.out ^ out)
        return self.view

    async def _apply_in_steps(self, topology: Topology) -> ClusterSnapshot:
        rings = await _rings(topology)
        try:
            return self.apply(topology)
        finally:
            del rings

    def _spare_nodes(self) -> ZonePool | None:
        if self._spare is not None and self._spare_pool is None:
            nodes = [Node(endpoint, self._settings, lag=self._lag) for endpoint in self._spare.nodes]
            self._spare_pool = ZonePool(self._spare, nodes)
        return self._spare_pool

    def when_back(self, callback: Callable[[], None]) -> None:
        """Have `callback()` called each time that a node is back."""
        self._back.append(callback)

    def on_handshake(self, callback: Callable[[str, Node], None]) -> None:
        """Call `callback(zone, node)` after each handshake with a node of a zone. Call this before `apply` or `start`."""
        self._handshake = callback

    def _node_changed(self, zone: str, node: Node) -> None:
        down = node.failure is not None
        if self._events is not None:
            self._events.node_changed(zone, node.label, down=down, why=node.failure)
        view = self.view
        if view is not None:
            out = frozenset(pool.name for pool in view.readers if pool.is_ejected)
            if out != view.out:
                self._zones_changed(view, out)
        if not down:
            for callback in self._back:
                callback()

    def _zones_changed(self, view: ClusterSnapshot, out: frozenset[str]) -> None:
        # Calls take a view and keep it: the order of the zones changes for those that begin from now on.
        pools = {pool.name: pool for pool in view.readers}
        self._count_out(len(out), len(pools))
        order = read_order(view.local, sorted(pools), self._seed)
        self.view = replace(view, out=out, readers=tuple(pools[name] for name in move_to_end(out, order)))
        self._tell_of_zones(out ^ view.out)

    def _count_out(self, out: int, readable: int) -> None:
        """Note how many of the readable zones are out, and probe at once if calls have nowhere to go from now on."""
        tally, was_urgent = self._tally, self._tally.urgent
        tally.urgent = is_emergency(out, readable)
        tally.all_out = out == readable
        tally.elsewhere = readable - out > 1
        if tally.urgent and not was_urgent:
            for node in self._nodes.values():
                node.hurry()

    def _tell_of_zones(self, changed: Collection[str]) -> None:
        """Those of them that are read are out, or are not any more; of others there is nothing to say."""
        assert self.view is not None
        out = self.view.out
        for pool in sorted(self.view.readers, key=lambda pool: pool.name):
            if pool.name not in changed:
                continue
            if pool.name in out:
                _log.warning("zone %s is out: %s; it is read last", pool.name, pool.nodes_down())
            else:
                _log.info("zone %s is read again", pool.name)
            if self._events is not None:
                self._events.zone_changed(pool.name, out=pool.name in out)

    async def close(self, drain: float) -> None:
        """Let requests that wait be answered for up to `drain` seconds, then end everything.

        A cancelled call ends every connection at once. A further call waits for what has not ended.
        """
        self._opening = object()
        watching = [] if self._watcher is None else [self._watcher]
        cancel_once(watching)
        if self._lag is not None:
            self._lag.close()
        nodes = [*self._nodes.values(), *self._retiring.values()]
        if self._spare_pool is not None:
            nodes += self._spare_pool.nodes
        for node in nodes:
            task = unattended(asyncio.get_running_loop().create_task(node.close(drain), name=f"evcache-close-{node.label}"))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        waiting = [*self._closing, *self._retiring]
        try:
            if waiting:
                await asyncio.wait(waiting)
            await ended(watching, lambda _: f"the discovery {self._followed}")
        finally:  # also when cancelled, maybe before any of these tasks has begun
            for node in nodes:
                node.abort()
            cancel_once([*self._closing, *self._retiring])
        self._nodes = {}

    def reopen(self) -> None:
        """Forget the nodes, after `close` or when the loop is closed: `start` and `apply` make them again."""
        abandon([*self._closing, *self._retiring, *([] if self._watcher is None else [self._watcher])])
        for node in [*self._nodes.values(), *self._retiring.values()]:
            node.abandon()
        if self._spare_pool is not None:
            for node in self._spare_pool.nodes:
                node.abandon()
        self.view = self._watcher = self._spare_pool = self._lag = None
        self._tally = HealthCounters()
        self._nodes, self._retiring, self._closing = {}, {}, set()

    def _retire(self, node: Node) -> None:
        node.retire()
        work = node.close(RETIRE_SECONDS)
        task = unattended(asyncio.get_running_loop().create_task(work, name=f"evcache-retire-{node.label}"))
        self._retiring[task] = node
        task.add_done_callback(lambda task: self._retiring.pop(task, None))

    async def _watch(self, discovery: Discovery) -> None:
        opening = self._opening
        try:
            async for topology in discovery.watch():
                if opening is not self._opening:
                    return
                try:
                    await self._apply_in_steps(topology)
                except InvalidTopology as error:
                    _log.warning("the topology stays as it is: %s", error)
        except Exception:
            # A source that fails must not take the service with it: the zones known last are the best there is.
            _log.exception("discovery ended with an error; the topology stays as it is")


async def _rings(topology: Topology) -> list[object]:
    """Make the rings of a topology, with the event loop held for some milliseconds at a time.

    `apply` finds them made, for as long as somebody holds on to what this returns. Small rings take no turn of the loop.
    """
    made: list[object] = []
    for zone in topology.zones:
        if len(zone.nodes) > 1:
            for ring in ring_in_steps([node.label for node in zone.nodes]):
                made.append(ring)
                if len(zone.nodes) >= YIELDING_NODES:
                    await asyncio.sleep(0)
    return made


def check_local_zone(local_zone: str | None, topology: Topology, *, first: bool = True) -> None:
    """Raise `InvalidTopology` when the local zone is not one of the zones; on a later change, only log it."""
    if local_zone is None or topology.zone(local_zone) is not None:
        return
    names = ", ".join(zone.name for zone in topology.zones)
    if first:
        raise InvalidTopology("local_zone", f"{local_zone!r} is not one of the zones: {names}")
    _log.warning("the local zone %s left the topology: reads are spread over %s", local_zone, names)
