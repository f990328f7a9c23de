"""Two sources of zones as one topology: each step, the sources' failures, and the change of the step."""

import asyncio
from unittest.mock import AsyncMock

import pytest

from evcache.zones.discovery.migration import IDLE_LOAD_SECONDS, Migration, MigrationStep, join
from evcache.zones.errors import DiscoveryError, InvalidArgument, InvalidTopology, UsageError
from evcache.zones.topology.model import Mode, Topology
from tests.support.cluster_bench import Bench, ScriptedDiscovery, zones
from tests.support.memory_zones import PolledZones
from tests.support.virtual_time import in_virtual_time, now, settle
from tests.support.watching import Watching

OLD, NEW = zones("a=h1;b=h2"), zones("a=h4;b=h5")
STEPS = {
    "old": "a=h1;b=h2",
    "fill": "a=h1;b=h2;a-new!=h4;b-new!=h5",
    "dual": "a=h1;b=h2;a-new?=h4;b-new?=h5",
    "switched": "a?=h1;b?=h2;a-new=h4;b-new=h5",
    "drain": "a!=h1;b!=h2;a-new=h4;b-new=h5",
    "new": "a-new=h4;b-new=h5",
}


def shape(topology):
    return {(zone.name, zone.mode, zone.nodes) for zone in topology.zones}


@pytest.mark.parametrize("step", STEPS)
def test_modes_of_both_sets_in_each_step(step):
    joined = join(OLD, NEW, MigrationStep(step), "-new")
    assert shape(joined) == shape(zones(STEPS[step]))
    assert {zone.location for zone in joined.zones if zone.name.endswith("-new")} <= {"a", "b"}


@pytest.mark.parametrize(
    ("step", "lacking", "known"),
    [
        ("old", "new", True),
        ("old", "old", False),
        ("fill", "new", True),
        ("dual", "new", False),
        ("dual", "old", False),
        ("switched", "old", False),
        ("drain", "old", True),
        ("drain", "new", False),
        ("new", "old", True),
    ],
)
@in_virtual_time
async def test_set_that_must_acknowledge_must_be_known(step, lacking, known):
    sources = {"old": PolledZones(OLD), "new": PolledZones(NEW)}
    sources[lacking].error = OSError("refused")
    migration = Migration(sources["old"], sources["new"], step)
    if known:
        assert len((await migration.load()).zones) == 2
        assert migration.status.error is None or "set is unknown" in migration.status.error
        return
    with pytest.raises(DiscoveryError, match="refused"):
        await migration.load()
    sources[lacking].error = None
    await asyncio.sleep(2)
    first = await migration.load()
    async with Watching(migration) as watching:
        await settle()
        assert shape([first, *watching.topologies][-1]) == shape(zones(STEPS[step]))


def test_zone_that_its_own_source_does_not_want_to_be_read_is_not_read():
    joined = join(OLD, zones("a=h4;b!=h5"), MigrationStep.SWITCHED, "-new")
    assert joined.zone("b-new").mode is Mode.WRITE_ONLY


@in_virtual_time
async def test_changes_of_both_sets_are_followed():
    old, new = ScriptedDiscovery(OLD), ScriptedDiscovery(NEW)
    migration = Migration(old, new, "dual")
    await migration.load()
    async with Watching(migration) as watching:
        old.put(zones("a=h1;b=h3"))
        await settle()
        new.put(zones("a=h6;b=h5"))
        await settle()
        new.put(zones("a=h6;b=h5"))
        await settle()
        assert [shape(found) for found in watching.topologies] == [
            shape(zones("a=h1;b=h3;a-new?=h4;b-new?=h5")),
            shape(zones("a=h1;b=h3;a-new?=h6;b-new?=h5")),
        ]
    assert old.closed
    assert new.closed


@in_virtual_time
async def test_set_that_was_unknown_joins_when_its_source_answers():
    new = PolledZones(NEW)
    new.error = OSError("refused")
    migration = Migration(zones_of("a=h1;b=h2"), new, "fill")
    await migration.load()
    async with Watching(migration) as watching:
        await asyncio.sleep(20)
        assert watching.topologies == []
        new.error = None
        await asyncio.sleep(20)
        assert [shape(found) for found in watching.topologies] == [shape(zones(STEPS["fill"]))]


