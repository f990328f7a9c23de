"""Rates of one server between two moments, from its counters. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from evcache.zones.admin.statistics import ServerStatistics

# Counters of `ServerStatistics` by the name of their rate.
_COUNTERS = {
    "gets": "cmd_get",
    "hits": "get_hits",
    "misses": "get_misses",
    "sets": "cmd_set",
    "evictions": "evictions",
    "bytes_in": "bytes_read",
    "bytes_out": "bytes_written",
}


@dataclass(frozen=True, slots=True)
class Rates:
    """Events per second. A rate is None if the server does not report its counter, or has restarted."""

    gets: float | None = None
    hits: float | None = None
    misses: float | None = None
    sets: float | None = None
    evictions: float | None = None
    bytes_in: float | None = None
    """Bytes per second that the server received."""
    bytes_out: float | None = None
    """Bytes per second that the server sent."""

    @property
    def hit_ratio(self) -> float | None:
        """Share of reads that found an item. None without reads."""
        if self.hits is None or self.misses is None or not self.hits + self.misses:
            return None
        return self.hits / (self.hits + self.misses)


NO_RATES = Rates()


def rates_between(before: ServerStatistics | None, after: ServerStatistics, seconds: float) -> Rates:
    """Return the rates between two replies of a server.

    Args:
        before: The earlier reply. If None, there are no rates.
        after: The later reply.
        seconds: Seconds between the replies.
    """
    if before is None or seconds <= 0 or has_restarted(before, after):
        return NO_RATES
    return Rates(
        **{name: _rate(getattr(before, field), getattr(after, field), seconds) for name, field in _COUNTERS.items()}
    )


def has_restarted(before: ServerStatistics, after: ServerStatistics) -> bool:
    """Return True if the counters began again: the server restarted, or `stats reset` was sent.

    The process id alone is no proof, because the server of a container always has the same one.
    """
    if before.pid != after.pid:
        return True
    return any(_fell(getattr(before, name), getattr(after, name)) for name in ("uptime", *_COUNTERS.values()))


def _fell(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after < before


def _rate(before: int | None, after: int | None, seconds: float) -> float | None:
    return None if before is None or after is None else (after - before) / seconds


def total_rates(rates: Iterable[Rates]) -> Rates:
    """Return the sums over several servers. A rate that no server has is None."""
    known = list(rates)
    return Rates(**{field.name: total([getattr(each, field.name) for each in known]) for field in fields(Rates)})


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum of the numbers, or None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
