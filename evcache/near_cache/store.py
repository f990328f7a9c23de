"""Bounded store of the near cache: the hottest keys in this process's memory, in front of the zones.

It is synchronous, and has no task, timer or lock. Its users decide what may be stored, and what a write removes.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from evcache.near_cache.s3fifo import MAX_FREQUENCY, SHARD_MASK, SHARDS, SMALL_SHARE, Entry, Fifo, Key, S3Fifo
from evcache.near_cache.settings import ENTRY_OVERHEAD, TTL_SECONDS, NearCache, NearStats
from evcache.results import RemovalCause

# An entry larger than the small queue would be evicted next, and would have evicted all other new entries before.
LARGEST_SHARE = SMALL_SHARE

QUEUES = 3  # two of them for values

# Entries that each put visits, to drop the expired ones. More than the one that it adds: during puts, expired entries stay
# fewer than live ones.
SWEPT_PER_PUT = 2

# Seconds for which an expired entry that can be revalidated is not swept. A key without a read for as long as the entry's
# short life is not read often.
RENEWABLE_SECONDS = TTL_SECONDS

# Python 3.11 takes 100 ns to find an attribute of an enum, and a put would need three.
_EVICTED: Final = RemovalCause.EVICTED
_EXPIRED: Final = RemovalCause.EXPIRED
_REPLACED: Final = RemovalCause.REPLACED

_log = logging.getLogger("evcache.near_cache")


class _Absent:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""Value of an entry for a key that is known to have no value."""


