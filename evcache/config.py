"""Settings of a client: each with its default and the source of the default."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from evcache.channels import InvalidationChannel
from evcache.consistency import Consistency
from evcache.hooks import Hooks
from evcache.interop.codec import InteropCodec
from evcache.interop.keys import InteropKeys
from evcache.interop.labels import jvm_labelled
from evcache.interop.settings import COMPRESSION_THRESHOLD_BYTES, Interop
from evcache.load_policy import LoadPolicy
from evcache.near_cache.settings import NearCache
from evcache.options import Defaults, Errors, Level, Ordering, Seconds
from evcache.reads.failover.budget import Failover
from evcache.reads.hedging import Hedging
from evcache.replication.gutter import GUTTER, Gutter
from evcache.replication.handoff.hints import Hints
from evcache.replication.seen_versions import REMEMBERED_KEYS
from evcache.telemetry import Telemetry
from evcache.values.checked_codec import RESERVED, checked
from evcache.values.codec import Codec, StandardCodec
from evcache.values.flags import FLAG_INT
from evcache.values.keys import Keys
from evcache.values.ttl import DEFAULT_TTL_SECONDS, TOMBSTONE_TTL_SECONDS, seconds_to_live
from evcache.zones.discovery.base import Discovery, StaticDiscovery
from evcache.zones.discovery.environment import ZONE_VARIABLE
from evcache.zones.discovery.file import FileDiscovery
from evcache.zones.discovery.forms import KUBERNETES, discovery_of_mapping, discovery_of_text
from evcache.zones.discovery.guard import TopologyGuard
from evcache.zones.discovery.local_zone import AUTO, LocalZone, LocalZonePlace
from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Topology
from evcache.zones.transport.request_tracing import RequestTracer
from evcache.zones.validation import an_instance, at_least_one, flag, fraction, has_methods, methods, not_negative

# EVCache's attempts time out after 20 ms in the cloud and 750 ms elsewhere. A read that has no reply after 100 ms is better
# served by the source.
READ_TIMEOUT_SECONDS = 0.1
# Callers wait less urgently for a write than for a read, and each write that times out has to be repaired.
WRITE_TIMEOUT_SECONDS = 0.5

# Each comparison costs a request without a value to every zone: with three zones, 0.3 % more requests. Only comparisons
# find differences that no failure and no other read has shown.
READ_REPAIR_CHANCE = 0.001

# As many as the threads and connections behind a typical pool. All callers at once must not reach the source when the cache
# is down.
MAX_LOADS = 32

DEFAULT_HINTS = Hints()
DEFAULT_FAILOVER = Failover()
DEFAULT_LOADING = LoadPolicy()
DEFAULT_TELEMETRY = Telemetry()
DEFAULT_GUARD = TopologyGuard()

ZonesArgument = str | os.PathLike[str] | Mapping[str, object] | Topology | Discovery


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """Settings of one client, checked. No I/O happens here.

    The fields up to `unix_time` are the arguments of `EVCache`. The others are made from them.
    """

    namespace: str
    """Prefix of every key, `namespace:key`."""
    zones: ZonesArgument
    """Zones and their nodes, or the discovery that finds them."""
    local_zone: str | LocalZone | None = None
    """Zone of this process. "auto" finds it. If None, `EVCACHE_ZONE` names it; without the variable there is none."""
    topology_guard: TopologyGuard | None = DEFAULT_GUARD
    """Limits of a change of the topology that is applied at once. If None, every change is."""
    read_consistency: Level = Consistency.ONE
    """Zones that must answer a read. EVCache reads one copy, too."""
    write_consistency: Level = Consistency.ALL_MINUS_ONE
    """Zones that must acknowledge a write. The most that still works while a zone is down; EVCache's default policy."""
    read_timeout: float = READ_TIMEOUT_SECONDS
    """Seconds for a whole read, all zones included."""
    write_timeout: float = WRITE_TIMEOUT_SECONDS
    """Seconds for a whole write."""
    ttl: Seconds = DEFAULT_TTL_SECONDS
    """Seconds that an item lives. EVCache's default. `math.inf` stores items that do not expire."""
    fallback_on_miss: bool = True
    """True if a read asks the next zone after a miss, as EVCache does."""
    errors: Errors = "raise"
    """"miss" if a read that no zone answers returns its default."""
    ordering: Ordering = "newest"
    """"arrival" if the last write to arrive wins in each zone, in place of the latest version."""
    interop: bool | Interop = False
    """Settings of the JVM clients that use the namespace too, or True for the usual ones. There are no versions, tombstones
    and repair then."""
    codec: Codec | None = None
    """Encoder and decoder of values. If None, `StandardCodec()`."""
    tombstone_ttl: Seconds = TOMBSTONE_TTL_SECONDS
    """Seconds that the zones remember a delete. Longer than any repair or retry that could store an older value."""
    near_cache: NearCache | None = None
    """Cache in this process. If None, there is none: it takes memory, and serves values that are out of date for a while."""
    invalidation: InvalidationChannel | None = None
    """Channel between processes for invalidation messages. If None, none are sent or received."""
    loading: LoadPolicy = DEFAULT_LOADING
    """Policy of `get_or_load` and `cached`."""
    max_loads: int = MAX_LOADS
    """Number of loaders that run at once."""
    nodes: NodeSettings | None = None
    """Settings of connections. If None, `NodeSettings()`."""
    transport: Literal["auto", "meta", "classic"] | None = None
    """Protocol of the nodes. If None, that of `nodes`."""
    repair: bool = True
    """True if reads copy the latest version to stale replicas."""
    read_repair_chance: float = READ_REPAIR_CHANCE
    """Fraction of keys read from one zone that are then compared in all zones. 0.001 costs 0.3 % more requests."""
    hints: Hints | None = DEFAULT_HINTS
    """Limits of the hint store. If None, missed writes are not stored."""
    remember_versions: int = REMEMBERED_KEYS
    """Number of keys whose latest version the client remembers. 0 remembers only deletes that are not delivered."""
    failover: Failover = DEFAULT_FAILOVER
    """Budget of requests to other zones."""
    hedging: Hedging | None = None
    """Hedged reads. If None, a read asks a second zone only after the first failed or missed."""
    gutter: Gutter | None = None
    """Servers that stand in when no zone can serve a key. If None, there are none."""
    hooks: Hooks | None = None
    """Listener to events inside the client. If None, there is none."""
    telemetry: Telemetry | None = DEFAULT_TELEMETRY
    """Reports to OpenTelemetry. They cost nothing until the service installs an SDK. If None, there are none."""
    unix_time: Callable[[], float] = time.time
    """Clock for versions and for TTLs over 30 days, in seconds: the argument `wall_clock`."""

    keys: Keys = field(init=False, repr=False)
    """Full names of keys."""
    own_zone: LocalZone | None = field(init=False, repr=False)
    """The zone of this process as a setting, or None if there is none."""
    discovery: Discovery = field(init=False, repr=False)
    """Source of the topology."""
    defaults: Defaults = field(init=False, repr=False)
    """Options of calls that do not pass their own."""
    value_codec: Codec = field(init=False, repr=False)
    """The codec in use. Without `codec`, it is an `InteropCodec` in interop mode."""
    jvm: Interop | None = field(init=False, repr=False)
    """Settings of the JVM clients. None if the client is not in interop mode."""
    node_settings: NodeSettings = field(init=False, repr=False)
    """The settings of connections in use."""
    tombstone_seconds: float = field(init=False, repr=False)
    """`tombstone_ttl` as a number."""

    def __post_init__(self) -> None:
        """Check the arguments.

        Raises:
            InvalidArgument: An argument cannot be used. The error names it.
            InvalidTopology: The zones cannot be used, a strict local zone is not one of them, or one is named "gutter" in a
                client that has a gutter.
        """
        flag(self.fallback_on_miss, "fallback_on_miss")
        flag(self.repair, "repair")
        methods(self.invalidation, ("publish", "subscribe"), "invalidation")
        an_instance(self.nodes, NodeSettings, "nodes")
        an_instance(self.hooks, Hooks, "hooks")
        if not callable(self.unix_time):
            problem = f"a function that returns the unix time is required, not {self.unix_time!r}"
            raise InvalidArgument("wall_clock", problem)
        jvm = _interop(self.interop)
        self._set("jvm", jvm)
        self._set("keys", Keys(self.namespace) if jvm is None else InteropKeys(self.namespace, jvm))
        self._set("own_zone", local_zone_from(self.local_zone))
        discovery = discovery_from(self.zones, self.own_zone)
        if jvm is not None:
            discovery = jvm_labelled(discovery)
            if isinstance(discovery, StaticDiscovery):  # another source may name the zones later
                jvm.check_names({zone.name for zone in discovery.topology.zones})
        self._set("discovery", discovery)
        self._set(
            "defaults",
            Defaults(
                read_consistency=self.read_consistency,
                write_consistency=self.write_consistency,
                read_timeout=self.read_timeout,
                write_timeout=self.write_timeout,
                ttl=self.ttl,
                fallback_on_miss=self.fallback_on_miss,
                errors=self.errors,
                ordering=self.ordering,
            ),
        )
        self._set("value_codec", _codec(self.codec, jvm))
        self._set("tombstone_seconds", seconds_to_live(self.tombstone_ttl, "tombstone_ttl"))
        an_instance(self.topology_guard, TopologyGuard, "topology_guard")
        an_instance(self.hints, Hints, "hints")
        an_instance(self.failover, Failover, "failover", optional=False)
        an_instance(self.hedging, Hedging, "hedging")
        an_instance(self.gutter, Gutter, "gutter")
        an_instance(self.telemetry, Telemetry, "telemetry")
        an_instance(self.near_cache, NearCache, "near_cache")
        an_instance(self.loading, LoadPolicy, "loading", optional=False)
        at_least_one(self.max_loads, "max_loads")
        not_negative(self.remember_versions, "remember_versions")
        fraction(self.read_repair_chance, "read_repair_chance")
        self._set("node_settings", self._nodes_in_use())
        fixed = self.discovery.topology if isinstance(self.discovery, StaticDiscovery) else None
        if self.gutter is not None and fixed is not None and fixed.zone(GUTTER) is not None:
            raise InvalidTopology("gutter", f"a zone is named {GUTTER!r}")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the way of frozen dataclasses

    def _nodes_in_use(self) -> NodeSettings:
        settings = NodeSettings() if self.nodes is None else self.nodes
        if self.transport is not None:
            settings = replace(settings, transport=self.transport)
        if settings.circuit.probe_timeout is None:
            # The time that a read gives its first zone when there are two.
            timeout = min(settings.connect_timeout, self.read_timeout / 2)
            settings = replace(settings, circuit=replace(settings.circuit, probe_timeout=timeout))
        if self.telemetry is not None and self.telemetry.node_spans and settings.tap is None:
            settings = replace(settings, tap=RequestTracer())
        return settings


