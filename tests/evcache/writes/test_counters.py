"""Counters: versioned ints that one zone counts, with the guarantees of any other write."""

import asyncio

import pytest

from evcache import CacheUnavailable
from evcache.replication.command import execute
from evcache.replication.guarded_store import StoreCommand
from evcache.writes.increment import MAX_COUNTER
from evcache.zones.errors import ServerError
from evcache.zones.routing.zone_order import coordinator_order
from tests.support.memory_zones import QUICK, TOMBSTONE, cut_off, full, on_zones, pass_time, pause_before_decisions
from tests.support.near_clients import near_client, settled

DECIDES = coordinator_order(full("n"), "abc")[0]
OTHERS = [zone for zone in "abc" if zone != DECIDES]


def raw_values(zones):
    return {zone: zones.held("n", zone).raw.value for zone in "abc"}


@pytest.mark.parametrize("value", [0, 1, 9, 10, 42, 48, 99, 12345, 825373492, 2**32, 2**63, MAX_COUNTER])
@on_zones()
async def test_an_int_that_was_set_can_be_counted(zones, value):
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
async def test_a_number_that_loses_digits_keeps_no_padding(zones, steps):
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
async def test_what_is_no_int_from_0_up_is_refused(zones, value):
    """Every client refuses it in the same way, and the value stays unchanged."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    await clients[0].set("n", value, consistency="all")
    for cache in clients:
        for count in (cache.incr, cache.decr):
            with pytest.raises(ServerError, match="not a counter"):
                await count("n", initial=3)
        assert await cache.get("n") == value


@on_zones()
async def test_all_and_quorum_read_what_was_counted(zones):
    """Also when it began as a set, and while a zone lacks what was counted."""
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
async def test_a_late_copy_undoes_neither_a_set_nor_a_delete(zones, what):
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
    store = StoreCommand(counter._repair._clock, full("n"), copy.raw.value, copy.raw.flags, ttl=60, version=copy.version)
    node = next(pool for pool in counter._cluster.view.writers if pool.name == late).nodes[0]
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
async def test_a_step_that_was_decided_and_not_heard_of_is_counted_once(zones):
    """The call raises, since the client cannot know; the zones agree on whether it was."""
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
async def test_a_counter_is_read_near_as_what_it_is(zones):
    """The client that counts sees its own count."""
    cache, _ = near_client(zones, "a")
    await settled(zones, cache)
    assert await cache.incr("n", initial=1, consistency="all") == 1
    assert await cache.get("n") == 1
    assert await cache.incr("n", consistency="all") == 2
    assert await cache.get("n") == 2


@pytest.mark.parametrize("interop", [True, False])
@pytest.mark.parametrize("version", ["1.6.18", "1.6.38"])
def test_counters_of_every_kind_of_server(interop, version):
    """With other kinds of clients, counters are text, as those make them; packed ints are refused."""

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
async def test_a_client_counts_one_key_step_by_step(zones):
    """Its own calls would make each other's compare fail: no step is tried twice."""
    cache = await zones.ready()
    await cache.set("n", 0, consistency="all")
    zones.forget()
    assert sorted(await asyncio.gather(*(cache.incr("n") for _ in range(30)))) == list(range(1, 31))
    assert zones.commands(DECIDES)["ma"] == 30
    assert len(cache._writes._conditional._locks) == 0


@on_zones()
async def test_a_call_waits_for_its_turn_until_its_own_deadline(zones):
    """The one before it may take longer than it has; and it leaves nothing behind."""
    cache = await zones.ready()
    await cache.set("n", 0, consistency="all")
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with cache._writes._conditional._locks.of(full("n")):
        with pytest.raises(CacheUnavailable) as caught:
            await cache.incr("n", timeout=0.2)
    assert loop.time() - began == pytest.approx(0.2)
    assert "other calls of this client" in str(caught.value.failures[DECIDES])
    assert len(cache._writes._conditional._locks) == 0
    assert await cache.incr("n") == 1


@on_zones()
async def test_a_zone_that_hangs_does_not_make_calls_for_one_key_wait_for_each_other(zones):
    """Each compares the zones for itself, all at the same time, and only the decisions are made one by one."""
    cache = await zones.ready(write_timeout=0.9)
    await cache.set("n", 0, consistency="all")
    zones.pause(OTHERS[1])
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert sorted(await asyncio.gather(*(cache.incr("n") for _ in range(50)))) == list(range(1, 51))
    assert loop.time() - began == pytest.approx(0.3)


@pytest.mark.parametrize("initial", [None, 7])
@on_zones()
async def test_a_counter_that_is_deleted_while_it_is_counted(zones, initial):
    """After it was looked at: then there is none, which is no error."""
    cache = await zones.ready()
    other = await zones.ready(local_zone="b")
    await cache.set("n", 5, consistency="all")
    look = cache._coordinator.look

    async def looks_and_is_late(*arguments, **options):
        seen = await look(*arguments, **options)
        await other.delete("n", consistency="all")
        return seen

    cache._coordinator.look = looks_and_is_late
    assert await cache.incr("n", initial=initial) == initial
