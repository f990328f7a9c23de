"""The near cache: the hottest keys in this process's memory, in front of the zones.

Only the store: bounded, synchronous, without tasks, timers or locks. What may be put into it, and when it has to be removed
because somebody wrote, is decided by those who use it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from evcache.s3fifo import MAX_FREQUENCY, SMALL_SHARE, Entry, Fifo, Key, S3Fifo
from zones.errors import InvalidArgument

MIN_BYTES = 64 * 1024  # less holds next to nothing; a caller who says 64 meant megabytes

# With a time to live as the only bound on staleness, 1 to 5 s is what near caches are commonly run with: long enough to
# take the load of a hot key off the zones, short enough to be no surprise after a write by another process.
TTL_SECONDS = 2.0

# A share over this would leave less for values than their queues are made for.
MAX_NEGATIVE_SHARE = 0.5

# Bytes that an entry needs beside those of its key and value: the objects that hold them, a place in the dict, and a ghost.
# Measured by benchmarks/near_cache_traces.py.
ENTRY_OVERHEAD = 450

# An entry larger than the small queue would be the next to go, and would have taken all other newcomers with it.
LARGEST_SHARE = SMALL_SHARE

# Entries that each put looks at, to drop those that expired. More than the one that it brings: as long as there are puts,
# expired entries stay fewer than live ones.
SWEPT_PER_PUT = 2


class _Absent:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""The value of an entry that says: there is nothing under this key."""


@dataclass(frozen=True, slots=True)
class NearCache:
    """How much a near cache may hold, and for how long. Raises `InvalidArgument` for what can't be meant."""

    max_bytes: int = 64 * 1024 * 1024
    """Keys, encoded values, and `ENTRY_OVERHEAD` for each. At least 64 KiB; an entry over a tenth of it is not kept."""
    max_entries: int = 100_000
    """Each full collection of Python's garbage looks at all of them: 30 ms with 100,000."""
    ttl: float = TTL_SECONDS
    """Seconds. The longest that an entry is served, and so the longest that a value can be out of date unnoticed."""
    negative_share: float = 0.1
    """Of both bounds, what known absences may take: asking for keys that do not exist pushes out no values beyond that. 0 to
    0.5; 0: absences are not kept."""

    def __post_init__(self) -> None:
        _whole(self.max_bytes, "max_bytes", MIN_BYTES)
        _whole(self.max_entries, "max_entries", 1)
        _number(self.ttl, "ttl")
        if not 0 < self.ttl < math.inf:  # NaN compares false
            raise InvalidArgument("ttl", f"seconds over 0 are needed, and an end to them, not {self.ttl!r}")
        _number(self.negative_share, "negative_share")
        if not 0 <= self.negative_share <= MAX_NEGATIVE_SHARE:
            raise InvalidArgument("negative_share", f"0 to {MAX_NEGATIVE_SHARE} are possible, not {self.negative_share!r}")


