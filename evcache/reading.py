"""The operations that read. Each checks its arguments, then hands over to the read path."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

from evcache.answers import Found
from evcache.codec import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE
from evcache.config import Errors
from evcache.errors import CacheUnavailable, ConsistencyError, DecodeError
from evcache.life import Content, content_of
from evcache.lifecycle import Lifecycle
from evcache.near_path import UNDECODED, Kept
from evcache.options import Key, Level, Options, Seconds, several
from evcache.results import Item, source_of
from zones.cluster import View
from zones.errors import CacheError, NodeError
from zones.protocol.requests import COPY_FLAGS

# Items that are not simply a value of the codec's.
UNUSUAL = frozenset({FLAG_TOMBSTONE, FLAG_ABSENT, FLAG_ENVELOPE})


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
            if self._near is not None and near_cache and options.one_answer:
                kept = self._reads.kept(full)
                if kept is None and self._reads.may_renew(full):
                    kept = await self._reads.renewed(view, full, options)
                if kept is not None:
                    if self._hooks.of_reads:
                        self._hooks.read(full, kept.zone, "near", hit=kept.is_value)
                    return kept.value if kept.value is not UNDECODED else self._value_kept(full, kept, default)
            found = await self._reads.get(
                view,
                full,
                options,
                fallback_on_miss=self._fallback_on_miss if fallback_on_miss is None else fallback_on_miss,
                near=near_cache,
            )
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        if self._hooks.of_reads:
            self._tell_read(view, full, found)
        if found is None:
            return default
        if found.hit.flags in UNUSUAL:
            content = self._content(full, found)
            return default if content is None else self._decode(full, content.data, content.flags, found.zone)
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
            if self._near is not None and near_cache and options.one_answer and not for_update:
                kept = self._reads.kept(full)
                if kept is not None:
                    if self._hooks.of_reads:
                        self._hooks.read(full, kept.zone, "near", hit=kept.is_value)
                    return self._item_kept(full, kept)
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
        if self._hooks.of_reads:
            self._tell_read(view, full, found)
        content = None if found is None else self._content(full, found)
        if found is None or content is None:
            return None
        left = found.hit.ttl
        if found.hit.flags == FLAG_ENVELOPE:  # its server may keep it for longer than it is fresh
            left = max(0, math.floor(content.life.expires_at - self._wall_clock()))
        return Item(
            value=self._decode(full, content.data, content.flags, found.zone),
            version=found.version if self._versions else None,
            ttl=None if left is None or left < 0 else left,
            zone=found.zone,
            source=source_of(found.zone, view.local, view.home),
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
        given = list(several(keys))
        names = self._keys.full_of_each(given)
        # One key may be given twice, as str and as bytes: both are answered, and the zones asked once.
        wanted = list(dict.fromkeys(names))
        options = self._defaults.read(consistency, timeout, errors)
        try:
            view, options = self._ready(options) or await self._open(options)
        except CacheUnavailable as error:
            self._unavailable(error, options, None)
            return {}
        if not given:
            return {}
        kept: dict[bytes, Kept] = {}
        if self._near is not None and near_cache and options.one_answer:
            kept = self._all_kept(wanted)
            wanted = [full for full in wanted if full not in kept]
        values: dict[Key, Any] = {}
        for full, key in zip(names, given, strict=True) if kept else ():
            if full in kept and kept[full].is_value:
                values[key] = self._value_kept(full, kept[full], None)
        if not wanted:
            return values
        found, failures, answered = await self._reads.get_many(
            view,
            wanted,
            options,
            fallback_on_miss=self._fallback_on_miss if fallback_on_miss is None else fallback_on_miss,
            near=near_cache,
        )
        if self._hooks.of_reads:
            for full in wanted:
                self._tell_read(view, full, found.get(full))
        decode = self._codec.decode
        for full, key in zip(names, given, strict=True):
            item = found.get(full)
            if item is None:
                continue
            data, flags = item.hit.value, item.hit.flags
            if flags in UNUSUAL:
                content = self._content(full, item)
                if content is None:
                    continue
                data, flags = content.data, content.flags
            try:
                values[key] = decode(data, flags)
            except DecodeError as error:
                raise DecodeError(error.problem, key=full, zone=item.zone, flags=flags) from error
        required = options.consistency.required(len(view.readers))
        if answered < required:
            problem: CacheError = ConsistencyError("get_many", answered, required, failures, values)
            if not answered and len(failures) == len(view.readers):  # else some zone was not waited for
                problem = CacheUnavailable("get_many", failures, values)
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
        """Return the value as `get` does, and give it a new time to live in the background.

        The touch looks at each zone first, and touches only a value there, as `touch` does.

        Args:
            key: The key.
            ttl: Seconds or a timedelta from now; None: the client's default.
            default: Returned if there is no value.
            consistency: How many zones must answer the read; None: the client's default.
            timeout: Seconds for the read; None: the client's default. The touch has as many.
            errors: "raise" or "miss"; None: the client's default.

        Returns:
            The value, or `default`. A failed touch is not reported; a zone that misses the touch gets it later.

        Raises:
            CacheUnavailable: As for `get`; so are `ConsistencyError` and `DecodeError`.
        """
        full = self._keys.full(key)
        options = self._defaults.read(consistency, timeout, errors)
        seconds = self._defaults.ttl(ttl)
        try:
            view, options = self._ready(options) or await self._open(options)
            self._writes.touch_in_background(view, full, seconds, options)
            found = await self._reads.get(view, full, options, fallback_on_miss=self._fallback_on_miss, near=False)
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        if self._hooks.of_reads:
            self._tell_read(view, full, found)
        content = None if found is None else self._content(full, found)
        return default if found is None or content is None else self._decode(full, content.data, content.flags, found.zone)

    async def _read_coordinator(self, view: View, full: bytes, options: Options) -> Found | None:
        deadline = asyncio.get_running_loop().time() + options.timeout
        pool, node = await self._coordinator.elect("get_item", view, full, deadline)
        try:
            seen = await self._coordinator.look(view, full, pool, node, deadline)
            if seen is None or seen.absent:
                return None
            return await self._reads.get_from(pool, node, full, deadline)
        except NodeError as error:
            raise CacheUnavailable("get_item", {pool.name: error}) from error

    def _unavailable(self, error: CacheError, options: Options, default: Any) -> Any:
        if options.errors == "raise":
            raise error
        self._hooks.error_as_miss(error)
        return default

    def _all_kept(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        """What the near cache has of the keys."""
        found: dict[bytes, Kept] = {}
        for full in keys:
            kept = self._reads.kept(full)
            if kept is not None:
                found[full] = kept
                if self._hooks.of_reads:
                    self._hooks.read(full, kept.zone, "near", hit=kept.is_value)
        return found

    def _tell_read(self, view: View, full: bytes, found: Found | None) -> None:
        """As the caller sees it: what is out of date is none."""
        hit = found is not None and found.is_value
        if hit and found is not None and found.hit.flags == FLAG_ENVELOPE:  # no other kind says when it is out of date
            hit = self._content(full, found) is not None
        self._hooks.looked_up(view, full, "" if found is None else found.zone, hit=hit)

    def _content(self, full: bytes, found: Found) -> Content | None:
        """What a caller may see of what was found; None for an absence, and for a value that is out of date."""
        if not found.is_value:
            return None
        content = self._any_content(full, found)
        return None if found.hit.flags == FLAG_ENVELOPE and content.life.expires_at <= self._wall_clock() else content

    def _any_content(self, full: bytes, found: Found) -> Content:
        """What was found, out of date or not."""
        return content_of(found, self._wall_clock(), full)

    def _decode(self, full: bytes, data: bytes, flags: int, zone: str) -> Any:
        try:
            return self._codec.decode(data, flags)
        except DecodeError as error:
            raise DecodeError(error.problem, key=full, zone=zone, flags=flags) from error

    def _value_kept(self, full: bytes, kept: Kept, default: Any) -> Any:
        """The value of what the near cache holds: made anew for each caller, unless nobody can change it."""
        if kept.data is None:
            return kept.value
        if not kept.is_value:
            return default
        value = self._decode(full, kept.data, kept.flags, kept.zone)
        assert self._near is not None
        self._near.decoded(kept, value)
        return value

    def _item_kept(self, full: bytes, kept: Kept) -> Item | None:
        if not kept.is_value:
            return None
        assert self._near is not None
        return Item(
            value=self._value_kept(full, kept, None),
            version=kept.version if self._versions else None,
            ttl=self._near.seconds_left(kept),
            zone=kept.zone,
            source="near",
            stale=False,
            cas_token=kept.cas,
        )
