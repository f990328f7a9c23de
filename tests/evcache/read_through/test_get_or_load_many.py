"""`get_or_load_many`: one loader for the missing keys that no other caller loads, and failures of single keys."""

import asyncio

import pytest

from evcache import EncodeError, InvalidArgument, NearCache
from evcache.load_policy import Loaded, LoadPolicy
from tests.support.memory_zones import Stopwatch, on_zones, pass_time
from tests.support.sources import ABSENT, Source, assert_nothing_left, no_stubs, outcomes, seen, started
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)


@on_zones(zones=2)
async def test_the_loader_gets_what_is_missing(zones):
    """All of it at once, in the order in which it was asked for."""
    cache, source = await zones.ready(), Source({"b": 2, "c": 3, "d": 4})
    await cache.set_many({"a": 1, "e": 5})
    assert await cache.get_or_load_many(["e", "d", "a", "b"], source.load_many) == {"a": 1, "b": 2, "d": 4, "e": 5}
    assert source.asked == [["d", "b"]]
    assert await cache.get_or_load_many(["b", "c"], source.load_many) == {"b": 2, "c": 3}
    assert source.asked == [["d", "b"], ["c"]]
    assert await cache.get_many(["b", "c", "d"]) == {"b": 2, "c": 3, "d": 4}
    assert seen(zones, "d") == {"a": 4, "b": 4}
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_no_keys_are_nothing_to_do(zones):
    cache, source = await zones.ready(), Source()
    assert await cache.get_or_load_many([], source.load_many) == {}
    assert await cache.get_or_load_many(iter(()), source.load_many) == {}
    assert (source.calls, zones.wire("a")) == (0, b"")


@on_zones(zones=2)
async def test_keys_may_be_given_twice_and_in_both_forms(zones):
    """The loader gets the first form, once; each is answered."""
    cache, source = await zones.ready(), Source({b"a": 1, "b": 2})
    keys = [b"a", "a", "b", "b", b"b"]
    assert await cache.get_or_load_many(keys, source.load_many) == {b"a": 1, "a": 1, "b": 2, b"b": 2}
    assert source.asked == [[b"a", "b"]]
    assert await cache.get_or_load_many(keys, source.load_many) == {b"a": 1, "a": 1, "b": 2, b"b": 2}
    assert source.calls == 1


@on_zones(zones=2)
async def test_each_form_has_its_own_copy(zones):
    cache, source = await zones.ready(near_cache=NearCache()), Source({"a": [1]})
    for _ in range(2):
        values = await cache.get_or_load_many(["a", b"a"], source.load_many)
        values["a"].append(2)
        assert values[b"a"] == [1]
    assert source.value == {"a": [1]}


@on_zones(zones=2)
async def test_what_the_loader_does_not_have_is_an_absence(zones):
    """Missing from its mapping, or None; it is remembered, and not in the result."""
    cache, other = await zones.ready(near_cache=NearCache()), await zones.ready(local_zone="b")
    source = Source({"a": 1, "none": None, "said": Loaded(None, ttl=30)})
    keys = ["a", "none", "missing", "said"]
    for client in (cache, cache, other):
        assert await client.get_or_load_many(keys, source.load_many) == {"a": 1}
    assert source.calls == 1
    assert [seen(zones, key)["b"] for key in keys] == [1, ABSENT, ABSENT, ABSENT]
    await pass_time(11)
    source.value = {"missing": 2}
    assert await other.get_or_load_many(keys, source.load_many) == {"a": 1, "missing": 2}
    assert source.asked[1] == ["none", "missing"]


@on_zones(zones=2)
async def test_keys_that_have_been_deleted_are_loaded(zones):
    cache, source = await zones.ready(), Source({"a": 1, "b": 2})
    await cache.set_many({"a": 0, "b": 0})
    await cache.delete("a")
    assert await cache.get_or_load_many(["a", "b"], source.load_many) == {"a": 1, "b": 0}
    assert source.asked == [["a"]]
    assert no_stubs(zones)


@on_zones(zones=2)
async def test_what_the_loader_brings_beyond_what_it_was_asked_for_is_not_kept(zones):
    cache = await zones.ready()

    async def generous(keys):
        return {"a": 1, "other": 2}

    assert await cache.get_or_load_many(["a"], generous) == {"a": 1}
    assert seen(zones, "other") == {"a": None, "b": None}


