"""The near cache between the calls and the zones: what may be kept, and what somebody's write takes away.

Two races to know. A read fetches the old value, the key is written, and the read then keeps what it fetched: so each
fetch is a *flight*, and whoever writes the key spoils its flights; their callers get what they fetched, and nothing is
kept. And a write is announced before the replica that is read next has it, so that a fetch which begins after the
announcement still finds the old value: so for some seconds nothing older than what was announced is kept
(`evcache.near_cache.version_fences`).

Other processes' writes are heard of through an invalidation channel (`bus`). Where there is none, or while it is
broken, a short time to live bounds how long they can go unnoticed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from evcache.errors import DecodeError
from evcache.near_cache.hot_keys import HotKeys
from evcache.near_cache.s3fifo import Entry
from evcache.near_cache.store import CHANNEL_TTL_SECONDS, TTL_SECONDS, NearCache, NearStats, NearStore
from evcache.near_cache.sweeper import Sweeper
from evcache.near_cache.version_fences import VersionFences
from evcache.replication.guarded_store import StoreCommand
from evcache.replication.hlc import NOTHING_NEWER, cas_of
from evcache.replication.reconcile import ABSENCES, ZoneHit
from evcache.results import RemovalCause
from evcache.values.codec import FLAG_ENVELOPE
from evcache.values.lifetime import Content, Lifetime, content_of
from evcache.values.ttl import MAX_RELATIVE_SECONDS, NEVER, TTL_GRANULARITY_SECONDS
from evcache.zones.protocol.replies import Hit

UNDECODED: Any = object()
"""The value of an item that is decoded for each caller."""


class NearEntry:
    """An item in the near cache."""

    __slots__ = ("cas", "data", "expires_at", "flags", "life", "typed", "value", "version", "wrapped", "zone")

    def __init__(self, content: Content, found: ZoneHit, expires_at: float) -> None:
        self.data: bytes | None = content.data
        """As the codec made it; None once the decoded value is kept in its place."""
        self.flags = content.flags
        self.value = UNDECODED
        """The decoded value, where one object may be given to every caller."""
        self.typed: tuple[object, Any] | None = None
        """The decoder of a type, and the value of that type, where callers that name the type may share one object."""
        self.life = content.life
        self.wrapped = found.hit.flags == FLAG_ENVELOPE
        """Whether it says itself how long it lives: its server may keep it for longer."""
        self.expires_at = expires_at
        """When the item itself is gone, or out of date, on the near cache's clock; `math.inf`: never."""
        self.zone = found.zone
        self.version = found.version
        self.cas = found.hit.cas

    @property
    def is_value(self) -> bool:
        """Whether there is something, and not a known absence."""
        return self.flags not in ABSENCES


class FetchToken:
    """The fetches of one key that are under way, for as long as nobody writes it."""

    __slots__ = ("callers", "key", "spoiled")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.callers = 0
        self.spoiled = False


