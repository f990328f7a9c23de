"""Hinted handoff while zones are added, removed and replaced, and while some cannot be compared."""

import asyncio

import pytest

from evcache import CircuitLimits, Hints
from evcache.replication.handoff.hinted_handoff import MAX_DELIVERIES, RETRY_LONGEST_SECONDS
from evcache.replication.repair.comparison import Comparison, StaleCopy
from evcache.zones import Endpoint, Topology, Zone
from tests.support.memory_zones import QUICK, ChangingTopology, Listener, cut_off, full, on_zones, pass_time

BACK_SECONDS = 5.0  # after which a node that lives again has been noticed, and has got what it missed


def without(topology, name):
    return Topology(tuple(zone for zone in topology.zones if zone.name != name))


@on_zones()
async def test_a_zone_that_leaves_takes_its_hints_with_it(zones):
    """When it is added again it is to be empty; until then nothing is kept for it."""
    listener = Listener()
    discovery = ChangingTopology(zones.topology)
    cache = await zones.ready(zones=discovery, circuit=QUICK, hooks=listener, topology_guard=None)
    await cut_off(zones, cache, "c")
    await cache.set("k", "value")
    await pass_time(10)
    discovery.change(without(zones.topology, "c"))
    await pass_time(RETRY_LONGEST_SECONDS + BACK_SECONDS)
    assert cache.stats().hints == 0
    assert listener.ended == [("c", "expired")]
    zones.resume("c")


@on_zones()
async def test_a_node_that_is_replaced_gets_what_the_old_one_missed(zones):
    """The new one is not back: it never was away. It is found all the same."""
    discovery = ChangingTopology(zones.topology)
    cache = await zones.ready(zones=discovery, circuit=QUICK)
    await zones.kill("c")
    written = await cache.set("k", "value")
    await pass_time(10)
    moved = Endpoint.parse("elsewhere:11211")
    zones._by_address[moved.address] = zones._by_address["c0:11211"]
    zones.restart("c")
    discovery.change(Topology((*without(zones.topology, "c").zones, Zone("c", (moved,)))))
    await pass_time(RETRY_LONGEST_SECONDS + BACK_SECONDS)
    assert cache.stats().hints == 0
    assert zones.stored_versions("k")["c"] == written.version


@pytest.mark.parametrize("moment", ["while it is on its way", "after it has ended"])
@on_zones()
async def test_a_zone_that_is_added_while_a_write_is_on_its_way_gets_it(zones, moment):
    """The write does not know of it. Afterwards it is for reads to fill: what they find is the newest there is."""
    discovery = ChangingTopology(without(zones.topology, "c"))
    cache = await zones.ready(zones=discovery, circuit=CircuitLimits(slow_start=0, timeouts_in_a_row=100))
    await cache.set("k", "old", consistency="all")
    zones.pause("b")
    written = await cache.set("k", "new", consistency="one", timeout=5.0)
    if moment == "while it is on its way":
        discovery.change(zones.topology)
        await pass_time(0.1)
    zones.resume("b")
    await pass_time(0.1)
    discovery.change(zones.topology)
    await pass_time(RETRY_LONGEST_SECONDS)
    held = {"a": written.version, "b": written.version, "c": None}
    if moment == "while it is on its way":
        held["c"] = written.version
    assert zones.stored_versions("k") == held
    assert cache.stats().hints == 0


@on_zones()
async def test_what_is_kept_for_a_new_zone_outlives_a_look_that_began_before_it(zones):
    """A pass takes as long as its deliveries. A zone may be added during it, and miss a write."""
    listener = Listener()
    discovery = ChangingTopology(without(zones.topology, "c"))
    cache = await zones.ready(zones=discovery, circuit=QUICK, hooks=listener, hints=Hints(rate=MAX_DELIVERIES / 2))
    await cut_off(zones, cache, "b")
    await cache.delete_many([f"k{number}" for number in range(MAX_DELIVERIES)])
    zones.resume("b")
    while not listener.ended:
        await pass_time(0.001)
    await zones.kill("c")  # deletes come first, and those of this look take it two seconds
    discovery.change(zones.topology)
    await pass_time(0.001)
    second = await cache.set("second", 2)
    await pass_time(1.9)
    assert cache.stats().hints > 0
    await pass_time(3.0)
    assert ("c", "expired") not in listener.ended
    zones.restart("c")
    await pass_time(RETRY_LONGEST_SECONDS + BACK_SECONDS)
    assert zones.stored_versions("second") == dict.fromkeys("abc", second.version)


@on_zones()
async def test_a_zone_that_is_added_while_the_only_one_decides_gets_it(zones):
    """Then there is no other zone to spread the decision to, as far as the call knows."""
    discovery = ChangingTopology(without(without(zones.topology, "c"), "b"))
    cache = await zones.ready(zones=discovery, circuit=CircuitLimits(slow_start=0, timeouts_in_a_row=100))
    call = asyncio.create_task(cache.add("k", "v", timeout=5.0))
    zones.pause("a")
    await pass_time(0.1)
    discovery.change(zones.topology)
    await pass_time(0.1)
    zones.resume("a")
    added = await call
    assert added
    await pass_time(RETRY_LONGEST_SECONDS)
    assert zones.stored_versions("k") == dict.fromkeys("abc", added.version)


# What can't be compared.


@on_zones()
async def test_an_old_write_that_was_brought_does_not_stay_because_the_newer_one_was_out_of_reach(zones):
    """The zone came back empty. The one that has something newer can't be asked just then, and is asked later."""
    other = await zones.ready()
    cache = await zones.ready(circuit=QUICK)
    await cut_off(zones, cache, "c")
    await cache.set("k", "older")
    await pass_time(0.01)
    zones.resume("c")
    newer = await other.set("k", "newer", consistency="all")
    zones.evict("k", "a", "c")
    zones.pause("b")
    await pass_time(BACK_SECONDS)
    assert zones.values("k")["c"] == "older", "it has been brought"
    zones.resume("b")
    await pass_time(RETRY_LONGEST_SECONDS + BACK_SECONDS)
    assert zones.stored_versions("k") == dict.fromkeys("abc", newer.version)
    assert cache.stats().hints == 0


@pytest.mark.parametrize("down", [True, False])
@on_zones()
async def test_a_zone_that_goes_down_between_the_look_and_the_copy_is_not_settled(zones, down, monkeypatch):
    """The caller must know, so that the zones are compared again."""
    cache = await zones.ready()
    written = await cache.set("k", "v", consistency="all")
    zones.evict("k", "c")
    view = cache._runtime.cluster.view
    nodes = {pool.name: pool.nodes[0] for pool in view.writers}
    key = full("k")

    async def compare(*_):
        if down:
            await cut_off(zones, cache, "c")
        lack = StaleCopy("c", key, written.version, nodes["a"], nodes["c"], holds_older=False)
        return Comparison({"c": None}, {}, written.version, [lack])

    monkeypatch.setattr(cache._runtime.repair, "compare", compare)
    settled = await cache._runtime.repair.compare_and_repair(view, key, view.loop.time() + 100)
    assert settled.failures.keys() == ({"c"} if down else set())
    assert zones.values("k")["c"] == (None if down else "v")
