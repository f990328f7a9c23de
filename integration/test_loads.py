"""Loads while the cache is dead, on real memcached: the source is asked, by no more loaders at once than it can bear."""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from evcache import EVCache, LoadPolicy
from integration.patience import PATIENT_SECONDS

CALLERS = 1_000
MAX_LOADS = 32
LOAD_SECONDS = 0.005
# A thousand callers and a dead cache take seconds of a processor. No caller gives up because it waits for its turn.
POLICY = LoadPolicy(hard_timeout=PATIENT_SECONDS)
ALONE = replace(POLICY, lease=False, xfetch_beta=0)
BACK_SECONDS = 2 * PATIENT_SECONDS  # probes double from one second
FAULTS = {"kill": "restart", "pause": "resume"}
TRANSPORTS = pytest.mark.parametrize("transport", ["meta", "classic"])


class Source:
    """Counts its loaders: all of them, those that run, and the most that ever ran at once."""

    def __init__(self):
        self.loads = self.running = self.most = 0
        self.open = asyncio.Event()
        self.open.set()

    def loader(self, value):
        async def load():
            self.loads += 1
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await asyncio.sleep(LOAD_SECONDS)
                await self.open.wait()
            finally:
                self.running -= 1
            return value

        return load


@pytest.fixture(scope="module")
def nodes(servers):
    """Two zones; who breaks them repairs them. All kinds are alike when they are dead: this is the one that dies quickest."""
    with servers.kinds[-1].local_zones({"eu-1a": 1, "eu-1b": 1}).running() as zones:
        yield zones


@pytest.fixture
def dead(nodes, namespace):
    """A client that has known the zones alive, whose zones have now died or hang."""

    @asynccontextmanager
    async def broken(fault, **options):
        async with EVCache(
            namespace, nodes.zones, local_zone="eu-1a", max_loads=MAX_LOADS, loading=POLICY, **options
        ) as cache:
            await until(lambda: cache.set("known", 1, consistency="all", errors="miss"))
            try:
                for zone in nodes.zones:
                    await asyncio.to_thread(getattr(nodes, fault), zone)
                yield cache
            finally:
                for zone in nodes.zones:
                    await asyncio.to_thread(getattr(nodes, FAULTS[fault]), zone)

    return broken


async def until(holds):
    """Wait for something that comes true when servers are back."""
    deadline = time.monotonic() + BACK_SECONDS
    while not await holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@TRANSPORTS
@pytest.mark.parametrize("fault", FAULTS)
def test_callers_of_different_keys(dead, fault, transport):
    """All callers get a value that is loaded once. At no time do more loaders run than the client allows."""

    async def main():
        source = Source()
        async with dead(fault, transport=transport) as cache:

            async def everybody_gets_a_value():
                got = await asyncio.gather(
                    *(cache.get_or_load(f"key-{number}", source.loader(number)) for number in range(CALLERS))
                )
                assert got == list(range(CALLERS))
                assert source.most == MAX_LOADS

            async def known_to_be_dead():
                await everybody_gets_a_value()
                return cache.stats().nodes_down == 2

            await everybody_gets_a_value()
            assert source.loads == CALLERS
            await until(known_to_be_dead)  # a busy loop blames itself for timeouts, and not the servers: it may take a while
            await everybody_gets_a_value()
            assert cache.stats().loads.running == 0

    asyncio.run(main())


@pytest.mark.parametrize("fault", FAULTS)
def test_callers_of_one_key(dead, fault):
    """One loader runs for all of them, cache or no cache."""

    async def main():
        source = Source()
        source.open.clear()
        async with dead(fault) as cache:
            callers = [asyncio.create_task(cache.get_or_load("key", source.loader(1))) for _ in range(CALLERS)]
            full = cache._config.keys.qualify("key")
            while (flight := cache._runtime.single_flight.get(full)) is None or len(flight.waiters) < CALLERS:
                await asyncio.sleep(0.01)
            source.open.set()
            assert await asyncio.gather(*callers) == [1] * CALLERS
            assert source.loads == 1

    asyncio.run(main())


@pytest.mark.parametrize("fault", FAULTS)
def test_callers_that_are_cancelled_while_they_wait_for_their_turn(dead, fault):
    """Their loaders are never called, and leave room for others."""

    async def main():
        source = Source()
        source.open.clear()
        async with dead(fault) as cache:
            callers = [
                asyncio.create_task(cache.get_or_load(f"key-{number}", source.loader(number))) for number in range(CALLERS)
            ]
            while source.running < MAX_LOADS or len(cache._runtime.single_flight) < CALLERS:
                await asyncio.sleep(0.01)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            while len(cache._runtime.single_flight):
                await asyncio.sleep(0.01)
            assert source.loads == MAX_LOADS
            assert source.running == 0
            source.open.set()
            again = (cache.get_or_load(f"other-{number}", source.loader(number)) for number in range(2 * MAX_LOADS))
            assert await asyncio.gather(*again) == list(range(2 * MAX_LOADS))
            assert source.most == MAX_LOADS

    asyncio.run(main())


@pytest.mark.parametrize("fault", FAULTS)
def test_the_cache_dies_while_loaders_run(nodes, namespace, fault):
    """Their callers get what was loaded; when the cache is back, what is loaded is kept again."""

    async def main():
        source = Source()
        # What is kept is read, however busy the machine is.
        async with EVCache(
            namespace, nodes.zones, local_zone="eu-1a", max_loads=MAX_LOADS, loading=POLICY, read_timeout=2.0
        ) as cache:
            await until(lambda: cache.set("known", 1, consistency="all", errors="miss"))
            source.open.clear()
            callers = [
                asyncio.create_task(cache.get_or_load(f"key-{number}", source.loader(number))) for number in range(MAX_LOADS)
            ]
            while source.running < MAX_LOADS:
                await asyncio.sleep(0.01)
            try:
                for zone in nodes.zones:
                    await asyncio.to_thread(getattr(nodes, fault), zone)
                source.open.set()
                assert await asyncio.gather(*callers) == list(range(MAX_LOADS))
                assert source.loads == MAX_LOADS
            finally:
                for zone in nodes.zones:
                    await asyncio.to_thread(getattr(nodes, FAULTS[fault]), zone)

            async def is_kept():
                await cache.get_or_load("back", source.loader("back"), policy=ALONE)
                return await cache.get("back", errors="miss") == "back"

            await until(is_kept)
            loads = source.loads
            assert await cache.get_or_load("back", source.loader("again"), policy=ALONE) == "back"
            assert source.loads == loads

    asyncio.run(main())
