"""Steps of the clock while clients run, clients that share a writer id, and the end of their effects."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache import Hints, NearCache, Outcome
from evcache.replication.hlc import (
    COUNTER_BITS,
    MAX_AHEAD_MS,
    MAX_CAS,
    NOT_A_VERSION,
    WRITER_BITS,
    HybridLogicalClock,
    cas_of,
    milliseconds_of,
)
from tests.support.memory_zones import PATIENT, QUICK, TOMBSTONE, Listener, cut_off, on_zones, pass_time
from tests.support.near import follow_loop

NOW = 1_800_000_000_000
STORED = dict.fromkeys("abc", Outcome.STORED)
FAR = MAX_AHEAD_MS / 1000 + 60
"""Seconds ahead at which a version is not believed."""
STEPS = [0.01, 30.0, FAR, 3600.0]


def everywhere(value):
    return dict.fromkeys("abc", value)


class Wall:
    """The clock of a client's machine, which can be stepped."""

    def __init__(self, zones, seconds=0.0):
        self._zones = zones
        self.seconds = seconds
        """Seconds by which the clock is ahead."""

    def __call__(self):
        return self._zones.wall_clock() + self.seconds


async def client(zones, seconds=0.0, **options):
    """A client, and its clock."""
    wall = Wall(zones, seconds)
    return await zones.ready(wall_clock=wall, **options), wall


def ahead_of(zones, version):
    """Seconds by which a version is ahead of the right time."""
    return milliseconds_of(version) / 1000 - zones.wall_clock()


# (a) The clock steps back while the client lives.


@given(st.integers(1, 10**7), st.lists(st.tuples(st.integers(1, 50), st.integers(1, 2000)), min_size=1, max_size=30))
def test_the_lead_after_a_step_back_shrinks_below_256_versions_a_millisecond(back, pace):
    """The lead is what the step made it, less the time that has passed, plus a millisecond for each 256 versions since."""
    now = [NOW]
    clock = HybridLogicalClock(5, lambda: now[0])
    before = clock.tick()
    now[0] -= back
    made = 0
    newest = before
    for versions, milliseconds in pace:
        now[0] += milliseconds
        for _ in range(versions):
            made += 1
            version = clock.tick()
            assert version > newest
            newest = version
        assert milliseconds_of(newest) <= max(now[0], NOW + made / 256) + 1
    assert (milliseconds_of(newest) - now[0]) <= max(0, NOW - now[0]) + made / 256 + 1


def test_more_than_256_versions_a_millisecond_run_ahead_of_the_wall_clock():
    """The counter carries into the milliseconds: 1,000 versions in one take four."""
    clock = HybridLogicalClock(5, lambda: NOW)
    newest = [clock.tick() for _ in range(1000)][-1]
    assert milliseconds_of(newest) == NOW + 3
    assert newest >> WRITER_BITS == (NOW << COUNTER_BITS) + 999


@pytest.mark.parametrize("step", STEPS)
@on_zones()
async def test_a_clock_that_is_set_back_under_a_client(zones, step):
    """The client's own writes stay in order. Where writes of other clients are newer, its write is sent again."""
    cache, wall = await client(zones)
    other, _ = await client(zones)
    first = await cache.set("k", 1, consistency="all")
    wall.seconds = -step
    second = await cache.set("k", 2, consistency="all")
    assert second.version > first.version
    assert (second.zones, cache.stats().writes_resent) == (STORED, 0)
    await pass_time(1)
    theirs = await other.set("k", 3, consistency="all")
    result = await cache.delete("k", consistency="all")
    assert result.zones == STORED
    assert result.version > theirs.version
    assert cache.stats().writes_resent == 1
    assert zones.values("k") == everywhere(TOMBSTONE)


# (b) The process restarts with a clock that was set back.


@pytest.mark.parametrize("step", STEPS[1:])
@pytest.mark.parametrize("name", ["set", "delete"])
@on_zones()
async def test_a_process_that_restarts_with_a_clock_set_back(zones, step, name):
    """Versions of the former process are newer, so the new process sends its write again, believed or not."""
    former, _ = await client(zones)
    old = await former.set("k", "old", consistency="all")
    await former.close()
    cache, _ = await client(zones, -step)
    result = await (cache.set("k", "new", consistency="all") if name == "set" else cache.delete("k", consistency="all"))
    assert result.zones == STORED
    assert result.version > old.version
    assert zones.stored_versions("k") == everywhere(result.version)
    assert cache.stats().writes_resent == 1
    assert (cache.stats().versions_refused > 0) == (step > 60)
    other, _ = await client(zones)
    assert await other.get("k", consistency="all") == ("new" if name == "set" else None)


