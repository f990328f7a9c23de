"""Stores of the values of one load, several keys at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from evcache._helpers.steps import ByteBudget
from evcache.errors import ValueTooLarge
from evcache.near_cache.coherence import FetchToken
from evcache.read_through.context import LoadContext
from evcache.read_through.loads.fill import NOT_STORED, FillResult, near_entry_for, store_over_lease
from evcache.read_through.loads.leases import Lease
from evcache.read_through.loads.single_flight import Call, Result
from evcache.read_through.request import LoadRequest
from evcache.replication.lanes import WINDOW_BYTES
from evcache.writes.draft import Draft
from evcache.zones.snapshot import ClusterSnapshot

# Keys of one load that ask for their lease, or are stored, at the same time. Each takes a task. More tasks would wait on
# connections for longer than the timeout of one request.
AT_ONCE = 256

_log = logging.getLogger("evcache.read_through")


class LoadedValue(NamedTuple):
    """Loaded value of one key, and what its store needs."""

    call: Call
    result: Result
    draft: Draft | None
    """Item to store. None stores nothing."""
    version: int | None
    lease: Lease | None
    token: FetchToken | None
    """Fetch of the near cache, which began before the loader was called."""


class BulkFill:
    """Stores of the values of one load. Its tasks share the values that are left, a byte budget and the flow control."""

    def __init__(
        self, context: LoadContext, zones: ClusterSnapshot | None, request: LoadRequest, values: Sequence[LoadedValue]
    ) -> None:
        self._context = context
        self._zones = zones
        self._request = request
        self._tasks = min(AT_ONCE, len(values))
        self._left = iter(values)
        is_one = len(values) == 1
        self._budget = None if is_one else ByteBudget(WINDOW_BYTES)
        self._flow = None if is_one else context.writer.flow(context.write_options)

    async def start(self) -> list[asyncio.Task[None]]:
        """Begin the stores in background tasks, which outlive a cancelled load.

        Returns:
            The tasks. If the client is closing there are none, and the values are stored before this returns.
        """
        running: set[asyncio.Task[None]] = set()

        def end(task: asyncio.Task[None]) -> None:
            running.discard(task)
            if not running:
                self._drop(self._left)  # nothing is left unless all tasks were cancelled

        for _ in range(self._tasks):
            task = self._context.background.spawn(self._run())
            if task is None:
                break
            running.add(task)
            task.add_done_callback(end)
        if not running:  # the client is closing, and waits for the task of the load
            try:
                await self._run()
            finally:
                self._drop(self._left)
        return list(running)

    def abandon(self) -> None:
        """Drop the values that are not stored yet, and give their leases back."""
        self._drop(self._left)

    async def _run(self) -> None:
        for value in self._left:
            if self._budget is None:
                await self._store(value)
                continue
            size = 0 if value.draft is None else len(value.draft.data)
            try:
                await self._budget.take(size)
            except asyncio.CancelledError:
                self._drop([value])
                raise
            try:
                await self._store(value)
            finally:
                self._budget.release(size)

    async def _store(self, value: LoadedValue) -> None:
        context, call, draft, lease = self._context, value.call, value.draft, value.lease
        loop = asyncio.get_running_loop()
        loaded_at = loop.time()
        # A load may take longer than a topology lasts, so the store goes to the zones of this moment.
        zones = context.current_zones() or self._zones
        filled = NOT_STORED if self._zones is not None else FillResult(is_stored=False, is_unreachable=True)
        # If the key was written since the load began, and that item is gone again, no server could refuse the store.
        is_outdated = call.latest_write > (value.version or 0)
        try:
            if zones is not None and draft is not None:
                filled = NOT_STORED
                if not is_outdated:
                    filled = await store_over_lease(
                        context.writer, zones, draft, value.version, lease, context.write_options, self._flow
                    )
        except ValueTooLarge as error:
            _log.warning("store of the loaded value of %r failed: %s", call.key, error)
            context.back_off(call, self._request.policy.failure_backoff)
        finally:
            entry = None if draft is None else near_entry_for(draft, value.version, lease, filled)
            context.end_fetch(value.token, entry, loop.time() - loaded_at)
        if lease is not None and not (filled.is_stored and lease.name == call.key):  # the value has replaced the stub
            context.leases.give_back(lease, self._request.deadline())

    def _drop(self, values: Iterable[LoadedValue]) -> None:
        for value in values:
            self._context.abandon_fetch(value.token)
            if value.lease is not None:
                self._context.leases.give_back(value.lease, self._request.deadline())
