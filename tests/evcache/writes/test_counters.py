"""Counters: versioned ints that one zone counts, with the guarantees of any other write."""

import asyncio
import math

import pytest

from evcache import CacheUnavailable
from evcache.replication.commands.command import execute
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.writes.conditional.increment import MAX_COUNTER
from evcache.zones.errors import ServerError
from evcache.zones.routing.zone_order import coordinator_order
from tests.support.memory_zones import QUICK, TOMBSTONE, cut_off, full, on_zones, pass_time, pause_before_decisions
from tests.support.near import near_client, settled
from tests.support.written import NOWHERE, coordinator_of, everywhere

DECIDES = coordinator_order(full("n"), "abc")[0]
OTHERS = [zone for zone in "abc" if zone != DECIDES]


def raw_values(zones):
    return {zone: zones.held("n", zone).raw.value for zone in "abc"}


@pytest.mark.parametrize("value", [0, 1, 9, 10, 42, 48, 99, 12345, 825373492, 2**32, 2**63, MAX_COUNTER])
@on_zones()
async def test_incr_of_an_int_that_was_set_counts(zones, value):
    """Every zone then has the int in its shortest form and under one version."""
    cache = await zones.ready()
    await cache.set("n", value, consistency="all")
    for _ in range(2):
        value = (value + 1) % 2**64
        assert await cache.incr("n", consistency="all") == value
        assert await cache.get("n") == value
        assert set(raw_values(zones).values()) == {b"%d" % value}
        versions = set(zones.stored_versions("n").values())
        assert len(versions) == 1
        assert None not in versions
        assert not any(zones.held("n", zone).raw.stale for zone in "abc")


@pytest.mark.parametrize("steps", [(10, 1), (100, 1), (1000, 999), (100, 91), (20, 20), (5, 100)])
@on_zones()
async def test_number_that_loses_digits_keeps_no_padding(zones, steps):
    cache = await zones.ready()
    value, delta = steps
    await cache.set("n", value, ttl=100, consistency="all")
    expected = max(0, value - delta)
    assert await cache.decr("n", delta, consistency="all") == expected
    assert set(raw_values(zones).values()) == {b"%d" % expected}
    assert zones.held("n", DECIDES).ttl == 100
    assert not zones.held("n", DECIDES).raw.stale
    assert await cache.incr("n", consistency="all") == expected + 1


@pytest.mark.parametrize("value", [True, False, b"5", "5", " 5", "", b"", -1, 2.5, None, [1]])
@on_zones()
async def test_incr_of_another_value_is_refused(zones, value):
    """Every kind of client refuses it alike, and the value stays."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    await clients[0].set("n", value, consistency="all")
    for cache in clients:
        for count in (cache.incr, cache.decr):
            with pytest.raises(ServerError, match="not a counter"):
                await count("n", initial=3)
        assert await cache.get("n") == value


@on_zones()
async def test_reads_of_several_zones_return_the_last_count(zones):
    """Also if a set made the counter, and while a zone lacks the last count."""
    cache = await zones.ready(circuit=QUICK, hints=None)
    reader = await zones.ready(circuit=QUICK, hints=None, local_zone=OTHERS[0])
    await cache.set("n", 0, consistency="all")
    await cut_off(zones, cache, OTHERS[1])
    for _ in range(10):
        counted = await cache.incr("n")
    zones.resume(OTHERS[1])
    await pass_time(3)
    for level in ("all", "quorum", "all_minus_one"):
        assert await reader.get("n", consistency=level, timeout=1) == counted == 10
    await pass_time()
    assert zones.values("n") == dict.fromkeys("abc", 10)


@pytest.mark.parametrize("what", ["set", "delete"])
@on_zones()
async def test_late_copy_of_a_counter_undoes_no_later_write(zones, what):
    """The copy of a counter has its version, and the later write a newer one."""
    counter = await zones.ready()
    other = await zones.ready(local_zone="b")
    await counter.incr("n", initial=5, consistency="all")
    late = OTHERS[0]
    held = zones.held("n", late)
    assert await counter.incr("n", consistency="all") == 6
    copy = zones.held("n", late)
    zones.put_back("n", held, late)
    await pass_time(0.01)
    await (other.set("n", 0, consistency="all") if what == "set" else other.delete("n", consistency="all"))
    expected = 0 if what == "set" else TOMBSTONE
    assert zones.values("n") == dict.fromkeys("abc", expected)
    # The copy arrives now, as the guarded store that it is.
    store = StoreCommand(counter._runtime.hlc, full("n"), copy.raw.value, copy.raw.flags, ttl=60, version=copy.version)
    node = next(pool for pool in counter._runtime.cluster.view.writers if pool.name == late).nodes[0]
    await execute(store, node, asyncio.get_running_loop().time() + 1)
    assert zones.values("n") == dict.fromkeys("abc", expected)


@on_zones()
async def test_counters_that_several_clients_move_end_equal(zones):
    """No step is lost or doubled, in any order in which the copies arrive."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    await clients[0].incr("n", initial=0, consistency="all")
    counts = await asyncio.gather(*(clients[number % 3].incr("n") for number in range(90)))
    assert sorted(counts) == list(range(1, 91))
    await pass_time()
    assert zones.values("n") == dict.fromkeys("abc", 90)
    assert len(set(zones.stored_versions("n").values())) == 1


