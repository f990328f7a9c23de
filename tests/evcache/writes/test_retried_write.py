"""Writes that are sent again, because a zone holds a version that their client had not seen."""

import asyncio
import math

import pytest

from evcache import Consistency, Hints, NearCache, Outcome
from evcache.replication.commands.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.hlc import HybridLogicalClock, cas_of
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.ttl import MAX_RELATIVE_SECONDS, NEVER
from evcache.writes.sender import renewed
from tests.support.memory_zones import PATIENT, TOMBSTONE, Listener, full, on_zones, pass_time
from tests.support.near import follow_loop, kept
from tests.support.slow_clocks import OPERATIONS, SKEWS, each_operation, slow_and_right, with_clock
from tests.support.telemetry import Bench
from tests.support.written import STORED, everywhere


@each_operation
@pytest.mark.parametrize("skew", SKEWS)
@on_zones()
async def test_write_after_an_unseen_one_takes_effect(zones, name, skew):
    """A write that begins after another one has ended gets the newer version, for any clock difference."""
    slow, right = await slow_and_right(zones, skew)
    theirs = await right.set("k", "theirs", consistency="all")
    await pass_time(skew / 5)
    write, expected = OPERATIONS[name]
    await write(slow, "all")
    await pass_time(0)
    assert zones.values("k") == everywhere(expected)
    versions = set(zones.stored_versions("k").values())
    assert len(versions) == 1
    assert versions.pop() > theirs.version
    assert slow.stats().writes_resent == 1
    assert right.stats().writes_resent == 0


@pytest.mark.parametrize("level", [level for level in Consistency if level is not Consistency.NONE])
@pytest.mark.parametrize("name", ["set", "delete", "set_many", "delete_many"])
@on_zones()
async def test_result_is_that_of_the_last_attempt(zones, level, name):
    """At each level that waits: its version, and its outcome in each zone."""
    slow, right = await slow_and_right(zones)
    theirs = await right.set("k", "theirs", consistency="all")
    write, expected = OPERATIONS[name]
    result = await write(slow, level)
    result = result["k"] if isinstance(result, dict) else result
    assert result
    assert result.version > theirs.version
    assert Outcome.SUPERSEDED not in result.zones.values()
    await pass_time(0)
    assert zones.values("k") == everywhere(expected)
    assert zones.stored_versions("k") == everywhere(result.version)


@on_zones()
async def test_write_at_none_is_not_sent_again(zones):
    """The call has returned before any zone has answered."""
    slow, right = await slow_and_right(zones)
    await right.set("k", "theirs", consistency="all")
    assert await slow.delete("k", consistency="none")
    await pass_time()
    assert zones.values("k") == everywhere("theirs")
    assert slow.stats().writes_resent == 0


@pytest.mark.parametrize("zone", ["a", "b", "c"])
@on_zones()
async def test_one_zone_with_a_newer_version_is_enough(zones, zone):
    """The others took the first attempt. All hold the second."""
    slow, right = await slow_and_right(zones)
    await right.set("k", "theirs", consistency="all")
    held = zones.held("k", zone)
    zones.evict("k", *"abc")
    zones.put_back("k", held, zone)
    result = await slow.delete("k", consistency="all")
    assert result.zones == STORED
    assert zones.values("k") == everywhere(TOMBSTONE)
    assert zones.stored_versions("k") == everywhere(result.version)
    assert slow.stats().writes_resent == 1


@on_zones(write_only=["c"])
async def test_newer_version_in_a_write_only_zone_is_enough(zones):
    """It takes every write, and repairs would copy its newer version to the others."""
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    await right.set("k", "theirs", consistency="all")
    held = zones.held("k", "c")
    zones.evict("k", *"abc")
    zones.put_back("k", held, "c")
    zones.pause("b")
    write = asyncio.ensure_future(slow.delete("k", consistency="all", timeout=5))
    await pass_time(0.01)
    zones.resume("b")
    assert await write
    assert slow.stats().writes_resent == 1
    await pass_time()
    assert zones.values("k") == everywhere(TOMBSTONE)


@on_zones()
async def test_bulk_write_sends_again_only_superseded_keys(zones):
    slow, right = await slow_and_right(zones)
    await right.set_many({"k1": "theirs", "k3": "theirs"}, consistency="all")
    zones.forget()
    results = await slow.set_many({f"k{number}": number for number in range(5)}, consistency="all")
    assert all(result.zones == STORED for result in results.values())
    assert slow.stats().writes_resent == 2
    for number in range(5):
        assert zones.values(f"k{number}") == everywhere(number)
        assert zones.stored_versions(f"k{number}") == everywhere(results[f"k{number}"].version)
    # Three stores for each key, three more and a look for each of the two.
    assert zones.all_commands() == everywhere({"ms": 7 * 3, "mg": 2})


