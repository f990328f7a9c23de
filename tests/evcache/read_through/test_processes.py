"""Loads in several processes: one loads and the others wait; and what is written during a load is not hidden by it."""

import asyncio

import pytest

from evcache.load_policy import LoadPolicy
from tests.support.memory_zones import Stopwatch, cut_off, on_zones, pass_time
from tests.support.sources import (
    STUB,
    Source,
    assert_nothing_left,
    no_stubs,
    on_releases,
    outcomes,
    seen,
    started,
    stubs,
)
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)
STALE = LoadPolicy(jitter=0, refresh_after=1, stale_while_revalidate=5)
ALONE = LoadPolicy(jitter=0, lease=False, xfetch_beta=0)


# Several processes, one zone.


@on_releases("1.6.38", "1.6.18", zones=2)
async def test_one_of_all_processes_loads(zones):
    """The others are given its value."""
    caches = [await zones.ready() for _ in range(4)]
    source = Source(seconds=0.3)
    calls = [cache.get_or_load("k", source.load) for cache in caches for _ in range(25)]
    assert await asyncio.gather(*calls) == ["v"] * 100
    assert source.calls == 1
    assert [cache.stats().loads.leases_won for cache in caches].count(1) == 1
    assert seen(zones, "k") == {"a": "v", "b": "v"}
    assert no_stubs(zones)
    await assert_nothing_left(*caches)


@on_zones()
async def test_one_process_in_each_zone_loads(zones):
    """None waits for another zone's."""
    caches = [await zones.ready(local_zone=zone) for zone in "abc" for _ in range(3)]
    source = Source(seconds=0.3)
    assert await asyncio.gather(*(cache.get_or_load("k", source.load) for cache in caches)) == ["v"] * 9
    assert source.calls == 3
    assert seen(zones, "k") == dict.fromkeys("abc", "v")
    await pass_time(1)
    assert no_stubs(zones)
    await assert_nothing_left(*caches)


@on_zones(zones=2, classic_only=True)
async def test_without_the_meta_protocol_each_process_loads(zones):
    """No lease can make the processes wait. Each process still runs one loader."""
    caches = [await zones.ready() for _ in range(3)]
    source = Source(seconds=0.3)
    calls = [cache.get_or_load("k", source.load) for cache in caches for _ in range(5)]
    assert await asyncio.gather(*calls) == ["v"] * 15
    assert source.calls == 3
    assert await caches[0].get_or_load("k", source.load) == "v"
    assert source.calls == 3
    await assert_nothing_left(*caches)


@pytest.mark.parametrize("classic", [False, True], ids=["meta", "classic"])
def test_without_cas_each_process_loads_once_and_its_value_is_kept(classic):
    """Servers run with `-C`: there are no leases, and nothing to compare a store with."""

    @on_zones(zones=2, classic_only=classic, cas_enabled=False)
    async def check(zones):
        caches = [await zones.ready() for _ in range(3)]
        source = Source(seconds=0.3)
        calls = [cache.get_or_load("k", source.load, policy=EXACT) for cache in caches for _ in range(5)]
        assert await asyncio.gather(*calls) == ["v"] * 15
        assert source.calls == 3
        assert seen(zones, "k") == {"a": "v", "b": "v"}
        for cache in caches:
            assert await cache.get_or_load("k", source.load) == "v"
            assert await cache.get_or_load_many(["k"], source.load_many) == {"k": "v"}
        assert source.calls == 3
        assert await caches[0].get_or_load_many(["m", "n"], source.load_many) == {"m": "v", "n": "v"}
        assert seen(zones, "m") == {"a": "v", "b": "v"}
        assert sum(cache.stats().loads.leases_won for cache in caches) == 0
        await caches[1].delete("k")
        source.value = "after"
        assert await caches[0].get_or_load("k", source.load) == "after"
        assert await caches[2].get("k") == "after"
        await assert_nothing_left(*caches)

    check()


@on_zones(zones=2, cas_enabled=False)
async def test_without_cas_a_value_is_loaded_anew_before_it_goes(zones):
    """The load runs in the background, and the loaded value replaces the old one."""
    cache, source = await zones.ready(), Source("old")
    await cache.get_or_load("k", source.load, ttl=10, policy=EXACT)
    await pass_time(8.5)
    source.value = "new"
    assert await cache.get_or_load("k", source.load, ttl=10, policy=EXACT) == "old"
    await pass_time(0.1)
    assert seen(zones, "k") == {"a": "new", "b": "new"}
    assert source.calls == 2


@on_zones(zones=2)
async def test_without_leases_each_process_loads(zones):
    caches = [await zones.ready() for _ in range(3)]
    source = Source(seconds=0.3)
    assert await asyncio.gather(*(cache.get_or_load("k", source.load, policy=ALONE) for cache in caches)) == ["v"] * 3
    assert source.calls == 3
    assert b" N" not in zones.wire("a")


@on_zones(zones=2)
async def test_who_waits_too_long_for_another_process_loads_for_itself(zones):
    """And stores nothing: the other has the say."""
    winner, loser = await zones.ready(), await zones.ready()
    slow, quick = Source("slow", seconds=5), Source("quick", seconds=0.1)
    first = asyncio.create_task(winner.get_or_load("k", slow.load))
    await started(slow)
    watch = Stopwatch()
    assert await loser.get_or_load("k", quick.load, policy=LoadPolicy(lease_wait=1.5)) == "quick"
    assert watch.seconds == pytest.approx(1.6)
    assert seen(zones, "k") == {"a": STUB, "b": None}
    assert await first == "slow"
    assert seen(zones, "k") == {"a": "slow", "b": "slow"}
    await assert_nothing_left(winner, loser)


