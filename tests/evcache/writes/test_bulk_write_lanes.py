"""Places of bulk writes in the lanes of their nodes: each zone's result frees its own, whatever it is."""

import asyncio
from unittest import mock

import pytest

from evcache import CacheUnavailable, Outcome
from evcache.replication.lanes import OVERHEAD_BYTES
from evcache.writes.ordinary_write import OrdinaryWrite
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.bulk_writes import ALL_ZONES, names, write, written
from tests.support.cores import CORES, running
from tests.support.memory_zones import TOMBSTONE, cut_off, on_zones, pass_time
from tests.support.slow_clocks import slow_and_right

each_operation = pytest.mark.parametrize("operation", ["set_many", "delete_many"])


@pytest.fixture(params=CORES, ids=lambda core: core.name, autouse=True)
def core(request):
    with running(request.param):
        yield


@pytest.fixture
def ordinary():
    """Ordinary writes of bulk writes: a mock that counts them."""
    with mock.patch("evcache.writes.bulk_write.OrdinaryWrite", side_effect=OrdinaryWrite) as counter:
        yield counter


def places(cache):
    """Return the number of writes in the lanes of each zone, and their bytes."""
    lanes = cache._runtime.writer._lanes
    return {lane.node.name[0]: (lane.count, lane.bytes) for lane in lanes.by_node.values()}


@on_zones()
async def test_a_zone_with_the_usual_result_frees_its_place_before_the_others(zones, ordinary):
    cache = await zones.ready()
    zones.pause("b", "c")
    writing = asyncio.ensure_future(cache.set_many(dict.fromkeys(names(5), b"x" * 100), timeout=5, consistency="all"))
    await pass_time(0.1)
    held = (5, 5 * (OVERHEAD_BYTES + 100))
    assert places(cache) == {"b": held, "c": held}
    zones.resume("b")
    await pass_time(0.1)
    assert places(cache) == {"c": held}
    zones.resume("c")
    assert all((await writing).values())
    assert places(cache) == {}
    assert ordinary.call_count == 5


@each_operation
@pytest.mark.parametrize("how", ["foreign", "newer"])
@on_zones()
async def test_a_zone_with_another_result_frees_its_place_when_it_has_ended(zones, ordinary, operation, how):
    """The looks at its items take tasks, which the lane bounds."""
    slow, right = await slow_and_right(zones)
    keys = names(5)
    if how == "newer":
        await right.set_many(dict.fromkeys(keys, "theirs"), consistency="all")
    else:
        for key in keys:
            zones.write_as_another_client(key, b"theirs", 0, *ALL_ZONES)
    ordinary.reset_mock()
    server = zones.one("c")
    slow._runtime.background._max_tasks = 0
    zones.pause("c")
    writing = asyncio.ensure_future(write(slow, operation, keys, timeout=5, consistency="all"))
    await pass_time(0.1)
    assert places(slow)["c"][0] >= 5
    server.resume()
    server.pause()  # each store has been refused, and its look waits
    await pass_time(0.1)
    assert places(slow)["c"][0] >= 5
    zones.resume("c")
    results = await writing
    assert all(result.zones == dict.fromkeys(ALL_ZONES, Outcome.STORED) for result in results.values())
    await pass_time(0.1)
    assert places(slow) == {}
    assert ordinary.call_count == 5
    assert slow.stats().writes_resent == (5 if how == "newer" else 0)
    for key in keys:
        assert zones.values(key) == dict.fromkeys(ALL_ZONES, written(operation))


@each_operation
@on_zones()
async def test_a_zone_that_fails_frees_its_place(zones, ordinary, operation):
    cache = await zones.ready()
    zones.pause("c")
    writing = asyncio.ensure_future(write(cache, operation, names(5), timeout=5, consistency="all"))
    await pass_time(0.1)
    await zones.kill("c")
    results = await writing
    assert {result.zones["c"] for result in results.values()} == {Outcome.UNAVAILABLE}
    assert places(cache) == {}
    assert cache.stats().hints == 5
    assert ordinary.call_count == 5


@on_zones()
async def test_a_zone_that_times_out_frees_its_place(zones, ordinary):
    cache = await zones.ready()
    zones.pause(*ALL_ZONES)
    with pytest.raises(CacheUnavailable):
        await write(cache, "set_many", names(5), timeout=0.2)
    await pass_time(0.1)
    assert places(cache) == {}
    assert ordinary.call_count == 5


