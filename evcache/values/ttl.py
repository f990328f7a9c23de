"""Times to live: what callers may say, and what goes on the wire."""

from __future__ import annotations

import math
from datetime import timedelta

from evcache.zones.errors import InvalidArgument

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
        try:
            seconds = float(ttl)
        except OverflowError:
            raise InvalidArgument(argument, "more seconds than a float can hold (math.inf: does not expire)") from None
    if not seconds > 0:  # NaN compares false
        raise InvalidArgument(argument, f"{ttl!r} is not more than 0 seconds (math.inf: does not expire)")
    return seconds


def to_exptime(seconds: float, now: float) -> int:
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


def exptime_of_copy(remaining: int, spent: float, now: float) -> int | None:
    """Return the exptime of a copy that never outlives its original; None if the copy could, or would end at once.

    An item that a server says has `remaining` seconds left ends after more than `remaining - 1` and at most `remaining`
    seconds, since the server's clock ticks once a second. The copy's server counts in the same way with ticks of another
    phase, so the copy lives up to its exptime. Hence one second is taken off, and the time that passes on the way.

    Args:
        remaining: Seconds left, as a server said; -1: the item does not expire.
        spent: Seconds from before the original's server was asked until the copy arrives, at the most.
        now: Unix time, for what lives over 30 days.
    """
    if remaining < 0:
        return NEVER
    left = math.floor(remaining - TTL_GRANULARITY_SECONDS - max(0.0, spent))
    return to_exptime(left, now) if left > 0 else None


def exptime_sent_again(exptime: int, spent: float) -> int | None:
    """Return the exptime for sending a store again that was sent first `spent` seconds ago; None if it has expired.

    `spent` includes the time that the second store takes to arrive. Servers that took the first one keep their copies for
    more than `exptime - 1` seconds, and none of them is outlived. A negative `spent`, after a clock was set back, adds
    nothing.
    """
    if exptime == NEVER or exptime > MAX_RELATIVE_SECONDS:  # does not expire, or at a unix time that stays the same
        return exptime
    return exptime_of_copy(exptime, spent, 0.0)
