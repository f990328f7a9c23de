"""The operations that read. Each checks its arguments, then hands over to the read path."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, Unpack, overload

from evcache._steps import STEP_KEYS, Steps
from evcache.config import Errors
from evcache.errors import CacheUnavailable, ConsistencyError, DecodeError
from evcache.near_cache.entry import UNDECODED, NearEntry
from evcache.options import ItemOptions, Key, Level, Options, ReadOptions, Seconds, TouchOptions, several
from evcache.read_results import UNUSUAL, ReadResults
from evcache.replication.reconcile import ZoneHit
from evcache.results import Item, source_of
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.type_forms import TypeForm
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, NodeError
from evcache.zones.protocol.fields import COPY_FIELDS

T = TypeVar("T")
D = TypeVar("D")

# Keys that are checked in one step of a long call: about a millisecond.
NAMES_IN_A_STEP = 4_096


class Reading(ReadResults):
    """The operations that read."""

    @overload
    async def get(
        self, key: str | bytes, default: Any = None, *, as_: None = None, **options: Unpack[ReadOptions]
    ) -> Any: ...
    @overload
    async def get(
        self, key: str | bytes, default: None = None, *, as_: TypeForm[T], **options: Unpack[ReadOptions]
    ) -> T | None: ...
    @overload
    async def get(self, key: str | bytes, default: D, *, as_: TypeForm[T], **options: Unpack[ReadOptions]) -> T | D: ...
    async def get(
        self,
        key: str | bytes,
        default: Any = None,
        *,
        as_: Any = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Errors | None = None,
        near_cache: bool = True,
    ) -> Any:
        """Return the value, or `default` if there is none.

        The value comes from the near cache or the local zone. If the local zone fails or misses, another zone answers.
        A zone that holds an older version than this client wrote or saw counts as failed. If all do, the result is a miss.
        A cancelled call leaves nothing behind.

        Args:
            key: The key.
            default: Returned if there is no value.
            as_: The type of the value: a class, or an expression such as `list[User]`. If None, the codec decides. See
                docs/values.md.
            consistency: How many zones must answer. With `QUORUM` and above, the newest of their values is returned. If
                None, the client's default.
            timeout: Seconds for the whole call. If None, the client's default.
            fallback_on_miss: False to take the local zone's miss for an answer. If None, the client's default.
            errors: "raise", or "miss" to return `default` in place of the first two errors. If None, the client's default.
            near_cache: False to pass by the near cache.

        Returns:
            The value, or `default`.

        Raises:
            CacheUnavailable: No zone could answer.
            ConsistencyError: Fewer zones answered than the call asked for.
            DecodeError: The value cannot be decoded, or does not fit `as_`.
            InvalidArgument: An argument cannot be used. For example, values of the type `as_` cannot be read back.
        """
        full = self._keys.qualify(key)
        if as_ is not None:
            as_ = self._decoding.typed(as_)
        if consistency is None and timeout is None and errors is None and fallback_on_miss is None and near_cache:
            options = self._defaults.reads
        else:
            options = self._defaults.read(consistency, timeout, errors, fallback_on_miss, near_cache=near_cache)
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
                    if kept.value is not UNDECODED and as_ is None:
                        return kept.value
                    return self._value_kept(full, kept, default, as_ or self._codec)
            found = await self._reads.get(view, full, options)
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        if self._hooks.of_reads:
            self._tell_read(view, full, found)
        if found is None:
            return default
        if found.hit.flags in UNUSUAL:
            content = self._content(full, found)
            return default if content is None else self._decoding.value(full, content, as_ or self._codec)
        try:
            return (self._codec if as_ is None else as_).decode(found.hit.value, found.hit.flags)
        except DecodeError as error:
            raise self._decoding.failed(error, full, found.hit.flags, found.zone) from error

    @overload
    async def get_item(self, key: str | bytes, *, as_: None = None, **options: Unpack[ItemOptions]) -> Item | None: ...
    @overload
    async def get_item(self, key: str | bytes, *, as_: TypeForm[T], **options: Unpack[ItemOptions]) -> Item[T] | None: ...
    async def get_item(
        self,
        key: str | bytes,
        *,
        as_: Any = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Errors | None = None,
        near_cache: bool = True,
        for_update: bool = False,
    ) -> Item | None:
        """Return the value with its version, seconds left and origin; None if there is none.

        Arguments, errors and cancellation are those of `get`. With `for_update`, the client reads the zone that will decide
        about a `cas` of this key. Servers without versions need it.
        """
        full = self._keys.qualify(key)
        decoder = self._codec if as_ is None else self._decoding.typed(as_)
        options = self._defaults.read(consistency, timeout, errors, fallback_on_miss, near_cache=near_cache)
        try:
            view, options = self._ready(options) or await self._open(options)
            if self._near is not None and near_cache and options.one_answer and not for_update:
                kept = self._reads.kept(full)
                if kept is not None:
                    if self._hooks.of_reads:
                        self._hooks.read(full, kept.zone, "near", hit=kept.is_value)
                    return self._item_kept(full, kept, decoder)
            if for_update:
                found = await self._read_coordinator(view, full, options)
            else:
                found = await self._reads.get(view, full, options, flags=COPY_FIELDS)
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
            value=self._decoding.value(full, content, decoder),
            version=found.version if self._versions else None,
            ttl=None if left is None or left < 0 else left,
            zone=found.zone,
            source=source_of(found.zone, view.local, view.preferred_zone),
            stale=found.hit.stale,
            cas_token=found.hit.cas,
        )

    @overload
    async def get_many(self, keys: Iterable[Key], *, as_: None = None, **options: Unpack[ReadOptions]) -> dict[Key, Any]: ...
    @overload
    async def get_many(self, keys: Iterable[Key], *, as_: TypeForm[T], **options: Unpack[ReadOptions]) -> dict[Key, T]: ...
    async def get_many(
        self,
        keys: Iterable[Key],
        *,
        as_: Any = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Errors | None = None,
        near_cache: bool = True,
    ) -> dict[Key, Any]:
        """Return the values of the keys that have one, by key as given.

        The client asks all nodes of a zone at once, and the next zone only for keys that are still missing. It reads very
        many keys in portions: a key whose portion was not read by the deadline has no answer. Arguments and cancellation are
        those of `get`.

        Raises:
            CacheUnavailable: No zone could answer. With `errors="miss"`, the keys are missing from the result.
            ConsistencyError: Some key had too few answers. `found` holds the values that were read. With `errors="miss"`,
                the keys with too few answers are missing from the result.
            DecodeError: Some value cannot be decoded, or does not fit `as_`. `found` holds the values that can,
                `unreadable` the keys whose values cannot.
            InvalidArgument: An argument cannot be used.
        """
        decoder = self._codec if as_ is None else self._decoding.typed(as_)
        given = list(several(keys))
        options = self._defaults.read(consistency, timeout, errors, fallback_on_miss, near_cache=near_cache)
        is_long = len(given) > STEP_KEYS
        deadline = asyncio.get_running_loop().time() + options.timeout if is_long else 0.0
        names = await self._names(given) if is_long else self._keys.qualify_all(given)
        # One key may be given twice, as str and as bytes: both are answered, and the zones asked once.
        wanted = list(dict.fromkeys(names))
        try:
            if is_long:
                options = options._replace(timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
            view, options = self._ready(options) or await self._open(options)
        except CacheUnavailable as error:
            self._unavailable(error, options, None)
            return {}
        if not given:
            return {}
        kept: dict[bytes, NearEntry] = {}
        if self._near is not None and near_cache and options.one_answer:
            kept = self._all_kept(wanted)
            wanted = [full for full in wanted if full not in kept]
        values: dict[Key, Any] = {}
        unread: dict[Key, DecodeError] = {}
        for full, key in zip(names, given, strict=True) if kept else ():
            if full in kept and kept[full].is_value:
                try:
                    values[key] = self._value_kept(full, kept[full], None, decoder)
                except DecodeError as error:
                    unread[key] = error
        if not wanted:
            return self._all_read(values, unread)
        found, failures, answered = await self._reads.get_many(view, wanted, options)
        if self._hooks.of_reads:
            for number, full in enumerate(wanted, 1):
                self._tell_read(view, full, found.get(full))
                if not number % STEP_KEYS:
                    await asyncio.sleep(0)
        decode = decoder.decode
        steps = Steps()
        for full, key in zip(names, given, strict=True):
            item = found.get(full)
            if item is None:
                continue
            data, flags = item.hit.value, item.hit.flags
            if is_long and steps.count(len(data)):
                await asyncio.sleep(0)
            try:
                if flags in UNUSUAL:
                    content = self._content(full, item)
                    if content is not None:
                        values[key] = self._decoding.value(full, content, decoder)
                    continue
                values[key] = decode(data, flags)
            except DecodeError as error:  # with a key, if it has been counted
                unread[key] = error if error.key else self._decoding.failed(error, full, flags, item.zone)
        required = options.consistency.required(len(view.readers))
        if answered < required:
            problem: CacheError = ConsistencyError("get_many", answered, required, failures, values)
            if not answered and len(failures) == len(view.readers):  # else some zone was not waited for
                problem = CacheUnavailable("get_many", failures, values)
            self._unavailable(problem, options, None)
        return self._all_read(values, unread)

    @overload
    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: Seconds | None = None,
        default: Any = None,
        *,
        as_: None = None,
        **options: Unpack[TouchOptions],
    ) -> Any: ...
    @overload
    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: Seconds | None = None,
        default: None = None,
        *,
        as_: TypeForm[T],
        **options: Unpack[TouchOptions],
    ) -> T | None: ...
    @overload
    async def get_and_touch(
        self, key: str | bytes, ttl: Seconds | None, default: D, *, as_: TypeForm[T], **options: Unpack[TouchOptions]
    ) -> T | D: ...
    @overload
    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: Seconds | None = None,
        *,
        default: D,
        as_: TypeForm[T],
        **options: Unpack[TouchOptions],
    ) -> T | D: ...
    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: Seconds | None = None,
        default: Any = None,
        *,
        as_: Any = None,
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
            as_: The type of the value, as for `get`.
            consistency: How many zones must answer the read; None: the client's default.
            timeout: Seconds for the read; None: the client's default. The touch has as many.
            errors: "raise" or "miss"; None: the client's default.

        Returns:
            The value, or `default`. A failed touch is not reported; a zone that misses the touch gets it later.

        Raises:
            CacheUnavailable: As for `get`; so are `ConsistencyError` and `DecodeError`.
        """
        full = self._keys.qualify(key)
        decoder = self._codec if as_ is None else self._decoding.typed(as_)
        options = self._defaults.read(consistency, timeout, errors, None, near_cache=False)
        seconds = self._defaults.ttl(ttl)
        try:
            view, options = self._ready(options) or await self._open(options)
            self._writes.touch_in_background(view, full, seconds, options)
            found = await self._reads.get(view, full, options)
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        if self._hooks.of_reads:
            self._tell_read(view, full, found)
        content = None if found is None else self._content(full, found)
        return default if content is None else self._decoding.value(full, content, decoder)

    async def _read_coordinator(self, view: ClusterSnapshot, full: bytes, options: Options) -> ZoneHit | None:
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

    async def _names(self, given: Sequence[Key]) -> list[bytes]:
        """Return the full names of many keys, in steps."""
        names: list[bytes] = []
        for first in range(0, len(given), NAMES_IN_A_STEP):
            names += self._keys.qualify_all(given[first : first + NAMES_IN_A_STEP])
            await asyncio.sleep(0)
        return names
