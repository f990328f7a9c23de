"""Of the keys that one zone has served, a share is compared in all zones, however the keys are read."""

import asyncio
import math
import random
from collections import Counter

import pytest

from evcache import NearCache
from tests.support.memory_zones import full, on_zones, pass_time
from tests.support.near import follow_loop

SHARE = 0.2
KEYS = [f"k{number}" for number in range(50)]
ROUNDS = 40


async def one_by_one(cache):
    for key in KEYS:
        assert await cache.get(key) == "v"


async def items(cache):
    for key in KEYS:
        assert (await cache.get_item(key)).value == "v"


async def touching(cache):
    for key in KEYS:
        assert await cache.get_and_touch(key, 1000) == "v"


async def burst(cache):
    assert await asyncio.gather(*(cache.get(key) for key in KEYS)) == ["v"] * len(KEYS)


async def many(cache):
    assert len(await cache.get_many(KEYS)) == len(KEYS)


async def loaded(cache):
    assert await asyncio.gather(*(cache.get_or_load(key, _load) for key in KEYS)) == ["v"] * len(KEYS)


async def loaded_many(cache):
    assert len(await cache.get_or_load_many(KEYS, _load)) == len(KEYS)


READS = [one_by_one, items, touching, burst, many, loaded, loaded_many]
reads = pytest.mark.parametrize("read", READS, ids=lambda read: read.__name__)


async def _load(*_):
    raise AssertionError("everything is there")


def checked_by(cache, seed=1):
    """Return the list of keys that the client compares from now on, with a seeded choice."""
    checked = Counter()
    cache._runtime.repair.start_comparison = lambda _, key: checked.update([key])
    sampler = cache._runtime.zone_reader._sampler
    sampler._draw = random.Random(seed).random
    sampler._left, cache._runtime.zone_reader.counts.hits_left = sampler.draw_gap(), sampler.draw_gap()
    return checked


@reads
@pytest.mark.parametrize("trouble", ["none", "first zone down", "another zone down", "first zone misses", "some nodes down"])
@on_zones(nodes=2)
async def test_the_share_of_keys_is_compared(zones, read, trouble):
    """Each key has its turn, also when another zone than the first one serves it."""
    cache = await zones.ready(read_repair_chance=SHARE)
    await cache.set_many(dict.fromkeys(KEYS, "v"), consistency="all")
    if trouble == "first zone down":
        await zones.kill("a")
    elif trouble == "another zone down":
        await zones.kill("b")
    elif trouble == "some nodes down":
        await zones.servers["a"][0].kill()
        await zones.servers["c"][1].kill()
    elif trouble == "first zone misses":
        cache._runtime.repair.repair = lambda *_: None
        for key in KEYS:
            for fake in zones.servers["a"]:
                fake.store.evict(full(key))
    checked = checked_by(cache)
    for _ in range(ROUNDS):
        await read(cache)
    count = ROUNDS * len(KEYS)
    assert checked.total() == pytest.approx(count * SHARE, abs=4 * math.sqrt(count * SHARE * (1 - SHARE)))
    assert set(checked) == set(map(full, KEYS))


@reads
@on_zones()
async def test_with_a_share_of_one_every_key_is_compared(zones, read):
    cache = await zones.ready(read_repair_chance=1)
    await cache.set_many(dict.fromkeys(KEYS, "v"), consistency="all")
    checked = checked_by(cache)
    await read(cache)
    assert checked == Counter(map(full, KEYS))


@reads
@on_zones()
async def test_a_zone_that_is_behind_is_found_by_reads_of_any_kind(zones, read):
    """The first zone lacks what all others have, and no answer of its own shows that."""
    writer = await zones.ready(local_zone="b", hints=None)
    await writer.set_many(dict.fromkeys(KEYS, "v"), consistency="all")
    old = {key: zones.held(key, "a") for key in KEYS}
    await pass_time(0.01)
    await writer.set_many(dict.fromkeys(KEYS, "v"), consistency="all")
    for key in KEYS:
        zones.put_back(key, old[key], "a")
    cache = await zones.ready(read_repair_chance=1)
    await read(cache)
    await pass_time()
    for key in KEYS:
        assert len(set(zones.stored_versions(key).values())) == 1


@on_zones()
async def test_deletes_that_one_zone_remembers_are_compared_and_misses_are_not(zones):
    """A miss has asked every zone."""
    cache = await zones.ready(read_repair_chance=1)
    await cache.delete("deleted", consistency="all")
    checked = checked_by(cache)
    assert await cache.get_many(["deleted", "nothing"]) == {}
    assert await cache.get("deleted") is await cache.get("nothing") is None
    assert checked == {full("deleted"): 2}


@on_zones()
async def test_reads_of_several_zones_do_not_count(zones):
    """They compare what they read."""
    cache = await zones.ready(read_repair_chance=1)
    await cache.set("k", "v", consistency="all")
    checked = checked_by(cache)
    assert await cache.get("k", consistency="quorum") == "v"
    assert await cache.get_many(["k"], consistency="quorum") == {"k": "v"}
    assert not checked


@on_zones()
async def test_a_near_entry_that_its_zone_confirms_is_compared(zones):
    """Otherwise a value that is read all the time could stay behind for as long as it lives."""
    cache = await zones.ready(read_repair_chance=1, near_cache=NearCache(revalidate_over=10))
    follow_loop(cache)
    await cache.set("k", "x" * 100, ttl=1000, consistency="all")
    await pass_time(3)
    checked = checked_by(cache)
    assert await cache.get("k") == "x" * 100
    assert cache.stats().near.renewed == 1
    assert checked == {full("k"): 1}
