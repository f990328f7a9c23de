"""Clients with a near cache on zones in memory, which hear of each other through a channel. For virtual time."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any, Self

from evcache import EVCache, NearCache
from evcache.channels import LocalChannel
from evcache.near_cache.coherence import CoherentNearCache
from tests.support.memory_zones import Held, MemoryZones, full, pass_time
from tests.support.near_stores import entry_of
from tests.support.wires import Wires

GRACE = NearCache().grace
# For an announcement to be sent, and heard.
HEARD_SECONDS = 0.02
# Calls that are held up on purpose do not give up.
PATIENT = {"read_timeout": 30.0, "write_timeout": 30.0}

KEY = "k"
OLD = "1"
"""What the zones hold when a `Pair` is ready: a text, and a number."""


def near_of(cache: EVCache) -> CoherentNearCache:
    """The near cache of a client."""
    assert cache._near is not None
    return cache._near


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
    """What was written has been announced to everybody."""
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