@on_zones(nodes=2)
async def test_bulk_write_sends_again_before_a_key_that_hangs_times_out(zones):
    """A key whose node hangs ends at the deadline."""
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    keys = [f"k{number}" for number in range(20)]
    await right.set_many(dict.fromkeys(keys, "theirs"), consistency="all")
    zones.servers["c"][0].pause()
    results = await slow.delete_many(keys, consistency="all", timeout=1)
    hanging = [key for key, result in results.items() if result.zones["c"] is Outcome.TIMEOUT]
    assert 0 < len(hanging) < len(keys)
    for key in keys:
        assert [zones.held(key, zone).value for zone in "ab"] == [TOMBSTONE] * 2
        assert bool(results[key]) == (key not in hanging)


@on_zones()
async def test_zone_that_hangs_leaves_time_for_the_second_attempt(zones):
    """The first zone that reports a newer version starts it."""
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    await right.set("k", "theirs", consistency="all")
    zones.pause("c")
    result = await slow.delete("k", consistency="all", timeout=1)
    assert result.zones == {"a": Outcome.STORED, "b": Outcome.STORED, "c": Outcome.TIMEOUT}
    assert not result
    zones.resume("c")
    await pass_time(5)
    assert zones.stored_versions("k") == everywhere(result.version)


@on_zones()
async def test_invalidate_with_a_stale_value_is_sent_again(zones):
    slow, right = await slow_and_right(zones)
    await right.set("k", "theirs", consistency="all")
    held = zones.held("k", "b")
    zones.evict("k", "b", "c")
    await pass_time(0.02)
    other = await right.set("k", "later", consistency="all")
    zones.evict("k", "a")
    zones.put_back("k", held, "a")
    result = await slow.invalidate("k", stale_while_revalidate=30, consistency="all")
    assert result.zones == STORED
    assert result.version > other.version
    for zone in "abc":
        item = zones.one(zone).store.get(full("k"))
        assert (item.flags, item.cas) == (FLAG_ENVELOPE, cas_of(result.version))
    assert slow.stats().writes_resent == 1
    assert await right.get("k", consistency="all") is None


@on_zones()
async def test_item_without_a_version_is_replaced_by_the_first_attempt(zones):
    slow, _ = await slow_and_right(zones)
    zones.write_as_another_client("k", b"theirs", 0, *"abc")
    assert (await slow.set("k", "ours", consistency="all")).zones == STORED
    assert slow.stats().writes_resent == 0


@on_zones()
async def test_write_goes_past_a_newer_version_in_each_zone(zones):
    """Each zone holds the write of another client, the last zone to answer the latest. The write is sent again three times."""
    slow = await with_clock(zones, -0.05, circuit=PATIENT)
    held = {}
    for zone, seconds in zip("abc", (10, 20, 30), strict=True):
        other = await with_clock(zones, seconds)
        await other.set("k", f"of {zone}", consistency="all")
        held[zone] = zones.held("k", zone)
    for zone in "ab":
        zones.put_back("k", held[zone], zone)
    newest = zones.stored_versions("k")["c"]
    zones.pause("b", "c")
    write = asyncio.ensure_future(slow.set("k", "ours", consistency="all", timeout=5))
    for zone in "bc":
        await pass_time(0.1)
        zones.resume(zone)
    result = await write
    assert result.zones == STORED
    assert result.version > newest
    assert slow.stats().writes_resent == 3
    assert zones.values("k") == everywhere("ours")
    assert zones.stored_versions("k") == everywhere(result.version)


# Times to live.


@on_zones()
async def test_ttl_of_a_retried_write_does_not_grow(zones):
    """The time since the first attempt is taken off. Tombstones keep their whole TTL."""
    right = await zones.ready()
    slow = [await with_clock(zones, -0.05) for _ in range(4)]  # one that has sent a write again knows the others' time
    await right.set_many(dict.fromkeys(("k", "once", "forever", "gone"), "theirs"), consistency="all")
    await slow[0].set("k", "ours", ttl=90, consistency="all")
    await slow[1].set("once", "ours", ttl=1, consistency="all")
    await slow[2].set("forever", "ours", ttl=math.inf, consistency="all")
    await slow[3].delete("gone", consistency="all")
    assert [client.stats().writes_resent for client in slow] == [1] * 4
    assert {zones.held("k", zone).ttl for zone in "abc"} <= {89, 90}
    assert {zones.held("once", zone).ttl for zone in "abc"} == {1}
    assert {zones.held("forever", zone).ttl for zone in "abc"} == {None}
    assert {zones.held("gone", zone).ttl for zone in "abc"} == {60}


@pytest.mark.parametrize(
    ("ttl", "elapsed", "left"),
    [
        (90, 0.0, 90),
        (90, 0.001, 90),
        (90, 1.0, 89),
        (90, 1.5, 89),
        (1, 0.5, 1),
        (2, 1.999, 1),
        (NEVER, 5.0, NEVER),
        (MAX_RELATIVE_SECONDS + 1, 5.0, MAX_RELATIVE_SECONDS + 1),
    ],
)
def test_renewed_store_keeps_its_end(ttl, elapsed, left):
    """A relative TTL shrinks. A unix time and none stay."""
    clock = HybridLogicalClock(3, lambda: 1_800_000_000_000)
    store = StoreCommand(clock, b"k", b"v", 7, ttl=ttl, version=clock.tick())
    store.unseen = store.version + (100 << 20) + 1
    newer = renewed(store, clock, elapsed, 60)
    assert type(newer) is StoreCommand
    assert newer.ttl == left
    assert (newer.key, newer.data, newer.flags, newer.believed) == (b"k", b"v", 7, True)
    assert newer.version > store.unseen
    assert newer.version & 0xFFF == store.version & 0xFFF == 3


