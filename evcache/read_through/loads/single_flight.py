"""Single flight: all callers of one process that miss a key wait for one load of it.

Caches have failed at this in three ways. If the first caller runs the load, its cancellation cancels the other callers. The
same happens if all callers await one task. If the task is what the cache keeps, it also keeps the cancellation.

Here a load is a task of the client, and each caller waits on its own future. The cancellation or timeout of a caller ends
that future only. A load without callers is cancelled. A load whose callers ran out of time continues if its loader runs,
because the callers will ask again.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from types import TracebackType

from evcache.errors import LoadAborted, LoadTimeout
from evcache.replication.hlc import NOTHING_NEWER
from evcache.values.lifetime import Content

# Callers that wait for one key. Further callers are refused, because all wake in the same iteration of the event loop.
MAX_WAITERS = 10_000

# Loads that are remembered after their end. A read lasts a fraction of a second. If more loads end during one read, a key
# may be loaded once more.
MAX_ENDED = 1_000

Ticket = asyncio.Future[None]
"""Place in the queue of loaders. A ticket that is done is a turn."""

Result = Content | None
"""Loaded value. None is an absence."""


class Call:
    """Load of one key, shared by all callers that wait for it. Only `SingleFlight` and the methods below change it."""

    __slots__ = (
        "failure",
        "is_background",
        "is_finished",
        "is_forgotten",
        "is_loading",
        "is_needed",
        "is_resolved",
        "is_urgent",
        "key",
        "latest_write",
        "result",
        "task",
        "ticket",
        "traceback",
        "waiters",
    )

    def __init__(self, key: bytes, *, background: bool) -> None:
        self.key = key
        self.is_background = background
        """True if the load continues without waiting callers."""
        self.is_loading = False
        """True once the loader has been called."""
        self.is_resolved = False
        """True once there is a result or a failure."""
        self.is_finished = False
        """True once the value is stored, or the load has failed. No caller can join any more."""
        self.is_needed = False
        """True if a waiting caller has no old value to serve."""
        self.is_forgotten = False
        """True if the key was written, or may have been, since the load began."""
        self.latest_write: float = 0
        """Latest version of the key that was written since the load began. `math.inf` is an unknown version."""
        self.result: Result = None
        self.failure: BaseException | None = None
        self.traceback: TracebackType | None = None
        self.waiters: set[asyncio.Future[None]] = set()
        self.task: asyncio.Task[None] | None = None
        self.is_urgent = False
        """True if a running loader waits for this load. The load then takes no turn in the queue."""
        self.ticket: Ticket | None = None
        """Place of the loader in the queue of loaders. None before it is queued."""

    def outcome(self) -> Result:
        """Return the result, or raise the failure with the loader's own traceback, at each call."""
        if self.failure is not None:
            raise self.failure.with_traceback(self.traceback)
        return self.result

    def require(self) -> None:
        """Mark the load as the only source of a value for a waiting caller."""
        self.is_needed = True

    def mark_urgent(self) -> None:
        """Mark the load as one that a running loader waits for."""
        self.is_urgent = True

    def enqueue(self, ticket: Ticket) -> None:
        """Record the place of the loader in the queue."""
        self.ticket = ticket

    def mark_loading(self) -> None:
        """Record the call of the loader."""
        self.is_loading = True


