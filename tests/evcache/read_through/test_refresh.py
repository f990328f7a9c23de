"""Values that are refreshed before they are stale, and served after that."""

import asyncio

import pytest

from evcache import NearCache
from evcache.load_policy import LoadPolicy
from evcache.values.flags import FLAG_ENVELOPE
from tests.support.memory_zones import Stopwatch, full, on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import (
    LoadListener,
    Source,
    assert_nothing_left,
    no_stubs,
    seen,
)
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)
STALE = LoadPolicy(jitter=0, refresh_after=1, stale_while_revalidate=5)
FAIL_SAFE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, failure_backoff=5)


# Before it is out of date.


@on_zones(zones=2)
async def test_after_the_soft_time_one_reader_has_it_loaded_anew(zones):
    """The refresh runs in the background and no caller waits. One process of each zone refreshes, not each process."""
    caches = [await zones.ready(local_zone=zone) for zone in "ab" for _ in range(2)]
    source = Source("old")
    await caches[0].get_or_load("k", source.load, ttl=100, policy=EXACT)
    await pass_time(79)
    for cache in caches:
        assert await cache.get_or_load("k", source.load, ttl=100, policy=EXACT) == "old"
    assert source.calls == 1
    await pass_time(2)
    source.value, source.seconds = "new", 0.5
    watch = Stopwatch()
    for cache in caches * 3:
        assert await cache.get_or_load("k", source.load, ttl=100, policy=EXACT) == "old"
    assert watch.seconds == 0
    await pass_time(1)
    assert source.calls == 3
    assert seen(zones, "k") == {"a": "new", "b": "new"}
    assert zones.held("k", "a").ttl == 100
    assert [await cache.get_or_load("k", source.load, ttl=100, policy=EXACT) for cache in caches] == ["new"] * 4
    assert source.calls == 3
    assert no_stubs(zones)
    await assert_nothing_left(*caches)


@on_zones(zones=2)
async def test_a_value_that_somebody_has_set_is_loaded_anew_too(zones):
    """Its version says when it was made."""
    cache, source = await zones.ready(), Source("loaded")
    await cache.set("k", "set", ttl=100)
    await pass_time(85)
    assert await cache.get_or_load("k", source.load, ttl=100, policy=EXACT) == "set"
    await pass_time(0.1)
    assert await cache.get_or_load("k", source.load, ttl=100, policy=EXACT) == "loaded"


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@on_zones(zones=2)
async def test_an_absence_is_not_loaded_anew_before_its_end(zones, many):
    """It lives for seconds only."""
    cache, source = await zones.ready(), Source(None)

    async def ask():
        if many:
            return await cache.get_or_load_many(["k"], Source({}).load_many, policy=EXACT) or None
        return await cache.get_or_load("k", source.load, policy=EXACT)

    await cache.get_or_load("k", source.load, policy=EXACT)
    await pass_time(9.5)
    zones.forget()
    assert await ask() is None
    await settle()
    assert (source.calls, cache.stats().loads.loads) == (1, 1)
    assert b" N" not in zones.wire("a"), "no lease is asked for either"


@pytest.mark.parametrize("near_cache", [None, NearCache(ttl=300)])
@on_zones(zones=2)
async def test_a_refresh_that_fails_changes_nothing_and_is_not_repeated_for_a_while(zones, near_cache, caplog):
    """The old value is served until it is out of date. In all processes: the lease is kept as long."""
    listener = LoadListener()
    cache, other = await zones.ready(near_cache=near_cache, hooks=listener), await zones.ready()
    if near_cache is not None:
        follow_loop(cache)
    source = Source("old")
    policy = LoadPolicy(jitter=0, failure_backoff=5)
    await cache.get_or_load("k", source.load, ttl=100, policy=policy)
    await pass_time(81)
    source.error = LookupError("down")
    for _ in range(5):
        assert await cache.get_or_load("k", source.load, ttl=100, policy=policy) == "old"
        assert await other.get_or_load("k", source.load, ttl=100, policy=policy) == "old"
        await pass_time(0.9)
    assert source.calls == 2
    assert [error for _, _, error in listener.loads] == [None, source.error]
    assert "background load of b't:k' failed: " in caplog.text
    await pass_time(1)
    for _ in range(3):
        assert await cache.get_or_load("k", source.load, ttl=100, policy=policy) == "old"
        await settle()
    assert source.calls == 3
    source.error, source.value = None, "new"
    await pass_time(6)
    assert await cache.get_or_load("k", source.load, ttl=100, policy=policy) == "old"
    await settle()
    assert await cache.get_or_load("k", source.load, ttl=100, policy=policy) == "new"
    assert listener.stale == []


