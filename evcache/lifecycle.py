"""What the operations of a client stand on: opening and closing."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from evcache._loop_end import LoopEnd
from evcache.assembly import Assembly
from evcache.config import CLOSE_SECONDS
from evcache.errors import CacheUnavailable
from evcache.options import Options, Seconds
from evcache.replication.version_support import zones_without_versions
from evcache.stats import Stats
from evcache.telemetry import Activation, ObservedClient
from evcache.telemetry.counters import Counters
from evcache.telemetry.metric_table import ClientMetricsSource
from evcache.writes.draft import Draft
from evcache.zones._tasks import abandon, cancel_once, ended, unattended
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.topology.discovery import StaticDiscovery
from evcache.zones.topology.model import Topology
from evcache.zones.validation import zero_or_more

# For what was written last to be announced, when the writes have taken all the time there was: one message, a millisecond
# or two.
LAST_WORDS_SECONDS = 0.1

_log = logging.getLogger("evcache.client")


class Lifecycle(Assembly):
    """A client that can be opened and closed."""

    _watch: Activation | None = None
    _loop_end: LoopEnd | None = None
    _was_open = False
    """True from the first opening on."""
    _ended = True
    """True if nothing is open: before the first opening, and after a call of `close` has finished."""

    @property
    def namespace(self) -> str:
        """The prefix of every key."""
        return self._keys.namespace

    @property
    def topology(self) -> Topology | None:
        """The zones as they are known now; None before the first call."""
        return None if self._cluster.view is None else self._cluster.view.topology

    def stats(self) -> Stats:
        """What the client has to do at this moment, and what it has done, in plain numbers. Costs no I/O."""
        view, replay = self._cluster.view, self._replay
        return Stats(
            nodes_down=sum(node.is_down for node in self._cluster.nodes.values()),
            zones_out=() if view is None else tuple(sorted(view.ejected)),
            zones_without_versions=zones_without_versions(self._cluster.nodes),
            writes_resent=self._writes.resent,
            versions_refused=self._clock.refused,
            hints=0 if replay is None else len(replay.hints),
            hint_bytes=0 if replay is None else replay.hints.size,
            hints_delivered=0 if replay is None else replay.delivered,
            hints_dropped=0 if replay is None else replay.dropped,
            hint_file_error=None if replay is None else replay.journal.error,
            repairs_running=self._repair.running,
            repairs=self._repair.done,
            repairs_skipped=self._repair.skipped,
            failovers=self._failover.taken,
            failovers_denied=self._failover.denied,
            decode_errors=self._decoding.errors,
            hedges=0 if self._hedge is None else self._hedge.budget.taken,
            background_tasks=len(self._background),
            loop_lag=0.0 if view is None else view.lag.latest,
            worst_loop_lag=0.0 if view is None else view.lag.worst,
            near=None if self._near is None else replace(self._near.stats),
            near_entries=0 if self._near is None else self._near.size[0],
            near_bytes=0 if self._near is None else self._near.size[1],
            loads=self._read_through.stats(),
            invalidation=None if self._bus is None else self._bus.stats,
        )

    def __repr__(self) -> str:
        zones = "not opened" if self.topology is None else ", ".join(zone.name for zone in self.topology.zones)
        return f"<EVCache {self.namespace} zones: {zones}; local: {self._local_zone}>"

    # Opening and closing.

    async def __aenter__(self) -> Self:
        """Load the topology. Nodes are connected to when they are first asked.

        A client that was closed is opened again, on the running event loop. An opening that ends with a cancelled `close` is
        ended first.

        Raises:
            UsageError: The client is open on another event loop, or in another process.
            CacheUnavailable: The zones are not known in time.
            InvalidTopology: The zones cannot be used.
        """
        while self._owner.is_closed:
            await (self.close() if not self._closers or self._owner.is_lost else asyncio.wait(list(self._closers)))
            if self._ended and not self._closers:
                self._owner.reopen()
        await self._open(self._defaults.write(None, None, None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self, drain: float = CLOSE_SECONDS) -> None:
        """Wait up to `drain` seconds for writes that are on their way, then end every connection and task.

        May be called again. Calls that are under way after that fail with `CacheUnavailable`; later ones with `UsageError`,
        until `async with` opens the client again. The client logs what it could not finish in time, and reports it to the
        hooks. A cancelled call ends everything without waiting; another call waits until nothing is left.

        Loaders, discoveries, channels and dialers of the service may catch their cancellation and go on. After two seconds
        each is logged as a warning and left alone.
        """
        zero_or_more(drain, "drain")
        if not self._owner.close() or self._ended:
            return
        if self._owner.is_lost:
            self._reset()
            self._owner.leave()
            self._ended = True
            return
        done = asyncio.get_running_loop().create_future()
        self._closers.add(done)
        try:
            await self._end(drain)
        finally:
            self._closers.discard(done)
            done.set_result(None)
        self._owner.leave()

    async def _end(self, drain: float, *, loop_ends: bool = False) -> None:
        # Every step may be repeated. A step does the work that is left, and waits for the work that another call has begun.
        if self._loop_end is not None:
            self._loop_end.stop()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + drain
        if self._starting is not None:
            cancel_once([self._starting])
        if self._watch is not None:
            self._watch.stop()
        try:
            if self._replay is not None:
                self._replay.finish()
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
            finally:  # last, since the writes that have no answer by now are missed, and told to others, like any other
                await self._end_of_writes(deadline if drain else 0.0, loop_ends=loop_ends)
        self._ended = True

    async def _end_of_zones(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        if self._near is not None:
            self._near.close()
        try:
            if self._starting is not None:
                await ended([self._starting], lambda _: f"the discovery {type(self._discovery).__qualname__}")
        except asyncio.CancelledError:
            deadline = loop.time()
            raise
        finally:
            await self._cluster.close(max(0.0, deadline - loop.time()))

    async def _loop_ends(self) -> None:
        """End the opening with its event loop, in a program that does not close its client."""
        if self._owner.open_in is asyncio.get_running_loop():
            self._owner.leave()
            done = asyncio.get_running_loop().create_future()
            self._closers.add(done)
            try:
                await self._end(0.0, loop_ends=True)
            finally:  # also when it is interrupted: the next opening forgets what is left
                self._ended = True
                self._closers.discard(done)
                if not done.done():
                    done.set_result(None)

    def _begin(self) -> None:
        """Begin an opening on the running loop."""
        if self._was_open:
            self._reset()
        self._was_open = True
        self._ended = False
        self._loop_end = LoopEnd(self._loop_ends)
        self._loop_end.watch()

    def _reset(self) -> None:
        """Forget the state of the last opening: its tasks, its nodes, and the content of the near cache.

        Awaits nothing, because the loop of that opening may be closed.
        """
        if self._starting is not None:
            abandon([self._starting])
        self._starting = None
        self._closers.clear()
        if self._watch is not None:
            self._watch.stop()
        self._background.reopen()
        self._cluster.reopen()
        self._repair.reopen()
        self._read_through.reopen()
        self._writes.reopen()
        self._turns.reopen()
        if self._near is not None:
            self._near.reopen()
        if self._bus is not None:
            self._bus.reopen()
        if self._replay is not None:
            self._replay.reopen()

    async def _end_of_writes(self, deadline: float, *, loop_ends: bool) -> None:
        try:
            if self._bus is not None:
                try:
                    await asyncio.sleep(0)  # the calls that have just been cut off say what they were writing
                finally:
                    left = deadline - asyncio.get_running_loop().time()
                    await self._bus.close(max(LAST_WORDS_SECONDS, left) if deadline else 0.0, level=_level(loop_ends))
        finally:
            if self._replay is not None:
                await self._replay.close(keep=loop_ends)

    async def _open(self, options: Options) -> tuple[ClusterSnapshot, Options]:
        """The zones, for a call that did not find them ready, and its options with the time that is left.

        Raises `UsageError`, `CacheUnavailable` when the zones are not known in time, or what the discovery raises.
        """
        if self._owner.enter():
            self._begin()
        view = self._cluster.view
        if view is None and isinstance(self._discovery, StaticDiscovery) and not self._has_file:
            view = self._cluster.apply(self._discovery.topology)
            self._start_companions()
        if view is not None:
            return view, options
        if self._starting is None:
            # One task for all who wait, so that a caller who is cancelled takes nobody with it.
            self._starting = unattended(asyncio.create_task(self._start()))
            # Looked at even when every caller has been cancelled meanwhile, or asyncio reports it as nobody's error.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        starting = self._starting
        loop = asyncio.get_running_loop()
        deadline = loop.time() + options.timeout
        # A call waits for the hint file for half of its time at the most. With a slow disk it goes on without the file.
        timer = (
            None
            if self._replay is None
            else loop.call_at(deadline - options.timeout / 2, self._replay.journal.wait_no_longer)
        )
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.wait([starting])  # which a caller that is cancelled does not cancel
        except TimeoutError:
            opening = self._replay is not None and self._replay.journal.is_opening and self._cluster.view is None
            raise CacheUnavailable("opening the hint file" if opening else "finding the zones", {}) from None
        finally:
            if timer is not None:
                timer.cancel()
            if starting.done() and self._cluster.view is None:
                self._starting = None  # it failed: the next call tries again
        if starting.cancelled():  # the client was closed, the caller was not cancelled
            raise CacheUnavailable("finding the zones", {})
        view = starting.result()
        return view, options._replace(timeout=max(0.0, deadline - loop.time()))

    @property
    def _has_file(self) -> bool:
        return self._replay is not None and self._replay.journal.is_wanted

    async def _start(self) -> ClusterSnapshot:
        if self._replay is not None:
            await self._replay.journal.open()
        view = await self._cluster.start(self._discovery)
        self._start_companions()
        return view

    def _start_companions(self) -> None:
        if self._bus is not None:
            self._bus.start()
        if self._watch is None and self._telemetry is not None:
            self._watch = Activation(self._telemetry, self._subject)
        if self._watch is not None:
            self._watch.start()
        if self._replay is not None:
            self._replay.wake()

    def _subject(self, counts: Counters) -> ObservedClient:
        client = ClientMetricsSource(self.namespace, counts, self.stats, lambda: self._cluster.nodes)
        return ObservedClient(self, self.namespace, self._hooks, self._cluster, client, self._defaults.levels(), self._tap)

    def _ready(self, options: Options) -> tuple[ClusterSnapshot, Options] | None:
        view = self._cluster.view
        return None if view is None or self._owner.open_in is not asyncio.get_running_loop() else (view, options)

    def _draft(self, key: str | bytes, value: Any, ttl: Seconds | None) -> Draft:
        return self._writes.draft(self._keys.qualify(key), self._codec.encode(value), self._defaults.ttl(ttl))


def _level(loop_ends: bool) -> int:  # noqa: FBT001  # one fact, passed on
    return logging.INFO if loop_ends else logging.WARNING
