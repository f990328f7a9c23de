"""Reads that leave their own zone: how many may, and what a zone gets that has just come back."""

import asyncio

import pytest

from evcache import CacheUnavailable, CircuitLimits, Failover
from evcache.errors import FailoverDenied
from evcache.zones.errors import NodeUnavailable
from evcache.zones.health.slow_start import SlowStart
from tests.support.memory_zones import PATIENT, QUICK, Listener, Stopwatch, cut_off, full, on_zones, pass_time

NOTHING = Failover(ratio=0, burst=0)
JUST_ENOUGH = Failover(ratio=1, burst=0)

READS = {
    "get": lambda cache, key, **options: cache.get(key, **options),
    "get_item": lambda cache, key, **options: value_of(cache.get_item(key, **options)),
    "get_many": lambda cache, key, **options: only(cache.get_many([key], **options)),
}
reads = pytest.mark.parametrize("read", READS.values(), ids=READS)


async def value_of(item):
    item = await item
    return None if item is None else item.value


async def only(found):
    return next(iter((await found).values()), None)


def mg(zones, zone):
    """How many reads reached a zone since `forget`."""
    return zones.commands(zone).get("mg", 0)


# The failover budget.


@reads
@on_zones()
async def test_without_a_budget_the_own_zone_is_all_there_is(zones, read):
    """It is read as ever; the others are not asked, which the hook is told, and the failures say why."""
    listener = Listener()
    cache = await zones.ready(hooks=listener, failover=NOTHING)
    await cache.set("k", "value", consistency="all")
    assert await read(cache, "k") == "value"
    assert listener.denied == []
    await zones.kill("a")
    zones.forget()
    with pytest.raises(CacheUnavailable) as caught:
        await read(cache, "k")
    assert (mg(zones, "b"), mg(zones, "c")) == (0, 0)
    assert isinstance(caught.value.failures["a"], NodeUnavailable)
    assert {type(caught.value.failures[zone]) for zone in "bc"} == {FailoverDenied}
    assert "budget" in str(caught.value)
    assert len(listener.denied) == 1  # once for each read
    assert await read(cache, "k", errors="miss") is None
    stats = cache.stats()
    assert (stats.failovers, stats.failovers_denied) == (0, 2)


@reads
@on_zones()
async def test_a_miss_in_the_own_zone_is_a_miss_when_the_others_are_not_asked(zones, read):
    """One answer is enough."""
    cache = await zones.ready(failover=NOTHING)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    assert await read(cache, "k") is None


@reads
@on_zones()
async def test_with_one_request_for_each_read_every_read_is_served(zones, read):
    """The own zone is dead, and each read is served by the next; none of it is saved up."""
    cache = await zones.ready(failover=JUST_ENOUGH)
    await cache.set("k", "value", consistency="all")
    await zones.kill("a")
    for _ in range(300):
        assert await read(cache, "k") == "value"
    stats = cache.stats()
    assert (stats.failovers, stats.failovers_denied) == (300, 0)


@reads
@on_zones()
async def test_with_two_zones_dead_every_read_is_served_by_the_third(zones, read):
    """A zone that is known to be down costs the budget nothing."""
    cache = await zones.ready(failover=JUST_ENOUGH)
    await cache.set("k", "value", consistency="all")
    assert cache.stats().failovers == 0
    second = [pool.name for pool in cache._cluster.view.readers][1]
    await cut_off(zones, cache, "a", second)
    for _ in range(100):
        assert await read(cache, "k") == "value"
    assert cache.stats().failovers_denied == 0


@reads
@on_zones(nodes=4)
async def test_a_node_that_is_down_costs_nothing(zones, read):
    """Of the own zone and of the next the node of a key is down, and neither zone as a whole: the third serves the key."""
    cache = await zones.ready(failover=JUST_ENOUGH)
    await cache.set("k", "value", consistency="all")
    for pool in cache._cluster.view.readers[:2]:
        (holder,) = [fake for fake in zones.servers[pool.name] if fake.store.get(full("k")) is not None]
        await holder.kill()
    await cache.set("k", "value", errors="miss")  # the client finds out
    await pass_time()
    assert cache.stats().zones_out == ()
    assert cache.stats().nodes_down == 2
    await cache.get_many([])
    for _ in range(20):
        assert await read(cache, "k") == "value"
    assert cache.stats().failovers_denied == 0