class SingleFlight:
    """Running loads of one client, at most one per key that callers can join."""

    def __init__(self) -> None:
        self.by_key: dict[bytes, Call] = {}  # always this one dict
        self._by_task: dict[asyncio.Task[None], Sequence[Call]] = {}
        self._ended: OrderedDict[bytes, int] = OrderedDict()
        self.ended = 0
        """Number of loads that have ended."""

    def __len__(self) -> int:
        """Number of keys that are being loaded, those that no caller can join included."""
        return sum(map(len, self._by_task.values()))

    def get(self, key: bytes) -> Call | None:
        """Return the load of this key that a caller can join, or None."""
        return self.by_key.get(key)

    def has_ended_since(self, key: bytes, ended: int) -> bool:
        """Return True if a load of this key has ended since the number `ended` was read.

        A read that was in flight at that moment may have found an older value than the load.
        """
        return self._ended.get(key, 0) > ended

    def begin(self, keys: Iterable[bytes], *, background: bool = False) -> list[Call]:
        """Enter a load of each key. Each ends with `resolve` or `fail`, and then with `finish`."""
        calls = [Call(key, background=background) for key in keys]
        self.by_key.update((call.key, call) for call in calls)
        return calls

    def assign(self, calls: Sequence[Call], task: asyncio.Task[None]) -> None:
        """Record the task that runs these loads."""
        if task.done():  # an eager task factory may have run it already
            return
        self._by_task[task] = calls
        for call in calls:
            call.task = task

    def forget(self, key: bytes, version: int | None = None) -> None:
        """Let no further caller join the load of a key that is being written. Present callers still get its result.

        Args:
            key: The key.
            version: Version of the write. None is an unknown version.
        """
        call = self.by_key.pop(key, None)
        if call is not None:
            call.latest_write = max(call.latest_write, math.inf if version is None else version)
            call.is_forgotten = call.is_forgotten or version != NOTHING_NEWER

    def forget_all(self) -> None:
        """Let no further caller join any load, because each key may have been written."""
        for call in self.by_key.values():
            call.is_forgotten = True
        self.by_key.clear()

    def reopen(self) -> None:
        """Drop the loads of the last opening, whose tasks have ended."""
        self.by_key.clear()
        self._by_task.clear()

    def resolve(self, call: Call, result: Result) -> None:
        """Give all waiting callers the result, and those that join before `finish`."""
        if not call.is_resolved:
            call.is_resolved = True
            call.result = result
            _wake(call)

    def fail(self, call: Call, failure: BaseException) -> None:
        """Fail the load. All callers raise the same exception instance, as with a shared asyncio.Future."""
        if not call.is_resolved:
            call.is_resolved = True
            call.failure = failure
            call.traceback = failure.__traceback__
            _wake(call)

    def finish(self, calls: Sequence[Call], task: asyncio.Task[None] | None = None) -> None:
        """End these loads. The next caller reads the zones, or begins another load.

        Args:
            calls: Loads whose results are stored, or that failed.
            task: Task that has run them all. None if it still runs.
        """
        for call in calls:
            if call.is_finished:
                continue
            call.is_finished = True
            self._remove(call)
            self.ended += 1
            self._ended[call.key] = self.ended
            self._ended.move_to_end(call.key)
            if len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)
            if not call.is_resolved:
                self.fail(call, LoadAborted("load ended without a result"))
        if task is not None:
            self._by_task.pop(task, None)

    def fail_all(self, failure: LoadAborted) -> None:
        """Fail all running loads, and let no caller join them."""
        for task, calls in list(self._by_task.items()):
            for call in calls:
                self.fail(call, failure)
            self.finish(calls, task)

    async def wait(self, calls: Sequence[Call], seconds: float) -> None:
        """Wait until all these loads have a result or a failure.

        Cancellation ends the wait of this caller only. A load that loses its last caller is cancelled.

        Args:
            calls: Loads to wait for.
            seconds: Longest duration of the wait.

        Raises:
            LoadTimeout: The wait took longer.
            LoadAborted: Too many callers wait for one of the keys.
        """
        loop = asyncio.get_running_loop()
        pending = [call for call in calls if not call.is_resolved]
        for call in pending:
            if len(call.waiters) >= MAX_WAITERS:
                self._leave(pending)  # loads that were begun for this caller have no other caller
                raise LoadAborted(f"load refused: {MAX_WAITERS} callers wait for {call.key!r} already")
        if not pending:
            return
        # The caller joins all loads before its first await. A load without waiters could be cancelled between two awaits.
        waiters = [loop.create_future() for _ in pending]
        for call, waiter in zip(pending, waiters, strict=True):
            call.waiters.add(waiter)
        timer = loop.call_later(seconds, _time_out, pending, waiters, seconds)
        try:
            for waiter in waiters:
                await waiter
        finally:
            timer.cancel()
            for call, waiter in zip(pending, waiters, strict=True):
                call.waiters.discard(waiter)
                if waiter.done() and not waiter.cancelled():
                    waiter.exception()  # retrieved, or asyncio logs it if the caller is cancelled or an earlier one failed
            self._leave(pending)

    def _leave(self, calls: Sequence[Call]) -> None:
        """Cancel the tasks of these loads of which no load has a caller."""
        tasks: dict[asyncio.Task[None], None] = {}
        for call in calls:
            if not call.waiters and not call.is_resolved and not call.is_background:
                self._remove(call)
                if call.task is not None:
                    tasks[call.task] = None
        for task in tasks:
            if task.get_loop().is_closed():
                continue
            together = self._by_task.get(task, ())
            if not any(other.waiters or other.is_background for other in together if not other.is_resolved):
                task.cancel()

    def _remove(self, call: Call) -> None:
        if self.by_key.get(call.key) is call:
            del self.by_key[call.key]


def _wake(call: Call) -> None:
    for waiter in call.waiters:
        if not waiter.done():
            waiter.set_result(None)


def _time_out(calls: Sequence[Call], waiters: Sequence[asyncio.Future[None]], seconds: float) -> None:
    for call, waiter in zip(calls, waiters, strict=True):
        if not waiter.done():
            # A loader that was not called yet is dropped. A queue of loads without callers would outlast an outage.
            call.is_background = call.is_background or call.is_loading
            waiter.set_exception(LoadTimeout(call.key, seconds))