@on_zones(zones=2)
async def test_what_nobody_waits_for_is_bounded(zones):
    """Refreshes over the limit are left to a later reader; those who wait for a load are not hindered by them."""
    cache, source = await zones.ready(max_loads=1000), Source("old")
    keys = [f"k{number}" for number in range(80)]
    await asyncio.gather(*(cache.get_or_load(key, source.load, ttl=100, policy=EXACT) for key in keys))
    await pass_time(85)
    source.seconds, source.value, source.calls = 5, "new", 0
    for key in keys:
        assert await cache.get_or_load(key, source.load, ttl=100, policy=EXACT) == "old"
    await pass_time(1)
    assert source.calls == 64
    watch = Stopwatch()
    assert await cache.get_or_load("other", source.load) == "new"
    assert watch.seconds == 5
    for key in keys:
        assert await cache.get_or_load(key, source.load, ttl=100, policy=EXACT) in ("old", "new")
    await pass_time(6)
    assert source.calls == 81
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_without_leases_early_loads_are_drawn(zones):
    """By how long a load takes: far from its end hardly ever, near to it almost always."""
    cache = await zones.ready()
    source = Source("old", seconds=1)
    policy = LoadPolicy(jitter=0, lease=False)
    draws = []
    cache._runtime.read_through._lookup._draw = lambda: draws.pop()
    draws[:] = [0.5] * 5
    await cache.get_or_load("k", source.load, ttl=100, policy=policy)
    assert zones.one("a").store.get(full("k")).flags == FLAG_ENVELOPE
    await pass_time(95)
    draws[:] = [1 - 0.01] * 2  # 4.6 s for a load that takes one
    assert await cache.get_or_load("k", source.load, ttl=100, policy=policy) == "old"
    await settle()
    assert source.calls == 1
    draws[:] = [1 - 0.001] * 2  # 6.9 s
    assert await cache.get_or_load("k", source.load, ttl=100, policy=policy) == "old"
    await settle()
    assert source.calls == 2
    draws[:] = [0.5] * 5
    await pass_time(2)
    assert (await cache.get_item("k")).ttl in (98, 99, 100)


# After it is out of date.


@on_zones(zones=2)
async def test_what_may_be_served_for_longer_is_a_miss_to_plain_reads(zones):
    """They know of its `ttl` alone; the item says how long it is fresh, not how long it is kept."""
    cache, other = await zones.ready(), await zones.ready(local_zone="b")
    for key, policy in (("stale", STALE), ("safe", FAIL_SAFE)):
        await cache.get_or_load(key, Source([1]).load, ttl=10, policy=policy)
    await pass_time(4)
    for key in ("stale", "safe"):
        assert await other.get(key) == [1]
        assert (await other.get_item(key)).value == [1]
        assert await other.get_many([key]) == {key: [1]}
    assert (await other.get_item("stale")).ttl == 6
    await pass_time(6)
    for key in ("stale", "safe"):
        assert await other.get(key, "default") == "default"
        assert await other.get_item(key) is None
        assert await other.get_many([key]) == {}
        assert zones.one("b").store.get(full(key)) is not None


@pytest.mark.parametrize("policy", [STALE, FAIL_SAFE], ids=["stale_while_revalidate", "stale_if_error"])
@on_zones(zones=2)
async def test_the_other_operations_on_what_is_kept_for_longer(zones, policy):
    """They take what is in the envelope for what there is, while it is fresh."""
    cache = await zones.ready()
    await cache.get_or_load("text", Source("v").load, ttl=10, policy=policy)
    assert await cache.append("text", "w")
    assert await cache.prepend("text", "u")
    assert await cache.get("text") == "uvw"
    assert (await cache.get_item("text")).ttl <= 10
    await cache.get_or_load("cas", Source("v").load, ttl=10, policy=policy)
    item = await cache.get_item("cas")
    assert item.value == "v"
    assert await cache.cas("cas", "w", item, ttl=10)
    assert await cache.get("cas") == "w"
    await cache.get_or_load("touch", Source("v").load, ttl=10, policy=policy)
    await cache.touch("touch", 100)
    await pass_time(5)
    assert await cache.get("touch") == "v"
    await cache.get_or_load("replace", Source("v").load, ttl=10, policy=policy)
    assert await cache.replace("replace", "w")
    assert await cache.get("replace") == "w"


