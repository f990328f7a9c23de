"""Conditional writes while there are standby zones: a key that only they hold is not absent."""

import pytest

from evcache import CacheUnavailable, Outcome
from tests.support.memory_zones import QUICK, on_zones, pass_time
from tests.support.standby import NEW, OLD, in_modes, migrating
from tests.support.written import everywhere


async def swapped(zones, value="value", **options):
    """Return a client that has written a value, for which an empty set of zones has become the read-write one."""
    client = await migrating(zones, **options)
    await client.cache.set("k", value, ttl=100, consistency="all")
    await pass_time()
    zones.evict("k", *NEW)
    await client.use(NEW, OLD)
    return client.cache


def in_all(value):
    return dict.fromkeys(OLD + NEW, value)


@on_zones(zones=6)
async def test_a_counter_continues_after_the_swap(zones):
    cache = await swapped(zones, 41)
    assert await cache.incr("k", initial=0, consistency="all") == 42
    await pass_time()
    assert zones.values("k") == in_all(42)
    assert await cache.decr("k", 2, initial=0) == 40


@pytest.mark.parametrize("stale", OLD)
@on_zones(zones=6)
async def test_a_counter_continues_from_the_latest_version_of_the_standby_zones(zones, stale):
    client = await migrating(zones)
    await client.cache.set("k", 1, consistency="all")
    older = zones.held("k", stale)
    await client.cache.incr("k", consistency="all")
    zones.put_back("k", older, stale)
    zones.evict("k", *NEW)
    counting = await zones.ready(zones=in_modes(zones.topology, NEW, OLD))
    assert await counting.incr("k", initial=0) == 3


@on_zones(zones=6)
async def test_add_of_a_key_that_the_standby_zones_hold_is_refused(zones):
    cache = await swapped(zones)
    result = await cache.add("k", "other")
    assert (result.met, list(result.zones.values())) == (False, [Outcome.NOT_STORED])
    await pass_time()
    assert zones.values("k")["a"] == "value"
    assert await cache.get("k") == "value"


@on_zones(zones=6)
async def test_cas_over_an_item_that_was_read_before_the_swap_is_stored(zones):
    client = await migrating(zones)
    cache = client.cache
    await cache.set("k", "value", consistency="all")
    item = await cache.get_item("k")
    zones.evict("k", *NEW)
    await client.use(NEW, OLD)
    assert await cache.cas("k", "next", item, consistency="all")
    assert not await cache.cas("k", "other", item)
    await pass_time()
    assert zones.values("k") == in_all("next")


@on_zones(zones=6)
async def test_cas_over_an_item_of_a_standby_zone_is_stored(zones):
    cache = await swapped(zones)
    item = await cache.get_item("k")
    assert item.zone in OLD
    assert await cache.cas("k", "next", item)


@on_zones(zones=6)
async def test_reads_for_update_and_other_decisions_see_the_standby_zones(zones):
    cache = await swapped(zones, "one")
    assert (await cache.get_item("k", for_update=True)).value == "one"
    zones.evict("k", *(zone for zone in NEW if zones.held("k", zone)))
    assert await cache.append("k", ", two", consistency="all")
    assert zones.values("k") == in_all("one, two")
    zones.evict("k", *NEW)
    assert await cache.replace("k", "three", consistency="all")
    assert zones.values("k") == in_all("three")


@on_zones(zones=6)
async def test_a_delete_in_the_standby_zones_is_an_absence(zones):
    client = await migrating(zones)
    cache = client.cache
    await cache.set("k", 7, consistency="all")
    value = zones.held("k", "d")
    await cache.delete("k", consistency="all")
    await client.use(NEW, OLD)
    zones.put_back("k", value, "d")
    assert await cache.incr("k", initial=1) == 1
    await cache.delete("j", consistency="all")
    zones.evict("j", *NEW)
    assert await cache.add("j", "new", consistency="all")


WRITES = {
    "incr": lambda cache: cache.incr("k", initial=0, timeout=0.3),
    "add": lambda cache: cache.add("k", "other", timeout=0.3),
    "replace": lambda cache: cache.replace("k", "other", timeout=0.3),
    "append": lambda cache: cache.append("k", "other", timeout=0.3),
    "cas": lambda cache: cache.cas("k", "other", 2**60, timeout=0.3),
    "get_item": lambda cache: cache.get_item("k", for_update=True, timeout=0.3),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones(zones=6)
async def test_nothing_is_decided_about_an_absent_key_without_a_quorum_of_standby_zones(zones, write, how):
    """The key may be in the zones that do not answer. A counter would begin again."""
    cache = await swapped(zones, 41, circuit=QUICK)
    await (zones.kill("a", "b") if how == "kill" else _pause(zones))
    for _ in range(2):
        with pytest.raises(CacheUnavailable, match="no read-write zone holds the key, and too few standby zones answer"):
            await WRITES[write](cache)
    await pass_time()
    assert {zone: zones.held("k", zone) for zone in NEW} == dict.fromkeys(NEW)
    if how == "pause":
        zones.resume("a", "b")
        await pass_time(5)
        assert await cache.incr("k", initial=0) == 42


async def _pause(zones):
    zones.pause("a", "b")


@on_zones(zones=6)
async def test_a_key_of_the_read_write_zones_is_decided_without_standby_zones(zones):
    """As much as it can be: too few standby zones have the decision, so it is not acknowledged."""
    cache = (await migrating(zones)).cache
    await cache.set("n", 1, consistency="all")
    await zones.kill(*NEW)
    assert await cache.incr("n") == 2
    result = await cache.replace("n", 5)
    assert not result
    assert {zone: zones.values("n")[zone] for zone in OLD} == everywhere(5)


@on_zones(zones=6)
async def test_a_new_key_needs_both_sets(zones):
    cache = (await migrating(zones)).cache
    assert await cache.add("k", "value", consistency="all")
    assert zones.values("k") == in_all("value")
    assert await cache.incr("n", initial=5, consistency="all") == 5
    assert zones.values("n") == in_all(5)
