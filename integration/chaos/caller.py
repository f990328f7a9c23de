"""One client's operations: each makes a call and enters it, and what it returned, into the history."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from evcache import CacheError, Consistency, DecodeError, Item, LoadPolicy, WriteResult
from evcache.results import ACKNOWLEDGED, ACKNOWLEDGED_DELETE
from integration.chaos.history import Call, History, Kind, Outcome
from integration.chaos.keys import Reading, is_counter, is_list
from integration.chaos.system import Client
from integration.chaos.touches import ABSENCE_TTL_SECONDS
from integration.chaos.values import TORN, Value, choose_size, make_element, make_value, name_value

CONDITIONAL = frozenset({Kind.ADD, Kind.CAS, Kind.REPLACE, Kind.APPEND, Kind.PREPEND})

# With no part of it drawn at random, so that the checks know how long an absence lasts.
ABSENCES = LoadPolicy(negative_ttl=ABSENCE_TTL_SECONDS, jitter=0, lease_seconds=2)


class Caller:
    """Makes the calls of one client."""

    def __init__(self, client: Client, history: History) -> None:
        self.cache = client.cache
        self.name = client.name
        self._number = client.number
        self._skew = client.skew
        self._history = history
        self._written = 0

    def _new(self, key: str, chooser: random.Random) -> tuple[Value | None, int | None, object]:
        """Return the name of a new value, or its number, and what is stored."""
        if is_counter(key):
            number = chooser.randint(1, 9)
            return None, number, number
        self._written += 1
        value = name_value(self._number, self._written)
        return value, None, make_element(key, value) if is_list(key) else make_value(key, value, choose_size(chooser))

    def _begin(self, key: str, kind: Kind, value: Value | None = None, what: str = "") -> Call:
        return self._history.begin(self.name, key, kind, value, what=what)

    # Writes.

    async def set(self, key: str, chooser: random.Random, ttl: float | None = None) -> None:
        """Set a new value."""
        value, number, stored = self._new(key, chooser)
        call = self._begin(key, Kind.SET, value)
        call.number, call.ttl, call.floor = number, ttl, self._history.floor(self._skew)
        with self._errors([call]):
            self._written_as(call, await self.cache.set(key, stored, ttl=ttl, errors="miss"))

    async def set_many(self, keys: Iterable[str], chooser: random.Random, ttl: float | None = None) -> None:
        """Set a new value for each key, in one call."""
        calls: dict[str, Call] = {}
        values: dict[str, object] = {}
        for key in keys:
            value, number, values[key] = self._new(key, chooser)
            calls[key] = self._begin(key, Kind.SET, value, "set_many")
            calls[key].number, calls[key].ttl, calls[key].floor = number, ttl, self._history.floor(self._skew)
        with self._errors(list(calls.values())):
            for key, result in (await self.cache.set_many(values, ttl=ttl, errors="miss")).items():
                self._written_as(calls[str(key)], result)

    async def delete(self, key: str) -> None:
        """Delete a key."""
        call = self._begin(key, Kind.DELETE)
        with self._errors([call]):
            self._written_as(call, await self.cache.delete(key, errors="miss"))

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Delete several keys in one call."""
        calls = {key: self._begin(key, Kind.DELETE, what="delete_many") for key in keys}
        with self._errors(list(calls.values())):
            for key, result in (await self.cache.delete_many(calls, errors="miss")).items():
                self._written_as(calls[str(key)], result)

    async def add(self, key: str, chooser: random.Random, ttl: float | None = None) -> None:
        """Add a new value."""
        await self._if(Kind.ADD, key, chooser, ttl, lambda stored: self.cache.add(key, stored, ttl=ttl))

    async def replace(self, key: str, chooser: random.Random, ttl: float | None = None) -> None:
        """Replace what is there by a new value."""
        await self._if(Kind.REPLACE, key, chooser, ttl, lambda stored: self.cache.replace(key, stored, ttl=ttl))

    async def append(self, key: str, chooser: random.Random) -> None:
        """Append an element to a list."""
        await self._if(Kind.APPEND, key, chooser, None, lambda stored: self.cache.append(key, stored))

    async def prepend(self, key: str, chooser: random.Random) -> None:
        """Put an element in front of a list."""
        await self._if(Kind.PREPEND, key, chooser, None, lambda stored: self.cache.prepend(key, stored))

    async def cas(self, key: str, chooser: random.Random, ttl: float | None = None, *, for_update: bool = False) -> None:
        """Read an item, in the deciding zone with `for_update`, and compare and set a new value."""
        item = await self.get_item(key, for_update=for_update)
        if item is not None:
            await self._if(
                Kind.CAS, key, chooser, ttl, lambda stored: self.cache.cas(key, stored, item, ttl=ttl), base=item.version
            )

    async def _if(
        self,
        kind: Kind,
        key: str,
        chooser: random.Random,
        ttl: float | None,
        write: Callable[[object], Awaitable[WriteResult]],
        base: int | None = None,
    ) -> None:
        value, number, stored = self._new(key, chooser)
        call = self._begin(key, kind, value)
        call.number, call.ttl, call.base = number, ttl, base
        with self._errors([call]):
            self._written_as(call, await write(stored))

    async def count(self, key: str, delta: int = 1, *, initial: int | None = None) -> None:
        """Count a counter up, or down if `delta` is negative."""
        call = self._begin(key, Kind.INCR if delta > 0 else Kind.DECR)
        with self._errors([call]):
            operation = self.cache.incr if delta > 0 else self.cache.decr
            call.number = await operation(key, abs(delta), initial=initial)
            self._history.end(call, Outcome.REFUSED if call.number is None else Outcome.OK)

    async def touch(self, key: str, ttl: float) -> None:
        """Touch a key."""
        call = self._begin(key, Kind.TOUCH)
        call.ttl = ttl
        with self._errors([call]):
            self._written_as(call, await self.cache.touch(key, ttl, errors="miss"))

    def _written_as(self, call: Call, result: WriteResult) -> None:
        acknowledged = ACKNOWLEDGED_DELETE if call.kind is Kind.DELETE else ACKNOWLEDGED
        call.version = result.version
        call.acknowledged = _interned(tuple(zone for zone, outcome in result.zones.items() if outcome in acknowledged))
        if result:
            outcome = Outcome.OK
        elif result.version is None and call.kind in CONDITIONAL:
            outcome = Outcome.REFUSED
            call.refusal = str(next(iter(result.zones.values()), ""))
        else:
            outcome = Outcome.FAILED
        self._history.end(call, outcome)

    # Reads.

    async def get(self, key: str, consistency: Consistency = Consistency.ONE) -> None:
        """Read a value."""
        call = self._begin(key, Kind.READ, what=_at("get", consistency))
        with self._errors([call]):
            self._read_as(call, await self.cache.get(key, consistency=consistency))

    async def get_item(
        self, key: str, consistency: Consistency = Consistency.ONE, *, for_update: bool = False
    ) -> Item | None:
        """Read an item, which is returned."""
        call = self._begin(key, Kind.READ, what="get_item for update" if for_update else _at("get_item", consistency))
        item = None
        with self._errors([call]):
            item = await self.cache.get_item(key, consistency=consistency, for_update=for_update)
            call.version = None if item is None else item.version
            self._read_as(call, None if item is None else item.value)
        return item

    async def get_many(self, keys: Sequence[str], consistency: Consistency = Consistency.ONE) -> None:
        """Read several keys in one call."""
        calls = [self._begin(key, Kind.READ, what=_at("get_many", consistency)) for key in keys]
        with self._errors(calls):
            found = await self.cache.get_many(keys, consistency=consistency)
            for call in calls:
                self._read_as(call, found.get(call.key))

    async def get_and_touch(self, key: str, ttl: float) -> None:
        """Read a value and touch it, in one call."""
        call = self._begin(key, Kind.READ, what="get_and_touch")
        touch = self._begin(key, Kind.TOUCH)
        touch.ttl = ttl
        with self._errors([call]):
            self._read_as(call, await self.cache.get_and_touch(key, ttl))
        self._history.end(touch, Outcome.UNKNOWN)

    async def load_absence(self, key: str) -> None:
        """Read through a loader that finds nothing, so that zones remember an absence."""
        call = self._begin(key, Kind.READ, what="get_or_load")

        async def find_nothing() -> None:
            return None

        with self._errors([call]):
            self._read_as(call, await self.cache.get_or_load(key, find_nothing, policy=ABSENCES))

    def _read_as(self, call: Call, decoded: object) -> None:
        if decoded is not None:
            reading = Reading(call.key, decoded)
            call.value, call.number, call.elements, call.odd = reading.value, reading.number, reading.elements, reading.odd
        self._history.end(call, Outcome.OK)

    @contextmanager
    def _errors(self, calls: Sequence[Call]) -> Iterator[None]:
        """Enter into the calls that an error has ended them."""
        try:
            yield
        except DecodeError:
            for call in calls:  # a value that no writer made
                if call.kind is Kind.READ:
                    call.value = TORN
                self._history.end(call, Outcome.OK if call.kind is Kind.READ else Outcome.UNKNOWN)
        except CacheError:
            for call in calls:
                self._history.end(call, Outcome.FAILED if call.kind is Kind.READ else Outcome.UNKNOWN)


def _at(operation: str, consistency: Consistency) -> str:
    return operation if consistency is Consistency.ONE else f"{operation} at {consistency.name}"


_tuples: dict[tuple[str, ...], tuple[str, ...]] = {}


def _interned(zones: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same tuple for the same zones: there is one for every write of a history."""
    return _tuples.setdefault(zones, zones)