@on_zones(zones=2)
async def test_a_value_is_served_for_a_while_after_its_end_and_then_no_more(zones):
    """The value is served for `stale_while_revalidate` during the refresh. Hooks and statistics record it."""
    listener = LoadListener()
    cache, source = await zones.ready(hooks=listener), Source("old")
    await cache.get_or_load("k", source.load, ttl=10, policy=STALE)
    source.value, source.seconds, source.error = "new", 1, LookupError("down")
    await pass_time(14.5)
    assert await cache.get_or_load("k", source.load, ttl=10, policy=STALE) == "old"
    await pass_time(0.6)
    with pytest.raises(LookupError):
        await cache.get_or_load("k", source.load, ttl=10, policy=STALE)
    assert listener.stale == [None]
    assert cache.stats().loads.stale_served == 1


@on_zones(zones=2)
async def test_a_value_is_served_when_its_loader_fails(zones):
    """The value is served for `stale_if_error` after its end. The loader is not called in the backoff time, and no caller waits."""
    listener = LoadListener()
    cache, source = await zones.ready(hooks=listener), Source("old")

    async def ask():
        return await cache.get_or_load("k", source.load, ttl=10, policy=FAIL_SAFE)

    await ask()
    await pass_time(11)
    source.error, source.seconds = LookupError("down"), 0.5
    watch = Stopwatch()
    assert await asyncio.gather(*(ask() for _ in range(3))) == ["old"] * 3
    assert (watch.seconds, source.calls) == (0.5, 2)
    assert listener.stale == [source.error] * 3
    await pass_time(4)
    assert await ask() == "old"
    assert (watch.seconds, source.calls) == (4.5, 2)
    assert listener.stale == [source.error] * 3 + [None]
    await pass_time(1.1)
    assert await ask() == "old"
    assert source.calls == 3
    source.error, source.value = None, "new"
    await pass_time(5)
    assert await ask() == "new"
    assert await cache.get("k") == "new"
    assert no_stubs(zones)


@on_zones(zones=2)
async def test_a_value_is_not_served_for_ever_when_its_loader_fails(zones):
    cache, source = await zones.ready(), Source("old")
    await cache.get_or_load("k", source.load, ttl=10, policy=FAIL_SAFE)
    source.error = LookupError("down")
    await pass_time(29.5)
    assert await cache.get_or_load("k", source.load, ttl=10, policy=FAIL_SAFE) == "old"
    await pass_time(0.6)
    with pytest.raises(LookupError):
        await cache.get_or_load("k", source.load, ttl=10, policy=FAIL_SAFE)


@on_zones(zones=2)
async def test_a_loader_that_failed_in_another_process_is_left_alone_too(zones):
    """The lease is kept for the backoff time. Other processes serve their stale value and do not load."""
    first, second = await zones.ready(), await zones.ready()
    source = Source("old")
    policy = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=60, failure_backoff=20, lease_wait=0.5)
    await first.get_or_load("k", source.load, ttl=10, policy=policy)
    await pass_time(11)
    source.error = LookupError("down")
    assert await first.get_or_load("k", source.load, ttl=10, policy=policy) == "old"
    assert source.calls == 2
    await pass_time(1)
    watch = Stopwatch()
    for _ in range(3):
        assert await second.get_or_load("k", source.load, ttl=10, policy=policy) == "old"
    assert watch.seconds <= 1.5, "it may wait to see whether somebody is loading"
    assert source.calls == 2


@on_zones(zones=2)
async def test_with_something_to_serve_a_slow_load_is_waited_for_shortly(zones):
    """For `soft_timeout`. It goes on, and what it finds is there for those who come later."""
    cache, source = await zones.ready(), Source("old")
    policy = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, soft_timeout=0.2)
    await cache.get_or_load("k", source.load, ttl=10, policy=policy)
    await pass_time(11)
    source.value, source.seconds = "new", 2
    watch = Stopwatch()
    assert await cache.get_or_load("k", source.load, ttl=10, policy=policy) == "old"
    assert watch.seconds == 0.2
    assert await cache.get_or_load("k", source.load, ttl=10, policy=policy) == "old"
    assert watch.seconds == 0.4
    await pass_time(2)
    assert await cache.get_or_load("k", source.load, ttl=10, policy=policy) == "new"
    assert source.calls == 2
    await assert_nothing_left(cache)
