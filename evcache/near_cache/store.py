"""The near cache: the hottest keys in this process's memory, in front of the zones.

Only the store: bounded, synchronous, without tasks, timers or locks. What may be put into it, and when it has to be removed
because somebody wrote, is decided by those who use it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from evcache.near_cache.s3fifo import MAX_FREQUENCY, SMALL_SHARE, Entry, Fifo, Key, S3Fifo
from evcache.near_cache.settings import (
    CHANNEL_TTL_SECONDS,
    ENTRY_OVERHEAD,
    MIN_BYTES,
    TTL_SECONDS,
    NearCache,
    NearStats,
)
from evcache.near_cache.shards import LAST_SHARD, SHARDS
from evcache.results import RemovalCause

__all__ = [
    "ABSENT",
    "CHANNEL_TTL_SECONDS",
    "ENTRY_OVERHEAD",
    "MIN_BYTES",
    "SWEPT_PER_PUT",
    "TTL_SECONDS",
    "NearCache",
    "NearStats",
    "NearStore",
]

# An entry larger than the small queue would be the next to go, and would have taken all other newcomers with it.
LARGEST_SHARE = SMALL_SHARE

QUEUES = 3  # of values there are two

# Entries that each put looks at, to drop those that expired. More than the one that it brings: as long as there are puts,
# expired entries stay fewer than live ones.
SWEPT_PER_PUT = 2

# Seconds for which a large entry that has expired is not swept. A key that nobody asks for within as long as its short
# life was is not asked for often.
RENEWABLE_SECONDS = TTL_SECONDS

# An attribute of an enum takes Python 3.11 100 ns to find, and a put would need three.
_EVICTED: Final = RemovalCause.EVICTED
_EXPIRED: Final = RemovalCause.EXPIRED
_REPLACED: Final = RemovalCause.REPLACED

_log = logging.getLogger("evcache.near_cache")


class _Absent:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""The value of an entry that says: there is nothing under this key."""


