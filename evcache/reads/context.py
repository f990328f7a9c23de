"""What the ways to read have in common: what a reply is worth, and who is to hear of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evcache.hooks import Hooks
from evcache.reads.failover_budget import TokenBucket
from evcache.replication.gutter import GutterPool
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.read_repair import ReadRepair
from evcache.replication.reconcile import ZoneHit
from evcache.replication.repair_sampling import RepairSampler
from evcache.replication.seen_versions import SeenVersions
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.protocol.replies import AnyReply, read_hit


@dataclass(frozen=True, slots=True)
class ReadContext:
    """The parts of one client that its reads use."""

    clock: HybridLogicalClock
    remembered: SeenVersions
    """The versions that an answer must not be older than."""
    repair: ReadRepair
    budget: TokenBucket
    """What may be asked of other zones."""
    gutter: GutterPool | None
    hooks: Hooks
    sampler: RepairSampler
    """Chooses, of the keys that one zone has served, those that are compared in all zones."""

    def served(self, view: ClusterSnapshot, key: bytes) -> None:
        """Count a key that one zone has served; compare all zones if the key is chosen. Returns at once."""
        self.served_many(view, (key,))

    def served_many(self, view: ClusterSnapshot, keys: Collection[bytes]) -> None:
        """Count several keys in the same way."""
        for key in self.sampler.choose(keys):
            self.repair.check(view, key)

    def found(self, zone: str, reply: AnyReply) -> ZoneHit | None:
        """The item in a zone's reply; None for a miss, and for the stub of a lease."""
        hit = read_hit(reply)
        return None if hit is None or hit.leased else ZoneHit(hit, zone, self.clock.observe(hit.cas))
