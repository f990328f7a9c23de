"""A client whose lookup of one zone has not succeeded yet. The zone counts as down, and not as missing."""

import asyncio
import logging

import pytest

from evcache import ConsistencyError
from evcache._lifecycle import OPEN_SECONDS
from evcache.zones.discovery.lookup import (
    LOOKUP_TIMEOUT_SECONDS,
    NOT_FOUND,
    RETRY_SECONDS,
    FoundNodes,
    LookupDiscovery,
    LookupZone,
)
from evcache.zones.topology.model import Mode, Zone
from evcache.zones.transport.dialer import SocketDialer
from tests.support.memory_zones import QUICK, on_zones, pass_time
from tests.support.scripted_nodes import HANG, ScriptedNodes
from tests.support.virtual_time import in_virtual_time, now

DOWN = OSError("down")

# Seconds until a zone that was found has received its hints: the retry of the lookup, and the longest pause between passes.
FOUND = 4 * RETRY_SECONDS


def found(zones, name):
    return FoundNodes(zones.topology.zone(name).nodes)


def client(zones, missing, *answers, modes=None, **options):
    """A client of all zones. The lookups of the zones `missing` have these answers, of which the last repeats."""
    sources = {name: ScriptedNodes(*(answers if name in missing else [found(zones, name)])) for name in zones.names}
    modes = modes or {}
    looked_up = [LookupZone(name, (source,), modes.get(name, Mode.READ_WRITE)) for name, source in sources.items()]
    discovery = LookupDiscovery(looked_up)
    discovery._draw = lambda: 0.5  # no jitter
    return zones.client(zones=discovery, circuit=QUICK, **options)


@pytest.mark.parametrize(("level", "required"), [("one", 1), ("quorum", 2), ("all", 3)])
@pytest.mark.parametrize("missing", ["c", "bc"])
@on_zones()
async def test_a_write_counts_zones_that_were_never_found(zones, missing, level, required):
    """With one known zone of three, a quorum of the known zones is one acknowledgment, which quorums of others may miss."""
    async with client(zones, missing, DOWN) as cache:
        result = await cache.set("k", "value", consistency=level, errors="miss")
        assert bool(result) is (3 - len(missing) >= required)


@on_zones()
async def test_a_quorum_read_counts_zones_that_were_never_found(zones):
    async with client(zones, "c", DOWN) as cache:
        await cache.set("k", "value", consistency="quorum")
        assert await cache.get("k", consistency="quorum") == "value"
    async with client(zones, "bc", DOWN) as cache:
        assert await cache.get("k") == "value"
        with pytest.raises(ConsistencyError, match="1 of 2 zones"):
            await cache.get("k", consistency="quorum")


@on_zones()
async def test_a_write_that_a_zone_missed_arrives_when_the_zone_is_found(zones):
    async with client(zones, "c", DOWN, DOWN, found(zones, "c")) as cache:
        written = await cache.set("k", "value", consistency="quorum")
        assert await cache.delete("other", consistency="quorum")
        assert cache.stats().hints == 2
        await pass_time(FOUND)
        assert cache.topology == zones.topology
        assert cache.stats().hints == 0
        assert zones.stored_versions("k")["c"] == written.version
        assert await cache.set("k", "new", consistency="all")


@pytest.mark.parametrize("missing", ["a", "b", "c"])
@on_zones()
async def test_no_read_fails_and_a_zone_that_was_never_found_is_read_last(zones, missing):
    async with client(zones, missing, *[DOWN] * 3, found(zones, missing), local_zone="a") as cache:
        await cache.set("k", "value")
        for _ in range(100):
            assert await cache.get("k") == "value"
            assert await cache.get("absent") is None
            await pass_time(0.5)
            present = cache.topology == zones.topology
            if not present:
                assert cache._runtime.cluster.view.ejected == {missing}
                assert cache._runtime.cluster.view.readers[-1].name == missing
        assert present
        assert cache._runtime.cluster.view.ejected == set()
        assert (await cache.get_item("k")).zone == "a"


@on_zones()
async def test_the_guard_lets_a_zone_be_found_at_once(zones, caplog):
    caplog.set_level(logging.INFO)
    async with client(zones, "c", DOWN, found(zones, "c")) as cache:
        assert cache.topology.zone("c") == Zone("c", (NOT_FOUND,))
        await pass_time(FOUND)
        assert cache.topology == zones.topology
        assert "topology held back" not in caplog.text


@on_zones()
async def test_a_write_only_zone_that_was_never_found_gets_its_hints(zones):
    async with client(zones, "c", DOWN, found(zones, "c"), modes={"c": Mode.WRITE_ONLY}) as cache:
        written = await cache.set("k", "value", consistency="all")
        assert cache.stats().hints == 1
        await pass_time(FOUND)
        assert zones.stored_versions("k")["c"] == written.version


@on_zones()
async def test_the_check_names_the_zone_and_the_reason(zones):
    async with client(zones, "c", DOWN) as cache:
        result = await cache.check()
        assert result.ready
        assert [zone.is_usable for zone in result.zones] == [True, True, False]
        assert any("zone c: down" in problem for problem in result.problems), result.problems
        assert any(
            problem.startswith("zone c unusable: 1 of 1 nodes failed, the first is not-found") for problem in result.problems
        ), result.problems


@in_virtual_time
async def test_the_placeholder_refuses_connections_without_network_traffic():
    began = now()
    with pytest.raises(OSError, match="the zone was not found yet"):
        await SocketDialer()(NOT_FOUND, asyncio.Protocol)
    assert now() == began


# The opening.


def test_an_opening_is_longer_than_the_lookup_of_a_zone_that_hangs():
    assert OPEN_SECONDS > LOOKUP_TIMEOUT_SECONDS


@on_zones()
async def test_a_lookup_that_hangs_delays_the_opening_for_its_timeout_only(zones):
    began = now()
    async with client(zones, "b", HANG) as cache:
        assert now() - began == pytest.approx(LOOKUP_TIMEOUT_SECONDS)
        assert await cache.set("k", "value", consistency="quorum")
        assert await cache.get("k") == "value"
