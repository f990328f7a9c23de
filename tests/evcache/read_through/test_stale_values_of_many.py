"""Stale values of `get_or_load_many`: served during a refresh, after a failure and for a slow loader."""

import pytest

from evcache import LoadTimeout
from evcache.load_policy import LoadPolicy
from tests.support.memory_zones import Stopwatch, on_zones, pass_time
from tests.support.sources import LoadListener, Source, assert_nothing_left, started
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)
STALE = LoadPolicy(jitter=0, refresh_after=1, stale_while_revalidate=5)
FAIL_SAFE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, failure_backoff=5)


@on_zones(zones=2)
async def test_what_is_out_of_date_is_served_while_it_is_loaded_anew(zones):
    """Keys that are fresh, out of date, and missing in one call: only the missing ones are waited for."""
    listener = LoadListener()
    cache = await zones.ready(hooks=listener)
    source = Source("old")
    await cache.get_or_load_many(["stale", "stale2"], source.load_many, ttl=10, policy=STALE)
    await pass_time(8)
    await cache.get_or_load_many(["fresh"], source.load_many, ttl=10, policy=STALE)
    await pass_time(3)
    source.value, source.seconds, source.asked[:] = "new", 0.2, []
    keys = ["fresh", "stale", "stale2", "missing"]
    watch = Stopwatch()
    values = await cache.get_or_load_many(keys, source.load_many, ttl=10, policy=STALE)
    assert values == {"fresh": "old", "stale": "old", "stale2": "old", "missing": "new"}
    assert watch.seconds == 0.2
    assert sorted(map(sorted, source.asked)) == [["missing"], ["stale", "stale2"]]
    assert listener.stale == [None, None]
    await settle()
    values = await cache.get_or_load_many(keys, source.load_many, ttl=10, policy=STALE)
    assert values == {"fresh": "old", "stale": "new", "stale2": "new", "missing": "new"}
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_what_is_out_of_date_is_served_when_its_loader_fails(zones):
    """This holds if every missing key has a stale value. The loader is then not called for the backoff time."""
    listener = LoadListener()
    cache, source = await zones.ready(hooks=listener), Source("old")

    async def ask(*keys):
        return await cache.get_or_load_many(keys, source.load_many, ttl=10, policy=FAIL_SAFE)

    await ask("a", "b")
    await pass_time(11)
    source.error = LookupError("down")
    with pytest.raises(LookupError):
        await ask("a", "missing")
    assert await ask("a", "b") == {"a": "old", "b": "old"}
    assert listener.stale == [None, source.error]  # "a" was in its backoff time by then
    calls = source.calls
    assert await ask("a", "b") == {"a": "old", "b": "old"}
    assert source.calls == calls
    source.error, source.value = None, "new"
    await pass_time(6)
    assert await ask("a", "b") == {"a": "new", "b": "new"}


@on_zones(zones=2)
async def test_what_is_out_of_date_is_served_when_its_loader_is_slow(zones):
    """For `soft_timeout`, if there is something to serve for all; it counts as served out of date."""
    listener = LoadListener()
    cache, source = await zones.ready(hooks=listener), Source("old")
    policy = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, soft_timeout=0.2)
    await cache.get_or_load_many(["a", "b"], source.load_many, ttl=10, policy=policy)
    await pass_time(11)
    source.value, source.seconds = "new", 1
    watch = Stopwatch()
    assert await cache.get_or_load_many(["a", "b"], source.load_many, ttl=10, policy=policy) == {"a": "old", "b": "old"}
    assert watch.seconds == 0.2
    assert [type(error) for error in listener.stale] == [LoadTimeout] * 2
    assert cache.stats().loads.stale_served == 2
    await pass_time(1)
    assert await cache.get_many(["a", "b"]) == {"a": "new", "b": "new"}


@on_zones(zones=2)
async def test_a_slow_loader_is_waited_for_so_long(zones):
    cache, source = await zones.ready(), Source("v", seconds=2)
    watch = Stopwatch()
    with pytest.raises(LoadTimeout) as caught:
        await cache.get_or_load_many(["a", "b"], source.load_many, timeout=0.5)
    assert (watch.seconds, caught.value.seconds) == (0.5, 0.5)
    await pass_time(2)
    assert await cache.get_many(["a", "b"]) == {"a": "v", "b": "v"}
    assert source.calls == 1
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_what_is_soon_out_of_date_is_loaded_anew(zones):
    """Many at once in one go; over the limit of what is loaded in the background, the others come with a later call."""
    cache, source = await zones.ready(max_loads=100), Source("old")
    keys = [f"k{number}" for number in range(100)]
    await cache.get_or_load_many(keys, source.load_many, ttl=100, policy=EXACT)
    await pass_time(85)
    source.value, source.asked[:] = "new", []
    for _ in range(3):
        values = await cache.get_or_load_many(keys, source.load_many, ttl=100, policy=EXACT)
        await settle(300)
    assert list(values) == keys
    assert [len(asked) for asked in source.asked] == [64, 36]
    assert await cache.get_many(keys) == dict.fromkeys(keys, "new")
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_a_key_whose_refresh_was_lost_to_another_process_is_not_hung_up(zones):
    """Two keys are refreshed together and another process loads one of them. Its next caller does not wait for the other."""
    first, second = await zones.ready(), await zones.ready()
    source = Source("old")
    await first.get_or_load_many(["a", "b"], source.load_many, ttl=10, policy=EXACT)
    await pass_time(8.5)
    slow = Source("slow", seconds=5)
    assert await first.get_or_load("a", slow.load, ttl=10, policy=EXACT) == "old"
    await started(slow)
    both = Source("new", seconds=8)
    assert await second.get_or_load_many(["a", "b"], both.load_many, ttl=10, policy=EXACT) == {"a": "old", "b": "old"}
    await started(both)
    assert both.asked == [["b"]]
    await pass_time(2)
    assert await second.get_or_load("a", Source("own").load, ttl=10, policy=LoadPolicy(lease_wait=0.5)) == "own"
    await pass_time(10)
    await assert_nothing_left(first, second)