# (c) The clock steps forward and back again.


@on_zones()
async def test_a_step_forward_that_is_believed_is_over_when_the_time_has_come(zones):
    """Others go on from there: no clock is more than 60 s ahead, and every write is newer than those before it."""
    cache, wall = await client(zones, 50)
    other, _ = await client(zones)
    third, _ = await client(zones)
    await cache.set("k", 1, consistency="all")
    wall.seconds = 0
    assert await other.get("k") == 1
    result = await other.set("k", 2, consistency="all")
    assert 49 < ahead_of(zones, result.version) <= 50.1
    assert await third.get("k", consistency="all") == 2
    versions = [result.version]
    for number in range(20):
        writer = (cache, other, third)[number % 3]
        await pass_time(5)
        versions.append((await writer.set("k", number, consistency="all")).version)
    assert versions == sorted(versions)
    assert max(ahead_of(zones, version) for version in versions[-5:]) <= 0.001
    assert [each.stats().versions_refused for each in (cache, other, third)] == [0, 0, 0]


@on_zones()
async def test_a_step_forward_that_is_not_believed_stays_with_the_keys_it_was_written_under(zones):
    """Others read those without a version, and write past them; their clocks and their other keys stay as they are."""
    broken, wall = await client(zones, 3600)
    other, _ = await client(zones)
    poisoned = await broken.set("k", "far ahead", ttl=100, consistency="all")
    item = await other.get_item("k")
    assert (item.value, item.version) == ("far ahead", None)
    for value in ("one", "two"):
        result = await other.set("k", value, ttl=100, consistency="all")
        assert result.zones == STORED
        assert result.version > poisoned.version
        assert zones.stored_versions("k") == everywhere(result.version)
        assert await other.get("k", consistency="all") == value
        assert await broken.get("k", consistency="all") == value
    assert abs(ahead_of(zones, (await other.set("l", 1, consistency="all")).version)) < 0.01
    # The clock is right again. This process continues from its latest version, so it has to be restarted.
    wall.seconds = 0
    assert ahead_of(zones, (await broken.set("m", 1, consistency="all")).version) > 3599
    restarted, _ = await client(zones)
    assert abs(ahead_of(zones, (await restarted.set("n", 1, consistency="all")).version)) < 0.01
    # When the last item with such a version is gone, every client works normally.
    await other.delete("k", consistency="all")
    assert await restarted.get("k", consistency="all") is None
    await pass_time(61)
    result = await restarted.set("k", "well", consistency="all")
    assert abs(ahead_of(zones, result.version)) < 0.01
    assert await other.get("k") == "well"
    assert (await other.get_item("k")).version == result.version


@on_zones()
async def test_a_version_that_went_past_one_that_is_not_believed_is_not_waited_for(zones):
    """When the item is gone, what is written then has an older version, and is not taken to be behind."""
    broken, _ = await client(zones, 3600)
    other, _ = await client(zones, near_cache=NearCache())
    follow_loop(other)
    await pass_time(6)
    heard = []
    other._runtime.dispatcher._publish = lambda key, version: heard.append(version)
    await broken.set("k", "far ahead", consistency="all")
    await other.set("k", "ours", consistency="all")
    assert heard == [None]
    zones.evict("k", *"abc")
    third, _ = await client(zones)
    await third.set("k", "after", consistency="all")
    assert await other.get("k") == "after"


# (d) A client whose own clock is more than 60 s slow.


@pytest.mark.parametrize("write", ["set", "set_many", "delete", "delete_many", "invalidate", "write_through"])
@on_zones()
async def test_a_client_whose_clock_is_slow_writes_past_what_is_there(zones, write):
    """An older version in a place where others know a newer one would be taken to be behind for as long as it is there."""
    slow, _ = await client(zones, -FAR)
    right, _ = await client(zones)
    theirs = await right.set("k", "theirs", consistency="all")

    async def accept(value):
        pass

    calls = {
        "set": lambda: slow.set("k", "ours", consistency="all"),
        "set_many": lambda: slow.set_many({"k": "ours"}, consistency="all"),
        "delete": lambda: slow.delete("k", consistency="all"),
        "delete_many": lambda: slow.delete_many(["k"], consistency="all"),
        "invalidate": lambda: slow.invalidate("k", consistency="all"),
        "write_through": lambda: slow.write_through("k", "ours", accept, consistency="all"),
    }
    result = await calls[write]()
    result = result["k"] if isinstance(result, dict) else result
    assert result.zones == STORED
    assert result.version > theirs.version
    assert zones.stored_versions("k") == everywhere(result.version)
    expected = "ours" if write in ("set", "set_many", "write_through") else None
    for level in ("one", "all"):
        assert await right.get("k", consistency=level) == expected
        assert await slow.get("k", consistency=level) == expected
    assert (await right.set("k", "later", consistency="all")).version > result.version
    assert await slow.get("k") == "later"


