"""Reads that find nothing in the read-write zones, and ask the standby zones."""

import asyncio

import pytest

from evcache import CacheUnavailable, CircuitLimits, ConsistencyError, Failover, Hedging, NearCache
from tests.support.memory_zones import QUICK, TOMBSTONE, Listener, cut_off, keys_read, on_zones, pass_time
from tests.support.standby import NEW, OLD, in_modes, migrating


async def never():
    raise AssertionError("the value was loaded")


READS = {
    "get": lambda cache, **options: cache.get("k", **options),
    "get_item": lambda cache, **options: _value(cache.get_item("k", **options)),
    "get_many": lambda cache, **options: _of_many(cache.get_many(["k", "nothing"], **options)),
    "get_or_load": lambda cache, **options: cache.get_or_load("k", never, **options),
}
each_read = pytest.mark.parametrize("read", READS)


async def _value(reading):
    item = await reading
    return None if item is None else item.value


async def _of_many(reading):
    return (await reading).get("k")


async def in_standby(zones, value="value", **options):
    """Return a client whose standby zones alone hold a value."""
    client = await migrating(zones, **options)
    await client.cache.set("k", value, ttl=100, consistency="all")
    zones.evict("k", *OLD)
    return client.cache


@each_read
@pytest.mark.parametrize("options", [{}, {"consistency": "quorum"}, {"consistency": "all"}])
@on_zones(zones=6)
async def test_a_miss_of_all_read_write_zones_asks_standby_zones_and_copies_the_hit(zones, read, options):
    cache = await in_standby(zones)
    assert await READS[read](cache, **options) == "value"
    await pass_time()
    assert zones.values("k") == dict.fromkeys(OLD + NEW, "value")
    assert len(set(zones.stored_versions("k").values())) == 1


@each_read
@on_zones(zones=6)
async def test_a_failure_of_all_read_write_zones_asks_standby_zones(zones, read):
    cache = await in_standby(zones, circuit=QUICK)
    await zones.kill(*OLD)
    for _ in range(3):  # the first read finds out, the others know
        assert await READS[read](cache) == "value"
        await pass_time()


@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones(zones=6)
async def test_a_read_without_any_zone_is_unavailable(zones, how):
    cache = await in_standby(zones)
    if how == "kill":
        await zones.kill(*OLD, *NEW)
    else:
        zones.pause(*OLD, *NEW)
    for read in ("get", "get_many"):
        with pytest.raises(CacheUnavailable) as caught:
            await READS[read](cache)
        assert caught.value.failures.keys() == set(OLD + NEW)
    zones.resume(*OLD, *NEW)


@on_zones(zones=6)
async def test_a_miss_of_every_zone_is_a_miss(zones):
    cache = (await migrating(zones)).cache
    for options in ({}, {"consistency": "quorum"}):
        assert await cache.get("k", **options) is None
        assert await cache.get_many(["k"], **options) == {}
        assert await cache.get_or_load("k", _nothing, **options) is None


async def _nothing():
    return None


@pytest.mark.parametrize(
    ("held_by", "options"),
    [
        ("a", {}),
        ("b", {}),
        ("c", {}),
        ("abc", {}),
        ("abc", {"consistency": "quorum"}),
        ("abc", {"consistency": "all"}),
        ("c", {"consistency": "all"}),
    ],
)
@on_zones(zones=6)
async def test_a_tombstone_of_a_read_write_zone_hides_the_value_of_standby_zones(zones, held_by, options):
    """The delete has not reached the standby zones. It must not come back from there."""
    client = await migrating(zones)
    cache = client.cache
    await cache.set("k", "value", consistency="all")
    value = zones.held("k", "d")
    await cache.delete("k", consistency="all")
    zones.put_back("k", value, *NEW)
    zones.evict("k", *(zone for zone in OLD if zone not in held_by))
    reader = await zones.ready(zones=in_modes(zones.topology, OLD, NEW))  # it has not seen the delete
    assert await reader.get("k", **options) is None
    assert await reader.get_many(["k"], **options) == {}
    await pass_time()
    assert set(zones.values("k").values()) <= {TOMBSTONE, None, "value"}
    assert all(zones.values("k")[zone] != "value" for zone in OLD)


