"""What the ways to read have in common: what a reply is worth, and who is to hear of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evcache.answers import Found
from evcache.budget import Budget
from evcache.gutter import GutterReads
from evcache.hooks import Hooks
from evcache.remembered import Remembered
from evcache.repair import Repair
from evcache.sampler import Sampler
from evcache.versions import VersionClock
from zones.cluster import View
from zones.protocol.replies import AnyReply, read_hit


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
