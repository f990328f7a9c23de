"""The items of one server: values, TTLs, CAS numbers, and the stale and win marks of the meta protocol.

Pure: no I/O, and time comes from the clock that is passed in. Items expire exactly when their TTL is over,
while memcached looks at a clock that ticks once a second (there `T1` lives anything up to a second).
"""

from __future__ import annotations

import enum
import math
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evcache.zones.testing.fake_memcached.numbers import read_uint64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAX_RELATIVE_TTL = 60 * 60 * 24 * 30  # seconds; a larger number is a point in unix time
_HEADER_SIZE = 48  # bytes that memcached keeps beside key and value
_CAS_SIZE = 8
_FLAGS_SIZE = 4
_UINT64 = (1 << 64) - 1

# memcached counts seconds since a moment 62 s before it started, and marks what must be gone at once with second 1.
# Only visible in `t`: after `T-1` in the same command it shows the difference, as an unsigned number.
_LONG_GONE = -61.0

# How often, in seconds, and how many items at once are looked at to reclaim those that have expired.
CRAWL_SECONDS = 1.0
CRAWL_ITEMS = 1_000

_CLOCK_NOISE = 1e-6  # seconds; sums of floats must not turn 29 s into 30


class StoreMode(enum.Enum):
    """How a new item relates to the one that is there."""

    SET = enum.auto()
    ADD = enum.auto()
    REPLACE = enum.auto()
    APPEND = enum.auto()
    PREPEND = enum.auto()
    CAS = enum.auto()


class StoreResult(enum.Enum):
    """What became of a store. The values are the codes of the meta protocol."""

    STORED = b"HD"
    NOT_STORED = b"NS"
    EXISTS = b"EX"
    NOT_FOUND = b"NF"


class NotANumberError(Exception):
    """The item can't be counted up or down."""


@dataclass(slots=True)
class Item:
    """One item; tests may look at every field, and change it."""

    key: bytes
    value: bytes
    flags: int = 0
    expires_at: float | None = None  # on the clock of the store; None: never
    cas: int = 0
    stale: bool = False  # `X`
    win_sent: bool = False  # `Z`: a reader was told to make a new value
    fetched: bool = False  # `h`
    active: bool = False  # fetched twice: from then on fetching does not reset `l`
    accessed_at: float = 0.0  # `l`
    base64_key: bool = False  # stored with the `b` flag: `k` shows the key in base64


