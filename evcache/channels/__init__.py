"""Channels: how processes with a near cache hear of each other's writes. `evcache.channels.redis` needs an extra."""

from evcache.channels.base import ChannelError, InvalidationChannel, Subscription
from evcache.channels.local import LocalChannel

__all__ = ["ChannelError", "InvalidationChannel", "LocalChannel", "Subscription"]
