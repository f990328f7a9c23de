"""The versions that a client wrote or saw, so that it never goes back in time: an older one is as good as no answer.

What counts for a read is what was known when it began: of writes that were sent after it, some may be answered before it is.

Bounded: two generations of so many keys. A key that is used moves to the young one; when that is full, the old one is
forgotten. That keeps what is in use as an LRU would, for one dict look-up a read.

Versions that other clients have announced are kept in two generations of their own. However many writes other clients
announce, none of them makes this client forget what it wrote or read itself.
"""

from __future__ import annotations

from collections.abc import Iterable

# Keys in a generation. An entry with a key of 22 bytes takes 130 (tracemalloc): 4 MB at the most.
REMEMBERED_KEYS = 16_384


class SeenVersions:
    """The newest version of each key, as far as this client knows."""

    __slots__ = ("_heard", "_heard_before", "_limit", "_old", "_pinned", "recent")

    def __init__(self, limit: int = REMEMBERED_KEYS) -> None:
        """`limit`: keys in each generation; 0: only what is pinned."""
        self._limit = limit
        self.recent: dict[bytes, int] = {}
        """The young generation, always the same dict: a read looks here first, without a call."""
        self._old: dict[bytes, int] = {}
        self._pinned: dict[bytes, int] = {}
        # Of keys that were in neither generation when their version was announced. Empty without a channel.
        self._heard: dict[bytes, int] = {}
        self._heard_before: dict[bytes, int] = {}

    def __len__(self) -> int:
        own = self.recent.keys() | self._old.keys() | self._pinned.keys()
        return len(own | self._heard.keys() | self._heard_before.keys())

    def newest(self, key: bytes) -> int:
        """The newest version known; 0 for a key of which none is."""
        known = self.recent.get(key)
        if known is None:
            known = max(self._old.get(key, 0), self._pinned.get(key, 0))
            if self._heard:
                known = max(known, self._heard.get(key, 0), self._heard_before.get(key, 0))
        return known

    def newest_of_each(self, keys: Iterable[bytes]) -> dict[bytes, int]:
        """The same for several keys."""
        recent = self.recent
        return {key: recent[key] if key in recent else self.newest(key) for key in keys}

    def note(self, key: bytes, version: int) -> None:
        """This version was written, or seen. No effect when a newer one is known."""
        known = self.recent.get(key)
        if known is None:
            self._take_in(key, version)
        elif version > known:
            self.recent[key] = version

    def _take_in(self, key: bytes, version: int) -> None:
        if not self._limit:
            return
        version = max(version, self.newest(key))
        if len(self.recent) >= self._limit:
            self._old = self.recent.copy()
            self.recent.clear()
        self.recent[key] = version

    def hear(self, key: bytes, version: int) -> None:
        """Remember a version that another client has announced. No effect if a newer one is known."""
        if not self._limit or version <= self.newest(key):
            return
        if key in self.recent:
            self.recent[key] = version
        elif key in self._old:
            self._old[key] = version
        else:
            if len(self._heard) >= self._limit and key not in self._heard:
                self._heard_before, self._heard = self._heard, {}
            self._heard[key] = version

    def pin(self, key: bytes, version: int) -> None:
        """Never forget that this key has this version, until it is unpinned."""
        self._pinned[key] = max(version, self._pinned.get(key, 0))
        self.note(key, version)

    def unpin(self, key: bytes) -> None:
        """It may be forgotten like any other."""
        self._pinned.pop(key, None)
