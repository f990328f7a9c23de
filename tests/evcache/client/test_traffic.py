"""Bytes by zone in `stats()`, on each core: the servers of a zone have read and written as many."""

import asyncio
from contextlib import nullcontext
from dataclasses import replace

import pytest

from evcache import Gutter, Mode, NearCache, ZoneTraffic
from evcache.zones import Topology
from tests.evcache.replication.test_gutter import add_gutter
from tests.support.cores import CORES, running
from tests.support.memory_zones import QUICK, ChangingTopology, MemoryZones, on_zones, pass_time
from tests.support.virtual_time import VirtualTimeLoop


@pytest.fixture(params=CORES, ids=lambda core: core.name, autouse=True)
def each_core(request):
    with running(request.param):
        yield


def of_servers(zones, zone):
    """Return the bytes that the servers of a zone have read and written."""
    counts = [fake.store.counts for fake in zones.servers[zone]]
    return sum(count["bytes_read"] for count in counts), sum(count["bytes_written"] for count in counts)


def of_client(cache, zone):
    traffic = cache.stats().traffic[zone]
    return traffic.sent, traffic.received


async def load():
    return b"loaded"


CALLS = {
    "get": lambda cache: cache.get("small"),
    "get of a miss": lambda cache: cache.get("nothing"),
    "get of a large value": lambda cache: cache.get("large"),
    "get from all zones": lambda cache: cache.get("small", consistency="all"),
    "get_many": lambda cache: cache.get_many(["small", "large", "nothing"]),
    "set": lambda cache: cache.set("k", b"v"),
    "set of a large value": lambda cache: cache.set("k", bytes(200_000)),
    "set_many": lambda cache: cache.set_many({f"k{number}": b"v" for number in range(100)}),
    "delete": lambda cache: cache.delete("k"),
    "touch": lambda cache: cache.touch("small", 60),
    "add": lambda cache: cache.add("added", 1),
    "incr": lambda cache: cache.incr("number", 1, initial=1),
    "get_or_load": lambda cache: cache.get_or_load("loaded", load),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@on_zones(zones=3, nodes=2)
async def test_a_call_counts_what_the_servers_read_and_write(zones, call):
    cache = await zones.ready(write_consistency="all")
    await cache.set_many({"small": b"v", "large": bytes(200_000)})
    await pass_time()
    before = {zone: of_client(cache, zone) for zone in zones.names}
    await call(cache)
    await pass_time()
    after = {zone: of_client(cache, zone) for zone in zones.names}
    assert after == {zone: of_servers(zones, zone) for zone in zones.names}
    assert all(late > early for late, early in zip(after["a"], before["a"], strict=True))


@on_zones(zones=2)
async def test_calls_that_are_cancelled_count(zones):
    cache = await zones.ready()
    await cache.set("k", bytes(200_000), consistency="all")
    zones.pause("a")
    calls = [asyncio.ensure_future(call) for call in (cache.get("k"), cache.set("k", b"v"), cache.get_many(["k", "l"]))]
    await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    zones.resume("a")
    await pass_time()
    assert {zone: of_client(cache, zone) for zone in "ab"} == {zone: of_servers(zones, zone) for zone in "ab"}


@on_zones(zones=1)
async def test_a_read_from_the_near_cache_counts_nothing(zones):
    cache = await zones.ready(near_cache=NearCache())
    await cache.set("k", b"v")
    assert await cache.get("k") == b"v"
    before = cache.stats().traffic
    assert (await cache.get_item("k")).source == "near"
    assert cache.stats().traffic == before


@on_zones(zones=2, classic_only=True)
async def test_zones_of_classic_servers_count(zones):
    cache = await zones.ready(ordering="arrival")
    await cache.set("k", bytes(200_000), consistency="all")
    assert await cache.get("k", consistency="all") == bytes(200_000)
    await pass_time()
    assert {zone: of_client(cache, zone) for zone in "ab"} == {zone: of_servers(zones, zone) for zone in "ab"}
    assert min(of_client(cache, "b")) > 200_000


# The local zone.


@pytest.mark.parametrize(
    ("local_zone", "write_only", "local"),
    [("a", (), {"a"}), ("b", (), {"b"}), ("a", ("a",), {"a"}), (None, (), set())],
    ids=["first", "second", "write-only", "none"],
)
@on_zones(zones=3)
async def test_the_zone_of_the_process_is_local(zones, local_zone, write_only, local):
    """Also while it is write-only: its bytes do not cross zones, whichever zone is read first."""
    topology = Topology(
        tuple(replace(zone, mode=Mode.WRITE_ONLY) if zone.name in write_only else zone for zone in zones.topology.zones)
    )
    cache = await zones.ready(zones=topology, local_zone=local_zone)
    traffic = cache.stats().traffic
    assert {zone for zone in traffic if traffic[zone].is_local} == local
    assert traffic.keys() == {"a", "b", "c"}


@on_zones(zones=2)
async def test_the_gutter_has_its_name_and_is_not_local(zones):
    cache = await zones.ready(gutter=Gutter(add_gutter(zones)), circuit=QUICK)
    assert cache.stats().traffic["gutter"] == ZoneTraffic(0, 0, is_local=False)
    await zones.kill("a", "b")
    await cache.set("k", b"v")
    assert await cache.get("k") == b"v"
    await pass_time()
    assert of_client(cache, "gutter") == of_servers(zones, "gutter")
    assert min(of_client(cache, "gutter")) > 0


# Counts go on.


@on_zones(zones=1)
async def test_there_are_no_counts_before_the_first_topology(zones):
    assert zones.client().stats().traffic == {}


@on_zones(zones=2)
async def test_a_zone_that_left_keeps_its_bytes(zones):
    changing = ChangingTopology(zones.topology)
    cache = await zones.ready(zones=changing)
    await cache.set("k", b"v", consistency="all")
    before = cache.stats().traffic["b"]
    changing.change(Topology(zones.topology.zones[:1]))
    await pass_time(60)
    assert cache.stats().traffic["b"] == before
    changing.change(zones.topology)
    await cache.set("k", b"v", consistency="all")
    await pass_time()
    assert of_client(cache, "b") == of_servers(zones, "b")
    assert cache.stats().traffic["b"].sent > before.sent


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "not closed"])
def test_counts_go_on_after_the_client_is_opened_again(closes):
    """On another event loop. It has been closed, or its loop has ended."""
    made = []
    before = {}

    async def part():
        if not made:
            zones = MemoryZones(2)
            made.append((zones, zones.client()))
        zones, cache = made[0]
        assert cache.stats().traffic == before
        async with cache if closes else nullcontext():
            await cache.set("k", b"v", consistency="all")
            await pass_time()
            assert {zone: of_client(cache, zone) for zone in "ab"} == {zone: of_servers(zones, zone) for zone in "ab"}
        return cache.stats().traffic

    for _ in range(3):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            after = runner.run(part())
        assert after["b"].sent > (before["b"].sent if before else 0)
        before = after


@on_zones(zones=2)
async def test_clients_count_their_own_bytes(zones):
    one, two = await zones.ready(), await zones.ready()
    before = two.stats().traffic
    await one.set("k", b"v", consistency="all")
    assert two.stats().traffic == before


@on_zones(zones=3)
async def test_a_guarded_write_of_a_kilobyte_takes_about_its_size_in_each_zone(zones):
    """The commands around the value take less than 300 bytes."""
    cache = await zones.ready()
    before = cache.stats().traffic
    await cache.set("k", bytes(1000), consistency="all")
    after = cache.stats().traffic
    taken = [(after[zone].sent - before[zone].sent, after[zone].received - before[zone].received) for zone in "abc"]
    assert len(set(taken)) == 1
    assert 1_000 < taken[0][0] < 1_300
    assert 0 < taken[0][1] < 100