@pytest.mark.parametrize("seconds", [-FAR, FAR])
@pytest.mark.parametrize("name", ["add", "replace", "append", "cas"])
@on_zones()
async def test_conditional_writes_go_past_what_is_not_believed_too(zones, name, seconds):
    """The deciding zone's new item is newer than the items of the other zones, whichever clock is wrong."""
    cache, _ = await client(zones)
    other, _ = await client(zones, seconds)
    if name == "add":
        before = await other.delete("k", consistency="all")
    else:
        before = await other.set("k", "theirs", consistency="all")
    if seconds < 0:
        cache, other = other, cache
        before = await other.set("k", "theirs", consistency="all") if name != "add" else await other.delete("k")
    calls = {
        "add": lambda: cache.add("k", "ours", consistency="all"),
        "replace": lambda: cache.replace("k", "ours", consistency="all"),
        "append": lambda: cache.append("k", "-ours", consistency="all"),
        "cas": lambda: cache.cas("k", "ours", before.version, consistency="all"),
    }
    result = await calls[name]()
    assert result.zones == STORED
    assert result.version > before.version
    await pass_time()
    assert zones.values("k") == everywhere("theirs-ours" if name == "append" else "ours")
    assert zones.stored_versions("k") == everywhere(result.version)
    for each in (cache, other):
        assert await each.get("k", consistency="all") == zones.values("k")["a"]


@on_zones()
async def test_a_delete_that_waits_for_a_zone_hides_no_later_write_of_its_client(zones):
    """Its version is one that the client does not believe: held against what the client writes later, it would be newer."""
    slow, _ = await client(zones, -FAR, circuit=QUICK)
    right, _ = await client(zones, hints=None)
    await right.set("k", "theirs", consistency="all")
    await cut_off(zones, slow, "c")
    assert await slow.delete("k")
    await pass_time(61)
    assert zones.values("k") == {"a": None, "b": None, "c": "theirs"}
    assert await slow.set("k", "ours")
    assert await slow.get("k") == "ours"


@on_zones()
async def test_its_late_writes_replace_nothing_newer(zones):
    """Also those that it does not believe: what it has kept for a zone is older than what others have written since."""
    listener = Listener()
    slow, _ = await client(zones, -FAR, hooks=listener, hints=Hints())
    right, _ = await client(zones)
    zones.pause("c")
    await slow.set("k", "ours", consistency="quorum")
    await pass_time(1)
    assert listener.hints == ["c"]
    zones.resume("c")
    theirs = await right.set("k", "theirs", consistency="all")
    await pass_time(15)
    assert listener.ended == [("c", "superseded")]
    assert zones.stored_versions("k") == everywhere(theirs.version)


@on_zones()
async def test_its_repairs_replace_nothing_newer(zones):
    """It sees an older version that it believes in one zone, and nothing in another; a third has what it does not believe."""
    right, _ = await client(zones)
    old = await right.set("k", "old", consistency="all")
    held = zones.held("k", "b")
    await pass_time(FAR)
    theirs = await right.set("k", "theirs", consistency="all")
    zones.put_back("k", held, "b")
    zones.evict("k", "c")
    slow, _ = await client(zones, -FAR)
    await slow.get("k", consistency="all")
    await pass_time()
    assert zones.stored_versions("k")["a"] == theirs.version
    assert await right.get("k", consistency="all") == "theirs"
    await pass_time()
    assert zones.stored_versions("k") == everywhere(theirs.version)
    assert old.version < theirs.version


@on_zones()
async def test_refused_version_is_logged_once_and_counted(zones, caplog):
    """With the difference of the clocks. Each sight counts."""
    slow, _ = await client(zones, -FAR)
    right, _ = await client(zones)
    await right.set_many({"k": 1, "l": 1}, consistency="all")
    right._runtime.hlc.writer = 77
    await right.set("m", 1, consistency="all")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await slow.get("m") == 1
            assert await slow.get_many(["k", "l"]) == {"k": 1, "l": 1}
    text = (
        "version refused: it is 120.0 s ahead of this client's clock (limit 60 s); check the clocks of this client and of"
        " writer 77"
    )
    logged = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert logged == [("evcache.replication", "WARNING", text)]
    assert slow.stats().versions_refused == 9
    assert right.stats().versions_refused == 0


