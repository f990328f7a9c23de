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

from evcache.zones.testing.fake_memcached.dialect import read_uint64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAX_RELATIVE_TTL = 60 * 60 * 24 * 30  # seconds; a larger number is a unix time
_HEADER_SIZE = 48  # bytes of an item beside key and value
_CAS_SIZE = 8
_FLAGS_SIZE = 4
_UINT64 = (1 << 64) - 1

# memcached counts seconds since a moment 62 s before its start. An item that expires at once gets second 1.
# Only visible in `t`: after `T-1` in the same command it shows the difference, as an unsigned number.
_LONG_GONE = -61.0

# Seconds between two steps that reclaim expired items, and number of items in one step.
CRAWL_SECONDS = 1.0
CRAWL_ITEMS = 1_000

_CLOCK_NOISE = 1e-6  # seconds; sums of floats must not turn 29 s into 30


class StoreMode(enum.Enum):
    """Condition of a store on the present item."""

    SET = enum.auto()
    ADD = enum.auto()
    REPLACE = enum.auto()
    APPEND = enum.auto()
    PREPEND = enum.auto()
    CAS = enum.auto()


class StoreResult(enum.Enum):
    """Result of a store. The values are the codes of the meta protocol."""

    STORED = b"HD"
    NOT_STORED = b"NS"
    EXISTS = b"EX"
    NOT_FOUND = b"NF"


class NotANumberError(Exception):
    """Increment or decrement of an item that is not a number."""


