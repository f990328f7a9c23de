"""S3-FIFO, the eviction algorithm of the near cache (Yang et al. 2023, "FIFO Queues Are All You Need for Cache Eviction").

New entries join a small queue. At its end, entries with hits move to the main queue, and the others are evicted. The keys of
evicted entries are remembered for a time as ghosts: a ghost that returns joins the main queue at once. The main queue gives
an entry one more round per hit. So a scan over many keys passes through the small queue only, and a hit moves no entry.

No I/O and no clock. The algorithm does not know what the entries hold.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

# The paper's parameters. It found them to hold over traces of very different kinds.
SMALL_SHARE = 0.1  # of the bytes, and of the entries
MAX_FREQUENCY = 3  # hits that are counted: two bits
PROMOTED_AT = 2  # hits in the small queue from which an entry moves to the main queue
SPARED_AT = 1  # hits in the main queue from which an entry gets another round
GHOSTS_PER_ENTRY = 0.9  # the number of entries in a full main queue

# Entries that leave the small queue for each new one while there is space. Two, so that the queue returns to its share.
REBALANCED_PER_CALL = 2

# Entries in demand that one call spares before it evicts any entry. With every entry in demand the search would pass the
# main queue three times: 100 ms with 100,000 entries, to find that they are all alike.
SPARED_PER_CALL = 256

# Number of parts of a large dict or set. The part of a key is `hash(key) & SHARD_MASK`.
#
# Python rebuilds a dict as a whole while it grows, and when additions and removals have used its slots up. That stalls the
# event loop: 4 to 13 ms with 100,000 entries, 0.8 ms with 25,000, 0.36 with 12,500, 0.15 with 6,250. Moving entries to a new
# dict in steps does not help, because the new dict is rebuilt as it grows. With 16 parts, 100,000 entries are 6,250 in each,
# and even 400,000 stay under a millisecond. A lookup costs the same with 4, 8 or 16 parts.
#
# The hash spreads keys of any form. In one run, a hit by `cache.get` takes 1.7 us with one dict. Parts by the hash add 0.08
# to 0.14 us. Parts by the last two bytes add 0.14, and parts by the last byte (a table of 256) 0.06. But keys that end alike
# are common (`user:1:profile`), and would all be in one part.
SHARDS = 16
SHARD_MASK = SHARDS - 1

Key = bytes  # for classes with a property `bytes`, which hides the type


@dataclass(slots=True, eq=False)
class Entry:
    """A value under a key. All callers share it, so none may change it."""

    key: bytes
    value: Any
    version: int | None
    expires_at: float
    """Monotonic seconds from which the entry is not served."""
    size: int
    """Bytes that it counts for: key, encoded value, and Python's objects around them."""
    frequency: int = 0
    """Hits since it joined its queue or was last spared, up to `MAX_FREQUENCY`."""
    queue: Fifo = field(init=False, repr=False)
    older: Entry = field(init=False, repr=False)
    newer: Entry = field(init=False, repr=False)

    def expire_at(self, time: float) -> None:
        """Set the time from which the entry is not served."""
        self.expires_at = time


class Fifo:
    """Linked queue of entries in their order of arrival. Each entry can leave from any position in constant time.

    A deque would be simpler. But entries that leave early would stay in it as tombstones, and it would grow with each
    invalidation, or stall to be compacted.
    """

    __slots__ = ("_end", "_hand", "bytes", "count")

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        # Closes the ring. Its newer neighbour is the oldest entry, and its older neighbour is the newest.
        self._end = Entry(b"", None, None, 0.0, 0)
        self._end.older = self._end.newer = self._end
        self._hand = self._end

    @property
    def oldest(self) -> Entry:
        """The oldest entry. The queue must hold one."""
        return self._end.newer

    def append(self, entry: Entry) -> None:
        """Add an entry that is in no queue."""
        end = self._end
        newest = end.older
        entry.queue, entry.older, entry.newer = self, newest, end
        newest.newer = end.older = entry
        self.count += 1
        self.bytes += entry.size

    def remove(self, entry: Entry) -> None:
        """Remove an entry of this queue."""
        older, newer = entry.older, entry.newer
        older.newer = newer
        newer.older = older
        if self._hand is entry:
            self._hand = newer
        # A caller may keep the entry for long. With its links it would keep its neighbours, and so the whole store, alive.
        del entry.queue, entry.older, entry.newer
        self.count -= 1
        self.bytes -= entry.size

    def replace(self, old: Entry, entry: Entry) -> None:
        """Put `entry` at the position of `old`, with the hits of `old`."""
        older, newer = old.older, old.newer
        entry.queue, entry.older, entry.newer, entry.frequency = self, older, newer, old.frequency
        older.newer = newer.older = entry
        if self._hand is old:
            self._hand = entry
        del old.queue, old.older, old.newer
        self.bytes += entry.size - old.size

    def advance(self) -> Entry | None:
        """Return the next entry of an endless walk from the oldest to the newest, or None where a round begins.

        The walk continues at its position, whatever entries came and left since the last call.
        """
        entry = self._hand
        self._hand = entry.newer
        return None if entry is self._end else entry