@on_zones(zones=6)
async def test_fallback_on_miss_applies_to_standby_zones(zones):
    cache = await in_standby(zones)
    assert await cache.get("k", fallback_on_miss=False) is None
    await zones.kill(*OLD)
    assert await cache.get("k", fallback_on_miss=False) == "value"  # a failure is no miss


@on_zones(zones=6)
async def test_an_empty_set_takes_no_budget_from_the_standby_zones(zones):
    """Every read of a new set comes to the standby zones. The budget of other zones would end after some of them."""
    listener = Listener()
    client = await migrating(zones, failover=Failover(ratio=1.0, burst=4), repair=False, hooks=listener)
    cache = client.cache
    await cache.set_many({f"k{number}": number for number in range(200)}, consistency="all")
    for number in range(200):
        zones.evict(f"k{number}", *OLD)
    for number in range(100):
        assert await cache.get(f"k{number}") == number
    found = await cache.get_many([f"k{number}" for number in range(100, 200)])
    assert len(found) == 100
    assert listener.denied  # by the budget of the read-write zones
    assert set(listener.denied) <= set(OLD)


def keys_asked(zones, *names):
    """Return how often the zones were asked for a key."""
    return sum(keys_read(packet) for zone in names for packet in zones.sent[zone])


NO_BUDGET = Failover(ratio=0, burst=0)


@each_read
@pytest.mark.parametrize("hedging", [None, Hedging()], ids=["", "hedged"])
@pytest.mark.parametrize("down", ["", "b", "first standby"])
@on_zones(zones=6)
async def test_a_read_that_missed_asks_one_standby_zone_without_budget(zones, read, hedging, down):
    """The miss would hide an acknowledged write."""
    cache = await in_standby(zones, failover=NO_BUDGET, hedging=hedging, repair=False, circuit=QUICK)
    first, second, _ = (pool.name for pool in cache._runtime.cluster.view.standby)
    if down:
        await cut_off(zones, cache, "b" if down == "b" else first)
    zones.forget()
    for _ in range(5):
        assert await READS[read](cache) == "value"
    asked = second if down == "first standby" else first
    assert [zone for zone in NEW if keys_asked(zones, zone)] == [asked]
    zones.resume(*OLD, *NEW)


@pytest.mark.parametrize("read", ["get", "get_item", "get_many"])
@on_zones(zones=6)
async def test_a_read_that_failed_asks_no_standby_zone_without_budget(zones, read):
    """It raises, and hides nothing."""
    cache = await in_standby(zones, failover=NO_BUDGET, circuit=QUICK)
    await zones.kill(*OLD)
    for _ in range(3):
        with pytest.raises(CacheUnavailable):
            await READS[read](cache)
    assert cache.stats().failovers_denied


@pytest.mark.parametrize(("ratio", "asked_each"), [(0, 1), (1, 2)])
@on_zones(zones=6)
async def test_the_budget_limits_requests_to_further_standby_zones(zones, ratio, asked_each):
    cache = (await migrating(zones, failover=Failover(ratio=ratio, burst=0), repair=False)).cache
    for number in range(10):
        assert await cache.get(f"one{number}") is None
        assert await cache.get_many([f"many{number}", f"other{number}"]) == {}
    asked = keys_asked(zones, *NEW)
    assert asked in (30 * asked_each, 30 * asked_each + 1)  # one for the rounding
    assert cache.stats().failovers == asked + keys_asked(zones, "b", "c")


