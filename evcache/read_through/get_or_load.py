"""Read-through of one key: a value of the near cache or the zones, or else a load.

`ReadThrough` tells the whole story. `Lookup` reads the near cache and the zones. `Loader` joins a running load or starts
one. `Load` acquires the lease, calls the loader and stores its value.

An unreachable cache is no error. The loader is then called, within the limit that always applies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from evcache._helpers.loop_affinity import LoopAffinity
from evcache.errors import DecodeError
from evcache.hooks import HookDispatcher
from evcache.load_policy import LoadPolicy
from evcache.options import Level, Seconds
from evcache.read_through.freshness import State
from evcache.read_through.loads.loader import Loader
from evcache.read_through.lookup import Lookup
from evcache.read_through.request import LoadRequest, LoadRequests
from evcache.reads.decoding import Decoding
from evcache.reads.near_values import NearValues
from evcache.replication.reconcile import ABSENCES
from evcache.stats import LoadStats
from evcache.values.flags import FLAG_ABSENT
from evcache.values.keys import Keys
from evcache.values.lifetime import Content
from evcache.zones.cluster import Cluster
from evcache.zones.snapshot import ClusterSnapshot

# Loads of a key whose value the caller cannot decode. One may not be enough. The caller may join a load that a caller of
# another type began, or that ends with the value of another process.
MAX_RELOADS = 3


class ReadThrough:
    """Reads of one client that load what the cache does not hold."""

    def __init__(
        self,
        keys: Keys,
        requests: LoadRequests,
        lookup: Lookup,
        loader: Loader,
        decoding: Decoding,
        near_values: NearValues | None,
        hooks: HookDispatcher,
        *,
        cluster: Cluster,
        affinity: LoopAffinity,
        zones_or_none: Callable[[], Awaitable[ClusterSnapshot | None]],
    ) -> None:
        """Make it for one client.

        Args:
            keys: Names of keys on the servers.
            requests: Check of arguments.
            lookup: Reads of the near cache and the zones.
            loader: Loads.
            decoding: Decoders.
            near_values: Decoding of entries of the near cache. None without a near cache.
            hooks: Receivers of reads.
            cluster: The zones of this moment.
            affinity: The event loop that the client is open in.
            zones_or_none: Opens the client. Returns None if its zones are not known in time.
        """
        self._keys = keys
        self._requests = requests
        self._lookup = lookup
        self._loader = loader
        self._decoding = decoding
        self._near_values = near_values
        self._hooks = hooks
        self._cluster = cluster
        self._affinity = affinity
        self._zones_or_none = zones_or_none

    async def get_or_load(
        self,
        key: str | bytes,
        loader: Callable[[], Awaitable[Any]],
        as_: Any,
        ttl: Seconds | None,
        policy: LoadPolicy | None,
        consistency: Level | None,
        timeout: float | None,
        *,
        near_cache: bool,
    ) -> Any:
        """Return the value of `key`, or load it. `EVCache.get_or_load` documents the arguments and errors."""
        full = self._keys.qualify(key)
        request = self._requests.make(loader, None, as_, ttl, policy, consistency, timeout, near_cache)
        zones = self._cluster.view
        if zones is None or self._affinity.open_in is not asyncio.get_running_loop():
            zones = await self._zones_or_none()
        near = self._near_values
        try:
            if near is not None and (entry := self._lookup.near_entry(full, request)) is not None:
                if entry.flags not in ABSENCES:
                    state = self._lookup.state(entry, request)
                    if state is State.FRESH or self._servable_or_refresh(zones, full, state, request):
                        if self._hooks.of_reads:
                            self._hooks.read(full, entry.zone, "near", hit=True)
                        return near.value(full, entry, request.decoder)
                elif entry.flags == FLAG_ABSENT:
                    if self._hooks.of_reads:
                        self._hooks.read(full, entry.zone, "near", hit=False)
                    return None
        except DecodeError:
            return await self._reload(zones, full, request)
        content = await self._content(zones, full, request)
        if content is None or content.flags == FLAG_ABSENT:
            return None
        try:
            return self._decoding.value(full, content, request.decoder)
        except DecodeError:
            return await self._reload(zones, full, request)

    async def _content(self, zones: ClusterSnapshot | None, key: bytes, request: LoadRequest) -> Content | None:
        """Return what the zones hold, or what the loader returns. None is an absence.

        Raises:
            LoadTimeout: The load takes longer than the caller waits.
            LoadAborted: The load was cancelled, or could not begin.
            EncodeError: The loaded value cannot be stored.
            Exception: The loader raised it.
        """
        found = await self._lookup.read(zones, key, request)
        old = None
        if found is not None:
            state = self._lookup.state(found, request)
            if state is State.FRESH or self._servable_or_refresh(zones, key, state, request):
                return found
            old = found if state is State.STALE_IF_ERROR else None
        if old is not None and self._loader.is_in_backoff(key):
            self._lookup.count_stale(None)
            return old
        call = self._loader.join_or_start(zones, [key], request)[key]
        if old is None:
            call.require()
        try:
            await self._loader.wait([call], request.patience(old is not None))
            return call.outcome()
        except Exception as error:
            if old is None:
                raise
            self._lookup.count_stale(error)
            return old

    def _servable_or_refresh(self, zones: ClusterSnapshot | None, key: bytes, state: State, request: LoadRequest) -> bool:
        """Return True if a value in this state may be served. Begin its refresh in the background if one is due."""
        if state is State.REFRESH_DUE or state is State.STALE:
            self._loader.refresh(zones, [key], request)
            if state is State.STALE:
                self._lookup.count_stale(None)
            return True
        return state is State.FRESH

    async def _reload(self, zones: ClusterSnapshot | None, key: bytes, request: LoadRequest) -> Any:
        """Load a value over one that the caller cannot decode.

        Raises:
            DecodeError: Another process keeps storing values that the caller cannot decode.
        """
        request = request.only_readable()
        content = await self._content(zones, key, request)
        for _ in range(MAX_RELOADS - 1):
            if content is None or request.can_read(content):
                break
            content = await self._content(zones, key, request)
        if content is None or content.flags == FLAG_ABSENT:
            return None
        return self._decoding.value(key, content, request.decoder)

    # The life of the client.

    def reopen(self) -> None:
        """Forget the loads of the last opening, whose tasks have ended."""
        self._loader.reopen()

    def close(self) -> None:
        """Fail the loads that ignore their cancellation, so that their callers do not wait any longer."""
        self._loader.close()

    def stats(self) -> LoadStats:
        """Return the counters of loads."""
        return self._loader.stats(self._lookup.stale_served)
