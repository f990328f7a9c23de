"""One load: the lease, the loader, the fill, and the result for the waiting callers.

Of the processes that miss a key, one per zone gets its lease and calls the loader. The other processes look now and then for
the value. A process that has waited for `lease_wait` seconds loads too, and stores nothing, because the process that holds
the lease may be dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from enum import Enum
from typing import Any, NamedTuple

from evcache._helpers.steps import Steps, run_concurrently
from evcache.errors import DecodeError, LoadAborted
from evcache.near_cache.coherence import FetchToken
from evcache.read_through.context import LoadContext
from evcache.read_through.freshness import State, state_of
from evcache.read_through.loads.bulk_fill import AT_ONCE, BulkFill, LoadedValue
from evcache.read_through.loads.fill import prepare
from evcache.read_through.loads.leases import Lease, NoLease
from evcache.read_through.loads.single_flight import Call
from evcache.read_through.request import LoadRequest
from evcache.replication.reconcile import ZoneHit
from evcache.values.flags import FLAG_ABSENT, FLAG_TOMBSTONE
from evcache.values.lifetime import Content, content_of
from evcache.writes.draft import Draft
from evcache.zones._tasks import unattended
from evcache.zones.snapshot import ClusterSnapshot

# Pauses between looks for the value of another process. mcrouter's look-aside route uses the same two limits.
FIRST_LOOK_SECONDS = 0.002
LONGEST_LOOK_SECONDS = 0.5

_log = logging.getLogger("evcache.read_through")


class _Next(Enum):
    """Next step of a key after the question for its lease."""

    LOAD = "load"
    WAIT = "wait"
    """Another process holds the lease."""
    NOTHING = "nothing"
    """The load has ended."""


class _Started(NamedTuple):
    """Key whose loader is called."""

    call: Call
    version: int | None
    """Version of the moment before the call of the loader. Any later write of the key has a higher one."""
    token: FetchToken | None
    """Fetch of the near cache. Any write of the key invalidates it."""


class Load:
    """One load of one or several keys. It holds their leases until the value is stored, or the load fails."""

    def __init__(
        self, context: LoadContext, zones: ClusterSnapshot | None, calls: Sequence[Call], request: LoadRequest
    ) -> None:
        self._context = context
        self._zones = zones
        self._calls = calls
        self._request = request
        self._leases: dict[Call, Lease] = {}
        self._old_values: set[Call] = set()
        """Keys of which the zones hold an old value that may be served during the load."""

    async def run(self) -> None:
        """Run to the end: acquire leases, call the loader, store the values, and resolve the calls.

        The load asks for the lease even if the read before it failed. A thousand callers at once can delay a read, and they
        are what leases are for. Nodes that are known to be down are not asked.
        """
        zones, calls, task = self._zones, self._calls, asyncio.current_task()
        single_flight, hooks = self._context.single_flight, self._context.hooks
        span: AbstractContextManager[None] = nullcontext()
        if calls[0].is_background and hooks.background is not None:
            span = hooks.background("load")
        try:
            with span:
                if zones is None or not self._request.policy.lease or not self._context.has_versions:
                    await self._load(calls)
                elif len(calls) == 1:
                    step = await self._acquire(zones, calls[0])
                    if step is _Next.LOAD:
                        await self._load(calls)
                    elif step is _Next.WAIT:
                        await self._await_other(zones, calls[0])
                else:
                    await self._run_many(zones)
        except asyncio.CancelledError:
            for call in calls:
                single_flight.fail(call, LoadAborted("load cancelled: the client is closing, or no caller waits any more"))
            raise
        except Exception as error:  # a bug, which the waiting callers raise
            for call in calls:
                single_flight.fail(call, error)
            raise
        finally:
            single_flight.finish(calls, task)

    async def _run_many(self, zones: ClusterSnapshot) -> None:
        steps: dict[Call, _Next] = {}

        async def acquire(call: Call) -> None:
            steps[call] = await self._acquire(zones, call)

        try:
            await run_concurrently(self._calls, acquire, AT_ONCE)
            own = [call for call in self._calls if steps[call] is _Next.LOAD]
            looks = asyncio.Semaphore(AT_ONCE)
            async with asyncio.TaskGroup() as group:
                if own:
                    unattended(group.create_task(self._load(own)))
                for call in self._calls:
                    if steps[call] is _Next.WAIT:
                        unattended(group.create_task(self._await_other(zones, call, looks)))
        except BaseException:
            # A task that is cancelled before its first step gives no lease back.
            self._give_back(self._calls, failed=False)
            raise

    # The lease.

    async def _acquire(self, zones: ClusterSnapshot, call: Call) -> _Next:
        """Ask for the lease of a key. Resolve the call if the zone holds a value after all."""
        context, request, key = self._context, self._request, call.key
        self._old_values.discard(call)
        seconds = request.policy.whole_lease_seconds
        granted = await context.leases.take(zones, key, seconds, request.deadline())
        if isinstance(granted, ZoneHit):
            if granted.hit.flags != FLAG_TOMBSTONE:
                content, state = self._judge(granted, key)
                # A caller that waits has missed, so any fresh value serves it. The next reader triggers the refresh.
                is_enough = not call.is_background or (content is not None and content.flags == FLAG_ABSENT)
                if content is not None and (state is State.FRESH or (state is State.REFRESH_DUE and is_enough)):
                    context.single_flight.resolve(call, None if content.flags == FLAG_ABSENT else content)
                    context.single_flight.finish([call])
                    return _Next.NOTHING
                if state is not State.EXPIRED:
                    self._old_values.add(call)
            granted = await context.leases.take_beside(
                zones, key, seconds, request.deadline(), granted, context.known_version(key)
            )
        if granted is NoLease.TAKEN:
            if call.is_background and not call.waiters:
                # Readers are served the old value until the other process has stored the new one. The call ends now. A
                # caller that joined it later would get an error.
                context.single_flight.finish([call])
                return _Next.NOTHING
            return _Next.WAIT
        if isinstance(granted, Lease):
            self._leases[call] = granted
        return _Next.LOAD

    def _judge(self, found: ZoneHit, key: bytes) -> tuple[Content | None, State]:
        """Return the content of what a zone holds, and its state. Bytes that cannot be used are expired."""
        context, request = self._context, self._request
        try:
            content = content_of(found.hit, found.written_at, context.unix_time(), key=key, zone=found.zone)
        except DecodeError:
            return None, State.EXPIRED  # the read before the load has counted it
        is_stale_replica = found.version is not None and found.version < context.known_version(key)
        if is_stale_replica or not request.can_read(content):
            return None, State.EXPIRED
        return content, state_of(content.life, context.unix_time(), request.policy, request.ttl, 1.0)

    async def _await_other(
        self, zones: ClusterSnapshot, call: Call, looks: AbstractAsyncContextManager[object] | None = None
    ) -> None:
        """Wait for the load of another process. Load if its lease ends, or if it takes longer than `lease_wait`.

        Args:
            zones: Zones of the lease.
            call: The key.
            looks: Limit on the looks that several such waits take at the same time.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._request.policy.lease_wait
        pause = FIRST_LOOK_SECONDS
        while (left := until - loop.time()) > 0:
            # Waits that began at the same moment look at different moments.
            await asyncio.sleep(min(left, pause * (0.5 + self._context.draw() / 2)))
            pause = min(LONGEST_LOOK_SECONDS, 2 * pause)
            async with looks or nullcontext():
                step = await self._acquire(zones, call)
            if step is _Next.NOTHING:
                return
            if step is _Next.LOAD:
                await self._load([call])
                return
        if call.is_needed:
            await self._load([call], is_stored=False)
            return
        # All waiting callers have an old value. The other process is slow, or its loader failed and is in its backoff.
        self._context.back_off(call, self._request.policy.failure_backoff)
        self._context.single_flight.fail(
            call, LoadAborted("load failed: another process has held the lease for too long, or its loader failed")
        )

    # The loader and the fill.

    async def _load(self, calls: Sequence[Call], *, is_stored: bool = True) -> None:
        """Call the loader, store its values, and resolve the calls. Only cancellation propagates."""
        context, request = self._context, self._request
        started = [
            _Started(
                call,
                context.hlc.tick() if context.has_versions else None,
                context.begin_fetch(call.key) if request.reads.near_cache else None,
            )
            for call in calls
        ]
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            values = await context.calls.call(request, calls)
        except GeneratorExit:
            raise  # the event loop is closed: no lease can be given back
        except BaseException as error:
            context.calls.count_failure()
            self._drop(started, failed=isinstance(error, Exception))
            if not isinstance(error, Exception):
                raise
            context.hooks.loaded(len(calls), 0.0, error)
            for call in calls:
                self._fail(call, error)
            return
        took = loop.time() - began
        context.hooks.loaded(len(calls), took, None)
        loaded = await self._prepare(started, values, took, is_stored=is_stored)
        storing = await BulkFill(context, self._zones, request, loaded).start()
        # A caller that has the value may read it at once, so the store comes first, if it does not take too long.
        if storing:
            await asyncio.wait(storing, timeout=request.reads.timeout)
        for value in loaded:
            context.single_flight.resolve(value.call, value.result)
        if storing:
            await asyncio.wait(storing)
        # These calls end now. By the end of the others, another process may have written the keys.
        context.single_flight.finish(calls)

    async def _prepare(
        self, started: Sequence[_Started], values: Any, took: float, *, is_stored: bool
    ) -> Sequence[LoadedValue]:
        """Encode the loaded values. The call of a value that cannot be encoded fails, and the others go on."""
        context, request = self._context, self._request
        loaded: list[LoadedValue] = []
        done = 0
        steps = Steps()
        try:
            for call, version, token in started:
                is_replaced = call in self._old_values or call.is_background
                done += 1
                try:
                    result, fill = prepare(
                        values.get(call.key),
                        request,
                        context.decoding,
                        took=took,
                        now=context.unix_time(),
                        draw=context.draw(),
                        has_versions=context.has_versions,
                        tombstone_ttl=context.tombstone_ttl if is_replaced else None,
                    )
                except Exception as error:  # an `EncodeError`, or any error of the service's codec
                    self._drop([started[done - 1]], failed=True)
                    self._fail(call, error)
                    continue
                context.backoff.end(call.key)
                draft = None
                if fill is not None and is_stored:
                    draft = Draft(call.key, fill.data, fill.flags, context.writer.wire_ttl(fill.seconds))
                loaded.append(LoadedValue(call, result, draft, version, self._leases.pop(call, None), token))
                if steps.count(0 if draft is None else len(draft.data)):
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            BulkFill(context, self._zones, request, loaded).abandon()
            self._drop(started[done:], failed=False)
            raise
        return loaded

    # Failures.

    def _fail(self, call: Call, error: Exception) -> None:
        self._context.back_off(call, self._request.policy.failure_backoff)
        if not call.waiters:
            _log.warning("background load of %r failed: %s", call.key, error, exc_info=error)
        self._context.single_flight.fail(call, error)
        self._context.single_flight.finish([call])  # others of the same load may take longer

    def _drop(self, started: Sequence[_Started], *, failed: bool) -> None:
        """End the fetches and the leases of keys whose value is not stored."""
        for each in started:
            self._context.abandon_fetch(each.token)
        self._give_back([each.call for each in started], failed=failed)

    def _give_back(self, calls: Sequence[Call], *, failed: bool) -> None:
        """Give the leases of these keys back, so that other processes load.

        Args:
            calls: Keys. Those without a lease are skipped.
            failed: True if the loader raised. If the zone holds an old value, other processes serve it, and call the loader
                again after the backoff only.
        """
        context, backoff = self._context, self._request.policy.failure_backoff
        for call in calls:
            lease = self._leases.pop(call, None)
            if lease is None:
                continue
            if failed and backoff and call in self._old_values:
                context.leases.extend(lease, backoff, self._request.deadline())
            else:
                context.leases.give_back(lease, self._request.deadline())