def zones_of(text):
    return {zone.name: list(zone.nodes) for zone in zones(text).zones}


@in_virtual_time
async def test_step_moves_one_at_a_time_in_both_directions():
    migration = Migration("a=h1;b=h2", zones_of("a=h4;b=h5"), "old")
    await migration.load()
    async with Watching(migration) as watching:
        path = [*list(STEPS)[1:-1], *list(STEPS)[-3::-1]]
        for step in path:
            migration.move_to(step)
            await settle()
            assert migration.step == step
        assert [shape(found) for found in watching.topologies] == [shape(zones(STEPS[step])) for step in path]
    for step in ("dual", "new", "nonsense"):
        with pytest.raises(InvalidArgument) as caught:
            migration.move_to(step)
        assert caught.value.argument == "step"
    assert migration.step is MigrationStep.OLD


def test_step_does_not_go_back_to_a_set_that_has_missed_writes():
    migration = Migration("a=h1", "a=h2", "new")
    with pytest.raises(InvalidArgument, match="the old set has missed writes"):
        migration.move_to("drain")
    migration.move_to("new")
    assert migration.step is MigrationStep.NEW


def test_migration_begins_with_the_old_set():
    assert Migration("a=h1", "a=h2").step is MigrationStep.OLD


def test_step_in_a_file_is_not_changed_by_a_call(tmp_path):
    with pytest.raises(UsageError, match="is in the file"):
        Migration("a=h1", "a=h2", tmp_path / "step").move_to("fill")


@in_virtual_time
async def test_step_in_a_file_is_followed_and_a_wrong_one_is_logged_once(tmp_path, caplog):
    file = tmp_path / "step"
    file.write_text("fill\n")
    migration = Migration("a=h1;b=h2", "a=h4;b=h5", file)
    assert shape(await migration.load()) == shape(zones(STEPS["fill"]))
    async with Watching(migration) as watching:
        await settle()
        file.write_text("dual")
        await asyncio.sleep(5)
        assert migration.step is MigrationStep.DUAL
        file.write_text("nonsense")
        await asyncio.sleep(20)
        assert migration.step is MigrationStep.DUAL
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "'nonsense' is none of 'old'" in migration.status.error
        file.unlink()
        await asyncio.sleep(20)
        file.write_text("switched")
        await asyncio.sleep(5)
        assert migration.status is None
        steps = ("dual", "switched")
        assert [shape(found) for found in watching.topologies] == [shape(zones(STEPS[step])) for step in steps]


@pytest.mark.parametrize(("before", "after"), [("old", "dual"), ("dual", "old"), ("new", "drain")])
@in_virtual_time
async def test_step_in_a_file_that_is_not_safe_is_followed_with_a_warning(tmp_path, caplog, before, after):
    """The other processes follow it, and one that stays behind would be further away."""
    file = tmp_path / "step"
    file.write_text(before)
    migration = Migration("a=h1;b=h2", "a=h4;b=h5", file)
    await migration.load()
    async with Watching(migration) as watching:
        file.write_text(after)
        await asyncio.sleep(5)
        assert shape(watching.topologies[-1]) == shape(zones(STEPS[after]))
        assert "migration step is not safe" in caplog.text


@in_virtual_time
async def test_file_without_a_step_is_an_error_at_the_start(tmp_path):
    with pytest.raises(DiscoveryError, match="none of 'old'"):
        (tmp_path / "step").write_text("")
        await Migration("a=h1", "a=h2", tmp_path / "step").load()
    with pytest.raises(DiscoveryError, match="No such file"):
        await Migration("a=h1", "a=h2", tmp_path / "missing").load()


@in_virtual_time
async def test_status_is_that_of_the_set_that_fails():
    old, new = PolledZones(OLD), PolledZones(NEW)
    migration = Migration(old, new, "dual")
    await migration.load()
    async with Watching(migration):
        new.error = OSError("refused")
        await asyncio.sleep(30)
        assert migration.status is new.status
        assert migration.status.error == "test: refused"
        new.error = None
        await asyncio.sleep(30)
        assert migration.status.error is None


