"""Composition root: the parts of a client, built from its settings in the order of their dependencies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from evcache._cluster_access import ClusterAccess, Ready
from evcache._helpers.background import BackgroundTasks
from evcache._helpers.loop_affinity import LoopAffinity
from evcache._lifecycle import Lifecycle
from evcache.config import ClientConfig
from evcache.hooks import HookDispatcher
from evcache.interop.group.pool import pool_maker
from evcache.invalidation.bus import InvalidationBus
from evcache.invalidation.dispatcher import InvalidationDispatcher
from evcache.near_cache.coherence import CoherentNearCache
from evcache.options import Options
from evcache.read_through.context import LoadContext
from evcache.read_through.get_or_load import ReadThrough
from evcache.read_through.get_or_load_many import BulkReadThrough
from evcache.read_through.invalidate import Invalidator
from evcache.read_through.loads.concurrency_limit import LoaderCalls
from evcache.read_through.loads.failure_backoff import FailureBackoff
from evcache.read_through.loads.leases import Leases
from evcache.read_through.loads.loader import Loader
from evcache.read_through.loads.single_flight import SingleFlight
from evcache.read_through.lookup import Lookup
from evcache.read_through.request import LoadRequests
from evcache.readiness.check import ReadinessCheck
from evcache.reads.context import ReadContext
from evcache.reads.decoding import Decoding
from evcache.reads.failover.budget import TokenBucket
from evcache.reads.hedging import HedgedReader
from evcache.reads.near_values import NearValues
from evcache.reads.reader import Reader
from evcache.reads.results import ReadResults
from evcache.reads.zone_reader import ZoneReader
from evcache.replication.gutter import GutterPool
from evcache.replication.handoff.hinted_handoff import HintedHandoff
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.repair.read_repair import ReadRepair
from evcache.replication.repair.sampling import RepairSampler
from evcache.replication.seen_versions import SeenVersions
from evcache.replication.version_support import VersionSupport, zones_without_versions
from evcache.stats import Stats, ZoneTraffic
from evcache.telemetry import Activation, Instrument, ObservedClient
from evcache.telemetry.counters import Counters
from evcache.telemetry.metric_source import ClientMetricsSource
from evcache.writes.calls import WriteCalls
from evcache.writes.conditional.compare_and_set import CompareAndSet
from evcache.writes.conditional.coordinator import Coordinator
from evcache.writes.conditional.for_update import read_for_update
from evcache.writes.write_through import WriteThrough
from evcache.writes.writer import Writer
from evcache.zones.cluster import Cluster
from evcache.zones.discovery.local_zone import AUTO
from evcache.zones.discovery.own_zone.search import LocalZoneSearch
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.transport.core import selected
from evcache.zones.zone_pool import ZonePool


class Runtime:
    """The parts of one client. Nothing is opened here, and no running loop is needed."""

    def __init__(self, config: ClientConfig, set_instrument: Callable[[Instrument | None], None]) -> None:
        """Build the parts.

        Args:
            config: Settings of the client.
            set_instrument: Function that sets the observer of the client's operations, or None without an SDK.
        """
        self._config = config
        jvm = config.jvm
        versions = jvm is None
        unix_time = config.unix_time
        tombstone_ttl = config.tombstone_seconds

        # Parts that other parts share.
        self.affinity = LoopAffinity()
        self.background = BackgroundTasks()
        self.hooks = HookDispatcher()
        if config.hooks is not None:
            self.hooks.add(config.hooks)
        self.hlc = hlc = HybridLogicalClock(wall_ms=lambda: int(unix_time() * 1000))
        self.seen_versions = seen_versions = SeenVersions(config.remember_versions)
        self.cluster = Cluster(
            config.node_settings,
            None if config.own_zone is None or config.own_zone.name == AUTO else config.own_zone.name,
            events=self.hooks,
            gutter=None if config.gutter is None else config.gutter.zone(),
            guard=config.topology_guard,
            strict=config.own_zone is not None and config.own_zone.strict,
            make_pool=pool_maker(jvm, self.background, unix_time) if jvm is not None and jvm.translates else ZonePool,
        )
        needs_versions = config.ordering == "newest" and versions
        self.cluster.on_handshake(VersionSupport(is_needed=needs_versions).check)
        self.access = access = ClusterAccess(self.cluster, self.affinity, self.open, config.defaults, self.hooks)
        self._search = self._local_zone_search(config)
        self.readiness = ReadinessCheck(
            access,
            config.defaults.reads,
            search=self._search,
            default_timeout=config.node_settings.connect_timeout + config.defaults.reads.timeout,
            needs_versions=needs_versions,
        )

        # Invalidation.
        self.near = None
        if config.near_cache is not None:
            self.near = CoherentNearCache(
                config.near_cache,
                unix_time=unix_time,
                has_channel=config.invalidation is not None,
                on_remove=self.hooks.near_removed if self.hooks.hears("near_removed") else None,
            )
        self.single_flight = SingleFlight()
        backoff = FailureBackoff()
        self.dispatcher = InvalidationDispatcher(
            self.near,
            self.single_flight,
            lambda: None if self.cluster.view is None else self.cluster.view.preferred_zone,
            clock=hlc,
            remembered=seen_versions,
            throttle=backoff,
            publish=None if config.invalidation is None else self._publish,
        )
        self.bus = None
        if config.invalidation is not None:
            self.bus = InvalidationBus(config.invalidation, f"evcache:{config.namespace}", self.dispatcher)

        # Replication.
        self.repair = ReadRepair(
            hlc,
            self.background,
            self.hooks,
            enabled=config.repair and versions,
            tombstone_ttl=tombstone_ttl,
            on_repaired=self.dispatcher.caught_up,
            unix_time=unix_time,
        )
        self.handoff: HintedHandoff | None = None
        if config.hints is not None and versions:
            self.handoff = HintedHandoff(
                config.hints,
                hlc,
                self.background,
                self.hooks,
                self.repair,
                seen_versions,
                self._snapshot,
                tombstone_ttl=tombstone_ttl,
                on_delivered=self.dispatcher.caught_up,
                unix_time=unix_time,
            )
            self.cluster.on_node_recovered(self.handoff.wake)
        gutter = None if config.gutter is None else GutterPool(hlc, config.gutter.ttl)

        # Writes.
        self.coordinator = Coordinator(
            CompareAndSet(hlc, unix_time, jvm=jvm),
            self.repair,
            seen_versions,
            order=None if jvm is None else jvm.deciding_order,
        )
        self.writer = Writer(
            hlc,
            self.coordinator,
            self.background,
            self.hooks,
            versions=versions,
            tombstone_ttl=tombstone_ttl,
            now=unix_time,
            remembered=seen_versions,
            replay=self.handoff,
            gutter=gutter,
            changes=self.dispatcher,
        )
        self.writes = WriteCalls(config.keys, config.value_codec, config.defaults, access, self.writer)
        self.write_through = WriteThrough(config.defaults, access, self.writes, self.writer, self.background)

        # Reads.
        self.failover_budget = TokenBucket(config.failover.ratio, config.failover.burst)
        self.standby_budget = TokenBucket(config.failover.ratio, config.failover.burst)
        self.hedged_reader = None if config.hedging is None else HedgedReader(config.hedging, self.hooks)
        context = ReadContext(
            clock=hlc,
            seen=seen_versions,
            repair=self.repair,
            budget=self.failover_budget,
            standby_budget=self.standby_budget,
            gutter=gutter,
            hooks=self.hooks,
            sampler=RepairSampler(config.read_repair_chance if self.repair.enabled else 0.0),
        )
        self.zone_reader = ZoneReader(context, self.near, self.hedged_reader)
        self.decoding = Decoding(config.value_codec, self.hooks)
        near_values = None if self.near is None else NearValues(self.near, self.decoding)
        results = ReadResults(self.decoding, self.near, near_values, self.hooks, unix_time, versions=versions)
        self.reads = Reader(
            config.keys,
            config.defaults,
            access,
            self.zone_reader,
            self.near,
            self.decoding,
            results,
            self.hooks,
            touch=self.writer.touch_in_background,
            read_for_update=partial(read_for_update, self.coordinator, self.zone_reader),
        )

        # Read-through.
        loads = LoadContext(
            hlc=hlc,
            single_flight=self.single_flight,
            leases=Leases(hlc),
            backoff=backoff,
            calls=LoaderCalls(config.max_loads),
            writer=self.writer,
            write_options=config.defaults.write(None, None, "miss"),
            decoding=self.decoding,
            background=self.background,
            hooks=self.hooks,
            near=self.near,
            has_versions=versions,
            tombstone_ttl=tombstone_ttl,
            current_zones=self._snapshot,
            known_version=seen_versions.latest,
            unix_time=unix_time,
        )
        parts_of_loads = (
            config.keys,
            LoadRequests(config.defaults, self.decoding, config.loading, has_versions=versions),
            Lookup(self.zone_reader, self.decoding, self.single_flight, self.hooks, unix_time=unix_time),
            Loader(loads),
            self.decoding,
            near_values,
            self.hooks,
        )
        self.read_through = ReadThrough(
            *parts_of_loads, cluster=self.cluster, affinity=self.affinity, zones_or_none=access.snapshot_or_none
        )
        self.bulk_read_through = BulkReadThrough(*parts_of_loads, zones_or_none=access.snapshot_or_none)
        self.invalidator = Invalidator(
            config.keys,
            config.defaults,
            access,
            self.zone_reader,
            results,
            self.writes,
            self.writer,
            unix_time,
            tombstone_ttl=tombstone_ttl,
            interop=jvm is not None,
        )

        self.activation = None
        if config.telemetry is not None:
            counters = Counters()
            self.activation = Activation(config.telemetry, self._observed(counters), counters, set_instrument)
        self.lifecycle = Lifecycle(
            self.affinity,
            config.discovery,
            self.cluster,
            self.background,
            self.read_through,
            self.near,
            self.bus,
            self.handoff,
            self.activation,
            self._search,
            others=[self.repair, self.writer, self.write_through],
        )

    async def open(self, options: Options) -> Ready:
        """Open the client for a call. See `Lifecycle.open`."""
        return await self.lifecycle.open(options)

    def stats(self) -> Stats:
        """Return the state and the counts of all parts."""
        view, handoff, near = self.cluster.view, self.handoff, self.near
        return Stats(
            core=selected.SELECTED.name,
            nodes_down=sum(node.is_down for node in self.cluster.nodes.values()),
            zones_out=() if view is None else tuple(sorted(view.ejected)),
            topology_age=self.cluster.topology_age,
            topology_error=self.cluster.topology_error,
            topology_held=self.cluster.topology_held,
            zones_without_versions=zones_without_versions(self.cluster.nodes),
            traffic={
                zone: ZoneTraffic(counter.sent, counter.received, is_local=self.cluster.local_zone.contains(zone))
                for zone, counter in self.cluster.traffic.by_zone().items()
            },
            writes_resent=self.writer.resent,
            versions_refused=self.hlc.refused,
            hints=0 if handoff is None else len(handoff.hints),
            hints_by_zone={} if handoff is None else dict(handoff.hints.by_zone),
            hint_bytes=0 if handoff is None else handoff.hints.size,
            hints_delivered=0 if handoff is None else handoff.delivered,
            hints_dropped=0 if handoff is None else handoff.dropped,
            hint_file_error=None if handoff is None else handoff.journal.error,
            repairs_running=self.repair.running,
            repairs=self.repair.done,
            repairs_skipped=self.repair.skipped,
            failovers=self.failover_budget.taken + self.standby_budget.taken,
            failovers_denied=self.failover_budget.denied + self.standby_budget.denied,
            decode_errors=self.decoding.errors,
            hedges=0 if self.hedged_reader is None else self.hedged_reader.budget.taken,
            background_tasks=len(self.background),
            loop_lag=0.0 if view is None else view.lag.latest,
            worst_loop_lag=0.0 if view is None else view.lag.worst,
            near=None if near is None else replace(near.stats),
            near_entries=0 if near is None else near.size[0],
            near_bytes=0 if near is None else near.size[1],
            loads=self.read_through.stats(),
            invalidation=None if self.bus is None else self.bus.stats,
        )

    def _publish(self, key: bytes, version: int | None) -> None:
        assert self.bus is not None  # the bus receives by the dispatcher, which publishes by the bus
        self.bus.publish(key, version)

    def _snapshot(self) -> ClusterSnapshot | None:
        return self.cluster.view

    def _local_zone_search(self, config: ClientConfig) -> LocalZoneSearch | None:
        if config.own_zone is None or config.own_zone.name != AUTO:
            return None
        return LocalZoneSearch(config.own_zone, self.cluster.set_local_zone)

    def _observed(self, counts: Counters) -> ObservedClient:
        config = self._config
        source = ClientMetricsSource(config.namespace, counts, self.stats, lambda: self.cluster.nodes)
        levels, tracer = config.defaults.levels(), config.node_settings.tap
        return ObservedClient(config.namespace, self.hooks, self.cluster, source, levels, tracer)
