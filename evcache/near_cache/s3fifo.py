"""What the near cache keeps when it can't keep everything: S3-FIFO (Yang et al., "FIFO queues are all you need for cache
eviction", SOSP 2023).

Newcomers wait in a small queue. Those that were asked for again by the time they reach its end move on to the main queue,
the others leave, and their keys are remembered for a while as ghosts: one that comes back was worth keeping, and goes to the
main queue at once. The main queue gives an entry another round for each time it was asked for. So a pass over many keys that
nobody asks for twice goes through the small queue, and leaves the rest alone; and a hit moves nothing.

Nothing here knows what is cached, or looks at a clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from evcache.near_cache.shards import LAST_SHARD, SHARDS

# The paper's parameters, which it found to hold over traces of very different kinds.
SMALL_SHARE = 0.1  # of the bytes, and of the entries
MAX_FREQUENCY = 3  # hits that are counted: two bits
PROMOTED_AT = 2  # hits in the small queue, from which on an entry moves to the main queue
SPARED_AT = 1  # hits in the main queue, from which on it goes round again
GHOSTS_PER_ENTRY = 0.9  # as many as a full main queue has entries

# Entries that leave the small queue for each that comes while there is room: two, so that it gets back to its share.
SETTLED_PER_CALL = 2

# How many entries one call passes over because they were asked for, before it takes what comes. With every entry in demand
# the search would go round the main queue three times, 100 ms with 100,000 entries, to find that they are all alike.
SPARED_PER_CALL = 256

Key = bytes  # for classes with a property of that name, in which the type has lost its own


@dataclass(slots=True, eq=False)
class Entry:
    """What is known under a key. Do not change it: the next caller gets the same one."""

    key: bytes
    value: Any
    version: int | None
    expires_at: float
    """Monotonic seconds. From this moment on it is not served."""
    size: int
    """Bytes it counts for: key, encoded value, and what Python needs to hold them."""
    frequency: int = 0
    """Hits since it entered its queue or was last spared, up to `MAX_FREQUENCY`."""
    queue: Fifo = field(init=False, repr=False)
    older: Entry = field(init=False, repr=False)
    newer: Entry = field(init=False, repr=False)


class Fifo:
    """Entries in the order in which they came, linked, so that each can leave from where it is in constant time.

    A deque would do with less, but entries that leave early (removed, replaced, expired) stay behind in it as tombstones:
    it grows with every invalidation, or stalls to be compacted.
    """

    __slots__ = ("_end", "_hand", "bytes", "count")

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self._end = Entry(b"", None, None, 0.0, 0)  # closes the ring: the oldest entry is newer than it, the newest older
        self._end.older = self._end.newer = self._end
        self._hand = self._end

    @property
    def oldest(self) -> Entry:
        """The entry that came first. Only of a queue that holds one."""
        return self._end.newer

    def append(self, entry: Entry) -> None:
        """Take an entry that is in no queue."""
        end = self._end
        newest = end.older
        entry.queue, entry.older, entry.newer = self, newest, end
        newest.newer = end.older = entry
        self.count += 1
        self.bytes += entry.size

    def remove(self, entry: Entry) -> None:
        """Let an entry of this queue go."""
        older, newer = entry.older, entry.newer
        older.newer = newer
        newer.older = older
        if self._hand is entry:
            self._hand = newer
        # A caller may hold the entry for long: it must not hold its neighbours, and through them the whole store.
        del entry.queue, entry.older, entry.newer
        self.count -= 1
        self.bytes -= entry.size

    def swap(self, held: Entry, entry: Entry) -> None:
        """Put `entry` in the place of `held`, with the hits that it had."""
        older, newer = held.older, held.newer
        entry.queue, entry.older, entry.newer, entry.frequency = self, older, newer, held.frequency
        older.newer = newer.older = entry
        if self._hand is held:
            self._hand = entry
        del held.queue, held.older, held.newer
        self.bytes += entry.size - held.size

    def next_in_turn(self) -> Entry | None:
        """The next entry of a walk from the oldest to the newest that never ends; None where a new round begins.

        The walk goes on where it was, whatever came and left meanwhile.
        """
        entry = self._hand
        self._hand = entry.newer
        return None if entry is self._end else entry


class Ghosts:
    """Keys that left, as their hashes, the last ones only. Two with the same hash are taken for each other: no harm."""

    __slots__ = ("_order", "_shards")

    def __init__(self) -> None:
        self._shards: list[set[int]] = [set() for _ in range(SHARDS)]
        self._order: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, key: bytes, limit: int) -> None:
        """Remember `key`, and let go of the oldest over `limit`.

        Not all of them at once: the limit falls by 100,000 when as many entries expire.
        """
        ghost = hash(key)
        shard = self._shards[ghost & LAST_SHARD]
        if ghost not in shard:
            shard.add(ghost)
            self._order.append(ghost)
        for _ in range(2):
            if len(self._order) > limit:
                oldest = self._order.popleft()
                self._shards[oldest & LAST_SHARD].discard(oldest)

    def take(self, key: bytes) -> bool:
        """Whether `key` is remembered, which it is no longer.

        Its place in the order stays. A key that leaves again soon may be let go of when that place comes up: early, once.
        """
        ghost = hash(key)
        shard = self._shards[ghost & LAST_SHARD]
        if ghost in shard:
            shard.remove(ghost)
            return True
        return False


class S3Fifo:
    """The order in which entries are given up. Holds them, and knows nothing of how they are found."""

    __slots__ = ("_small_bytes", "_small_entries", "ghosts", "main", "small")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.small = Fifo()
        self.main = Fifo()
        self.ghosts = Ghosts()
        self._small_entries = max(1, int(max_entries * SMALL_SHARE))
        self._small_bytes = int(max_bytes * SMALL_SHARE)

    @property
    def count(self) -> int:
        """Entries held."""
        return self.small.count + self.main.count

    @property
    def bytes(self) -> int:
        """What they count for."""
        return self.small.bytes + self.main.bytes

    def append(self, entry: Entry) -> None:
        """Take an entry under a key that is not held."""
        (self.main if self.ghosts.take(entry.key) else self.small).append(entry)

    def settle(self) -> None:
        """To be called after `append`, while there is room for all: keep the small queue to its share.

        Its oldest entry moves on, asked for or not. If newcomers piled up instead, all that are in demand would have to be
        moved by the one call that first finds the cache full.
        """
        for _ in range(SETTLED_PER_CALL):
            if not self._crowded():
                break
            entry = self.small.oldest
            self.small.remove(entry)
            self.main.append(entry)

    def remove(self, entry: Entry) -> None:
        """Take out an entry that expired or is out of date. If its key was in demand, it returns to the main queue."""
        if self._wanted(entry):
            self._remember(entry)
        entry.queue.remove(entry)

    def start_again(self) -> None:
        """Leave all entries where they are, and go on without them. Ghosts stay: what was in demand still is."""
        self.small = Fifo()
        self.main = Fifo()

    def shrink(self, max_entries: int, max_bytes: int, now: float) -> list[Entry]:
        """Take out entries until the rest is within both bounds, and return them; expired ones are not spared."""
        small, main = self.small, self.main
        given_up = []
        spared = 0
        while small.count + main.count > max_entries or small.bytes + main.bytes > max_bytes:
            newcomers = not main.count or (self._crowded() and spared < SPARED_PER_CALL)
            queue = small if newcomers else main
            entry = queue.oldest
            if spared < SPARED_PER_CALL and entry.expires_at > now and self._wanted(entry):
                spared += 1
                entry.frequency = 0 if newcomers else entry.frequency - 1
                queue.remove(entry)
                main.append(entry)
            else:
                queue.remove(entry)
                if newcomers:
                    self._remember(entry)
                given_up.append(entry)
        return given_up

    def _wanted(self, entry: Entry) -> bool:
        return entry.frequency >= (PROMOTED_AT if entry.queue is self.small else SPARED_AT)

    def _crowded(self) -> bool:
        return self.small.count > self._small_entries or self.small.bytes > self._small_bytes

    def _remember(self, entry: Entry) -> None:
        self.ghosts.add(entry.key, int(self.count * GHOSTS_PER_ENTRY))
