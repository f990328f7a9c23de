"""The parts of one client that its reads share, and the end of a read: note the version, repair, sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from evcache.hooks import Hooks
from evcache.options import Options
from evcache.reads.failover.budget import TokenBucket
from evcache.replication.gutter import GutterPool
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.reconcile import Answer, ZoneHit, stale_replicas
from evcache.replication.repair.read_repair import ReadRepair
from evcache.replication.repair.sampling import RepairSampler
from evcache.replication.seen_versions import SeenVersions
from evcache.zones.errors import CacheError
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.replies import AnyReply, read_hit
from evcache.zones.snapshot import ClusterSnapshot


class ReadCall(NamedTuple):
    """One read beyond the hit of its first zone. Times are on the event loop's clock."""

    view: ClusterSnapshot
    fields: Fields
    """Fields of an item that the read asks for."""
    options: Options
    began_at: float
    deadline: float


class PlainValues(NamedTuple):
    """Receiver of the values of a bulk read that are their own bytes. They need no further look."""

    given: Sequence[Any]
    """Keys of `values`, in the order of the keys of the read."""
    flags: int
    """Client flags of such a value."""
    values: dict[Any, bytes]


class ManyItems(NamedTuple):
    """Result of a read of many keys."""

    found: dict[bytes, ZoneHit]
    """Items of the keys that enough zones answered for, without those in `PlainValues`. Known absences are items,
    tombstones are not."""
    failures: dict[str, CacheError]
    """Reasons for which zones failed, of keys with too few answers. Other keys may add theirs."""
    answered: int
    """Lowest number of zones that answered for any of the keys. At `ONE`, zones beyond the first may not be counted."""


@dataclass(frozen=True, slots=True)
class ReadContext:
    """The parts of one client that its reads share."""

    clock: HybridLogicalClock
    seen: SeenVersions
    """Versions that an answer must not be older than."""
    repair: ReadRepair
    budget: TokenBucket
    """Budget of requests to remote zones."""
    standby_budget: TokenBucket
    """Budget of requests to standby zones. Each read that comes to them adds its tokens, and counts its exempt request."""
    gutter: GutterPool | None
    hooks: Hooks
    sampler: RepairSampler
    """Choice of the keys that are compared in all zones, from those that one zone served."""

    def interpret(self, zone: str, reply: AnyReply) -> ZoneHit | None:
        """Return the item in a zone's reply, None for a miss and for the stub of a lease. Raises a `NodeError`."""
        hit = read_hit(reply)
        return None if hit is None or hit.leased else ZoneHit(hit, zone, self.clock.observe(hit.cas))

    def count_served(self, view: ClusterSnapshot, keys: Collection[bytes]) -> None:
        """Count keys that one zone served, and start to compare those that the sampler chooses. Returns at once."""
        for key in self.sampler.choose(keys):
            self.repair.start_comparison(view, key)

    def note(self, key: bytes, item: ZoneHit) -> None:
        """Remember the version of an item that the read returns."""
        if item.version is not None:
            self.seen.note(key, item.version)

    def repair_others(
        self, view: ClusterSnapshot, key: bytes, winner: ZoneHit, answers: Mapping[str, Answer], asked_at: float
    ) -> None:
        """Start to copy the winner to the zones that answered with nothing or with an older version. Returns at once.

        A hit of a standby zone is compared in all zones first. The readable zones may hold nothing, and a copy of an older
        version would then be the latest version there.

        Args:
            view: Zones of the read.
            key: Key with its namespace.
            winner: The item that the read returns, from a zone.
            answers: Answers of the zones.
            asked_at: Time at which the client asked for the winner, on the event loop's clock.
        """
        if view.standby and any(pool.name == winner.zone for pool in view.standby):
            self.repair.start_comparison(view, key)
            return
        position = view.ring_position(key)
        nodes = {pool.name: pool.node(position) for pool in view.read_order}
        missed, stale = stale_replicas(winner, answers)
        self.repair.repair(
            view,
            key,
            winner,
            nodes[winner.zone],
            {zone: nodes[zone] for zone in missed if zone in nodes},
            {zone: nodes[zone] for zone in stale if zone in nodes},
            asked_at,
        )