def _interop(interop: bool | Interop) -> Interop | None:  # noqa: FBT001  # the argument of the client
    if isinstance(interop, Interop):
        return interop
    if not isinstance(interop, bool):
        raise InvalidArgument("interop", f"True, False or Interop(...) is required, not {interop!r}")
    return Interop() if interop else None


def _codec(codec: Codec | None, jvm: Interop | None) -> Codec:
    if jvm is None:
        return checked(StandardCodec() if codec is None else codec)
    if codec is not None:
        codec = codec.with_packed_ints() if isinstance(codec, StandardCodec) else codec
        return checked(codec, reserved={**RESERVED, FLAG_INT: "counters"})  # groups store counters in a form of their own
    compress_over = COMPRESSION_THRESHOLD_BYTES if jvm.compress else None
    codec = InteropCodec(integer_width=jvm.integer_width, compress_over=compress_over, java_objects=jvm.java_objects)
    return checked(codec)


def discovery_from(zones: ZonesArgument, local_zone: LocalZone | None) -> Discovery:
    """Return the source of the topology for the argument `zones`. No I/O: a file is read with the first call.

    Raises:
        InvalidTopology: The zones cannot be used, or a strict local zone is not one of them.
    """
    if isinstance(zones, str) and ("=" in zones or zones.strip().startswith(KUBERNETES)):
        discovery = discovery_of_text(zones)
    elif isinstance(zones, str | os.PathLike):
        if not str(zones):
            raise InvalidTopology("zones", "it is empty")
        if Path(zones).suffix != ".toml":
            raise InvalidTopology(
                "zones",
                f"{str(zones)!r} is neither zone=host:port,... nor kubernetes+SERVICE.NAMESPACE nor the path of a .toml",
            )
        return FileDiscovery(zones)
    elif isinstance(zones, Topology):
        discovery = StaticDiscovery(zones)
    elif isinstance(zones, Mapping):
        discovery = discovery_of_mapping(zones)
    elif has_methods(zones, "load", "watch"):
        return zones
    else:
        raise InvalidTopology("zones", f"zones and their nodes are required, not {zones!r}")
    is_known = local_zone is not None and local_zone.strict and local_zone.name != AUTO
    if local_zone is not None and is_known and isinstance(discovery, StaticDiscovery):
        LocalZonePlace((local_zone.name,), strict=True).check(discovery.topology, first=True)
    return discovery


def local_zone_from(local_zone: str | LocalZone | None, environment: Mapping[str, str] = os.environ) -> LocalZone | None:
    """Return the zone of this process: the argument, or that of `EVCACHE_ZONE`, or None if neither names one.

    Raises:
        InvalidTopology: The argument is neither a `LocalZone` nor the name of a zone.
    """
    if isinstance(local_zone, LocalZone):
        return local_zone
    if local_zone is None:
        local_zone = environment.get(ZONE_VARIABLE) or None
        return None if local_zone is None else LocalZone(local_zone)
    if not isinstance(local_zone, str) or not local_zone:
        raise InvalidTopology("local_zone", f"the name of a zone is required, not {local_zone!r}")
    return LocalZone(local_zone)