class CoherentNearCache:
    """One client's near cache."""

    def __init__(
        self,
        settings: NearCache,
        clock: Callable[[], float] = time.monotonic,
        *,
        wall: Callable[[], float] = time.time,
        has_channel: bool = False,
        sweeps: bool = True,
        on_remove: Callable[[bytes, RemovalCause], None] | None = None,
    ) -> None:
        """`has_channel`: whether other processes' writes are announced, once `channel_up` says so. `sweeps`: whether it
        gives memory back by itself, which takes a running loop.
        """
        self._settings = settings
        self._store = NearStore(settings, clock, on_remove)
        self._clock = clock
        self._wall = wall
        self._flights: dict[bytes, FetchToken] = {}
        self._floors = VersionFences(settings.grace)
        self._hot = None if settings.hot_reads is None else HotKeys(settings.hot_reads, clock)
        self._shared = frozenset(settings.immutable)
        self._has_channel = has_channel
        self._sweeper = Sweeper(self._store) if sweeps else None
        self.channel_up(False)

    @property
    def stats(self) -> NearStats:
        """Hits, misses, and why entries went."""
        return self._store.stats

    @property
    def size(self) -> tuple[int, int]:
        """Entries, and the bytes that they count for."""
        return len(self._store), self._store.bytes

    @property
    def look_up(self) -> Callable[[bytes], Entry | None]:
        """Finds the entry of a key, whose value is a `NearEntry`; None when the item has to be fetched.

        The store's own function: every call in between is a tenth of what a hit costs.
        """
        return self._store.get

    def get(self, key: bytes) -> NearEntry | None:
        """The item, or None when it has to be fetched. It may be a known absence."""
        entry = self._store.get(key)
        return None if entry is None else entry.value

    def seconds_left(self, kept: NearEntry) -> int | None:
        """Whole seconds until the item expires; None when it does not."""
        return None if math.isinf(kept.expires_at) else max(0, math.floor(kept.expires_at - self._clock()))

    def decoded(self, kept: NearEntry, value: Any) -> None:
        """This is its decoded value: it is kept in place of the bytes if nobody can change it, or it is said that nobody
        does.
        """
        if type(value) in self._shared or (type(value) in SCALARS and _is_as_small(value, kept.data)):
            kept.value = value
            kept.data = None

    def decoded_as(self, kept: NearEntry, decoder: object, value: Any) -> None:
        """Keep a value of the type that callers named beside the bytes, if its type is declared immutable. The bytes stay,
        because other callers may name another type.
        """
        if type(value) in self._shared:
            kept.typed = decoder, value

    # Fetches.

    def take_off(self, key: bytes) -> FetchToken:
        """Begin to fetch a key. Every flight ends with `land` or `crash`."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = FetchToken(key)
        flight.callers += 1
        return flight

    def land(self, flight: FetchToken, found: ZoneHit | None, age: float = 0.0) -> None:
        """End a fetch, and keep what it found unless the key was written since it began.

        `age`: seconds since the zone was asked, by which the time that the item has left is out of date.
        """
        self._leave(flight)
        if found is None or flight.spoiled:
            return
        if self._hot is not None and not self._hot.count(flight.key) and self._store.held(flight.key) is None:
            return  # a key that was hot, and whose time is over, is not made to prove it again
        self._keep(flight.key, found, age)

    def crash(self, flight: FetchToken) -> None:
        """End a fetch that found out nothing: it failed, or its caller was cancelled."""
        self._leave(flight)

    def expired(self, key: bytes) -> NearEntry | None:
        """The item under a key whose time here is over, if asking for its version is cheaper than fetching it again."""
        limit = self._settings.revalidate_over
        if limit is None:
            return None
        entry = self._store.held(key)
        return None if entry is None or entry.size < limit or entry.version is None else entry.value

    def renew(self, flight: FetchToken, kept: NearEntry, ttl: int, age: float = 0.0) -> bool:
        """Keep an item that the zone still has, with `ttl` seconds left. Return False if it has to be fetched after all.

        `age`: seconds since the zone was asked.
        """
        entry = self._store.held(flight.key)
        if entry is None or entry.value is not kept or flight.spoiled:
            return False
        if not self._floors.allow(flight.key, kept.version, self._clock()):
            return False
        if not kept.wrapped:
            expires_at = math.inf if ttl < 0 else self._wall() - age + ttl
            kept.life = kept.life._replace(expires_at=expires_at, stale_until=expires_at)
        left = self._seconds_to_keep(ttl, kept.life, age)
        kept.expires_at = self._clock() + left
        return self._store.renew(flight.key, left)

    # This client's own writes.

    def writing(self, key: bytes, version: int | None) -> float:
        """A write of this client's begins. Returns what those below want to know."""
        self._drop(key, version)
        if version is None:
            return self._floors.hold(key, self._clock())
        self._floors.put(key, version, self._clock())
        return 0.0

    def written(self, key: bytes, store: StoreCommand, zone: str | None, began: float, age: float = 0.0) -> None:
        """Keep a write of this client that ended with its version in the zones. `zone` is what reads report.

        `age`: seconds since it was sent.
        """
        assert store.version is not None
        # What is held stays until this replaces it: it may be of a newer write of ours, which the store will not let go.
        self._spoil(key)
        self._floors.put(key, store.version, self._clock())
        self._floors.lift(key, began)
        hit = Hit(store.data, store.flags, cas_of(store.version), seconds_of(store.ttl), stale=False, leased=False)
        self._keep(key, ZoneHit(hit, zone or "", store.version), age)
        self._drop_older(key, store.version)  # if it was not kept, what a long write outlived would stay

    def doubtful(self, key: bytes, version: int | None, began: float, *, everywhere: bool) -> None:
        """A write of this client's ended, and what the zones hold now is not known.

        `version`: what it may turn out to be, now or when a zone is brought it later; None: that can't be said, and then
        nothing is kept for a while, unless it is `everywhere`, so that a fetch which begins now finds nothing older.
        """
        self._drop(key, version)
        if version is not None or not everywhere:
            self._floors.put(key, version, self._clock())
        self._floors.lift(key, began)

    def lift(self, key: bytes, began: float) -> None:
        """A write of this client's ended without writing anything."""
        self._floors.lift(key, began)

    # What is heard through the invalidation channel.

    def changed(self, key: bytes, version: int | None) -> None:
        """Another client has written this version; None: something; `NOTHING_NEWER`: nothing new, but what is held is not
        to be served on.
        """
        self._drop(key, version)
        if version != NOTHING_NEWER:
            self._floors.put(key, version, self._clock())

    def lost_track(self, reason: str) -> None:
        """Announcements may have been missed: forget everything, and keep nothing that is being fetched, nor anything for
        a while.
        """
        del reason
        self._store.clear()
        for flight in self._flights.values():
            flight.spoiled = True
        self._flights.clear()
        self._floors.start_again(self._clock())

    def channel_up(self, up: bool) -> None:  # noqa: FBT001  # the bus's word for it
        """From now on announcements are heard, or are not: then a short time to live is what bounds staleness."""
        ttl = self._settings.seconds
        if up:
            self._store.longest_ttl = CHANNEL_TTL_SECONDS if ttl is None else ttl
        elif ttl is None or self._has_channel:
            self._store.longest_ttl = TTL_SECONDS if ttl is None else min(ttl, TTL_SECONDS)
        else:
            self._store.longest_ttl = ttl

    def drop(self, key: bytes) -> None:
        """Forget a key, whose newest version is not the one that is held."""
        self._drop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()

    def close(self) -> None:
        """Forget everything, and leave no timer behind."""
        self.clear()
        if self._sweeper is not None:
            self._sweeper.stop()

    def reopen(self) -> None:
        """Begin empty on another loop. Announcements are missed while the client is closed."""
        self._store.clear()
        for flight in self._flights.values():
            flight.spoiled = True
        self._flights.clear()
        if self._sweeper is not None:
            self._sweeper = Sweeper(self._store)
        self.channel_up(False)

    def _drop(self, key: bytes, version: int | None) -> None:
        """What is held, and what is being fetched, is older than this."""
        self._drop_older(key, version)
        self._spoil(key)

    def _drop_older(self, key: bytes, version: int | None) -> None:
        entry = self._store.held(key)
        if entry is not None and (not version or entry.version is None or entry.version < version):
            self._store.remove(key)

    def _spoil(self, key: bytes) -> None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            flight.spoiled = True

    def _leave(self, flight: FetchToken) -> None:
        flight.callers -= 1
        if not flight.callers and not flight.spoiled:
            del self._flights[flight.key]

    def _keep(self, key: bytes, found: ZoneHit, age: float) -> None:
        hit = found.hit
        if hit.ttl is None or hit.leased or hit.stale or not self._floors.allow(key, found.version, self._clock()):
            return
        try:
            content = content_of(hit, found.written_at, self._wall() - age, key=key, zone=found.zone)
        except DecodeError:
            return  # its reader is told
        left = self._seconds_to_keep(hit.ttl, content.life, age)
        kept = NearEntry(content, found, self._clock() + left)
        if kept.is_value:
            self._store.put(key, kept, len(content.data), left, found.version)
        else:
            self._store.put_absence(key, left, found.version, kept)
        if self._sweeper is not None:
            self._sweeper.wake()

    def _seconds_to_keep(self, ttl: int, life: Lifetime, age: float) -> float:
        """Return the seconds for which the item is there, as its server said `age` seconds ago, and not out of date."""
        there = math.inf if ttl < 0 else ttl - TTL_GRANULARITY_SECONDS - age
        return min(there, life.expires_at - self._wall())


SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
"""Types whose values nobody can change."""


def _is_as_small(value: Any, data: bytes | None) -> bool:
    """Whether the value takes no more memory than its bytes, about: a str of letters outside ASCII takes up to four times
    as much.
    """
    return not isinstance(value, str) or value.isascii() or len(data or b"") < _SMALL_TEXT_BYTES


# Up to this size what a str may take more than its bytes is within what each entry is charged anyway.
_SMALL_TEXT_BYTES = 64


def seconds_of(wire_ttl: int) -> int:
    """The time to live of a store, as a server would say it; an item given a date is kept for as long as any other."""
    return -1 if wire_ttl == NEVER or wire_ttl > MAX_RELATIVE_SECONDS else wire_ttl