class Ghosts:
    """Hashes of the keys that were evicted last. Two keys with equal hashes count as one, which does no harm."""

    __slots__ = ("_order", "_shards")

    def __init__(self) -> None:
        self._shards: list[set[int]] = [set() for _ in range(SHARDS)]
        self._order: deque[int] = deque()

    def __len__(self) -> int:
        """Number of hashes in the order of eviction, forgotten ones included."""
        return len(self._order)

    def add(self, key: bytes, limit: int) -> None:
        """Remember `key`, and forget the oldest keys over `limit`.

        One call forgets at most two, because the limit falls by 100,000 when that number of entries expires.
        """
        ghost = hash(key)
        shard = self._shards[ghost & SHARD_MASK]
        if ghost not in shard:
            shard.add(ghost)
            self._order.append(ghost)
        for _ in range(2):
            if len(self._order) > limit:
                oldest = self._order.popleft()
                self._shards[oldest & SHARD_MASK].discard(oldest)

    def forget(self, key: bytes) -> bool:
        """Forget `key`. Return True if it was remembered.

        Its position in the order stays. If the key is evicted again soon, it may be forgotten early, once.
        """
        ghost = hash(key)
        shard = self._shards[ghost & SHARD_MASK]
        if ghost in shard:
            shard.remove(ghost)
            return True
        return False


class S3Fifo:
    """Order of eviction. It holds entries, and does not find them by key."""

    __slots__ = ("_small_bytes", "_small_entries", "ghosts", "main", "small")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.small = Fifo()
        self.main = Fifo()
        self.ghosts = Ghosts()
        self._small_entries = max(1, int(max_entries * SMALL_SHARE))
        self._small_bytes = int(max_bytes * SMALL_SHARE)

    @property
    def count(self) -> int:
        """Number of entries."""
        return self.small.count + self.main.count

    @property
    def bytes(self) -> int:
        """Sum of the sizes of the entries."""
        return self.small.bytes + self.main.bytes

    def append(self, entry: Entry) -> None:
        """Add an entry under a new key."""
        (self.main if self.ghosts.forget(entry.key) else self.small).append(entry)

    def rebalance(self) -> None:
        """Move the oldest entries of the small queue on while it exceeds its share.

        Called after `append` if nothing is evicted. Entries move with or without hits. If new entries piled up, the first
        call that finds the cache full would have to move all that are in demand.
        """
        for _ in range(REBALANCED_PER_CALL):
            if not self._is_small_full():
                break
            entry = self.small.oldest
            self.small.remove(entry)
            self.main.append(entry)

    def remove(self, entry: Entry) -> None:
        """Remove an entry that expired or was invalidated. If its key was in demand, the key returns to the main queue."""
        if self._is_in_demand(entry):
            self._remember(entry)
        entry.queue.remove(entry)

    def reset(self) -> None:
        """Drop all entries at once, without unlinking them. Ghosts stay: keys in demand still are."""
        self.small = Fifo()
        self.main = Fifo()

    def shrink(self, max_entries: int, max_bytes: int, now: float) -> list[Entry]:
        """Evict entries until the rest is within both limits, and return them. Expired entries are not spared."""
        small, main = self.small, self.main
        evicted = []
        spared = 0
        while small.count + main.count > max_entries or small.bytes + main.bytes > max_bytes:
            from_small = not main.count or (self._is_small_full() and spared < SPARED_PER_CALL)
            queue = small if from_small else main
            entry = queue.oldest
            if spared < SPARED_PER_CALL and entry.expires_at > now and self._is_in_demand(entry):
                spared += 1
                entry.frequency = 0 if from_small else entry.frequency - 1
                queue.remove(entry)
                main.append(entry)
            else:
                queue.remove(entry)
                if from_small:
                    self._remember(entry)
                evicted.append(entry)
        return evicted

    def _is_in_demand(self, entry: Entry) -> bool:
        return entry.frequency >= (PROMOTED_AT if entry.queue is self.small else SPARED_AT)

    def _is_small_full(self) -> bool:
        return self.small.count > self._small_entries or self.small.bytes > self._small_bytes

    def _remember(self, entry: Entry) -> None:
        self.ghosts.add(entry.key, int(self.count * GHOSTS_PER_ENTRY))
