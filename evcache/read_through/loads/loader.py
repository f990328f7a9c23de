"""Start of loads: at most one per key that callers can join, and a bounded number of refreshes in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from evcache.errors import LoadAborted
from evcache.read_through.context import LoadContext
from evcache.read_through.loads.load import Load
from evcache.read_through.loads.single_flight import Call
from evcache.read_through.request import LoadRequest
from evcache.stats import LoadStats
from evcache.zones._tasks import name_of
from evcache.zones.snapshot import ClusterSnapshot

# Keys that are refreshed in the background at the same time. A later reader refreshes further keys.
MAX_REFRESHES = 64


class Loader:
    """Loads of one client."""

    def __init__(self, context: LoadContext) -> None:
        self._context = context
        self._refreshing: set[Call] = set()

    def join_or_start(self, zones: ClusterSnapshot | None, keys: Sequence[bytes], request: LoadRequest) -> dict[bytes, Call]:
        """Return the loads of these keys. Those that run are joined, and one load is started for all other keys.

        Raises:
            LoadAborted: There are too many background tasks, or the client is closing.
        """
        single_flight = self._context.single_flight
        joined = {key: call for key in keys if (call := single_flight.get(key)) is not None}
        for call in joined.values():
            self._context.calls.expedite(call)
        missing = [key for key in keys if key not in joined]
        if not missing:
            return joined
        calls = single_flight.begin(missing)
        if self._spawn(zones, calls, request) is None:
            raise LoadAborted("load refused: too many background tasks, or the client is closing")
        return joined | dict(zip(missing, calls, strict=True))

    def refresh(self, zones: ClusterSnapshot | None, keys: Sequence[bytes], request: LoadRequest) -> None:
        """Load keys in the background, except those that are being loaded or whose loader has just failed."""
        if zones is None:
            return
        single_flight = self._context.single_flight
        keys = [key for key in keys if single_flight.get(key) is None and not self.is_in_backoff(key)]
        keys = keys[: MAX_REFRESHES - len(self._refreshing)]
        if not keys or self._context.calls.is_busy:
            return
        calls = single_flight.begin(keys, background=True)
        task = self._spawn(zones, calls, request)
        if task is not None:
            refreshing = self._refreshing
            refreshing.update(calls)
            task.add_done_callback(lambda _: refreshing.difference_update(calls))

    def is_in_backoff(self, key: bytes) -> bool:
        """Return True if the loader of this key has just failed, and is not called while an old value can be served."""
        return self._context.backoff.blocks(key, asyncio.get_running_loop().time())

    async def wait(self, calls: Sequence[Call], seconds: float) -> None:
        """Wait until all these loads have a result or a failure. Raises as `SingleFlight.wait`."""
        await self._context.single_flight.wait(calls, seconds)

    def reopen(self) -> None:
        """Forget the loads of the last opening, whose tasks have ended."""
        self._context.single_flight.reopen()
        self._context.calls.reopen()
        self._context.backoff.end_all()  # its times are those of the last loop
        self._refreshing = set()  # a loader that ignores its cancellation removes its calls from the former set

    def close(self) -> None:
        """Fail the loads that ignore their cancellation, so that their callers do not wait any longer."""
        self._context.single_flight.fail_all(LoadAborted("load cancelled: the client is closed"))

    def stats(self, stale_served: int) -> LoadStats:
        """Return the counters of loads, together with the number of stale values that were served."""
        calls, leases = self._context.calls, self._context.leases
        return LoadStats(
            running=calls.running,
            waiting=len(self._context.single_flight),
            loads=calls.begun,
            failed=calls.failed,
            leases_won=leases.won,
            leases_lost=leases.lost,
            stale_served=stale_served,
        )

    def _spawn(
        self, zones: ClusterSnapshot | None, calls: Sequence[Call], request: LoadRequest
    ) -> asyncio.Task[None] | None:
        load = Load(self._context, zones, calls, request)
        task = self._context.background.spawn(load.run(), partial(_describe, calls, request))
        if task is None:
            self._context.single_flight.finish(calls)
        else:
            self._context.single_flight.assign(calls, task)
        return task


def _describe(calls: Sequence[Call], request: LoadRequest) -> str:
    keys = ", ".join(repr(call.key) for call in calls[:3])
    more = f" and {len(calls) - 3} more keys" if len(calls) > 3 else ""
    return f"the loader {name_of(request.loader)} of {keys}{more}"
