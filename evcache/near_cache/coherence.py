"""Coherence of the near cache with the zones: which items it may store, and which a write removes.

Two races matter.

A write during a fetch:

1. A read fetches the old value of a key.
2. A client writes the key.
3. The read would store the old value.

So each fetch has a token, and a write of the key invalidates the token. The reader still gets its value, and the near cache
does not store it.

A fetch between an invalidation and its write:

1. The invalidation of a write arrives.
2. A fetch begins, and reads the old value from a replica that has not applied the write yet.

So version fences reject older versions for some seconds (`evcache.near_cache.version_fences`).

An invalidation channel reports writes of other processes. Without a channel, or while it is down, a short TTL bounds the
time for which such a write goes unnoticed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from evcache.errors import DecodeError
from evcache.near_cache.entry import SCALARS, NearEntry, is_as_small
from evcache.near_cache.hot_keys import HotKeys
from evcache.near_cache.s3fifo import Entry
from evcache.near_cache.settings import CHANNEL_TTL_SECONDS, TTL_SECONDS, NearCache, NearStats
from evcache.near_cache.store import NearStore
from evcache.near_cache.sweeper import Sweeper
from evcache.near_cache.version_fences import NO_BLOCK, Block, VersionFences
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.hlc import NOTHING_NEWER, cas_of
from evcache.replication.reconcile import ZoneHit
from evcache.results import RemovalCause
from evcache.values.lifetime import Lifetime, content_of
from evcache.values.ttl import MAX_RELATIVE_SECONDS, NEVER, TTL_GRANULARITY_SECONDS
from evcache.zones.protocol.replies import Hit


class FetchToken:
    """Concurrent fetches of one key since its last invalidation."""

    __slots__ = ("callers", "invalidated", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.callers = 0
        self.invalidated = False


class CoherentNearCache:
    """Near cache of one client."""

    def __init__(
        self,
        settings: NearCache,
        clock: Callable[[], float] = time.monotonic,
        *,
        unix_time: Callable[[], float] = time.time,
        has_channel: bool = False,
        sweeps: bool = True,
        on_remove: Callable[[bytes, RemovalCause], None] | None = None,
    ) -> None:
        """Create an empty near cache.

        Args:
            settings: Limits.
            clock: Returns monotonic seconds.
            unix_time: Returns unix time in seconds.
            has_channel: True if a channel reports writes of other processes while `set_channel_up` says so.
            sweeps: True if a timer frees expired entries. It needs a running loop.
            on_remove: Called for each removed entry.
        """
        self._settings = settings
        self._store = NearStore(settings, clock, on_remove)
        self._clock = clock
        self._unix_time = unix_time
        self._fetches: dict[bytes, FetchToken] = {}
        self._fences = VersionFences(settings.grace)
        self._hot = None if settings.hot_reads is None else HotKeys(settings.hot_reads, clock)
        self._shared = frozenset(settings.immutable)
        self._has_channel = has_channel
        self._sweeper = Sweeper(self._store) if sweeps else None
        self.set_channel_up(False)

    @property
    def stats(self) -> NearStats:
        """Counters of hits, misses and removals."""
        return self._store.stats

    @property
    def size(self) -> tuple[int, int]:
        """Number of entries, and the bytes that they count for."""
        return len(self._store), self._store.bytes

    @property
    def look_up(self) -> Callable[[bytes], Entry | None]:
        """The store's function that returns the entry of a key, or None. The entry's value is a `NearEntry`.

        A method of this class would add a call, which is a tenth of the cost of a hit.
        """
        return self._store.get

    def seconds_left(self, entry: NearEntry) -> int | None:
        """Return the whole seconds until the item expires, or None if it never does."""
        return None if math.isinf(entry.expires_at) else max(0, math.floor(entry.expires_at - self._clock()))

    def store_decoded(self, entry: NearEntry, value: Any) -> None:
        """Store the decoded value instead of the bytes if its type is immutable or declared immutable."""
        if type(value) in self._shared or (type(value) in SCALARS and is_as_small(value, entry.data)):
            entry.replace_data(value)

    def store_typed(self, entry: NearEntry, decoder: object, value: Any) -> None:
        """Store a value of the type that callers named beside the bytes, if its type is declared immutable.

        The bytes stay, because other callers may name another type.
        """
        if type(value) in self._shared:
            entry.add_typed(decoder, value)

    # Fetches.

    def begin_fetch(self, key: bytes) -> FetchToken:
        """Begin to fetch a key. Each fetch ends with `complete` or `abandon`."""
        token = self._fetches.get(key)
        if token is None:
            token = self._fetches[key] = FetchToken(key)
        token.callers += 1
        return token

    def complete(self, token: FetchToken, found: ZoneHit | None, age: float = 0.0) -> None:
        """End a fetch, and store its result unless the key was written since the fetch began.

        Args:
            token: Result of `begin_fetch`.
            found: Result of the fetch. If None, no zone holds the key.
            age: Seconds since the zone was asked. The remaining TTL of the item is older by this time.
        """
        self._end_fetch(token)
        if found is None or token.invalidated:
            return
        if self._hot is not None and not self._hot.count(token.key) and self._store.peek(token.key) is None:
            return  # an expired entry was hot, and need not become hot again
        self._admit(token.key, found, age)

    def abandon(self, token: FetchToken) -> None:
        """End a fetch without a result: it failed, or its caller was cancelled."""
        self._end_fetch(token)

    def expired_entry(self, key: bytes) -> NearEntry | None:
        """Return the entry of a key, if it is large enough to revalidate when it expires. Otherwise return None."""
        limit = self._settings.revalidate_over
        if limit is None:
            return None
        entry = self._store.peek(key)
        return None if entry is None or entry.size < limit or entry.version is None else entry.value

    def renew(self, token: FetchToken, kept: NearEntry, ttl: int, age: float = 0.0) -> bool:
        """Extend the life of an entry that its zone still holds unchanged.

        Args:
            token: Result of `begin_fetch`.
            kept: Entry that was revalidated.
            ttl: Remaining TTL in seconds. If negative, the item does not expire.
            age: Seconds since the zone was asked.

        Returns:
            False if the item must be fetched, because the entry or the key has changed.
        """
        entry = self._store.peek(token.key)
        if entry is None or entry.value is not kept or token.invalidated:
            return False
        if not self._fences.admits(token.key, kept.version, self._clock()):
            return False
        life = kept.life
        if not kept.has_envelope:
            expires_at = math.inf if ttl < 0 else self._unix_time() - age + ttl
            life = life._replace(expires_at=expires_at, stale_until=expires_at)
        left = self._lifetime(ttl, life, age)
        kept.renew(life, self._clock() + left)
        return self._store.renew(token.key, left)

    # Writes of this client.

    def begin_write(self, key: bytes, version: int | None) -> Block:
        """Begin a write of this client.

        Args:
            key: Full key.
            version: Version of the write. If None, it is unknown, and nothing is stored until the write ends.

        Returns:
            The handle for the function that ends the write.
        """
        self._invalidate(key, version)
        if version is None:
            return self._fences.block(key, self._clock())
        self._fences.raise_to(key, version, self._clock())
        return NO_BLOCK

    def complete_write(self, key: bytes, store: StoreCommand, zone: str | None, block: Block, age: float = 0.0) -> None:
        """End a write that the zones have taken with its version, and store the value.

        Args:
            key: Full key.
            store: The write.
            zone: Zone that reads report.
            block: Result of `begin_write`.
            age: Seconds since the write was sent.
        """
        assert store.version is not None
        # The present entry stays until this value replaces it. It may come from a newer write of this client, and the store
        # does not replace a newer version.
        self._invalidate_fetch(key)
        self._fences.raise_to(key, store.version, self._clock())
        self._fences.unblock(key, block)
        hit = Hit(store.data, store.flags, cas_of(store.version), reported_ttl(store.ttl), stale=False, leased=False)
        self._admit(key, ZoneHit(hit, zone or "", store.version), age)
        self._drop_older(key, store.version)  # if the value was rejected, an entry from the time of the write would stay

    def complete_uncertain_write(self, key: bytes, version: int | None, block: Block, *, everywhere: bool) -> None:
        """End a write after which the content of the zones is unknown.

        Args:
            key: Full key.
            version: Version that a zone may have, now or after a hint is delivered. If None, it is unknown.
            block: Result of `begin_write`.
            everywhere: True if all zones have applied the write. Without a version and without this, nothing is stored for
                the grace time.
        """
        self._invalidate(key, version)
        if version is not None or not everywhere:
            self._fences.raise_to(key, version, self._clock())
        self._fences.unblock(key, block)

    def cancel_write(self, key: bytes, block: Block) -> None:
        """End a write that has changed nothing."""
        self._fences.unblock(key, block)

    # Messages of the invalidation channel.

    def invalidate(self, key: bytes, version: int | None) -> None:
        """Drop older entries of a key that another client has written.

        Args:
            key: Full key.
            version: Version of the write. If None, it is unknown. If `NOTHING_NEWER`, the entry must go although no newer
                version exists.
        """
        self._invalidate(key, version)
        if version != NOTHING_NEWER:
            self._fences.raise_to(key, version, self._clock())

    def invalidate_all(self) -> None:
        """Drop all entries and fetches, because invalidations may have been lost. Store nothing for the grace time."""
        self._store.clear()
        self._invalidate_fetches()
        self._fences.block_all(self._clock())

    def set_channel_up(self, up: bool) -> None:  # noqa: FBT001  # the method of `Listener`
        """Set if invalidations arrive. While they do not, a short TTL bounds staleness."""
        ttl = self._settings.seconds
        if up:
            self._store.limit_ttl(CHANNEL_TTL_SECONDS if ttl is None else ttl)
        elif ttl is None or self._has_channel:
            self._store.limit_ttl(TTL_SECONDS if ttl is None else min(ttl, TTL_SECONDS))
        else:
            self._store.limit_ttl(ttl)

    def drop(self, key: bytes) -> None:
        """Drop the entry and the fetches of a key that has a newer version."""
        self._invalidate(key, None)

    def clear(self) -> None:
        """Drop all entries."""
        self._store.clear()

    def close(self) -> None:
        """Drop all entries, and stop the timer."""
        self.clear()
        if self._sweeper is not None:
            self._sweeper.stop()

    def reopen(self) -> None:
        """Start empty on another loop, because a closed client receives no invalidations."""
        self._store.clear()
        self._invalidate_fetches()
        if self._sweeper is not None:
            self._sweeper = Sweeper(self._store)
        self.set_channel_up(False)

    def _invalidate(self, key: bytes, version: int | None) -> None:
        self._drop_older(key, version)
        self._invalidate_fetch(key)

    def _drop_older(self, key: bytes, version: int | None) -> None:
        entry = self._store.peek(key)
        if entry is not None and (not version or entry.version is None or entry.version < version):
            self._store.remove(key)

    def _invalidate_fetch(self, key: bytes) -> None:
        token = self._fetches.pop(key, None)
        if token is not None:
            token.invalidated = True

    def _invalidate_fetches(self) -> None:
        for token in self._fetches.values():
            token.invalidated = True
        self._fetches.clear()

    def _end_fetch(self, token: FetchToken) -> None:
        token.callers -= 1
        if not token.callers and not token.invalidated:
            del self._fetches[token.key]

    def _admit(self, key: bytes, found: ZoneHit, age: float) -> None:
        """Store an item unless a fence rejects it, or its remaining life is unknown."""
        hit = found.hit
        if hit.ttl is None or hit.leased or hit.stale or not self._fences.admits(key, found.version, self._clock()):
            return
        try:
            content = content_of(hit, found.written_at, self._unix_time() - age, key=key, zone=found.zone)
        except DecodeError:
            return  # the reader of the item gets the error
        left = self._lifetime(hit.ttl, content.life, age)
        entry = NearEntry(content, found, self._clock() + left)
        if entry.is_value:
            self._store.put(key, entry, len(content.data), left, found.version)
        else:
            self._store.put_absence(key, left, found.version, entry)
        if self._sweeper is not None:
            self._sweeper.wake()

    def _lifetime(self, ttl: int, life: Lifetime, age: float) -> float:
        """Return the seconds until the item expires, by its server's TTL `age` seconds ago and by its envelope."""
        on_server = math.inf if ttl < 0 else ttl - TTL_GRANULARITY_SECONDS - age
        return min(on_server, life.expires_at - self._unix_time())


def reported_ttl(exptime: int) -> int:
    """Return the TTL that a server reports for a store with this exptime. An absolute exptime counts as no expiry."""
    return -1 if exptime == NEVER or exptime > MAX_RELATIVE_SECONDS else exptime
