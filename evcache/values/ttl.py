"""Times to live, as callers give them and as memcached takes them (exptime)."""

from __future__ import annotations

import math
from datetime import timedelta

from evcache.zones.errors import InvalidArgument

DEFAULT_TTL_SECONDS = 900  # EVCache's

# Seconds that the zones remember a delete: longer than any repair or retry that could store an older value.
TOMBSTONE_TTL_SECONDS = 60

# memcached takes a larger number as a unix time. 2,592,001 would be in January 1970, so the item would expire at once.
MAX_RELATIVE_SECONDS = 30 * 24 * 60 * 60
_MAX_UNIX_TIME = 2**31 - 1  # memcached stores it in a signed 32-bit number

NEVER = 0  # exptime of an item that does not expire

# Servers count in whole seconds. An item with "1 second left" may expire at any moment.
TTL_GRANULARITY_SECONDS = 1


def seconds_to_live(ttl: float | timedelta, argument: str = "ttl") -> float:
    """Return a caller's TTL as seconds.

    Args:
        ttl: Seconds or a timedelta. `math.inf` means that the item does not expire.
        argument: Name of the argument, for the error.

    Raises:
        InvalidArgument: The TTL is no number or timedelta, or is not above 0. A server would take 0 as "never expires".
    """
    if isinstance(ttl, timedelta):
        seconds: float = ttl.total_seconds()
    elif isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise InvalidArgument(argument, f"seconds or a timedelta is required, not {ttl!r}")
    else:
        try:
            seconds = float(ttl)
        except OverflowError:
            raise InvalidArgument(argument, "the number does not fit a float (math.inf: does not expire)") from None
    if not seconds > 0:  # NaN compares false
        raise InvalidArgument(argument, f"more than 0 seconds is required, not {ttl!r} (math.inf: does not expire)")
    return seconds


def to_exptime(seconds: float, now: float) -> int:
    """Return the exptime of a TTL: whole seconds, rounded up, or a unix time above 30 days. 0 means that it never expires.

    A server's clock ticks once per second, so an item with an exptime of 1 lives for 0 to 1 seconds.

    Args:
        seconds: TTL in seconds, or `math.inf`.
        now: Unix time.
    """
    if math.isinf(seconds):
        return NEVER
    whole = math.ceil(seconds)
    if whole <= MAX_RELATIVE_SECONDS:
        return whole
    return min(int(now) + whole, _MAX_UNIX_TIME)


def exptime_of_copy(remaining: int, spent: float, now: float) -> int | None:
    """Return the exptime of a copy that never outlives its original.

    A server's clock ticks once per second. An item with `remaining` seconds left therefore expires after more than
    `remaining - 1` and at most `remaining` seconds. The clock of the copy's server ticks in another phase, so the copy lives
    up to its exptime. The copy thus gets one second less, and less the time until it arrives.

    Args:
        remaining: Seconds left, as the server reported them. -1 means that the item does not expire.
        spent: Upper bound of the seconds from the request for the original until the copy arrives.
        now: Unix time.

    Returns:
        The exptime. None if the copy would outlive its original, or expire at once.
    """
    if remaining < 0:
        return NEVER
    left = math.floor(remaining - TTL_GRANULARITY_SECONDS - max(0.0, spent))
    return to_exptime(left, now) if left > 0 else None


def exptime_sent_again(exptime: int, spent: float) -> int | None:
    """Return the exptime of a store that is sent again.

    Servers that took the first store keep their copies for more than `exptime - 1` seconds. The second copy outlives none
    of them.

    Args:
        exptime: Exptime of the first store.
        spent: Seconds from the first store until the second one arrives. A negative number, after a clock step, counts as 0.

    Returns:
        The exptime. None if the item has expired.
    """
    if exptime == NEVER or exptime > MAX_RELATIVE_SECONDS:  # does not expire, or expires at a unix time, which is unchanged
        return exptime
    return exptime_of_copy(exptime, spent, 0.0)
