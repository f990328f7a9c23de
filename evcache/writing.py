"""The operations that write without a condition. Each checks its arguments, then hands over to the write path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evcache.config import (
    Errors,
    Ordering,
)
from evcache.lifecycle import Lifecycle
from evcache.options import Key, Level, Seconds, several
from evcache.results import WriteResult
from zones.errors import InvalidArgument


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
        options = await self._writes.check_size(view, draft, options)
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
        """Store several values, all at once; a result for each key. All are checked and encoded before any is sent.

        Raises `CacheUnavailable` when no zone could be reached for any of them; `EncodeError`, `ValueTooLarge`.
        """
        if not isinstance(values, Mapping):
            raise InvalidArgument("values", f"a mapping of keys to values is needed, not {type(values).__name__}")
        drafts = {key: self._draft(key, value, ttl) for key, value in values.items()}
        options = self._defaults.write(consistency, timeout, errors)
        newest_wins = self._defaults.newest_wins(ordering)
        view, options = self._ready(options) or await self._open(options)
        for draft in drafts.values():
            options = await self._writes.check_size(view, draft, options)
        stores = {key: (draft.key, self._writes.store(draft, newest_wins=newest_wins)) for key, draft in drafts.items()}
        return await self._writes.write_many("set_many", view, stores, options)

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
        full = self._keys.full(key)
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
        """Delete several keys, all at once; a result for each. Raises as `delete` does, if it is so for all of them."""
        full = {key: self._keys.full(key) for key in several(keys)}
        options = self._defaults.write(consistency, timeout, errors)
        view, options = self._ready(options) or await self._open(options)
        deletes = {key: (name, self._writes.delete(name)) for key, name in full.items()}
        return await self._writes.write_many("delete_many", view, deletes, options)

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
        value that is kept for longer than it is fresh (`stale_for`, `fail_safe`) move as a whole.

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
        full = self._keys.full(key)
        seconds = self._defaults.ttl(ttl)
        options = self._defaults.write(consistency, timeout, errors)
        view, options = self._ready(options) or await self._open(options)
        return await self._writes.touch(view, full, seconds, options)
