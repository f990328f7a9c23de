"""Decisions, copies and touches with another write between two of their steps."""

import asyncio
import copy

import pytest

from evcache import CacheUnavailable, LoadPolicy
from evcache.replication.commands import node_requests
from evcache.replication.repair.read_repair import StaleCopy
from evcache.writes.conditional.increment import Increment
from evcache.zones.errors import CacheError
from evcache.zones.protocol.fields import INSPECT_VALUE_FIELDS
from evcache.zones.routing.zone_order import coordinator_order
from tests.support.memory_zones import PATIENT, QUICK, cut_off, full, on_zones, pass_time

DECIDES = coordinator_order(full("k"), "abc")[0]
OTHERS = [zone for zone in "abc" if zone != DECIDES]


def snapshot(zones, zone):
    held = zones.held("k", zone)
    return held._replace(raw=copy.copy(held.raw))


def before_the_next(monkeypatch, name, what):
    """Run `what` before the next request that the increment makes by this function, and before no other."""
    real = getattr(node_requests, name)

    async def function(*arguments, **more):
        monkeypatch.setattr(node_requests, name, real)
        await what()
        return await real(*arguments, **more)

    monkeypatch.setattr(node_requests, name, function)


@pytest.mark.parametrize("between", ["store", "count_and_peek"])
@pytest.mark.parametrize("skew", [0.0, 2.0, -2.0])
@on_zones()
async def test_number_gains_a_digit_while_another_client_counts(zones, monkeypatch, skew, between):
    """The client makes room first, under a version. A write between the two steps is another step, and no step is lost."""
    one = await zones.ready(hints=None, wall_clock=lambda: zones.wall_clock() + skew)
    other = await zones.ready(hints=None, local_zone="b")
    await one.set("k", 9, consistency="all")
    before_the_next(monkeypatch, between, lambda: other.incr("k"))
    assert sorted([await one.incr("k"), await one.incr("k")]) == [11, 12]
    await pass_time(1)
    assert await other.incr("k", initial=1) == 13
    assert zones.values("k") == dict.fromkeys("abc", 13)


@on_zones()
async def test_counter_without_a_version_is_waited_for(zones):
    """Another client is about to give it one. Neither a count nor a late copy may treat it as an item of another kind of client."""
    one = await zones.ready(hints=None)
    other = await zones.ready(hints=None, local_zone="b")
    await one.set("k", 5, consistency="all")
    raw = zones.held("k", DECIDES).raw
    named = raw.cas
    raw.cas = 7  # as memcached leaves it, when the number was being sent
    counting = asyncio.ensure_future(other.incr("k"))
    await pass_time(0.005)
    assert not counting.done()
    zones.one(DECIDES).store.get(full("k")).cas = named
    assert await counting == 6
    await pass_time(0.1)
    assert zones.values("k") == dict.fromkeys("abc", 6)


@on_zones()
async def test_copy_replaces_no_item_of_its_own_version(zones):
    """The zones were asked one after another. The zone that seemed stale has the version by now, with a longer TTL."""
    one = await zones.ready()
    other = await zones.ready(local_zone="b")
    await one.set("k", 1, ttl=3, consistency="all")
    compare = one._runtime.repair.compare
    compared = []

    async def compares_too_early(view, key, deadline, **options):
        first = await compare(view, key, deadline, **options)
        if compared:
            return first
        compared.append(first)
        await other.incr("k", consistency="all")
        second = await compare(view, key, deadline, **options)
        nodes = {pool.name: pool.node(view.ring_position(key)) for pool in view.readers}
        lack = StaleCopy(DECIDES, key, second.latest, nodes[OTHERS[0]], nodes[DECIDES], holds_older=True)
        return second._replace(seen={**second.seen, DECIDES: first.seen[DECIDES]}, stale=[lack])

    one._runtime.repair.compare = compares_too_early
    assert await one.incr("k") == 3
    assert zones.held("k", DECIDES).ttl == 3


@pytest.mark.parametrize("what", ["copies", "add", "incr"])
@on_zones()
async def test_long_timeout_shortens_no_ttl(zones, what):
    """A copy lives shorter by the time that has passed and a second, and not by the whole timeout."""
    cache = await zones.ready(hints=None)
    await cache.set("k", 100, ttl=20, consistency="all")
    if what == "copies":
        assert await cache.incr("k", consistency="all", timeout=30) == 101
        assert zones.values("k") == dict.fromkeys("abc", 101)
        assert {zones.held("k", zone).ttl for zone in OTHERS} == {18}
        return
    zones.evict("k", DECIDES)
    other = zones.client(hints=None)
    if what == "add":
        assert not await other.add("k", 1, timeout=30)
    else:
        assert await other.incr("k", initial=1, ttl=20, timeout=30) == 101


