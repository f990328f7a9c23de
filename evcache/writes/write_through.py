"""Write-through: a value goes to its source first, and then to every zone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from evcache._cluster_access import ClusterAccess
from evcache._helpers.awaitable import await_result
from evcache._helpers.background import BackgroundTasks
from evcache._helpers.keyed_lock import KeyedLock
from evcache.options import Defaults, Level, Seconds
from evcache.results import WriteResult
from evcache.writes.calls import WriteCalls
from evcache.writes.value_limits import check_size
from evcache.writes.writer import Writer
from evcache.zones.errors import InvalidArgument


class WriteThrough:
    """Write-through of one client. `EVCache.write_through` describes the arguments."""

    def __init__(
        self,
        defaults: Defaults,
        access: ClusterAccess,
        calls: WriteCalls,
        writer: Writer,
        background: BackgroundTasks,
    ) -> None:
        """Make it for one client.

        Args:
            defaults: Options of calls that pass none.
            access: The client's zones.
            calls: The client's write operations.
            writer: Writes to the zones.
            background: Tasks that outlive their calls.
        """
        self._defaults = defaults
        self._access = access
        self._calls = calls
        self._writer = writer
        self._background = background
        # Calls for one key run one after another, so that the cache holds the last value that reached the source.
        self.turns = KeyedLock()

    def reopen(self) -> None:
        """Forget the turns of the last opening."""
        self.turns.reopen()

    async def write(
        self,
        key: str | bytes,
        value: Any,
        writer: Callable[[Any], Awaitable[object]],
        ttl: Seconds | None,
        consistency: Level | None,
        timeout: float | None,
    ) -> WriteResult:
        """Do what `EVCache.write_through` describes."""
        if not callable(writer):
            raise InvalidArgument("writer", f"an async function is required, not {writer!r}")
        draft = self._calls.draft(key, value, ttl)
        options = self._defaults.write(consistency, timeout, "miss")
        view = await self._access.snapshot_or_none()
        if view is not None:
            await check_size(view, draft, options)
        async with self.turns.of(draft.key):
            try:
                await await_result(writer(value), "writer")
            except BaseException as error:
                delete = self._delete(draft.key)
                # A cancelled caller leaves at once. After an error the caller reads what the source holds.
                if delete is not None and isinstance(error, Exception):
                    await asyncio.wait([delete])
                raise
            view = self._access.cluster.view  # the present zones: a writer may take longer than a topology lasts
            if view is None:
                return WriteResult(met=False, version=None, zones={})
            store = self._writer.store(draft, newest_wins=self._defaults.orders_by_version)
            return await self._writer.write("write_through", view, draft.key, store, options)

    def _delete(self, key: bytes) -> asyncio.Task[WriteResult] | None:
        """Start to delete a value that the source may no longer hold, in a task that the caller's cancellation does not end.

        Return None if the zones are not known, or the client is closing.
        """
        view = self._access.cluster.view
        if view is None:
            return None
        options = self._defaults.write(None, None, "miss")
        return self._background.spawn(self._writer.write("delete", view, key, self._writer.delete(key), options))
