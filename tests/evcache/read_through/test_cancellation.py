"""Callers that are cancelled, at whatever moment, loaders that are, and clients that are closed: nothing is left of any."""

import asyncio

import pytest

from evcache import LoadAborted, NearCache
from evcache.load_policy import LoadPolicy
from tests.support.memory_zones import Stopwatch, on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import (
    Source,
    assert_nothing_left,
    cancelled_after,
    no_stubs,
    on_releases,
    outcomes,
    seen,
    started,
    stubs,
)
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)
STALE = LoadPolicy(jitter=0, refresh_after=1, stale_while_revalidate=50)
FAIL_SAFE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=50)

# Turns of the loop in which a call with a loader that takes no time is over, and some more.
TURNS = range(45)


# Callers.


@pytest.mark.parametrize("victim", [0, 1, 2])
@on_zones(zones=2)
async def test_a_caller_that_is_cancelled_leaves_alone(zones, victim):
    """The one that began the load, or one that joined it."""
    cache, source = await zones.ready(), Source(seconds=0.5)
    callers = [asyncio.create_task(cache.get_or_load("k", source.load)) for _ in range(3)]
    await started(source)
    callers[victim].cancel()
    got = await outcomes(*callers)
    assert [value for number, value in enumerate(got) if number != victim] == ["v", "v"]
    assert isinstance(got[victim], asyncio.CancelledError)
    assert (source.calls, source.cancelled) == (1, 0)
    await assert_nothing_left(cache)


@pytest.mark.parametrize("lease", [True, False])
@on_releases("1.6.38", "1.6.18", zones=2)
async def test_with_the_last_caller_the_loader_ends(zones, lease):
    """The loader is cancelled and its lease is released. The next caller loads again, in this process or another."""
    cache, other = await zones.ready(near_cache=NearCache(), max_loads=1), await zones.ready()
    source, policy = Source(seconds=0.5), LoadPolicy(lease=lease)
    callers = [asyncio.create_task(cache.get_or_load("k", source.load, policy=policy)) for _ in range(3)]
    await started(source)
    for caller in callers:
        caller.cancel()
    watch = Stopwatch()
    got = await outcomes(*callers, other.get_or_load("k", Source("other").load, policy=policy))
    assert [type(error) for error in got[:3]] == [asyncio.CancelledError] * 3
    assert got[3] == "other"
    assert watch.seconds <= 0.005, "it may have looked once whether the lease is free"
    assert source.cancelled == 1
    assert await cache.get_or_load("k2", source.load) == "v"
    await settle()
    assert no_stubs(zones)
    await assert_nothing_left(cache, other)


@on_zones(zones=2)
async def test_a_load_that_was_given_up_is_not_joined(zones):
    """Though its loader takes its time to end."""
    cache = await zones.ready()
    ended = []

    async def slow_to_end():
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            ended.append(asyncio.get_running_loop().time())
            raise

    first = asyncio.create_task(cache.get_or_load("k", slow_to_end, policy=LoadPolicy(lease=False)))
    await pass_time(0.1)
    first.cancel()
    await outcomes(first)
    assert await cache.get_or_load("k", Source("new").load, policy=LoadPolicy(lease=False)) == "new"
    assert not ended
    await pass_time(2)
    assert len(ended) == 1
    await assert_nothing_left(cache)


HELD = ["nothing", "tombstone", "absence", "due", "stale", "last resort", "taken"]


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("held", HELD)
@on_zones(zones=2)
async def test_a_caller_may_be_cancelled_at_any_moment(zones, held, many):
    """The cancellation comes after each number of turns of the event loop. No load, task or slot is left.

    No lease is left, except those of another process. A stored value is in all zones or in none.
    """
    cache, other = await zones.ready(near_cache=NearCache(), max_loads=1), await zones.ready()
    follow_loop(cache)
    ended = set()
    for turns in TURNS:
        key = f"k{turns}"
        policy = await prepare(other, key, held)
        source = Source("loaded")

        def call(key=key, source=source, policy=policy):
            if many:
                return cache.get_or_load_many([key, f"{key}b"], source.load_many, ttl=10, policy=policy)
            return cache.get_or_load(key, source.load, ttl=10, policy=policy)

        holder = None
        if held == "taken":
            slow = Source("theirs", seconds=0.5)
            holder = asyncio.create_task(other.get_or_load(key, slow.load))
            await started(slow)
        got = await cancelled_after(turns, call)
        ended.add(isinstance(got, asyncio.CancelledError))
        await settle(60)
        await assert_nothing_left(cache)
        out = {name for names in stubs(zones).values() for name in names}
        assert out == ({b"t:" + key.encode()} if holder is not None and not holder.done() else set()), turns
        if holder is not None:
            assert await holder == "theirs"
        values = seen(zones, key)
        assert values["a"] == values["b"], turns
        # And the next call works.
        assert (await call()) in expected(key, many)
    assert ended == {True, False} or held == "taken", "some were over, and some were not"


