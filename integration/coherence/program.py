"""A run: clients at work in virtual time, their wires slow in many ways, and every near hit judged."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from evcache import Item
from evcache.channels import LocalChannel
from evcache.replication.seen_versions import REMEMBERED_KEYS
from integration.coherence.judge import Counts, Judge, Truth
from tests.support.memory_zones import MemoryZones, full
from tests.support.near import GRACE, near_client, near_of, settled
from tests.support.virtual_time import run as run_in_virtual_time

KEYS = 50
COUNTED_KEYS = 5  # this number of the keys are counters

# Reads: 0.0 to 1.0 to the power of this is the place of the key. A third of them go to 1 in 25.
HOTNESS = 3

# Seconds that a packet takes one way: usually, and at most for a share of the packets.
HOP = (0.0002, 0.002)
SLOW_HOP = 0.050
SLOW_SHARE = 0.1
# And what a write takes on top of that, in each zone for itself: how far its replica lags.
LAG = 0.020
# Clocks of clients differ from the true time by at most this number of seconds.
SKEW = 0.005
# Of writes, those that are followed by another one of their key, and within which time.
AGAIN_SHARE = 0.5
AGAIN_SECONDS = 0.03

READERS = 2  # tasks of each client
# No request here is that slow, so a timeout is a bug.
TIMEOUT = 5.0


class Guard(Enum):
    """What keeps stale values out."""

    ALL = "floors and flights"
    NO_FLOORS = "no floors"
    NOTHING = "no floors, no flights"


@dataclass(frozen=True)
class Settings:
    """How to run."""

    seed: int
    seconds: float
    """Of virtual time; a hundred take five real ones."""
    guard: Guard = Guard.ALL
    clients: int = 4
    reads_per_second: float = 400.0
    """Of all clients together."""
    writes_per_second: float = 8.0
    """Without those that follow one of them."""


class NoFences:
    """Fences that admit every version."""

    def raise_to(self, key: bytes, version: int | None, now: float) -> None:
        pass

    def block(self, key: bytes, now: float) -> float:
        return 0.0

    def unblock(self, key: bytes, block: float) -> None:
        pass

    def admits(self, key: bytes, version: int | None, now: float) -> bool:
        return True

    def block_all(self, now: float) -> None:
        pass


class LateChannel(LocalChannel):
    """Channel whose messages take as long as any packet."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def publish(self, topic: str, message: bytes) -> None:
        await asyncio.sleep(hop(self._chance))
        await super().publish(topic, message)


def hop(chance: random.Random) -> float:
    """Seconds for a packet."""
    return chance.uniform(0, SLOW_HOP) if chance.random() < SLOW_SHARE else chance.uniform(*HOP)


def run(settings: Settings) -> Counts:
    """Run it, and say what was seen. The same settings give the same run."""
    before = random.getstate()
    random.seed(settings.seed)  # the clients draw times of refreshes and retries from it
    try:
        return run_in_virtual_time(_run(settings))
    finally:
        random.setstate(before)


async def _run(settings: Settings) -> Counts:
    chance = random.Random(settings.seed)
    zones = MemoryZones()
    counts, truth = Counts(), Truth()
    channel = LateChannel(random.Random(chance.random()))
    clients = [
        _Client(zones, channel, number, settings, counts, truth, chance.random()) for number in range(settings.clients)
    ]
    try:
        await settled(zones, *(client.cache for client in clients))
        for number in range(0, KEYS, COUNTED_KEYS):
            name = _key(number / KEYS)
            first = 0 if name.startswith("counter") else f"{name} first"
            await clients[0].cache.set(name, first, ttl=10**6, consistency="all")
        await asyncio.sleep(GRACE + 1)
        counts.gaps = sum(map(_gaps_of, clients))
        for client in clients:
            client.start()
        await asyncio.sleep(settings.seconds)
        for client in clients:
            await client.stop()
        counts.gaps = sum(map(_gaps_of, clients)) - counts.gaps
        return counts
    finally:
        await zones.close_clients()


def _gaps_of(client: _Client) -> int:
    bus = client.cache.stats().invalidation
    assert bus is not None
    return bus.gaps + bus.losses


