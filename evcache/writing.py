"""The operations that write without a condition. Each checks its arguments, then hands over to the write path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from evcache._steps import Steps
from evcache.config import (
    Errors,
    Ordering,
)
from evcache.lifecycle import Lifecycle
from evcache.options import Key, Level, Options, Seconds, several
from evcache.replication.guarded_store import StoreCommand
from evcache.results import WriteResult
from evcache.writes.draft import Draft
from evcache.writes.value_limits import check_size, check_sizes
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import InvalidArgument


class Writing(Lifecycle):
    """The operations that bring one value, or its absence, to every zone."""

    async def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        ordering: Ordering | None = None,
        errors: Errors | None = None,
    ) -> WriteResult:
        """Store a value in every zone for `ttl` seconds. True when enough zones have it, or have a newer one.

        A zone that misses it is brought it when it can be reached again, also after a result that is false.
        Raises `CacheUnavailable` when no zone could be reached (with `errors="miss"`: returns false); `EncodeError`,
        `ValueTooLarge`.
        """
        draft = self._draft(key, value, ttl)
        options = self._defaults.write(consistency, timeout, errors)
        newest_wins = self._defaults.newest_wins(ordering)
        view, options = self._ready(options) or await self._open(options)
        options = await check_size(view, draft, options)
        store = self._writes.store(draft, newest_wins=newest_wins)
        return await self._writes.write("set", view, draft.key, store, options)

    async def set_many(
        self,
        values: Mapping[Key, Any],
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        ordering: Ordering | None = None,
        errors: Errors | None = None,
    ) -> dict[Key, WriteResult]:
        """Store several values in every zone, as many at the same time as the zones take.

        All values are checked and encoded before any is sent; this is part of the time of the call. A cancelled call sends
        no further key. What was sent to one zone goes on in every zone.

        Args:
            values: Values by key.
            ttl: Seconds to live, or a timedelta; None: the client's default.
            consistency: How many zones must have each value; None: the client's default.
            timeout: Seconds for the whole call; None: the client's default.
            ordering: "newest" or "arrival"; None: the client's default.
            errors: "raise" or "miss"; None: the client's default.

        Returns:
            A result for each key, in the order of `values`. A key that was not sent in time has the outcome `timeout` in
            every zone, and is not sent later.

        Raises:
            CacheUnavailable: No zone could be reached for any key; not with `errors="miss"`.
            EncodeError: A value cannot be encoded. Nothing was sent.
            ValueTooLarge: A value is too large for a zone. Nothing was sent.
        """
        if not isinstance(values, Mapping):
            raise InvalidArgument("values", f"a mapping of keys to values is needed, not {type(values).__name__}")
        options = self._defaults.write(consistency, timeout, errors)
        newest_wins = self._defaults.newest_wins(ordering)
        deadline = asyncio.get_running_loop().time() + options.timeout
        drafts: dict[Key, Draft] = {}
        steps = Steps()
        for key, value in list(values.items()):  # a copy: the caller may change the mapping while this call waits
            draft = drafts[key] = self._draft(key, value, ttl)
            if steps.count(len(draft.data)):
                await asyncio.sleep(0)
        view, options = await self._ready_for_many(options, deadline)
        await check_sizes(view, drafts.values(), deadline)

        def store(draft: Draft) -> tuple[bytes, StoreCommand]:
            return draft.key, self._writes.store(draft, newest_wins=newest_wins)

        return await self._writes.write_many("set_many", view, drafts, store, options, deadline)

    async def delete(
        self,
        key: str | bytes,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        errors: Errors | None = None,
    ) -> WriteResult:
        """Make the key absent in every zone. True when enough zones have done so; whether it was there is not told.

        The delete is remembered for `tombstone_ttl` seconds, so that a late copy can't bring the value back.
        Raises `CacheUnavailable` when no zone could be reached.
        """
        full = self._keys.qualify(key)
        options = self._defaults.write(consistency, timeout, errors)
        view, options = self._ready(options) or await self._open(options)
        return await self._writes.write("delete", view, full, self._writes.delete(full), options)

    async def delete_many(
        self,
        keys: Iterable[Key],
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        errors: Errors | None = None,
    ) -> dict[Key, WriteResult]:
        """Delete several keys in every zone, as many at the same time as the zones take.

        A cancelled call sends no further key. What was sent to one zone goes on in every zone.

        Args:
            keys: The keys.
            consistency: How many zones must have deleted each key; None: the client's default.
            timeout: Seconds for the whole call; None: the client's default.
            errors: "raise" or "miss"; None: the client's default.

        Returns:
            A result for each key, in the order of `keys`. A key that was not sent in time has the outcome `timeout` in
            every zone, and is not deleted later.

        Raises:
            CacheUnavailable: No zone could be reached for any key; not with `errors="miss"`.
        """
        options = self._defaults.write(consistency, timeout, errors)
        deadline = asyncio.get_running_loop().time() + options.timeout
        full: dict[Key, bytes] = {}
        steps = Steps()
        for key in list(several(keys)):
            full[key] = self._keys.qualify(key)
            if steps.count(0):
                await asyncio.sleep(0)
        view, options = await self._ready_for_many(options, deadline)

        def delete(name: bytes) -> tuple[bytes, StoreCommand]:
            return name, self._writes.delete(name)

        return await self._writes.write_many("delete_many", view, full, delete, options, deadline)

    async def _ready_for_many(self, options: Options, deadline: float) -> tuple[ClusterSnapshot, Options]:
        """Return the zones and the options of a call that has done some work already."""
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        ready = self._ready(options)
        return ready if ready is not None else ((await self._open(options._replace(timeout=left)))[0], options)

    async def touch(
        self,
        key: str | bytes,
        ttl: Seconds | None = None,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        errors: Errors | None = None,
    ) -> WriteResult:
        """Give the value a new time to live in every zone that has it. A zone that misses the touch gets it later.

        Values alone are touched: not a deleted key, a remembered absence, or a key that is being loaded. The times of a
        value that is kept for longer than it is fresh (`stale_while_revalidate`, `stale_if_error`) move as a whole.

        Args:
            key: The key.
            ttl: Seconds or a timedelta from now; None: the client's default.
            consistency: How many zones must have touched the value; None: the client's default.
            timeout: Seconds for the whole call; None: the client's default.
            errors: "raise" or "miss"; None: the client's default.

        Returns:
            True if enough zones touched the value. False with `not_found` for zones that have none.

        Raises:
            CacheUnavailable: No zone could be reached; not with `errors="miss"`.
        """
        full = self._keys.qualify(key)
        seconds = self._defaults.ttl(ttl)
        options = self._defaults.write(consistency, timeout, errors)
        view, options = self._ready(options) or await self._open(options)
        return await self._writes.touch(view, full, seconds, options)
