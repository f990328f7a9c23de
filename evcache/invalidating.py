"""The operations that make a value out of date, and that write its source."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from evcache._awaitable import await_result
from evcache.consistency import Consistency
from evcache.errors import CacheUnavailable, DecodeError, UsageError, ValueTooLarge
from evcache.options import Level, Seconds
from evcache.reading import Reading
from evcache.replication.guarded_store import StoreCommand
from evcache.replication.reconcile import ZoneHit
from evcache.results import WriteResult
from evcache.values.envelope import Envelope, wrap
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.ttl import seconds_to_live
from evcache.writes.draft import Draft
from evcache.writes.value_limits import check_size
from evcache.writing import Writing
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import InvalidArgument
from evcache.zones.protocol.fields import COPY_FIELDS


class Invalidating(Reading, Writing):
    """The operations that know of a source behind the cache."""

    async def invalidate(
        self,
        key: str | bytes,
        *,
        stale_while_revalidate: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Mark a value as out of date. Plain reads miss from now on, and `get_or_load` loads the value again.

        Args:
            key: The key.
            stale_while_revalidate: Seconds for which `get_or_load` returns the old value while one caller loads the new one.
                If None, no caller gets the old value, as after `delete`. A value that was out of date before keeps its
                earlier end.
            consistency: Number of zones that must acknowledge. If None, the client's default.
            timeout: Seconds for the call. If None, the client's default.

        Returns:
            The outcome in each zone. It is true if enough zones have acknowledged.

        Raises:
            CacheUnavailable: No zone could be reached.
            InvalidArgument: An argument cannot be used, or `stale_while_revalidate` is given for a namespace of others.
        """
        full = self._keys.qualify(key)
        options = self._defaults.write(consistency, timeout, None)
        if stale_while_revalidate is None or not self._versions:
            if stale_while_revalidate is not None:
                raise InvalidArgument(
                    "stale_while_revalidate",
                    "other kinds of clients read this namespace (interop), and would take it for fresh",
                )
            # Not `self.delete`, which telemetry may have wrapped: one call is one write, and one span.
            return await Writing.delete(self, key, consistency=consistency, timeout=timeout)
        life = seconds_to_live(stale_while_revalidate, "stale_while_revalidate")
        view, options = self._ready(options) or await self._open(options)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + options.timeout
        try:
            found = await self._reads.get(
                view,
                full,
                self._defaults.read(Consistency.ONE, options.timeout / 2, None, fallback_on_miss=True, near_cache=False),
                flags=COPY_FIELDS,
            )
        except CacheUnavailable:
            found = None
        options = options._replace(timeout=max(0.0, deadline - loop.time()))
        store: StoreCommand = self._writes.delete(full)
        draft = None if found is None or not found.is_value else self._outdated(full, found, life)
        if draft is not None:
            with suppress(ValueTooLarge):
                options = await check_size(view, draft, options)
                store = self._writes.store(draft, newest_wins=True)
        return await self._writes.write("invalidate", view, full, store, options)

    def _outdated(self, full: bytes, found: ZoneHit, stale_while_revalidate: float) -> Draft | None:
        """What was found, as out of date; None when it can't be served at all."""
        try:
            content = self._any_content(full, found)
        except DecodeError:
            return None
        now, life = self._wall_clock(), content.life
        until = now + stale_while_revalidate
        if life.expires_at <= now:  # it is out of date already, and saying so again does not make it last
            until = min(until, life.stale_until)
        if until <= now:
            return None
        envelope = Envelope(
            content.data, content.flags, life.made_at or now, min(now, life.expires_at), until, life.load_seconds
        )
        # Kept for as long as a delete is remembered: while it is there, nothing older can be stored by a load that is slow.
        return Draft(full, wrap(envelope), FLAG_ENVELOPE, self._writes.wire_ttl(max(until - now, self._tombstone_ttl)))

    async def write_through(
        self,
        key: str | bytes,
        value: Any,
        writer: Callable[[Any], Awaitable[object]],
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Write a value to its source by `await writer(value)`, and then to every zone.

        The source comes first. If the writer raises or is cancelled, the source may hold either value: the client deletes
        the key from the cache and raises the error. When the source has it and the cache can't be reached, the
        result is false and nothing is raised. Calls of this process for one key take turns, so that the last value to
        reach the source is the one that the cache holds; two processes that write one key at once can leave the other's
        value in the cache until its `ttl`.

        Raises what the writer raises; before that `EncodeError`, `ValueTooLarge` for a value that the cache could not hold.
        `timeout`: seconds for the cache's part.
        """
        if not callable(writer):
            raise InvalidArgument("writer", f"an async function is needed, not {writer!r}")
        draft = self._draft(key, value, ttl)
        options = self._defaults.write(consistency, timeout, "miss")
        view = await self._view_or_none()
        if view is not None:
            await check_size(view, draft, options)
        async with self._turns.of(draft.key):
            try:
                await await_result(writer(value), "writer")
            except BaseException as error:
                await self._doubt(draft.key, isinstance(error, Exception))
                raise
            view = self._cluster.view  # as it is now: a writer may take longer than a topology lasts
            if view is None:
                return WriteResult(met=False, version=None, zones={})
            store = self._writes.store(draft, newest_wins=self._defaults.newest_wins(None))
            return await self._writes.write("write_through", view, draft.key, store, options)

    async def _doubt(self, full: bytes, wait: bool) -> None:  # noqa: FBT001  # private
        """Delete what may be wrong, by a task that the caller's cancellation does not reach."""
        view = self._cluster.view
        if view is None:
            return
        options = self._defaults.write(None, None, "miss")
        task = self._background.spawn(self._writes.write("delete", view, full, self._writes.delete(full), options))
        if task is not None and wait:
            await asyncio.wait([task])

    async def _view_or_none(self) -> ClusterSnapshot | None:
        """The zones; None when they are not known in time, which is no reason not to load."""
        view = self._cluster.view
        if view is not None and self._owner.open_in is asyncio.get_running_loop():
            return view
        try:
            return (await self._open(self._defaults.read(None, None, None)))[0]
        except (InvalidArgument, UsageError):
            raise
        except Exception as error:  # a discovery of the service may raise anything while its source is down
            unknown = error if isinstance(error, CacheUnavailable) else CacheUnavailable("finding the zones", {})
            self._hooks.error_as_miss(unknown)
            return None