@in_virtual_time
async def test_source_that_raises_is_followed_again_and_the_other_set_and_the_step_go_on():
    old, new = ScriptedDiscovery(OLD), ScriptedDiscovery(NEW)
    migration = Migration(old, new, "dual")
    await migration.load()
    async with Watching(migration) as watching:
        old.put(RuntimeError("a bug"))
        await settle()
        new.put(zones("a=h6;b=h5"))
        await settle()
        migration.move_to("switched")
        await settle()
        assert shape(watching.topologies[-1]) == shape(zones("a?=h1;b?=h2;a-new=h6;b-new=h5"))
        await asyncio.sleep(10)
        old.put(zones("a=h1;b=h3"))
        await settle()
        assert shape(watching.topologies[-1]) == shape(zones("a?=h1;b?=h3;a-new=h6;b-new=h5"))


@pytest.mark.parametrize("steps", [("fill", "dual"), ("fill", "dual", "switched")])
@in_virtual_time
async def test_step_that_needs_an_unknown_set_is_not_in_use_and_reported(steps, caplog):
    new = PolledZones(NEW)
    new.error = OSError("refused")
    migration = Migration(PolledZones(OLD), new, "old")
    await migration.load()
    async with Watching(migration) as watching:
        for step in steps:
            migration.move_to(step)
            await asyncio.sleep(10)
        assert watching.topologies == []
        assert migration.status.error == f"migration: step {steps[-1]} is not in use: the new set is unknown: test: refused"
        assert "the new set is unknown: test: refused" in caplog.text
        new.error = None
        await asyncio.sleep(10)
        assert shape(watching.topologies[-1]) == shape(zones(STEPS[steps[-1]]))
        assert migration.status.error is None


@pytest.mark.parametrize("step", ["old", "fill", "drain", "new"])
@in_virtual_time
async def test_set_that_does_not_count_does_not_delay_the_opening(step):
    idle = PolledZones(NEW if step in ("old", "fill") else OLD)
    idle.seconds = 3600.0
    sets = (PolledZones(OLD), idle) if step in ("old", "fill") else (idle, PolledZones(NEW))
    began = now()
    migration = Migration(*sets, step)
    assert len((await migration.load()).zones) == 2
    is_used = step in ("fill", "drain")
    assert now() - began <= (IDLE_LOAD_SECONDS if is_used else 0)
    assert (migration.status.error is not None) is is_used


@in_virtual_time
async def test_client_that_opens_while_a_set_is_filled_has_that_set_from_the_first_write_on():
    """A write before would reach the other set alone, and leave no hint."""
    new = PolledZones(NEW)
    new.seconds = 0.5
    migration = Migration(PolledZones(OLD), new, "fill")
    assert shape(await migration.load()) == shape(zones(STEPS["fill"]))


@in_virtual_time
async def test_client_that_opens_wakes_the_others_for_a_new_step_in_the_file(tmp_path):
    file = tmp_path / "step"
    file.write_text("fill")
    migration = Migration("a=h1;b=h2", "a=h4;b=h5", file)
    await migration.load()
    async with Watching(migration) as watching:
        await settle()
        file.write_text("dual")
        await migration.load()
        await settle()
        assert shape(watching.topologies[-1]) == shape(zones(STEPS["dual"]))


@in_virtual_time
async def test_failure_of_a_set_without_a_status_is_reported():
    old = ScriptedDiscovery(OLD)
    migration = Migration(old, "a=h4;b=h5", "dual")
    await migration.load()
    async with Watching(migration):
        old.load = AsyncMock(side_effect=OSError("still broken"))
        old.put(RuntimeError("a bug"))
        await asyncio.sleep(20)
        assert migration.status.error == "migration: the old set fails: still broken"
        assert migration.stale_zones() is None


@in_virtual_time
async def test_zones_that_were_not_found_have_the_names_of_their_set():
    new = PolledZones(NEW)
    migration = Migration(PolledZones(OLD), new, "dual")
    await migration.load()
    assert migration.stale_zones() == frozenset()
    new.status.fail(OSError("refused"), ("b",))
    assert migration.stale_zones() == {"b-new"}


@in_virtual_time
async def test_set_that_is_not_used_does_not_hinder_the_other_one():
    """A pod of the new set may get an address that a pod of the old set once had."""
    new = ScriptedDiscovery(NEW)
    migration = Migration("a=h1;b=h2", new, "new")
    await migration.load()
    async with Watching(migration) as watching:
        new.put(zones("a=h1;b=h5"))
        await settle()
        assert shape(watching.topologies[-1]) == shape(zones("a-new=h1;b-new=h5"))


