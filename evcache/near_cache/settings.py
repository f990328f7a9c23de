"""What may be said about a near cache, and what it says about itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from evcache.zones.errors import InvalidArgument

MIN_BYTES = 64 * 1024  # less holds next to nothing; a caller who says 64 meant megabytes

# With a time to live as the only bound on staleness, 1 to 5 s is what near caches are commonly run with: long enough to
# take the load of a hot key off the zones, short enough to be no surprise after a write by another process.
TTL_SECONDS = 2.0

# While writes are heard of, it only bounds what gets lost without anybody noticing; over a minute it saves nothing more: a
# key that is read once a second is fetched for 1 read in 60.
CHANNEL_TTL_SECONDS = 60.0

# A share over this would leave less for values than their queues are made for.
MAX_NEGATIVE_SHARE = 0.5

# Bytes that an entry needs beside those of its key and value: what a client knows of an item, the objects that hold them, a
# place in the dict, and a ghost. Measured by benchmarks/near_cache_costs.py, with 10,000, 44,000 and 100,000 entries: 805,
# 820 and 870 in a cache that is full, of which 460 to 530 are the store's; 670 to 690 while it has no ghosts.
ENTRY_OVERHEAD = 850


@dataclass(frozen=True, slots=True)
class NearCache:
    """What a near cache may hold, and for how long. Raises `InvalidArgument` for what can't be meant."""

    max_bytes: int = 64 * 1024 * 1024
    """Keys, encoded values, and `ENTRY_OVERHEAD` for each. At least 64 KiB; an entry over a tenth of it is not kept."""
    max_entries: int = 100_000
    """Each full collection of Python's garbage looks at all of them, 40 ms with 100,000, and half of that with 50,000."""
    ttl: float | timedelta | None = None
    """Seconds. The longest that an entry is served, and so the longest that a value can be out of date unnoticed. None: 2 s,
    and 60 s while an invalidation channel is up."""
    negative_share: float = 0.1
    """Of both bounds, what known absences may take: asking for keys that do not exist pushes out no values beyond that. 0 to
    0.5; 0: absences are not kept."""
    grace: float = 5.0
    """Seconds for which nothing older than an invalidation is kept after it. Has to be more than it takes, together, until
    the slowest zone has what was written, a fetch ends, and an announcement arrives."""
    immutable: tuple[type, ...] = ()
    """Types whose values nobody changes: they are kept decoded, one object for all callers. Others are kept as bytes, and
    decoded for each."""
    revalidate_over: int | None = 16_384
    """Bytes. When the time of a value that large is over, only its version is asked for, and it is kept on without being
    moved if that is the same. None: never."""
    hot_reads: int | None = None
    """Reads in a second, by this process and of the zones, from which on a key is kept. None: every key is."""

    def __post_init__(self) -> None:
        _whole(self.max_bytes, "max_bytes", MIN_BYTES)
        _whole(self.max_entries, "max_entries", 1)
        if self.ttl is not None:
            _seconds(self.ttl.total_seconds() if isinstance(self.ttl, timedelta) else self.ttl, "ttl")
        _number(self.negative_share, "negative_share")
        if not 0 <= self.negative_share <= MAX_NEGATIVE_SHARE:
            raise InvalidArgument("negative_share", f"0 to {MAX_NEGATIVE_SHARE} are possible, not {self.negative_share!r}")
        _seconds(self.grace, "grace")
        if not isinstance(self.immutable, tuple) or not all(isinstance(one, type) for one in self.immutable):
            raise InvalidArgument("immutable", f"a tuple of classes is needed, not {self.immutable!r}")
        if self.revalidate_over is not None:
            _whole(self.revalidate_over, "revalidate_over", 0)
        if self.hot_reads is not None:
            _whole(self.hot_reads, "hot_reads", 1)

    @property
    def seconds(self) -> float | None:
        """The `ttl` as a number."""
        return self.ttl.total_seconds() if isinstance(self.ttl, timedelta) else self.ttl


def _whole(value: object, argument: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(argument, f"a whole number is needed, not {value!r}")
    if value < least:
        raise InvalidArgument(argument, f"at least {least} is needed, not {value!r}")


def _number(value: object, argument: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(argument, f"a number is needed, not {value!r}")
    return value


def _seconds(value: object, argument: str) -> None:
    if not 0 < _number(value, argument) < math.inf:  # NaN compares false
        raise InvalidArgument(argument, f"seconds over 0 are needed, and an end to them, not {value!r}")


@dataclass(slots=True)
class NearStats:
    """Counts since the store was made. What was inserted is there still, or was removed for one of five reasons."""

    hits: int = 0
    misses: int = 0
    """Expired entries among them."""
    insertions: int = 0
    renewed: int = 0
    rejected: int = 0
    """Puts turned away: too large, nothing left of the time to live, older than what is held."""

    # As `RemovalCause` has them.
    expired: int = 0
    evicted: int = 0
    replaced: int = 0
    invalidated: int = 0
    cleared: int = 0

    @property
    def removals(self) -> int:
        """Entries that are no longer there, for whatever reason."""
        return self.expired + self.evicted + self.replaced + self.invalidated + self.cleared
