"""The operations that read. Each checks its arguments, then hands over to the read path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from evcache.answers import Found
from evcache.codec import FLAG_TOMBSTONE
from evcache.config import (
    Errors,
)
from evcache.consistency import Consistency
from evcache.errors import CacheUnavailable, ConsistencyError, DecodeError
from evcache.lifecycle import Lifecycle
from evcache.options import Key, Level, Options, Seconds, several
from evcache.results import Item
from zones.cluster import View
from zones.errors import CacheError, NodeError
from zones.protocol.requests import COPY_FLAGS


class Reading(Lifecycle):
    """The operations that read."""

    async def get(
        self,
        key: str | bytes,
        default: Any = None,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Errors | None = None,
        near_cache: bool = True,
    ) -> Any:
        """The value, or `default` when there is none.

        From the near cache, if there is one and `near_cache` is not False; from the local zone; from another when that one
        fails, or (unless `fallback_on_miss` is False) misses. With `QUORUM` and above, the newest of what that many zones
        hold. Never older than what this client wrote or saw before: a zone that is behind counts as one that failed, and a
        miss is returned when all are.

        Raises `CacheUnavailable` when no zone could answer and
        `ConsistencyError` when fewer than asked for did (`default` for both with `errors="miss"`); `DecodeError`.
        """
        full = self._keys.full(key)
        options = self._defaults.read(consistency, timeout, errors)
        try:
            view = self._cluster.view
            if view is None or self._owner.open_in is not asyncio.get_running_loop():
                view, options = await self._open(options)
            found = await self._reads.get(
                view,
                full,
                options,
                fallback_on_miss=self._fallback_on_miss if fallback_on_miss is None else fallback_on_miss,
                near=near_cache,
            )
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        if found is None or found.hit.flags == FLAG_TOMBSTONE:
            return default
        try:
            return self._codec.decode(found.hit.value, found.hit.flags)
        except DecodeError as error:
            raise DecodeError(error.problem, key=full, zone=found.zone, flags=found.hit.flags) from error

    async def get_item(
        self,
        key: str | bytes,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Errors | None = None,
        near_cache: bool = True,
        for_update: bool = False,
    ) -> Item | None:
        """The value with its version, seconds left and origin; None when there is none. Raises as `get` does.

        `for_update`: read it in the zone that will decide about a `cas` of this key; needed on servers without versions.
        """
        full = self._keys.full(key)
        options = self._defaults.read(consistency, timeout, errors)
        try:
            view, options = self._ready(options) or await self._open(options)
            if for_update:
                found = await self._read_coordinator(view, full, options)
            else:
                found = await self._reads.get(
                    view,
                    full,
                    options,
                    fallback_on_miss=self._fallback_on_miss if fallback_on_miss is None else fallback_on_miss,
                    flags=COPY_FLAGS,
                    near=near_cache,
                )
        except (CacheUnavailable, ConsistencyError) as error:
            self._unavailable(error, options, None)
            return None
        if found is None or not found.is_value:
            return None
        left = self._near.seconds_left(full) if found.near and self._near is not None else found.hit.ttl
        return Item(
            value=self._decode(full, found),
            version=found.version if self._versions else None,
            ttl=None if left is None or left < 0 else left,
            zone=found.zone,
            source="near" if found.near else "local" if found.zone == self._local_zone else "fallback",
            stale=found.hit.stale,
            cas_token=found.hit.cas,
        )

    async def get_many(
        self,
        keys: Iterable[Key],
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Errors | None = None,
        near_cache: bool = True,
    ) -> dict[Key, Any]:
        """The values of the keys that have one, by key as it was given.

        All nodes are asked at once, the next zone only for what is missing. Raises as `get` does if any key had too few
        answers, with what was read as `found`; with `errors="miss"` those keys are missing from the result.
        """
        # One key may be given twice, as str and as bytes: both are answered.
        given: dict[bytes, list[Key]] = {}
        for key in several(keys):
            given.setdefault(self._keys.full(key), []).append(key)
        options = self._defaults.read(consistency, timeout, errors)
        try:
            view, options = self._ready(options) or await self._open(options)
        except CacheUnavailable as error:
            self._unavailable(error, options, None)
            return {}
        if not given:
            return {}
        found, failures, answered = await self._reads.get_many(
            view,
            list(given),
            options,
            fallback_on_miss=self._fallback_on_miss if fallback_on_miss is None else fallback_on_miss,
            near=near_cache,
        )
        values = {key: self._decode(full, item) for full, item in found.items() for key in given[full]}
        required = options.consistency.required(len(view.readers))
        if answered < required:
            problem: CacheError = CacheUnavailable("get_many", failures, values)
            if answered:
                problem = ConsistencyError("get_many", answered, required, failures, values)
            self._unavailable(problem, options, None)
        return values

    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: Seconds | None = None,
        default: Any = None,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        errors: Errors | None = None,
    ) -> Any:
        """The value, or `default`, as `get`; and the item gets `ttl` seconds in every zone, which is not waited for."""
        full = self._keys.full(key)
        options = self._defaults.read(consistency, timeout, errors)
        command = self._writes.touch(full, self._defaults.ttl(ttl))
        try:
            view, options = self._ready(options) or await self._open(options)
            # Both at once: in the usual case they travel in one packet.
            self._writes.start(view, full, command, options._replace(consistency=Consistency.NONE))
            found = await self._reads.get(view, full, options, fallback_on_miss=self._fallback_on_miss, near=False)
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        return default if found is None or not found.is_value else self._decode(full, found)

    async def _read_coordinator(self, view: View, full: bytes, options: Options) -> Found | None:
        deadline = asyncio.get_running_loop().time() + options.timeout
        pool, node = await self._coordinator.elect("get_item", view, full, deadline)
        try:
            return await self._reads.get_from(pool, node, full, deadline)
        except NodeError as error:
            raise CacheUnavailable("get_item", {pool.name: error}) from error

    def _unavailable(self, error: CacheError, options: Options, default: Any) -> Any:
        if options.errors == "raise":
            raise error
        self._hooks.error_as_miss(error)
        return default

    def _decode(self, full: bytes, found: Found) -> Any:
        try:
            return self._codec.decode(found.hit.value, found.hit.flags)
        except DecodeError as error:
            raise DecodeError(error.problem, key=full, zone=found.zone, flags=found.hit.flags) from error
