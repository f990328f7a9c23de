"""Near caches of two clients on real memcached, invalidated through a real Redis, also while that Redis dies."""

import asyncio
import contextlib
import time

import pytest

from evcache import EVCache, NearCache
from evcache.channels.redis import RedisChannel
from evcache.invalidation.bus import MISSED_HEARTBEATS
from evcache.invalidation.publisher import HEARTBEAT_SECONDS
from evcache.near_cache.settings import TTL_SECONDS
from integration.patience import PATIENT_CALLS
from integration.redis_server import RedisServer, find_redis

KEYS = [f"key-{number}" for number in range(16)]
# Seconds between two writes. The near cache refuses a key for a time after a write. Each key is written less often than
# that, so that it is stored again. On servers without versions the near cache stores nothing in that time.
WRITE_EVERY = 0.2
# Seconds that are long on the slowest machine, and far below every time that the tests distinguish from it.
SOON_SECONDS = 1.0
ENOUGH_SECONDS = 30.0
# That a loss may go unnoticed, and what is kept for then.
NOTICED_SECONDS = MISSED_HEARTBEATS * HEARTBEAT_SECONDS + 1.0
BOUND_SECONDS = NOTICED_SECONDS + TTL_SECONDS
# Seconds for which the near cache stores nothing after a possible loss of invalidation messages. Short, for quick tests.
GRACE_SECONDS = 1.0


@pytest.fixture
def redis():
    server = RedisServer(find_redis())
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def two_clients(zones, namespace, redis):
    """A writer in one zone and a reader in another, each with a connection of its own to Redis."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for zone in ("eu-1a", "eu-1b"):
            channel = RedisChannel(redis.url)
            stack.push_async_callback(channel.close)
            near = NearCache(grace=GRACE_SECONDS)
            clients.append(
                EVCache(namespace, zones, local_zone=zone, near_cache=near, invalidation=channel, **PATIENT_CALLS)
            )
            await stack.enter_async_context(clients[-1])
        await until(lambda: all(client._runtime.bus.is_up for client in clients))
        await asyncio.sleep(GRACE_SECONDS)
        yield clients


async def until(condition):
    async with asyncio.timeout(ENOUGH_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


async def source(cache, key):
    return (await cache.get_item(key)).source


def test_what_one_writes_the_other_sees_at_once(shared_zones, namespace, redis):
    """The near TTL is a minute. A key without writes stays in the near cache for longer than it would without a channel."""

    async def main():
        async with two_clients(shared_zones.zones, namespace, redis) as (writer, reader):
            await writer.set_many({"quiet": 1, "busy": 0}, consistency="all")
            await asyncio.sleep(GRACE_SECONDS + 0.1)
            assert await reader.get("quiet") == 1
            delays = []
            began = time.monotonic()
            for number in range(1, 31):
                await reader.get("busy")
                await writer.set("busy", number, consistency="all")
                written = time.monotonic()
                async with asyncio.timeout(ENOUGH_SECONDS):
                    while await reader.get("busy") != number:
                        await asyncio.sleep(0.001)
                delays.append(time.monotonic() - written)
                assert await source(reader, "busy") in ("near", "local")
            await writer.delete("busy", consistency="all")
            await asyncio.sleep(SOON_SECONDS)
            assert await reader.get("busy") is None
            await asyncio.sleep(max(0.0, began + TTL_SECONDS + 0.5 - time.monotonic()))
            assert await source(reader, "quiet") == "near"
            print(f"\nseen by the other client after {1e3 * sorted(delays)[15]:.1f} ms, {1e3 * max(delays):.1f} at the most")
            assert max(delays) < SOON_SECONDS

    asyncio.run(main())


class Traffic:
    """Writes of one client and reads of another, and how old near hits were: since when something newer was acknowledged."""

    def __init__(self, writer, reader):
        self._writer = writer
        self._reader = reader
        self._acknowledged = {key: [0.0] for key in KEYS}  # when the write of each number was, by number
        self.hits = 0
        self.worst = 0.0

    def take(self):
        """Near hits since this was last asked, and how old the worst was."""
        hits, worst, self.hits, self.worst = self.hits, self.worst, 0, 0.0
        return hits, worst

    async def for_a_while(self, seconds):
        """The same, after some seconds and at least one near hit."""
        await asyncio.sleep(seconds)
        await until(lambda: self.hits > 0)
        return self.take()

    async def write(self):
        for key in KEYS:
            await self._writer.set(key, 0, consistency="all")
        while True:
            for key in KEYS:
                await asyncio.sleep(WRITE_EVERY)
                if await self._writer.set(key, len(self._acknowledged[key]), consistency="all"):
                    self._acknowledged[key].append(time.monotonic())

    async def read(self):
        while True:
            for key in KEYS:
                hits = self._reader.stats().near.hits
                value = await self._reader.get(key)
                if value is None or self._reader.stats().near.hits == hits:
                    continue
                self.hits += 1
                newer = self._acknowledged[key][value + 1 :]
                if newer:
                    self.worst = max(self.worst, time.monotonic() - newer[0])
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def under_way(traffic):
    tasks = [asyncio.ensure_future(work) for work in (traffic.write(), traffic.read())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()


@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_near_hits_are_bounded_while_the_channel_is_gone(shared_zones, namespace, redis, fault):
    """A gap is noticed, what is held is forgotten, and what is kept then is kept for two seconds. It ends with the outage."""

    async def main():
        async with two_clients(shared_zones.zones, namespace, redis) as (writer, reader):
            traffic = Traffic(writer, reader)
            async with under_way(traffic):
                before = await traffic.for_a_while(1.5)

                cleared = reader.stats().near.cleared
                began = time.monotonic()
                await asyncio.to_thread(redis.kill if fault == "killed" else redis.pause)
                await until(lambda: not reader._runtime.bus.is_up)
                noticed = time.monotonic() - began
                assert reader.stats().near.cleared > cleared
                assert reader.stats().invalidation.losses == 1
                during = await traffic.for_a_while(GRACE_SECONDS + TTL_SECONDS)

                await asyncio.to_thread(redis.start if fault == "killed" else redis.resume)
                await until(
                    lambda: reader._runtime.bus.is_up and writer._runtime.bus.is_up and not writer._runtime.bus.stats.pending
                )
                back = time.monotonic() - began
                await asyncio.sleep(GRACE_SECONDS)
                between = traffic.take()
                after = await traffic.for_a_while(1.5)
            print(
                f"\n{fault}: noticed after {noticed:.2f} s, back after {back:.1f} s; near hits and the worst age: "
                f"before {before[0]}, {before[1]:.3f} s; during {during[0]}, {during[1]:.2f} s; "
                f"while it comes back {between[0]}, {between[1]:.2f} s; after {after[0]}, {after[1]:.3f} s"
            )
            assert noticed < NOTICED_SECONDS + SOON_SECONDS
            assert min(hits for hits, _ in (before, during, after)) > 0
            for _, worst in (before, after):
                assert worst < SOON_SECONDS
            for _, worst in (during, between):
                assert worst < BOUND_SECONDS + SOON_SECONDS

    asyncio.run(main())
