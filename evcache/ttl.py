"""Times to live: what callers may say, and what goes on the wire."""

from __future__ import annotations

import math
from datetime import timedelta

from zones.errors import InvalidArgument

DEFAULT_TTL_SECONDS = 900  # EVCache's

# memcached takes a larger number for a unix time: 2,592,001 would be a day in January 1970, and the item gone at once.
MAX_RELATIVE_SECONDS = 30 * 24 * 60 * 60
_MAX_UNIX_TIME = 2**31 - 1  # memcached keeps it in a signed 32-bit number

NEVER = 0  # on the wire

# Servers count in whole seconds: an item that says "1 second left" may be gone at any moment.
TTL_GRANULARITY_SECONDS = 1


def seconds_to_live(ttl: float | timedelta, argument: str = "ttl") -> float:
    """The seconds that a caller asked for; `math.inf` for an item that does not expire.

    Raises `InvalidArgument` for 0 (which would mean "for ever" to a server and "gone" to a reader), negative numbers, NaN,
    bools, and anything that is not a number or `timedelta`.
    """
    if isinstance(ttl, timedelta):
        seconds: float = ttl.total_seconds()
    elif isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise InvalidArgument(argument, f"seconds or a timedelta are needed, not {ttl!r}")
    else:
        seconds = ttl
    if not seconds > 0:  # NaN compares false
        raise InvalidArgument(argument, f"{ttl!r} is not more than 0 seconds (math.inf: does not expire)")
    return seconds


def on_the_wire(seconds: float, now: float) -> int:
    """Memcached's form: whole seconds, rounded up; a unix time when that is over 30 days; 0 for an item that never expires.

    `now` is the unix time. Servers count in whole seconds with a clock that ticks once a second: an item given 1 second
    lives 0 to 1.
    """
    if math.isinf(seconds):
        return NEVER
    whole = math.ceil(seconds)
    if whole <= MAX_RELATIVE_SECONDS:
        return whole
    return min(int(now) + whole, _MAX_UNIX_TIME)


def copied(remaining: int, now: float) -> int:
    """The wire form for a copy of an item with `remaining` seconds left, as a server said it (-1: does not expire)."""
    return NEVER if remaining < 0 else on_the_wire(max(1, remaining), now)


def left_of(ttl: int, elapsed: float) -> int | None:
    """The wire form, so many seconds later, of what had this one; None when the item has expired since.

    Fewer than 0 are none: a clock that was set back must not make a span longer, or a date of it.
    """
    if ttl == NEVER or ttl > MAX_RELATIVE_SECONDS:  # does not expire, or at a unix time that stays the same
        return ttl
    left = math.ceil(ttl - max(0.0, elapsed))
    return left if left > 0 else None
