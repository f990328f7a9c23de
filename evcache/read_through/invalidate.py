"""Marking of values as out of date, for `get_or_load`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from evcache._cluster_access import ClusterAccess
from evcache.consistency import Consistency
from evcache.errors import CacheUnavailable, DecodeError, ValueTooLarge
from evcache.options import Defaults, Level, Seconds
from evcache.reads.results import ReadResults
from evcache.reads.zone_reader import ZoneReader
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.reconcile import ZoneHit
from evcache.results import WriteResult
from evcache.values.envelope import Envelope, wrap
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.keys import Keys
from evcache.values.ttl import seconds_to_live
from evcache.writes.calls import WriteCalls
from evcache.writes.draft import Draft
from evcache.writes.value_limits import check_size
from evcache.writes.writer import Writer
from evcache.zones.errors import InvalidArgument
from evcache.zones.protocol.fields import COPY_FIELDS


class Invalidator:
    """Invalidation of single keys by one client. `EVCache.invalidate` describes the arguments."""

    def __init__(
        self,
        keys: Keys,
        defaults: Defaults,
        access: ClusterAccess,
        zones: ZoneReader,
        results: ReadResults,
        calls: WriteCalls,
        writer: Writer,
        unix_time: Callable[[], float],
        *,
        tombstone_ttl: float,
        interop: bool,
    ) -> None:
        """Make it for one client.

        Args:
            keys: Full names of keys.
            defaults: Options of calls that pass none.
            access: The client's zones.
            zones: Reads of the zones.
            results: Conversion of items to their content.
            calls: The client's write operations.
            writer: Writes to the zones.
            unix_time: Clock of lifetimes, in seconds.
            tombstone_ttl: Seconds that the zones remember a delete.
            interop: True if other kinds of clients read the namespace.
        """
        self._keys = keys
        self._defaults = defaults
        self._access = access
        self._zones = zones
        self._results = results
        self._calls = calls
        self._writer = writer
        self._unix_time = unix_time
        self._tombstone_ttl = tombstone_ttl
        self._interop = interop

    async def invalidate(
        self, key: str | bytes, stale_while_revalidate: Seconds | None, consistency: Level | None, timeout: float | None
    ) -> WriteResult:
        """Do what `EVCache.invalidate` describes."""
        full = self._keys.qualify(key)
        options = self._defaults.write(consistency, timeout, None)
        if stale_while_revalidate is None:
            return await self._calls.delete(key, consistency, timeout, None)
        if self._interop:
            raise InvalidArgument(
                "stale_while_revalidate",
                "other kinds of clients read this namespace (interop), and would serve the value as fresh",
            )
        life = seconds_to_live(stale_while_revalidate, "stale_while_revalidate")
        view, options = self._access.ready(options) or await self._access.open(options)
        deadline = view.loop.time() + options.timeout
        reads = self._defaults.read(Consistency.ONE, options.timeout / 2, None, fallback_on_miss=True, near_cache=False)
        try:
            found = await self._zones.get(view, full, reads, flags=COPY_FIELDS)
        except CacheUnavailable:
            found = None
        options = options._replace(timeout=max(0.0, deadline - view.loop.time()))
        store: StoreCommand = self._writer.delete(full)
        draft = None if found is None or not found.is_value else self._outdated(full, found, life)
        if draft is not None:
            with suppress(ValueTooLarge):
                options = await check_size(view, draft, options)
                store = self._writer.store(draft, newest_wins=True)
        return await self._writer.write("invalidate", view, full, store, options)

    def _outdated(self, key: bytes, found: ZoneHit, stale_while_revalidate: float) -> Draft | None:
        """Return the value as one past its TTL, or None if it cannot be served."""
        try:
            content = self._results.any_content(key, found)
        except DecodeError:
            return None
        now, life = self._unix_time(), content.life
        until = now + stale_while_revalidate
        if life.expires_at <= now:  # a second invalidation does not extend the first
            until = min(until, life.stale_until)
        if until <= now:
            return None
        envelope = Envelope(
            content.data, content.flags, life.made_at or now, min(now, life.expires_at), until, life.load_seconds
        )
        # Stored for at least as long as a tombstone: until then no slow load can store an older value.
        return Draft(key, wrap(envelope), FLAG_ENVELOPE, self._writer.wire_ttl(max(until - now, self._tombstone_ttl)))