async def prepare(cache, key, held):
    source = Source(None if held == "absence" else "held")
    if held == "tombstone":
        await cache.set(key, "old")
        await cache.delete(key)
    elif held in ("due", "stale", "last resort", "absence"):
        policy = {"stale": STALE, "last resort": FAIL_SAFE}.get(held, EXACT)
        await cache.get_or_load(key, source.load, ttl=10, policy=policy)
        await pass_time({"due": 9, "absence": 1}.get(held, 11))
    return {"stale": STALE, "last resort": FAIL_SAFE}.get(held, EXACT)


def expected(key, many):
    values = ("held", "loaded", "theirs")
    if not many:
        return (*values, None)
    return [{key: value, f"{key}b": "loaded"} for value in values] + [{f"{key}b": "loaded"}]


@on_zones(zones=2)
async def test_a_caller_may_be_cancelled_while_it_waits_for_a_slot(zones):
    cache, slow, source = await zones.ready(max_loads=1), Source(seconds=1), Source()
    first = asyncio.create_task(cache.get_or_load("slow", slow.load))
    await started(slow)
    assert isinstance(await cancelled_after(100, lambda: cache.get_or_load("k", source.load)), asyncio.CancelledError)
    await settle()
    assert cache.stats().loads.waiting == 1
    assert await first == "v"
    assert await cache.get_or_load("k", source.load) == "v"
    assert (source.calls, slow.calls) == (1, 1)
    await assert_nothing_left(cache)


@pytest.mark.parametrize("seconds", [0.0005, 0.003, 0.01, 0.1, 0.4, 1.2])
@on_zones(zones=2)
async def test_a_caller_may_be_cancelled_while_another_process_loads(zones, seconds):
    """Between two looks, or during one."""
    holder, cache = await zones.ready(), await zones.ready()
    slow, own = Source("slow", seconds=1.5), Source("own")
    first = asyncio.create_task(holder.get_or_load("k", slow.load))
    await started(slow)
    caller = asyncio.create_task(cache.get_or_load("k", own.load))
    await pass_time(seconds)
    caller.cancel()
    await outcomes(caller)
    await assert_nothing_left(cache)
    assert await first == "slow"
    assert own.calls == 0


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15])
@on_zones()
async def test_a_caller_that_is_cancelled_while_it_is_stored_leaves_no_zone_without_it(zones, seconds):
    """It has been loaded: it would be a waste, and half a write."""
    cache, source = await zones.ready(write_timeout=1), Source(seconds=0.1)
    caller = asyncio.create_task(cache.get_or_load("k", source.load))
    await started(source)
    await pass_time(0.05)
    zones.pause("c")
    await pass_time(0.06 + seconds)
    caller.cancel()
    await outcomes(caller)
    zones.resume("c")
    await pass_time(1)
    assert seen(zones, "k") == dict.fromkeys("abc", "v")
    assert no_stubs(zones)
    await assert_nothing_left(cache)


# Loaders.


@on_zones(zones=2)
async def test_a_loader_that_is_cancelled_from_within_is_an_error(zones):
    """Not the cancellation of those who wait, who have not been cancelled."""
    cache = await zones.ready()

    async def inside():
        raise asyncio.CancelledError("by something that it awaited")

    got = await outcomes(*(cache.get_or_load("k", inside) for _ in range(3)))
    assert [type(error) for error in got] == [LoadAborted] * 3
    assert isinstance(got[0].__cause__, asyncio.CancelledError)
    got = await outcomes(cache.get_or_load_many(["a", "b"], lambda keys: inside()))
    assert [type(error) for error in got] == [LoadAborted]
    await settle()
    assert no_stubs(zones)
    assert await cache.get_or_load("k", Source().load) == "v"
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_a_loader_that_awaits_a_task_that_is_cancelled(zones):
    cache = await zones.ready()
    task = asyncio.create_task(asyncio.sleep(10))

    async def waits():
        await task

    caller = asyncio.create_task(cache.get_or_load("k", waits))
    await pass_time(0.1)
    task.cancel()
    assert isinstance((await outcomes(caller))[0], LoadAborted)


@on_zones(zones=2)
async def test_a_loader_that_swallows_its_cancellation_is_heard(zones):
    """No caller waits for the loader. Its result may be stored, and its slot is released when it ends, not before."""
    cache, source = await zones.ready(max_loads=1), Source()

    async def stubborn():
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "late"

    caller = asyncio.create_task(cache.get_or_load("k", stubborn))
    await pass_time(0.1)
    caller.cancel()
    await outcomes(caller)
    watch = Stopwatch()
    assert await cache.get_or_load("other", source.load) == "v"
    assert watch.seconds == 1
    await settle()
    assert seen(zones, "k") in ({"a": "late", "b": "late"}, {"a": None, "b": None})
    assert no_stubs(zones)
    await assert_nothing_left(cache)