@pytest.mark.parametrize("error", [OSError("refused"), InvalidTopology("zones", "malformed")], ids=str)
@in_virtual_time
async def test_set_that_does_not_count_may_fail_in_any_way(error):
    class Broken:
        async def load(self):
            raise error

        async def watch(self):
            raise error
            yield

    migration = Migration(PolledZones(OLD), Broken(), "old")
    assert await migration.load() == OLD
    async with Watching(migration) as watching:
        await asyncio.sleep(60)
        assert watching.topologies == []
        assert migration.status.error is None


@in_virtual_time
async def test_two_clients_follow_one_migration():
    migration = Migration(PolledZones(OLD), "a=h4;b=h5", "old")
    async with Bench() as one, Bench() as two:
        await one.cluster.start(migration)
        await two.cluster.start(migration)
        for step in ("fill", "dual", "switched"):
            migration.move_to(step)
            await settle()
            for bench in (one, two):
                assert shape(bench.cluster.view.topology) == shape(zones(STEPS[step]))


@in_virtual_time
async def test_failed_load_leaves_no_task():
    old, new = PolledZones(OLD), PolledZones(NEW)
    old.error, new.seconds = OSError("refused"), 0.9
    with pytest.raises(DiscoveryError):
        await Migration(old, new, "dual").load()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("a=h1;b=h2", "a=h3;b=h2", "both sets have the node h2:11211"),
        ("a=h1;b?=h2", "a=h3", "zone b of a set is standby"),
        ("a=h1", "a=h3;b?=h2", "zone b of a set is standby"),
    ],
)
@in_virtual_time
async def test_sets_that_cannot_be_joined(old, new, problem):
    with pytest.raises(InvalidTopology, match=problem):
        await Migration(old, new, "dual").load()


@in_virtual_time
async def test_local_zone_is_that_of_the_set_that_is_read():
    """Both sets have nodes in the same availability zones, and a process is in one of those."""
    async with Bench(local="b") as bench:
        migration = Migration("a=h1;b=h2", "a=h4;b=h5", "dual")
        await bench.cluster.start(migration)
        await settle()
        assert bench.cluster.view.local == "b"
        assert [pool.name for pool in bench.cluster.view.standby] == ["b-new", "a-new"]
        migration.move_to("switched")
        await settle()
        assert bench.cluster.view.local == "b-new"
        assert bench.readers == ["b-new", "a-new"]
        assert [pool.name for pool in bench.cluster.view.standby] == ["b", "a"]
        for step in ("drain", "new"):
            migration.move_to(step)
            await settle()
        assert [name for name in ("a", "b", "a-new", "b-new") if bench.cluster.local_zone.contains(name)] == ["b", "b-new"]


@pytest.mark.parametrize(
    ("arguments", "options", "argument"),
    [
        ((5, "a=h"), {}, "old"),
        (("a=h", None), {}, "new"),
        (("a=", "a=h"), {}, "old"),
        (("a=h", {"a": 5}), {}, "new"),
        (("a=h", "a=h", "later"), {}, "step"),
        (("a=h", "a=h", None), {}, "step"),
        (("a=h", "a=h"), {"suffix": ""}, "suffix"),
        (("a=h", "a=h"), {"suffix": " x"}, "suffix"),
        (("a=h", "a=h"), {"poll": 0}, "poll"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, options, argument):
    with pytest.raises(InvalidArgument) as caught:
        Migration(*arguments, **options)
    assert caught.value.argument == argument


@in_virtual_time
async def test_name_that_both_sets_would_have_is_an_error():
    with pytest.raises(InvalidTopology, match="named twice"):
        await Migration("a=h1;a-new=h2", "a=h4", "dual").load()


def test_location_in_toml():
    topology = Topology.from_toml('[zones.a-new]\nnodes = ["h:1"]\nlocation = "a"\n')
    assert topology.zones[0].location == "a"
    for wrong in ('""', "5", '"a b"'):
        with pytest.raises(InvalidTopology, match="location"):
            Topology.from_toml(f'[zones.a-new]\nnodes = ["h:1"]\nlocation = {wrong}\n')