@on_zones(zones=2)
async def test_each_value_may_say_how_long_it_lives(zones):
    cache = await zones.ready()
    source = Source({"short": Loaded(1, ttl=5), "plain": 2, "none": Loaded(3, ttl=0)})
    values = await cache.get_or_load_many(["short", "plain", "none"], source.load_many, ttl=50, policy=EXACT)
    assert values == {"short": 1, "plain": 2, "none": 3}
    assert (zones.held("short", "a").ttl, zones.held("plain", "a").ttl, seen(zones, "none")["a"]) == (5, 50, None)
    assert no_stubs(zones)


@on_zones(zones=2)
async def test_keys_that_somebody_loads_are_waited_for(zones):
    """Whether by one key or by many; the loader gets the others."""
    cache = await zones.ready()
    one, many, late = Source("one", seconds=0.3), Source("many", seconds=0.2), Source("late", seconds=0.1)
    first = asyncio.create_task(cache.get_or_load("a", one.load))
    await started(one)
    second = asyncio.create_task(cache.get_or_load_many(["a", "b"], many.load_many))
    await started(many)
    third = asyncio.create_task(cache.get_or_load_many(["a", "b", "c"], late.load_many))
    watch = Stopwatch()
    assert await third == {"a": "one", "b": "many", "c": "late"}
    assert watch.seconds == 0.3
    assert await first == "one"
    assert await second == {"a": "one", "b": "many"}
    assert (many.asked, late.asked) == ([["b"]], [["c"]])
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_nothing_is_loaded_when_all_is_being_loaded(zones):
    cache, source, unused = await zones.ready(), Source("v", seconds=0.1), Source()
    first = asyncio.create_task(cache.get_or_load_many(["a", "b"], source.load_many))
    await started(source)
    assert await cache.get_or_load_many(["a"], unused.load_many) == {"a": "v"}
    assert await cache.get_or_load("b", unused.load) == "v"
    assert await first == {"a": "v", "b": "v"}
    assert unused.calls == 0


@pytest.mark.parametrize("victim", ["the one who began it", "the one who joined"])
@on_zones(zones=2)
async def test_a_caller_that_is_cancelled_takes_nobody_with_it(zones, victim):
    cache, source, own = await zones.ready(), Source("v", seconds=0.2), Source("own", seconds=0.4)
    first = asyncio.create_task(cache.get_or_load_many(["a", "b"], source.load_many))
    await started(source)
    second = asyncio.create_task(cache.get_or_load_many(["b", "c"], own.load_many))
    await started(own)
    cancelled, other = (first, second) if victim == "the one who began it" else (second, first)
    cancelled.cancel()
    got = (await outcomes(cancelled, other))[1]
    assert got == ({"b": "v", "c": "own"} if other is second else {"a": "v", "b": "v"})
    assert (source.cancelled, own.cancelled) == (0, 1 if cancelled is second else 0)
    await settle()
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_with_the_last_caller_the_load_ends(zones):
    cache, source = await zones.ready(), Source("v", seconds=5)
    tasks = [asyncio.create_task(cache.get_or_load_many(keys, source.load_many)) for keys in (["a", "b"], ["b"])]
    await started(source)
    for task in tasks:
        task.cancel()
        await outcomes(task)
    await settle()
    assert (source.cancelled, source.calls) == (1, 1)
    assert no_stubs(zones)
    await assert_nothing_left(cache)
    source.seconds = 0
    assert await cache.get_or_load_many(["a", "b"], source.load_many) == {"a": "v", "b": "v"}


@on_zones(zones=2)
async def test_what_another_process_loads_is_waited_for(zones):
    """Some leases are won, and some are lost: each key is loaded once."""
    first, second = await zones.ready(), await zones.ready()
    slow, quick = Source("slow", seconds=0.5), Source("quick", seconds=0.1)
    waiting = asyncio.create_task(first.get_or_load_many(["a", "b"], slow.load_many))
    await started(slow)
    assert await second.get_or_load_many(["b", "c", "d"], quick.load_many) == {"b": "slow", "c": "quick", "d": "quick"}
    assert (slow.asked, quick.asked) == ([["a", "b"]], [["c", "d"]])
    assert await waiting == {"a": "slow", "b": "slow"}
    assert no_stubs(zones)
    await assert_nothing_left(first, second)


