"""The near cache between the calls and the zones: what may be kept, and what a write takes away.

The race to know: a read fetches the old value, a write stores a new one, and the read then keeps what it fetched. So each
fetch is a *flight*, and a write spoils the flights of its key: their callers get what they fetched, and nothing is kept. A
write that is acknowledged keeps its own value, whose version keeps out the older ones that slower zones still answer with.

Other processes' writes are not heard of here: the near cache's `ttl` bounds how long theirs can go unnoticed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from evcache.answers import Found
from evcache.codec import FLAG_TOMBSTONE
from evcache.commands import Store
from evcache.near_cache import ABSENT, NearCache, NearStats, NearStore
from evcache.ttl import MAX_RELATIVE_SECONDS, NEVER, TTL_GRANULARITY_SECONDS
from evcache.versions import cas_of
from zones.protocol.replies import Hit


class Kept(NamedTuple):
    """An item in the near cache."""

    found: Found
    expires_at: float
    """When the item itself expires, on the store's clock; `math.inf`: never."""


class Flight:
    """The fetches of one key that are under way, for as long as nobody writes it."""

    __slots__ = ("callers", "key", "spoiled")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.callers = 0
        self.spoiled = False


class Near:
    """One client's near cache."""

    def __init__(self, settings: NearCache, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = NearStore(settings, clock)
        self._clock = clock
        self._flights: dict[bytes, Flight] = {}

    @property
    def stats(self) -> NearStats:
        """Hits, misses, and why entries went."""
        return self._store.stats

    def get(self, key: bytes) -> Found | None:
        """The item, or None when it has to be fetched. One without a value is a known absence."""
        entry = self._store.get(key)
        if entry is None:
            return None
        if entry.value is ABSENT:
            return _ABSENCE
        kept: Kept = entry.value
        return kept.found

    def seconds_left(self, key: bytes) -> int | None:
        """Whole seconds until the item that `get` has just found expires; None when it does not."""
        entry = self._store.get(key)
        if entry is None or entry.value is ABSENT:
            return None
        kept: Kept = entry.value
        return None if math.isinf(kept.expires_at) else max(0, math.floor(kept.expires_at - self._clock()))

    def take_off(self, key: bytes) -> Flight:
        """Begin to fetch a key. Every flight ends with `land` or `crash`."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(key)
        flight.callers += 1
        return flight

    def land(self, flight: Flight, found: Found | None) -> None:
        """End a fetch, and keep what it found unless somebody wrote the key meanwhile."""
        self._leave(flight)
        if found is not None and not flight.spoiled:
            self._keep(flight.key, found)

    def crash(self, flight: Flight) -> None:
        """End a fetch that found out nothing: it failed, or its caller was cancelled."""
        self._leave(flight)

    def writing(self, key: bytes) -> None:
        """A write of this client's begins, or ended in a way that does not say what is there now."""
        self._store.remove(key)
        self._spoil(key)

    def _spoil(self, key: bytes) -> None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            flight.spoiled = True

    def ended(self, key: bytes, store: Store | None, zone: str | None) -> None:
        """A write of this client's ended; `store`: what the zones now hold, None when that is not known.

        Without a version what wins is not known either, so then nothing is kept. `zone` is what readers are told.
        """
        if store is None or store.version is None or not store.newest_wins:
            self.writing(key)
            return
        # What is held stays until this replaces it: it may be of a newer write of ours, which the store will not let go.
        self._spoil(key)
        hit = Hit(store.data, store.flags, cas_of(store.version), _seconds_of(store.ttl), stale=False, leased=False)
        self._keep(key, Found(hit, zone or "", store.version))

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()

    def _leave(self, flight: Flight) -> None:
        flight.callers -= 1
        if not flight.callers and not flight.spoiled:
            del self._flights[flight.key]

    def _keep(self, key: bytes, found: Found) -> None:
        hit = found.hit
        if hit.ttl is None or hit.leased or hit.stale:
            return
        left = math.inf if hit.ttl < 0 else hit.ttl - TTL_GRANULARITY_SECONDS
        if hit.flags == FLAG_TOMBSTONE:
            self._store.put_absence(key, left, found.version)
        else:
            kept = Kept(found._replace(near=True), self._clock() + left)
            self._store.put(key, kept, len(hit.value), left, found.version)


def _seconds_of(wire_ttl: int) -> int:
    """The time to live of a store, as a server would say it; an item given a date is kept for as long as any other."""
    return -1 if wire_ttl == NEVER or wire_ttl > MAX_RELATIVE_SECONDS else wire_ttl


_ABSENCE = Found(Hit(b"", FLAG_TOMBSTONE, 0, None, stale=False, leased=False), "", None, near=True)
