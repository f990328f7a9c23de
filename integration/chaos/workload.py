"""Clients at work: callers that write and read keys at random, and enter what they were told into the history."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import contextmanager

from evcache import CacheError, Consistency, DecodeError, Item, WriteResult
from evcache.results import ACKNOWLEDGED, ACKNOWLEDGED_DELETE
from integration.chaos.history import Call, History, Kind, Outcome
from integration.chaos.system import Client
from integration.chaos.values import TORN, Value, choose_size, make_value, name_value, read_value

KEYS = [f"key-{number}" for number in range(60)]
NEVER_DELETED = frozenset(KEYS[::2])
"""A miss of one of these, once it was written, means that something was forgotten."""
DELETED = [key for key in KEYS if key not in NEVER_DELETED]

WRITERS = 2  # of each client
READERS = 2
MANY = (3, 10)
"""Keys of a call for many: least and most."""

# Between two reads of a client that reads all keys, round after round: a round takes it a second or so.
ROUND_PAUSE_SECONDS = 0.01


class Worker:
    """The callers of one client."""

    def __init__(self, client: Client, history: History, seed: int, calls_per_second: float) -> None:
        self._cache = client.cache
        self._client = client
        self._name = client.name
        self._history = history
        self._seed = seed
        # A caller waits between two of its calls; that a call takes time, too, makes it slower still when things are bad.
        self._pause = (WRITERS + READERS) / calls_per_second
        self._written = 0
        self.writing = True
        """Cleared when writers are to stop; they finish the call they are at."""
        self.reading = True

    async def write(self, number: int) -> None:
        """Be writer `number` until told to stop."""
        chooser = random.Random(f"{self._seed} {self._name} writer {number}")
        calls = (self._set, self._set_many, self._delete, self._add, self._cas)
        weights = (50, 10, 20, 8, 12)
        while self.writing:
            await chooser.choices(calls, weights)[0](chooser)
            await asyncio.sleep(chooser.expovariate(1 / self._pause))

    async def read(self, number: int) -> None:
        """Be reader `number` until told to stop."""
        chooser = random.Random(f"{self._seed} {self._name} reader {number}")
        weights = (45, 25, 15, 15)
        calls: tuple[Callable[[random.Random], Awaitable[object]], ...] = (
            lambda chooser: self._get(chooser.choice(KEYS)),
            lambda chooser: self._get_item(chooser.choice(KEYS)),
            lambda chooser: self._get_item(chooser.choice(KEYS), Consistency.QUORUM),
            lambda chooser: self._get_many(chooser.sample(KEYS, chooser.randint(*MANY))),
        )
        while self.reading:
            await chooser.choices(calls, weights)[0](chooser)
            await asyncio.sleep(chooser.expovariate(1 / self._pause))

    async def read_all(self) -> None:
        """Read one key after the other, round after round and ordinarily, until told to stop."""
        for key in itertools.cycle(KEYS):
            if not self.reading:
                break
            await self._get(key)
            await asyncio.sleep(ROUND_PAUSE_SECONDS)

    # Writes.

    async def _set(self, chooser: random.Random) -> None:
        key = chooser.choice(KEYS)
        value, data = self._new(key, chooser)
        call = self._history.begin(self._name, key, Kind.SET, value)
        with self._errors([call]):
            self._written_as(call, await self._cache.set(key, data, errors="miss"))

    async def _set_many(self, chooser: random.Random) -> None:
        new = {key: self._new(key, chooser) for key in chooser.sample(KEYS, chooser.randint(*MANY))}
        calls = {key: self._history.begin(self._name, key, Kind.SET, value) for key, (value, _) in new.items()}
        with self._errors(calls.values()):
            results = await self._cache.set_many({key: data for key, (_, data) in new.items()}, errors="miss")
            for key, result in results.items():
                self._written_as(calls[key], result)

    async def _delete(self, chooser: random.Random) -> None:
        key = chooser.choice(DELETED)
        call = self._history.begin(self._name, key, Kind.DELETE)
        with self._errors([call]):
            self._written_as(call, await self._cache.delete(key, errors="miss"))

    async def _add(self, chooser: random.Random) -> None:
        key = chooser.choice(KEYS)
        value, data = self._new(key, chooser)
        call = self._history.begin(self._name, key, Kind.ADD, value)
        with self._errors([call]):
            self._written_as(call, await self._cache.add(key, data))

    async def _cas(self, chooser: random.Random) -> None:
        key = chooser.choice(KEYS)
        value, data = self._new(key, chooser)
        item = await self._get_item(key)
        if item is not None:
            call = self._history.begin(self._name, key, Kind.CAS, value)
            with self._errors([call]):
                self._written_as(call, await self._cache.cas(key, data, item))

    def _new(self, key: str, chooser: random.Random) -> tuple[Value, bytes]:
        self._written += 1
        value = name_value(self._client.number, self._written)
        return value, make_value(key, value, choose_size(chooser))

    def _written_as(self, call: Call, result: WriteResult) -> None:
        acknowledged = ACKNOWLEDGED_DELETE if call.kind is Kind.DELETE else ACKNOWLEDGED
        call.version = result.version
        call.acknowledged = _interned(tuple(zone for zone, outcome in result.zones.items() if outcome in acknowledged))
        if result:
            outcome = Outcome.OK
        elif result.version is None and call.kind in (Kind.ADD, Kind.CAS):
            outcome = Outcome.REFUSED
        else:
            outcome = Outcome.FAILED
        self._history.end(call, outcome)

    # Reads.

    async def _get(self, key: str) -> None:
        call = self._history.begin(self._name, key, Kind.READ)
        with self._errors([call]):
            self._read_as(call, await self._cache.get(key))

    async def _get_item(self, key: str, consistency: Consistency = Consistency.ONE) -> Item | None:
        call = self._history.begin(self._name, key, Kind.READ)
        item = None
        with self._errors([call]):
            item = await self._cache.get_item(key, consistency=consistency)
            call.version = None if item is None else item.version
            self._read_as(call, None if item is None else item.value)
        return item

    async def _get_many(self, keys: Sequence[str]) -> None:
        calls = [self._history.begin(self._name, key, Kind.READ) for key in keys]
        with self._errors(calls):
            found = await self._cache.get_many(keys)
            for call in calls:
                self._read_as(call, found.get(call.key))

    def _read_as(self, call: Call, data: object) -> None:
        call.value = None if data is None else read_value(data)[1]
        self._history.end(call, Outcome.OK)

    @contextmanager
    def _errors(self, calls):
        """Enter into the calls that an error has ended them."""
        try:
            yield
        except DecodeError:
            for call in calls:  # a value that no writer made
                call.value = TORN
                self._history.end(call, Outcome.OK)
        except CacheError:
            for call in calls:
                self._history.end(call, Outcome.UNKNOWN if call.is_write else Outcome.FAILED)


_tuples: dict[tuple[str, ...], tuple[str, ...]] = {}


def _interned(zones: tuple[str, ...]) -> tuple[str, ...]:
    """The same tuple for the same zones: there is one for every write of a history."""
    return _tuples.setdefault(zones, zones)
