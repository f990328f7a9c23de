"""Loads under way, one for each key and process: whoever asks for a key that is being loaded waits for that load.

Caches have got this wrong in the same few ways. If the first caller runs the load itself, or all await one task, a caller
that is cancelled cancels the others. If the task is what is cached, so is its cancellation. So here a load is a task of
the client's, and each caller waits on a future of its own: its cancellation, or its timeout, takes only that. A load that
nobody waits for any more is cancelled; one whose callers ran out of time goes on, if its loader runs already: they will
be back.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from types import TracebackType

from evcache.errors import LoadAborted, LoadTimeout
from evcache.read_through.concurrency_limit import Ticket
from evcache.replication.hlc import NOTHING_NEWER
from evcache.values.lifetime import Content

# Callers that wait for one key. More are turned away: they would be an avalanche when it lands.
MAX_WAITERS = 10_000

# Loads that are remembered after they have ended. A read lasts a fraction of a second; over that many loads in it, a key may
# be loaded once more.
MAX_ENDED = 1_000

Result = Content | None
"""What was loaded; None: there is nothing."""


class Call:
    """One key that is being loaded."""

    __slots__ = (
        "background",
        "detached",
        "failure",
        "key",
        "landed",
        "loading",
        "needed",
        "result",
        "settled",
        "task",
        "ticket",
        "traceback",
        "urgent",
        "waiters",
        "written",
    )

    def __init__(self, key: bytes, *, background: bool) -> None:
        self.key = key
        self.background = background
        """Whether it goes on when nobody waits for it."""
        self.loading = False
        """Whether its loader has been called."""
        self.landed = False
        """Whether there is a result, or a failure."""
        self.settled = False
        """Whether it is over, and nobody may join it."""
        self.needed = False
        """Whether somebody waits for it who has nothing else to serve."""
        self.detached = False
        """True if the key was, or may have been, written since the flight began."""
        self.written: float = 0
        """The newest version of the key that this process has heard of since it began; `math.inf`: one that is not known."""
        self.result: Result = None
        self.failure: BaseException | None = None
        self.traceback: TracebackType | None = None
        self.waiters: set[asyncio.Future[None]] = set()
        self.task: asyncio.Task[None] | None = None
        self.urgent = False
        """Whether a loader that runs waits for it: then it must not wait for a slot."""
        self.ticket: Ticket | None = None
        """Its loader's place among those that wait to be called."""

    def outcome(self) -> Result:
        """What was loaded. Raises the failure, as often as it is asked: always with the loader's own traceback."""
        if self.failure is not None:
            raise self.failure.with_traceback(self.traceback)
        return self.result


