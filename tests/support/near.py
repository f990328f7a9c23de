"""Near caches for tests: stores with a clock that tests move, and clients on zones in memory that share a channel."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any, Self

from evcache import EVCache, NearCache
from evcache.channels import LocalChannel
from evcache.near_cache.coherence import CoherentNearCache
from evcache.near_cache.store import NearStore
from tests.support.memory_zones import Held, MemoryZones, full, pass_time
from tests.support.wires import Wires

TTL = 60.0  # seconds
WALL = 1_800_000_000.0  # unix time when a clock begins


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def wall(self):
        """Return the unix time."""
        return WALL + self.now - 1000.0


def make(clock, max_entries=100, max_bytes=2**30, ttl=TTL, negative_share=0.1, on_remove=None):
    return NearStore(NearCache(max_bytes, max_entries, ttl, negative_share), clock, on_remove)


def entries_of(store):
    """By key, expired ones too."""
    return {key: entry for shard in store._shards for key, entry in shard.items()}


def discarded(store):
    """How many entries were cleared and not given back yet."""
    return sum(map(len, store._discarded))


def entry_of(near, key):
    """Return the item of a key in a near cache, or None."""
    entry = near.look_up(key)
    return None if entry is None else entry.value


def keys_of(queue):
    """From the oldest to the newest."""
    found = []
    entry = queue._end.newer
    while entry is not queue._end:
        assert entry.newer.older is entry
        found.append(entry.key)
        entry = entry.newer
    return found


def check(store, settings_):
    """What holds after every call."""
    entries = entries_of(store)
    queues = [store._values.small, store._values.main, store._absences]
    for queue in queues:
        keys = keys_of(queue)
        assert queue.count == len(keys)
        assert queue.bytes == sum(entries[key].size for key in keys)
        assert all(entries[key].queue is queue for key in keys)
    assert sum(queue.count for queue in queues) == len(store) <= settings_.max_entries
    assert store.bytes == sum(entry.size for entry in entries.values())
    assert store.bytes + store._discarded_bytes <= settings_.max_bytes
    assert store._absences.count <= settings_.max_entries * settings_.negative_share
    assert store._absences.bytes <= settings_.max_bytes * settings_.negative_share
    assert store.stats.insertions == len(store) + store.stats.removals
    left = [entry for shard in store._discarded for entry in shard.values()]
    assert store._discarded_bytes == sum(entry.size for entry in left)
    assert all(store._discarded)
    assert store.is_empty is (not entries and not left)


GRACE = NearCache().grace
# Seconds for an invalidation message to be sent and received.
HEARD_SECONDS = 0.02
# Calls that are held up on purpose do not give up.
PATIENT = {"read_timeout": 30.0, "write_timeout": 30.0}

KEY = "k"
OLD = "1"
"""What the zones hold when a `Pair` is ready: a text, and a number."""


def near_of(cache: EVCache) -> CoherentNearCache:
    """The near cache of a client."""
    assert cache._runtime.near is not None
    return cache._runtime.near


def kept(cache: EVCache, key: str) -> Any:
    """What the near cache of a client would serve; None for nothing."""
    return entry_of(near_of(cache), full(key))


def follow_loop(cache: EVCache) -> None:
    """Have the near cache live in the time of the running loop, which in tests is not the machine's."""
    near, time = near_of(cache), asyncio.get_running_loop().time
    near._clock = near._store._clock = time
    if near._hot is not None:
        near._hot._clock = time
        near._hot._began = time()


def near_client(zones: MemoryZones, zone: str = "a", **options: Any) -> tuple[EVCache, Wires]:
    """A client of a zone, and its wires."""
    wires = Wires(zones.dial, zones.names)
    zones.dial = wires.dial  # type: ignore[method-assign]
    try:
        cache = zones.client(local_zone=zone, **{"near_cache": NearCache(), **options})
    finally:
        del zones.dial  # the method again
    follow_loop(cache)
    return cache, wires


async def settled(zones: MemoryZones, *caches: EVCache) -> None:
    """Connected, listening, and past the time in which nothing is kept because something may have been missed."""
    await zones.connect(*caches)
    await pass_time(GRACE + 1)


async def heard() -> None:
    """Wait until all clients have received the invalidation messages of earlier writes."""
    await pass_time(HEARD_SECONDS)


async def near_hit(zones: MemoryZones, reading: Awaitable[Any]) -> Any:
    """What a read returned that asked no zone."""
    zones.forget()
    value = await reading
    assert all(commands == {} for commands in zones.all_commands().values())
    return value


class Pair:
    """A writer in zone b and a reader in zone a, who share a channel."""

    def __init__(self, zones: MemoryZones, **options: Any) -> None:
        self.zones = zones
        self.channel = LocalChannel()
        self.writer, self.to_writer = near_client(zones, "b", invalidation=self.channel, **PATIENT | options)
        self.reader, self.to_reader = near_client(zones, "a", invalidation=self.channel, **PATIENT | options)

    @classmethod
    async def on(cls, zones: MemoryZones, *, old: Any = OLD, **options: Any) -> Self:
        """Ready: every zone holds the old value, and nothing keeps the near caches from keeping it."""
        pair = cls(zones, **options)
        await settled(zones, pair.writer, pair.reader)
        assert await pair.writer.set(KEY, old, consistency="all")
        await pass_time(GRACE + 1)
        return pair

    async def lands_late(self, read: Callable[[EVCache], Awaitable[Any]]) -> asyncio.Future[Any]:
        """Begin a read of the reader's whose answer, the old value, is on its way until `arrives`."""
        self.to_reader.replies["a"].hold()
        reading = asyncio.ensure_future(read(self.reader))
        await pass_time(0.01)
        return reading

    async def arrives(self, reading: asyncio.Future[Any]) -> Any:
        """Let the answer through; what the read returned."""
        self.to_reader.replies["a"].release()
        return await reading

    def in_zone(self) -> Held:
        """What the reader's zone holds, in whatever form."""
        store = self.zones.one("a").store
        item = store.get(full(KEY))
        assert item is not None
        return Held(None, None, store.ttl_left(item), copy.copy(item))

    def set_zone(self, held: Held) -> None:
        """The reader's zone has got this, and nothing that was written since."""
        self.zones.put_back(KEY, held, "a")


async def keeps_what_is_new(pair, new, versioned):
    """A read finds the new value, and what is kept from then on is that."""
    assert await pair.reader.get(KEY) == new
    assert (kept(pair.reader, KEY) is not None) == versioned or new is None
    assert await pair.reader.get(KEY) == new
    await pass_time(GRACE + 0.1)
    assert await pair.reader.get(KEY) == new
    assert await pair.reader.get(KEY) == new
