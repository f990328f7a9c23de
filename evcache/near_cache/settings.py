"""Settings and counters of a near cache."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import number, positive_seconds

# Less holds next to nothing. A caller who passes 64 meant megabytes.
MIN_BYTES = 64 * 1024

# Without a channel the TTL alone bounds staleness. Near caches commonly use 1 to 5 s. That keeps the load of a hot key off
# the zones, and is no surprise after a write by another process.
TTL_SECONDS = 2.0

# With a channel the TTL only bounds staleness after an invalidation that was lost without a gap. More than a minute saves
# nothing: a key that is read once a second is fetched for 1 read in 60.
CHANNEL_TTL_SECONDS = 60.0

# A higher share would leave values less space than their queues are made for.
MAX_NEGATIVE_SHARE = 0.5

# Bytes of an entry beside its key and value, for metadata, Python's objects, a slot of the dict, and a ghost. Measured by
# benchmarks/near_cache_costs.py with 10,000, 44,000 and 100,000 entries in a full cache: 805, 820 and 870, of which the
# store takes 460 to 530. Without ghosts: 670 to 690.
ENTRY_OVERHEAD = 850


@dataclass(frozen=True, slots=True)
class NearCache:
    """Size and lifetime limits of a near cache. Raises `InvalidArgument` for a value out of range."""

    max_bytes: int = 64 * 1024 * 1024
    """Largest sum of keys, encoded values, and `ENTRY_OVERHEAD` for each entry. At least 64 KiB. An entry over a tenth of
    it is not stored."""
    max_entries: int = 100_000
    """Largest number of entries. Each full collection of Python's garbage collector visits all of them: 40 ms for 100,000,
    20 ms for 50,000."""
    ttl: float | timedelta | None = None
    """Longest time that an entry is served, in seconds. It bounds how long a stale value can go unnoticed. If None, 2 s, and
    60 s while an invalidation channel is up."""
    negative_share: float = 0.1
    """Share of both limits that known absences may take, from 0 to 0.5. Lookups of missing keys evict no values beyond that.
    0 disables the storing of absences."""
    grace: float = 5.0
    """Seconds after an invalidation in which older versions of the key are not stored. Must exceed the sum of three times:
    until the slowest zone has the write, until a fetch ends, and until the invalidation arrives."""
    immutable: tuple[type, ...] = ()
    """Types whose instances the program never changes. Their values are stored decoded, and all callers share one object.
    Values of other types are stored as bytes, and decoded for each caller."""
    revalidate_over: int | None = 16_384
    """Size in bytes from which an expired value is revalidated. The client asks only for the version, and keeps the value
    if the version is unchanged. If None, expired values are always fetched."""
    hot_reads: int | None = None
    """Reads of a key per second, by this process and from the zones, from which the key is stored. If None, all keys are."""

    def __post_init__(self) -> None:
        """Check all fields."""
        number(self.max_bytes, "max_bytes", minimum=MIN_BYTES, whole=True)
        number(self.max_entries, "max_entries", minimum=1, whole=True)
        if self.ttl is not None:
            positive_seconds(self.ttl.total_seconds() if isinstance(self.ttl, timedelta) else self.ttl, "ttl")
        number(self.negative_share, "negative_share", minimum=0, maximum=MAX_NEGATIVE_SHARE)
        positive_seconds(self.grace, "grace")
        if not isinstance(self.immutable, tuple) or not all(isinstance(one, type) for one in self.immutable):
            raise InvalidArgument("immutable", f"a tuple of classes is required, not {self.immutable!r}")
        if self.revalidate_over is not None:
            number(self.revalidate_over, "revalidate_over", minimum=0, whole=True)
        if self.hot_reads is not None:
            number(self.hot_reads, "hot_reads", minimum=1, whole=True)

    @property
    def seconds(self) -> float | None:
        """The `ttl` in seconds, or None."""
        return self.ttl.total_seconds() if isinstance(self.ttl, timedelta) else self.ttl


@dataclass(slots=True)
class NearStats:
    """Counters since the near cache was created. An inserted entry is still there, or was removed for one of five causes."""

    hits: int = 0
    """Lookups that found an entry."""
    misses: int = 0
    """Lookups that found no entry, or an expired one."""
    insertions: int = 0
    """Entries that were stored."""
    renewed: int = 0
    """Entries that were revalidated."""
    rejected: int = 0
    """Values that were not stored: too large, without remaining TTL, or older than the present entry."""

    # One counter for each `RemovalCause`.
    expired: int = 0
    """Entries that were removed after their TTL."""
    evicted: int = 0
    """Entries that were removed because the near cache was full."""
    replaced: int = 0
    """Entries that a newer value replaced."""
    invalidated: int = 0
    """Entries that an invalidation or a write removed."""
    cleared: int = 0
    """Entries that were removed with all others, for example after a gap of the channel."""

    @property
    def removals(self) -> int:
        """Entries that were removed, for any cause."""
        return self.expired + self.evicted + self.replaced + self.invalidated + self.cleared