@pytest.mark.parametrize("lease_wait", [0, 0.001])
@on_zones(zones=2)
async def test_who_would_not_wait_does_not(zones, lease_wait):
    winner, loser, source = await zones.ready(), await zones.ready(), Source(seconds=0.5)
    first = asyncio.create_task(winner.get_or_load("k", source.load))
    await started(source)
    watch = Stopwatch()
    assert await loser.get_or_load("k", source.load, policy=LoadPolicy(lease_wait=lease_wait)) == "v"
    assert watch.seconds == pytest.approx(0.5 + lease_wait)
    assert await first == "v"


@on_zones(zones=2)
async def test_the_lease_of_a_process_that_died_goes_to_another(zones):
    """Within `lease_seconds`; until then the others load for themselves, and keep nothing."""
    winner, second, third = [await zones.ready() for _ in range(3)]
    slow, quick = Source("slow", seconds=1000), Source("quick")
    policy = LoadPolicy(lease_seconds=4, lease_wait=0.5, load_timeout=5000, hard_timeout=5000)
    first = asyncio.create_task(winner.get_or_load("k", slow.load, policy=policy))
    await started(slow)
    for node in winner._runtime.cluster.nodes.values():  # as of a process that was killed: it gives nothing back
        await node.close(0)
    await winner.close(0)
    assert not no_stubs(zones)
    for _ in range(2):
        assert await second.get_or_load("k", quick.load, policy=policy) == "quick"
        assert await second.get("k") is None
    assert quick.calls == 2
    await pass_time(4)
    assert await third.get_or_load("k", quick.load, policy=policy) == "quick"
    assert await second.get("k") == "quick"
    assert await second.get_or_load("k", quick.load, policy=policy) == "quick"
    assert quick.calls == 3
    first.cancel()
    await outcomes(first)


@on_zones(zones=2)
async def test_a_lease_is_given_back_when_the_loader_raises(zones):
    """At once: the next process need not wait until it ends."""
    first, second, source = await zones.ready(), await zones.ready(), Source(error=LookupError("gone"))
    with pytest.raises(LookupError):
        await first.get_or_load("k", source.load)
    await settle()
    assert no_stubs(zones)
    source.error = None
    watch = Stopwatch()
    assert await second.get_or_load("k", source.load) == "v"
    assert watch.seconds == 0


@on_zones(zones=2)
async def test_another_process_that_waits_loads_when_the_loader_raises(zones):
    """It notices with its next look."""
    first, second = await zones.ready(), await zones.ready()
    bad, good = Source(seconds=0.4, error=LookupError("gone")), Source("good")
    failing = asyncio.create_task(first.get_or_load("k", bad.load))
    await started(bad)
    watch = Stopwatch()
    assert await second.get_or_load("k", good.load) == "good"
    assert 0.4 <= watch.seconds <= 0.9
    assert isinstance((await outcomes(failing))[0], LookupError)
    assert seen(zones, "k") == {"a": "good", "b": "good"}


@on_zones(zones=2)
async def test_after_a_delete_there_is_one_loader_too(zones):
    """The tombstone is in the way of a stub; it is beside it, and both are gone after."""
    caches = [await zones.ready() for _ in range(3)]
    await caches[0].set("k", "old")
    await pass_time(0.01)
    await caches[1].delete("k")
    source = Source(seconds=0.3)
    tasks = [asyncio.create_task(cache.get_or_load("k", source.load)) for cache in caches]
    await started(source)
    assert [len(held) for held in stubs(zones).values()] == [1, 0]
    assert await asyncio.gather(*tasks) == ["v"] * 3
    assert source.calls == 1
    assert seen(zones, "k") == {"a": "v", "b": "v"}
    assert no_stubs(zones)


@on_zones(zones=2)
async def test_while_one_loads_the_others_are_served_what_is_out_of_date(zones):
    """All processes do so: no caller waits if there is a value to serve."""
    caches = [await zones.ready() for _ in range(3)]
    source = Source("old")
    await caches[0].get_or_load("k", source.load, ttl=10, policy=STALE)
    await pass_time(11)
    source.value, source.seconds = "new", 1.0
    watch = Stopwatch()
    assert (
        await asyncio.gather(*(cache.get_or_load("k", source.load, ttl=10, policy=STALE) for cache in caches)) == ["old"] * 3
    )
    assert watch.seconds == 0
    await pass_time(1.1)
    assert source.calls == 2
    assert [await cache.get_or_load("k", source.load, ttl=10, policy=STALE) for cache in caches] == ["new"] * 3
    assert source.calls == 2
    assert no_stubs(zones)
    await assert_nothing_left(*caches)


# What is down.


@on_zones(zones=2)
async def test_a_lease_is_got_in_another_zone_when_the_local_one_is_down(zones):
    caches = [await zones.ready() for _ in range(3)]
    await cut_off_all(zones, caches, "a")
    source = Source(seconds=0.3)
    assert await asyncio.gather(*(cache.get_or_load("k", source.load) for cache in caches)) == ["v"] * 3
    assert source.calls == 1
    assert seen(zones, "k")["b"] == "v"


async def cut_off_all(zones, caches, *names):
    for cache in caches:
        await cut_off(zones, cache, *names)


@on_zones(zones=2)
async def test_a_value_that_is_there_after_all_ends_the_wait(zones):
    """This includes a value whose refresh is due: it is fresh for a caller that waits for it."""
    first, second = await zones.ready(), await zones.ready()
    source, own = Source("v", seconds=0.3), Source("own")
    waiting = asyncio.create_task(first.get_or_load("k", source.load))
    await started(source)
    watch = Stopwatch()
    assert await second.get_or_load("k", own.load, policy=LoadPolicy(refresh_after=0)) == "v"
    assert watch.seconds < 1
    assert own.calls == 0
    await waiting
