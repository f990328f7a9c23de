"""Bulk writes on zones in memory: flow control delays them, and what does not fit the deadline is in the result."""

import asyncio
from contextlib import suppress

import pytest

from evcache import CacheUnavailable, Outcome
from evcache._helpers.steps import STEP_KEYS
from evcache.replication.lanes import STEP
from evcache.zones.transport.limits import ConnectionLimits
from tests.evcache.client.test_reopen import Story, both_ways
from tests.support.bulk_writes import ALL_ZONES, TIMEOUT, names, nodes_of, trickle, write, written
from tests.support.memory_zones import Stopwatch, cut_off, on_zones, pass_time
from tests.support.virtual_time import settle


@pytest.fixture
def window(monkeypatch):
    """Let each lane have eight writes in flight, and hold thirty."""
    monkeypatch.setattr("evcache.replication.lanes.WINDOW", 8)
    monkeypatch.setattr("evcache.replication.lanes.MAX_WRITES", 30)
    return 8


@pytest.mark.parametrize("operation", ["set_many", "delete_many"])
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("nodes", [1, 3])
def test_bulk_write_of_more_keys_than_a_connection_holds_waits_for_room(operation, warm, nodes):
    """Also on a client that has no connection yet. Every zone gets every key."""

    @on_zones(nodes=nodes)
    async def scenario(zones):
        cache = zones.client(limits=ConnectionLimits(max_pending=16))
        if warm:
            await zones.connect(cache)
        keys = names(400)
        results = await write(cache, operation, keys, timeout=30, consistency="all")
        assert list(results) == keys
        assert all(results.values())
        assert all(dict(result.zones) == dict.fromkeys(ALL_ZONES, Outcome.STORED) for result in results.values())
        for key in keys:
            assert zones.values(key) == dict.fromkeys(ALL_ZONES, written(operation))

    scenario()


@pytest.mark.parametrize("operation", ["set_many", "delete_many"])
@on_zones()
async def test_limit_on_background_tasks_refuses_no_key(zones, operation):
    """Neither while the first connection opens, nor for keys that need a look before the store."""
    cache = zones.client()
    cache._runtime.background._max_tasks = 0
    keys = names(100)
    assert all((await write(cache, operation, keys, consistency="all")).values())
    for key in keys:
        zones.evict(key, *ALL_ZONES)
        zones.write_as_another_client(key, b"foreign", 0, *ALL_ZONES)
    assert all((await write(cache, operation, keys, consistency="all")).values())
    assert zones.values(keys[-1]) == dict.fromkeys(ALL_ZONES, written(operation))


@on_zones()
async def test_slow_zone_gets_the_keys_after_the_call_has_returned(zones, window):
    """A few are in flight, and the lane holds the others."""
    cache = await zones.ready()
    zones.pause("c")
    watch = Stopwatch()
    results = await write(cache, "set_many", names(30), timeout=1)
    assert watch.seconds == 0
    assert all(results.values())
    assert {result.zones["c"] for result in results.values()} == {Outcome.PENDING}
    assert [node.pending for node in nodes_of(cache, "c")] == [window]
    zones.resume("c")
    await pass_time(0.1)
    assert zones.values("k29") == dict.fromkeys(ALL_ZONES, "new")
    assert results["k29"].zones["c"] is Outcome.PENDING  # a result does not change
    assert cache.stats().hints == 0
    assert not cache._runtime.writer._lanes


@on_zones()
async def test_bulk_write_waits_for_a_zone_that_is_too_far_behind(zones, window):
    """The lane of the slow zone bounds the lead of the fast zones. All keys are stored once it answers."""
    cache = await zones.ready()
    zones.pause("c")
    asyncio.get_running_loop().call_later(0.3, zones.resume, "c")
    watch = Stopwatch()
    writing = asyncio.ensure_future(write(cache, "set_many", names(100), timeout=1, consistency="all"))
    await pass_time(0.2)
    assert zones.held("k29", "a") is not None
    assert zones.held("k31", "a") is None
    results = await writing
    assert watch.seconds == 0.3
    assert all(results.values())


