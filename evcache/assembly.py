"""The settings of a client, and the parts that are made of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from evcache._background import BackgroundTasks
from evcache._loop_affinity import LoopAffinity
from evcache.channels import InvalidationChannel
from evcache.config import (
    CHECK_SHARE,
    READ_TIMEOUT_SECONDS,
    TOMBSTONE_TTL_SECONDS,
    WRITE_TIMEOUT_SECONDS,
    Errors,
    Ordering,
    ZonesArgument,
    discovery_from,
    local_zone_from,
)
from evcache.consistency import Consistency
from evcache.hooks import HookDispatcher, Hooks
from evcache.invalidation.bus import InvalidationBus
from evcache.invalidation.dispatcher import InvalidationDispatcher
from evcache.load_policy import LoadPolicy
from evcache.near_cache.coherence import CoherentNearCache
from evcache.near_cache.settings import NearCache
from evcache.options import Defaults, Seconds
from evcache.read_through.concurrency_limit import LoaderCalls
from evcache.read_through.context import LoadContext
from evcache.read_through.failure_backoff import FailureBackoff
from evcache.read_through.get_or_load import ReadThrough
from evcache.read_through.get_or_load_many import BulkReadThrough
from evcache.read_through.leases import Leases
from evcache.read_through.loader import Loader
from evcache.read_through.lookup import Lookup
from evcache.read_through.request import LoadRequests
from evcache.read_through.single_flight import SingleFlight
from evcache.reads.context import ReadContext
from evcache.reads.decoding import Decoding
from evcache.reads.failover_budget import Failover, TokenBucket
from evcache.reads.hedging import HedgedReader, Hedging
from evcache.reads.near_values import NearValues
from evcache.reads.zone_reader import ZoneReader
from evcache.replication.gutter import GUTTER, Gutter, GutterPool
from evcache.replication.handoff.hinted_handoff import HintedHandoff
from evcache.replication.handoff.hints import Hints
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.read_repair import ReadRepair
from evcache.replication.repair_sampling import RepairSampler
from evcache.replication.seen_versions import REMEMBERED_KEYS, SeenVersions
from evcache.replication.version_support import VersionSupport
from evcache.telemetry import Telemetry
from evcache.values.checked_codec import checked
from evcache.values.codec import Codec, StandardCodec
from evcache.values.keys import Keys
from evcache.values.ttl import DEFAULT_TTL_SECONDS, seconds_to_live
from evcache.writes.compare_and_set import CompareAndSet
from evcache.writes.coordinator import Coordinator
from evcache.writes.keyed_lock import KeyedLock
from evcache.writes.writer import Writer
from evcache.zones._live import Live
from evcache.zones.cluster import Cluster, ClusterSnapshot
from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.discovery import StaticDiscovery
from evcache.zones.transport.base import TransportChoice
from evcache.zones.transport.request_tracing import RequestTracer
from evcache.zones.validation import an_instance, at_least_one, flag, fraction, methods, not_negative

DEFAULT_HINTS = Hints()
DEFAULT_FAILOVER = Failover()
DEFAULT_LOADING = LoadPolicy()
DEFAULT_TELEMETRY = Telemetry()

# As many as the threads and connections behind a typical pool; what does without a cache must not be hit by all callers
# at once.
MAX_LOADS = 32


class Assembly(Live):
    """The parts that a client's operations use. Nothing is opened, and no running loop is needed."""

    _view_or_none: Callable[[], Coroutine[Any, Any, ClusterSnapshot | None]]

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
        telemetry: Telemetry | None = DEFAULT_TELEMETRY,
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
        codec: converts values to bytes and back. If None, `StandardCodec()`, which packs ints as EVCache does if `interop`
            is set.
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
        repair: True copies the newest version of a key, in the background, to zones that a read found without it.
        check_share: of the keys that one zone has served, the share after which all zones are compared and repaired.
        hints: how many writes that a zone missed are kept for it, and where; None: none.
        remember_versions: number of keys whose newest version this client remembers after it wrote or read them (up to twice
            as many), so that no later read returns an older one. It remembers the versions that other clients announce for
            as many further keys. 0 remembers only deletes that are not delivered.
        failover: how much reads may ask of other zones than the one that they go to first.
        hedging: ask a second zone while the first is slow; None: off.
        gutter: servers that stand in when no zone can serve a key; None: none.
        telemetry: what OpenTelemetry is told, when the service has installed an SDK; None: nothing.
        wall_clock: unix time in seconds, for versions and for TTLs over 30 days.
        """
        flag(fallback_on_miss, "fallback_on_miss")
        flag(interop, "interop")
        flag(repair, "repair")
        methods(invalidation, ("publish", "subscribe"), "invalidation")
        an_instance(nodes, NodeSettings, "nodes")
        an_instance(hooks, Hooks, "hooks")
        if not callable(wall_clock):
            raise InvalidArgument("wall_clock", f"a function that returns the unix time is needed, not {wall_clock!r}")
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
        self._codec = _codec(codec, interop=interop)
        self._hooks = HookDispatcher()
        self._decoding = Decoding(self._codec, self._hooks)
        if hooks is not None:
            self._hooks.add(hooks)
        self._versions = not interop
        self._owner = LoopAffinity()
        self._background = BackgroundTasks()
        an_instance(hints, Hints, "hints")
        an_instance(failover, Failover, "failover", optional=False)
        an_instance(hedging, Hedging, "hedging")
        an_instance(gutter, Gutter, "gutter")
        an_instance(telemetry, Telemetry, "telemetry")
        self._telemetry = telemetry
        settings = _settings(nodes, transport, read_timeout)
        if telemetry is not None and telemetry.node_spans and settings.tap is None:
            settings = replace(settings, tap=RequestTracer())
        self._tap = settings.tap
        fixed = self._discovery.topology if isinstance(self._discovery, StaticDiscovery) else None
        if gutter is not None and fixed is not None and fixed.zone(GUTTER) is not None:
            raise InvalidTopology("gutter", f"a zone is called {GUTTER!r}")
        self._cluster = Cluster(
            settings, self._local_zone, events=self._hooks, gutter=None if gutter is None else gutter.zone()
        )
        self._cluster.on_handshake(VersionSupport(is_needed=ordering == "newest" and not interop).check)
        self._starting: asyncio.Task[ClusterSnapshot] | None = None
        self._closers: set[asyncio.Future[None]] = set()  # calls of `close` that are under way
        clock = self._clock = HybridLogicalClock(wall_ms=lambda: int(wall_clock() * 1000))
        tombstones = self._tombstone_ttl = seconds_to_live(tombstone_ttl, "tombstone_ttl")
        an_instance(near_cache, NearCache, "near_cache")
        an_instance(loading, LoadPolicy, "loading", optional=False)
        at_least_one(max_loads, "max_loads")
        self._wall_clock = wall_clock
        self._near = None
        if near_cache is not None:
            self._near = CoherentNearCache(
                near_cache,
                unix_time=wall_clock,
                has_channel=invalidation is not None,
                on_remove=self._hooks.near_removed if self._hooks.hears("near_removed") else None,
            )
        self._single_flight = SingleFlight()
        remembered = SeenVersions(not_negative(remember_versions, "remember_versions"))
        throttle = FailureBackoff()
        self._changes = InvalidationDispatcher(
            self._near,
            self._single_flight,
            lambda: None if self._cluster.view is None else self._cluster.view.preferred_zone,
            clock=clock,
            remembered=remembered,
            throttle=throttle,
        )
        self._bus = None if invalidation is None else InvalidationBus(invalidation, f"evcache:{namespace}", self._changes)
        if self._bus is not None:
            self._changes.announce = self._bus.publish
        self._repair = ReadRepair(
            clock,
            self._background,
            self._hooks,
            enabled=repair and not interop,
            tombstone_ttl=tombstones,
            on_repaired=self._changes.caught_up,
            unix_time=wall_clock,
        )
        self._failover = TokenBucket(failover.ratio, failover.burst)
        self._hedge = None if hedging is None else HedgedReader(hedging, self._hooks)
        gutter_pool = None if gutter is None else GutterPool(clock, gutter.ttl)
        context = ReadContext(
            clock=clock,
            seen=remembered,
            repair=self._repair,
            budget=self._failover,
            gutter=gutter_pool,
            hooks=self._hooks,
            sampler=RepairSampler(fraction(check_share, "check_share") if self._repair.enabled else 0.0),
        )
        self._reads = ZoneReader(context, self._near, self._hedge)
        self._replay: HintedHandoff | None = None
        if hints is not None and not interop:
            self._replay = HintedHandoff(
                hints,
                clock,
                self._background,
                self._hooks,
                self._repair,
                remembered,
                lambda: self._cluster.view,
                tombstone_ttl=tombstones,
                on_delivered=self._changes.caught_up,
                unix_time=wall_clock,
            )
            self._cluster.on_node_recovered(self._replay.wake)
        stores = CompareAndSet(clock, wall_clock, versions=not interop)
        self._coordinator = Coordinator(stores, self._repair, remembered)
        self._writes = Writer(
            clock,
            self._coordinator,
            self._background,
            self._hooks,
            versions=not interop,
            tombstone_ttl=tombstones,
            now=wall_clock,
            remembered=remembered,
            replay=self._replay,
            gutter=gutter_pool,
            changes=self._changes,
        )
        self._turns = KeyedLock()
        load_context = LoadContext(
            hlc=clock,
            single_flight=self._single_flight,
            leases=Leases(clock),
            backoff=throttle,
            calls=LoaderCalls(max_loads),
            writer=self._writes,
            write_options=self._defaults.write(None, None, "miss"),
            decoding=self._decoding,
            background=self._background,
            hooks=self._hooks,
            near=self._near,
            has_versions=not interop,
            tombstone_ttl=tombstones,
            current_zones=lambda: self._cluster.view,
            known_version=remembered.latest,
            unix_time=wall_clock,
        )
        lookup = Lookup(
            self._reads,
            self._decoding,
            self._single_flight,
            self._hooks,
            unix_time=wall_clock,
        )
        requests = LoadRequests(self._defaults, self._decoding, loading, has_versions=not interop)
        parts_of_loads = (
            self._keys,
            requests,
            lookup,
            Loader(load_context),
            self._decoding,
            None if self._near is None else NearValues(self._near, self._decoding),
            self._hooks,
        )
        self._read_through = ReadThrough(
            *parts_of_loads, cluster=self._cluster, affinity=self._owner, zones_or_none=self._view_or_none
        )
        self._bulk_read_through = BulkReadThrough(*parts_of_loads, zones_or_none=self._view_or_none)


def _codec(codec: Codec | None, *, interop: bool) -> Codec:
    chosen = StandardCodec() if codec is None else codec
    return checked(chosen.with_packed_ints() if interop and isinstance(chosen, StandardCodec) else chosen)


def _settings(nodes: NodeSettings | None, transport: TransportChoice | None, read_timeout: float) -> NodeSettings:
    settings = NodeSettings() if nodes is None else nodes
    if transport is not None:
        settings = replace(settings, transport=transport)
    if settings.circuit.probe_timeout is None:
        # What a read gives its first zone when there are two.
        timeout = min(settings.connect_timeout, read_timeout / 2)
        settings = replace(settings, circuit=replace(settings.circuit, probe_timeout=timeout))
    return settings
