"""Memcached across availability zones, for asyncio: writes go to every zone, reads come from your own.

The names here and in `evcache.testing` are the public ones; `zones` offers topologies and discovery. Everything else may
change.
"""

import logging

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
    ServerError,
    Unsupported,
    UsageError,
    ValueTooLarge,
)
from evcache.hooks import Hooks
from evcache.near_cache import NearCache
from evcache.results import Item, Outcome, WriteResult
from zones.node import NodeSettings

__all__ = [
    "CacheError",
    "CacheUnavailable",
    "Codec",
    "CodecError",
    "Consistency",
    "ConsistencyError",
    "DecodeError",
    "EVCache",
    "EncodeError",
    "Hooks",
    "InvalidArgument",
    "InvalidKey",
    "InvalidTopology",
    "Item",
    "NearCache",
    "NodeSettings",
    "Outcome",
    "ServerError",
    "StandardCodec",
    "Unsupported",
    "UsageError",
    "ValueTooLarge",
    "WriteResult",
]

# What a library logs is for the service to show: without a handler of its own, nothing goes to stderr.
logging.getLogger("evcache").addHandler(logging.NullHandler())