@pytest.mark.parametrize("operation", ["set_many", "delete_many"])
@on_zones()
async def test_key_that_was_not_sent_by_the_deadline_is_a_timeout(zones, window, operation):
    """It has this outcome in every zone, and is not written later. No node counts as failed."""
    cache = await zones.ready()
    slow = asyncio.ensure_future(trickle(zones, *ALL_ZONES))
    keys = names(300)
    watch = Stopwatch()
    results = await write(cache, operation, keys, timeout=0.53)
    assert watch.seconds == 0.53  # servers were sent the last keys 0.03 s before
    assert list(results) == keys
    done = [key for key in keys if results[key]]
    late = [key for key in keys if not results[key]]
    assert done == keys[: len(done)]
    assert len(done) > window
    assert len(late) > 2 * window
    assert {Outcome.TIMEOUT} == {outcome for key in late for outcome in results[key].zones.values()}
    await pass_time(1)
    assert cache.stats().nodes_down == 0
    slow.cancel()
    zones.resume(*ALL_ZONES)
    await pass_time(5)  # also for hints
    stored = [key for key in keys if zones.held(key, "a") is not None]
    assert stored == keys[: len(stored)]  # those in flight at the deadline too
    assert len(done) <= len(stored) <= len(done) + window
    for key in keys:
        value = written(operation) if key in stored else None
        assert zones.values(key) == dict.fromkeys(ALL_ZONES, value)
        assert results[key].version is not None or key not in done
    assert not cache._runtime.writer._lanes


@on_zones()
async def test_key_that_the_call_awaits_at_its_deadline_is_a_timeout(zones, monkeypatch):
    """Its servers have longer, because it was sent shortly before."""
    monkeypatch.setattr("evcache.replication.lanes.WINDOW", 1)
    cache = await zones.ready()
    zones.pause(*ALL_ZONES)
    writing = asyncio.ensure_future(write(cache, "set_many", names(2), timeout=0.5, consistency="all", errors="miss"))
    await pass_time(0.4)
    zones.resume(*ALL_ZONES)
    await settle(1)
    zones.pause(*ALL_ZONES)
    results = await writing
    assert results["k0"]
    assert not results["k1"]
    assert results["k1"].zones == TIMEOUT
    zones.resume(*ALL_ZONES)
    await pass_time(1)
    assert zones.values("k1") == dict.fromkeys(ALL_ZONES, "new")
    assert cache.stats().hints == 0


@on_zones()
async def test_bulk_write_without_an_answer_is_an_error_or_a_result(zones, window):
    """As for a single write, `errors` decides."""
    cache = await zones.ready()
    zones.pause(*ALL_ZONES)
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable) as caught:
        await write(cache, "set_many", names(100), timeout=0.2)
    assert watch.seconds == 0.2
    assert set(caught.value.failures) == set(ALL_ZONES)
    await pass_time(5)
    results = await write(cache, "set_many", names(100), timeout=0.2, errors="miss")
    assert not any(results.values())


@on_zones()
async def test_zone_that_is_down_delays_no_key(zones, window):
    """Its keys are hints at once."""
    cache = await zones.ready()
    await cut_off(zones, cache, "c")
    watch = Stopwatch()
    results = await write(cache, "set_many", names(100), timeout=1)
    assert watch.seconds == 0
    assert all(results.values())
    assert {result.zones["c"] for result in results.values()} == {Outcome.UNAVAILABLE}
    assert cache.stats().hints == 100


