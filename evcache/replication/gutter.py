"""The gutter: a small pool that stands in when no zone can serve a key (Nishtala et al. 2013).

Without it, an outage of all zones sends every read to the source. During such an outage the client writes to the gutter and
reads from it. An item stays for seconds only, because no client invalidates it. It is never copied to a zone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from evcache.replication.commands.command import execute
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.commands.node_requests import get
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.reconcile import ZoneHit
from evcache.results import Outcome
from evcache.values.ttl import MAX_RELATIVE_SECONDS, NEVER, exptime_sent_again
from evcache.zones.errors import CacheError, InvalidArgument, InvalidTopology
from evcache.zones.protocol.fields import COPY_FIELDS
from evcache.zones.protocol.replies import read_hit
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.topology.model import Endpoint, Mode, Zone, endpoint_of
from evcache.zones.validation import positive_seconds

GUTTER = "gutter"
"""Name of the gutter in `Item.zone` and `WriteResult.zones`. A client with a gutter refuses a zone of this name."""


@dataclass(frozen=True, slots=True)
class Gutter:
    """Servers of the gutter, and the lifetime of its items."""

    nodes: tuple[str | Endpoint, ...]
    """Nodes, in the form of a zone's nodes. They should not fail together with any zone."""

    ttl: float = 10.0
    """Longest lifetime of an item in seconds. An item may be stale for that time when zones fail and recover."""

    def __init__(self, nodes: Iterable[str | Endpoint], ttl: float = 10.0) -> None:
        """Set the servers and the lifetime.

        Args:
            nodes: Nodes, in the form of a zone's nodes.
            ttl: Longest lifetime of an item in seconds.

        Raises:
            InvalidArgument: `nodes` is no list of nodes, or `ttl` is no positive number of seconds.
            InvalidTopology: A node has no valid form, or two nodes are the same.
        """
        if isinstance(nodes, str | bytes) or not isinstance(nodes, Iterable):
            raise InvalidArgument("nodes", f"a list of nodes is required, not {nodes!r}")
        object.__setattr__(self, "nodes", tuple(nodes))
        object.__setattr__(self, "ttl", positive_seconds(ttl, "ttl"))
        self.zone()

    def zone(self) -> Zone:
        """Return the servers as a zone, which is part of no topology. Raises `InvalidTopology`."""
        try:
            return Zone(GUTTER, tuple(endpoint_of(GUTTER, node) for node in self.nodes), Mode.WRITE_ONLY)
        except InvalidTopology as error:
            raise InvalidTopology("nodes", error.problem) from error


class GutterPool:
    """Reads and writes of the gutter's servers."""

    def __init__(self, hlc: HybridLogicalClock, ttl: float) -> None:
        """Make the pool of one client. `ttl` is the lifetime of its items in seconds."""
        self._hlc = hlc
        self._ttl = max(1, int(ttl))

    async def get(self, view: ClusterSnapshot, key: bytes, deadline: float) -> ZoneHit | None:
        """Return the item that the gutter holds, None for a miss.

        Args:
            view: Zones and gutter.
            key: Key with its namespace.
            deadline: End of the request on the event loop's clock.

        Raises:
            NodeError: The gutter did not answer.
        """
        assert view.gutter is not None
        node = view.gutter.node(view.gutter_position(key))
        hit = read_hit(await get(node, key, COPY_FIELDS, deadline))
        return None if hit is None or hit.leased else ZoneHit(hit, GUTTER, self._hlc.observe(hit.cas))

    async def store(self, view: ClusterSnapshot, store: StoreCommand, deadline: float, age: float) -> Outcome:
        """Store a write that no zone acknowledged.

        Args:
            view: Zones and gutter.
            store: The write.
            deadline: End of the request on the event loop's clock.
            age: Seconds since the write was first sent. Its TTL began then.

        Returns:
            The outcome. A failed request is `Outcome.UNAVAILABLE`, and an item that expires first is `NOT_STORED`.
        """
        assert view.gutter is not None
        ttl = self._ttl
        if NEVER < store.ttl <= MAX_RELATIVE_SECONDS:
            left = exptime_sent_again(store.ttl, age + max(0.0, deadline - view.loop.time()))
            if left is None:
                return Outcome.NOT_STORED
            ttl = min(ttl, left)
        copy = StoreCommand(self._hlc, store.key, store.data, store.flags, ttl=ttl, version=store.version)
        try:
            return await execute(copy, view.gutter.node(view.gutter_position(store.key)), deadline)
        except CacheError:
            return Outcome.UNAVAILABLE
