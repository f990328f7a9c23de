"""Two sources of zones as one topology: each step, the sources' failures, and the change of the step."""

import asyncio

import pytest

from evcache.zones.discovery.migration import Migration, MigrationStep, join
from evcache.zones.errors import DiscoveryError, InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Mode, Topology
from tests.support.cluster_bench import Bench, ScriptedDiscovery, zones
from tests.support.memory_zones import PolledZones
from tests.support.virtual_time import in_virtual_time, settle
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
        return
    with pytest.raises(DiscoveryError, match="refused"):
        await migration.load()
    sources[lacking].error = None
    await asyncio.sleep(2)
    assert shape(await migration.load()) == shape(zones(STEPS[step]))


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
        path = [*list(STEPS)[1:], *list(STEPS)[-2::-1]]
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


@in_virtual_time
async def test_step_in_a_file_is_followed_and_a_wrong_one_is_logged_once(tmp_path, caplog):
    file = tmp_path / "step"
    file.write_text("fill\n")
    migration = Migration("a=h1;b=h2", "a=h4;b=h5", file)
    assert shape(await migration.load()) == shape(zones(STEPS["fill"]))
    async with Watching(migration) as watching:
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
        assert [shape(found) for found in watching.topologies] == [
            shape(zones(STEPS[step])) for step in ("dual", "switched")
        ]


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
async def test_source_with_a_bug_ends_the_iteration_with_its_error():
    old = ScriptedDiscovery(OLD)
    migration = Migration(old, "a=h4;b=h5", "dual")
    await migration.load()
    old.put(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        async for _ in migration.watch():
            pass
    await settle()
    assert len(asyncio.all_tasks()) == 1


@in_virtual_time
async def test_local_zone_is_that_of_the_set_that_is_read():
    """Both sets have nodes in the same availability zones, and a process is in one of those."""
    async with Bench(local="b") as bench:
        migration = Migration("a=h1;b=h2", "a=h4;b=h5", "dual")
        await bench.cluster.start(migration)
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