@reads
@on_zones()
async def test_many_misses_double_no_zone_s_load(zones, read):
    """The own zone is dead and the second misses: asking the third too is something that a read can do without."""
    cache = await zones.ready(failover=Failover(ratio=1, burst=40))
    await zones.kill("a")
    await read(cache, "k")
    zones.forget()
    for _ in range(500):
        assert await read(cache, "k") is None
    second, third = sorted((mg(zones, "b"), mg(zones, "c")), reverse=True)
    assert second == 500
    assert third <= 40


@reads
@on_zones()
async def test_a_share_of_the_reads(zones, read):
    """With less than one request for each read some fail, and the other zones get no more than they should."""
    cache = await zones.ready(failover=Failover(ratio=0.25, burst=10))
    await cache.set("k", "value", consistency="all")
    await zones.kill("a")
    zones.forget()
    served = 0
    for _ in range(400):
        served += await read(cache, "k", errors="miss") == "value"
    assert 100 <= served <= 111
    assert mg(zones, "b") + mg(zones, "c") == served


@on_zones()
async def test_a_call_for_many_keys_gets_what_there_is(zones):
    """As many keys as the budget allows are answered; for the others the call says that it could not be asked."""
    cache = await zones.ready(failover=Failover(ratio=0, burst=7))
    values = {f"k{number}": number for number in range(20)}
    await cache.set_many(values, consistency="all")
    await zones.kill("a")
    with pytest.raises(CacheUnavailable) as caught:
        await cache.get_many(list(values))
    assert 4 <= len(caught.value.found) <= 7
    assert caught.value.found.items() <= values.items()


@on_zones()
async def test_a_client_that_is_in_no_zone_has_a_home_all_the_same(zones):
    """The zone that it reads first costs nothing, whichever it is."""
    cache = await zones.ready(local_zone=None, failover=NOTHING)
    await cache.set("k", "value", consistency="all")
    for _ in range(10):
        assert await cache.get("k") == "value"
    assert cache.stats().failovers_denied == 0


@on_zones()
async def test_reads_of_several_zones_are_not_held_up(zones):
    """They ask for every zone, whatever happens: the budget is about what happens when one fails."""
    cache = await zones.ready(failover=NOTHING)
    await cache.set("k", "value", consistency="all")
    await zones.kill("a")
    assert await cache.get("k", consistency="quorum") == "value"
    assert await cache.get_many(["k"], consistency="quorum") == {"k": "value"}


# The share of the time.


@reads
@on_zones()
async def test_a_zone_that_is_down_gets_no_share_of_the_time(zones, read):
    """The first zone hangs for its third. The second may answer until the deadline, because the third is known to be down."""
    cache = await zones.ready(circuit=PATIENT, hints=None)
    await cache.set("k", "value", consistency="all")
    _, second, third = (pool.name for pool in cache._cluster.view.readers)
    await zones.kill(third)
    assert not await cache.set("k", "value", consistency="all")  # the client notices
    await pass_time()
    zones.pause("a", second)
    asyncio.get_running_loop().call_later(0.25, zones.resume, second)
    watch = Stopwatch()
    assert await read(cache, "k", timeout=0.3) == "value"
    assert watch.seconds == pytest.approx(0.25)


@reads
@pytest.mark.parametrize("index", [0, 1, 2])
@on_zones()
async def test_a_silent_zone_is_asked_again_at_the_end(zones, read, index):
    """All zones become silent, and one of them resumes before the deadline. Reads leave a zone only if several wait on it."""
    cache = await zones.ready(circuit=PATIENT)
    await cache.set("k", "value", consistency="all")
    resumed = [pool.name for pool in cache._cluster.view.readers][index]
    zones.pause("a", "b", "c")
    calls = [asyncio.create_task(read(cache, "k", timeout=0.1)) for _ in range(8)]
    await asyncio.sleep(0.03)
    zones.resume(resumed)
    assert await asyncio.gather(*calls) == ["value"] * 8


# A zone that is out, and one that has come back.


