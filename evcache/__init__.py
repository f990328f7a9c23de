"""Memcached across availability zones, for asyncio. Writes go to every zone, reads come from the local one.

Public names are those of this module, of `evcache.channels`, `evcache.testing` and `evcache.zones`. Others may change.
"""

import logging

from evcache._helpers.version import VERSION
from evcache.channels import InvalidationChannel, LocalChannel, Subscription
from evcache.client import EVCache
from evcache.consistency import Consistency
from evcache.decorators.cached import Cached, CachedDecorator
from evcache.errors import (
    CacheError,
    CacheUnavailable,
    CodecError,
    ConnectionLost,
    ConsistencyError,
    DecodeError,
    DiscoveryError,
    EncodeError,
    FailoverDenied,
    InvalidArgument,
    InvalidKey,
    InvalidTopology,
    LoadAborted,
    LoadTimeout,
    NodeError,
    NodeSilent,
    NodeTimeout,
    NodeUnavailable,
    ProtocolError,
    QueueFull,
    ServerError,
    StaleReplica,
    Unsupported,
    UsageError,
    ValueTooLarge,
)
from evcache.hooks import HintEnd, Hooks
from evcache.interop.settings import Interop
from evcache.invalidation.bus import BusStats
from evcache.load_policy import Loaded, LoadPolicy
from evcache.near_cache.settings import NearCache, NearStats
from evcache.readiness.report import CheckResult, NodeCheck, ZoneCheck
from evcache.reads.failover.budget import Failover
from evcache.reads.hedging import Hedging
from evcache.replication.gutter import Gutter
from evcache.replication.handoff.hints import Hints
from evcache.results import Item, Outcome, RemovalCause, Source, WriteResult
from evcache.stats import LoadStats, Stats, ZoneTraffic
from evcache.telemetry import Telemetry
from evcache.values.codec import Codec, StandardCodec
from evcache.write_behind.api import BufferFull, WriteBehind
from evcache.write_behind.batch import Batch
from evcache.write_behind.buffer import WriteBehindStats
from evcache.zones.discovery.base import Discovery, StaticDiscovery
from evcache.zones.discovery.environment import EnvironmentDiscovery
from evcache.zones.discovery.file import FileDiscovery
from evcache.zones.discovery.guard import TopologyGuard
from evcache.zones.discovery.kubernetes import KubernetesDiscovery
from evcache.zones.discovery.local_zone import LocalZone
from evcache.zones.discovery.lookup import LookupDiscovery, LookupZone
from evcache.zones.discovery.lookups.config_endpoint import ConfigEndpoint
from evcache.zones.discovery.lookups.dns_names import DnsLookup
from evcache.zones.discovery.migration import Migration, MigrationStep
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone
from evcache.zones.transport.classic.pool import PoolLimits
from evcache.zones.transport.dialer import Dialer, SocketDialer
from evcache.zones.transport.limits import ConnectionLimits

__version__ = VERSION

__all__ = [
    "Batch",
    "BufferFull",
    "BusStats",
    "CacheError",
    "CacheUnavailable",
    "Cached",
    "CachedDecorator",
    "CheckResult",
    "CircuitLimits",
    "Codec",
    "CodecError",
    "ConfigEndpoint",
    "ConnectionLimits",
    "ConnectionLost",
    "Consistency",
    "ConsistencyError",
    "DecodeError",
    "Dialer",
    "Discovery",
    "DiscoveryError",
    "DnsLookup",
    "EVCache",
    "EncodeError",
    "Endpoint",
    "EnvironmentDiscovery",
    "Failover",
    "FailoverDenied",
    "FileDiscovery",
    "Gutter",
    "Hedging",
    "HintEnd",
    "Hints",
    "Hooks",
    "Interop",
    "InvalidArgument",
    "InvalidKey",
    "InvalidTopology",
    "InvalidationChannel",
    "Item",
    "KubernetesDiscovery",
    "LoadAborted",
    "LoadPolicy",
    "LoadStats",
    "LoadTimeout",
    "Loaded",
    "LocalChannel",
    "LocalZone",
    "LookupDiscovery",
    "LookupZone",
    "Migration",
    "MigrationStep",
    "Mode",
    "NearCache",
    "NearStats",
    "NodeCheck",
    "NodeError",
    "NodeSettings",
    "NodeSilent",
    "NodeTimeout",
    "NodeUnavailable",
    "Outcome",
    "PoolLimits",
    "ProtocolError",
    "QueueFull",
    "RemovalCause",
    "ServerError",
    "SocketDialer",
    "Source",
    "StaleReplica",
    "StandardCodec",
    "StaticDiscovery",
    "Stats",
    "Subscription",
    "Telemetry",
    "Topology",
    "TopologyGuard",
    "Unsupported",
    "UsageError",
    "ValueTooLarge",
    "WriteBehind",
    "WriteBehindStats",
    "WriteResult",
    "Zone",
    "ZoneCheck",
    "ZoneTraffic",
]

# The service configures logging. Without a handler of the library, Python would print warnings to stderr.
logging.getLogger("evcache").addHandler(logging.NullHandler())
