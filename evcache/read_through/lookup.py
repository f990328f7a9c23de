"""Lookup of values in the near cache and the zones, and their freshness."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence

from evcache._helpers.steps import STEP_KEYS
from evcache.errors import CacheUnavailable, ConsistencyError, DecodeError
from evcache.hooks import HookDispatcher
from evcache.near_cache.entry import NearEntry
from evcache.read_through.freshness import State, state_of
from evcache.read_through.loads.single_flight import SingleFlight
from evcache.read_through.request import LoadRequest
from evcache.reads.decoding import Decoding
from evcache.reads.zone_reader import ZoneReader
from evcache.replication.reconcile import ZoneHit
from evcache.values.flags import FLAG_ABSENT, FLAG_TOMBSTONE
from evcache.values.lifetime import Content, content_of
from evcache.zones.protocol.fields import COPY_FIELDS
from evcache.zones.snapshot import ClusterSnapshot


class Lookup:
    """Lookup of values that are loaded if they are missing or out of date."""

    def __init__(
        self,
        reads: ZoneReader,
        decoding: Decoding,
        single_flight: SingleFlight,
        hooks: HookDispatcher,
        *,
        unix_time: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Make it for one client.

        Args:
            reads: Reads of the near cache and the zones.
            decoding: Counts envelopes that cannot be read.
            single_flight: Loads that run, or have just ended.
            hooks: Receivers of reads, and of stale values that are served.
            unix_time: Returns the unix time.
            draw: Returns a random number from 0 up to 1.
        """
        self._reads = reads
        self._decoding = decoding
        self._single_flight = single_flight
        self._hooks = hooks
        self._unix_time = unix_time
        self._draw = draw
        self.stale_served = 0
        """Number of values that were served after their TTL."""

    def near_entry(self, key: bytes, request: LoadRequest) -> NearEntry | None:
        """Return the entry of the near cache, or None. It may be a tombstone, an absence, or out of date."""
        reads = request.reads
        return self._reads.kept(key) if reads.near_cache and reads.one_answer else None

    async def read(self, zones: ClusterSnapshot | None, key: bytes, request: LoadRequest) -> Content | None:
        """Read a key from the zones. Return what they hold, absences included, or None.

        A load of the key may end during the read, which then may have found an older state. The key is read again in that
        case. Otherwise slow readers would load once more, one group of callers after another.
        """
        if zones is None:
            return None
        single_flight = self._single_flight
        ended = single_flight.ended
        is_second = False
        while True:
            content = None
            try:
                found = await self._reads.get(zones, key, request.reads, flags=COPY_FIELDS)
            except CacheUnavailable as error:
                self._hooks.error_as_miss(error)
                return None
            except ConsistencyError as error:
                self._hooks.error_as_miss(error)
            else:
                if self._hooks.of_reads:
                    self._report_read(zones, key, found)
                if found is not None and found.hit.flags != FLAG_TOMBSTONE:
                    content = self._content(found, self._unix_time(), key, request)
            if is_second or single_flight.ended == ended or not self._may_be_outdated(key, content, ended):
                return content
            is_second = True

    async def read_many(
        self, zones: ClusterSnapshot | None, keys: Sequence[bytes], request: LoadRequest
    ) -> dict[bytes, Content]:
        """Read several keys from the zones as `read` does. Return what the zones hold, absences included."""
        ended = self._single_flight.ended
        contents, is_reachable = await self._read_many_once(zones, keys, request)
        again = [key for key in keys if self._may_be_outdated(key, contents.get(key), ended)]
        if is_reachable and again:
            contents |= (await self._read_many_once(zones, again, request))[0]
        return contents

    def state(self, found: Content | NearEntry, request: LoadRequest) -> State:
        """Return the freshness of what was found."""
        state = state_of(found.life, self._unix_time(), request.policy, request.ttl, 1.0 - self._draw())
        if state is State.REFRESH_DUE and found.flags == FLAG_ABSENT:
            return State.FRESH  # an absence lives for seconds only
        return state

    def count_stale(self, error: BaseException | None) -> None:
        """Count a value that is served after its TTL. `error` is the failure of its load, or None for a refresh."""
        self.stale_served += 1
        self._hooks.stale_served(error)

    def _may_be_outdated(self, key: bytes, content: Content | None, ended: int) -> bool:
        """Return True if a load ended since the number `ended` was read, and the read found no value of it."""
        return self._single_flight.has_ended_since(key, ended) and (
            content is None or self._unix_time() >= content.life.expires_at
        )

    async def _read_many_once(
        self, zones: ClusterSnapshot | None, keys: Sequence[bytes], request: LoadRequest
    ) -> tuple[dict[bytes, Content], bool]:
        if zones is None or not keys:
            return {}, zones is not None
        found, failures, answered = await self._reads.get_many(zones, keys, request.reads, flags=COPY_FIELDS)
        if self._hooks.of_reads:
            for key in keys:
                self._report_read(zones, key, found.get(key))
        required = request.reads.consistency.required(len(zones.readers))
        is_unavailable = not answered and len(failures) >= len(zones.readers)  # otherwise a zone was not waited for
        if is_unavailable:
            self._hooks.error_as_miss(CacheUnavailable("get_or_load_many", failures))
        elif answered < required:
            self._hooks.error_as_miss(ConsistencyError("get_or_load_many", answered, required, failures))
        return await self._contents(found.items(), request), not is_unavailable

    async def _contents(self, found: Iterable[tuple[bytes, ZoneHit]], request: LoadRequest) -> dict[bytes, Content]:
        now = self._unix_time()
        contents: dict[bytes, Content] = {}
        for number, (key, item) in enumerate(found, 1):
            content = self._content(item, now, key, request)
            if content is not None:
                contents[key] = content
            if not number % STEP_KEYS:
                await asyncio.sleep(0)
        return contents

    def _content(self, found: ZoneHit, now: float, key: bytes, request: LoadRequest) -> Content | None:
        """Return the content of an item. None if it cannot be read, because a load is of more use than the error."""
        try:
            content = content_of(found.hit, found.written_at, now, key=key, zone=found.zone)
        except DecodeError as error:  # an envelope of a later release, while processes of both releases run
            self._decoding.failed(error, key, found.hit.flags, found.zone)
            return None
        return content if request.readable is None or request.can_read(content) else None

    def _report_read(self, zones: ClusterSnapshot, key: bytes, found: ZoneHit | None) -> None:
        zone = "" if found is None else found.zone
        self._hooks.looked_up(zones, key, zone, hit=found is not None and found.is_value)