class SingleFlight:
    """The loads of one client."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Call] = {}
        self._by_task: dict[asyncio.Task[None], Sequence[Call]] = {}
        self._ended: OrderedDict[bytes, int] = OrderedDict()
        self.ended = 0
        """Loads that have ended so far."""

    def __len__(self) -> int:
        """Keys that are being loaded, whether or not anybody may still join."""
        return sum(map(len, self._by_task.values()))

    def get(self, key: bytes) -> Call | None:
        """The load of this key that a caller may wait for, if there is one."""
        return self._by_key.get(key)

    def has_ended_since(self, key: bytes, ended: int) -> bool:
        """Whether a load of this key has ended since `ended` was this: what a read has found that was on its way
        meanwhile may be older than what was loaded.
        """
        return self._ended.get(key, 0) > ended

    def begin(self, keys: Iterable[bytes], *, background: bool = False) -> list[Call]:
        """Enter loads of keys. Each ends with `land` or `fail`, and all with `settle`."""
        flights = [Call(key, background=background) for key in keys]
        self._by_key.update((flight.key, flight) for flight in flights)
        return flights

    def own(self, flights: Sequence[Call], task: asyncio.Task[None]) -> None:
        """This task sees to them."""
        if task.done():  # with an eager task factory it may have been run by what made it
            return
        self._by_task[task] = flights
        for flight in flights:
            flight.task = task

    def detach(self, key: bytes, version: int | None = None) -> None:
        """The key is being written: whoever asks from now on must not get what was loaded before. Those who wait do.

        `version`: the new one; None: not known.
        """
        flight = self._by_key.pop(key, None)
        if flight is not None:
            flight.written = max(flight.written, math.inf if version is None else version)
            flight.detached = flight.detached or version != NOTHING_NEWER

    def detach_all(self) -> None:
        """The same, when any key may have been written."""
        for flight in self._by_key.values():
            flight.detached = True
        self._by_key.clear()

    def reopen(self) -> None:
        """Forget the loads of the last opening, whose tasks have ended."""
        self._by_key.clear()
        self._by_task.clear()

    def land(self, flight: Call, result: Result) -> None:
        """It has been loaded: everybody who waits gets it, and so does whoever joins before `settle`."""
        if not flight.landed:
            flight.landed = True
            flight.result = result
            _wake(flight)

    def fail(self, flight: Call, failure: BaseException) -> None:
        """It could not be loaded: everybody who waits gets this error, the same one, as all who await one asyncio future
        do.
        """
        if not flight.landed:
            flight.landed = True
            flight.failure = failure
            flight.traceback = failure.__traceback__
            _wake(flight)

    def settle(self, flights: Sequence[Call], task: asyncio.Task[None] | None) -> None:
        """They are over, and stored if they are to be: the next caller reads, or begins anew."""
        for flight in flights:
            if flight.settled:
                continue
            flight.settled = True
            self._close(flight)
            self.ended += 1
            self._ended[flight.key] = self.ended
            self._ended.move_to_end(flight.key)
            if len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)
            if not flight.landed:
                self.fail(flight, LoadAborted("it was given up"))
        if task is not None:
            self._by_task.pop(task, None)

    def fail_all(self, failure: LoadAborted) -> None:
        """Fail the loads that are under way, and let no caller join them."""
        for task, flights in list(self._by_task.items()):
            for flight in flights:
                self.fail(flight, failure)
            self.settle(flights, task)

    async def wait(self, flights: Sequence[Call], seconds: float) -> None:
        """Wait until all have landed. Raises `LoadTimeout` after so many seconds.

        A caller that is cancelled leaves alone; with the last one, a load that nobody else wants ends.
        """
        loop = asyncio.get_running_loop()
        waiting = [flight for flight in flights if not flight.landed]
        for flight in waiting:
            if len(flight.waiters) >= MAX_WAITERS:
                self._leave(waiting)  # those that were begun for this caller have nobody else
                raise LoadAborted(f"{MAX_WAITERS} callers wait for {flight.key!r} already")
        if not waiting:
            return
        # All join before the first await: between two of them, a flight without waiters could be given up.
        waiters = [loop.create_future() for _ in waiting]
        for flight, waiter in zip(waiting, waiters, strict=True):
            flight.waiters.add(waiter)
        timer = loop.call_later(seconds, _give_up, waiting, waiters, seconds)
        try:
            for waiter in waiters:
                await waiter
        finally:
            timer.cancel()
            for flight, waiter in zip(waiting, waiters, strict=True):
                flight.waiters.discard(waiter)
                if waiter.done() and not waiter.cancelled():
                    waiter.exception()  # looked at by nobody when the caller is cancelled, or an earlier one failed
            self._leave(waiting)

    def _leave(self, flights: Sequence[Call]) -> None:
        """A caller does not wait for these any more. Cancel each load of which all flights are abandoned."""
        tasks: dict[asyncio.Task[None], None] = {}
        for flight in flights:
            if not flight.waiters and not flight.landed and not flight.background:
                self._close(flight)
                if flight.task is not None:
                    tasks[flight.task] = None
        for task in tasks:
            if task.get_loop().is_closed():
                continue
            together = self._by_task.get(task, ())
            if not any(other.waiters or other.background for other in together if not other.landed):
                task.cancel()

    def _close(self, flight: Call) -> None:
        """Nobody may join this one any more."""
        if self._by_key.get(flight.key) is flight:
            del self._by_key[flight.key]


def _wake(flight: Call) -> None:
    for waiter in flight.waiters:
        if not waiter.done():
            waiter.set_result(None)


def _give_up(flights: Sequence[Call], waiters: Sequence[asyncio.Future[None]], seconds: float) -> None:
    for flight, waiter in zip(flights, waiters, strict=True):
        if not waiter.done():
            # A loader that has not been called yet is not called for nobody: a queue of those would outlive its cause.
            flight.background = flight.background or flight.loading
            waiter.set_exception(LoadTimeout(flight.key, seconds))