@on_zones()
async def test_step_whose_reply_is_lost_is_counted_once(zones):
    """The call raises, because the client cannot know the outcome. The zones agree on it."""
    cache = await zones.ready(circuit=QUICK)
    await cache.set("n", 5, consistency="all")
    pause_before_decisions(zones, cache, DECIDES)
    with pytest.raises(CacheUnavailable):
        await cache.incr("n", timeout=0.3)
    zones.resume(DECIDES)
    await pass_time(10)
    assert zones.values("n") == dict.fromkeys("abc", 6)
    assert len(set(raw_values(zones).values())) == 1


@on_zones()
async def test_near_cache_returns_the_last_own_count(zones):
    cache, _ = near_client(zones, "a")
    await settled(zones, cache)
    assert await cache.incr("n", initial=1, consistency="all") == 1
    assert await cache.get("n") == 1
    assert await cache.incr("n", consistency="all") == 2
    assert await cache.get("n") == 2


@pytest.mark.parametrize("interop", [True, False])
@pytest.mark.parametrize("version", ["1.6.18", "1.6.38"])
def test_counters_on_every_kind_of_server(interop, version):
    """In interop mode, counters are text, as other clients make them. Packed ints are refused."""

    @on_zones(versions=version)
    async def main(zones):
        cache = await zones.ready(interop=interop)
        assert await cache.incr("n", initial=8, consistency="all") == 8
        assert await cache.incr("n", 2, consistency="all") == 10
        assert await cache.decr("n", consistency="all") == 9
        counted = "9" if interop else 9
        value = await cache.get("n")
        assert value.strip() == counted if interop else value == counted
        await cache.set("m", 5, consistency="all")
        if interop:
            with pytest.raises(ServerError, match="not a counter"):
                await cache.incr("m")
        else:
            assert await cache.incr("m") == 6
        await cache.set("text", "5", consistency="all")
        if interop:
            assert await cache.incr("text") == 6
        else:
            with pytest.raises(ServerError, match="not a counter"):
                await cache.incr("text")

    main()


@on_zones()
async def test_calls_of_one_client_for_one_key_decide_one_after_another(zones):
    """Two of them at once would fail each other's compare. Each step is sent once."""
    cache = await zones.ready()
    await cache.set("n", 0, consistency="all")
    zones.forget()
    assert sorted(await asyncio.gather(*(cache.incr("n") for _ in range(30)))) == list(range(1, 31))
    assert zones.commands(DECIDES)["ma"] == 30
    assert len(cache._runtime.writer._conditional._locks) == 0


@on_zones()
async def test_call_waits_for_the_lock_of_its_key_until_its_own_deadline(zones):
    """The call before it may take longer. No lock is left."""
    cache = await zones.ready()
    await cache.set("n", 0, consistency="all")
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with cache._runtime.writer._conditional._locks.of(full("n")):
        with pytest.raises(CacheUnavailable) as caught:
            await cache.incr("n", timeout=0.2)
    assert loop.time() - began == pytest.approx(0.2)
    assert "other calls of this client" in str(caught.value.failures[DECIDES])
    assert len(cache._runtime.writer._conditional._locks) == 0
    assert await cache.incr("n") == 1


@on_zones()
async def test_looks_of_one_client_for_one_key_run_at_once(zones):
    """A zone hangs, so each look takes long. Only the decisions are made one after another."""
    cache = await zones.ready(write_timeout=0.9)
    await cache.set("n", 0, consistency="all")
    zones.pause(OTHERS[1])
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert sorted(await asyncio.gather(*(cache.incr("n") for _ in range(50)))) == list(range(1, 51))
    assert loop.time() - began == pytest.approx(0.3)


