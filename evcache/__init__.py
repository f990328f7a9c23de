"""Memcached across availability zones, for asyncio: writes go to every zone, reads come from your own.

The names here and in `evcache.testing` are the public ones; `zones` offers topologies and discovery. Everything else may
change.
"""

import logging

from evcache.channels import InvalidationChannel, LocalChannel
from evcache.client import EVCache
from evcache.consistency import Consistency
from evcache.errors import (
    CacheError,
    CacheUnavailable,
    CodecError,
    ConsistencyError,
    DecodeError,
    EncodeError,
    InvalidArgument,
    InvalidKey,
    InvalidTopology,
    LoadAborted,
    LoadTimeout,
    ServerError,
    Unsupported,
    UsageError,
    ValueTooLarge,
)
from evcache.hooks import Hooks
from evcache.load_policy import Loaded, LoadPolicy
from evcache.near_cache.settings import NearCache
from evcache.reads.failover_budget import Failover
from evcache.reads.hedging import Hedging
from evcache.replication.gutter import Gutter
from evcache.replication.handoff.hints import Hints
from evcache.results import Item, Outcome, WriteResult
from evcache.stats import Stats
from evcache.telemetry import Telemetry
from evcache.values.codec import Codec, StandardCodec
from evcache.write_behind.api import BufferFull, WriteBehind
from evcache.write_behind.batch import Batch
from evcache.write_behind.buffer import WriteBehindStats
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.nodes.settings import NodeSettings

__all__ = [
    "Batch",
    "BufferFull",
    "CacheError",
    "CacheUnavailable",
    "CircuitLimits",
    "Codec",
    "CodecError",
    "Consistency",
    "ConsistencyError",
    "DecodeError",
    "EVCache",
    "EncodeError",
    "Failover",
    "Gutter",
    "Hedging",
    "Hints",
    "Hooks",
    "InvalidArgument",
    "InvalidKey",
    "InvalidTopology",
    "InvalidationChannel",
    "Item",
    "LoadAborted",
    "LoadPolicy",
    "LoadTimeout",
    "Loaded",
    "LocalChannel",
    "NearCache",
    "NodeSettings",
    "Outcome",
    "ServerError",
    "StandardCodec",
    "Stats",
    "Telemetry",
    "Unsupported",
    "UsageError",
    "ValueTooLarge",
    "WriteBehind",
    "WriteBehindStats",
    "WriteResult",
]

# What a library logs is for the service to show: without a handler of its own, nothing goes to stderr.
logging.getLogger("evcache").addHandler(logging.NullHandler())
