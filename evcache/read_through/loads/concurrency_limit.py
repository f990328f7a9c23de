"""Calls of loaders, and the limit on those that run at the same time.

The queue for a turn is first come, first served, with one exception. A loader may ask for further keys that must be loaded.
If those loads waited for a turn, and all turns were taken by loaders that wait in the same way, none would ever end. So a
load that a running loader waits for begins at once, over the limit. The loader that waits for it does no work in that time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from evcache.errors import LoadAborted, LoadTimeout
from evcache.read_through.loads.single_flight import Call, Ticket
from evcache.read_through.request import LoadRequest

# True in the context of a loader.
_inside_loader: ContextVar[bool] = ContextVar("evcache_inside_loader", default=False)


class LoadLimiter:
    """Bulkhead around the loaders of one client."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: OrderedDict[Ticket, None] = OrderedDict()
        self.taken = 0
        """Number of turns that are taken."""
        self.running = 0
        """Number of loaders that run."""

    @property
    def is_full(self) -> bool:
        """True if the next loader has to wait."""
        return self.taken >= self._limit or bool(self._queue)

    def ticket(self, *, at_once: bool) -> Ticket:
        """Return a place in the queue. A ticket that is done is a turn.

        Args:
            at_once: True to get a turn over the limit.
        """
        ticket: Ticket = asyncio.get_running_loop().create_future()
        if at_once or not self.is_full:
            self._admit(ticket)
        else:
            self._queue[ticket] = None
        return ticket

    async def wait(self, ticket: Ticket) -> None:
        """Wait for the turn. A caller that is cancelled gives up the ticket, or the turn that it was just given."""
        if ticket.done():
            return
        try:
            await ticket
        except asyncio.CancelledError:
            self._queue.pop(ticket, None)
            if ticket.done() and not ticket.cancelled():
                self.release()
            raise

    def start(self) -> None:
        """Count a loader that has its turn and begins to run."""
        self.running += 1

    def stop(self) -> None:
        """End a loader that ran, and give its turn to the next in the queue."""
        self.running -= 1
        self.release()

    def expedite(self, ticket: Ticket) -> None:
        """Give a ticket its turn now if it waits in the queue."""
        if ticket in self._queue:
            del self._queue[ticket]
            self._admit(ticket)

    def release(self) -> None:
        """Give a turn back. The next in the queue gets it."""
        self.taken -= 1
        while self._queue and self.taken < self._limit:
            ticket, _ = self._queue.popitem(last=False)
            if not ticket.done():
                self._admit(ticket)

    def _admit(self, ticket: Ticket) -> None:
        self.taken += 1
        ticket.set_result(None)


class LoaderCalls:
    """Calls of the loaders of one client."""

    def __init__(self, max_loads: int) -> None:
        """Make it with a limit on the loaders that run at the same time."""
        self._max_loads = max_loads
        self._limiter = LoadLimiter(max_loads)
        self.begun = 0
        """Number of calls of loaders."""
        self.failed = 0
        """Number of loads whose loader raised, or was cancelled."""

    def reopen(self) -> None:
        """Forget the loaders of the last opening, which have ended."""
        # A loader that ignores its cancellation gives its turn back to the former limiter.
        self._limiter = LoadLimiter(self._max_loads)

    @property
    def running(self) -> int:
        """Number of loaders that run."""
        return self._limiter.running

    @property
    def is_busy(self) -> bool:
        """True if the next loader has to wait for its turn."""
        return self._limiter.is_full

    def expedite(self, call: Call) -> None:
        """Let this load pass the queue if a running loader asks for it."""
        if _inside_loader.get():
            call.mark_urgent()
            if call.ticket is not None:
                self._limiter.expedite(call.ticket)

    def count_failure(self) -> None:
        """Count a load whose loader raised, or was cancelled."""
        self.failed += 1

    async def call(self, request: LoadRequest, calls: Sequence[Call]) -> Mapping[bytes, Any]:
        """Wait for a turn, call the loader, and return its values by key.

        Raises:
            LoadTimeout: The loader took longer than `load_timeout`.
            LoadAborted: Work inside the loader was cancelled.
            Exception: The loader raised it.
        """
        is_nested = _inside_loader.get() and not calls[0].is_background
        limiter = self._limiter
        ticket = limiter.ticket(at_once=is_nested or any(call.is_urgent for call in calls))
        for call in calls:
            call.enqueue(ticket)
        await limiter.wait(ticket)
        limiter.start()
        self.begun += 1
        for call in calls:
            call.mark_loading()
        outside = _inside_loader.set(True)
        limit = request.policy.load_timeout
        try:
            async with asyncio.timeout(limit) as scope:
                return await request.load([call.key for call in calls])
        except TimeoutError as error:
            if scope.expired():
                raise LoadTimeout(calls[0].key, limit) from error
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # This task was not cancelled, but an awaitable of the loader was. That is an error of the loader.
            raise LoadAborted("loader cancelled from within") from error
        finally:
            with suppress(ValueError):  # the coroutine of a closed event loop is closed in another context
                _inside_loader.reset(outside)
            limiter.stop()
