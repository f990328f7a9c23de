"""Migrations while a source fails or the guard holds a zone back: no acknowledged write is lost when the sets are exchanged."""

import pytest

from evcache.zones import FoundNodes, Mode, Topology, Zone
from evcache.zones.discovery.migration import Migration
from tests.support.cluster_bench import ScriptedDiscovery
from tests.support.memory_zones import PolledZones, on_zones, pass_time
from tests.support.virtual_time import settle

LEVELS = {"local_zone": None, "write_consistency": "quorum", "read_consistency": "quorum"}


def pick(zones, names):
    return Topology(tuple(zone for zone in zones.topology.zones if zone.name in names))


@pytest.mark.parametrize("steps", [("dual",), ("dual", "switched")])
@on_zones(zones=6)
async def test_process_that_does_not_know_the_new_set_reports_that_its_step_is_not_in_use(zones, steps):
    new = PolledZones(pick(zones, "def"))
    migration = Migration(PolledZones(pick(zones, "abc")), new, "fill")
    new.error = OSError("refused")
    async with zones.client(zones=migration, **LEVELS) as cache:
        for step in steps:
            migration.move_to(step)
            await pass_time(10)
        expected = f"migration: step {steps[-1]} is not in use: the new set is unknown: test: refused"
        assert cache.stats().topology_error == expected
        assert f"topology update failed: {expected}" in (await cache.check()).problems
        new.error = None
        await pass_time(10)
        assert cache.stats().topology_error is None
        assert (await cache.check()).problems == ()
        assert len(cache.topology.zones) == 6


@on_zones(zones=6, nodes=4)
async def test_steps_are_in_use_while_the_guard_holds_a_zone_back(zones):
    def client():
        old = ScriptedDiscovery(pick(zones, "abc"))
        migration = Migration(old, ScriptedDiscovery(pick(zones, "def")), "fill")
        return old, migration, zones.client(zones=migration, **LEVELS)

    (old, one, writer), (_, two, reader) = client(), client()
    full = pick(zones, "abc")
    async with writer, reader:
        await reader.set("k", "v1", consistency="all")
        old.put(Topology((Zone("a", full.zones[0].nodes[:2]), *full.zones[1:])))
        await settle()
        for step in ("dual", "switched"):
            one.move_to(step)
            two.move_to(step)
            await pass_time(10)
            assert writer.stats().topology_held
            modes = [{zone.name: zone.mode for zone in cache.topology.zones} for cache in (writer, reader)]
            assert modes[0] == modes[1]
        zones.pause("d", "e", "f")
        assert not await writer.set("k", "v2", errors="miss")  # it would be in the old set alone
        zones.resume("d", "e", "f")


@on_zones(zones=6)
async def test_new_set_of_which_one_zone_is_known_does_not_acknowledge_for_all(zones):
    class Source:
        def __init__(self, name):
            self.name = name

        async def nodes(self):
            if self.name != "d":
                raise OSError("no such name")
            return FoundNodes(zones.topology.zone(self.name).nodes)

    one = Migration(PolledZones(pick(zones, "abc")), {name: Source(name) for name in "def"}, "dual")
    two = Migration(PolledZones(pick(zones, "abc")), PolledZones(pick(zones, "def")), "dual")
    async with zones.client(zones=one, **LEVELS) as writer, zones.client(zones=two, **LEVELS) as reader:
        await reader.set("k", "v1", consistency="all")
        await pass_time(1)
        result = await writer.set("k", "v2")
        assert not result
        assert result.fell_short == (Mode.STANDBY,)