# Clients.


@pytest.mark.parametrize("drain", [0, 0.2])
@on_zones(zones=2)
async def test_a_client_that_is_closed_aborts_its_loads(zones, drain):
    """Those that run, those that wait for a slot, and those that another process does. Their leases are given back, so
    that processes which go on need not wait for one that has left.
    """
    cache, other = await zones.ready(max_loads=1, near_cache=NearCache()), await zones.ready()
    slow, queued, theirs = Source(seconds=100), Source(), Source("theirs", seconds=3)
    holder = asyncio.create_task(other.get_or_load("taken", theirs.load))
    await started(theirs)
    calls = [asyncio.create_task(cache.get_or_load("k", slow.load)) for _ in range(2)]
    await started(slow)
    calls.append(asyncio.create_task(cache.get_or_load("queued", queued.load)))
    calls.append(asyncio.create_task(cache.get_or_load("taken", queued.load)))
    calls.append(asyncio.create_task(cache.get_or_load_many(["x", "y", "taken"], queued.load_many)))
    await pass_time(0.1)
    watch = Stopwatch()
    await cache.close(drain)
    assert watch.seconds == drain
    got = await outcomes(*calls)
    assert [type(error) for error in got] == [LoadAborted] * 5
    assert (slow.cancelled, queued.calls) == (1, 0)
    assert {name for names in stubs(zones).values() for name in names} == {b"t:taken"}
    await assert_nothing_left(cache)
    assert await other.get_or_load("k", Source("next").load) == "next"
    assert await holder == "theirs"


@on_zones(zones=2)
async def test_a_load_that_ends_while_the_client_closes_is_kept(zones):
    """Within the time that closing may take: who waits gets it, and it is stored like a write that was on its way."""
    cache, source = await zones.ready(), Source(seconds=0.5)
    caller = asyncio.create_task(cache.get_or_load("k", source.load))
    many = asyncio.create_task(cache.get_or_load_many(["x", "y"], source.load_many))
    await started(source, 2)
    await cache.close(2)
    assert await outcomes(caller, many) == ["v", {"x": "v", "y": "v"}]
    assert seen(zones, "k") == seen(zones, "x") == {"a": "v", "b": "v"}
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_what_is_loaded_in_the_background_ends_with_the_client(zones):
    cache, source = await zones.ready(), Source("old")
    await cache.get_or_load("k", source.load, ttl=10, policy=STALE)
    await pass_time(11)
    source.seconds = 100
    assert await cache.get_or_load("k", source.load, ttl=10, policy=STALE) == "old"
    await started(source, 2)
    await cache.close(0)
    assert source.cancelled == 1
    await settle()
    assert no_stubs(zones)


@pytest.mark.parametrize("turns", TURNS[1:])
@on_zones(zones=2)
async def test_a_client_may_be_closed_at_any_moment(zones, turns):
    """Each caller that waits for the load gets the value, or an error that says that the load was cut off."""
    cache, source = await zones.ready(near_cache=NearCache()), Source()
    calls = [asyncio.create_task(cache.get_or_load("k", source.load)) for _ in range(2)]
    calls.append(asyncio.create_task(cache.get_or_load_many(["x", "y"], source.load_many)))
    await settle(turns)
    await cache.close(0)
    for got in await outcomes(*calls):
        assert got in ("v", {"x": "v", "y": "v"}) or isinstance(got, LoadAborted), got
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_too_much_background_work_turns_loads_away(zones, monkeypatch):
    """The caller gets an error. It does not wait without a limit."""
    cache, source = await zones.ready(), Source(seconds=1)
    monkeypatch.setattr(cache._runtime.background, "_max_tasks", 0)
    for call in (cache.get_or_load("k", source.load), cache.get_or_load_many(["k"], source.load_many)):
        with pytest.raises(LoadAborted):
            await call
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_what_there_is_no_room_to_store_in_the_background_is_stored_all_the_same(zones, monkeypatch):
    """By the load itself, which is a task already; the near cache's flight ends too."""
    cache, source = await zones.ready(near_cache=NearCache()), Source(seconds=1)
    caller = asyncio.create_task(cache.get_or_load("k", source.load))
    await started(source)
    monkeypatch.setattr(cache._runtime.background, "_max_tasks", 0)
    assert await caller == "v"
    assert seen(zones, "k") == {"a": "v", "b": "v"}
    await assert_nothing_left(cache)
