"""`get_many` and `get_or_load_many` at `QUORUM` and above: when they return, and with which keys."""

import asyncio

import pytest

from evcache import CacheUnavailable, ConsistencyError, LoadPolicy
from tests.support.memory_zones import PATIENT, Listener, Stopwatch, full, on_zones, pass_time

KEYS = [f"k{number}" for number in range(40)]
VALUES = dict.fromkeys(KEYS, "v")


async def loads_nothing(keys):
    """Fail the test: every key has a value."""
    raise AssertionError(f"{keys} are there")


async def get_many(cache, level, keys=KEYS):
    return await cache.get_many(keys, consistency=level)


async def get_or_load_many(cache, level, keys=KEYS):
    return await cache.get_or_load_many(keys, loads_nothing, consistency=level)


reads = pytest.mark.parametrize("read", [get_many, get_or_load_many], ids=["get_many", "get_or_load_many"])


async def filled(zones, **options):
    """Return a client with a value for each key in every zone."""
    cache = await zones.ready(circuit=PATIENT, **options)
    await cache.set_many(VALUES, consistency="all")
    return cache


@reads
@pytest.mark.parametrize("slow", ["a", "b", "c"])
@pytest.mark.parametrize("level", ["quorum", "all_minus_one"])
@on_zones()
async def test_a_quorum_does_not_wait_for_a_zone_that_hangs(zones, read, level, slow):
    """Any zone may be the slow one. The client drops its late reply, and the connection serves the next call."""
    cache = await filled(zones)
    zones.pause(slow)
    watch = Stopwatch()
    assert await read(cache, level) == VALUES
    assert watch.seconds == 0
    zones.resume(slow)
    await pass_time()
    made = zones.connections_made()
    assert await read(cache, "all") == VALUES
    assert zones.connections_made() == made


@reads
@on_zones(nodes=3)
async def test_one_slow_node_in_each_zone_delays_only_keys_that_need_it(zones, read):
    """The slow node is another one in each zone. Two nodes that answer hold each of the keys."""
    cache = await filled(zones)
    for index, zone in enumerate("abc"):
        zones.servers[zone][index].pause()
    held = {
        key: sum(full(key) in fake.store and fake.paused for zone in "abc" for fake in zones.servers[zone]) for key in KEYS
    }
    keys = [key for key, slow in held.items() if slow <= 1]
    assert keys
    assert any(held[key] == 1 for key in keys)
    watch = Stopwatch()
    assert await read(cache, "quorum", keys) == dict.fromkeys(keys, "v")
    assert watch.seconds == 0


@reads
@on_zones()
async def test_all_waits_for_the_slowest(zones, read):
    cache = await filled(zones, read_timeout=2.0)
    zones.pause("c")
    asyncio.get_running_loop().call_later(0.7, zones.resume, "c")
    watch = Stopwatch()
    assert await read(cache, "all") == VALUES
    assert watch.seconds == pytest.approx(0.7)


@on_zones()
async def test_a_stale_key_waits_for_a_zone_with_the_version_known(zones):
    """Two zones are stale, and together they are no quorum. The third zone is slow."""
    cache = await zones.ready(circuit=PATIENT, hints=None, read_timeout=2.0)
    await cache.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    await cache.set("k", "new", consistency="all")
    zones.put_back("k", old, "a", "b")
    zones.pause("c")
    asyncio.get_running_loop().call_later(0.5, zones.resume, "c")
    watch = Stopwatch()
    assert await cache.get_many(["k", "nothing"], consistency="quorum") == {"k": "new"}
    assert watch.seconds == pytest.approx(0.5)


@pytest.mark.parametrize("level", ["quorum", "all"])
@on_zones()
async def test_the_latest_version_wins_and_stale_zones_are_repaired(zones, level):
    writer = await zones.ready(hints=None)
    await writer.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    newest = await writer.set("k", "new", consistency="all")
    zones.put_back("k", old, "a")
    cache = await zones.ready()
    assert await cache.get_many(["k"], consistency=level) == {"k": "new"}
    await pass_time()
    assert zones.stored_versions("k") == dict.fromkeys("abc", newest.version)


@on_zones(versions="1.6.18")
async def test_without_versions_the_local_value_wins_a_tie_however_late_it_comes(zones):
    cache = await zones.ready(circuit=PATIENT, read_timeout=2.0)
    for zone in "abc":
        zones.write_as_another_client("k", zone.encode(), 0, zone)
    zones.pause("a")
    asyncio.get_running_loop().call_later(0.5, zones.resume, "a")
    assert await cache.get_many(["k"], consistency="all") == {"k": "a"}


async def lose_a_node_of_two_zones(zones):
    """Kill a node in two zones. Return the keys that only zone a still holds."""
    lost = {key for key in KEYS if all(full(key) in zones.servers[zone][0].store for zone in "bc")}
    assert 0 < len(lost) < len(KEYS)
    for zone in "bc":
        await zones.servers[zone][0].kill()
    return lost


@on_zones(nodes=2)
async def test_a_key_with_too_few_answers_is_in_no_result(zones):
    """A node of the only zone that answers holds the key. That is no quorum."""
    listener = Listener()
    cache = await filled(zones, hooks=listener)
    lost = await lose_a_node_of_two_zones(zones)
    rest = {key: value for key, value in VALUES.items() if key not in lost}
    with pytest.raises(ConsistencyError) as caught:
        await cache.get_many(KEYS, consistency="quorum")
    assert (caught.value.answered, caught.value.required) == (1, 2)
    assert caught.value.found == rest
    assert await cache.get_many(KEYS, consistency="quorum", errors="miss") == rest


@pytest.mark.parametrize("lease", [True, False])
@on_zones(nodes=2)
async def test_a_key_with_too_few_answers_is_loaded(zones, lease):
    """As in `get_or_load`, the zone that grants leases shows its value. Without leases the loader is called."""
    listener = Listener()
    cache = await filled(zones, hooks=listener)
    lost = await lose_a_node_of_two_zones(zones)
    asked = []

    async def load(keys):
        asked.extend(keys)
        return dict.fromkeys(keys, "loaded")

    values = await cache.get_or_load_many(KEYS, load, consistency="quorum", policy=LoadPolicy(lease=lease))
    assert isinstance(listener.misses[0], ConsistencyError)
    assert set(asked) == (set() if lease else lost)
    assert values == VALUES | dict.fromkeys(asked, "loaded")


@on_zones()
async def test_two_zones_that_fail_at_once_end_a_quorum(zones):
    """The client does not wait for the third zone, which has not failed."""
    cache = await filled(zones, read_timeout=5.0)
    await zones.kill("a", "b")
    zones.pause("c")
    watch = Stopwatch()
    with pytest.raises(ConsistencyError) as caught:
        await cache.get_many(KEYS, consistency="quorum")
    assert watch.seconds == 0
    assert set(caught.value.failures) == {"a", "b"}
    await zones.kill("c")
    with pytest.raises(CacheUnavailable):
        await cache.get_many(KEYS, consistency="quorum")


@on_zones(nodes=2)
async def test_a_cancelled_bulk_read_leaves_nothing(zones):
    cache = await filled(zones, read_timeout=5.0)
    zones.pause("b", "c")
    reading = asyncio.ensure_future(cache.get_many(KEYS, consistency="quorum"))
    await pass_time(0.5)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    zones.resume("b", "c")
    await pass_time()
    assert await cache.get_many(KEYS, consistency="all") == VALUES
    assert cache.stats().background_tasks == 0
