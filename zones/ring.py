"""Ketama: which node of a zone holds a key. Equal on every client that is given the same labels.

160 points for each node, from the MD5 of `<label>-<i>` for i in 0..39, four little-endian words each; a key belongs to the
first point at or after the first little-endian word of its own MD5. These are the points of libketama and spymemcached,
and so of EVCache for the JVM. A node that is down keeps its points: its keys go to another zone, not to its neighbours,
which would make a copy there that nobody deletes when the node comes back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from hashlib import md5

POINTS_PER_NODE = 160  # spymemcached's DefaultKetamaNodeLocatorConfiguration
_WORDS_PER_DIGEST = 4
_WORD_BYTES = 4


def position(key: bytes) -> int:
    """Where a key stands on the ring of every zone: hash once, look up in each."""
    return int.from_bytes(md5(key, usedforsecurity=False).digest()[:_WORD_BYTES], "little")


def points(label: str) -> list[int]:
    """The places of one node on the ring."""
    places: list[int] = []
    for number in range(POINTS_PER_NODE // _WORDS_PER_DIGEST):
        digest = md5(f"{label}-{number}".encode(), usedforsecurity=False).digest()
        starts = range(0, len(digest), _WORD_BYTES)
        places.extend(int.from_bytes(digest[start : start + _WORD_BYTES], "little") for start in starts)
    return places


class Ring:
    """The points of a zone's nodes, in order. Immutable."""

    __slots__ = ("_owners", "_points")

    def __init__(self, labels: Sequence[str]) -> None:
        """`labels` in the order of the zone's nodes; `owner` answers with an index into them."""
        # On the rare point that two nodes share, the later node wins, as in a map that is filled in order.
        owners = {point: index for index, label in enumerate(labels) for point in points(label)}
        self._points = sorted(owners)
        self._owners = [owners[point] for point in self._points]

    def __len__(self) -> int:
        return len(self._points)

    def owner(self, place: int) -> int:
        """The index of the node that holds the keys at this place."""
        index = bisect_left(self._points, place)
        # Past the last point the ring begins again.
        return self._owners[index] if index < len(self._owners) else self._owners[0]
