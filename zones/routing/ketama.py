"""Ketama, the consistent hashing that assigns keys to the nodes of a zone. Clients with equal labels agree.

Each node has 160 points, from the MD5 of `<label>-<i>` for i in 0..39, with four little-endian words each. A key belongs to
the first point at or after the first little-endian word of its own MD5. libketama, spymemcached and EVCache for the JVM have
the same points. A node that is down keeps its points, and clients read its keys from another zone. Copies on its neighbours
would become stale when the node recovers.

A zone of a thousand nodes has 160,000 points. They are made and sorted on the event loop. All clients of a process therefore
share the rings and points that are in use, through weak references.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import md5
from struct import Struct
from weakref import WeakValueDictionary

POINTS_PER_NODE = 160  # spymemcached's DefaultKetamaNodeLocatorConfiguration
_WORDS_PER_DIGEST = 4
_WORD_BYTES = 4
_SUFFIXES = tuple(b"-%d" % number for number in range(POINTS_PER_NODE // _WORDS_PER_DIGEST))
_words = Struct(f"<{POINTS_PER_NODE}I").unpack

# A point and the rank of its node are sorted as one float, `point * 2^20 + rank`. Floats compare several times as fast as
# tuples, or as integers of this size. A float holds the 32 + 20 bits exactly.
_RANKS = 2**20

# Nodes in one step of a ring that is made in steps, which takes about 4 ms.
_NODES_AT_ONCE = 100

# Number of nodes from which points are stored in arrays. An array takes a fifth of the memory of a list. A search takes
# equal time in large rings, and twice the time in small ones.
_COMPACT_NODES = 250


def ring_position(key: bytes) -> int:
    """Return the position of a key on the rings of all zones, so that one hash serves a lookup in each."""
    return int.from_bytes(md5(key, usedforsecurity=False).digest()[:_WORD_BYTES], "little")


def points(label: str) -> list[int]:
    """Return the points of one node on the ring."""
    name = label.encode()
    return list(_words(b"".join([md5(name + suffix, usedforsecurity=False).digest() for suffix in _SUFFIXES])))


class Ring:
    """The points of a zone's nodes, in order. Immutable."""

    __slots__ = ("__weakref__", "_owners", "_packed", "_points", "_runs")

    _points: Sequence[int]
    _owners: Sequence[int]
    _packed: tuple[array[int], array[int]] | None

    def __init__(self, labels: Sequence[str]) -> None:
        """Make a ring of `labels`, which are in the order of the zone's nodes. `owner` returns an index into them."""
        for _ in self._make(labels):
            pass

    def __len__(self) -> int:
        return len(set(self._points))

    def owner(self, position: int) -> int:
        """Return the index of the node that holds the keys at this position."""
        index = bisect_left(self._points, position)
        # Behind the last point, the ring continues with the first one.
        return self._owners[index] if index < len(self._owners) else self._owners[0]

    def arrays(self) -> tuple[array[int], array[int]]:
        """Return the points in order, and the index of the node of each, for lookups of many keys."""
        if self._packed is None:
            points, owners = self._points, self._owners
            if not isinstance(points, array) or not isinstance(owners, array):
                points, owners = array("I", points), array("I", owners)
            self._packed = points, owners
        return self._packed

    def _make(self, labels: Sequence[str]) -> Iterator[None]:
        self._packed = None  # points and owners as arrays, once a bulk call needs them
        self._runs: list[array[int]] = []  # keeps the runs for the next ring, which shares most of them
        places: list[float] = []
        for index, label in enumerate(labels):
            run = _run(label)
            self._runs.append(run)
            # If two nodes share a point, the later node owns it, as in a map that is filled in order. Its lower rank sorts
            # it first, and a search finds the first.
            rank = _RANKS - 1 - index
            places += [point * float(_RANKS) + rank for point in run]
            if index % _NODES_AT_ONCE == _NODES_AT_ONCE - 1:
                yield
        places.sort()  # merges the sorted runs
        yield
        found = list(map(int, places))
        del places
        yield
        points = [place // _RANKS for place in found]
        yield
        owners = [_RANKS - 1 - place % _RANKS for place in found]
        compact = len(labels) >= _COMPACT_NODES
        self._points = array("I", points) if compact else points
        self._owners = array("I", owners) if compact else owners


_rings: WeakValueDictionary[tuple[str, ...], Ring] = WeakValueDictionary()
_runs: WeakValueDictionary[str, array[int]] = WeakValueDictionary()


def ring_of(labels: Sequence[str]) -> Ring:
    """Return the ring of these labels: the one in use, or a new one."""
    key = tuple(labels)
    ring = _rings.get(key)
    if ring is None:
        ring = _rings[key] = Ring(key)
    return ring


def ring_in_steps(labels: Sequence[str]) -> Iterator[Ring | None]:
    """Make the ring of these labels in steps of some milliseconds. Yields None after each step, and the ring at the end."""
    key = tuple(labels)
    ring = _rings.get(key)
    if ring is None:
        ring = Ring.__new__(Ring)
        for _ in ring._make(key):
            yield None
        _rings[key] = ring
    yield ring


def _run(label: str) -> array[int]:
    """Return the sorted points of one node."""
    run = _runs.get(label)
    if run is None:
        run = _runs[label] = array("I", sorted(points(label)))
    return run
