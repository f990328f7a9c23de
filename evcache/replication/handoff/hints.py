"""Hints: writes that a zone missed, kept for it until it can take them. The book of them; `hinted_handoff` delivers.

For each zone and key the latest write only, since an older one could not replace it anyway. No I/O and no clock here.

    delete   its tombstone; kept until delivered: what it deletes may have been written by another service, to live for
             any time
    set      the value; kept as long as a tombstone lives: later, a delete may have come and gone, and a replay would bring
             the value back. After that it is a
    check    the key and the version: when the zone is back, all zones are compared, and those behind are repaired
    touch    the version and its new time to live

If the item of a set, touch or check has expired by the time of delivery, the delivery removes an older version from the
zone. Otherwise readers of the zone would see a value again that other readers saw replaced.

When hints take too many bytes, the oldest sets become checks. After that, or when there are too many keys, the oldest
touches go first, then checks, then sets, and deletes last.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import at_least_one, flag, positive_seconds

# What a hint takes beside its key and value: its objects, and its places in the book. Measured with tracemalloc.
ENTRY_BYTES = 400


@dataclass(frozen=True, slots=True)
class Hints:
    """Whether, and how many, writes that a zone missed are kept for it."""

    max_keys: int = 50_000
    """Over all zones. Some 800 writes a second for the minute that a set is kept (`tombstone_ttl`)."""

    max_bytes: int = 32 * 1024 * 1024
    """Keys, values and what they take in memory, over all zones."""

    rate: float = 1_000.0
    """Deliveries in a second, over all zones: a zone that has just come back has other work, too."""

    path: str | None = None
    """A file that keeps them beyond the end of this process, sqlite's; one for each process. None: in memory only."""

    strict: bool = False
    """True if a file that cannot be opened is an error. If False, the client keeps hints in memory only and logs this."""

    def __post_init__(self) -> None:
        at_least_one(self.max_keys, "max_keys")
        at_least_one(self.max_bytes, "max_bytes")
        positive_seconds(self.rate, "rate")
        if self.path is not None and (not isinstance(self.path, str) or not self.path):
            raise InvalidArgument("path", f"the path of a file is needed, not {self.path!r}")
        flag(self.strict, "strict")
        if self.strict and self.path is None:
            raise InvalidArgument("strict", "it is about a file: set path, too")


class Kind(enum.IntEnum):
    """What is kept of a write, in the order of delivery."""

    DELETE = 0
    SET = 1
    CHECK = 2
    TOUCH = 3


class Hint(NamedTuple):
    """A write that one zone missed."""

    zone: str
    key: bytes
    kind: Kind
    version: int
    data: bytes
    flags: int
    ttl: int
    """As it went on the wire at `made_at`."""
    made_at: float
    """Unix time when the write was sent."""
    expires_at: float
    """Unix time after which it is not to be delivered any more; `math.inf`: never."""
    cause: object = None
    """What listeners call the write that was missed; not in a file."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return ENTRY_BYTES + len(self.key) + len(self.data)


class HintStore:
    """All hints of one client."""

    def __init__(self, limits: Hints) -> None:
        self.size = 0
        """Bytes."""
        self.count = 0
        """Hints."""
        self._limits = limits
        # By age: what was put in last is last.
        self._kept: dict[Kind, dict[tuple[str, bytes], Hint]] = {kind: {} for kind in Kind}
        self._deletes: Counter[bytes] = Counter()  # for how many zones a delete of a key is kept

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Hint]:
        """All, in the order of delivery: deletes, sets, checks, the oldest of each first."""
        for kind in Kind:
            yield from list(self._kept[kind].values())

    def get(self, zone: str, key: bytes) -> Hint | None:
        """What is kept for a zone under a key."""
        for kept in self._kept.values():
            hint = kept.get((zone, key))
            if hint is not None:
                return hint
        return None

    def has_delete(self, key: bytes) -> bool:
        """Whether a delete of this key is kept for any zone."""
        return key in self._deletes

    def put(self, hint: Hint) -> list[Hint]:
        """Keep a hint unless a newer one of its key is; what had to go for it, as it was (a set may live on as a check)."""
        before = self.get(hint.zone, hint.key)
        if before is not None:
            if before.version > hint.version or (before.version == hint.version and not _replaces(hint, before)):
                return []
            self.remove(before)
        self._enter(hint)
        return self._make_room()

    def remove(self, hint: Hint) -> bool:
        """Keep it no more. False, with no effect, when it is not kept any more, or a newer one is."""
        place = hint.zone, hint.key
        kept = self._kept[hint.kind]
        if kept.get(place) is not hint:
            return False
        del kept[place]
        self.size -= hint.size
        self.count -= 1
        if hint.kind is Kind.DELETE:
            self._deletes[hint.key] -= 1
            if not self._deletes[hint.key]:
                del self._deletes[hint.key]
        return True

    def expired(self, now: float) -> list[Hint]:
        """Take out the sets that are too old to be delivered. They live on as checks."""
        # All are looked at: one that a former process has left, or a clock that was set back, may outlive those behind it.
        gone = [hint for hint in self._kept[Kind.SET].values() if hint.expires_at <= now]
        for hint in gone:
            self.take_out(hint)
        return gone

    def take_out(self, hint: Hint) -> None:
        """Keep it no more as it is: a set lives on as a check."""
        self.remove(hint)
        if hint.kind is Kind.SET:  # without its value it takes less room, and still says where to look
            self._enter(hint._replace(kind=Kind.CHECK, data=b"", expires_at=math.inf))

    def _enter(self, hint: Hint) -> None:
        self._kept[hint.kind][hint.zone, hint.key] = hint
        self.size += hint.size
        self.count += 1
        if hint.kind is Kind.DELETE:
            self._deletes[hint.key] += 1

    def _make_room(self) -> list[Hint]:
        gone: list[Hint] = []
        while self.size > self._limits.max_bytes and self._kept[Kind.SET]:
            gone.append(self._oldest(Kind.SET))
            self.take_out(gone[-1])
        while len(self) > self._limits.max_keys or self.size > self._limits.max_bytes:
            kind = next(kind for kind in (Kind.TOUCH, Kind.CHECK, Kind.SET, Kind.DELETE) if self._kept[kind])
            gone.append(self._oldest(kind))
            self.remove(gone[-1])
        return gone

    def _oldest(self, kind: Kind) -> Hint:
        return next(iter(self._kept[kind].values()))


def _replaces(hint: Hint, before: Hint) -> bool:
    """Return whether a hint of the same version says more: a stronger kind, or a later touch."""
    if hint.kind is before.kind:
        return hint.kind in (Kind.SET, Kind.TOUCH)
    return hint.kind < before.kind