@on_zones()
async def test_connection_that_does_not_open_takes_no_task_for_each_key(zones, window):
    """The other zones get their keys."""
    connect = zones.dial

    async def dial(endpoint, factory):
        if endpoint.label.startswith("c"):
            await asyncio.sleep(3600)
        return await connect(endpoint, factory)

    zones.dial = dial
    cache = zones.client(connect_timeout=10)
    writing = asyncio.ensure_future(write(cache, "set_many", names(30), timeout=1))
    await pass_time(0.1)
    assert cache.stats().background_tasks <= 3
    results = await writing
    assert all(results.values())
    await pass_time(1)
    assert cache.stats().hints == 30
    large = {"large": b"x" * 600_000}
    watch = Stopwatch()
    assert all((await zones.client(connect_timeout=10).set_many(large, timeout=1)).values())
    assert watch.seconds == 0.5  # for asking the servers how large a value may be


@on_zones()
async def test_cancelled_bulk_write_sends_no_further_key(zones, window):
    """Keys that it has begun go on in every zone. The others leave no state."""
    cache = await zones.ready()
    slow = asyncio.ensure_future(trickle(zones, *ALL_ZONES))
    keys = names(300)
    writing = asyncio.ensure_future(write(cache, "set_many", keys, timeout=30))
    await pass_time(0.52)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    begun = 300 - [zones.held(key, "a") is not None for key in keys].count(False)
    assert 0 < begun < 290
    slow.cancel()
    zones.resume(*ALL_ZONES)
    await pass_time(5)
    stored = [key for key in keys if zones.held(key, "a") is not None]
    assert begun <= len(stored) <= begun + window
    for key in keys:
        assert zones.values(key) == dict.fromkeys(ALL_ZONES, "new" if key in stored else None)
    assert cache.stats().hints == 0
    assert not cache._runtime.writer._lanes
    assert not cache._runtime.writer._sender.latest


@on_zones()
async def test_bulk_writes_of_one_client_share_the_windows(zones, window):
    """Twenty calls at once have no more in flight than one."""
    cache = await zones.ready()
    zones.pause("c")
    calls = [
        asyncio.ensure_future(cache.set_many({f"{number}:{key}": "v" for key in names(20)}, timeout=5, consistency="all"))
        for number in range(20)
    ]
    await pass_time(0.1)
    assert [node.pending for node in nodes_of(cache, "c")] == [window]
    zones.resume("c")
    for results in await asyncio.gather(*calls):
        assert all(results.values())


@pytest.mark.parametrize(("size", "in_flight"), [(400, 2), (5_000, 1)])
@on_zones()
async def test_bytes_in_flight_are_bounded(zones, monkeypatch, size, in_flight):
    """A value over the bound is sent alone."""
    monkeypatch.setattr("evcache.replication.lanes.WINDOW_BYTES", 2_000)
    cache = await zones.ready()
    zones.pause("c")
    writing = asyncio.ensure_future(cache.set_many(dict.fromkeys(names(20), b"x" * size), timeout=5, consistency="all"))
    await pass_time(0.1)
    assert [node.pending for node in nodes_of(cache, "c")] == [in_flight]
    zones.resume("c")
    assert all((await writing).values())


@pytest.mark.parametrize("options", [{"versions": "1.6.18"}, {}])
@pytest.mark.parametrize("later", ["set", "delete", "set_many"])
def test_later_write_is_not_overtaken_by_the_queue(window, options, later):
    """Also on servers that keep the write that arrives last."""

    @on_zones(**options)
    async def scenario(zones):
        cache = await zones.ready()
        zones.pause("c")
        await cache.set_many(dict.fromkeys(names(25), "old"), timeout=5)
        if later == "set":
            await cache.set("k24", "new", timeout=5)
        elif later == "set_many":
            await cache.set_many({"k24": "new"}, timeout=5)
        else:
            await cache.delete("k24", timeout=5)
        zones.resume("c")
        await pass_time(1)
        assert len(set(zones.values("k24").values())) == 1
        assert zones.values("k24")["c"] != "old"
        assert zones.values("k23")["c"] == "old"

    scenario()


