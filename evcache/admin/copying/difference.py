"""Difference between what two zones hold under one key. No I/O, no clock."""

from __future__ import annotations

import enum
from typing import NamedTuple

from evcache.admin.copying.decision import is_held
from evcache.replication.commands.node_requests import Peeked
from evcache.replication.hlc import HybridLogicalClock

# Seconds by which the remaining lifetimes of two copies may differ. A copy expires some seconds before its original, see
# `evcache.values.ttl.exptime_of_copy`, and the two zones are looked at one after the other.
LIFETIME_TOLERANCE_SECONDS = 10


class Kind(enum.Enum):
    """Kind of a difference."""

    MISSING = "missing"
    """Only one of the two zones holds the value. The second zone has evicted it, or missed the write."""
    OLDER = "older version"
    """One zone holds an older version."""
    NOT_DELETED = "deleted value"
    """One zone holds a value that the second zone has deleted since."""
    LIFETIME = "other lifetime"
    """Both zones hold the same version, and one will expire later."""
    VALUE = "other value"
    """Both zones hold the same version with different values, or items without versions that differ."""


class Difference(NamedTuple):
    """Difference under one key."""

    kind: Kind
    stale: int | None
    """Place of the zone that a repair writes to, 0 or 1. None if nothing shows which zone is right."""


Pair = tuple[Peeked | None, Peeked | None]


def difference(items: Pair) -> Difference | None:
    """Return the difference between the items of two zones, or None if readers see the same.

    Items without versions are compared by value, if both have been read with theirs. A tombstone equals nothing.
    """
    versions = [None if item is None else HybridLogicalClock.decode(item.cas) for item in items]
    values = [is_held(item) and item is not None and not item.absent for item in items]
    if not any(values):
        return None
    first, second = versions
    if first is not None and second is not None and first != second and is_held(items[0]) and is_held(items[1]):
        stale = 0 if first < second else 1
        return Difference(Kind.OLDER if values[1 - stale] else Kind.NOT_DELETED, stale)
    for place in (0, 1):
        if values[1 - place] and not is_held(items[place]):
            return None if expires_soon(items[1 - place]) else Difference(Kind.MISSING, place)
    return _of_equal_versions(*items, is_ordered=first is not None and second is not None)


def expires_soon(item: Peeked | None) -> bool:
    """Return True if a copy of the item may have expired already. Copies expire some seconds before their original."""
    return item is not None and item.ttl is not None and 0 <= item.ttl <= LIFETIME_TOLERANCE_SECONDS


def has_lasted(before: Difference, earlier: Pair, items: Pair) -> bool:
    """Return True if a difference that was found twice is one, and not a write that has reached one of the zones so far.

    A key that is written all the time differs at each look. Its zones are equal if each has caught up with the earlier look.

    Args:
        before: The difference of the earlier look.
        earlier: Items of both zones at the earlier look.
        items: Items of both zones now. They differ.
    """
    if before.stale is None:
        return any(_cas(one) == _cas(now) for one, now in zip(earlier, items, strict=True))
    was, now, newer = earlier[before.stale], items[before.stale], earlier[1 - before.stale]
    if now is None or newer is None or not is_held(now):
        return True
    version, held = HybridLogicalClock.decode(newer.cas), HybridLogicalClock.decode(now.cas)
    if version is None or held is None:
        return _cas(was) == now.cas
    return held < version


def _cas(item: Peeked | None) -> int | None:
    return None if item is None else item.cas


def _of_equal_versions(first: Peeked | None, second: Peeked | None, *, is_ordered: bool) -> Difference | None:
    assert first is not None
    assert second is not None
    is_same = (first.flags, first.value) == (second.flags, second.value)
    if first.value is not None and second.value is not None and not is_same:
        return Difference(Kind.VALUE, None)
    if first.absent is not second.absent:
        return Difference(Kind.VALUE, None)
    if is_ordered and _lifetimes_differ(first.ttl, second.ttl):
        return Difference(Kind.LIFETIME, None)
    return None


def _lifetimes_differ(first: int | None, second: int | None) -> bool:
    if first is None or second is None or first == second:
        return False
    return min(first, second) < 0 or abs(first - second) > LIFETIME_TOLERANCE_SECONDS


def needs_values(items: tuple[Peeked | None, Peeked | None]) -> bool:
    """Return True if only the values can show whether the items are equal, because one has no version."""
    return all(is_held(item) for item in items) and any(
        item is not None and HybridLogicalClock.decode(item.cas) is None for item in items
    )
