"""Code of the service that catches its cancellation and continues: `close` ends in time, and a warning names the code."""

import asyncio
import contextlib
import logging

import pytest

from evcache import CacheError, LoadAborted, LoadPolicy, NearCache, NodeSettings
from evcache.channels import LocalChannel
from evcache.write_behind import WriteBehind
from evcache.zones._tasks import PATIENCE_SECONDS
from tests.support.memory_zones import ChangingTopology, on_zones, pass_time
from tests.support.virtual_time import now, settle


class Stubborn:
    """Something that waits for `release`, and survives more cancellations than one close makes."""

    def __init__(self):
        self.release = asyncio.Event()
        self.waits = False

    async def wait(self):
        self.waits = True
        for _ in range(5):
            with contextlib.suppress(asyncio.CancelledError):
                await self.release.wait()
                return

    async def loader(self):
        await self.wait()
        return "late"

    async def loader_of_many(self, keys):
        await self.wait()
        return dict.fromkeys(keys, "late")

    async def dial(self, endpoint, factory):
        await self.wait()
        raise OSError("released")

    async def write(self, batch):
        await self.wait()


class Watch(ChangingTopology, Stubborn):
    """A discovery that goes on watching."""

    def __init__(self, topology):
        ChangingTopology.__init__(self, topology)
        Stubborn.__init__(self)

    async def watch(self):
        await self.wait()
        return
        yield


class Load(ChangingTopology, Stubborn):
    """A discovery that goes on loading its first topology."""

    def __init__(self, topology):
        ChangingTopology.__init__(self, topology)
        Stubborn.__init__(self)

    async def load(self):
        await self.wait()
        return self._topology


class Channel(LocalChannel, Stubborn):
    """A channel, one of whose methods does not end."""

    def __init__(self, method):
        LocalChannel.__init__(self)
        Stubborn.__init__(self)
        self._method = method

    async def subscribe(self, topic):
        if self._method == "subscribe":
            await self.wait()
        inbox = await super().subscribe(topic)
        if self._method == "messages":
            return Messages(self, inbox)
        return inbox

    async def publish(self, topic, message):
        if self._method == "publish":
            await self.wait()
        await super().publish(topic, message)


class Messages:
    """A subscription that goes on waiting for messages."""

    def __init__(self, channel, inbox):
        self._channel = channel
        self._inbox = inbox

    def __aiter__(self):
        return self

    async def __anext__(self):
        await self._channel.wait()
        raise StopAsyncIteration

    async def aclose(self):
        await self._inbox.aclose()


async def loads_one(zones):
    stubborn = Stubborn()
    cache = zones.client()
    waiting = asyncio.ensure_future(cache.get_or_load("k", stubborn.loader, timeout=1000))
    return cache, stubborn, waiting


async def loads_many(zones):
    stubborn = Stubborn()
    cache = zones.client()
    waiting = asyncio.ensure_future(cache.get_or_load_many(["k", "l"], stubborn.loader_of_many, timeout=1000))
    return cache, stubborn, waiting


async def refreshes(zones):
    stubborn = Stubborn()
    cache = zones.client(loading=LoadPolicy(stale_while_revalidate=1000, jitter=0))
    await cache.set("k", "v", ttl=5)
    await cache.invalidate("k", stale_while_revalidate=100)
    assert await cache.get_or_load("k", stubborn.loader) is not None
    return cache, stubborn, None


async def watches(zones):
    discovery = Watch(zones.topology)
    cache = zones.client(zones=discovery)
    await cache.get("k")
    return cache, discovery, None


async def finds_zones(zones):
    discovery = Load(zones.topology)
    cache = zones.client(zones=discovery)
    with pytest.raises(CacheError):
        await cache.get("k", timeout=0.1)
    return cache, discovery, None


