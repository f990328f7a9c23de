"""What the operations of a client stand on: its settings, its parts, opening and closing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from evcache.background import Background
from evcache.budget import Budget, Failover
from evcache.bus import Bus
from evcache.changes import Changes
from evcache.channels import InvalidationChannel
from evcache.codec import Codec, StandardCodec
from evcache.config import (
    CHECK_SHARE,
    CLOSE_SECONDS,
    READ_TIMEOUT_SECONDS,
    TOMBSTONE_TTL_SECONDS,
    WRITE_TIMEOUT_SECONDS,
    Errors,
    Ordering,
    ZonesArgument,
    an_instance,
    discovery_from,
    local_zone_from,
    not_negative,
    share,
)
from evcache.consistency import Consistency
from evcache.coordinator import Coordinator, Draft
from evcache.errors import CacheUnavailable
from evcache.fill import Fill
from evcache.flights import Flights
from evcache.gutter import GUTTER, Gutter, GutterReads, GutterWrites
from evcache.hedge import Hedge, Hedging
from evcache.hints import Hints
from evcache.hooks import GuardedHooks, Hooks
from evcache.keys import Keys
from evcache.leases import Leases
from evcache.load_path import LoadPath
from evcache.load_policy import LoadPolicy
from evcache.loads import Loads
from evcache.near_cache import NearCache
from evcache.near_path import Near
from evcache.options import Defaults, Options, Seconds
from evcache.owner import Owner
from evcache.read_parts import ReadParts
from evcache.read_path import ReadPath
from evcache.remembered import REMEMBERED_KEYS, Remembered
from evcache.repair import Repair
from evcache.replay import Replay
from evcache.stats import Stats
from evcache.ttl import DEFAULT_TTL_SECONDS, seconds_to_live
from evcache.turns import Turns
from evcache.versions import VersionClock
from evcache.write_path import WritePath
from zones.checks import at_least_one
from zones.cluster import Cluster, View
from zones.discovery import StaticDiscovery
from zones.errors import InvalidTopology
from zones.settings import NodeSettings
from zones.topology import Topology
from zones.transports.base import TransportChoice

DEFAULT_HINTS = Hints()
DEFAULT_FAILOVER = Failover()
DEFAULT_LOADING = LoadPolicy()

# As many as the threads and connections behind a typical pool; what does without a cache must not be hit by all callers
# at once.
MAX_LOADS = 32

_log = logging.getLogger(__name__)


class Lifecycle:
    """A client that can be opened and closed, and the parts that its operations use."""

    def __init__(
        self,
        namespace: str,
        zones: ZonesArgument,
        *,
        local_zone: str | None = None,
        read_consistency: Consistency | str = Consistency.ONE,
        write_consistency: Consistency | str = Consistency.ALL_MINUS_ONE,
        read_timeout: float = READ_TIMEOUT_SECONDS,
        write_timeout: float = WRITE_TIMEOUT_SECONDS,
        ttl: Seconds = DEFAULT_TTL_SECONDS,
        fallback_on_miss: bool = True,
        errors: Errors = "raise",
        ordering: Ordering = "newest",
        interop: bool = False,
        codec: Codec | None = None,
        tombstone_ttl: Seconds = TOMBSTONE_TTL_SECONDS,
        near_cache: NearCache | None = None,
        invalidation: InvalidationChannel | None = None,
        loading: LoadPolicy = DEFAULT_LOADING,
        max_loads: int = MAX_LOADS,
        nodes: NodeSettings | None = None,
        transport: TransportChoice | None = None,
        repair: bool = True,
        check_share: float = CHECK_SHARE,
        hints: Hints | None = DEFAULT_HINTS,
        remember_versions: int = REMEMBERED_KEYS,
        failover: Failover = DEFAULT_FAILOVER,
        hedging: Hedging | None = None,
        gutter: Gutter | None = None,
        hooks: Hooks | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """No I/O happens here, and no running loop is needed. Raises `InvalidArgument` naming what can't be used.

        namespace: prefix of every key, `namespace:key`.
        zones: a mapping of zone names to nodes, a node list (`eu-1a=host:port,host:port;eu-1b=...`), the path of a TOML
            file (watched for changes), a `zones.Topology` or a `zones.Discovery`.
        local_zone: the zone this process runs in, read first; None: from `EVCACHE_ZONE`, else reads are spread over all.
        read_consistency, write_consistency: how many zones must answer, where the call does not say.
        read_timeout, write_timeout: seconds for a whole call, where the call does not say.
        ttl: seconds that an item lives, where the call does not say; `math.inf`: does not expire.
        fallback_on_miss: whether a miss in the local zone is looked up in the others.
        errors: "raise", or "miss": a read that no zone could answer returns the default, and is counted by the hooks.
        ordering: "newest": the newest write wins in every zone; "arrival": the last to arrive, which is faster, and zones
            may disagree until the next write.
        interop: other kinds of clients write this namespace: no versions, no tombstones, no repair, no hashed keys.
        codec: how values become bytes; None: `StandardCodec()`.
        tombstone_ttl: seconds that a delete is remembered by the zones.
        near_cache: keeps the hottest keys in this process's memory, `NearCache(max_bytes=..., ttl=...)`; None: off. This
            client's writes are seen at once, those of others after its `ttl` at the latest.
        invalidation: tells other processes what this one writes, and this one's near cache what they write; None: no one
            is told. It is not closed with the client.
        loading: how `get_or_load` and its kin load, keep and serve, where the call does not say.
        max_loads: loaders that run at once, so that a cache that has died does not take its source with it.
        nodes: how nodes are connected to: connections, connect timeout, login, TLS (`SocketDialer`).
        transport: "auto": each node is asked which protocol it speaks; "meta" or "classic": that one, or it is not used;
            None: what `nodes` says, which is "auto" unless it says otherwise.
        repair: whether zones that are seen to lack the newest version of a key are brought it, in the background.
        check_share: of the reads that one zone has served, the share after which all zones are compared and repaired.
        hints: how many writes that a zone missed are kept for it, and where; None: none.
        remember_versions: for how many keys this client remembers which version it wrote or saw, so that it never goes back
            in time (twice as many at the most); 0: it may.
        failover: how much reads may ask of other zones than the local one.
        hedging: ask a second zone while the first is slow; None: off.
        gutter: servers that stand in when no zone can serve a key; None: none.
        wall_clock: unix time in seconds, for versions and for TTLs over 30 days.
        """
        self._keys = Keys(namespace, may_hash=not interop)
        self._local_zone = local_zone_from(local_zone)
        self._discovery = discovery_from(zones, self._local_zone)
        self._defaults = Defaults(
            read_consistency=read_consistency,
            write_consistency=write_consistency,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            ttl=ttl,
            fallback_on_miss=fallback_on_miss,
            errors=errors,
            ordering=ordering,
        )
        self._fallback_on_miss = fallback_on_miss
        self._codec: Codec = StandardCodec() if codec is None else codec
        self._hooks: Hooks = Hooks() if hooks is None else GuardedHooks(hooks)
        self._versions = not interop
        self._owner = Owner()
        self._background = Background()
        an_instance(hints, Hints, "hints")
        an_instance(failover, Failover, "failover", optional=False)
        an_instance(hedging, Hedging, "hedging")
        an_instance(gutter, Gutter, "gutter")
        settings = _settings(nodes, transport, read_timeout)
        fixed = self._discovery.topology if isinstance(self._discovery, StaticDiscovery) else None
        if gutter is not None and fixed is not None and fixed.zone(GUTTER) is not None:
            raise InvalidTopology("gutter", f"a zone is called {GUTTER!r}")
        self._cluster = Cluster(
            settings, self._local_zone, events=self._hooks, spare=None if gutter is None else gutter.zone()
        )
        self._starting: asyncio.Task[View] | None = None
        clock = VersionClock(wall_ms=lambda: int(wall_clock() * 1000))
        tombstones = seconds_to_live(tombstone_ttl, "tombstone_ttl")
        self._repair = Repair(
            clock,
            self._background,
            self._hooks,
            enabled=repair and not interop,
            tombstone_ttl=tombstones,
            now=wall_clock,
        )
        an_instance(near_cache, NearCache, "near_cache")
        an_instance(loading, LoadPolicy, "loading", optional=False)
        at_least_one(max_loads, "max_loads")
        self._wall_clock = wall_clock
        self._near = None
        if near_cache is not None:
            # For every key that goes: only for a listener that wants to hear of it.
            overridden = hooks is not None and type(hooks).near_removed is not Hooks.near_removed
            self._near = Near(
                near_cache,
                wall=wall_clock,
                has_channel=invalidation is not None,
                on_remove=self._hooks.near_removed if overridden else None,
            )
        self._flights = Flights()
        self._changes = Changes(self._near, self._flights, self._local_zone)
        self._bus = None if invalidation is None else Bus(invalidation, f"evcache:{namespace}", self._changes)
        if self._bus is not None:
            self._changes.announce = self._bus.announce
        remembered = Remembered(not_negative(remember_versions, "remember_versions"))
        self._failover = Budget(failover.ratio, failover.burst)
        self._hedge = None if hedging is None else Hedge(hedging, self._hooks)
        parts = ReadParts(
            clock=clock,
            remembered=remembered,
            repair=self._repair,
            budget=self._failover,
            gutter=None if gutter is None else GutterReads(clock),
            hooks=self._hooks,
        )
        self._reads = ReadPath(parts, self._near, self._hedge, check_share=share(check_share, "check_share"))
        self._replay: Replay | None = None
        if hints is not None and not interop:
            self._replay = Replay(
                hints,
                clock,
                self._background,
                self._hooks,
                self._repair,
                remembered,
                lambda: self._cluster.view,
                tombstone_ttl=tombstones,
                longest_ttl=self._defaults.ttl(None),
                now=wall_clock,
            )
            self._replay.caught_up = self._changes.caught_up
            self._cluster.when_back(self._replay.wake)
        self._coordinator = Coordinator(clock, self._codec, wall_clock, versions=not interop)
        self._writes = WritePath(
            clock,
            self._coordinator,
            self._background,
            self._hooks,
            versions=not interop,
            tombstone_ttl=tombstones,
            now=wall_clock,
            remembered=remembered,
            replay=self._replay,
            gutter=None if gutter is None else GutterWrites(clock, gutter.ttl),
            changes=self._changes,
        )
        self._policy = loading
        self._load_writes = self._defaults.write(None, None, "miss")
        self._turns = Turns()
        self._loads = LoadPath(
            self._reads,
            Loads(
                clock=clock,
                codec=self._codec,
                flights=self._flights,
                leases=Leases(clock),
                fill=Fill(self._writes),
                background=self._background,
                hooks=self._hooks,
                near=self._near,
                max_loads=max_loads,
                versions=not interop,
                wire_ttl=self._writes.wire_ttl,
                wall=wall_clock,
            ),
            self._flights,
            self._background,
            self._hooks,
            wall=wall_clock,
        )

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
            zones_out=() if view is None else tuple(sorted(view.out)),
            hints=0 if replay is None else len(replay.book),
            hint_bytes=0 if replay is None else replay.book.size,
            hints_delivered=0 if replay is None else replay.delivered,
            hints_dropped=0 if replay is None else replay.dropped,
            repairs_running=self._repair.running,
            repairs=self._repair.done,
            repairs_skipped=self._repair.skipped,
            failovers=self._failover.taken,
            failovers_denied=self._failover.denied,
            hedges=0 if self._hedge is None else self._hedge.budget.taken,
            background_tasks=len(self._background),
            loop_lag=0.0 if view is None else view.lag.latest,
            worst_loop_lag=0.0 if view is None else view.lag.worst,
            near=None if self._near is None else replace(self._near.stats),
            near_entries=0 if self._near is None else self._near.size[0],
            near_bytes=0 if self._near is None else self._near.size[1],
            loads=self._loads.stats(),
            invalidation=None if self._bus is None else self._bus.stats,
        )

    def __repr__(self) -> str:
        zones = "not opened" if self.topology is None else ", ".join(zone.name for zone in self.topology.zones)
        return f"<EVCache {self.namespace} zones: {zones}; local: {self._local_zone}>"

    # Opening and closing.

    async def __aenter__(self) -> Self:
        """Load the topology. Nodes are connected to when they are first asked."""
        await self._open(self._defaults.write(None, None, None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self, drain: float = CLOSE_SECONDS) -> None:
        """Wait up to `drain` seconds for writes that are on their way, then end every connection and task.

        May be called again. Calls that are under way after that fail with `CacheUnavailable`; later ones with `UsageError`.
        What could not be finished in time is logged, and told to the hooks.
        """
        if not self._owner.close():
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + drain
        if self._starting is not None:
            self._starting.cancel()
        try:
            if self._replay is not None:
                self._replay.finish()
            cut_short = await self._background.close(drain)
            if cut_short:
                _log.warning("closed with %d background writes unfinished", cut_short)
            if self._bus is not None:  # after the writes: what they have written is announced
                await self._bus.close(max(0.0, deadline - loop.time()))
        finally:
            if self._near is not None:
                self._near.close()
            try:
                if self._starting is not None:
                    await asyncio.wait([self._starting])
                await self._cluster.close(max(0.0, deadline - loop.time()))
            finally:  # last, since the writes that have no answer by now are missed like any other
                if self._replay is not None:
                    await self._replay.close()

    async def _open(self, options: Options) -> tuple[View, Options]:
        """The zones, for a call that did not find them ready, and its options with the time that is left.

        Raises `UsageError`, `CacheUnavailable` when the zones are not known in time, or what the discovery raises.
        """
        self._owner.enter()
        view = self._cluster.view
        if view is None and isinstance(self._discovery, StaticDiscovery) and not self._has_file:
            view = self._cluster.apply(self._discovery.topology)
            self._start_bus()
        if view is not None:
            return view, options
        if self._starting is None:
            # One task for all who wait, so that a caller who is cancelled takes nobody with it.
            self._starting = asyncio.create_task(self._start())
            # Looked at even when every caller has been cancelled meanwhile, or asyncio reports it as nobody's error.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        starting = self._starting
        loop = asyncio.get_running_loop()
        deadline = loop.time() + options.timeout
        try:
            async with asyncio.timeout_at(deadline):
                view = await asyncio.shield(starting)
        except TimeoutError:
            raise CacheUnavailable("finding the zones", {}) from None
        finally:
            if starting.done() and self._cluster.view is None:
                self._starting = None  # it failed: the next call tries again
        return view, options._replace(timeout=max(0.0, deadline - loop.time()))

    @property
    def _has_file(self) -> bool:
        return self._replay is not None and self._replay.has_file

    async def _start(self) -> View:
        if self._replay is not None:
            await self._replay.load()
        view = await self._cluster.start(self._discovery)
        self._start_bus()
        if self._replay is not None:
            self._replay.wake()
        return view

    def _start_bus(self) -> None:
        if self._bus is not None:
            self._bus.start()

    def _ready(self, options: Options) -> tuple[View, Options] | None:
        view = self._cluster.view
        return None if view is None or self._owner.open_in is not asyncio.get_running_loop() else (view, options)

    def _draft(self, key: str | bytes, value: Any, ttl: Seconds | None) -> Draft:
        return self._writes.draft(self._keys.full(key), self._codec.encode(value), self._defaults.ttl(ttl))


def _settings(nodes: NodeSettings | None, transport: TransportChoice | None, read_timeout: float) -> NodeSettings:
    settings = NodeSettings() if nodes is None else nodes
    if transport is not None:
        settings = replace(settings, transport=transport)
    if settings.circuit.probe_timeout is None:
        # What a read gives its first zone when there are two.
        timeout = min(settings.connect_timeout, read_timeout / 2)
        settings = replace(settings, circuit=replace(settings.circuit, probe_timeout=timeout))
    return settings
