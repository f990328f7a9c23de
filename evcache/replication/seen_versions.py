"""The latest version of each key that a client wrote or read, for monotonic reads and read-your-writes.

A read counts an older version as no answer. The latest version is the one known when the read begins. A write that is sent
during the read may be acknowledged before the read ends, and the answer may be older than that write.

The memory is bounded by two generations of keys. A key in use moves to the young generation. When that one is full, it
becomes the old one, and the former old one is dropped. This keeps the keys in use as an LRU would, for one dict lookup a
read.

The clock of the client has passed every version in this memory: its owner made the version, or observed it before.

Versions from other clients' invalidation messages have two generations of their own. Their number of writes therefore never
makes this client forget what it wrote or read itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

from evcache.replication.hlc import MAX_CAS
from evcache.zones.transport.core import selected

# Keys in a generation. An entry with a key of 22 bytes takes 130 bytes (tracemalloc): 4 MB for two full generations.
REMEMBERED_KEYS = 16_384


def known_version(cas: int) -> int:
    """Return the version of an entry of `SeenVersions.cas_of_each`, 0 for none."""
    return MAX_CAS - cas if cas else 0


class SeenVersions:
    """The latest version of each key that one client knows."""

    __slots__ = ("_limit", "_old", "_peers", "_peers_old", "_pinned", "_recent", "recall")

    def __init__(self, limit: int = REMEMBERED_KEYS) -> None:
        """Make an empty memory.

        Args:
            limit: Number of keys in each generation. 0 remembers only pinned keys.
        """
        self._limit = limit
        self._recent: dict[bytes, int] = {}  # the young generation, always this one dict
        self._old: dict[bytes, int] = {}
        self._pinned: dict[bytes, int] = {}
        # Keys that were in neither generation when a message named their version. Empty without a channel.
        self._peers: dict[bytes, int] = {}
        self._peers_old: dict[bytes, int] = {}
        self.recall: Callable[[bytes], int | None] = self._recent.get
        """Lookup of a key in the young generation alone. Every read calls it, and it takes no Python frame."""

    def __len__(self) -> int:
        own = self._recent.keys() | self._old.keys() | self._pinned.keys()
        return len(own | self._peers.keys() | self._peers_old.keys())

    def latest(self, key: bytes) -> int:
        """Return the latest version known, or 0 if none is."""
        known = self._recent.get(key)
        if known is None:
            known = max(self._old.get(key, 0), self._pinned.get(key, 0))
            if self._peers:
                known = max(known, self._peers.get(key, 0), self._peers_old.get(key, 0))
        return known

    def latest_of_each(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Return the latest version known of each key, 0 where none is."""
        known: dict[bytes, Any] = dict(zip(keys, map(self.recall, keys), strict=True))
        if None in known.values():
            for key, version in known.items():
                if version is None:
                    known[key] = self.latest(key)
        return known

    def cas_of_each(self, keys: Sequence[bytes]) -> array[int]:
        """Return the CAS of the latest version known of each key, 0 where none is. `known_version` turns one back."""
        cas, unknown = selected.SELECTED.cas_of_each(self._recent, keys, MAX_CAS)
        for index in unknown:
            version = self.latest(keys[index])
            if version:
                cas[index] = MAX_CAS - version
        return cas

    def note(self, key: bytes, version: int) -> None:
        """Remember a version that this client wrote or read. No effect if a newer one is known."""
        known = self._recent.get(key)
        if known is None:
            self._add(key, version)
        elif version > known:
            self._recent[key] = version

    def _add(self, key: bytes, version: int) -> None:
        if not self._limit:
            return
        version = max(version, self.latest(key))
        if len(self._recent) >= self._limit:
            self._old = self._recent.copy()
            self._recent.clear()
        self._recent[key] = version

    def note_from_peer(self, key: bytes, version: int) -> None:
        """Remember a version that another client's invalidation message names. No effect if a newer one is known."""
        if not self._limit or version <= self.latest(key):
            return
        if key in self._recent:
            self._recent[key] = version
        elif key in self._old:
            self._old[key] = version
        else:
            if len(self._peers) >= self._limit and key not in self._peers:
                self._peers_old, self._peers = self._peers, {}
            self._peers[key] = version

    def pin(self, key: bytes, version: int) -> None:
        """Remember the version of a key until `unpin`, whatever the limit is."""
        self._pinned[key] = max(version, self._pinned.get(key, 0))
        self.note(key, version)

    def unpin(self, key: bytes) -> None:
        """End a pin. The version stays in its generation."""
        self._pinned.pop(key, None)