def _whole(value: object, argument: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(argument, f"a whole number is needed, not {value!r}")
    if value < least:
        raise InvalidArgument(argument, f"at least {least} is needed, not {value!r}")


def _number(value: object, argument: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(argument, f"a number is needed, not {value!r}")


@dataclass(slots=True)
class NearStats:
    """Counts since the store was made. What was inserted is there still, or was removed for one of five reasons."""

    hits: int = 0
    misses: int = 0
    """Expired entries among them."""
    insertions: int = 0
    rejected: int = 0
    """Puts turned away: too large, nothing left of the time to live, older than what is held."""

    expired: int = 0
    evicted: int = 0
    """For want of room."""
    replaced: int = 0
    """By a newer value, or by the knowledge that there is one which could not be kept."""
    invalidated: int = 0
    """By `remove`."""
    cleared: int = 0

    @property
    def removals(self) -> int:
        """Entries that are no longer there, for whatever reason."""
        return self.expired + self.evicted + self.replaced + self.invalidated + self.cleared


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
        "_entries",
        "_largest",
        "_max_absence_bytes",
        "_max_absences",
        "_settings",
        "_turn",
        "_values",
        "stats",
    )

    def __init__(self, settings: NearCache, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that never go back."""
        self.stats = NearStats()
        self._settings = settings
        self._clock = clock
        self._entries: dict[Key, Entry] = {}
        self._values = S3Fifo(settings.max_entries, settings.max_bytes)
        self._absences = Fifo()
        # Entries that were cleared. Freeing 100,000 takes 40 ms, so it is done a few at a time.
        self._discarded = Fifo()
        self._turn = 0  # of the queues, the one that is being swept
        self._largest = int(settings.max_bytes * LARGEST_SHARE)
        self._max_absences = int(settings.max_entries * settings.negative_share)
        self._max_absence_bytes = int(settings.max_bytes * settings.negative_share)

    def __len__(self) -> int:
        """Entries held, with those that expired and were not dropped yet."""
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What the entries held count for."""
        return self._values.bytes + self._absences.bytes

    def get(self, key: Key) -> Entry | None:
        """The entry under `key`; None when there is none or it expired. The value `ABSENT` means: known not to exist.

        An expired entry stays where it is: the value that is fetched now takes its place in the queue, and its hits.
        """
        entry = self._entries.get(key)
        if entry is None or entry.expires_at <= self._clock():
            self.stats.misses += 1
            return None
        if entry.frequency < MAX_FREQUENCY:
            entry.frequency += 1
        self.stats.hits += 1
        return entry

    def put(self, key: Key, value: Any, size: int, ttl: float, version: int | None = None) -> bool:
        """Keep a value of `size` bytes, encoded, for `ttl` seconds or the settings' if that is less. True when it is kept.

        False when the entry held has a newer version: it stays. False, with nothing under the key afterwards, when the value
        is too large, when `ttl` is not over 0, or when it gave way at once to values that are more in demand. Where one of
        the two has no version, the later put wins.
        """
        now = self._clock()
        self._sweep(SWEPT_PER_PUT, now)
        held = self._entries.get(key)
        charged = len(key) + size + ENTRY_OVERHEAD
        if self._refused(held, version, ttl, fits=charged <= self._largest, now=now):
            return False
        entry = Entry(key, value, version, now + min(ttl, self._settings.ttl), charged)
        if held is not None and held.queue is not self._absences:
            held.queue.swap(held, entry)
            self._count_replaced(held, now)
        else:
            if held is not None:
                self._drop(held)
                self._count_replaced(held, now)
            self._values.add(entry)
        return self._keep(entry, now)

    def put_absence(self, key: Key, ttl: float, version: int | None = None) -> bool:
        """Keep the knowledge that there is nothing under `key`. As `put`; absences give way only to later absences."""
        now = self._clock()
        self._sweep(SWEPT_PER_PUT, now)
        held = self._entries.get(key)
        charged = len(key) + ENTRY_OVERHEAD
        fits = self._max_absences > 0 and charged <= min(self._max_absence_bytes, self._largest)
        if self._refused(held, version, ttl, fits=fits, now=now):
            return False
        if held is not None:
            self._drop(held)
            self._count_replaced(held, now)
        absences = self._absences
        absences.append(entry := Entry(key, ABSENT, version, now + min(ttl, self._settings.ttl), charged))
        while absences.count > self._max_absences or absences.bytes > self._max_absence_bytes:
            self._count_given_up(absences.oldest, now)
            self._drop(absences.oldest)
        return self._keep(entry, now)

    def remove(self, key: Key) -> bool:
        """Forget what is under `key`, because it is, or may be, out of date. True when there was something to serve."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        self._drop(entry)
        if entry.expires_at <= self._clock():
            self.stats.expired += 1
            return False
        self.stats.invalidated += 1
        return True

    def clear(self) -> None:
        """Forget everything. The memory is given back bit by bit, by the calls of `put` and `sweep` that follow."""
        self.stats.cleared += len(self._entries)
        self._entries = {}
        self._values.empty_into(self._discarded)
        self._discarded.absorb(self._absences)
        self._absences = Fifo()

    def sweep(self, limit: int) -> int:
        """Drop those of the next `limit` entries that expired, in rounds over all of them; how many were dropped.

        1,000 take a millisecond or two. Each put sweeps a little; an idle process gets its memory back by calling this now
        and then.
        """
        return self._sweep(min(limit, len(self._entries) + self._discarded.count + 3), self._clock())

    def _sweep(self, limit: int, now: float) -> int:
        discarded = self._discarded
        while limit and discarded.count:
            limit -= 1
            discarded.remove(discarded.oldest)
        dropped = 0
        queues = (self._values.small, self._values.main, self._absences)
        queue = queues[self._turn]
        for _ in range(limit):
            entry = queue.next_in_turn()
            if entry is None:
                self._turn = (self._turn + 1) % 3
                queue = queues[self._turn]
            elif entry.expires_at <= now:
                self._drop(entry)
                dropped += 1
        self.stats.expired += dropped
        return dropped

    def _refused(self, held: Entry | None, version: int | None, ttl: float, *, fits: bool, now: float) -> bool:
        """Whether a put is to be turned away. What is held then stays only if it is newer."""
        older = held is not None and held.version is not None and version is not None and version < held.version
        if not older and fits and ttl > 0:
            return False
        if held is not None and not older:
            self._drop(held)
            self._count_replaced(held, now)
        self.stats.rejected += 1
        return True

    def _keep(self, entry: Entry, now: float) -> bool:
        """Make room for an entry that is in its queue; whether it is still there."""
        self._entries[entry.key] = entry
        self.stats.insertions += 1
        settings, discarded = self._settings, self._discarded
        held = self.bytes
        if held <= settings.max_bytes - discarded.bytes and len(self._entries) <= settings.max_entries:
            self._values.settle()
            return True
        while discarded.count and held + discarded.bytes > settings.max_bytes:
            discarded.remove(discarded.oldest)
        absences = self._absences
        for lost in self._values.shrink(settings.max_entries - absences.count, settings.max_bytes - absences.bytes, now):
            del self._entries[lost.key]
            self._count_given_up(lost, now)
        return entry.key in self._entries

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.key]
        if entry.queue is self._absences:
            self._absences.remove(entry)
        else:
            self._values.remove(entry)

    def _count_replaced(self, held: Entry, now: float) -> None:
        if held.expires_at <= now:
            self.stats.expired += 1
        else:
            self.stats.replaced += 1

    def _count_given_up(self, entry: Entry, now: float) -> None:
        if entry.expires_at <= now:
            self.stats.expired += 1
        else:
            self.stats.evicted += 1
