"""Clients whose clocks differ."""

import pytest

from tests.support.memory_zones import TOMBSTONE

SKEWS = [0.001, 0.01, 0.05, 1.0, 10.0]


async def with_clock(zones, seconds, **options):
    """Return a client whose clock is `seconds` ahead. It is behind if the number is negative."""
    return await zones.ready(wall_clock=lambda: zones.wall_clock() + seconds, **options)


async def slow_and_right(zones, skew=0.05, **options):
    """Return a client whose clock is slow, and one whose clock is right."""
    slow = await with_clock(zones, -skew, **options)
    return slow, await zones.ready()


async def accept(value):
    """Write to a source that takes the value."""


async def break_down(value):
    """Write to a source that does not report whether it took the value."""
    raise LookupError("down")


async def write_through_fails(cache, level):
    """Write through to a source that fails, which deletes the key."""
    with pytest.raises(LookupError):
        await cache.write_through("k", "ours", break_down, consistency=level)


# Operations that are sent again, each with the value that zones hold after it.
OPERATIONS = {
    "set": (lambda cache, level: cache.set("k", "ours", ttl=90, consistency=level), "ours"),
    "a large set": (lambda cache, level: cache.set("k", "ours" * 5000, ttl=90, consistency=level), "ours" * 5000),
    "set_many": (lambda cache, level: cache.set_many({"k": "ours"}, ttl=90, consistency=level), "ours"),
    "delete": (lambda cache, level: cache.delete("k", consistency=level), TOMBSTONE),
    "delete_many": (lambda cache, level: cache.delete_many(["k"], consistency=level), TOMBSTONE),
    "invalidate": (lambda cache, level: cache.invalidate("k", consistency=level), TOMBSTONE),
    "write_through": (lambda cache, level: cache.write_through("k", "ours", accept, consistency=level), "ours"),
    "write_through, failing": (write_through_fails, TOMBSTONE),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)
