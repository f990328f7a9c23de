"""Ketama: which node of a zone holds a key. Equal on every client that is given the same labels.

160 points for each node, from the MD5 of `<label>-<i>` for i in 0..39, four little-endian words each; a key belongs to the
first point at or after the first little-endian word of its own MD5. These are the points of libketama and spymemcached,
and so of EVCache for the JVM. A node that is down keeps its points: its keys go to another zone, not to its neighbours,
which would make a copy there that nobody deletes when the node comes back.

A zone of a thousand nodes has 160,000 points. They are made and sorted while the event loop waits, so what has been made is
kept for as long as somebody uses it: the points of a node that stays, and the ring of a zone that has not changed, whichever
client it is for.
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

# Points are sorted together with whose they are, as one float, `point * 2^20 + rank`: floats are compared several times as
# fast as tuples, or as integers of this size. It is exact, with 32 bits and 20, which are nodes enough.
_RANKS = 2**20

# Nodes that are dealt with in one step of a ring that is made in steps: 4 ms or so.
_NODES_AT_ONCE = 100

# From so many nodes on, points are kept in arrays. Those take a fifth of the memory, and are searched as fast as lists of
# numbers that are all over it; in small ones, half as fast.
_COMPACT_NODES = 250


def ring_position(key: bytes) -> int:
    """Where a key stands on the ring of every zone: hash once, look up in each."""
    return int.from_bytes(md5(key, usedforsecurity=False).digest()[:_WORD_BYTES], "little")


def points(label: str) -> list[int]:
    """The places of one node on the ring."""
    name = label.encode()
    return list(_words(b"".join([md5(name + suffix, usedforsecurity=False).digest() for suffix in _SUFFIXES])))


class Ring:
    """The points of a zone's nodes, in order. Immutable."""

    __slots__ = ("__weakref__", "_owners", "_points", "_runs")

    _points: Sequence[int]
    _owners: Sequence[int]

    def __init__(self, labels: Sequence[str]) -> None:
        """`labels` in the order of the zone's nodes; `owner` answers with an index into them."""
        for _ in self._make(labels):
            pass

    def __len__(self) -> int:
        return len(set(self._points))

    def owner(self, place: int) -> int:
        """The index of the node that holds the keys at this place."""
        index = bisect_left(self._points, place)
        # Past the last point the ring begins again.
        return self._owners[index] if index < len(self._owners) else self._owners[0]

    def _make(self, labels: Sequence[str]) -> Iterator[None]:
        self._runs: list[array[int]] = []  # for the next ring, which shares most of them
        places: list[float] = []
        for index, label in enumerate(labels):
            run = _run(label)
            self._runs.append(run)
            # On the rare point that two nodes share, the later node wins, as in a map that is filled in order: it is the
            # first of the two, and only the first is found.
            rank = _RANKS - 1 - index
            places += [point * float(_RANKS) + rank for point in run]
            if index % _NODES_AT_ONCE == _NODES_AT_ONCE - 1:
                yield
        places.sort()  # of runs that are in order already, which it finds and merges
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
    """The ring of these labels: the one that somebody has, if there is one."""
    key = tuple(labels)
    ring = _rings.get(key)
    if ring is None:
        ring = _rings[key] = Ring(key)
    return ring


def ring_in_steps(labels: Sequence[str]) -> Iterator[Ring | None]:
    """Make the ring of these labels in steps, between which others may run. The last item is the ring.

    `ring_of` finds it for as long as somebody holds on to it.
    """
    key = tuple(labels)
    ring = _rings.get(key)
    if ring is None:
        ring = Ring.__new__(Ring)
        for _ in ring._make(key):
            yield None
        _rings[key] = ring
    yield ring


def _run(label: str) -> array[int]:
    """The places of one node in order."""
    run = _runs.get(label)
    if run is None:
        run = _runs[label] = array("I", sorted(points(label)))
    return run