@on_zones(versions="1.6.18")
async def test_single_write_in_the_queue_keeps_its_own_deadline(zones, window):
    """The writes before it have more time, and hang."""
    cache = await zones.ready()
    zones.pause("c")
    await cache.set_many(dict.fromkeys(names(25), "old"), timeout=4)
    watch = Stopwatch()
    assert not await cache.set("k24", "new", timeout=0.2, consistency="all")
    assert watch.seconds == 0.2
    zones.resume("c")
    await pass_time(1)


@pytest.mark.parametrize(("drain", "reaches"), [(2.0, True), (0.0, False)])
@on_zones()
async def test_close_waits_for_the_queue(zones, window, drain, reaches):
    """After the drain time, the rest are hints, and no task is left."""
    cache = await zones.ready()
    zones.pause("c")
    await cache.set_many(dict.fromkeys(names(25), "v"), timeout=5)
    asyncio.get_running_loop().call_later(0.5, zones.resume, "c")
    await cache.close(drain)
    await pass_time(1)
    assert (zones.held("k24", "c") is not None) is reaches
    assert not cache._runtime.writer._lanes


@on_zones()
async def test_bulk_write_ends_if_the_client_closes(zones, window):
    """Its queued keys fail like those in flight."""
    cache = await zones.ready()
    zones.pause(*ALL_ZONES)
    writing = asyncio.ensure_future(write(cache, "set_many", names(100), timeout=30, errors="miss"))
    await pass_time(0.1)
    await cache.close(0)
    watch = Stopwatch()
    with suppress(CacheUnavailable):
        await writing
    assert watch.seconds == 0


@both_ways
def test_each_opening_begins_with_empty_lanes(window, closes):
    """Also if the last loop ended while writes were queued."""

    async def hangs(story):
        await story.zones.connect(story.cache)
        story.zones.pause("c")
        assert all((await story.cache.set_many(dict.fromkeys(names(25), "old"), timeout=5)).values())
        assert story.cache._runtime.writer._lanes
        story.zones.one("c")._paused = False  # for the next loop; on this one it reads nothing any more

    async def works(story):
        assert all((await story.cache.set_many(dict.fromkeys(names(50), "new"), timeout=5, consistency="all")).values())
        assert not story.cache._runtime.writer._lanes

    story = Story(closes=closes)
    story.run(hangs, works)


@pytest.mark.parametrize("operation", ["set_many", "delete_many"])
@pytest.mark.parametrize("slow", ["", "c"])
@on_zones()
async def test_bulk_write_lets_other_tasks_run(zones, operation, slow):
    """Between two turns of the loop, the call checks, encodes and sends a bounded number of keys."""
    cache = await zones.ready()
    zones.pause(*slow)
    checked = begun = 0
    qualify, dispatcher = cache._config.keys.qualify, cache._runtime.dispatcher

    class CountingKeys:
        def __getattr__(self, name):
            return getattr(qualify.__self__, name)

        def qualify(self, key):
            nonlocal checked
            checked += 1
            return qualify(key)

    class CountingDispatcher:
        end = dispatcher.end

        def begin(self, *arguments):
            nonlocal begun
            begun += 1
            return dispatcher.begin(*arguments)

    cache._runtime.writes._keys = CountingKeys()
    cache._runtime.writer._sender.dispatcher = CountingDispatcher()
    writing = asyncio.ensure_future(write(cache, operation, names(1_500), timeout=30))
    most_checked = most_begun = 0
    while not writing.done():
        before = checked, begun
        await asyncio.sleep(0)
        most_checked, most_begun = max(most_checked, checked - before[0]), max(most_begun, begun - before[1])
    assert all(writing.result().values())
    assert (checked, begun) == (1_500, 1_500)
    assert most_checked == STEP_KEYS
    assert 0 < most_begun <= STEP


@on_zones()
async def test_set_many_writes_the_values_at_the_time_of_the_call(zones):
    """The caller changes the mapping while the call waits."""
    cache = await zones.ready()
    values = dict.fromkeys(names(1_000), "v")
    writing = asyncio.ensure_future(cache.set_many(values, timeout=5))
    await asyncio.sleep(0)
    values.clear()
    assert len(await writing) == 1_000
