"""Nodes of keys by ketama (see `evcache.zones.routing.ketama`). No I/O, no clock."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeVar

from evcache.zones.routing.ketama import ring_position

T = TypeVar("T")


def group_by_owner(
    keys: Sequence[bytes], given: Sequence[T], points: array[int], owners: array[int]
) -> dict[int, tuple[list[bytes], list[T]]]:
    """Return the keys of each node with the items of `given` at the same places, all in the order of the keys.

    Args:
        keys: Keys with their namespace.
        given: An item of each key.
        points: Points of a ring, in order.
        owners: Index of the node of each point.
    """
    groups: dict[int, tuple[list[bytes], list[T]]] = {}
    count = len(points)
    for key, of_key in zip(keys, given, strict=True):
        index = bisect_left(points, ring_position(key))
        # Behind the last point, the ring continues with the first one.
        some, of_some = groups.setdefault(owners[index if index < count else 0], ([], []))
        some.append(key)
        of_some.append(of_key)
    return groups
