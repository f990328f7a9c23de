"""One load under way: the lease, the loader, and storing what it returns.

Of the processes that miss a key, one in each zone gets its lease and calls the loader; the others look now and then
whether the value is there. A process that has waited for long enough loads for itself, without storing anything: the one
that holds the lease may be dead.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any

from evcache._background import BackgroundTasks
from evcache._steps import Steps, a_few_at_once
from evcache.errors import DecodeError, LoadAborted, LoadTimeout
from evcache.hooks import HookDispatcher
from evcache.near_cache.coherence import CoherentNearCache
from evcache.read_through.concurrency_limit import LoadLimiter
from evcache.read_through.failure_backoff import FailureBackoff
from evcache.read_through.fill import Fill
from evcache.read_through.freshness import State, state_of
from evcache.read_through.leases import Leases, NoLease
from evcache.read_through.load_stores import AT_ONCE, LoadStores, Packed, deadline_of
from evcache.read_through.packer import Packer
from evcache.read_through.request import LoadRequest, LoadTask
from evcache.read_through.single_flight import Call, Result, SingleFlight
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.reconcile import ZoneHit
from evcache.values.flags import FLAG_ABSENT, FLAG_TOMBSTONE
from evcache.values.lifetime import Content, content_of
from evcache.zones._tasks import unattended
from evcache.zones.cluster import ClusterSnapshot

# How a process that waits for another one's load looks whether it has ended: mcrouter's look-aside route begins with 2 ms
# and goes up to 500 ms.
FIRST_LOOK_SECONDS = 0.002
LONGEST_LOOK_SECONDS = 0.5

# Whether this is the context of a loader.
_inside_loader: ContextVar[bool] = ContextVar("evcache_inside_loader", default=False)

_log = logging.getLogger("evcache.read_through")


class Loader:
    """The loads of one client."""

    def __init__(
        self,
        *,
        clock: HybridLogicalClock,
        pack: Packer,
        flights: SingleFlight,
        leases: Leases,
        throttle: FailureBackoff,
        fill: Fill,
        background: BackgroundTasks,
        hooks: HookDispatcher,
        near: CoherentNearCache | None,
        max_loads: int,
        versions: bool,
        current: Callable[[], ClusterSnapshot | None],
        known: Callable[[bytes], int],
        wall: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`versions`: whether this client's writes have them. `current`: the zones as they are now. `known`: the newest
        version of a key that this client has written or seen. `wall`: unix time.
        """
        self._clock = clock
        self._pack = pack
        self._flights = flights
        self._leases = leases
        self._stores = LoadStores(
            fill=fill,
            leases=leases,
            throttle=throttle,
            background=background,
            near=near,
            current=current,
        )
        self._hooks = hooks
        self._near = near
        self._max_loads = max_loads
        self._slots = LoadLimiter(max_loads)
        self._throttle = throttle
        self._versions = versions
        self._known = known
        self._wall = wall
        self._draw = draw
        self.loads = 0
        self.failed = 0
        """Of the loads, those whose loader raised, or was cut off."""
        self.leases_won = 0
        self.leases_lost = 0

    def is_throttled(self, key: bytes) -> bool:
        """Whether the loader of this key has just failed, and is left alone as long as there is a value to serve."""
        return self._throttle.holds(key, asyncio.get_running_loop().time())

    def reopen(self) -> None:
        """Forget the loaders of the last opening, which have ended."""
        self._slots = LoadLimiter(
            self._max_loads
        )  # a loader that goes on after its cancellation frees its slot in the former one
        self._throttle.end_all()  # its times are those of the last loop

    @property
    def running(self) -> int:
        """Loaders that run."""
        return self._slots.running

    @property
    def is_busy(self) -> bool:
        """Whether as many loaders run as may: what nobody waits for is left to a later reader."""
        return self._slots.full

    def hurry(self, flight: Call) -> None:
        """If a running loader is who asks for this one, it must not wait for a slot."""
        if _inside_loader.get():
            flight.urgent = True
            if flight.ticket is not None:
                self._slots.jump(flight.ticket)

    async def run(self, view: ClusterSnapshot | None, flights: Sequence[Call], asked: LoadRequest) -> None:
        """See to these loads, until what they found is stored.

        The lease is asked for also when the read before has failed: a thousand callers at once can make it late, and are
        what leases are for. Nodes that are known to be down are not asked.
        """
        task = asyncio.current_task()
        apart: AbstractContextManager[None] = nullcontext()
        if flights[0].background and self._hooks.background is not None:
            apart = self._hooks.background("load")
        try:
            with apart:
                await self._see_to(view, flights, asked)
        except asyncio.CancelledError:
            for flight in flights:
                self._flights.fail(
                    flight, LoadAborted("it was cancelled: the client is closing, or nobody waits for it any more")
                )
            raise
        except Exception as error:  # a bug, which those who wait must hear of
            for flight in flights:
                self._flights.fail(flight, error)
            raise
        finally:
            self._flights.settle(flights, task)

    async def _see_to(self, view: ClusterSnapshot | None, flights: Sequence[Call], asked: LoadRequest) -> None:
        if view is None or not asked.policy.lease or not self._versions:
            await self._load(view, [LoadTask(flight) for flight in flights], asked)
        elif len(flights) == 1:
            await self._go_on(view, flights[0], await self._prepare(view, flights[0], asked), asked)
        else:
            await self._run_many(view, flights, asked)

    async def _run_many(self, view: ClusterSnapshot, flights: Sequence[Call], asked: LoadRequest) -> None:
        ready: list[LoadTask] = []
        taken: list[Call] = []

        async def prepare(flight: Call) -> None:
            errand = await self._prepare(view, flight, asked)
            if isinstance(errand, LoadTask):
                ready.append(errand)
            elif errand is NoLease.TAKEN:
                taken.append(flight)

        try:
            await a_few_at_once(flights, prepare, AT_ONCE)
            order = {flight: number for number, flight in enumerate(flights)}
            ready.sort(key=lambda errand: order[errand.flight])
            looks = asyncio.Semaphore(AT_ONCE)

            async def load() -> None:
                errands = ready.copy()
                ready.clear()  # from now on the load gives them back
                await self._load(view, errands, asked)

            async with asyncio.TaskGroup() as group:
                if ready:
                    unattended(group.create_task(load()))
                for flight in taken:
                    unattended(group.create_task(self._await_other(view, flight, asked, looks)))
        except BaseException:
            # A task that is cancelled before it has begun does not give back what it was handed.
            self._stores.give_back(ready, asked, failed=False)
            raise

    async def _go_on(
        self, view: ClusterSnapshot, flight: Call, errand: LoadTask | NoLease | None, asked: LoadRequest
    ) -> None:
        if isinstance(errand, LoadTask):
            await self._load(view, [errand], asked)
        elif errand is not None:
            await self._await_other(view, flight, asked)

    # Leases.

    async def _prepare(self, view: ClusterSnapshot, flight: Call, asked: LoadRequest) -> LoadTask | NoLease | None:
        """Get the lease. None: there is a value after all, and the flight has landed."""
        key, seconds = flight.key, asked.policy.whole_lease_seconds
        taken = await self._leases.take(view, key, seconds, deadline_of(asked))
        serves = False
        if isinstance(taken, ZoneHit):
            if taken.hit.flags != FLAG_TOMBSTONE:
                content, state = self._state(taken, key, asked)
                # To who waits because there was nothing, what is fresh will do; a later reader has it loaded anew.
                will_do = not flight.background or (content is not None and content.flags == FLAG_ABSENT)
                if content is not None and (state is State.FRESH or (state is State.REFRESH_DUE and will_do)):
                    self._flights.land(flight, None if content.flags == FLAG_ABSENT else content)
                    self._flights.settle([flight], None)
                    return None
                serves = state is not State.EXPIRED
            taken = await self._leases.take_beside(view, key, seconds, deadline_of(asked), taken, self._known(key))
        if taken is NoLease.TAKEN:
            self.leases_lost += 1
            if flight.background and not flight.waiters:
                # Nobody waits, for there is a value to serve until the other process has loaded the new one. Closed at
                # once: whoever joined from now on would be told that it was given up.
                self._flights.settle([flight], None)
                return None
            return taken
        if isinstance(taken, NoLease):
            return LoadTask(flight, serves=serves)
        self.leases_won += 1
        return LoadTask(flight, taken, serves=serves)

    def _state(self, found: ZoneHit, key: bytes, asked: LoadRequest) -> tuple[Content | None, State]:
        try:
            content = content_of(found.hit, found.written_at, self._wall(), key=key, zone=found.zone)
        except DecodeError:
            return None, State.EXPIRED  # the read before counted it
        if not asked.can_read(content) or (found.version is not None and found.version < self._known(key)):
            return None, State.EXPIRED  # unreadable, or this zone is behind what this client has written or seen
        return content, state_of(content.life, self._wall(), asked.policy, asked.ttl, 1.0)

    async def _await_other(
        self,
        view: ClusterSnapshot,
        flight: Call,
        asked: LoadRequest,
        looks: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        """Another process loads: look whether it has ended, until it has, its lease has, or it is taking too long.

        `looks` bounds the looks of several such waits that are made at once.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + asked.policy.lease_wait
        pause = FIRST_LOOK_SECONDS
        while (left := until - loop.time()) > 0:
            # Not all at the same moment, since they have all begun at the same moment.
            await asyncio.sleep(min(left, pause * (0.5 + self._draw() / 2)))
            pause = min(LONGEST_LOOK_SECONDS, 2 * pause)
            async with looks or nullcontext():
                errand = await self._prepare(view, flight, asked)
            if errand is None:
                return
            if isinstance(errand, LoadTask):
                await self._load(view, [errand], asked)
                return
        if flight.needed:
            await self._load(view, [LoadTask(flight, stored=False)], asked)
            return
        # All who wait have something to serve: the other is slow, or its loader has failed and is left alone.
        self._stores.leave_alone(flight, asked)
        self._flights.fail(flight, LoadAborted("another process has been loading it for too long, or could not"))

    # The loader.

    async def _load(self, view: ClusterSnapshot | None, errands: Sequence[LoadTask], asked: LoadRequest) -> None:
        """Call the loader, and store what it returns. Raises only when cancelled; what goes wrong is told to the flights."""
        # From here on whoever writes a key has a newer version than what is loaded, and spoils what this process would
        # keep of it.
        versions = [self._clock.tick() if self._versions else None for _ in errands]
        kept = [
            None if self._near is None or not asked.reads.near_cache else self._near.begin_fetch(errand.flight.key)
            for errand in errands
        ]
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            values = await self._call(asked, [errand.flight for errand in errands])
        except BaseException as error:
            if isinstance(error, GeneratorExit):
                raise  # the event loop is closed: no lease can be given back
            self.failed += 1
            self._stores.drop(kept)
            self._stores.give_back(errands, asked, failed=isinstance(error, Exception))
            if not isinstance(error, Exception):
                raise
            self._report(errands, error, asked)
            return
        took = loop.time() - began
        self._hooks.loaded(len(errands), took, None)
        results: list[Result] = []
        packed: list[Packed] = []
        steps = Steps()
        try:
            for errand, version, near_flight in zip(errands, versions, kept, strict=True):
                try:
                    result, draft = self._pack.loaded(errand, values.get(errand.flight.key), took, asked)
                except Exception as error:  # an `EncodeError`, or any error of the service's codec
                    self._stores.drop([near_flight])
                    self._stores.give_back([errand], asked, failed=True)
                    self._failed(errand.flight, error, asked)
                    results.append(None)
                    continue
                self._throttle.end(errand.flight.key)
                results.append(result)
                packed.append((draft, version, errand, near_flight))
                if steps.is_over(0 if draft is None else len(draft.data)):
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            done = len(results)
            self._stores.abandon(
                [*packed, *((None, 0, *rest) for rest in zip(errands[done:], kept[done:], strict=True))], asked
            )
            raise
        storing = await self._stores.begin(view, packed, asked)
        # A caller who has got the value may look for it at once, so it is stored first; if that does not take too long.
        if storing:
            await asyncio.wait(storing, timeout=asked.reads.timeout)
        for errand, result in zip(errands, results, strict=True):
            self._flights.land(errand.flight, result)
        if storing:
            await asyncio.wait(storing)
        # Now, and not when all that was begun with them has ended: by then another process may have written them.
        self._flights.settle([errand.flight for errand in errands], None)

    async def _call(self, asked: LoadRequest, flights: Sequence[Call]) -> Mapping[bytes, Any]:
        nested = _inside_loader.get() and not flights[0].background
        slots = self._slots
        ticket = slots.ticket(at_once=nested or any(flight.urgent for flight in flights))
        for flight in flights:
            flight.ticket = ticket
        await slots.wait(ticket)
        slots.running += 1
        self.loads += 1
        for flight in flights:
            flight.loading = True
        outside = _inside_loader.set(True)
        limit = asked.policy.load_timeout
        try:
            async with asyncio.timeout(limit) as scope:
                return await asked.loader([flight.key for flight in flights])
        except TimeoutError as error:
            if scope.expired():
                raise LoadTimeout(flights[0].key, limit) from error
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled, but something that the loader awaited: an error like any other.
            raise LoadAborted("the loader was cancelled from within") from error
        finally:
            with suppress(ValueError):  # a coroutine that is never run again is closed in another context
                _inside_loader.reset(outside)
            slots.running -= 1
            slots.free()

    # When it failed.

    def _report(self, errands: Sequence[LoadTask], error: Exception, asked: LoadRequest) -> None:
        self._hooks.loaded(len(errands), 0.0, error)
        for errand in errands:
            self._failed(errand.flight, error, asked)

    def _failed(self, flight: Call, error: Exception, asked: LoadRequest) -> None:
        self._stores.leave_alone(flight, asked)
        if not flight.waiters:
            _log.warning("loading %r in the background failed", flight.key, exc_info=error)
        self._flights.fail(flight, error)
        self._flights.settle([flight], None)  # others that were begun with it may take longer