class Store:
    """The items of one server."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        item_size_max: int = 1024 * 1024,
        max_bytes: int | None = None,
        cas_enabled: bool = True,
    ) -> None:
        self.item_size_max = item_size_max
        self.max_bytes = max_bytes  # as `-m`, but in bytes and exact; None: unlimited. The least recently used items go.
        self.cas_enabled = cas_enabled
        self.last_cas = 0  # the number that was given last
        self.bytes_used = 0
        self.counts: Counter[str] = Counter()  # by the names of `stats`
        self._clock = clock
        self._wall_clock = wall_clock
        self._started_at = clock()
        self._started_wall = wall_clock()
        self._flush_at: float | None = None
        self._items: OrderedDict[bytes, Item] = OrderedDict()  # the least recently used first
        self._crawl_at = clock() + CRAWL_SECONDS
        self._to_crawl: list[bytes] = []  # keys of this round, of which the last is next

    # --- looking ---------------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Item | None:
        """The live item, or None. Does not count as a fetch; drops the item if it has expired."""
        self._flush_if_due()
        item = self._items.get(key)
        if item is not None and self._expired(item):
            self.counts["get_expired"] += 1
            self.delete(key)
            return None
        return item

    @property
    def linked(self) -> int:
        """Items that take memory, those included that have expired and were not reclaimed yet."""
        return len(self._items)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[bytes]:
        """The keys of live items, the least recently used first."""
        self._flush_if_due()
        return iter([key for key, item in self._items.items() if not self._expired(item)])

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def ttl_left(self, item: Item) -> int | None:
        """Whole seconds, rounded up as a live item never shows 0; negative when it has expired; None: never expires."""
        if item.expires_at is None:
            return None
        return math.ceil(item.expires_at - self._clock() - _CLOCK_NOISE)

    def idle_seconds(self, item: Item) -> int:
        """Whole seconds since the item was used in a way that counts (see `bump`)."""
        return int(self._clock() - item.accessed_at + _CLOCK_NOISE)

    def uptime(self) -> float:
        """Seconds since the store was made."""
        return self._clock() - self._started_at

    def fits(self, key: bytes, flags: int, length: int) -> bool:
        """Whether a value of that length is below the item size limit, which counts key and header too."""
        return self._size(key, flags, length) <= self.item_size_max

    def has_room(self, key: bytes, flags: int, length: int) -> bool:
        """Whether such an item could be kept if everything else were evicted."""
        return self.max_bytes is None or self._size(key, flags, length) <= self.max_bytes

    def size(self, item: Item) -> int:
        """Bytes that the item takes in memory."""
        return self._size(item.key, item.flags, len(item.value))

    # --- changing --------------------------------------------------------------------------------------------------

    def expiry(self, ttl: int) -> float | None:
        """A TTL as it stands in commands, as a time on the clock: 0 is never, negative is at once.

        Over 30 days it is unix time, which the wall clock translates.
        """
        if ttl == 0:
            return None
        if 0 < ttl <= _MAX_RELATIVE_TTL:
            return self._clock() + ttl
        if ttl < 0 or ttl <= self._started_wall + _LONG_GONE:
            return self._started_at + _LONG_GONE
        return self._clock() + (ttl - self._wall_clock())

    def seconds_until(self, ttl: int) -> float:
        """How far away the time is that a TTL stands for; minus infinity for "never"."""
        expiry = self.expiry(ttl)
        return -math.inf if expiry is None else math.ceil(expiry - self._clock() - _CLOCK_NOISE)

    def set_cas(self, item: Item, cas: int) -> None:
        """Give an item a CAS; without CAS (`-C`) it stays 0."""
        item.cas = cas if self.cas_enabled else 0

    def next_cas(self) -> int:
        """Take the next number of the server; a number that is not used is lost."""
        self.last_cas = (self.last_cas + 1) & _UINT64
        return self.last_cas

    def link(self, item: Item, cas: int) -> None:
        """Put the item in place of whatever has its key."""
        self.delete(item.key)
        self.set_cas(item, cas)
        item.accessed_at = self._clock()
        self._items[item.key] = item
        self.bytes_used += self.size(item)
        self.counts["total_items"] += 1
        self._make_room(item)

    def save(
        self,
        item: Item,
        mode: StoreMode,
        *,
        compare: int = 0,
        accept_older: bool = False,
        create: bool = False,
        cas: Callable[[], int],
    ) -> tuple[StoreResult, Item]:
        """Store an item under the rules of its mode; returns the result and the item that now holds the value.

        compare: the CAS that the present item must have; 0 compares nothing, and a CAS store then fails.
        accept_older: a `compare` below the present CAS stores too, as a stale value with the TTL of the old one.
        create: an append or prepend to a missing item stores it.
        cas: gives the number of the new item; only called when something is stored.
        """
        old = self.get(item.key)
        if not self.cas_enabled:
            compare = 0
        if old is None:
            if mode is StoreMode.CAS:
                self.counts["cas_misses"] += 1
                return StoreResult.NOT_FOUND, item
            if create or mode in (StoreMode.SET, StoreMode.ADD):
                self.link(item, cas())
                return StoreResult.STORED, item
            return StoreResult.NOT_STORED, item

        if mode is StoreMode.ADD:
            self._used(old)  # a refused add counts as a use of what is there
            old.accessed_at = self._clock()
            return StoreResult.NOT_STORED, item
        if mode is StoreMode.CAS:
            older = accept_older and compare < old.cas
            if compare == 0 or (compare != old.cas and not older):
                self.counts["cas_badval"] += 1
                return StoreResult.EXISTS, item
            self.counts["cas_hits"] += 1
            if compare != old.cas:
                item.expires_at = old.expires_at
                item.stale = True
                item.win_sent = old.win_sent
        elif mode in (StoreMode.APPEND, StoreMode.PREPEND):
            if compare not in (0, old.cas):
                return StoreResult.EXISTS, item
            value = old.value + item.value if mode is StoreMode.APPEND else item.value + old.value
            if not self.fits(item.key, old.flags, len(value)):
                return StoreResult.NOT_STORED, item
            # A new item: the stale and win marks of the old one are lost, which surprises.
            item = Item(item.key, value, old.flags, old.expires_at)
        self.link(item, cas())
        return StoreResult.STORED, item

    def add_delta(self, item: Item, delta: int, *, up: bool) -> tuple[Item, bytes]:
        """Count a live item up (modulo 2^64) or down (not below 0); returns the item and the number in digits.

        A number that needs more digits moves to a new item without stale mark, and *the old, unlinked one is
        returned*: what the caller changes on it afterwards (TTL, CAS) is lost. This is memcached's behaviour.
        Raises NotANumberError.
        """
        number = read_uint64(item.value) if item.value else None
        if number is None:
            raise NotANumberError
        number = (number + delta) & _UINT64 if up else max(0, number - delta)
        digits = b"%d" % number
        cas = self.next_cas() if self.cas_enabled else 0
        if len(digits) <= len(item.value):
            item.value = digits.ljust(len(item.value))  # padded with spaces, not shortened
            item.cas = cas
            item.accessed_at = self._clock()
            self._used(item)
        else:
            self.link(Item(item.key, digits, item.flags, item.expires_at), cas)
            item.cas = cas
        return item, digits

    def bump(self, item: Item) -> None:
        """Count one fetch: the first sets `h`, the second resets `l`, later ones change nothing until the next store."""
        if not item.fetched:
            item.fetched = True
        elif not item.active:
            item.active = True
            item.accessed_at = self._clock()
        self._used(item)

    def delete(self, key: bytes) -> bool:
        """Whether something was there, expired or not."""
        item = self._items.pop(key, None)
        if item is None:
            return False
        self.bytes_used -= self.size(item)
        return True

    def evict(self, key: bytes) -> bool:
        """Take an item away as if memory had run out; whether it was there."""
        item = self.get(key)
        if item is None:
            return False
        self._evicted(item)
        return self.delete(key)

    def crawl_if_due(self) -> None:
        """Reclaim some of what has expired, at most once a second. As memcached's LRU crawler, in bounded steps."""
        now = self._clock()
        if now >= self._crawl_at:
            self._crawl_at = now + CRAWL_SECONDS
            self.crawl(CRAWL_ITEMS)

    def crawl_all(self) -> None:
        """Reclaim everything that has expired."""
        self._to_crawl.clear()
        self.crawl(len(self._items))

    def crawl(self, items: int) -> None:
        """Look at so many items, after those of the last time, and reclaim what has expired."""
        self._flush_if_due()
        if not self._to_crawl:
            self._to_crawl = list(self._items)
            self.counts["lru_crawler_starts"] += 1
        for _ in range(min(items, len(self._to_crawl))):
            item = self._items.get(self._to_crawl.pop())
            self.counts["crawler_items_checked"] += 1
            if item is not None and self._expired(item):
                self.counts["crawler_reclaimed"] += 1
                self.counts["reclaimed"] += 1
                self.counts["expired_unfetched"] += not item.fetched
                self.delete(item.key)

    def flush(self, delay: int = 0) -> None:
        """Drop everything, now or after a delay in seconds (or at a unix time, as a TTL). Replaces an earlier delay."""
        self._flush_at = self.expiry(delay) if delay > 0 else None
        if self._flush_at is None:
            self.clear()

    def clear(self) -> None:
        """Forget all items, as a restart does; CAS numbers go on."""
        self._items.clear()
        self.bytes_used = 0

    # --- inside ----------------------------------------------------------------------------------------------------

    def _size(self, key: bytes, flags: int, length: int) -> int:
        return (
            _HEADER_SIZE
            + (_CAS_SIZE if self.cas_enabled else 0)
            + (len(key) + 1)
            + (_FLAGS_SIZE if flags else 0)
            + (length + 2)
        )

    def _expired(self, item: Item) -> bool:
        return item.expires_at is not None and item.expires_at <= self._clock()

    def _used(self, item: Item) -> None:
        if self._items.get(item.key) is item:
            self._items.move_to_end(item.key)

    def _flush_if_due(self) -> None:
        if self._flush_at is None or self._clock() < self._flush_at:
            return
        due, self._flush_at = self._flush_at, None
        for key in [key for key, item in self._items.items() if item.accessed_at <= due]:
            self.delete(key)

    def _make_room(self, newest: Item) -> None:
        while self.max_bytes is not None and self.bytes_used > self.max_bytes:
            oldest = next(iter(self._items.values()))
            if oldest is newest:
                return  # alone and too large; the limit is checked before a store
            self._evicted(oldest)
            self.delete(oldest.key)

    def _evicted(self, item: Item) -> None:
        self.counts["evictions"] += 1
        self.counts["evicted_unfetched"] += not item.fetched
        self.counts["evicted_active"] += item.active