@on_zones()
async def test_value_refused_after_its_end_is_stored_as_a_delete(zones):
    """All zones hang for longer than the TTL of the value. Then they have a newer value of another client."""
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    await right.set("k", "theirs", ttl=500, consistency="all")
    zones.pause(*"abc")
    write = asyncio.ensure_future(slow.set("k", "ours", ttl=2, consistency="all", timeout=10))
    await pass_time(4)
    zones.resume(*"abc")
    assert await write
    assert slow.stats().writes_resent == 1
    assert zones.values("k") == everywhere(TOMBSTONE)
    assert await right.get("k", consistency="all") is None


@pytest.mark.parametrize("elapsed", [2.0, 2.5, 100.0])
def test_store_whose_ttl_is_over_is_renewed_as_a_delete(elapsed):
    clock = HybridLogicalClock(3, lambda: 1_800_000_000_000)
    store = StoreCommand(clock, b"k", b"v", 7, ttl=2, version=clock.tick())
    store.unseen = store.version + (100 << 20) + 1
    newer = renewed(store, clock, elapsed, 60)
    assert type(newer) is DeleteCommand
    assert (newer.key, newer.ttl) == (b"k", 60)
    assert newer.version > store.unseen


def test_renewed_delete_keeps_its_whole_ttl():
    clock = HybridLogicalClock(3, lambda: 1_800_000_000_000)
    newer = renewed(DeleteCommand(clock, b"k", ttl=60, version=clock.tick()), clock, 5.0, 60)
    assert type(newer) is DeleteCommand
    assert newer.ttl == 60


# What goes with a write.


@on_zones()
async def test_invalidation_is_published_once_with_the_last_version(zones):
    heard = []
    slow, right = await slow_and_right(zones, 10, near_cache=NearCache())
    follow_loop(slow)
    await pass_time(6)
    slow._runtime.dispatcher._publish = lambda key, version: heard.append((key, version))
    await right.set("k", "theirs", consistency="all")
    result = await slow.set("k", "ours", consistency="all")
    assert heard == [(b"t:k", result.version)]
    assert await slow.get("k") == "ours"
    assert kept(slow, "k").version == result.version


@on_zones()
async def test_client_reads_its_own_retried_write(zones):
    slow, right = await slow_and_right(zones)
    await right.set("k", "theirs", consistency="all")
    held = zones.held("k", "a")
    result = await slow.set("k", "ours", consistency="all")
    zones.put_back("k", held, "a")
    item = await slow.get_item("k")
    assert (item.value, item.version) == ("ours", result.version)
    assert item.zone != "a"


@on_zones()
async def test_retried_write_is_one_span(zones):
    bench = Bench()
    slow = await with_clock(zones, -0.05, telemetry=bench.settings())
    right = await zones.ready(telemetry=None)
    await right.set("k", "theirs", consistency="all")
    bench.take()
    await slow.delete("k", consistency="all")
    assert slow.stats().writes_resent == 1
    span = bench.one()
    assert (span.name, span.attributes["evcache.zones.acked"], span.attributes["evcache.met"]) == ("delete t", 3, True)
    assert bench.points("evcache.writes")["delete", "met"] == 1


@on_zones()
async def test_hints_of_both_attempts_leave_the_newer_one(zones):
    slow, right = await slow_and_right(zones, 10, hints=Hints())
    await right.set("k", "theirs", consistency="all")
    await zones.kill("c")
    await pass_time()
    result = await slow.delete("k", consistency="quorum")
    assert slow.stats().writes_resent == 1
    await pass_time()
    assert slow.stats().hints == 1
    zones.restart("c")
    await pass_time(20)
    assert slow.stats().hints == 0
    assert zones.values("k") == everywhere(TOMBSTONE)
    assert zones.stored_versions("k") == everywhere(result.version)


@on_zones()
async def test_hint_of_the_second_attempt_belongs_to_the_same_call(zones):
    causes = iter(["the call"])
    ends = []

    class Replays(Listener):
        def replayed(self, zone, end, cause):
            ends.append((zone, end, cause))

    slow, right = await slow_and_right(zones, 10, hooks=Replays())
    await right.set("k", "theirs", consistency="all")
    await zones.kill("c")
    await pass_time()
    slow._runtime.hooks.cause = lambda: next(causes, "something else")
    await slow.delete("k", consistency="quorum")
    zones.restart("c")
    await pass_time(20)
    assert ends == [("c", "delivered", "the call")]
