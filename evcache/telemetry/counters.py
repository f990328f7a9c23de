"""Counters of the events in a client, which exporters read on demand.

The counters are plain integers. An increment of an SDK's counter costs several times a hit in the near cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from evcache.errors import DecodeError
from evcache.hooks import HintEnd, Hooks
from evcache.results import Outcome, Source
from evcache.zones.errors import CacheError


class Counters(Hooks):
    """Hooks that count events by their attributes."""

    def __init__(self) -> None:
        self.reads: Counter[tuple[Source, bool, str]] = Counter()
        """Read keys, by origin, by True for a hit, and by the zone of the value. The zone of a miss is empty."""
        self.fallbacks: Counter[tuple[str, str]] = Counter()
        """Reads that left a zone for the next one, by zone and reason."""
        self.zone_writes: Counter[tuple[str, Outcome, bool]] = Counter()
        """Outcomes of writes in zones, with True for an outcome after the return of the call."""
        self.writes: Counter[tuple[str, bool]] = Counter()
        """Writes by operation, with True if the required number of zones have the write."""
        self.repairs: Counter[tuple[str, Outcome]] = Counter()
        self.hints: Counter[str] = Counter()
        self.hints_ended: Counter[tuple[str, HintEnd]] = Counter()
        self.loads: Counter[str] = Counter()
        """Keys that loaders were called for, by the class of the error. Empty for success."""
        self.stale: Counter[str] = Counter()
        """Stale values that were returned, by reason."""
        self.hedges: Counter[tuple[str, bool]] = Counter()
        self.denied: Counter[str] = Counter()
        self.gutter: Counter[bool] = Counter()
        self.hidden: Counter[str] = Counter()
        """Errors that were returned as misses, by class."""
        self.decode_errors: Counter[str] = Counter()
        """Values that could not be decoded, by zone."""

    def read(self, key: bytes, zone: str, source: Source, *, hit: bool) -> None:
        del key
        self.reads[source, hit, zone] += 1

    def _read_many(self, keys: Sequence[bytes], zone: str, source: Source, *, hit: bool) -> None:
        self.reads[source, hit, zone] += len(keys)

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        self.fallbacks[zone, fallback_reason(error)] += 1

    def zone_wrote(self, zone: str, outcome: Outcome, *, late: bool) -> None:
        self.zone_writes[zone, outcome, late] += 1

    def repaired(self, zone: str, outcome: Outcome) -> None:
        self.repairs[zone, outcome] += 1

    def hinted(self, zone: str) -> None:
        self.hints[zone] += 1

    def hint_ended(self, zone: str, end: HintEnd) -> None:
        self.hints_ended[zone, end] += 1

    def loaded(self, keys: int, seconds: float, error: Exception | None) -> None:
        del seconds
        self.loads["" if error is None else type(error).__qualname__] += keys

    def stale_served(self, error: BaseException | None) -> None:
        self.stale["refresh" if error is None else "error"] += 1

    def hedged(self, zone: str, *, won: bool) -> None:
        self.hedges[zone, won] += 1

    def failover_denied(self, zone: str) -> None:
        self.denied[zone] += 1

    def gutter_used(self, *, hit: bool) -> None:
        self.gutter[hit] += 1

    def error_as_miss(self, error: CacheError) -> None:
        self.hidden[type(error).__qualname__] += 1

    def decode_failed(self, zone: str, error: DecodeError) -> None:
        del error
        self.decode_errors[zone] += 1


def fallback_reason(error: CacheError | None) -> str:
    """Return the reason for which a read left a zone: `miss`, or the class of the error."""
    return "miss" if error is None else type(error).__qualname__
