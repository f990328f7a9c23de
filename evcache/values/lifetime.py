"""Lifetimes of values: when a value was written, and when it is out of date.

Plain functions without a clock: the time is an argument. Times are unix seconds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from evcache.errors import DecodeError
from evcache.values.envelope import unwrap
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.ttl import TTL_GRANULARITY_SECONDS
from evcache.zones.protocol.replies import Hit


class Lifetime(NamedTuple):
    """Times of a value."""

    made_at: float | None
    """Time of the write. None if the item has no version."""
    expires_at: float
    """Time from which the value is out of date. `math.inf` never expires."""
    stale_until: float
    """Time until which the value may be served during a refresh. Equal to `expires_at` without such a permission."""
    load_seconds: float
    """Duration of the load. 0.0 is unknown."""
    slack: float = 0.0
    """Seconds by which the server may drop the item early. A server that reports 1 second left has begun that second."""


class Content(NamedTuple):
    """Encoded value and its lifetime."""

    data: bytes
    flags: int
    life: Lifetime
    zone: str = ""
    """Zone that returned the value. Empty for a value that has just been loaded."""


def content_of(hit: Hit, written_at: float | None, read_at: float, *, key: bytes = b"", zone: str = "") -> Content:
    """Return the content of an item, and its lifetime.

    Args:
        hit: The item. An envelope names its times itself.
        written_at: Unix time of the item's version, or None if it has none.
        read_at: Unix time of the read: a server reports the seconds that an item has left.
        key: The key, for errors.
        zone: The zone that returned the item.

    Raises:
        DecodeError: The item is an envelope that cannot be read.
    """
    if hit.flags == FLAG_ENVELOPE:
        try:
            data, flags, *times = unwrap(hit.value)
        except DecodeError as error:
            raise error.located(key, zone, hit.flags) from error
        return Content(data, flags, Lifetime(*times), zone)
    expires_at = math.inf if hit.ttl is None or hit.ttl < 0 else read_at + hit.ttl
    return Content(hit.value, hit.flags, Lifetime(written_at, expires_at, expires_at, 0.0, TTL_GRANULARITY_SECONDS), zone)
