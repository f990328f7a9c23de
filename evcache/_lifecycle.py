"""Opening and closing of a client: which parts begin and end, in which order, and for how long the client waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from evcache._helpers.background import BackgroundTasks
from evcache._helpers.loop_affinity import LoopAffinity
from evcache._helpers.loop_end import LoopEnd
from evcache.errors import CacheUnavailable
from evcache.invalidation.bus import InvalidationBus
from evcache.near_cache.coherence import CoherentNearCache
from evcache.options import Options
from evcache.read_through.get_or_load import ReadThrough
from evcache.replication.handoff.hinted_handoff import HintedHandoff
from evcache.telemetry import Activation
from evcache.zones._tasks import abandon, cancel_once, ended, unattended
from evcache.zones.cluster import Cluster
from evcache.zones.discovery.base import Discovery, StaticDiscovery, name_of_source
from evcache.zones.discovery.own_zone.search import LocalZoneSearch
from evcache.zones.errors import DiscoveryError
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.validation import zero_or_more

# Seconds for invalidation messages of the last writes, if the writes have taken the whole drain time. It is one message,
# which takes a millisecond or two.
_LAST_MESSAGES_SECONDS = 0.1

# Seconds for finding the zones when a client is opened by `async with`. A name server or an API server needs more time for
# its first answer than a read has. Longer than the lookup of one zone (5 s), because the client opens without a zone that
# hangs.
OPEN_SECONDS = 8.0

# Seconds between attempts within that time, if the source of the zones fails at once.
RETRY_SECONDS = 1.0

# Seconds that `close` waits for writes that are under way.
CLOSE_SECONDS = 2.0

_log = logging.getLogger("evcache.client")


class Reopened(Protocol):
    """A part that has state of one opening."""

    def reopen(self) -> None:
        """Forget the state of the last opening. Awaits nothing, because the loop of that opening may be closed."""


class Lifecycle:
    """The openings of one client, one after another, each on one event loop."""

    def __init__(
        self,
        affinity: LoopAffinity,
        discovery: Discovery,
        cluster: Cluster,
        background: BackgroundTasks,
        read_through: ReadThrough,
        near: CoherentNearCache | None,
        bus: InvalidationBus | None,
        handoff: HintedHandoff | None,
        activation: Activation | None,
        local_zone: LocalZoneSearch | None,
        others: Sequence[Reopened],
    ) -> None:
        """Make it for one client. The parts are those that begin or end with an opening.

        Args:
            affinity: Event loop and process of the opening.
            discovery: Source of the topology.
            cluster: Nodes.
            background: Tasks that outlive their calls.
            read_through: Loads.
            near: Near cache, or None.
            bus: Invalidation channel, or None.
            handoff: Hinted handoff, or None.
            activation: Telemetry, or None.
            local_zone: Search for the zone of this process, or None if it is known.
            others: Parts that only forget the state of the last opening.
        """
        self._affinity = affinity
        self._discovery = discovery
        self._cluster = cluster
        self._background = background
        self._read_through = read_through
        self._near = near
        self._bus = bus
        self._handoff = handoff
        self._activation = activation
        self._local_zone = local_zone
        present = [part for part in (near, bus, handoff, local_zone) if part is not None]
        self._reopened: tuple[Reopened, ...] = (background, cluster, read_through, *others, *present)
        self._loop_end: LoopEnd | None = None
        self._starting: asyncio.Task[ClusterSnapshot] | None = None
        self._closers: set[asyncio.Future[None]] = set()  # calls of `close` that are under way
        self._was_open = False  # True from the first opening on
        self._ended = True  # True before the first opening, and after a call of `close` has finished

    # Opening.

    async def enter(self, options: Options) -> None:
        """Open the client, also after `close`. If a call of `close` was cancelled, end that opening first.

        Raises:
            CacheUnavailable: The zones are not known in time.
            InvalidTopology: The zones cannot be used.
            UsageError: The client is open on another event loop, or in another process.
        """
        while self._affinity.is_closed:
            if not self._closers or self._affinity.is_lost:
                await self.close(CLOSE_SECONDS)
            else:
                await asyncio.wait(list(self._closers))
            if self._ended and not self._closers:
                self._affinity.reopen()
        begins = self._affinity.open_in is None
        try:
            await self._open_patiently(options)
            if self._local_zone is not None:
                await self._local_zone.wait()
        except BaseException:
            if begins:  # `async with` does not close what it could not open
                await self.close(0.0)
                self._affinity.reopen()  # the service has not closed the client, so later calls open it
            raise

    async def _open_patiently(self, options: Options) -> None:
        """Open the client, and try again for a while if the source of the zones fails."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(OPEN_SECONDS, options.timeout)
        while True:
            try:
                await self.open(options, deadline - loop.time())
                return
            except CacheUnavailable:
                if loop.time() + RETRY_SECONDS >= deadline:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def open(self, options: Options, patience: float = 0.0) -> tuple[ClusterSnapshot, Options]:
        """Return the zones for a call that did not find them ready, and the call's options with the time that is left.

        A cancelled call does not end the opening, because other calls may wait for it.

        Args:
            options: Options of the call.
            patience: Seconds to wait for the zones, if they are more than the call's timeout.

        Raises:
            CacheUnavailable: The zones are not known in time, or their source did not answer.
            UsageError: The client is closed, or open on another event loop or in another process.
            Exception: A discovery of the service raised it.
        """
        if self._affinity.enter():
            self._begin()
        view = self._cluster.view
        if view is None and isinstance(self._discovery, StaticDiscovery) and not self._waits_before_zones:
            view = self._cluster.apply(self._discovery.topology)
            self._start_companions()
        if view is not None:
            return view, options
        if self._starting is None:
            # All callers share one task, so that the cancellation of one caller does not end it.
            self._starting = unattended(asyncio.create_task(self._start()))
            # Retrieved also if all callers were cancelled. Otherwise asyncio reports the error as never retrieved.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        starting = self._starting
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(patience, options.timeout)
        # A call waits for the hint file for at most half of its time. With a slow disk the client goes on without the file.
        timer = None if self._handoff is None else loop.call_later(options.timeout / 2, self._handoff.journal.wait_no_longer)
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.wait([starting])  # a cancelled caller does not cancel `starting`
        except TimeoutError:
            if self._handoff is not None and self._handoff.journal.is_opening and self._cluster.view is None:
                raise CacheUnavailable("opening the hint file", {}) from None
            source = name_of_source(self._discovery)
            error = DiscoveryError(source, f"no answer in {max(patience, options.timeout):.3g} s")
            raise CacheUnavailable("finding the zones", {"discovery": error}) from None
        finally:
            if timer is not None:
                timer.cancel()
            if starting.done() and self._cluster.view is None:
                self._starting = None  # it failed; the next call tries again
        if starting.cancelled():  # the client was closed; the caller was not cancelled
            raise CacheUnavailable("finding the zones", {})
        try:
            view = starting.result()
        except DiscoveryError as error:
            raise CacheUnavailable("finding the zones", {"discovery": error}) from error
        return view, options._replace(timeout=max(0.0, deadline - loop.time()))

    def _begin(self) -> None:
        """Begin an opening on the running loop."""
        if self._was_open:
            self._reset()
        self._was_open = True
        self._ended = False
        self._loop_end = LoopEnd(self._loop_ends)
        self._loop_end.watch()
        if self._local_zone is not None:
            self._local_zone.begin()

    def _reset(self) -> None:
        """Forget the state of the last opening: its tasks, its nodes, and the content of the near cache."""
        if self._starting is not None:
            abandon([self._starting])
        self._starting = None
        self._closers.clear()
        if self._activation is not None:
            self._activation.stop()
        for part in self._reopened:
            part.reopen()

    @property
    def _waits_before_zones(self) -> bool:
        has_hint_file = self._handoff is not None and self._handoff.journal.is_wanted
        return has_hint_file or (self._local_zone is not None and self._local_zone.is_strict)

    async def _start(self) -> ClusterSnapshot:
        if self._local_zone is not None and self._local_zone.is_strict:
            await self._local_zone.wait()
        if self._handoff is not None:
            await self._handoff.journal.open()
        view = await self._cluster.start(self._discovery)
        self._start_companions()
        return view

    def _start_companions(self) -> None:
        if self._bus is not None:
            self._bus.start()
        if self._activation is not None:
            self._activation.start()
        if self._handoff is not None:
            self._handoff.wake()

    # Closing.

    async def close(self, drain: float) -> None:
        """Do what `EVCache.close` describes."""
        zero_or_more(drain, "drain")
        if not self._affinity.close() or self._ended:
            return
        if self._affinity.is_lost:
            self._reset()
            self._affinity.leave()
            self._ended = True
            return
        done = asyncio.get_running_loop().create_future()
        self._closers.add(done)
        try:
            await self._end(drain)
        finally:
            self._closers.discard(done)
            done.set_result(None)
        self._affinity.leave()

    async def _loop_ends(self) -> None:
        """End the opening with its event loop, in a program that does not close its client."""
        if self._affinity.open_in is asyncio.get_running_loop():
            self._affinity.leave()
            done = asyncio.get_running_loop().create_future()
            self._closers.add(done)
            try:
                await self._end(0.0, loop_ends=True)
            finally:  # also if it is interrupted: the next opening forgets the parts that are left
                self._ended = True
                self._closers.discard(done)
                if not done.done():
                    done.set_result(None)

    async def _end(self, drain: float, *, loop_ends: bool = False) -> None:
        # Every step may be repeated. A step does the work that is left, and waits for the work that another call has begun.
        if self._loop_end is not None:
            self._loop_end.stop()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + drain
        if self._starting is not None:
            cancel_once([self._starting])
        if self._activation is not None:
            self._activation.stop()
        try:
            if self._handoff is not None:
                self._handoff.finish()
            cut_short = await self._background.close(drain)
            self._read_through.close()
            if cut_short:
                # A program that does not close its client does not wait for its writes.
                _log.log(_level(loop_ends), "closed with %d background writes unfinished", cut_short)
        except asyncio.CancelledError:
            deadline = loop.time()
            raise
        finally:
            try:
                await self._end_of_zones(deadline)
            finally:  # last, because writes without a reply by now are missed writes: stored as hints, and published
                await self._end_of_writes(deadline if drain else 0.0, loop_ends=loop_ends)
        self._ended = True

    async def _end_of_zones(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        if self._near is not None:
            self._near.close()
        try:
            if self._local_zone is not None:
                await self._local_zone.close()
            if self._starting is not None:
                await ended([self._starting], lambda _: f"the discovery {type(self._discovery).__qualname__}")
        except asyncio.CancelledError:
            deadline = loop.time()
            raise
        finally:
            await self._cluster.close(max(0.0, deadline - loop.time()))

    async def _end_of_writes(self, deadline: float, *, loop_ends: bool) -> None:
        try:
            if self._bus is not None:
                try:
                    await asyncio.sleep(0)  # the calls that were just cut off publish what they were writing
                finally:
                    left = deadline - asyncio.get_running_loop().time()
                    seconds = max(_LAST_MESSAGES_SECONDS, left) if deadline else 0.0
                    await self._bus.close(seconds, level=_level(loop_ends))
        finally:
            if self._handoff is not None:
                await self._handoff.close(keep=loop_ends)


def _level(loop_ends: bool) -> int:  # noqa: FBT001  # the only argument
    return logging.INFO if loop_ends else logging.WARNING