@on_zones()
async def test_a_slow_clock_is_set_right(zones):
    """From then on the client works normally, without a restart."""
    slow, wall = await client(zones, -FAR)
    right, _ = await client(zones)
    await right.set("k", "theirs", consistency="all")
    assert (await slow.get_item("k")).version is None
    wall.seconds = 0
    item = await slow.get_item("k")
    assert item.version is not None
    result = await slow.set("k", "ours", consistency="all")
    assert result.version > item.version
    assert slow.stats().writes_resent == 0


# Versions that a write can go past.


@pytest.mark.parametrize("ahead", [0, 1, MAX_AHEAD_MS, 10 * MAX_AHEAD_MS, 2**40])
def test_one_version_goes_past_another_and_the_clock_stays(ahead):
    """The next version has this clock's time again, unless the clock believes the other version."""
    clock = HybridLogicalClock(1, lambda: NOW)
    other = (NOW + ahead << COUNTER_BITS | 255) << WRITER_BITS | 4095
    assert clock.observe_stored(cas_of(other)) == other
    version = clock.tick(after=other)
    assert version > other
    assert version & 0xFFF == 1
    assert clock.believes(version) is (ahead < MAX_AHEAD_MS)
    assert milliseconds_of(clock.tick()) <= (NOW + ahead + 1 if ahead < MAX_AHEAD_MS else NOW)


@given(st.integers(0, MAX_CAS))
def test_what_can_be_gone_past_stays_a_version(cas):
    """The number that replaces any number of another kind of client is a version, and newer."""
    clock = HybridLogicalClock(1, lambda: NOW)
    other = clock.observe_stored(cas)
    if other is None:
        assert cas < NOT_A_VERSION or cas > MAX_CAS - NOT_A_VERSION or cas < NOT_A_VERSION + 2**14
        return
    assert other == MAX_CAS - cas
    version = clock.tick(after=other)
    assert version > other
    assert NOT_A_VERSION <= version <= MAX_CAS - NOT_A_VERSION


@pytest.mark.parametrize("cas", [NOT_A_VERSION, NOT_A_VERSION + 1, NOT_A_VERSION + 2**12])
@on_zones()
async def test_a_number_that_nothing_can_be_newer_than_is_replaced(zones, cas):
    """The clock would have to show the year 2527: another kind of client has chosen it."""
    cache, _ = await client(zones)
    await cache.set("k", "v", consistency="all")
    held = zones.held("k", "a")
    for zone in "abc":
        zones.evict("k", zone)
        line = b"ms t:k 1 T100 E%d F0\r\nx\r\n" % cas
        assert zones.one(zone).session().receive(line).startswith(b"HD")
    result = await cache.set("k", "ours", consistency="all")
    assert result.zones == STORED
    assert zones.stored_versions("k") == everywhere(result.version)
    assert result.version > held.version


# (e) Two clients with one writer id.


@on_zones()
async def test_two_clients_with_one_writer_id_may_write_one_version(zones):
    """In one millisecond, under one key: each zone keeps what came last, and shows it until the key is written again."""
    one, _ = await client(zones, circuit=PATIENT)
    other, _ = await client(zones, circuit=PATIENT, local_zone="b")
    one._runtime.hlc.writer = other._runtime.hlc.writer = 7
    one._runtime.hlc._stamp = other._runtime.hlc._stamp = 0
    zones.pause("b")
    first = asyncio.ensure_future(one.set("k", "one", consistency="all", timeout=5))
    await asyncio.sleep(0)
    await pass_time(0.0001)
    held = zones.held("k", "a")
    second = asyncio.ensure_future(other.set("k", "other", consistency="all", timeout=5))
    await pass_time(0.0001)
    zones.resume("b")
    results = await asyncio.gather(first, second)
    assert results[0].version == results[1].version == held.version
    assert [result.zones for result in results] == [STORED, STORED]
    zones.put_back("k", held, "b")  # as if the first had come last to this zone
    assert zones.values("k") == {"a": "other", "b": "one", "c": "other"}
    assert [await one.get("k"), await other.get("k")] == ["other", "one"]
    # Zones with one version are taken to be equal: the local one is believed, and nothing is repaired.
    assert [await one.get("k", consistency="all"), await other.get("k", consistency="all")] == ["other", "one"]
    await pass_time()
    assert zones.values("k") == {"a": "other", "b": "one", "c": "other"}
    result = await other.set("k", "next", consistency="all")
    assert zones.values("k") == everywhere("next")
    assert zones.stored_versions("k") == everywhere(result.version)
