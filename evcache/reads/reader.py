"""Read operations of a client: arguments, near cache, zones, and the value that the caller gets."""

from __future__ import annotations

import asyncio
import sys
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

from evcache._cluster_access import ClusterAccess
from evcache._helpers.steps import BYTES_LIKE_A_KEY, STEP_KEYS
from evcache.errors import CacheUnavailable, ConsistencyError, DecodeError
from evcache.hooks import HookDispatcher
from evcache.near_cache.coherence import CoherentNearCache
from evcache.near_cache.entry import UNDECODED, NearEntry
from evcache.options import Defaults, Errors, Key, Level, Options, Seconds, check_keys
from evcache.reads.bulk import portions
from evcache.reads.bulk.ordering import in_order
from evcache.reads.context import PlainValues
from evcache.reads.decoding import Decoder, Decoding
from evcache.reads.ordinary_read import UnusualReads, unavailable
from evcache.reads.results import SPECIAL_FLAGS, ReadResults, all_decoded
from evcache.reads.zone_reader import ZoneReader
from evcache.replication.hlc import MAX_CAS
from evcache.replication.reconcile import Answer, ZoneHit
from evcache.results import Item
from evcache.values.codec import StandardCodec
from evcache.values.flags import FLAG_BYTES
from evcache.values.keys import Keys
from evcache.zones.errors import CacheError
from evcache.zones.protocol.fields import COPY_FIELDS, NO_FLAGS, READ_FIELDS
from evcache.zones.protocol.replies import read_hit
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.transport.core import selected

# Keys that a long call checks before other tasks run: about a millisecond.
_KEYS_CHECKED_AT_ONCE = 4_096


