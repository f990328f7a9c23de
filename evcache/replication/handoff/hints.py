"""Hints: writes that a zone missed, stored until it can receive them. No I/O and no clock; `hinted_handoff` delivers.

For each zone and key only the latest write is stored, since the zone would refuse an older one.

    delete   its tombstone, stored until it is delivered. Another service may have written the deleted value with any TTL.
    set      the value, stored as long as a tombstone lives. Later, a delete may have come and gone, and a delivery could
             resurrect the deleted value. An expired set is demoted to a check:
    check    the key and the version. When the zone is back, all zones are compared, and stale ones repaired.
    touch    the version and its new TTL

If the item of a set, touch or check has expired by the time of delivery, the delivery removes an older version from the
zone. Otherwise readers of the zone would see a value again that other readers saw replaced.

If hints take too many bytes, the oldest sets are demoted. After that, or if there are too many keys, hints are dropped:
the oldest touches first, then checks, then sets, and deletes last.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import at_least_one, flag, number

# Bytes of a hint beside its key and value: its objects, and its slots in the store. Measured with tracemalloc.
ENTRY_BYTES = 400


@dataclass(frozen=True, slots=True)
class Hints:
    """Limits of hinted handoff. Raises `InvalidArgument` for a value out of range."""

    max_keys: int = 50_000
    """Largest number of hints, over all zones. It covers 800 writes a second for the minute that a set is stored
    (`tombstone_ttl`)."""

    max_bytes: int = 32 * 1024 * 1024
    """Largest sum of keys, values and `ENTRY_BYTES` for each hint, over all zones."""

    rate: float = 1_000.0
    """Deliveries per second, over all zones. A zone that has just recovered has other work, too."""

    path: str | None = None
    """Path of an SQLite file that keeps hints beyond the end of this process. Each process needs its own. If None, hints are
    in memory only."""

    strict: bool = False
    """True if a file that cannot be opened is an error. If False, the client keeps hints in memory only and logs this."""

    def __post_init__(self) -> None:
        """Check all fields."""
        at_least_one(self.max_keys, "max_keys")
        at_least_one(self.max_bytes, "max_bytes")
        number(self.rate, "rate", minimum=0, exclusive=True)
        if self.path is not None and (not isinstance(self.path, str) or not self.path):
            raise InvalidArgument("path", f"a path of a file is required, not {self.path!r}")
        flag(self.strict, "strict")
        if self.strict and self.path is None:
            raise InvalidArgument("strict", "path is required, too")


class Kind(enum.IntEnum):
    """Kind of a hint, in the order of delivery. Deletes come first: until then the zone serves deleted values."""

    DELETE = 0
    SET = 1
    CHECK = 2
    TOUCH = 3


class Hint(NamedTuple):
    """Write that one zone missed."""

    zone: str
    key: bytes
    kind: Kind
    version: int
    data: bytes
    flags: int
    ttl: int
    """Exptime that the write had at `made_at`."""
    made_at: float
    """Unix time at which the write was sent."""
    expires_at: float
    """Unix time from which it is not delivered. `math.inf` if it always is."""
    cause: object = None
    """Value that hooks use to name the write. Not stored in a file."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return ENTRY_BYTES + len(self.key) + len(self.data)


class HintStore:
    """Hints of one client."""

    def __init__(self, limits: Hints) -> None:
        self.size = 0
        """Sum of the sizes of all hints, in bytes."""
        self.count = 0
        """Number of hints."""
        self.by_zone: Counter[str] = Counter()
        """Number of hints by zone. A zone that had hints once stays, with 0."""
        self._limits = limits
        self._hints: dict[Kind, dict[tuple[str, bytes], Hint]] = {kind: {} for kind in Kind}  # ordered by time of `put`
        self._deletes: Counter[bytes] = Counter()  # number of zones with a delete, by key

    def __len__(self) -> int:
        """Number of hints."""
        return self.count

    def __iter__(self) -> Iterator[Hint]:
        """Yield all hints in the order of delivery: by kind, and the oldest of each kind first."""
        for kind in Kind:
            yield from list(self._hints[kind].values())

    def get(self, zone: str, key: bytes) -> Hint | None:
        """Return the hint for a zone and a key, or None."""
        for hints in self._hints.values():
            hint = hints.get((zone, key))
            if hint is not None:
                return hint
        return None

    def has_delete(self, key: bytes) -> bool:
        """Return True if a delete of this key is stored for any zone."""
        return key in self._deletes

    def put(self, hint: Hint) -> list[Hint]:
        """Store a hint, unless a newer one of its zone and key is stored.

        Returns:
            The hints that had to go for it, as they were. A set among them may still be stored as a check.
        """
        present = self.get(hint.zone, hint.key)
        if present is not None:
            if present.version > hint.version or (present.version == hint.version and not _replaces(hint, present)):
                return []
            self.remove(present)
        self._add(hint)
        return self._make_room()

    def remove(self, hint: Hint) -> bool:
        """Remove a hint. Return False if it is not stored, or was replaced by another."""
        place = hint.zone, hint.key
        hints = self._hints[hint.kind]
        if hints.get(place) is not hint:
            return False
        del hints[place]
        self.size -= hint.size
        self.count -= 1
        self.by_zone[hint.zone] -= 1
        if hint.kind is Kind.DELETE:
            self._deletes[hint.key] -= 1
            if not self._deletes[hint.key]:
                del self._deletes[hint.key]
        return True

    def demote_expired(self, now: float) -> list[Hint]:
        """Demote the sets that are too old to be delivered, and return them."""
        # All sets are examined. An older process, or a clock that was set back, may have put a set that outlives later ones.
        expired = [hint for hint in self._hints[Kind.SET].values() if hint.expires_at <= now]
        for hint in expired:
            self.demote(hint)
        return expired

    def demote(self, hint: Hint) -> None:
        """Replace a set by a check, which needs no value. Remove a hint of another kind."""
        self.remove(hint)
        if hint.kind is Kind.SET:
            self._add(hint._replace(kind=Kind.CHECK, data=b"", expires_at=math.inf))

    def _add(self, hint: Hint) -> None:
        self._hints[hint.kind][hint.zone, hint.key] = hint
        self.size += hint.size
        self.count += 1
        self.by_zone[hint.zone] += 1
        if hint.kind is Kind.DELETE:
            self._deletes[hint.key] += 1

    def _make_room(self) -> list[Hint]:
        gone: list[Hint] = []
        while self.size > self._limits.max_bytes and self._hints[Kind.SET]:
            gone.append(self._oldest(Kind.SET))
            self.demote(gone[-1])
        while len(self) > self._limits.max_keys or self.size > self._limits.max_bytes:
            kind = next(kind for kind in (Kind.TOUCH, Kind.CHECK, Kind.SET, Kind.DELETE) if self._hints[kind])
            gone.append(self._oldest(kind))
            self.remove(gone[-1])
        return gone

    def _oldest(self, kind: Kind) -> Hint:
        return next(iter(self._hints[kind].values()))


def _replaces(hint: Hint, present: Hint) -> bool:
    """Return True if a hint of the same version says more: a stronger kind, or a later touch."""
    if hint.kind is present.kind:
        return hint.kind in (Kind.SET, Kind.TOUCH)
    return hint.kind < present.kind
