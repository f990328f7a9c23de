"""A zone on classic servers beside zones on servers with versions: one cache, whatever each zone can do."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from evcache import EVCache, Outcome
from evcache.zones.testing import FakeMemcached
from integration.patience import PATIENT

ZONES = ["meta-1", "meta-2", "classic"]
KEYS = [f"key-{number}" for number in range(30)]  # enough for every zone to decide about some of them


class Mixed:
    """Two zones of real servers, and a classic one; a client in each that reads its own zone only."""

    def __init__(self, zones, namespace, classic):
        (first,), (second,) = zones.zones.values()
        self.real = zones
        self.classic = classic
        self.zones = {"meta-1": [first], "meta-2": [second], "classic": [classic.address]}
        self.namespace = namespace
        self.inside = {}

    def client(self, local, **options):
        options = {"write_consistency": "all", **PATIENT, **options}
        return EVCache(self.namespace, self.zones, local_zone=local, **options)

    async def everywhere(self, key):
        """What each zone has under a key."""
        return {zone: await cache.get(key) for zone, cache in self.inside.items()}

    async def agree(self, key, value):
        """Every zone has the value, and reads of all zones say so wherever they are made."""
        assert await self.everywhere(key) == dict.fromkeys(ZONES, value)
        for cache in self.inside.values():
            assert await cache.get(key, consistency="all") == value


@pytest.fixture
def mixed(servers, namespace):
    """Run a test's coroutine with mixed zones."""
    with servers.best.local_zones({"meta-1": 1, "meta-2": 1}).running() as zones:

        @asynccontextmanager
        async def open_zones():
            async with FakeMemcached(classic_only=True) as classic:
                mixed = Mixed(zones, namespace, classic)
                mixed.inside = {zone: mixed.client(zone, fallback_on_miss=False) for zone in ZONES}
                try:
                    yield mixed
                finally:
                    for cache in mixed.inside.values():
                        await cache.close()

        def run(test):
            async def main():
                async with open_zones() as mixed:
                    await test(mixed)

            asyncio.run(main())

        yield run


def test_every_write_reaches_every_zone_and_reads_of_all_agree(mixed):
    async def test(mixed):
        for number, key in enumerate(KEYS):
            cache = mixed.inside[ZONES[number % 3]]
            written = await cache.set(key, "one")
            assert set(written.zones.values()) == {Outcome.STORED}
            await mixed.agree(key, "one")
            assert not await cache.add(key, "never")
            assert await cache.replace(key, "two")
            await mixed.agree(key, "two")
            assert await cache.append(key, "!")
            assert await cache.prepend(key, "?")
            await mixed.agree(key, "?two!")
            item = await cache.get_item(key, for_update=True)
            assert await cache.cas(key, "three", item)
            assert not await cache.cas(key, "late", item)
            await mixed.agree(key, "three")
            assert await cache.touch(key, 500)
            assert await cache.delete(key)
            await mixed.agree(key, None)
            assert await cache.incr(key) is None
            assert await cache.incr(key, initial=99) == 99
            assert await cache.incr(key) == 100
            await mixed.agree(key, 100)
            assert await cache.set(key, "four")
            await mixed.agree(key, "four")
        nodes = {zone: node.transport for (zone, _), node in mixed.inside["classic"]._runtime.cluster.nodes.items()}
        assert nodes == {"meta-1": "meta", "meta-2": "meta", "classic": "classic"}

    mixed(test)


def test_many_at_once(mixed):
    async def test(mixed):
        values = {key: {"of": key} for key in KEYS}
        for cache in mixed.inside.values():
            assert all((await cache.set_many(values)).values())
            for other in mixed.inside.values():
                assert await other.get_many([*KEYS, "none"]) == values
                assert await other.get_many(KEYS, consistency="all") == values
            assert all((await cache.delete_many(KEYS[:10])).values())
            assert await cache.get_many(KEYS, consistency="all") == {key: values[key] for key in KEYS[10:]}

    mixed(test)


@pytest.mark.parametrize("local", ["classic", "meta-1"])
def test_reads_fall_back_both_ways(mixed, local):
    """From the classic zone to one with versions, and back; writes go on, and a read that missed is served too."""

    async def test(mixed):
        async with mixed.client(local, write_consistency="all_minus_one") as cache:
            for key in KEYS:
                assert await cache.set(key, f"of {key}", consistency="all")
            if local == "classic":
                mixed.classic.store.clear()
            else:
                mixed.real.restart("meta-1")
                mixed.real.kill("meta-2")  # so that the classic zone is the only one that has it
            for key in KEYS:
                assert await cache.get(key) == f"of {key}"
            if local == "classic":
                await mixed.classic.kill()
            else:
                mixed.real.kill("meta-1")
            for key in KEYS:
                assert await cache.get(key) == f"of {key}"
                item = await cache.get_item(key)
                assert (item.value, item.source) == (f"of {key}", "fallback")
                assert (item.zone == "classic") == (local != "classic")
                assert (item.ttl is None) == (item.zone == "classic")
            assert bool(await cache.set("new", 1)) == (local == "classic")
            assert await cache.get("new") == 1

    mixed(test)


@pytest.mark.parametrize("before", [True, False], ids=["upgraded", "downgraded"])
def test_a_server_that_comes_back_as_another_kind_is_found_out(servers, namespace, before):
    async def main():
        server = FakeMemcached(classic_only=before)
        await server.start()
        async with EVCache(namespace, {"only": [server.address]}, local_zone="only", **PATIENT) as cache:
            first = await cache.set("key", 1)
            (node,) = cache._runtime.cluster.nodes.values()
            assert node.transport == ("classic" if before else "meta")
            assert (first.version is None) == before
            address, port = server.address, server.port
            await server.kill()
            server = FakeMemcached(classic_only=not before)
            await server.start(port=port)
            assert server.address == address
            await until(lambda: cache.set("key", 2))
            assert node.transport == ("meta" if before else "classic")
            assert ((await cache.set("key", 3)).version is None) != before
            item = await cache.get_item("key")
            assert (item.value, item.version is None) == (3, not before)
        await server.stop()

    asyncio.run(main())


async def until(call):
    """A node that was lost in the middle of a call takes a moment to come back."""
    for _ in range(100):
        try:
            if await call():
                return
        except Exception as error:
            assert type(error).__name__ == "CacheUnavailable", error
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come back")


def test_one_zone_can_be_forced_by_its_own_client(servers, namespace):
    """Clients with and without the meta protocol on the same servers see each other's values."""
    with servers.best.local_zones({"only": 1}).running() as zones:

        async def main():
            async with (
                EVCache(namespace, zones.zones, local_zone="only", **PATIENT) as modern,
                EVCache(namespace, zones.zones, local_zone="only", **PATIENT, transport="classic") as classic,
            ):
                for value in ("text", b"bytes", 5, {"a": [1, None]}):
                    await modern.set("key", value)
                    assert await classic.get("key") == value
                    await classic.set("key", [value])
                    assert await modern.get("key") == [value]
                await modern.delete("key")
                assert await classic.get("key") is None, "a tombstone is a miss there too"
                assert await classic.add("key", 1)
                assert await modern.get("key") == 1
                assert await classic.incr("n", initial=5) == 5
                assert await modern.incr("n") == 6

        asyncio.run(main())