class Draws:
    """In place of chance."""

    def __init__(self, monkeypatch, value):
        self.value = value
        original = SlowStart.__init__
        monkeypatch.setattr(SlowStart, "__init__", lambda slow_start: original(slow_start, lambda: self.value))


@reads
@on_zones()
async def test_a_zone_that_is_out_is_read_last(zones, read):
    """Its nodes are not asked at all, and once they are back it is first again."""
    cache = await zones.ready(circuit=QUICK)
    await cache.set("k", "value", consistency="all")
    await cut_off(zones, cache, "a")
    assert cache.stats().zones_out == ("a",)
    zones.forget()
    assert await read(cache, "k") == "value"
    assert mg(zones, "a") == 0
    zones.resume("a")
    await pass_time(5)
    assert cache.stats().zones_out == ()
    zones.forget()
    assert await read(cache, "k") == "value"
    assert (mg(zones, "a"), mg(zones, "b"), mg(zones, "c")) == (1, 0, 0)


async def back(zones, **options):
    """A client whose own zone was cut off, and is back, and gets a share of the reads for so many seconds."""
    cache = await zones.ready(circuit=CircuitLimits(longest_pause=1.0, slow_start=60.0), hints=None, repair=False, **options)
    await cache.set_many({f"k{number}": number for number in range(10)}, ttl=10_000, consistency="all")
    await cut_off(zones, cache, "a")
    zones.resume("a")
    await pass_time(5)
    assert cache.stats().nodes_down == 0
    zones.forget()
    return cache


@reads
@on_zones()
async def test_a_zone_that_has_come_back_gets_a_tenth_of_the_reads(zones, read, monkeypatch):
    """The others go to the next zone, which has the value, and to it only where that one misses."""
    listener = Listener()
    draws = Draws(monkeypatch, 0.2)
    cache = await back(zones, hooks=listener)
    for number in range(10):
        assert await read(cache, f"k{number}") == number
    assert mg(zones, "a") == 0
    assert {zone for zone, _ in listener.left[-10:]} == {"a"}
    draws.value = 0.05
    assert await read(cache, "k0") == 0
    assert mg(zones, "a") == 1


@on_zones()
async def test_what_the_others_do_not_have_is_read_where_it_is(zones, monkeypatch):
    """A zone that gets a share of the reads is still a zone: it is asked last, not never."""
    Draws(monkeypatch, 0.99)
    cache = await back(zones)
    zones.evict("k1", "b", "c")
    assert await cache.get("k1") == 1
    assert await cache.get_many(["k1"]) == {"k1": 1}
    await zones.kill("b", "c")
    assert await cache.get("k2") == 2
    assert await cache.get_many(["k2"]) == {"k2": 2}


@reads
@on_zones()
async def test_the_share_grows_with_the_hits_until_all_is_well(zones, read, monkeypatch):
    """Some fifty hits make it warm; then it gets every read, whatever is drawn."""
    draws = Draws(monkeypatch, 0.05)
    cache = await back(zones)
    for _ in range(60):
        assert await read(cache, "k1") == 1
    draws.value = 0.999999
    zones.forget()
    assert await read(cache, "k2") == 2
    assert (mg(zones, "a"), mg(zones, "b"), mg(zones, "c")) == (1, 0, 0)


@reads
@on_zones()
async def test_misses_keep_the_share_small_until_the_time_is_over(zones, read, monkeypatch):
    """A node that came back empty gets a tenth for as long as it misses, and all when its minute is over."""
    draws = Draws(monkeypatch, 0.05)
    cache = await back(zones)
    for _ in range(100):
        assert await read(cache, "nothing") is None
    draws.value = 0.2
    zones.forget()
    assert await read(cache, "k1") == 1
    assert mg(zones, "a") == 0
    await pass_time(60)
    assert await read(cache, "k1") == 1
    assert mg(zones, "a") == 1


@on_zones()
async def test_writes_are_never_held_back(zones, monkeypatch):
    """They are what fills a node that came back empty."""
    Draws(monkeypatch, 0.99)
    cache = await back(zones)
    assert await cache.set("k", "value", consistency="all")
    assert zones.held("k", "a").value == "value"
