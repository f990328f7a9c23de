"""Invalidation channels between processes. `evcache.channels.redis` needs the extra `redis`."""

from evcache.channels.base import ChannelError, InvalidationChannel, Subscription
from evcache.channels.local import LocalChannel

__all__ = ["ChannelError", "InvalidationChannel", "LocalChannel", "Subscription"]
