"""The gutter: a small pool that stands in when no zone can serve a key, as in Facebook's memcache (Nishtala et al., 2013).

Without it, an outage of every zone sends all reads to what the cache is in front of. What is written meanwhile goes to the
gutter and is read from there, for some seconds only: nobody invalidates it, and it is never written back to a zone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from evcache.replication.guarded_store import StoreCommand, execute
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.node_requests import send_request
from evcache.replication.reconcile import ZoneHit
from evcache.results import Outcome
from evcache.values.ttl import MAX_RELATIVE_SECONDS, NEVER, exptime_sent_again
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, InvalidArgument, InvalidTopology
from evcache.zones.protocol import requests
from evcache.zones.protocol.replies import read_hit
from evcache.zones.topology.model import Endpoint, Mode, Zone, endpoint_of
from evcache.zones.validation import seconds

GUTTER = "gutter"
"""What `Item.zone` and `WriteResult.zones` call it. No zone may be called so in a client that has one."""


@dataclass(frozen=True, slots=True)
class Gutter:
    """The servers of the gutter, and how long anything stays there."""

    nodes: tuple[str | Endpoint, ...]
    """As a zone's nodes are given. They should share no fate with any zone's."""

    ttl: float = 10.0
    """Seconds that an item stays at the most: as long as it may be out of date when zones come and go."""

    def __init__(self, nodes: Iterable[str | Endpoint], ttl: float = 10.0) -> None:
        """Raises `InvalidArgument` for what can't be used."""
        if isinstance(nodes, str | bytes) or not isinstance(nodes, Iterable):
            raise InvalidArgument("nodes", f"a list of nodes is needed, not {nodes!r}")
        object.__setattr__(self, "nodes", tuple(nodes))
        object.__setattr__(self, "ttl", seconds(ttl, "ttl"))
        self.zone()

    def zone(self) -> Zone:
        """The servers as a zone, which is in no topology. Raises `InvalidTopology`."""
        try:
            return Zone(GUTTER, tuple(endpoint_of(GUTTER, node) for node in self.nodes), Mode.WRITE_ONLY)
        except InvalidTopology as error:
            raise InvalidTopology("nodes", error.problem) from error


class GutterReads:
    """Reads from the gutter."""

    def __init__(self, clock: HybridLogicalClock) -> None:
        self._clock = clock

    async def get(self, view: ClusterSnapshot, key: bytes, deadline: float) -> ZoneHit | None:
        """What the gutter has, None for a miss. Raises a `NodeError` when it can't be asked either."""
        assert view.spare is not None
        node = view.spare.node(view.place_in_spare(key))
        hit = read_hit(await send_request(node, requests.meta_get(key, requests.COPY_FLAGS), deadline))
        return None if hit is None or hit.leased else ZoneHit(hit, GUTTER, self._clock.observe(hit.cas))


class GutterWrites:
    """Writes to the gutter."""

    def __init__(self, clock: HybridLogicalClock, ttl: float) -> None:
        self._clock = clock
        self._ttl = max(1, int(ttl))

    async def store(self, view: ClusterSnapshot, store: StoreCommand, deadline: float, age: float) -> Outcome:
        """Have the gutter take a write that no zone took, `age` seconds after it was sent first.

        Raises nothing: the outcome says what went wrong.
        """
        assert view.spare is not None
        ttl = self._ttl
        if NEVER < store.ttl <= MAX_RELATIVE_SECONDS:
            left = exptime_sent_again(store.ttl, age + max(0.0, deadline - view.loop.time()))
            if left is None:
                return Outcome.NOT_STORED
            ttl = min(ttl, left)
        copy = StoreCommand(self._clock, store.key, store.data, store.flags, ttl=ttl, version=store.version)
        try:
            return await execute(copy, view.spare.node(view.place_in_spare(store.key)), deadline)
        except CacheError:
            return Outcome.UNAVAILABLE