@dataclass(slots=True)
class Item:
    """One item. Tests may read and change every field."""

    key: bytes
    value: bytes
    flags: int = 0
    expires_at: float | None = None  # on the clock of the store; None if it never expires
    cas: int = 0
    stale: bool = False  # `X`
    win_sent: bool = False  # `Z`: a reader won the right to store a new value
    fetched: bool = False  # `h`
    active: bool = False  # fetched twice; further fetches do not reset `l`
    accessed_at: float = 0.0  # `l`
    base64_key: bool = False  # stored with the `b` flag; `k` shows the key in base64


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
        self.max_bytes = max_bytes  # like `-m`, in bytes and exact; None is unlimited
        self.cas_enabled = cas_enabled
        self.last_cas = 0  # last number
        self.bytes_used = 0
        self.counts: Counter[str] = Counter()  # by the names of `stats`
        self._clock = clock
        self._wall_clock = wall_clock
        self._started_at = clock()
        self._started_wall = wall_clock()
        self._flush_at: float | None = None
        self._items: OrderedDict[bytes, Item] = OrderedDict()  # least recently used first
        self._crawl_at = clock() + CRAWL_SECONDS
        self._to_crawl: list[bytes] = []  # keys of this round; the last one is next

    # --- reading ---------------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Item | None:
        """Return the live item, or None. Does not count as a fetch. Drops the item if it has expired."""
        self._flush_if_due()
        item = self._items.get(key)
        if item is not None and self._expired(item):
            self.counts["get_expired"] += 1
            self.delete(key)
            return None
        return item

    @property
    def linked(self) -> int:
        """Items that take memory, with expired ones that were not reclaimed yet."""
        return len(self._items)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[bytes]:
        """Keys of live items, least recently used first."""
        self._flush_if_due()
        return iter([key for key, item in self._items.items() if not self._expired(item)])

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def ttl_left(self, item: Item) -> int | None:
        """Return the remaining whole seconds, rounded up. Negative if the item has expired, None if it never expires."""
        if item.expires_at is None:
            return None
        return math.ceil(item.expires_at - self._clock() - _CLOCK_NOISE)

    def idle_seconds(self, item: Item) -> int:
        """Return the whole seconds since the last use that counts, see `bump`."""
        return int(self._clock() - item.accessed_at + _CLOCK_NOISE)

    def uptime(self) -> float:
        """Return the seconds since the store was made."""
        return self._clock() - self._started_at

    def fits(self, key: bytes, flags: int, length: int) -> bool:
        """Return True if an item with a value of this length is within the item size limit."""
        return self._size(key, flags, length) <= self.item_size_max

    def has_room(self, key: bytes, flags: int, length: int) -> bool:
        """Return True if the item would fit after all other items were evicted."""
        return self.max_bytes is None or self._size(key, flags, length) <= self.max_bytes

    def size(self, item: Item) -> int:
        """Return the bytes that the item takes in memory."""
        return self._size(item.key, item.flags, len(item.value))

    # --- changing --------------------------------------------------------------------------------------------------

    def expiry(self, ttl: int) -> float | None:
        """Return the time on the clock for a TTL of a command. None for 0, which never expires.

        A negative TTL expires at once. A TTL above 30 days is a unix time, which the wall clock converts.
        """
        if ttl == 0:
            return None
        if 0 < ttl <= _MAX_RELATIVE_TTL:
            return self._clock() + ttl
        if ttl < 0 or ttl <= self._started_wall + _LONG_GONE:
            return self._started_at + _LONG_GONE
        return self._clock() + (ttl - self._wall_clock())

    def seconds_until(self, ttl: int) -> float:
        """Return the seconds until the expiry of a TTL. Minus infinity if it never expires."""
        expiry = self.expiry(ttl)
        return -math.inf if expiry is None else math.ceil(expiry - self._clock() - _CLOCK_NOISE)

    def set_cas(self, item: Item, cas: int) -> None:
        """Set the CAS of an item. It stays 0 without CAS (`-C`)."""
        item.cas = cas if self.cas_enabled else 0

    def next_cas(self) -> int:
        """Take the next number of the server. A number that is not used is lost."""
        self.last_cas = (self.last_cas + 1) & _UINT64
        return self.last_cas

    def link(self, item: Item, cas: int) -> None:
        """Put the item in place of the present one."""
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
        """Store an item under the rules of its mode. Returns the result and the item that now holds the value.

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
            self._used(old)  # a refused add counts as a use of the present item
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
            # A new item, so the stale and win marks of the old one are lost.
            item = Item(item.key, value, old.flags, old.expires_at)
        self.link(item, cas())
        return StoreResult.STORED, item

    def add_delta(self, item: Item, delta: int, *, up: bool) -> tuple[Item, bytes]:
        """Increment a live item modulo 2^64, or decrement it to no less than 0.

        As in memcached, a number that needs more digits moves to a new item without stale mark. The method then returns *the
        old, unlinked item*: later changes of its TTL or CAS by the caller are lost.

        Returns:
            The item, and the number in digits.

        Raises:
            NotANumberError: The value is not a number.
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
        """Count one fetch. The first sets `h`, the second resets `l`, later ones have no effect until the next store."""
        if not item.fetched:
            item.fetched = True
        elif not item.active:
            item.active = True
            item.accessed_at = self._clock()
        self._used(item)

    def delete(self, key: bytes) -> bool:
        """Delete an item. Returns True if there was one, expired or not."""
        item = self._items.pop(key, None)
        if item is None:
            return False
        self.bytes_used -= self.size(item)
        return True

    def evict(self, key: bytes) -> bool:
        """Evict an item, as without free memory. Returns True if there was a live one."""
        item = self.get(key)
        if item is None:
            return False
        self._evicted(item)
        return self.delete(key)

    def crawl_if_due(self) -> None:
        """Reclaim some expired items, at most once per second, in bounded steps as memcached's LRU crawler."""
        now = self._clock()
        if now >= self._crawl_at:
            self._crawl_at = now + CRAWL_SECONDS
            self.crawl(CRAWL_ITEMS)

    def crawl_all(self) -> None:
        """Reclaim all expired items."""
        self._to_crawl.clear()
        self.crawl(len(self._items))

    def crawl(self, items: int) -> None:
        """Check the next `items` items, and reclaim the expired ones."""
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
        """Drop all items, now or after a delay, which has the form of a TTL. Replaces an earlier delay."""
        self._flush_at = self.expiry(delay) if delay > 0 else None
        if self._flush_at is None:
            self.clear()

    def clear(self) -> None:
        """Forget all items, as a restart does. CAS numbers continue."""
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
                return  # a single item above the limit, which is checked before a store
            self._evicted(oldest)
            self.delete(oldest.key)

    def _evicted(self, item: Item) -> None:
        self.counts["evictions"] += 1
        self.counts["evicted_unfetched"] += not item.fetched
        self.counts["evicted_active"] += item.active
