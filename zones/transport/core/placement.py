"""Nodes of keys by ketama (see `evcache.zones.routing.ketama`). No I/O, no clock."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from evcache.zones.routing.ketama import ring_position


def group_by_owner(keys: Iterable[bytes], points: array[int], owners: array[int]) -> dict[int, list[bytes]]:
    """Return the keys of each node, both in the order of the keys.

    Args:
        keys: Keys with their namespace.
        points: Points of a ring, in order.
        owners: Index of the node of each point.
    """
    groups: dict[int, list[bytes]] = {}
    count = len(points)
    for key in keys:
        index = bisect_left(points, ring_position(key))
        # Behind the last point, the ring continues with the first one.
        groups.setdefault(owners[index if index < count else 0], []).append(key)
    return groups