@on_zones(zones=6)
async def test_an_empty_set_leaves_tokens_for_a_second_standby_zone(zones):
    """An empty standby zone would hide what the others hold, if other reads took the tokens for read-write zones."""
    zones.latency = 0.01
    cache = (await migrating(zones, failover=Failover(ratio=1.0, burst=4), repair=False)).cache
    names = [f"k{number}" for number in range(200)]
    await cache.set_many(dict.fromkeys(names, "value"), consistency="all")
    first = cache._runtime.cluster.view.standby[0].name
    for name in names:
        zones.evict(name, *OLD, first)
    reads = []
    for name in names[:100]:
        reads.append(asyncio.ensure_future(cache.get(name)))
        await pass_time(0.005)  # a part of the time in which a zone answers, so that the next read is in between
    assert await asyncio.gather(*reads) == ["value"] * 100
    assert len(await cache.get_many(names[100:])) == 100


@on_zones(zones=6, nodes=2)
async def test_keys_that_missed_and_keys_that_failed_are_read_together_from_a_standby_zone(zones):
    """The keys that failed take tokens, the others do not."""
    client = await migrating(zones, failover=Failover(ratio=1.0, burst=0), repair=False, circuit=QUICK)
    cache = client.cache
    values = {f"k{number}": number for number in range(20)}
    await cache.set_many(values, consistency="all")
    for name in values:
        zones.evict(name, *OLD)
    for zone in OLD:
        await zones.servers[zone][0].kill()
    for _ in range(3):  # the first read finds out, the others know
        assert await cache.get_many(list(values)) == values
        await pass_time()


def stale_in(zones, older, *names):
    zones.put_back("k", older, *names)


@each_read
@pytest.mark.parametrize("stale", NEW)
@on_zones(zones=6)
async def test_a_quorum_read_returns_the_latest_version_of_the_standby_zones(zones, read, stale):
    writer = (await migrating(zones)).cache
    await writer.set("k", "old", ttl=100, consistency="all")
    older = zones.held("k", "d")
    await writer.set("k", "new", ttl=100, consistency="all")
    stale_in(zones, older, stale)
    zones.evict("k", *OLD)
    cache = await zones.ready(zones=in_modes(zones.topology, OLD, NEW))
    assert await READS[read](cache, consistency="quorum") == "new"
    await pass_time()
    assert zones.values("k") == dict.fromkeys(OLD + NEW, "new")


@pytest.mark.parametrize("stale", NEW)
@on_zones(zones=6)
async def test_an_older_hit_at_one_is_not_copied(zones, stale):
    """A copy of it would be the latest version in the read-write zones, and quorum reads would return it."""
    writer = (await migrating(zones)).cache
    await writer.set("k", "old", ttl=100, consistency="all")
    older = zones.held("k", "d")
    await writer.set("k", "new", ttl=100, consistency="all")
    stale_in(zones, older, stale)
    zones.evict("k", *OLD)
    cache = await zones.ready(zones=in_modes(zones.topology, OLD, NEW))
    await cache.get("k")
    await pass_time()
    assert zones.values("k") == dict.fromkeys(OLD + NEW, "new")
    assert await cache.get("k", consistency="quorum") == "new"


@on_zones(zones=6)
async def test_a_hit_that_too_few_standby_zones_confirm_is_served_at_one_and_copied_nowhere(zones):
    writer = (await migrating(zones)).cache
    await writer.set("k", "old", ttl=100, consistency="all")
    older = zones.held("k", "d")
    await writer.set("k", "new", ttl=100, consistency="all")
    stale_in(zones, older, "d")
    zones.evict("k", *OLD)
    cache = await zones.ready(zones=in_modes(zones.topology, OLD, NEW))
    zones.pause("e", "f")
    assert await cache.get("k", consistency="quorum", timeout=0.2) is None
    assert await cache.get_many(["k"], consistency="quorum", timeout=0.2) == {}
    assert await cache.get("k") == "old"  # as a stale zone serves it at this level
    await pass_time(3)
    assert all(zones.values("k")[zone] is None for zone in OLD)
    zones.resume("e", "f")