@pytest.mark.parametrize("how", ["stored", "foreign", "newer", "killed", "timeout"])
@on_zones()
async def test_a_write_whose_caller_was_cancelled_frees_its_places(zones, ordinary, how):
    """It is not sent again."""
    slow, right = await slow_and_right(zones)
    if how == "newer":
        await right.set_many(dict.fromkeys(names(5), "theirs"), consistency="all")
    elif how == "foreign":
        for key in names(5):
            zones.write_as_another_client(key, b"theirs", 0, "b", "c")
    ordinary.reset_mock()
    zones.pause("b", "c")
    writing = asyncio.ensure_future(write(slow, "set_many", names(5), timeout=1, consistency="all"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert places(slow)["b"][0] == places(slow)["c"][0] == 5
    if how == "killed":
        await zones.kill("b", "c")
    elif how == "timeout":
        await pass_time(1.1)
    zones.resume("b", "c")
    await pass_time(0.1)
    assert places(slow) == {}
    assert not slow._runtime.writer._sender.latest
    assert ordinary.call_count == 5
    assert slow.stats().writes_resent == 0


@on_zones()
async def test_a_zone_whose_connection_has_no_room_waits_in_its_lane(zones, ordinary):
    """Single requests have filled the connection. The zone gets the key once there is room."""
    cache = await zones.ready(limits=ConnectionLimits(max_pending=16))
    zones.pause("c")
    single = [asyncio.ensure_future(cache.set(f"single{number}", "v", timeout=5)) for number in range(16)]
    await pass_time(0)
    writing = asyncio.ensure_future(write(cache, "set_many", ["k"], timeout=5, consistency="all"))
    await pass_time(0.1)
    (lane,) = cache._runtime.writer._lanes.by_node.values()
    assert (lane.node.name[0], lane.count, len(lane.queue)) == ("c", 1, 1)
    zones.resume("c")
    assert (await writing)["k"].zones == dict.fromkeys(ALL_ZONES, Outcome.STORED)
    await asyncio.gather(*single)
    assert places(cache) == {}
    assert ordinary.call_count == 1
    assert zones.values("k") == dict.fromkeys(ALL_ZONES, "new")


@each_operation
@on_zones()
async def test_keys_take_the_general_way_while_a_lane_is_full(zones, ordinary, monkeypatch, operation):
    """They take the ordinary way again when it has room."""
    monkeypatch.setattr("evcache.replication.lanes.WINDOW", 8)
    cache = await zones.ready()
    zones.pause("c")
    assert all((await write(cache, operation, names(20), timeout=5)).values())
    assert ordinary.call_count == 8
    (lane,) = cache._runtime.writer._lanes.by_node.values()
    assert (lane.count, len(lane.queue)) == (20, 12)
    zones.resume("c")
    await pass_time(0.1)
    assert places(cache) == {}
    await write(cache, operation, names(5), timeout=5)
    assert ordinary.call_count == 13


@on_zones()
async def test_keys_take_the_general_way_while_a_zone_is_down(zones, ordinary):
    cache = await zones.ready()
    await cut_off(zones, cache, "c")
    results = await write(cache, "set_many", names(5), timeout=1)
    assert {result.zones["c"] for result in results.values()} == {Outcome.UNAVAILABLE}
    assert ordinary.call_count == 0
    assert places(cache) == {}


@on_zones()
async def test_a_write_that_becomes_general_after_its_call_is_not_sent_again(zones, ordinary):
    slow, right = await slow_and_right(zones)
    await right.set("k0", "theirs", consistency="all")
    held = zones.held("k0", "c")
    zones.evict("k0", *ALL_ZONES)
    zones.put_back("k0", held, "c")
    zones.pause("c")
    calls = [
        asyncio.ensure_future(slow.delete_many(["k0"], timeout=5, consistency="quorum")),
        asyncio.ensure_future(slow.delete_many(["k0", "k1"], timeout=5, consistency="quorum")),
    ]
    await pass_time(0.1)
    assert all(call.done() for call in calls)
    assert calls[0].result()["k0"].zones["c"] is Outcome.PENDING
    zones.resume("c")
    await pass_time(0.1)
    assert slow.stats().writes_resent == 0
    assert zones.values("k0") == {"a": TOMBSTONE, "b": TOMBSTONE, "c": "theirs"}
    assert places(slow) == {}
    assert ordinary.call_count == 3