@on_zones()
async def test_lock_that_the_coordinator_has_lost_is_held_to_its_end(zones):
    """It has too little time left for a copy, and still exists."""
    cache = await zones.ready()
    assert await cache.add("k", "holder", ttl=2, consistency="all")
    zones.evict("k", DECIDES)
    other = await zones.ready(local_zone="b")
    assert not await other.add("k", "another", ttl=2)
    await pass_time(2)
    assert await other.add("k", "another", ttl=2)


@pytest.mark.parametrize("operation", ["incr", "add", "replace", "append", "get_item"])
@on_zones()
async def test_write_without_the_known_latest_version_is_unavailable(zones, operation):
    """The zones with the latest version hang, and the coordinator has an older one."""
    cache = await zones.ready(hints=None, local_zone=OTHERS[0], circuit=PATIENT)
    old, new = (100, 105) if operation == "incr" else ("old", "new")
    await cache.set("k", old, consistency="all")
    held = snapshot(zones, DECIDES)
    await cache.set("k", new, consistency="all")
    zones.put_back("k", held, DECIDES)
    zones.pause(*OTHERS)
    calls = {
        "incr": lambda: cache.incr("k", initial=1, timeout=1),
        "add": lambda: cache.add("k", "x", timeout=1),
        "replace": lambda: cache.replace("k", "x", timeout=1),
        "append": lambda: cache.append("k", "x", timeout=1),
        "get_item": lambda: cache.get_item("k", for_update=True, timeout=1),
    }
    with pytest.raises(CacheUnavailable, match="newer version"):
        await calls[operation]()
    zones.resume(*OTHERS)
    assert zones.values("k")[OTHERS[0]] == new


@on_zones()
async def test_step_that_another_one_follows_reaches_the_required_zones(zones, monkeypatch):
    """The other client may never send its copies. This client sends the present value in their place."""
    one = await zones.ready(hints=None)
    other = await zones.ready(hints=None, local_zone="b")
    await one.set("k", 5, consistency="all")
    both = node_requests.count_and_peek

    async def followed(node, key, delta, deadline, **more):
        monkeypatch.setattr(node_requests, "count_and_peek", both)
        reply, _ = await both(node, key, delta, deadline, **more)
        other._runtime.writer._conditional._replicator = None  # its process ends before it can send anything
        with pytest.raises(AttributeError):
            await other._runtime.writer._conditional._coordinate(
                "incr",
                other._runtime.cluster.view,
                Increment(full("k"), 1, ttl=900),
                other._config.defaults.write(None, None, None),
            )
        return reply, await node_requests.get(node, key, INSPECT_VALUE_FIELDS, deadline)

    monkeypatch.setattr(node_requests, "count_and_peek", followed)
    assert await one.incr("k", consistency="all") == 6
    assert zones.values("k") == dict.fromkeys("abc", 7)
    assert len(set(zones.stored_versions("k").values())) == 1


# Touches.


@on_zones()
async def test_later_touch_is_not_undone_by_the_hint_of_an_earlier_one(zones):
    cache = await zones.ready(circuit=PATIENT)
    await cache.set("k", "v", ttl=100, consistency="all")
    zones.pause("c")
    await cache.touch("k", 3600, consistency="all", timeout=0.2)
    zones.resume("c")
    await pass_time(0.01)
    assert await cache.touch("k", 5, consistency="all")
    assert cache.stats().hints == 0
    await pass_time(13)
    assert zones.values("k") == dict.fromkeys("abc")


@pytest.mark.parametrize("how", ["get_and_touch", "all", "quorum", "one"])
@on_zones()
async def test_envelope_is_touched_although_a_zone_is_down(zones, how):
    """The touch completes as soon as the client finds the zone down. The items of the other zones are not known by then."""
    cache = await zones.ready(circuit=QUICK)

    async def load():
        return "v"

    await cache.get_or_load("k", load, ttl=20, policy=LoadPolicy(stale_while_revalidate=60, jitter=0))
    await pass_time(1)
    await cut_off(zones, cache, "c")
    if how == "get_and_touch":
        await cache.get_and_touch("k", 1000)
    else:
        await cache.touch("k", 1000, consistency=how)
    await pass_time(60)
    assert await cache.get("k") == "v"


@on_zones()
async def test_deleted_value_is_not_touched_in_a_zone_that_missed_the_delete(zones):
    cache = await zones.ready(hints=None)
    await cache.set("k", "v", ttl=100, consistency="all")
    held = snapshot(zones, "c")
    await cache.delete("k", consistency="all")
    zones.put_back("k", held, "c")
    try:
        assert not await cache.touch("k", 5000, consistency="one")
    except CacheError:
        pytest.fail("the zones answered")
    await pass_time(0.1)
    assert zones.held("k", "c").ttl == 100