@each_read
@on_zones(zones=6)
async def test_standby_zones_do_not_count_for_the_level_of_a_read(zones, read):
    cache = await in_standby(zones)
    await zones.kill("b", "c")
    if read == "get_or_load":
        assert await cache.get_or_load("k", _loaded, consistency="quorum") == "loaded"
        return
    with pytest.raises(ConsistencyError):
        await READS[read](cache, consistency="quorum")


async def _loaded():
    return "loaded"


@on_zones(zones=6)
async def test_one_read_write_zone_has_quorum_reads_of_all_standby_zones(zones):
    writer = (await migrating(zones)).cache
    await writer.set("k", "old", ttl=100, consistency="all")
    older = zones.held("k", "d")
    await writer.set("k", "new", ttl=100, consistency="all")
    stale_in(zones, older, "a")  # the standby zone that is asked first
    zones.evict("k", "d")
    cache = await zones.ready(zones=in_modes(zones.topology, "d", OLD))
    assert await cache.get_many(["k"], consistency="quorum") == {"k": "new"}
    await pass_time()
    zones.evict("k", "d")
    assert await cache.get("k", consistency="quorum") == "new"


@on_zones(zones=6)
async def test_read_write_zones_are_read_first(zones):
    cache = (await migrating(zones)).cache
    await cache.set("k", "value", consistency="all")
    zones.forget()
    await cache.get("k")
    await cache.get_many(["k"])
    await cache.get("k", consistency="all")
    assert not keys_asked(zones, *NEW)
    assert (await cache.get_item("k")).source == "local"
    zones.evict("k", *OLD)
    item = await cache.get_item("k")
    assert (item.zone in NEW, item.source) == (True, "fallback")


@pytest.mark.parametrize("how", ["silent", "warming"])
@on_zones(zones=6)
async def test_a_node_that_is_not_settled_is_followed_by_read_write_zones(zones, how):
    """Reads of its keys begin with another order of zones, in which standby zones are still the last."""
    circuit = QUICK if how == "silent" else CircuitLimits(slow_start=60, longest_pause=1.0)
    cache = (await migrating(zones, circuit=circuit)).cache
    await cache.set("k", "value", consistency="all")
    if how == "warming":
        await cut_off(zones, cache, "a")
        zones.resume("a")
        await pass_time(3)  # the client finds out, and begins to send some reads
    else:
        zones.pause("a")
    zones.forget()
    for _ in range(20):
        assert await cache.get("k") == "value"
        assert await cache.get_many(["k"]) == {"k": "value"}
    zones.resume("a")
    assert not keys_asked(zones, *NEW)


@on_zones(zones=6)
async def test_the_near_cache_serves_and_forgets_as_before_while_modes_change(zones):
    client = await migrating(zones, near_cache=NearCache(ttl=60))
    cache = client.cache
    await cache.set("k", 1, consistency="all")
    assert await cache.get("k") == 1
    await client.use(NEW, OLD)
    zones.forget()
    assert await cache.get("k") == 1
    assert all(not zones.commands(zone) for zone in OLD + NEW)  # a near hit
    await cache.set("k", 2, consistency="all")
    assert await cache.get("k") == 2
    await cache.delete("k", consistency="all")
    assert await cache.get("k") is None


@on_zones(zones=6)
async def test_a_call_keeps_the_modes_of_its_begin(zones):
    client = await migrating(zones)
    await client.cache.set("k", "value", consistency="all")
    zones.pause("a")
    reading = asyncio.ensure_future(client.cache.get("k", consistency="all", timeout=1))
    await pass_time(0.1)
    await client.use(NEW, OLD)
    zones.resume("a")
    zones.forget()
    assert await reading == "value"
    assert not keys_asked(zones, *NEW)
