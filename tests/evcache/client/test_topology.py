"""Where a client finds its zones and its own zone, and what it does while their source fails."""

import asyncio
import logging

import pytest

from evcache import CacheUnavailable, DiscoveryError, EVCache, InvalidTopology, LocalZone, Topology
from evcache.zones.discovery.own_zone.finder import OwnZone
from tests.support.memory_zones import PolledZones, on_zones, pass_time
from tests.support.virtual_time import now, settle

FINDER = "evcache.zones.discovery.own_zone.search.find_own_zone"


def finds(monkeypatch, names=("b",), seconds=0.0):
    async def find(*, timeout):
        await asyncio.sleep(min(seconds, timeout))
        return OwnZone(names, "test") if names and seconds < timeout else None

    monkeypatch.setattr(FINDER, find)


# The zone of this process.


@on_zones()
async def test_own_zone_is_read_first(zones, monkeypatch):
    finds(monkeypatch)
    async with zones.client(local_zone="auto") as cache:
        await cache.set("k", 1, consistency="all")
        assert (await cache.get_item("k")).zone == "b"


@on_zones()
async def test_calls_do_not_wait_for_a_metadata_server(zones, monkeypatch):
    """`async with` does: a service that starts has that second, and a call has not."""
    finds(monkeypatch, seconds=0.5)
    cache = zones.client(local_zone="auto")
    began = now()
    await cache.set("k", 1, consistency="all")
    assert await cache.get("k") == 1
    assert now() - began < 0.1
    await pass_time(1)
    assert (await cache.get_item("k")).zone == "b"
    await cache.close()
    async with zones.client(local_zone="auto") as cache:
        assert (await cache.get_item("k")).zone == "b"


@pytest.mark.parametrize(("names", "seconds"), [(None, 0.0), (("b",), 60.0)], ids=["none", "hangs"])
@on_zones()
async def test_without_an_answer_reads_are_spread_and_the_opening_takes_a_second(zones, monkeypatch, names, seconds):
    finds(monkeypatch, names, seconds)
    began = now()
    async with zones.client(local_zone="auto") as cache:
        assert now() - began <= 1.0
        await cache.set("k", 1)
        assert await cache.get("k") == 1


@on_zones()
async def test_strict_zone_that_is_not_found_is_an_error(zones, monkeypatch):
    finds(monkeypatch, None)
    cache = zones.client(local_zone=LocalZone(strict=True))
    with pytest.raises(InvalidTopology, match="local_zone"):
        async with cache:
            pass
    cache = zones.client(local_zone=LocalZone(strict=True))
    with pytest.raises(InvalidTopology, match="local_zone"):
        await cache.set("k", 1)
    finds(monkeypatch)  # the next call searches again
    await cache.set("k", 1, consistency="all")
    assert (await cache.get_item("k")).zone == "b"


@on_zones()
async def test_strict_zone_that_the_topology_lacks_is_an_error(zones, monkeypatch):
    finds(monkeypatch, ("elsewhere",))
    with pytest.raises(InvalidTopology, match="'elsewhere' is not one of the zones: a, b, c"):
        async with zones.client(local_zone=LocalZone(strict=True)):
            pass


@on_zones()
async def test_close_during_the_search_leaves_no_task(zones, monkeypatch):
    finds(monkeypatch, seconds=0.9)
    cache = zones.client(local_zone="auto")
    await cache.set("k", 1)
    assert "evcache-own-zone" in {task.get_name() for task in asyncio.all_tasks()}
    await cache.close()
    assert "evcache-own-zone" not in {task.get_name() for task in asyncio.all_tasks()}


@on_zones()
async def test_zone_is_searched_once_for_all_openings(zones, monkeypatch):
    finds(monkeypatch)
    cache = zones.client(local_zone="auto")
    async with cache:
        pass
    finds(monkeypatch, None)
    async with cache:
        await cache.set("k", 1, consistency="all")
        assert (await cache.get_item("k")).zone == "b"