async def dials(zones):
    stubborn = Stubborn()
    cache = zones.client()
    cache._runtime.cluster._settings = NodeSettings(dialer=stubborn.dial, connect_timeout=1000)
    with pytest.raises(CacheError):
        await cache.get("k", timeout=0.1)
    return cache, stubborn, None


async def dials_late(zones):
    """The connection comes when the client is closed."""
    stubborn = Stubborn()

    async def dial(endpoint, factory):
        await stubborn.wait()
        return await zones.dial(endpoint, factory)

    cache = zones.client()
    cache._runtime.cluster._settings = NodeSettings(dialer=dial, connect_timeout=1000)
    with pytest.raises(CacheError):
        await cache.get("k", timeout=0.1)
    return cache, stubborn, None


def channel(method):
    async def use(zones):
        made = Channel(method)
        cache = zones.client(invalidation=made, near_cache=NearCache())
        await cache.set("k", 1)
        await settle()
        return cache, made, None

    return use


CASES = {
    "loader": (loads_one, "the loader tests.evcache.client.test_close_stubborn.Stubborn.loader of b't:k'"),
    "loader of many": (loads_many, "Stubborn.loader_of_many of b't:k', b't:l'"),
    "loader in the background": (refreshes, "Stubborn.loader of b't:k'"),
    "discovery that watches": (watches, "the discovery Watch"),
    "discovery that loads": (finds_zones, "the discovery Load"),
    "dialer": (dials, "connecting to "),
    "dialer that connects": (dials_late, "connecting to "),
    "channel that subscribes": (channel("subscribe"), "the invalidation channel Channel"),
    "channel that publishes": (channel("publish"), "the invalidation channel Channel"),
    "channel that listens": (channel("messages"), "the invalidation channel Channel"),
}


@pytest.mark.parametrize("drain", [0, 1])
@pytest.mark.parametrize("case", CASES)
@on_zones()
async def test_close_ends_in_time(zones, case, drain, caplog):
    """Two seconds after the drain, with a warning. What goes on has no effect on the next opening, nor when it ends."""
    use, name = CASES[case]
    cache, stubborn, waiting = await use(zones)
    await pass_time(0.1)
    assert stubborn.waits
    began = now()
    await cache.close(drain)
    assert now() - began <= drain + PATIENCE_SECONDS + 0.2
    warnings = [record.getMessage() for record in caplog.records if "goes on after its cancellation" in record.getMessage()]
    assert len(warnings) >= 1
    assert all(name in warning for warning in warnings)
    began = now()
    await cache.close()
    assert now() == began
    if waiting is not None:
        with pytest.raises(LoadAborted):
            await waiting
    if case not in ("dialer", "dialer that connects", "discovery that loads"):
        async with cache:
            assert await cache.set("new", 1)
            stubborn.release.set()
            await pass_time(1)
            stats = cache.stats()
            assert (stats.loads.running, stats.loads.waiting, stats.background_tasks) == (0, 0, 0)
            assert cache._runtime.read_through._loader._context.calls._limiter.taken == 0
            assert await cache.get("new") == 1
    stubborn.release.set()
    await pass_time(5)
    assert all(link.is_closing() for fakes in zones.servers.values() for fake in fakes for link in fake._memory)
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


@pytest.mark.parametrize("path", [True, False])
def test_a_writer_that_goes_on_does_not_hold_up_close(path, tmp_path, caplog):
    """The batch stays in the file. Without a file it is returned as not written, because the state of the source is unknown."""

    async def main():
        stubborn = Stubborn()
        buffer = WriteBehind(None, stubborn.write, interval=0.001, path=str(tmp_path / "waiting") if path else None)
        await buffer.set("k", 1)
        while not stubborn.waits:
            await asyncio.sleep(0.001)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("evcache.zones._tasks.PATIENCE_SECONDS", 0.01)
            assert await buffer.close(0) == {"k": 1}
        stubborn.release.set()
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert "closed, but the writer tests.evcache.client.test_close_stubborn.Stubborn.write goes on" in caplog.text
