"""A proxy with a dead backend fails the keys of that backend, and no others."""

import asyncio
from collections.abc import Collection
from zlib import crc32

import pytest

from evcache import CacheUnavailable, EVCache, NodeSettings
from tests.support.memory_zones import full, on_zones, pass_time

KEYS = [f"key-{number}" for number in range(40)]
PROBE_KEYS = (b"!p", b"!evcache-probe-key")


def is_dead(key: bytes) -> bool:
    return crc32(key) % 2 == 1


DEAD = [key for key in KEYS if is_dead(full(key))]
LIVING = [key for key in KEYS if not is_dead(full(key))]


async def check_dead_backend(cache: EVCache, living: Collection[str], dead: Collection[str]) -> None:
    """Check reads and writes of a client with one zone. `living` keys have a value; `dead` ones can't be reached."""
    for _ in range(3):
        answers = await asyncio.gather(*(cache.get(key) for key in [*dead, *living]), return_exceptions=True)
        assert [type(answer) for answer in answers[: len(dead)]] == [CacheUnavailable] * len(dead)
        assert answers[len(dead) :] == [1] * len(living)
    assert await cache.get_many([*living, *dead, "missing"], errors="miss") == dict.fromkeys(living, 1)
    assert set(await cache.get_many([*living])) == set(living)
    written = await cache.set_many(dict.fromkeys([*living, *dead], 1), timeout=2)
    assert {key for key in (*living, *dead) if written[key]} == set(living)
    for key in list(dead)[:5]:
        for operation in (cache.delete(key), cache.set(key, 1), cache.incr(key), cache.add(key, 1)):
            with pytest.raises(CacheUnavailable, match="SERVER_ERROR"):
                await operation
    assert cache.stats().nodes_down == 0


SERVERS = {"meta": {}, "classic": {"classic_only": True}, "twemproxy": {"twemproxy": True}}


@pytest.mark.parametrize("server", SERVERS)
def test_keys_of_other_backends_work(server):
    @on_zones(zones=1, **SERVERS[server])
    async def scenario(zones):
        transport = "classic" if server == "twemproxy" else "auto"
        cache = await zones.ready(circuit=NodeSettings().circuit, transport=transport)
        await cache.set_many(dict.fromkeys(KEYS, 1))
        made = zones.connections_made()
        zones.one("a").dead_backend = is_dead
        await check_dead_backend(cache, LIVING, DEAD)
        if server == "meta":
            assert zones.connections_made() == made, "every error leaves the connection in sync"
        zones.one("a").dead_backend = None
        await cache.set_many(dict.fromkeys(KEYS, 2))
        assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 2)

    scenario()


@pytest.mark.parametrize("classic", [False, True], ids=["meta", "classic"])
def test_failed_requests_for_single_keys_cost_no_connection(classic):
    """The proxy reads a value before it looks for the backend."""

    @on_zones(zones=1, classic_only=classic)
    async def scenario(zones):
        cache = await zones.ready()
        zones.one("a").dead_backend = lambda _: True
        made = zones.connections_made()
        for _ in range(10):
            for operation in (cache.set("key", b"mn"), cache.get("key"), cache.delete("key")):
                with pytest.raises(CacheUnavailable):
                    await operation
        assert zones.connections_made() == made

    scenario()


@pytest.mark.parametrize("classic", [False, True], ids=["meta", "classic"])
def test_node_whose_probe_key_is_on_the_dead_backend_comes_back(classic):
    @on_zones(zones=1, classic_only=classic)
    async def scenario(zones):
        cache = await zones.ready(circuit=NodeSettings().circuit)
        await cache.set("key", 1)
        zones.one("a").dead_backend = lambda key: key in PROBE_KEYS
        zones.pause("a")
        for _ in range(5):
            with pytest.raises(CacheUnavailable):
                await cache.get("key", timeout=0.1)
        assert cache.stats().nodes_down == 1
        zones.resume("a")
        await asyncio.sleep(5)
        assert cache.stats().nodes_down == 0
        assert await cache.get("key") == 1

    scenario()


@on_zones(zones=2)
async def test_zone_behind_a_proxy_receives_what_its_dead_backend_missed(zones):
    cache = await zones.ready()
    await cache.set_many({"kept": 1, "gone": 1})
    zones.one("a").dead_backend = lambda key: key in (full("kept"), full("gone"))
    assert await cache.set("kept", 2)
    assert await cache.delete("gone")
    assert await cache.get("kept") == 2
    zones.one("a").dead_backend = None
    await asyncio.sleep(60)
    await pass_time()
    assert zones.values("kept") == {"a": 2, "b": 2}
    assert zones.values("gone")["a"] == zones.values("gone")["b"]
    assert cache.stats().hints_delivered == 2
