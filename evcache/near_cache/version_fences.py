"""What must not be kept in the near cache for a while, because something newer has been announced.

An announcement can be faster than the write: the replica that is read next may not have it yet, and a fetch that begins
after the announcement still finds the old value. So for some seconds nothing older than what was announced is kept (a
*floor*), and where its version is not known, nothing at all (a *hold-off*, as in the cold-cluster rule of Facebook's
memcache).
"""

from __future__ import annotations

from collections import OrderedDict

# Keys with a floor at once. One takes some 150 bytes: 10 MB at the most. Over that the oldest goes, and until its time is
# over nothing at all is kept, which is safe and slow.
MAX_FLOORS = 65_536

# Floors that have ended, which each new one looks at: more than the one that it brings, and never all of them at once.
_FORGOTTEN_PER_PUT = 4


class Floor:
    """What may not be kept under one key."""

    __slots__ = ("held_off_until", "least", "own", "until")

    def __init__(self) -> None:
        self.least = 0
        """The version that an item must have at least."""
        self.until = 0.0
        self.held_off_until = 0.0
        self.own: tuple[float, ...] = ()
        """When the hold-offs for writes of this client's end that are under way, the last one last. By themselves: ending
        one must not end another one's, nor one that was announced."""


class VersionFences:
    """The floors of one near cache. Clockless: `now` is monotonic seconds."""

    def __init__(self, grace: float, limit: int = MAX_FLOORS) -> None:
        """`grace`: seconds that a floor holds. Longer than a replica may lag, a fetch may take, and an announcement be
        late.
        """
        self._grace = grace
        self._limit = limit
        self._floors: OrderedDict[bytes, Floor] = OrderedDict()  # the one that ends first is first
        self._hold_until = 0.0

    def __len__(self) -> int:
        return len(self._floors)

    def put(self, key: bytes, version: int | None, now: float) -> None:
        """From now on keep nothing older than this; None: nothing."""
        floor = self._floor(key, now)
        if version is None:
            floor.held_off_until = floor.until
        elif version > floor.least:
            floor.least = version

    def hold(self, key: bytes, now: float) -> float:
        """Keep nothing while a write of this client's is under way. Returns what `lift` wants to know."""
        floor = self._floor(key, now)
        floor.own = (*floor.own, floor.until)
        return floor.until

    def lift(self, key: bytes, held: float) -> None:
        """The write for which `hold` returned this is over: what was unknown is known."""
        floor = self._floors.get(key)
        if floor is not None and held in floor.own:
            place = floor.own.index(held)
            floor.own = floor.own[:place] + floor.own[place + 1 :]

    def allow(self, key: bytes, version: int | None, now: float) -> bool:
        """Whether this may be kept."""
        if now < self._hold_until:
            return False
        floor = self._floors.get(key)
        if floor is None or now >= floor.until:
            return True
        if now < floor.held_off_until or (floor.own and now < floor.own[-1]):
            return False
        return not floor.least or (version is not None and version >= floor.least)

    def start_again(self, now: float) -> None:
        """What was announced is not known any more: keep nothing for a while, instead of knowing what not."""
        self._floors.clear()
        self._hold_until = now + self._grace

    def _floor(self, key: bytes, now: float) -> Floor:
        """The floor of a key, which holds from now on."""
        floors = self._floors
        self._forget_ended(now)
        floor = floors.get(key)
        if floor is not None and floor.until > now:
            floors.move_to_end(key)
        else:
            floors.pop(key, None)  # what it said is over
            floor = floors[key] = Floor()
            if len(floors) > self._limit:
                self._hold_until = max(self._hold_until, floors.popitem(last=False)[1].until)
        floor.until = now + self._grace
        return floor

    def _forget_ended(self, now: float) -> None:
        floors = self._floors
        for _ in range(_FORGOTTEN_PER_PUT):
            if not floors or next(iter(floors.values())).until > now:
                break
            floors.popitem(last=False)