class NearStore:
    """Values by key, for a time, within limits on entries and bytes. Not thread-safe.

    Each caller gets the same object that was put in. The caller of `put` ensures that no caller changes it: bytes, or
    objects that are immutable.

    An expired entry is dropped when another takes its place, when it is the next to evict, or by `sweep`: never many at
    once. The memory of a dropped store returns with Python's next garbage collection.
    """

    __slots__ = (
        "_absences",
        "_clock",
        "_discarded",
        "_discarded_bytes",
        "_largest",
        "_max_absence_bytes",
        "_max_absences",
        "_max_ttl",
        "_notifying",
        "_on_remove",
        "_removals",
        "_renewable",
        "_settings",
        "_shards",
        "_sweep_queue",
        "_values",
        "stats",
    )

    def __init__(
        self,
        settings: NearCache,
        clock: Callable[[], float] = time.monotonic,
        on_remove: Callable[[Key, RemovalCause], None] | None = None,
    ) -> None:
        """Create an empty store.

        Args:
            settings: Limits.
            clock: Returns monotonic seconds.
            on_remove: Called once for each removed entry, after the call that removed it has done its work. It may use
                the store. Entries that it removes are reported next, so a callback that puts an entry for each removed one
                never ends. Its exceptions are logged.
        """
        self.stats = NearStats()
        self._max_ttl: float = TTL_SECONDS if settings.seconds is None else settings.seconds
        self._settings = settings
        self._clock = clock
        self._on_remove = on_remove
        self._removals: deque[tuple[Key, RemovalCause]] = deque()  # not reported to `on_remove` yet
        self._notifying = False
        self._shards = _empty_shards()
        self._values = S3Fifo(settings.max_entries, settings.max_bytes)
        self._absences = Fifo()
        # Entries that were cleared, by shard. Freeing 100,000 takes 40 ms, so each later call frees a few.
        self._discarded: list[dict[Key, Entry]] = []
        self._discarded_bytes = 0
        self._sweep_queue = 0  # index of the queue that is being swept
        over = settings.revalidate_over
        self._renewable = math.inf if over is None else over
        self._largest = int(settings.max_bytes * LARGEST_SHARE)
        self._max_absences = int(settings.max_entries * settings.negative_share)
        self._max_absence_bytes = int(settings.max_bytes * settings.negative_share)

    def __len__(self) -> int:
        """Number of entries, expired ones that were not dropped yet included."""
        return self._values.count + self._absences.count

    @property
    def bytes(self) -> int:
        """Sum of the sizes of the entries."""
        return self._values.bytes + self._absences.bytes

    @property
    def max_ttl(self) -> float:
        """Longest lifetime that `put` and `renew` give, in seconds."""
        return self._max_ttl

    @property
    def is_empty(self) -> bool:
        """True if no entry is left, and no cleared entry to free."""
        return not self._discarded and not len(self)

    def limit_ttl(self, seconds: float) -> None:
        """Set the longest lifetime that `put` and `renew` give. Present entries keep theirs."""
        self._max_ttl = seconds

    def get(self, key: Key) -> Entry | None:
        """Return the entry under `key`, or None if there is none or it expired. The value `ABSENT` means a known absence.

        An expired entry keeps its position and its hits for the value that is fetched now.
        """
        entry = self._shards[hash(key) & SHARD_MASK].get(key)
        if entry is not None:
            clock = self._clock  # the interpreter takes 30 ns more to call a slot like a method
            if entry.expires_at > clock():
                if entry.frequency < MAX_FREQUENCY:
                    entry.frequency += 1  # a method of the entry would add a call to each hit
                self.stats.hits += 1
                return entry
        self.stats.misses += 1
        return None

    def peek(self, key: Key) -> Entry | None:
        """Return the entry under `key`, expired or not. Counts neither a hit nor a miss."""
        return self._shards[hash(key) & SHARD_MASK].get(key)

    def put(self, key: Key, value: Any, size: int, ttl: float, version: int | None = None) -> bool:
        """Store a value.

        If the present entry or the value has no version, the value replaces the entry.

        Args:
            key: Full key.
            value: Object that `get` returns in an entry.
            size: Bytes of the encoded value.
            ttl: Lifetime in seconds. `max_ttl` limits it.
            version: Version of the value, or None if it has none.

        Returns:
            True if the value is stored. False if the present entry has a newer version, which stays. False also if the value
            is too large, if `ttl` is not positive, or if the value was evicted at once. The key then has no entry.
        """
        charged = len(key) + size + ENTRY_OVERHEAD
        stored = self._put(key, value, charged, ttl, version, absent=False, fits=charged <= self._largest)
        if self._removals:
            self._notify_removals()
        return stored

    def put_absence(self, key: Key, ttl: float, version: int | None = None, value: Any = ABSENT) -> bool:
        """Store that `key` has no value. `value` may hold more facts about it.

        Works like `put`. Only later absences evict an absence.
        """
        charged = len(key) + ENTRY_OVERHEAD
        fits = self._max_absences > 0 and charged <= min(self._max_absence_bytes, self._largest)
        stored = self._put(key, value, charged, ttl, version, absent=True, fits=fits)
        if self._removals:
            self._notify_removals()
        return stored

    def renew(self, key: Key, ttl: float) -> bool:
        """Let the entry under `key`, expired or not, live for `ttl` seconds from now. `max_ttl` limits it.

        Returns:
            False if there is no entry. False also if `ttl` is not positive: the entry has expired then.
        """
        entry = self.peek(key)
        if entry is None:
            return False
        now = self._clock()
        if not ttl > 0:
            entry.expire_at(min(entry.expires_at, now))
            return False
        entry.expire_at(now + min(ttl, self._max_ttl))
        self.stats.renewed += 1
        return True

    def remove(self, key: Key) -> bool:
        """Remove the entry under `key`, because it is or may be stale. Return True if there was one that had not expired."""
        entry = self.peek(key)
        if entry is None:
            return False
        now = self._clock()
        self._drop(entry)
        self._count(entry, RemovalCause.INVALIDATED, now)
        if self._removals:
            self._notify_removals()
        return entry.expires_at > now

    def clear(self) -> None:
        """Remove all entries. Later calls of `put` and `sweep` free their memory in steps."""
        if len(self):
            self.stats.cleared += len(self)
            self._discarded_bytes += self.bytes
            self._discarded.extend(filter(None, self._shards))
            self._shards = _empty_shards()
            self._values.reset()
            self._absences = Fifo()

    def sweep(self, limit: int) -> int:
        """Visit the next `limit` entries, in rounds over all, and drop the expired ones. Return the number dropped.

        Dropping 200 takes 0.5 to 0.8 ms. Each put sweeps a few entries; `Sweeper` sweeps for an idle process.
        """
        # At most one round, and the cleared entries: a caller may pass 10**9.
        limit = min(limit, len(self) + QUEUES + sum(map(len, self._discarded)))
        dropped = self._sweep(limit, self._clock())
        if self._removals:
            self._notify_removals()
        return dropped

    def _put(self, key: Key, value: Any, charged: int, ttl: float, version: int | None, *, absent: bool, fits: bool) -> bool:
        now = self._clock()
        self._sweep(SWEPT_PER_PUT, now)
        shard = self._shards[hash(key) & SHARD_MASK]
        present = shard.get(key)
        is_older = present is not None and present.version is not None and version is not None and version < present.version
        if is_older or not fits or not ttl > 0:
            if present is not None and not is_older:
                self._drop(present)
                self._count(present, _REPLACED, now)
            self.stats.rejected += 1
            return False
        entry = Entry(key, value, version, now + min(ttl, self._max_ttl), charged)
        if present is not None and not absent and present.queue is not self._absences:
            present.queue.replace(present, entry)
            self._count(present, _REPLACED, now)
        else:
            if present is not None:
                self._drop(present)
                self._count(present, _REPLACED, now)
            (self._absences if absent else self._values).append(entry)
        shard[key] = entry
        self.stats.insertions += 1
        self._make_room(now)
        return key in shard

    def _make_room(self, now: float) -> None:
        settings, absences, values = self._settings, self._absences, self._values
        while absences.count > self._max_absences or absences.bytes > self._max_absence_bytes:
            evicted = absences.oldest
            self._drop(evicted)
            self._count(evicted, _EVICTED, now)
        # The sums of `bytes` and `len`, without six calls.
        small, main = values.small, values.main
        total = small.bytes + main.bytes + absences.bytes
        if (
            total + self._discarded_bytes <= settings.max_bytes
            and small.count + main.count + absences.count <= settings.max_entries
        ):
            values.rebalance()
            return
        while self._discarded and total + self._discarded_bytes > settings.max_bytes:
            self._free_cleared()
        for evicted in values.shrink(settings.max_entries - absences.count, settings.max_bytes - absences.bytes, now):
            del self._shards[hash(evicted.key) & SHARD_MASK][evicted.key]
            self._count(evicted, _EVICTED, now)

    def _sweep(self, limit: int, now: float) -> int:
        while limit > 0 and self._discarded:
            limit -= 1
            self._free_cleared()
        dropped = 0
        queues = (self._values.small, self._values.main, self._absences)
        queue = queues[self._sweep_queue]
        for _ in range(limit):
            entry = queue.advance()
            if entry is None:
                self._sweep_queue = (self._sweep_queue + 1) % QUEUES
                queue = queues[self._sweep_queue]
            elif entry.expires_at <= now and not self._is_renewable(entry, now):
                self._drop(entry)
                self._count(entry, _EXPIRED, now)
                dropped += 1
        return dropped

    def _is_renewable(self, entry: Entry, now: float) -> bool:
        """Return True if an expired entry is large enough to wait for revalidation, which would save its transfer."""
        return entry.size >= self._renewable and now < entry.expires_at + RENEWABLE_SECONDS

    def _free_cleared(self) -> None:
        """Free one cleared entry. `clear` has counted it."""
        entries = self._discarded[-1]
        key, entry = entries.popitem()
        if not entries:
            self._discarded.pop()
        entry.queue.remove(entry)
        self._discarded_bytes -= entry.size
        if self._on_remove is not None:
            self._removals.append((key, RemovalCause.CLEARED))

    def _drop(self, entry: Entry) -> None:
        del self._shards[hash(entry.key) & SHARD_MASK][entry.key]
        if entry.queue is self._absences:
            self._absences.remove(entry)
        else:
            self._values.remove(entry)

    def _count(self, entry: Entry, cause: RemovalCause, now: float) -> None:
        """Count a removed entry. An expired one counts as such, whatever removed it."""
        stats = self.stats
        if entry.expires_at <= now:
            cause = _EXPIRED
            stats.expired += 1
        elif cause is _EVICTED:
            stats.evicted += 1
        elif cause is _REPLACED:
            stats.replaced += 1
        else:
            stats.invalidated += 1
        if self._on_remove is not None:
            self._removals.append((entry.key, cause))

    def _notify_removals(self) -> None:
        """Call `on_remove` for each removed entry. A callback that uses the store leaves its removals to the first call."""
        if self._notifying or self._on_remove is None:
            return
        self._notifying = True
        try:
            while self._removals:
                key, cause = self._removals.popleft()
                try:
                    self._on_remove(key, cause)
                except Exception:
                    # It would reach a caller that put some other value.
                    _log.exception("on_remove failed: key %r, cause %s", key, cause)
        finally:
            self._notifying = False


def _empty_shards() -> list[dict[Key, Entry]]:
    return [{} for _ in range(SHARDS)]