def test_the_variable_may_ask_for_the_search(monkeypatch):
    monkeypatch.setenv("EVCACHE_ZONE", "auto")
    assert EVCache("t", {"a": ["127.0.0.1:1"]})._config.own_zone == LocalZone("auto")


# The source of the zones.


@on_zones()
async def test_source_that_fails_keeps_the_topology_and_says_so_once(zones, caplog):
    caplog.set_level(logging.INFO)
    source = PolledZones(zones.topology)
    async with zones.client(zones=source) as cache:
        assert (cache.stats().topology_age, cache.stats().topology_error) == (0.0, None)
        source.error = OSError("refused")
        await pass_time(60)
        assert await cache.set("k", 1)
        assert cache.stats().topology_error == "test: refused"
        assert 45 < cache.stats().topology_age <= 60
        assert [record.getMessage() for record in caplog.records] == [
            "topology update failed: test: refused; keeping the previous topology"
        ]
        source.error = None
        await pass_time(12)
        assert cache.stats().topology_error is None
        assert cache.stats().topology_age <= 12
        assert [record.getMessage() for record in caplog.records][1:] == ["topology source recovered: test"]


@on_zones()
async def test_source_that_hangs_keeps_the_topology(zones):
    source = PolledZones(zones.topology)
    async with zones.client(zones=source) as cache:
        source.seconds = 3600
        await pass_time(60)
        assert await cache.set("k", 1)
        assert await cache.get("k") == 1
        assert cache.stats().topology_error == "test: no answer in 1 s"


@on_zones()
async def test_source_that_is_down_at_the_start_makes_the_cache_unavailable(zones):
    """And is not asked again by each call of a service."""
    source = PolledZones(zones.topology)
    source.error = OSError("refused")
    cache = zones.client(zones=source)
    with pytest.raises(CacheUnavailable) as caught:
        await cache.get("k")
    assert isinstance(caught.value.failures["discovery"], DiscoveryError)
    assert str(caught.value) == "finding the zones: no zone could answer (discovery: test: refused)"
    for _ in range(100):
        assert await cache.get("k", errors="miss") is None
    assert source.looks == 1
    source.error = None
    await pass_time(1)
    assert await cache.set("k", 1)


WRITES = {
    "set": lambda cache, **options: cache.set("k", 1, **options),
    "delete": lambda cache, **options: cache.delete("k", **options),
    "touch": lambda cache, **options: cache.touch("k", 60, **options),
    "set_many": lambda cache, **options: cache.set_many({"k": 1}, **options),
    "delete_many": lambda cache, **options: cache.delete_many(["k"], **options),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@on_zones()
async def test_write_while_the_zones_are_unknown_is_an_error_or_a_false_result(zones, write):
    source = PolledZones(zones.topology)
    source.error = OSError("refused")
    with pytest.raises(CacheUnavailable, match="refused"):
        await write(zones.client(zones=source))
    for cache, options in (
        (zones.client(zones=source), {"errors": "miss"}),
        (zones.client(zones=source, errors="miss"), {}),
    ):
        result = await write(cache, **options)
        if isinstance(result, dict):
            (result,) = result.values()
        assert not result
        assert result.zones == {}


@on_zones()
async def test_source_that_is_down_at_the_start_is_logged_once_and_in_the_stats(zones, caplog):
    source = PolledZones(zones.topology)
    source.error = OSError("refused")
    cache = zones.client(zones=source)
    for _ in range(5):
        assert await cache.get("k", errors="miss") is None
        await pass_time(2)
    assert [record.getMessage() for record in caplog.records] == ["topology unknown: test: refused"]
    assert cache.stats().topology_error == "test: refused"
    source.error = None
    await pass_time(2)
    assert await cache.set("k", 1)
    assert cache.stats().topology_error is None


@on_zones()
async def test_opening_by_async_with_survives_a_source_that_refuses_for_a_moment(zones):
    source = PolledZones(zones.topology)
    source.error = OSError("refused")
    asyncio.get_running_loop().call_later(5, setattr, source, "error", None)
    began = now()
    async with zones.client(zones=source) as cache:
        assert await cache.set("k", 1)
    assert 5 <= now() - began < 8


@pytest.mark.parametrize("seconds", [0.0, 0.9])
@on_zones()
async def test_opening_by_async_with_that_fails_leaves_nothing_and_may_be_repeated(zones, seconds):
    source = PolledZones(zones.topology)
    source.error, source.seconds = OSError("refused"), seconds
    cache = zones.client(zones=source)
    for _ in range(2):
        with pytest.raises(CacheUnavailable):
            async with cache:
                pass
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("evcache")] == []
    source.error = None
    async with cache:
        assert await cache.set("k", 1)