class Reader:
    """The read operations of one client. `EVCache` describes their arguments."""

    def __init__(
        self,
        keys: Keys,
        defaults: Defaults,
        access: ClusterAccess,
        zones: ZoneReader,
        near: CoherentNearCache | None,
        decoding: Decoding,
        results: ReadResults,
        hooks: HookDispatcher,
        *,
        touch: Callable[[ClusterSnapshot, bytes, float, Options], None],
        read_for_update: Callable[[ClusterSnapshot, bytes, Options], Awaitable[ZoneHit | None]],
    ) -> None:
        """Make it for one client.

        Args:
            keys: Full names of keys.
            defaults: Options of calls that pass none.
            access: The client's zones.
            zones: Reads of the zones.
            near: The near cache, or None.
            decoding: Decoders of values.
            results: Conversion of items to what callers get.
            hooks: Listeners of the client.
            touch: Starts a touch of a key, in seconds to live, and returns at once.
            read_for_update: Reads a key from the zone that decides its conditional writes.
        """
        self._keys = keys
        self._defaults = defaults
        self._access = access
        self._cluster = access.cluster
        self._affinity = access.affinity
        self._zones = zones
        self._near = near
        self._near_entry = zones.kept
        self._recall = zones.recall
        # What a read without options does, which is checked once and not for each read.
        self._read_options = defaults.reads
        self._reads_near = near is not None and defaults.reads.one_answer
        self._decoding = decoding
        self._codec = decoding.codec
        # Flags of a value that is its own bytes.
        self._plain = FLAG_BYTES if type(decoding.codec) is StandardCodec else NO_FLAGS
        self._is_same = selected.SELECTED.is_same
        self._results = results
        self._hooks = hooks
        self._touch = touch
        self._read_for_update = read_for_update
        unusual = UnusualReads(self._get_by_default, zones, self._read_options, decoding, results, hooks)
        self.ordinary = None if self._reads_near else unusual.ordinary(keys, access, self._plain)
        """Reads that pass no option. If None, `get` does them too."""

    def near(self, key: bytes, options: Options) -> NearEntry | None:
        """Return the near cache's entry of a key, or None if the zones have to be read."""
        if self._near is None or not options.near_cache or not options.one_answer:
            return None
        return self._near_entry(key)

    async def get(
        self,
        key: str | bytes,
        default: Any,
        as_: Any,
        consistency: Level | None,
        timeout: float | None,
        errors: Errors | None,
        fallback_on_miss: bool | None,  # noqa: FBT001  # a keyword would cost each read
        near_cache: bool,  # noqa: FBT001
    ) -> Any:
        """Do what `EVCache.get` describes."""
        full = self._keys.qualify(key)
        if as_ is not None:
            as_ = self._decoding.typed(as_)
        if consistency is None and timeout is None and errors is None and fallback_on_miss is None and near_cache:
            options = self._read_options
            reads_near = self._reads_near
        else:
            options = self._defaults.read(consistency, timeout, errors, fallback_on_miss, near_cache=near_cache)
            reads_near = self._near is not None and near_cache and options.one_answer
        try:
            view = self._cluster.view
            if view is None or self._affinity.open_in is not get_running_loop():
                view, options = await self._access.open(options)
            if reads_near and (
                (entry := self._near_entry(full)) is not None
                or (self._zones.may_renew(full) and (entry := await self._zones.renewed(view, full, options)) is not None)
            ):
                if self._hooks.of_reads:
                    self._hooks.read(full, entry.zone, "near", hit=entry.is_value)
                if entry.value is not UNDECODED and as_ is None:
                    return entry.value
                return self._results.near_value(full, entry, default, as_ or self._codec)
            zones = self._zones
            if not options.one_answer or reads_near:
                found = await zones.get(view, full, options)
            elif (connection := zones.ordinary_connection(view, full)) is None:
                found = await zones.read_one(view, full, READ_FIELDS, options)
            else:
                # Most reads. It is the way of `ZoneReader.read_one` without its coroutine.
                now = view.loop.time()
                recent = self._recall(full)
                known = recent or zones.known(full, recent)
                answer: Answer
                try:
                    reply = await connection.read(
                        full,
                        READ_FIELDS,
                        now + options.timeout / view.max_attempts,
                        now + options.timeout,
                        MAX_CAS - recent if recent else 0,
                        self._plain if as_ is None else NO_FLAGS,
                    )
                    if isinstance(reply, bytes):
                        # A plain value of the version that this client saw last, which its clock has passed.
                        zones.count_served(view, full)
                        if self._hooks.of_reads:
                            self._hooks.looked_up(view, full, view.readers[0].name, hit=True)
                        return reply
                    if self._is_same(reply, recent, MAX_CAS):
                        # There is nothing to judge.
                        zones.count_served(view, full)
                        answer = ZoneHit(reply, view.readers[0].name, recent)
                    else:
                        answer = zones.judge(view, full, view.readers[0].name, read_hit(reply), recent, known)
                except CacheError as error:
                    answer = error
                if isinstance(answer, ZoneHit):
                    found = answer
                else:
                    found = await zones.read_on(view, full, READ_FIELDS, options, now, view.readers[0], known, answer)
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        if self._hooks.of_reads:
            self._results.report(view, full, found)
        if found is None:
            return default
        if found.hit.flags in SPECIAL_FLAGS:
            return self._results.value(full, found, default, as_ or self._codec)
        try:
            return (self._codec if as_ is None else as_).decode(found.hit.value, found.hit.flags)
        except DecodeError as error:
            raise self._decoding.failed(error, full, found.hit.flags, found.zone) from error

    def _get_by_default(self, key: str | bytes, default: Any) -> Coroutine[Any, Any, Any]:
        return self.get(key, default, None, None, None, None, None, True)

    async def get_item(
        self,
        key: str | bytes,
        as_: Any,
        consistency: Level | None,
        timeout: float | None,
        errors: Errors | None,
        *,
        fallback_on_miss: bool | None,
        near_cache: bool,
        for_update: bool,
    ) -> Item | None:
        """Do what `EVCache.get_item` describes."""
        full = self._keys.qualify(key)
        decoder = self._decoder(as_)
        options = self._defaults.read(consistency, timeout, errors, fallback_on_miss, near_cache=near_cache)
        try:
            view, options = self._access.ready(options) or await self._access.open(options)
            if for_update:
                found = await self._read_for_update(view, full, options)
            else:
                entry = self.near(full, options)
                if entry is not None:
                    if self._hooks.of_reads:
                        self._hooks.read(full, entry.zone, "near", hit=entry.is_value)
                    return self._results.near_item(full, entry, decoder)
                found = await self._zones.get(view, full, options, flags=COPY_FIELDS)
        except (CacheUnavailable, ConsistencyError) as error:
            self._unavailable(error, options, None)
            return None
        if self._hooks.of_reads:
            self._results.report(view, full, found)
        return self._results.item(full, found, decoder, view)

    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: Seconds | None,
        default: Any,
        as_: Any,
        consistency: Level | None,
        timeout: float | None,
        errors: Errors | None,
    ) -> Any:
        """Do what `EVCache.get_and_touch` describes."""
        full = self._keys.qualify(key)
        decoder = self._decoder(as_)
        options = self._defaults.read(consistency, timeout, errors, near_cache=False)
        seconds = self._defaults.ttl(ttl)
        try:
            view, options = self._access.ready(options) or await self._access.open(options)
            self._touch(view, full, seconds, options)
            found = await self._zones.get(view, full, options)
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        if self._hooks.of_reads:
            self._results.report(view, full, found)
        return self._results.value(full, found, default, decoder)

    async def get_many(
        self,
        keys: Iterable[Key],
        as_: Any,
        consistency: Level | None,
        timeout: float | None,
        errors: Errors | None,
        *,
        fallback_on_miss: bool | None,
        near_cache: bool,
    ) -> dict[Key, Any]:
        """Do what `EVCache.get_many` describes."""
        decoder = self._codec if as_ is None else self._decoding.typed(as_)
        given = list(check_keys(keys))
        options = self._defaults.read(consistency, timeout, errors, fallback_on_miss, near_cache=near_cache)
        try:
            if len(given) > STEP_KEYS:
                deadline = get_running_loop().time() + options.timeout
                names = await self._full_names(given)
                options = options._replace(timeout=max(0.0, deadline - get_running_loop().time()))
            else:
                names = self._keys.qualify_all(given)
            view, options = self._access.ready(options) or await self._access.open(options)
        except CacheUnavailable as error:
            self._unavailable(error, options, None)
            return {}
        # A key may be given twice, as str and as bytes. Both are in the result, and the zones are asked once.
        wanted = list(dict.fromkeys(names))
        values: dict[Key, Any] = {}
        unreadable: dict[Key, DecodeError] = {}
        if self._near is not None:
            entries = self._near_entries(wanted, options)
            for full, key in zip(names, given, strict=True):
                if full in entries and entries[full].is_value:
                    try:
                        values[key] = self._results.near_value(full, entries[full], None, decoder)
                    except DecodeError as error:
                        unreadable[key] = error
            wanted = [full for full in wanted if full not in entries]
        if not wanted:
            return all_decoded(values, unreadable)
        # `PlainValues` has one name for each key, so a key that was given twice takes the other way.
        is_plain = decoder is self._codec and len(wanted) == len(given)
        plain = PlainValues(given, self._plain, values) if is_plain else None
        found, failures, answered = await self._zones.get_many(view, wanted, options, plain=plain)
        if self._hooks.of_reads:
            await self._report(view, wanted, found, plain)
        if found:
            await self._decode(names, given, found, decoder, values, unreadable)
        if found or view.sharded or len(given) > portions.PORTION_KEYS:
            values = await in_order(given, values)
        zones = len(view.readers)
        if answered < zones and answered < (required := options.consistency.required(zones)):
            problem: CacheError = ConsistencyError("get_many", answered, required, failures, values)
            if not answered and len(failures) >= zones:  # otherwise the call did not wait for some zone
                problem = CacheUnavailable("get_many", failures, values)
            self._unavailable(problem, options, None)
        return all_decoded(values, unreadable)

    async def _report(
        self, view: ClusterSnapshot, keys: Sequence[bytes], found: Mapping[bytes, ZoneHit], plain: PlainValues | None
    ) -> None:
        """Report a bulk read. A long one runs in steps."""
        others = keys
        if plain is not None and plain.values:
            served = keys
            if found or len(plain.values) < len(keys):
                is_served = [full not in found and key in plain.values for full, key in zip(keys, plain.given, strict=True)]
                served = list(compress(keys, is_served))
                others = [full for full, is_done in zip(keys, is_served, strict=True) if not is_done]
            else:
                others = []
            for first in range(0, len(served), STEP_KEYS):
                self._hooks.looked_up_many(view, served[first : first + STEP_KEYS], view.readers[0].name)
                if first:
                    await asyncio.sleep(0)
        for number, full in enumerate(others, 1):
            self._results.report(view, full, found.get(full))
            if not number % STEP_KEYS:
                await asyncio.sleep(0)

    async def _decode(
        self,
        names: list[bytes],
        given: list[Key],
        found: Mapping[bytes, ZoneHit],
        decoder: Decoder,
        values: dict[Key, Any],
        unreadable: dict[Key, DecodeError],
    ) -> None:
        """Decode the items of a bulk read into `values`, and add errors to `unreadable`. A long call runs in steps."""
        decode_values = selected.SELECTED.decode_values
        plain = self._plain if decoder is self._codec else NO_FLAGS
        budget = STEP_KEYS if len(names) > STEP_KEYS else sys.maxsize
        position = 0
        while True:
            position, error = decode_values(
                names, given, found, position, budget, BYTES_LIKE_A_KEY, decoder.decode, plain, SPECIAL_FLAGS, values
            )
            if position >= len(names):
                return
            full, key = names[position], given[position]
            item = found[full]
            position += 1
            try:
                if isinstance(error, DecodeError):
                    raise self._decoding.failed(error, full, item.hit.flags, item.zone) from error
                if error is not None:
                    raise error
                content = self._results.content(full, item)
                if content is not None:
                    values[key] = self._decoding.value(full, content, decoder)
            except DecodeError as failed:
                unreadable[key] = failed
            if budget == STEP_KEYS:
                await asyncio.sleep(0)

    def _decoder(self, as_: Any) -> Decoder:
        return self._codec if as_ is None else self._decoding.typed(as_)

    def _near_entries(self, keys: Iterable[bytes], options: Options) -> dict[bytes, NearEntry]:
        """Return the near cache's entries of several keys, and report them."""
        entries: dict[bytes, NearEntry] = {}
        for full in keys:
            entry = self.near(full, options)
            if entry is not None:
                entries[full] = entry
                if self._hooks.of_reads:
                    self._hooks.read(full, entry.zone, "near", hit=entry.is_value)
        return entries

    def _unavailable(self, error: CacheError, options: Options, default: Any) -> Any:
        return unavailable(self._hooks, error, options, default)

    async def _full_names(self, given: Sequence[Key]) -> list[bytes]:
        names: list[bytes] = []
        for first in range(0, len(given), _KEYS_CHECKED_AT_ONCE):
            names += self._keys.qualify_all(given[first : first + _KEYS_CHECKED_AT_ONCE])
            await asyncio.sleep(0)
        return names
