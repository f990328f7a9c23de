"""What the ways to read have in common: what a reply is worth, and who is to hear of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evcache.hooks import Hooks
from evcache.reads.failover_budget import Budget
from evcache.replication.gutter import GutterReads
from evcache.replication.hlc import VersionClock
from evcache.replication.read_repair import Repair
from evcache.replication.reconcile import Found
from evcache.replication.repair_sampling import Sampler
from evcache.replication.seen_versions import Remembered
from evcache.zones.cluster import View
from evcache.zones.protocol.replies import AnyReply, read_hit


@dataclass(frozen=True, slots=True)
class ReadParts:
    """The parts of one client that its reads use."""

    clock: VersionClock
    remembered: Remembered
    """The versions that an answer must not be older than."""
    repair: Repair
    budget: Budget
    """What may be asked of other zones."""
    gutter: GutterReads | None
    hooks: Hooks
    sampler: Sampler
    """Chooses, of the keys that one zone has served, those that are compared in all zones."""

    def served(self, view: View, key: bytes) -> None:
        """Count a key that one zone has served; compare all zones if the key is chosen. Returns at once."""
        sampler = self.sampler
        sampler.left -= 1
        if sampler.left <= 0:
            sampler.restart()
            self.repair.check(view, key)

    def served_many(self, view: View, keys: Collection[bytes]) -> None:
        """Count several keys in the same way."""
        for key in self.sampler.choose(keys):
            self.repair.check(view, key)

    def found(self, zone: str, reply: AnyReply) -> Found | None:
        """The item in a zone's reply; None for a miss, and for the stub of a lease."""
        hit = read_hit(reply)
        return None if hit is None or hit.leased else Found(hit, zone, self.clock.version_of(hit.cas))