class NearStore:
    """Values by key, for a time, within bounds.

    Values are handed out as they were put in, the same object to every caller: whoever puts one in answers for nobody
    changing it (bytes, or objects that can't be changed). Not for several threads.

    An expired entry is dropped when something else takes its place, when it is the next to be given up, or by `sweep`: never
    many at once. The memory of a store that is let go of comes back with Python's next garbage collection.
    """

    __slots__ = (
        "_absences",
        "_clock",
        "_discarded",
        "_discarded_bytes",
        "_gone",
        "_largest",
        "_max_absence_bytes",
        "_max_absences",
        "_on_remove",
        "_renewable",
        "_settings",
        "_shards",
        "_telling",
        "_turn",
        "_values",
        "longest_ttl",
        "stats",
    )

    def __init__(
        self,
        settings: NearCache,
        clock: Callable[[], float] = time.monotonic,
        on_remove: Callable[[Key, RemovalCause], None] | None = None,
    ) -> None:
        """`clock`: seconds that never go back.

        `on_remove` is called once for each entry that goes, when the call that removed it has done its work: it may use the
        store. What it removes itself is told next, so one that puts something for each entry that goes never ends. What it
        raises is logged.
        """
        self.stats = NearStats()
        self.longest_ttl: float = TTL_SECONDS if settings.seconds is None else settings.seconds
        """Seconds. What is put or renewed lives no longer than this; what is held already stays as it is."""
        self._settings = settings
        self._clock = clock
        self._on_remove = on_remove
        self._gone: deque[tuple[Key, RemovalCause]] = deque()  # of which `on_remove` is still to be told
        self._telling = False
        self._shards = _no_entries()
        self._values = S3Fifo(settings.max_entries, settings.max_bytes)
        self._absences = Fifo()
        # Entries that were cleared, each shard as it was. Freeing 100,000 takes 40 ms, so it is done a few at a time.
        self._discarded: list[dict[Key, Entry]] = []
        self._discarded_bytes = 0
        self._turn = 0  # of the queues, the one that is being swept
        over = settings.revalidate_over
        self._renewable = math.inf if over is None else over
        self._largest = int(settings.max_bytes * LARGEST_SHARE)
        self._max_absences = int(settings.max_entries * settings.negative_share)
        self._max_absence_bytes = int(settings.max_bytes * settings.negative_share)

    def __len__(self) -> int:
        """Entries held, with those that expired and were not dropped yet."""
        return self._values.count + self._absences.count

    @property
    def bytes(self) -> int:
        """What the entries held count for."""
        return self._values.bytes + self._absences.bytes

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held, and nothing that was cleared is left to be given back."""
        return not self._discarded and not len(self)

    def get(self, key: Key) -> Entry | None:
        """The entry under `key`; None when there is none or it expired. The value `ABSENT` means: known not to exist.

        An expired entry stays where it is: the value that is fetched now takes its place in the queue, and its hits.
        """
        entry = self._shards[hash(key) & LAST_SHARD].get(key)
        if entry is not None:
            clock = self._clock  # calling what a slot holds as if it were a method takes the interpreter 30 ns more
            if entry.expires_at > clock():
                if entry.frequency < MAX_FREQUENCY:
                    entry.frequency += 1
                self.stats.hits += 1
                return entry
        self.stats.misses += 1
        return None

    def held(self, key: Key) -> Entry | None:
        """What is under `key`, expired or not. Counts nothing, neither in the statistics nor in the entry's favour."""
        return self._shards[hash(key) & LAST_SHARD].get(key)

    def put(self, key: Key, value: Any, size: int, ttl: float, version: int | None = None) -> bool:
        """Keep a value of `size` bytes, encoded, for `ttl` seconds, `longest_ttl` at most. True when it is kept.

        False when the entry held has a newer version: it stays. False, with nothing under the key afterwards, when the value
        is too large, when `ttl` is not over 0, or when it gave way at once to values that are more in demand. Where one of
        the two has no version, the later put wins.
        """
        charged = len(key) + size + ENTRY_OVERHEAD
        kept = self._put(key, value, charged, ttl, version, absent=False, fits=charged <= self._largest)
        if self._gone:
            self._tell()
        return kept

    def put_absence(self, key: Key, ttl: float, version: int | None = None, value: Any = ABSENT) -> bool:
        """Keep the knowledge that there is nothing under `key`; `value`: what else is known of it.

        As `put`, but absences give way only to later absences.
        """
        charged = len(key) + ENTRY_OVERHEAD
        fits = self._max_absences > 0 and charged <= min(self._max_absence_bytes, self._largest)
        kept = self._put(key, value, charged, ttl, version, absent=True, fits=fits)
        if self._gone:
            self._tell()
        return kept

    def renew(self, key: Key, ttl: float) -> bool:
        """Give what is under `key`, expired or not, another `ttl` seconds from now on, `longest_ttl` at most.

        False when nothing is under it any more; and when `ttl` is not over 0: then the entry has expired.
        """
        entry = self.held(key)
        if entry is None:
            return False
        now = self._clock()
        if not ttl > 0:
            entry.expires_at = min(entry.expires_at, now)
            return False
        entry.expires_at = now + min(ttl, self.longest_ttl)
        self.stats.renewed += 1
        return True

    def remove(self, key: Key) -> bool:
        """Forget what is under `key`, because it is, or may be, out of date. True when there was something to serve."""
        entry = self.held(key)
        if entry is None:
            return False
        now = self._clock()
        self._drop(entry)
        self._count(entry, RemovalCause.INVALIDATED, now)
        if self._gone:
            self._tell()
        return entry.expires_at > now

    def clear(self) -> None:
        """Forget everything. The memory is given back bit by bit, by the calls of `put` and `sweep` that follow."""
        if len(self):
            self.stats.cleared += len(self)
            self._discarded_bytes += self.bytes
            self._discarded.extend(filter(None, self._shards))
            self._shards = _no_entries()
            self._values.start_again()
            self._absences = Fifo()

    def sweep(self, limit: int) -> int:
        """Drop those of the next `limit` entries that expired, in rounds over all of them; how many were dropped.

        200 take 0.5 to 0.8 ms if they all go. Each put sweeps a little; for an idle process there is `sweeper`.
        """
        # No more than a round, and what was cleared: a caller may say 10**9.
        limit = min(limit, len(self) + QUEUES + sum(map(len, self._discarded)))
        dropped = self._sweep(limit, self._clock())
        if self._gone:
            self._tell()
        return dropped

    def _put(self, key: Key, value: Any, charged: int, ttl: float, version: int | None, *, absent: bool, fits: bool) -> bool:
        now = self._clock()
        self._sweep(SWEPT_PER_PUT, now)
        shard = self._shards[hash(key) & LAST_SHARD]
        held = shard.get(key)
        older = held is not None and held.version is not None and version is not None and version < held.version
        if older or not fits or not ttl > 0:
            if held is not None and not older:
                self._drop(held)
                self._count(held, _REPLACED, now)
            self.stats.rejected += 1
            return False
        entry = Entry(key, value, version, now + min(ttl, self.longest_ttl), charged)
        if held is not None and not absent and held.queue is not self._absences:
            held.queue.swap(held, entry)
            self._count(held, _REPLACED, now)
        else:
            if held is not None:
                self._drop(held)
                self._count(held, _REPLACED, now)
            (self._absences if absent else self._values).append(entry)
        shard[key] = entry
        self.stats.insertions += 1
        self._make_room(now)
        return key in shard

    def _make_room(self, now: float) -> None:
        settings, absences, values = self._settings, self._absences, self._values
        while absences.count > self._max_absences or absences.bytes > self._max_absence_bytes:
            lost = absences.oldest
            self._drop(lost)
            self._count(lost, _EVICTED, now)
        # `bytes` and `len` of each, without six calls.
        small, main = values.small, values.main
        held = small.bytes + main.bytes + absences.bytes
        if (
            held + self._discarded_bytes <= settings.max_bytes
            and small.count + main.count + absences.count <= settings.max_entries
        ):
            values.settle()
            return
        while self._discarded and held + self._discarded_bytes > settings.max_bytes:
            self._give_back()
        for lost in values.shrink(settings.max_entries - absences.count, settings.max_bytes - absences.bytes, now):
            del self._shards[hash(lost.key) & LAST_SHARD][lost.key]
            self._count(lost, _EVICTED, now)

    def _sweep(self, limit: int, now: float) -> int:
        while limit > 0 and self._discarded:
            limit -= 1
            self._give_back()
        dropped = 0
        queues = (self._values.small, self._values.main, self._absences)
        queue = queues[self._turn]
        for _ in range(limit):
            entry = queue.next_in_turn()
            if entry is None:
                self._turn = (self._turn + 1) % QUEUES
                queue = queues[self._turn]
            elif entry.expires_at <= now and not self._may_be_renewed(entry, now):
                self._drop(entry)
                self._count(entry, _EXPIRED, now)
                dropped += 1
        return dropped

    def _may_be_renewed(self, entry: Entry, now: float) -> bool:
        """Whether an expired entry is large enough to be kept on for a while: if its value is still the same, it need not
        be moved.
        """
        return entry.size >= self._renewable and now < entry.expires_at + RENEWABLE_SECONDS

    def _give_back(self) -> None:
        """Let go of one of the entries that were cleared. They were counted then."""
        entries = self._discarded[-1]
        key, entry = entries.popitem()
        if not entries:
            self._discarded.pop()
        entry.queue.remove(entry)
        self._discarded_bytes -= entry.size
        if self._on_remove is not None:
            self._gone.append((key, RemovalCause.CLEARED))

    def _drop(self, entry: Entry) -> None:
        del self._shards[hash(entry.key) & LAST_SHARD][entry.key]
        if entry.queue is self._absences:
            self._absences.remove(entry)
        else:
            self._values.remove(entry)

    def _count(self, entry: Entry, cause: RemovalCause, now: float) -> None:
        """Count an entry that has gone. One that had expired would have gone anyway."""
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
            self._gone.append((entry.key, cause))

    def _tell(self) -> None:
        """Call `on_remove` for what has gone. A callback that uses the store gets here again, and leaves it to the first."""
        if self._telling or self._on_remove is None:
            return
        self._telling = True
        try:
            while self._gone:
                key, cause = self._gone.popleft()
                try:
                    self._on_remove(key, cause)
                except Exception:
                    # It would reach whoever happened to put another value.
                    _log.exception("on_remove raised for %r (%s)", key, cause)
        finally:
            self._telling = False


def _no_entries() -> list[dict[Key, Entry]]:
    return [{} for _ in range(SHARDS)]