class _Client:
    """One client, its wires, and what it does all the time."""

    def __init__(
        self,
        zones: MemoryZones,
        channel: LocalChannel,
        number: int,
        settings: Settings,
        counts: Counts,
        truth: Truth,
        seed: float,
    ) -> None:
        # Each has its own: how long packets take must not change what is read and written.
        self._chance, self._hops, self._read_chance = (random.Random(f"{seed} {use}") for use in ("write", "wires", "read"))
        self._loop = asyncio.get_running_loop()
        self._counts = counts
        self._truth = truth
        self._judge = Judge(counts, truth)
        self._tasks: list[asyncio.Task[None]] = []
        self._reads = settings.reads_per_second / settings.clients / READERS
        self._writes = settings.writes_per_second / settings.clients
        self._number = number
        self._serial = 0
        skew = self._chance.uniform(-SKEW, SKEW)
        self.cache, wires = near_client(
            zones,
            zones.names[number % len(zones.names)],
            invalidation=channel,
            read_timeout=TIMEOUT,
            write_timeout=TIMEOUT,
            wall_clock=lambda: zones.wall_clock() + skew,
            # The client also remembers published versions and drops older near hits. That is a separate guard.
            remember_versions=REMEMBERED_KEYS if settings.guard is Guard.ALL else 0,
        )
        # Drawn at random otherwise: the neighbour that is asked after a miss, and who wins in the same millisecond.
        self.cache._runtime.cluster._seed = bytes([number] * 8)
        self.cache._runtime.hlc.writer = number
        for zone in zones.names:
            wires.requests[zone].delay = self._request_delay
            wires.replies[zone].delay = lambda _: hop(self._hops)
        near = near_of(self.cache)
        if settings.guard is not Guard.ALL:
            near._fences = NoFences()  # type: ignore[assignment]
        if settings.guard is Guard.NOTHING:
            near._invalidate_fetch = lambda key: None  # type: ignore[method-assign]
        self._listen(self.cache._runtime.dispatcher)

    def _request_delay(self, data: bytes) -> float:
        is_read = data.startswith(b"mg ")
        return hop(self._hops) + (0.0 if is_read else self._hops.uniform(0, LAG))

    def _listen(self, changes: Any) -> None:
        """Record each published message, and each received one after the near cache has processed it."""
        changed, announce = changes.invalidate, changes._publish

        def heard(key: bytes, version: int | None) -> None:
            changed(key, version)
            name, now = key.partition(b":")[2].decode(), self._loop.time()
            if version:
                self._judge.heard(name, version, now)

        def announced(key: bytes, version: int | None) -> None:
            name = key.partition(b":")[2].decode()
            if version:
                now = self._loop.time()
                self._truth.announced(name, version, now)
                self._judge.wrote(name, version, now)
            announce(key, version)

        changes.invalidate, changes._publish = heard, announced

    def start(self) -> None:
        works = [(self._read, self._reads, self._read_chance)] * READERS + [(self._write, self._writes, self._chance)]
        self._tasks = [asyncio.ensure_future(self._again_and_again(*work)) for work in works]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    async def _again_and_again(self, work: Callable[[], Any], rate: float, chance: random.Random) -> None:
        while True:
            await asyncio.sleep(chance.expovariate(rate))
            await work()

    # Reads.

    async def _read(self) -> None:
        chance = self._read_chance
        # Some keys are read much more often than others, and written as often as any.
        names = [_key(chance.random() ** HOTNESS) for _ in range(5 if chance.random() < 0.02 else 1)]
        for name in names:
            kept = self.cache._runtime.zone_reader.kept(full(name))
            if kept is not None:
                self._judge.hit(name, kept.version or 0, self._loop.time())
        self._counts.reads += len(names)
        if len(names) > 1:
            found = await self.cache.get_many(names)
        elif chance.random() < 0.1 and not names[0].startswith("counter"):
            found = {names[0]: await self.cache.get_or_load(names[0], lambda: self._load(names[0]), ttl=300)}
        else:
            found = {names[0]: await self.cache.get(names[0])}
        for name, value in found.items():
            self._counts.torn += value is not None and not (name.startswith("counter") or value.startswith(f"{name} "))

    async def _load(self, name: str) -> str:
        await asyncio.sleep(self._read_chance.uniform(0, 0.03))
        return self._value(name)

    # Writes.

    async def _write(self) -> None:
        """Write a key, and often write it again while clients that received the first message fetch its value."""
        name = _key(self._chance.random())
        await self._write_one(name)
        while self._chance.random() < AGAIN_SHARE:
            await asyncio.sleep(self._chance.uniform(0, AGAIN_SECONDS))
            await self._write_one(name)

    async def _write_one(self, name: str) -> None:
        self._counts.writes += 1
        if name.startswith("counter"):
            assert await self.cache.incr(name, consistency=self._any_level()) is not None
            return
        kind = self._chance.choices(["set", "delete", "cas", "touch", "cancelled"], [12, 3, 2, 1, 2])[0]
        level = self._any_level()
        match kind:
            case "set":
                await self.cache.set(name, self._value(name), ttl=300, consistency=level)
            case "delete":
                await self.cache.delete(name, consistency=level)
            case "cas":
                item = await self.cache.get_item(name, for_update=True)
                if isinstance(item, Item):
                    await self.cache.cas(name, self._value(name), item, ttl=300, consistency=level)
            case "touch":
                await self.cache.touch(name, 300, consistency=level)
            case "cancelled":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._chance.uniform(0, 0.02)):
                        await self.cache.set(name, self._value(name), ttl=300, consistency="all")

    def _any_level(self) -> str:
        return self._chance.choice(["one", "one", "quorum", "all"])

    def _value(self, name: str) -> str:
        self._serial += 1
        return f"{name} {self._number} {self._serial}"


def _key(place: float) -> str:
    """The key at a place from 0 to 1."""
    number = int(place * KEYS)
    return f"value:{number}" if number % COUNTED_KEYS else f"counter:{number}"