@pytest.mark.parametrize("initial", [None, 7])
@on_zones()
async def test_incr_of_a_counter_deleted_after_the_look_is_none(zones, initial):
    cache = await zones.ready()
    other = await zones.ready(local_zone="b")
    await cache.set("n", 5, consistency="all")
    look = cache._runtime.coordinator.look

    async def looks_and_is_late(*arguments, **options):
        seen = await look(*arguments, **options)
        await other.delete("n", consistency="all")
        return seen

    cache._runtime.coordinator.look = looks_and_is_late
    assert await cache.incr("n", initial=initial) == initial


@on_zones()
async def test_incr_and_decr_move_the_counter_in_every_zone(zones):
    """Never below 0, and from 2^64-1 to 0."""
    cache = await zones.ready()
    assert await cache.incr("n") is None
    assert await cache.decr("n") is None
    assert zones.values("n") == NOWHERE
    assert await cache.incr("n", 7, initial=5, ttl=100, consistency="all") == 5
    assert zones.values("n") == everywhere(5)
    assert {zones.held("n", zone).ttl for zone in "abc"} == {100}
    assert await cache.incr("n", 7, consistency="all") == 12
    assert await cache.decr("n", 3, consistency="all") == 9
    assert {zones.held("n", zone).raw.value for zone in "abc"} == {b"9"}, "no zone keeps memcached's padding"
    assert await cache.decr("n", 100, consistency="all") == 0
    assert await cache.incr("n", 2**64 - 1, consistency="all") == 2**64 - 1
    assert await cache.incr("n", 2, consistency="all") == 1
    assert await cache.incr("n", 0, consistency="all") == 1
    assert await cache.get("n") == 1
    assert zones.values("n") == everywhere(1)
    assert len(set(zones.stored_versions("n").values())) == 1
    assert zones.stored_versions("n")["a"] is not None
    assert sorted(zones.held("n", zone).ttl for zone in "abc") == [98, 98, 100], "no copy outlives what was decided"


@pytest.mark.parametrize("ttl", [math.inf, 40 * 86400])
@on_zones()
async def test_counter_keeps_its_ttl_in_every_zone(zones, ttl):
    """Also if it does not expire, or lives for over 30 days."""
    cache = await zones.ready()
    await cache.incr("n", initial=9, ttl=ttl, consistency="all")
    assert await cache.incr("n", consistency="all") == 10
    for zone in "abc":
        left = zones.held("n", zone).ttl
        assert left is None if ttl == math.inf else left == pytest.approx(ttl, abs=2)


@on_zones()
async def test_incr_over_a_tombstone_is_none_or_the_initial_value(zones):
    cache = await zones.ready()
    await cache.set("n", 5, consistency="all")
    await cache.delete("n", consistency="all")
    assert await cache.incr("n") is None
    assert zones.values("n") == everywhere(TOMBSTONE)
    assert await cache.decr("n", initial=3, ttl=50, consistency="all") == 3
    assert zones.values("n") == everywhere(3)
    assert {zones.held("n", zone).ttl for zone in "abc"} == {50}
    assert await cache.incr("n", consistency="all") == 4


@pytest.mark.parametrize("value", ["text", "5", b"5", [1], -7, b"\0", True, 2.5, None])
@on_zones()
async def test_incr_of_a_text_is_a_server_error(zones, value):
    """Not `CacheUnavailable`, because the zone did answer. The value stays."""
    cache = await zones.ready()
    await cache.set("n", value, consistency="all")
    with pytest.raises(ServerError, match="not a counter"):
        await cache.incr("n")
    with pytest.raises(ServerError, match="not a counter"):
        await cache.incr("n", initial=1)
    assert zones.values("n") == everywhere(value)


@on_zones()
async def test_concurrent_counting_loses_no_step(zones):
    """Each caller gets another number."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    await clients[0].incr("n", initial=0, consistency="all")
    numbers = await asyncio.gather(*(clients[number % 3].incr("n", consistency="all") for number in range(60)))
    assert sorted(numbers) == list(range(1, 61))


@on_zones()
async def test_incr_returns_the_value_although_copies_are_missing(zones):
    """A caller without the number would count again."""
    cache = await zones.ready()
    zone = await coordinator_of(zones, cache, "n")
    await zones.kill(*(set("abc") - {zone}))
    assert await cache.incr("n", initial=1, consistency="all") == 1
    assert await cache.incr("n", consistency="all") == 2
