"""One load under way: the lease, the loader, and storing what it returns.

Of the processes that miss a key, one in each zone gets its lease and calls the loader; the others look now and then
whether the value is there. A process that has waited for long enough loads for itself, without storing anything: the one
that holds the lease may be dead.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from evcache.answers import Found
from evcache.background import Background
from evcache.codec import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE, Codec
from evcache.coordinator import Draft
from evcache.envelope import Envelope, wrap
from evcache.errors import DecodeError, EncodeError, LoadAborted, LoadTimeout, ValueTooLarge
from evcache.fill import Fill, Filled
from evcache.flights import Flight, Flights, Result
from evcache.hooks import Hooks
from evcache.leases import Lease, Leases, NoLease
from evcache.life import Content, Life, State, content_of, state_of
from evcache.load_policy import Loaded, LoadPolicy
from evcache.near_cache import TTL_SECONDS
from evcache.near_path import Flight as NearFlight
from evcache.near_path import Near, seconds_of
from evcache.options import Options
from evcache.throttle import Throttle
from evcache.ttl import TTL_GRANULARITY_SECONDS
from evcache.versions import VersionClock, cas_of
from zones.cluster import View
from zones.protocol.replies import Hit

# Loads by keys as servers know them: a value for each that has one, None or nothing for the others.
Loader = Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Any]]]

# How a process that waits for another one's load looks whether it has ended: mcrouter's look-aside route begins with 2 ms
# and goes up to 500 ms.
FIRST_LOOK_SECONDS = 0.002
LONGEST_LOOK_SECONDS = 0.5

_log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """What one call asks for, beside its keys."""

    loader: Loader
    ttl: float
    """Seconds; `math.inf`: does not expire."""
    policy: LoadPolicy
    reads: Options
    writes: Options
    timeout: float | None
    """Seconds that the caller waits for a load; None: the policy's."""
    fallback_on_miss: bool
    near: bool

    def patience(self, has_fallback: bool) -> float:  # noqa: FBT001  # the only argument
        """Seconds that the caller waits for a load."""
        patience = self.policy.hard_timeout if self.timeout is None else self.timeout
        if has_fallback and self.policy.soft_timeout is not None:
            return min(patience, self.policy.soft_timeout)
        return patience


class Errand(NamedTuple):
    """A key whose loader is to be called, and what has been found out about it."""

    flight: Flight
    lease: Lease | None = None
    stored: bool = True
    """Whether the value is to be stored."""
    serves: bool = False
    """Whether there is a value that is served meanwhile."""


