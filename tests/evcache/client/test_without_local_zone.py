"""Reads of a client without a local zone: `preferred` from the zone that it reads first, `fallback` from any other."""

import pytest

from evcache import Hooks, NearCache
from evcache.results import source_of
from tests.support.memory_zones import on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import Source
from tests.support.telemetry import Bench


class Reads(Hooks):
    def __init__(self):
        self.heard = []

    def read(self, key, zone, source, *, hit):
        self.heard.append((zone, source))


@pytest.fixture(autouse=True)
def _no_zone_in_the_environment(monkeypatch):
    monkeypatch.delenv("EVCACHE_ZONE", raising=False)


@pytest.mark.parametrize(
    ("zone", "local", "preferred", "source"),
    [
        ("a", "a", "a", "local"),
        ("b", "a", "a", "fallback"),
        ("a", None, "a", "preferred"),
        ("b", None, "a", "fallback"),
        ("gutter", None, "a", "fallback"),
    ],
)
def test_source_of(zone, local, preferred, source):
    assert source_of(zone, local, preferred) == source


async def read_in_every_way(cache):
    """Read key `k` once by each operation that reads."""
    await cache.get("k")
    await cache.get_item("k")
    await cache.get_many(["k"])
    await cache.get_and_touch("k", 60)
    await cache.get_or_load("k", Source(1).load)
    await cache.get_or_load_many(["k"], Source(1).load_many)


WAYS = 6


@on_zones()
async def test_healthy_zones_mean_no_fallback(zones):
    bench, hooks = Bench(), Reads()
    cache = await zones.ready(local_zone=None, telemetry=bench.settings(), hooks=hooks)
    await cache.set("k", 1, consistency="all")
    first = cache._runtime.cluster.view.preferred_zone
    bench.take()
    await read_in_every_way(cache)
    assert hooks.heard == [(first, "preferred")] * WAYS
    item = await cache.get_item("k")
    assert (item.zone, item.source) == (first, "preferred")
    assert bench.points("evcache.reads") == {("hit", "preferred", first): WAYS + 1}
    assert bench.points("evcache.read.fallbacks") == {}
    sources = [seen.attributes["evcache.source"] for seen in bench.take() if "evcache.source" in seen.attributes]
    assert sources == ["preferred"] * 5  # of the calls for one key
    assert (cache.stats().failovers, cache.stats().failovers_denied) == (0, 0)
    cache._runtime.zone_reader._count_reads()
    budget = cache._runtime.failover_budget
    assert budget._tokens == pytest.approx(budget._burst + (WAYS + 1) * budget._ratio)


@on_zones()
async def test_a_read_of_another_zone_is_a_fallback(zones):
    hooks = Reads()
    cache = await zones.ready(local_zone=None, hooks=hooks)
    await cache.set("k", 1, consistency="all")
    first = cache._runtime.cluster.view.preferred_zone
    await zones.kill(first)
    for _ in range(3):
        assert await cache.get("k") == 1
    assert {source for _, source in hooks.heard} == {"fallback"}
    assert first not in {zone for zone, _ in hooks.heard}
    assert cache.stats().failovers == 3
    zones.restart(first)
    await pass_time(60)
    await cache.set("k", 2, consistency="all")
    assert (await cache.get_item("k")).source == "preferred"


@on_zones()
async def test_near_cache_names_the_zone_that_reads_report(zones):
    """Also for an own write, which the near cache keeps without a read."""
    cache = await zones.ready(local_zone=None, near_cache=NearCache())
    follow_loop(cache)
    await pass_time(6)
    await cache.set("k", 1, consistency="all")
    item = await cache.get_item("k")
    assert (item.source, item.zone) == ("near", cache._runtime.cluster.view.preferred_zone)


@on_zones()
async def test_spread_over_all_zones(zones):
    """Each client draws its own order, so that no zone serves all clients without a local zone."""
    clients = [await zones.ready(local_zone=None) for _ in range(60)]
    assert {client._runtime.cluster.view.preferred_zone for client in clients} == set(zones.names)
