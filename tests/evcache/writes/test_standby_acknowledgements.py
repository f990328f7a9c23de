"""Acknowledgements of writes while there are standby zones: each of the two sets must meet the level."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache import CacheUnavailable, Consistency, Mode, Outcome
from evcache.replication.standby_tally import StandbyTally
from tests.support.examples import examples
from tests.support.memory_zones import QUICK, MemoryZones, Stopwatch, cut_off, on_zones, pass_time
from tests.support.standby import NEW, OLD, in_modes, migrating
from tests.support.virtual_time import run

LEVELS = list(Consistency)
CALLS = {
    "set": lambda cache, level: cache.set("k", "v", consistency=level),
    "delete": lambda cache, level: cache.delete("k", consistency=level),
    "touch": lambda cache, level: cache.touch("k", 60, consistency=level),
    "set_many": lambda cache, level: _only(cache.set_many({"k": "v"}, consistency=level)),
    "delete_many": lambda cache, level: _only(cache.delete_many(["k"], consistency=level)),
    "replace": lambda cache, level: cache.replace("k", "v", consistency=level),
    "append": lambda cache, level: cache.append("k", "v", consistency=level),
}


async def _only(writing):
    (result,) = (await writing).values()
    return result


@given(st.sampled_from(LEVELS), st.lists(st.booleans(), min_size=1, max_size=5))
def test_a_tally_is_met_if_enough_zones_acknowledge_and_out_of_reach_if_too_few_can(level, outcomes):
    required = level.required(len(outcomes))
    tally = StandbyTally(required)
    tally.add(len(outcomes))
    for number, acknowledged in enumerate(outcomes, 1):
        tally.report(acknowledged=acknowledged)
        having, left = sum(outcomes[:number]), len(outcomes) - number
        assert tally.met is (having >= required)
        assert tally.is_out_of_reach is (having + left < required)


@settings(max_examples=examples(0.3))
@given(
    level=st.sampled_from(LEVELS),
    operation=st.sampled_from(sorted(CALLS)),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    down=st.sets(st.integers(0, 7)),
)
def test_a_write_is_met_if_and_only_if_both_sets_meet_the_level(level, operation, sizes, down):
    async def main():
        active, standby = "abcd"[: sizes[0]], "efgh"[: sizes[1]]
        dead = {"abcdefgh"[number] for number in down} & {*active, *standby}
        zones = MemoryZones(8)
        zones.topology = in_modes(zones.topology, active, standby)
        try:
            cache = await zones.ready(hints=None)
            await cache.set("k", "before", consistency="all")
            await zones.kill(*dead)
            answered = {
                name: [zone for zone in members if zone not in dead]
                for name, members in (("active", active), ("standby", standby))
            }
            expected = len(answered["active"]) >= level.required(len(active)) and len(answered["standby"]) >= (
                level.required(len(standby))
            )
            watch = Stopwatch()
            try:
                result = await CALLS[operation](cache, level)
            except CacheUnavailable:
                assert not answered["active"]
                assert level is not Consistency.NONE or operation in ("replace", "append")
                return
            assert bool(result) is expected
            assert watch.seconds < 1
            assert set(result.zones) <= {*active, *standby}
            if result.zones.keys() == {*active, *standby}:
                for zone, outcome in result.zones.items():
                    assert outcome in (Outcome.UNAVAILABLE if zone in dead else Outcome.STORED, Outcome.PENDING)
            assert not result.fell_short if expected else result.fell_short
        finally:
            await zones.close_clients()

    run(main())


@pytest.mark.parametrize(
    ("down", "met", "fell_short"),
    [
        ("", True, ()),
        ("a", True, ()),
        ("d", True, ()),
        ("ad", True, ()),
        ("ab", False, (Mode.READ_WRITE,)),
        ("de", False, (Mode.STANDBY,)),
        ("abde", False, (Mode.READ_WRITE, Mode.STANDBY)),
        ("def", False, (Mode.STANDBY,)),
    ],
)
@pytest.mark.parametrize("operation", ["set", "set_many", "delete", "append"])
@on_zones(zones=6)
async def test_the_result_names_the_set_that_fell_short(zones, operation, down, met, fell_short):
    cache = (await migrating(zones)).cache
    await cache.set("k", "before", consistency="all")
    await zones.kill(*down)
    level = Consistency.ALL_MINUS_ONE
    result = await CALLS[operation](cache, level)
    await pass_time()
    result = await CALLS[operation](cache, level)  # the nodes that are down are known
    assert (result.met, result.fell_short) == (met, fell_short)


@on_zones(zones=6)
async def test_the_result_names_no_set_if_there_is_one_alone(zones):
    zones.topology = in_modes(zones.topology, OLD)
    cache = await zones.ready()
    await zones.kill("a", "b")
    result = await cache.set("k", "v")
    assert (result.met, result.fell_short) == (False, ())


@on_zones(zones=6)
async def test_a_write_that_a_set_cannot_meet_does_not_wait_for_the_other_set(zones):
    cache = (await migrating(zones)).cache
    await zones.kill(*NEW)
    zones.pause("b", "c")
    watch = Stopwatch()
    assert not await cache.set("k", "v", consistency="all", timeout=5)
    assert watch.seconds < 1
    zones.resume("b", "c")


@on_zones(zones=6)
async def test_a_write_waits_for_the_slower_set(zones):
    cache = (await migrating(zones)).cache
    zones.pause("e", "f")
    watch = Stopwatch()
    assert not await cache.set("k", "v", timeout=0.5)
    assert watch.seconds == 0.5
    zones.resume("e", "f")


@on_zones(zones=6)
async def test_a_standby_zone_that_missed_writes_receives_them_later(zones):
    cache = (await migrating(zones, circuit=QUICK)).cache
    await cache.set("gone", "value", consistency="all")
    await cut_off(zones, cache, "d")
    assert await cache.set("k", "v")
    assert await cache.delete("gone")
    assert cache.stats().hints == 2
    zones.resume("d")
    await pass_time(10)
    assert cache.stats().hints == 0
    assert zones.values("k")["d"] == "v"
    assert len(set(zones.stored_versions("gone").values())) == 1


@on_zones(zones=6)
async def test_a_write_that_a_standby_zone_refuses_for_an_unseen_version_is_sent_again(zones):
    """Another client, for which these zones are the read-write ones, has a clock that is ahead."""
    cache = (await migrating(zones)).cache
    ahead = await zones.ready(
        zones=in_modes(zones.topology, NEW, OLD), local_zone="d", wall_clock=lambda: zones.wall_clock() + 5
    )
    await ahead.set("k", "first", consistency="all")
    result = await cache.set("k", "second", consistency="all")
    assert result
    assert set(result.zones.values()) == {Outcome.STORED}
    await pass_time()
    assert zones.values("k") == dict.fromkeys(OLD + NEW, "second")


@on_zones(zones=6)
async def test_no_read_write_zone_is_an_unavailable_cache(zones):
    """The standby zones may store the write. It is not acknowledged, and the error names the zones."""
    cache = (await migrating(zones)).cache
    await zones.kill(*OLD)
    with pytest.raises(CacheUnavailable) as caught:
        await cache.set("k", "v")
    assert caught.value.failures.keys() == set(OLD)


@pytest.mark.parametrize("active", [OLD, NEW])
@on_zones(zones=6)
async def test_a_value_that_only_one_set_holds_can_be_touched(zones, active):
    """The set that is being filled lacks the value. It gets the value with the touch."""
    client = await migrating(zones)
    await client.cache.set("k", "v", ttl=100, consistency="all")
    await pass_time()
    zones.evict("k", *NEW)
    await client.use(active, OLD if active == NEW else NEW)
    assert await client.cache.touch("k", 500, consistency="all")
    assert {zones.held("k", zone).ttl for zone in OLD + NEW} == {500}
    assert not await client.cache.touch("nothing", 500)


@pytest.mark.parametrize("active", [OLD, NEW])
@on_zones(zones=6)
async def test_a_touch_with_interop_copies_nothing_and_is_not_met(zones, active):
    await _touch_without_versions(zones, active, interop=True)


@pytest.mark.parametrize("active", [OLD, NEW])
@on_zones(zones=6, versions="1.6.20")
async def test_a_touch_on_servers_without_versions_copies_nothing_and_is_not_met(zones, active):
    await _touch_without_versions(zones, active)


async def _touch_without_versions(zones, active, **options):
    """The TTL changes in the set that holds the value."""
    client = await migrating(zones, **options)
    await client.cache.set("k", b"v", ttl=100, consistency="all")
    await pass_time()
    zones.evict("k", *NEW)
    await client.use(active, OLD if active == NEW else NEW)
    result = await client.cache.touch("k", 500, consistency="all")
    assert result.fell_short == (Mode.READ_WRITE if active == NEW else Mode.STANDBY,)
    assert {result.zones[zone] for zone in NEW} == {Outcome.NOT_FOUND}
    await pass_time()
    assert [zones.held("k", zone) for zone in NEW] == [None] * 3
    assert {zones.held("k", zone).ttl for zone in OLD} == {499}
