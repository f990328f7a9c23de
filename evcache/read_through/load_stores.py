"""Storing what loads return, several keys at once, and the leases that end with it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from evcache._background import BackgroundTasks
from evcache._steps import ByteBudget
from evcache.errors import ValueTooLarge
from evcache.near_cache.coherence import CoherentNearCache, FetchToken
from evcache.read_through.failure_backoff import FailureBackoff
from evcache.read_through.fill import Fill, Filled
from evcache.read_through.leases import Leases
from evcache.read_through.packer import near_entry_for
from evcache.read_through.request import LoadRequest, LoadTask
from evcache.read_through.single_flight import Call
from evcache.replication.lanes import WINDOW_BYTES, Flow
from evcache.writes.draft import Draft
from evcache.zones.cluster import ClusterSnapshot

# Of a load of many keys, those whose lease is asked for, or whose value is stored, at the same time. Each takes a task. More
# would wait on connections, for longer than the timeout of one request.
AT_ONCE = 256

# What is stored of a key: the draft (None: nothing), its version, its errand, and its place in the near cache.
Packed = tuple[Draft | None, int | None, LoadTask, FetchToken | None]

_log = logging.getLogger("evcache.read_through")


class LoadStores:
    """The stores of one client's loads."""

    def __init__(
        self,
        *,
        fill: Fill,
        leases: Leases,
        throttle: FailureBackoff,
        background: BackgroundTasks,
        near: CoherentNearCache | None,
        current: Callable[[], ClusterSnapshot | None],
    ) -> None:
        """`current`: the zones as they are now."""
        self._fill = fill
        self._leases = leases
        self._throttle = throttle
        self._background = background
        self._near = near
        self._current = current

    async def begin(
        self, view: ClusterSnapshot | None, packed: Sequence[Packed], asked: LoadRequest
    ) -> list[asyncio.Task[None]]:
        """Store what was loaded, in background tasks. Cancelling the load does not end them.

        Returns:
            The tasks. None are left if the client is closing: then the values are stored before this returns.
        """
        left = iter(packed)
        budget, flow = (ByteBudget(WINDOW_BYTES), self._fill.flow(asked.writes)) if len(packed) > 1 else (None, None)
        running: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            running.discard(task)
            if not running:
                self.abandon(left, asked)  # nothing, unless all tasks were cancelled

        for _ in packed[:AT_ONCE]:
            task = self._background.spawn(self._store_all(view, left, asked, budget, flow))
            if task is None:
                break
            running.add(task)
            task.add_done_callback(ended)
        if not running:  # the client is closing, and waits for this task
            try:
                await self._store_all(view, left, asked, budget, flow)
            finally:
                self.abandon(left, asked)
        return list(running)

    async def _store_all(
        self,
        view: ClusterSnapshot | None,
        left: Iterator[Packed],
        asked: LoadRequest,
        budget: ByteBudget | None,
        flow: Flow | None,
    ) -> None:
        """Store one after another of those that are left. Several tasks share them, the budget and the flow control."""
        for packed in left:
            size = 0 if packed[0] is None else len(packed[0].data)
            if budget is None:
                await self._store(view, *packed, asked, None)
                continue
            try:
                await budget.take(size)
            except asyncio.CancelledError:
                self.abandon([packed], asked)
                raise
            try:
                await self._store(view, *packed, asked, flow)
            finally:
                budget.give_back(size)

    async def _store(
        self,
        view: ClusterSnapshot | None,
        draft: Draft | None,
        version: int | None,
        errand: LoadTask,
        near_flight: FetchToken | None,
        asked: LoadRequest,
        flow: Flow | None,
    ) -> None:
        filled = Filled(stored=False, unreachable=view is None)
        loop = asyncio.get_running_loop()
        loaded_at = loop.time()
        try:
            # The zones as they are now: a load may take longer than a topology lasts.
            view = self._current() or view
            if view is not None and draft is not None and errand.stored:
                filled = await self._fill.store(
                    view,
                    draft,
                    version,
                    errand.lease,
                    asked.writes,
                    written=errand.flight.written > (version or 0),
                    flow=flow,
                )
        except ValueTooLarge as error:
            _log.warning("what was loaded for %r is not stored: %s", errand.flight.key, error)
            self.leave_alone(errand.flight, asked)
        finally:
            if near_flight is not None and self._near is not None:
                near = None if draft is None else near_entry_for(draft, version, errand.lease, filled)
                self._near.complete(near_flight, near, loop.time() - loaded_at)
        lease = errand.lease
        if lease is not None and not (filled.stored and lease.name == errand.flight.key):  # it is not a stub any more
            self._leases.give_back(lease, deadline_of(asked))

    def abandon(self, packed: Iterable[Packed], asked: LoadRequest) -> None:
        """Give up what was loaded and is not stored."""
        for _, _, errand, near_flight in packed:
            self.drop([near_flight])
            self.give_back([errand], asked, failed=False)

    def leave_alone(self, flight: Call, asked: LoadRequest) -> None:
        """Do not call the loader of this key for a while, as long as there is a value to serve."""
        # Of a load that began before the key was written, the end says nothing about the next one.
        if not flight.detached:
            self._throttle.failed(flight.key, asyncio.get_running_loop().time() + asked.policy.failure_backoff)

    def give_back(self, errands: Sequence[LoadTask], asked: LoadRequest, *, failed: bool) -> None:
        """Give the leases back, so that other processes load.

        `failed`: the loader raised. A process that has an old value to serve then does not load for `failure_backoff`
        seconds.
        """
        for errand in errands:
            lease = errand.lease
            if lease is None:
                continue
            deadline = deadline_of(asked)
            if failed and errand.serves and asked.policy.failure_backoff:
                self._leases.extend(lease, math.ceil(asked.policy.failure_backoff), deadline)
            else:
                self._leases.give_back(lease, deadline)

    def drop(self, near_flights: Sequence[FetchToken | None]) -> None:
        """Keep nothing of these in the near cache."""
        for near_flight in near_flights:
            if near_flight is not None and self._near is not None:
                self._near.abandon(near_flight)


def deadline_of(asked: LoadRequest) -> float:
    """Return the deadline of a request that is sent now, on the loop's clock."""
    return asyncio.get_running_loop().time() + asked.reads.timeout
