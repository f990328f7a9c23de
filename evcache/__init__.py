"""Memcached across availability zones, for asyncio: writes go to every zone, reads come from your own.

The names here and in `evcache.testing` are the public ones; `zones` offers topologies and discovery. Everything else may
change.
"""

import logging

from evcache.budget import Failover
from evcache.channels import InvalidationChannel, LocalChannel
from evcache.client import EVCache
from evcache.codec import Codec, StandardCodec
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
from evcache.gutter import Gutter
from evcache.hedge import Hedging
from evcache.hints import Hints
from evcache.hooks import Hooks
from evcache.load_policy import Loaded, LoadPolicy
from evcache.near_cache import NearCache
from evcache.results import Item, Outcome, WriteResult
from evcache.stats import Stats
from evcache.telemetry import Telemetry
from evcache.write_behind import BufferFull, WriteBehind
from evcache.write_behind_batch import Batch
from evcache.write_behind_buffer import WriteBehindStats
from zones.circuit import CircuitLimits
from zones.settings import NodeSettings

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
