"""What a client has done, in plain numbers: a listener that counts. Whoever reports them reads them when asked to.

Plain integers: a counter of an SDK costs as much as a read from this process's memory does several times over.
"""

from __future__ import annotations

from collections import Counter

from evcache.errors import DecodeError
from evcache.hooks import HintEnd, Hooks
from evcache.results import Outcome, Source
from evcache.zones.errors import CacheError


class Counters(Hooks):
    """Counts since it began to listen, by what tells them apart."""

    def __init__(self) -> None:
        self.reads: Counter[tuple[Source, bool]] = Counter()
        """Keys that were looked for: where they were found, and whether there was a value."""
        self.fallbacks: Counter[tuple[str, str]] = Counter()
        """Reads that left a zone for the next one: the zone, and why."""
        self.zone_writes: Counter[tuple[str, Outcome, bool]] = Counter()
        """What zones did with writes, and whether that was after the call had returned."""
        self.writes: Counter[tuple[str, bool]] = Counter()
        """Writes by operation, and whether as many zones as were asked for have them."""
        self.repairs: Counter[tuple[str, Outcome]] = Counter()
        self.hints: Counter[str] = Counter()
        self.hints_ended: Counter[tuple[str, HintEnd]] = Counter()
        self.loads: Counter[str] = Counter()
        """Keys that were loaded; by the error's name, those that could not be."""
        self.stale: Counter[str] = Counter()
        """Values that were returned after they had gone out of date, by why."""
        self.hedges: Counter[tuple[str, bool]] = Counter()
        self.denied: Counter[str] = Counter()
        self.gutter: Counter[bool] = Counter()
        self.hidden: Counter[str] = Counter()
        """Errors that were returned as misses."""
        self.decode_errors: Counter[str] = Counter()
        """Values that could not be decoded, by the zone that they came from."""

    def read(self, key: bytes, zone: str, source: Source, *, hit: bool) -> None:
        del key, zone
        self.reads[source, hit] += 1

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        self.fallbacks[zone, reason(error)] += 1

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


def reason(error: CacheError | None) -> str:
    """Why a read left a zone, in a word."""
    return "miss" if error is None else type(error).__qualname__