@on_zones(zones=2)
async def test_a_key_that_has_landed_is_not_joined_while_others_are_still_loaded(zones):
    """Other keys of the same load may take long. During that time a delete of this key takes effect."""
    first, second, third = [await zones.ready() for _ in range(3)]
    slow, quick = Source("slow", seconds=1.5), Source("quick")
    waiting = asyncio.create_task(first.get_or_load("b", slow.load))
    await started(slow)
    both = asyncio.create_task(second.get_or_load_many(["a", "b"], quick.load_many))
    await pass_time(0.5)
    assert seen(zones, "a") == {"a": "quick", "b": "quick"}
    await third.delete("a")
    source = Source("anew")
    assert await second.get_or_load("a", source.load) == "anew"
    assert await both == {"a": "quick", "b": "slow"}
    await waiting
    await assert_nothing_left(first, second, third)


@on_zones(zones=2)
async def test_a_key_that_has_failed_is_loaded_by_the_next_caller(zones):
    """Also while others that were loaded with it have not ended."""
    first, second = await zones.ready(), await zones.ready()
    slow, bad = Source("slow", seconds=1.5), Source(error=LookupError("down"))
    waiting = asyncio.create_task(first.get_or_load("b", slow.load))
    await started(slow)
    both = asyncio.create_task(second.get_or_load_many(["a", "b"], bad.load_many))
    await pass_time(0.5)
    assert await second.get_or_load("a", Source("anew").load) == "anew"
    assert isinstance((await outcomes(both))[0], LookupError)
    await waiting
    await assert_nothing_left(first, second)


@on_zones(zones=2)
async def test_an_error_is_raised_for_the_call(zones):
    """The very error; nothing is kept, and the next call loads."""
    cache, source = await zones.ready(), Source({"a": 1}, error=LookupError("down"))
    await cache.set("there", 1)
    with pytest.raises(LookupError) as caught:
        await cache.get_or_load_many(["there", "a", "b"], source.load_many)
    assert caught.value is source.error
    await settle()
    assert no_stubs(zones)
    assert seen(zones, "a") == {"a": None, "b": None}
    source.error = None
    assert await cache.get_or_load_many(["there", "a", "b"], source.load_many) == {"there": 1, "a": 1}
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_a_value_that_cannot_be_stored_is_an_error_and_the_others_are_kept(zones):
    cache, source = await zones.ready(), Source({"a": 1, "bad": object(), "c": 3})
    with pytest.raises(EncodeError):
        await cache.get_or_load_many(["a", "bad", "c"], source.load_many)
    await settle()
    assert await cache.get_many(["a", "bad", "c"]) == {"a": 1, "c": 3}
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@pytest.mark.parametrize("result", [None, [("a", 1)], 5, {"a"}, "a"])
@on_zones(zones=2)
async def test_a_loader_that_returns_no_mapping_is_named(zones, result):
    cache = await zones.ready()

    async def wrong(keys):
        return result

    with pytest.raises(InvalidArgument) as caught:
        await cache.get_or_load_many(["a", "b"], wrong)
    assert caught.value.argument == "loader"
    await settle()
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@pytest.mark.parametrize("keys", ["abc", b"abc", 5, None])
@on_zones(zones=2)
async def test_one_key_in_place_of_several_is_refused(zones, keys):
    cache, source = await zones.ready(), Source()
    with pytest.raises(InvalidArgument) as caught:
        await cache.get_or_load_many(keys, source.load_many)
    assert caught.value.argument == "keys"
    assert source.calls == 0


@on_zones(zones=2)
async def test_what_is_near_is_not_asked_for(zones):
    """Values and absences."""
    cache, source = await zones.ready(near_cache=NearCache()), Source({"a": [1], "c": 3})
    await cache.get_or_load_many(["a", "none"], source.load_many)
    zones.forget()
    assert await cache.get_or_load_many(["a", "none"], source.load_many) == {"a": [1]}
    assert zones.wire("a") == b""
    assert await cache.get_or_load_many(["a", "none", "c"], source.load_many) == {"a": [1], "c": 3}
    assert source.asked == [["a", "none"], ["c"]]
    assert b"t:a" not in zones.wire("a")
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_many_keys_without_zones(zones):
    """All come from the loader, in one call."""
    cache, source = await zones.ready(), Source("v")
    await zones.kill("a", "b")
    keys = [f"k{number}" for number in range(20)]
    assert await cache.get_or_load_many(keys, source.load_many) == dict.fromkeys(keys, "v")
    assert source.asked == [keys]
    zones.restart("a", "b")
    await pass_time(5)  # until hinted handoff has delivered the missing writes
    assert await cache.get_many(keys) == dict.fromkeys(keys, "v")
    await assert_nothing_left(cache)