class Loads:
    """The loads of one client."""

    def __init__(
        self,
        *,
        clock: VersionClock,
        codec: Codec,
        flights: Flights,
        leases: Leases,
        fill: Fill,
        background: Background,
        hooks: Hooks,
        near: Near | None,
        max_loads: int,
        versions: bool,
        wire_ttl: Callable[[float], int],
        wall: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`versions`: whether this client's writes have them. `wire_ttl`: seconds as servers want them said. `wall`: unix
        time.
        """
        self._clock = clock
        self._codec = codec
        self._flights = flights
        self._leases = leases
        self._fill = fill
        self._background = background
        self._hooks = hooks
        self._near = near
        self._slots = asyncio.Semaphore(max_loads)
        self._throttle = Throttle()
        self._versions = versions
        self._wire_ttl = wire_ttl
        self._wall = wall
        self._draw = draw
        self.running = 0
        """Loaders that run."""
        self.loads = 0
        self.failed = 0
        """Of the loads, those whose loader raised, or was cut off."""
        self.leases_won = 0
        self.leases_lost = 0

    def is_throttled(self, key: bytes) -> bool:
        """Whether the loader of this key has just failed, and is left alone as long as there is a value to serve."""
        return self._throttle.holds(key, asyncio.get_running_loop().time())

    @property
    def is_busy(self) -> bool:
        """Whether as many loaders run as may: what nobody waits for is left to a later reader."""
        return self._slots.locked()

    async def run(self, view: View | None, flights: Sequence[Flight], asked: Asked, *, reachable: bool) -> None:
        """See to these loads, until what they found is stored."""
        task = asyncio.current_task()
        try:
            if view is None or not reachable or not asked.policy.lease or not self._versions:
                await self._load(view, [Errand(flight) for flight in flights], asked)
                return
            async with asyncio.TaskGroup() as group:
                prepared = [group.create_task(self._prepare(view, flight, asked)) for flight in flights]
            errands = [task.result() for task in prepared]
            ready = [errand for errand in errands if isinstance(errand, Errand)]
            async with asyncio.TaskGroup() as group:
                if ready:
                    group.create_task(self._load(view, ready, asked))
                for flight, errand in zip(flights, errands, strict=True):
                    if errand is NoLease.TAKEN:
                        group.create_task(self._await_other(view, flight, asked))
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

    # Leases.

    async def _prepare(self, view: View, flight: Flight, asked: Asked) -> Errand | NoLease | None:
        """Get the lease. None: there is a value after all, and the flight has landed."""
        key, seconds = flight.key, asked.policy.whole_lease_seconds
        taken = await self._leases.take(view, key, seconds, self._deadline(asked))
        serves = False
        if isinstance(taken, Found):
            if taken.hit.flags != FLAG_TOMBSTONE:
                content, state = self._state(taken, key, asked)
                if content is not None and (state is State.FRESH or (state is State.DUE and content.flags == FLAG_ABSENT)):
                    self._flights.land(flight, None if content.flags == FLAG_ABSENT else content)
                    return None
                serves = state is not State.GONE
            over = taken
            taken = await self._leases.take_beside(view, key, seconds, self._deadline(asked))
            if isinstance(taken, Lease) and taken.pool.name == over.zone:
                taken = replace(taken, over=over.hit.cas)
        if taken is NoLease.TAKEN:
            self.leases_lost += 1
            if flight.background and not flight.waiters:
                # Nobody waits, for there is a value to serve until the other process has loaded the new one. Closed at
                # once: whoever joined from now on would be told that it was given up.
                self._flights.settle([flight], None)
                return None
            return taken
        if isinstance(taken, NoLease):
            return Errand(flight, serves=serves)
        self.leases_won += 1
        return Errand(flight, taken, serves=serves)

    def _state(self, found: Found, key: bytes, asked: Asked) -> tuple[Content | None, State]:
        try:
            content = content_of(found, self._wall(), key)
        except DecodeError:
            return None, State.GONE  # whoever read it has been told
        return content, state_of(content.life, self._wall(), asked.policy, asked.ttl, 1.0)

    async def _await_other(self, view: View, flight: Flight, asked: Asked) -> None:
        """Another process loads: look whether it has ended, until it has, its lease has, or it is taking too long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + asked.policy.lease_wait
        pause = FIRST_LOOK_SECONDS
        while (left := until - loop.time()) > 0:
            # Not all at the same moment, since they have all begun at the same moment.
            await asyncio.sleep(min(left, pause * (0.5 + self._draw() / 2)))
            pause = min(LONGEST_LOOK_SECONDS, 2 * pause)
            errand = await self._prepare(view, flight, asked)
            if errand is None:
                return
            if isinstance(errand, Errand):
                await self._load(view, [errand], asked)
                return
        await self._load(view, [Errand(flight, stored=False)], asked)

    # The loader.

    async def _load(self, view: View | None, errands: Sequence[Errand], asked: Asked) -> None:
        """Call the loader, and store what it returns. Raises only when cancelled; what goes wrong is told to the flights."""
        # From here on whoever writes a key has a newer version than what is loaded, and spoils what this process would
        # keep of it.
        versions = [self._clock.next() if self._versions else None for _ in errands]
        kept = [
            None if self._near is None or not asked.near else self._near.take_off(errand.flight.key) for errand in errands
        ]
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            values = await self._call(asked, [errand.flight for errand in errands])
        except BaseException as error:
            self.failed += 1
            self._drop(kept)
            self._give_back(errands, asked, failed=isinstance(error, Exception))
            if not isinstance(error, Exception):
                raise
            self._report(errands, error, asked)
            return
        took = loop.time() - began
        self._hooks.loaded(len(errands), took, None)
        stores = []
        results: list[Result] = []
        for errand, version, near_flight in zip(errands, versions, kept, strict=True):
            self._throttle.loaded(errand.flight.key)
            try:
                result, draft = self._made(errand.flight.key, values.get(errand.flight.key), took, asked)
            except EncodeError as error:
                self._drop([near_flight])
                self._give_back([errand], asked, failed=True)
                self._flights.fail(errand.flight, error)
                results.append(None)
                continue
            results.append(result)
            stores.append(self._background.spawn(self._store(view, draft, version, errand, near_flight, asked)))
        # A caller who has got the value may look for it at once, so it is stored first; if that does not take too long.
        storing = [store for store in stores if store is not None]
        if storing:
            await asyncio.wait(storing, timeout=asked.reads.timeout)
        for errand, result in zip(errands, results, strict=True):
            self._flights.land(errand.flight, result)
        if storing:
            await asyncio.wait(storing)

    async def _call(self, asked: Asked, flights: Sequence[Flight]) -> Mapping[bytes, Any]:
        limit = asked.policy.load_timeout
        async with self._slots:
            self.running += 1
            self.loads += 1
            for flight in flights:
                flight.loading = True
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
                self.running -= 1

    # What it returned.

    def _made(self, key: bytes, value: Any, took: float, asked: Asked) -> tuple[Result, Draft | None]:
        """What callers get, and what is to be stored; None for what is not. Raises `EncodeError`."""
        policy, ttl = asked.policy, asked.ttl
        if isinstance(value, Loaded):
            ttl = ttl if value.ttl is None else value.ttl
            value = value.value
        now = self._wall()
        if value is None:
            ttl = min(ttl, policy.negative_ttl) * self._jittered(policy)
            # To other kinds of clients it would be an empty value.
            return None, Draft(key, b"", FLAG_ABSENT, self._wire_ttl(ttl)) if ttl and self._versions else None
        data, flags = self._codec.encode(value)
        ttl *= self._jittered(policy)
        life = Life(now, now + ttl, now + ttl + policy.stale_for, took)
        content = Content(data, flags, life)
        if not ttl:
            return content, None
        if self._versions and (policy.kept_for or (policy.early and not policy.lease)):
            wrapped = wrap(Envelope(data, flags, now, life.expires_at, life.stale_until, took))
            return content, Draft(key, wrapped, FLAG_ENVELOPE, self._wire_ttl(ttl + policy.kept_for))
        return content, Draft(key, data, flags, self._wire_ttl(ttl))

    def _jittered(self, policy: LoadPolicy) -> float:
        return 1.0 - policy.jitter * self._draw()

    async def _store(
        self,
        view: View | None,
        draft: Draft | None,
        version: int | None,
        errand: Errand,
        near_flight: NearFlight | None,
        asked: Asked,
    ) -> None:
        filled = Filled(stored=False, unreachable=view is None)
        try:
            if view is not None and draft is not None and errand.stored:
                filled = await self._fill.store(view, draft, version, errand.lease, asked.writes)
        except ValueTooLarge as error:
            _log.warning("what was loaded for %r is not stored: %s", errand.flight.key, error)
        finally:
            if near_flight is not None and self._near is not None:
                near = None if draft is None else _to_keep(draft, version, errand.lease, filled)
                self._near.land(near_flight, near) if near is not None else self._near.crash(near_flight)
        lease = errand.lease
        if lease is not None and not (filled.stored and lease.name == errand.flight.key):  # it is not a stub any more
            await self._leases.give_back(lease, self._deadline(asked))

    # When it failed.

    def _report(self, errands: Sequence[Errand], error: Exception, asked: Asked) -> None:
        self._hooks.loaded(len(errands), 0.0, error)
        until = asyncio.get_running_loop().time() + asked.policy.throttle
        for errand in errands:
            flight = errand.flight
            self._throttle.failed(flight.key, until)
            if not flight.waiters:
                _log.warning("loading %r in the background failed", flight.key, exc_info=error)
            self._flights.fail(flight, error)

    def _give_back(self, errands: Sequence[Errand], asked: Asked, *, failed: bool) -> None:
        """Let others load; or, if the loader failed and they have a value to serve meanwhile, keep them from it for a
        while.
        """
        for errand in errands:
            lease = errand.lease
            if lease is None:
                continue
            deadline = self._deadline(asked)
            if failed and errand.serves and asked.policy.throttle:
                self._background.spawn(self._leases.extend(lease, math.ceil(asked.policy.throttle), deadline))
            else:
                self._background.spawn(self._leases.give_back(lease, deadline))

    def _drop(self, near_flights: Sequence[NearFlight | None]) -> None:
        for near_flight in near_flights:
            if near_flight is not None and self._near is not None:
                self._near.crash(near_flight)

    def _deadline(self, asked: Asked) -> float:
        return asyncio.get_running_loop().time() + asked.reads.timeout


def _to_keep(draft: Draft, version: int | None, lease: Lease | None, filled: Filled) -> Found | None:
    """What the near cache may keep of it."""
    ttl = seconds_of(draft.ttl)
    if not filled.stored:
        if not filled.unreachable or version is None:
            return None
        # Without the zones, callers would load it one after another. For a moment only: nobody else has it.
        ttl = min(ttl, math.ceil(TTL_SECONDS) + TTL_GRANULARITY_SECONDS) if ttl >= 0 else math.ceil(TTL_SECONDS)
    cas = 0 if version is None else cas_of(version)
    hit = Hit(draft.data, draft.flags, cas, ttl, stale=False, leased=False)
    return Found(hit, "" if lease is None else lease.pool.name, version)
