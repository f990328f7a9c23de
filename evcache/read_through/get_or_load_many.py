"""Read-through of several keys: values of the near cache or the zones, and one load of those that are missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from evcache._helpers.steps import STEP_KEYS, Steps
from evcache.errors import DecodeError
from evcache.hooks import HookDispatcher
from evcache.load_policy import LoadPolicy
from evcache.near_cache.entry import NearEntry
from evcache.options import Key, Level, Seconds, check_keys
from evcache.read_through.freshness import State
from evcache.read_through.get_or_load import MAX_RELOADS
from evcache.read_through.loads.loader import Loader
from evcache.read_through.lookup import Lookup
from evcache.read_through.request import LoadRequest, LoadRequests
from evcache.reads.decoding import Decoding
from evcache.reads.near_values import NearValues
from evcache.values.flags import FLAG_ABSENT
from evcache.values.keys import Keys
from evcache.values.lifetime import Content
from evcache.zones.errors import CacheError
from evcache.zones.snapshot import ClusterSnapshot

Contents = dict[bytes, Content | None]
"""Loaded or found values. None is an absence."""


class BulkReadThrough:
    """Reads of several keys that load what the cache does not hold."""

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
        zones_or_none: Callable[[], Awaitable[ClusterSnapshot | None]],
    ) -> None:
        """Make it for one client. `ReadThrough` has the same parts."""
        self._keys = keys
        self._requests = requests
        self._lookup = lookup
        self._loader = loader
        self._decoding = decoding
        self._near_values = near_values
        self._hooks = hooks
        self._zones_or_none = zones_or_none

    async def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Key]], Awaitable[Mapping[Key, Any]]],
        as_: Any,
        ttl: Seconds | None,
        policy: LoadPolicy | None,
        consistency: Level | None,
        timeout: float | None,
        *,
        near_cache: bool,
    ) -> dict[Key, Any]:
        """Return the values of `keys`. `EVCache.get_or_load_many` documents the arguments and errors."""
        names: dict[bytes, list[Key]] = {}
        for number, key in enumerate(list(check_keys(keys)), 1):
            names.setdefault(self._keys.qualify(key), []).append(key)
            if not number % STEP_KEYS:
                await asyncio.sleep(0)
        request = self._requests.make(loader, names, as_, ttl, policy, consistency, timeout, near_cache)
        if not names:
            return {}
        zones = await self._zones_or_none()
        entries: dict[bytes, NearEntry] = {}
        if self._near_values is not None:
            entries = {full: entry for full in names if (entry := self._lookup.near_entry(full, request)) is not None}
        wanted = [full for full in names if full not in entries or entries[full].flags != FLAG_ABSENT]
        contents = await self._contents(zones, wanted, entries, request) if wanted else {}
        values: dict[Key, Any] = {}
        unreadable: list[bytes] = []
        steps = Steps()
        for full in wanted:
            content = contents.get(full)
            if steps.count(0 if content is None else len(content.data)):
                await asyncio.sleep(0)
            if content is None and full in contents:
                continue
            if content is None and self._hooks.of_reads:
                self._hooks.read(full, entries[full].zone, "near", hit=True)
            try:
                for name in names[full]:  # each name gets its own object
                    values[name] = self._value(full, entries[full] if content is None else content, request)
            except DecodeError:
                unreadable.append(full)
        if not unreadable:
            return values
        for full, content in (await self._reload(zones, unreadable, request)).items():
            if content is not None:
                for name in names[full]:
                    values[name] = self._decoding.value(full, content, request.decoder)
        return {name: values[name] for full in names for name in names[full] if name in values}

    def _value(self, key: bytes, found: Content | NearEntry, request: LoadRequest) -> Any:
        if isinstance(found, NearEntry):
            assert self._near_values is not None
            return self._near_values.value(key, found, request.decoder)
        return self._decoding.value(key, found, request.decoder)

    async def _contents(
        self, zones: ClusterSnapshot | None, keys: Sequence[bytes], entries: Mapping[bytes, NearEntry], request: LoadRequest
    ) -> Contents:
        """Return what the zones hold, and what the loader returns for the other keys.

        Args:
            zones: The zones.
            keys: Keys as servers know them.
            entries: Entries of the near cache. Keys whose entry may be served are not in the result.
            request: The call.

        Raises:
            Exception: The load of a key failed, as for one key.
        """
        held: Contents = {}
        old: dict[bytes, Content] = {}
        states = {key: self._lookup.state(entry, request) for key, entry in entries.items() if entry.is_value}
        due = [key for key, state in states.items() if state is State.REFRESH_DUE]
        unknown = [key for key in keys if states.get(key) not in (State.FRESH, State.REFRESH_DUE)]
        found = await self._lookup.read_many(zones, unknown, request)
        for number, (key, content) in enumerate(found.items(), 1):
            if not number % STEP_KEYS:
                await asyncio.sleep(0)
            state = self._lookup.state(content, request)
            if state is State.EXPIRED:
                continue
            if state is State.STALE_IF_ERROR and not self._loader.is_in_backoff(key):
                old[key] = content
                continue
            held[key] = content
            if state is State.REFRESH_DUE or state is State.STALE:
                due.append(key)
            if state is State.STALE or state is State.STALE_IF_ERROR:
                self._lookup.count_stale(None)
        if due:
            self._loader.refresh(zones, due, request)
        missing = [key for key in unknown if key not in held]
        if missing:
            held |= await self._load(zones, missing, old, request)
        return {key: None if content is None or content.flags == FLAG_ABSENT else content for key, content in held.items()}

    async def _load(
        self, zones: ClusterSnapshot | None, keys: Sequence[bytes], old: Mapping[bytes, Content], request: LoadRequest
    ) -> Contents:
        """Return loaded values. A key of `old` gets its old value if its load fails, or takes too long."""
        calls = self._loader.join_or_start(zones, keys, request)
        for key, call in calls.items():
            if key not in old:
                call.require()
        late: CacheError | None = None
        try:
            await self._loader.wait(list(calls.values()), request.patience(len(old) == len(keys)))
        except CacheError as error:
            if old.keys() != calls.keys():
                raise
            late = error
        loaded: Contents = {}
        failures: dict[bytes, Exception] = {}
        for key, call in calls.items():
            if late is not None and not call.is_resolved:
                failures[key] = late
                continue
            try:
                loaded[key] = call.outcome()
            except Exception as error:
                if key not in old:
                    raise
                failures[key] = error
        for key, failure in failures.items():
            loaded[key] = old[key]
            self._lookup.count_stale(failure)
        return loaded

    async def _reload(self, zones: ClusterSnapshot | None, keys: Sequence[bytes], request: LoadRequest) -> Contents:
        """Load keys over values that the caller cannot decode."""
        request = request.only_readable()
        contents = await self._contents(zones, keys, {}, request)
        for _ in range(MAX_RELOADS - 1):
            unreadable = [key for key, content in contents.items() if content is not None and not request.can_read(content)]
            if not unreadable:
                break
            contents |= await self._contents(zones, unreadable, {}, request)
        return contents