@on_zones()
async def test_cancelled_opening_leaves_nothing(zones, monkeypatch):
    finds(monkeypatch, seconds=0.9)
    for seconds in (0.1, 0.6):
        source = PolledZones(zones.topology)
        source.seconds = 0.5
        opening = asyncio.create_task(zones.client(zones=source, local_zone="auto").__aenter__())
        await asyncio.sleep(seconds)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("evcache")] == []


@on_zones()
async def test_call_that_does_not_find_the_zones_in_time_names_their_source(zones):
    source = PolledZones(zones.topology)
    source.seconds = 0.9
    with pytest.raises(
        CacheUnavailable, match="finding the zones: no zone could answer .discovery: test: no answer in 0.1 s"
    ):
        await zones.client(zones=source).get("k")


@on_zones()
async def test_opening_by_async_with_waits_for_a_slow_source(zones):
    """A first answer of a name server may take longer than a read may."""
    source = PolledZones(zones.topology)
    source.seconds = 0.9
    async with zones.client(zones=source) as cache:
        assert await cache.set("k", 1)
    cache = zones.client(zones=source)
    with pytest.raises(CacheUnavailable, match="finding the zones"):
        await cache.get("k")


@on_zones()
async def test_clients_that_share_a_source_follow_all_of_its_changes(zones):
    source = PolledZones(Topology(zones.topology.zones[:1]))
    first, second = zones.client(zones=source), zones.client(zones=source)
    async with first, second:
        source.topology = zones.topology
        await pass_time(60)
        assert first.topology == second.topology == zones.topology


# The guard.


@on_zones()
async def test_topology_that_is_held_back_is_in_the_stats_and_can_be_confirmed(zones):
    source = PolledZones(zones.topology)
    async with zones.client(zones=source) as cache:
        assert cache.stats().topology_held == ()
        assert cache.confirm_topology() is False
        source.topology = Topology(zones.topology.zones[:1])
        await pass_time(15)
        assert cache.stats().topology_held == ("zone b is missing", "zone c is missing")
        assert cache.topology == zones.topology
        assert cache.confirm_topology() is True
        assert cache.topology == source.topology
        assert cache.stats().topology_held == ()


@on_zones()
async def test_without_a_guard_every_change_is_applied(zones):
    source = PolledZones(zones.topology)
    async with zones.client(zones=source, topology_guard=None) as cache:
        source.topology = Topology(zones.topology.zones[:1])
        await pass_time(15)
        assert cache.topology == source.topology


@on_zones()
async def test_state_of_the_source_ends_with_the_opening(zones):
    source = PolledZones(zones.topology)
    cache = zones.client(zones=source)
    assert cache.stats().topology_age is None
    async with cache:
        source.topology = Topology(zones.topology.zones[:1])
        await pass_time(15)
        assert cache.stats().topology_held
    assert cache.stats().topology_held == ()
    async with cache:
        await settle()
        assert cache.topology == source.topology  # the first topology of an opening replaces none
