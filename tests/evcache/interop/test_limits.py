"""Limits of a server group: the size of a value under a key, and the number of calls that run at once."""

import asyncio

import pytest

from evcache import CacheUnavailable, ValueTooLarge
from evcache.interop import Interop
from evcache.interop.forms.chunks import MAX_VALUE_BYTES, largest_value, split
from evcache.interop.group import transport
from tests.support.memory_zones import on_zones

ALL = {"consistency": "all"}
KEYS = {"short": "k", "emoji": "\U0001f600" * 40, "long": "k" * 200}
on_small_items = on_zones(nodes=3, by_address=True, item_size_max=2_000)
with_each_key = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


@with_each_key
@pytest.mark.parametrize("interop", [Interop(), Interop(hash_keys="all")], ids=["plain", "hashed"])
@on_small_items
async def test_a_value_above_the_limit_of_its_form_is_refused_and_the_former_one_stays(zones, key, interop):
    cache = await zones.ready(interop=interop)
    limit = 0  # the largest size that is taken
    for step in (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1):
        zones.forget()
        try:
            assert await cache.set(key, b"v" * (limit + step), **ALL)
        except ValueTooLarge:
            assert not any(sum(zones.commands(zone).values()) for zone in "abc")
        else:
            limit += step
    assert limit > 1_000
    assert await cache.get(key, **ALL) == b"v" * limit


@pytest.mark.parametrize("interop", [Interop(chunk_bytes=128), Interop(hash_keys="all", chunk_bytes=128)])
@on_zones(nodes=3, by_address=True)
async def test_a_value_of_too_many_chunks_is_refused_and_the_former_one_stays(zones, interop):
    cache = await zones.ready(interop=interop)
    await cache.set("k", "former", **ALL)
    zones.forget()
    with pytest.raises(ValueTooLarge):
        await cache.set("k", b"v" * 2_000_000)
    assert not any(sum(zones.commands(zone).values()) for zone in "abc")
    assert await cache.get("k", **ALL) == "former"


@pytest.mark.parametrize(("key", "chunk_bytes"), [(b"k", 128), (b"k" * 53, 128), (b"k" * 244, 1180), (b"k", 2**20)])
def test_the_largest_value_is_the_last_that_can_be_split(key, chunk_bytes):
    limit = largest_value(key, chunk_bytes)
    header, _ = split(key, bytes(limit), 0, chunk_bytes)
    assert header.value_bytes == limit <= MAX_VALUE_BYTES
    with pytest.raises(ValueTooLarge):
        split(key, bytes(limit + 1), 0, chunk_bytes)


@with_each_key
@pytest.mark.parametrize("size", [1_000, 1_600, 1_700, 1_900, 2_000, 5_000])
@on_small_items
async def test_chunks_are_smaller_than_the_setting_where_the_servers_take_no_larger_items(zones, key, size):
    cache = await zones.ready(interop=Interop(chunk_bytes=2**20))
    assert await cache.set(key, b"v" * size, **ALL)
    assert await cache.get(key, **ALL) == b"v" * size


@on_zones(zones=1, nodes=3, by_address=True)
async def test_calls_above_the_limit_of_background_tasks_are_answered(zones):
    cache = await zones.ready(interop=Interop(hash_keys="all"), read_timeout=60)
    await cache.set("k", "v", **ALL)
    found = await asyncio.gather(*(cache.get(f"k{number}") for number in range(10_500)), cache.get("k"))
    assert found == [*[None] * 10_500, "v"]


@on_zones(zones=1, by_address=True)
async def test_calls_above_the_limit_of_a_group_fail_at_once_and_later_ones_run(zones, monkeypatch):
    monkeypatch.setattr(transport, "MAX_CALLS_PER_NODE", 3)
    cache = await zones.ready(interop=Interop(hash_keys="all"))
    outcomes = await asyncio.gather(*(cache.get("k") for _ in range(5)), return_exceptions=True)
    assert outcomes[:3] == [None] * 3
    for refused in outcomes[3:]:
        assert isinstance(refused, CacheUnavailable)
        assert "3 calls are running already" in str(refused)
    assert await cache.get("k") is None
