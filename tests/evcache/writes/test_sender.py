"""Writes of clients whose clocks are slow: sent again with a newer version while the caller waits, and never later."""

import asyncio
import math
import random
from copy import copy as copied
from typing import NamedTuple

import pytest

from evcache import Consistency, Hints, LoadPolicy, NearCache, Outcome
from evcache._background import BackgroundTasks
from evcache.hooks import HookDispatcher
from evcache.replication.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.hlc import MAX_CAS, HybridLogicalClock, cas_of
from evcache.replication.replicated_write import ReplicatedWrite, Replicator
from evcache.replication.seen_versions import SeenVersions
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.ttl import MAX_RELATIVE_SECONDS, NEVER
from evcache.writes.sender import renewed
from tests.support.memory_zones import PATIENT, TOMBSTONE, Listener, full, on_zones, pass_time
from tests.support.near_clients import follow_loop, kept
from tests.support.telemetry_bench import Bench
from tests.support.virtual_time import run

SKEWS = [0.001, 0.01, 0.05, 1.0, 10.0]
STORED = dict.fromkeys("abc", Outcome.STORED)


def everywhere(value):
    return dict.fromkeys("abc", value)


async def with_clock(zones, seconds, **options):
    """A client whose clock is that far ahead (behind, below 0)."""
    return await zones.ready(wall_clock=lambda: zones.wall_clock() + seconds, **options)


async def slow_and_right(zones, skew=0.05, **options):
    """A client whose clock is slow, and one whose clock is right."""
    slow = await with_clock(zones, -skew, **options)
    return slow, await zones.ready()


async def accept(value):
    """A source that takes the value."""


async def break_down(value):
    """A source that does not say whether it took the value."""
    raise LookupError("down")


async def write_through_fails(cache, level):
    with pytest.raises(LookupError):
        await cache.write_through("k", "ours", break_down, consistency=level)


OPERATIONS = {
    "set": (lambda cache, level: cache.set("k", "ours", ttl=90, consistency=level), "ours"),
    "a large set": (lambda cache, level: cache.set("k", "ours" * 5000, ttl=90, consistency=level), "ours" * 5000),
    "set_many": (lambda cache, level: cache.set_many({"k": "ours"}, ttl=90, consistency=level), "ours"),
    "delete": (lambda cache, level: cache.delete("k", consistency=level), TOMBSTONE),
    "delete_many": (lambda cache, level: cache.delete_many(["k"], consistency=level), TOMBSTONE),
    "invalidate": (lambda cache, level: cache.invalidate("k", consistency=level), TOMBSTONE),
    "write_through": (lambda cache, level: cache.write_through("k", "ours", accept, consistency=level), "ours"),
    "write_through, and the writer fails": (write_through_fails, TOMBSTONE),
}
operations = pytest.mark.parametrize("name", OPERATIONS)


# Sent again.


@operations
@pytest.mark.parametrize("skew", SKEWS)
@on_zones()
async def test_a_write_after_one_that_its_client_had_not_seen_takes_effect(zones, name, skew):
    """A write that begins after another one has ended gets the newer version in the end, for any clock difference."""
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
async def test_at_each_level_that_waits(zones, level, name):
    """The result is that of the second round: its version, and what the zones did with it."""
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
async def test_a_caller_who_does_not_wait_sends_nothing_again(zones):
    """With NONE the call has returned before any zone has answered."""
    slow, right = await slow_and_right(zones)
    await right.set("k", "theirs", consistency="all")
    assert await slow.delete("k", consistency="none")
    await pass_time()
    assert zones.values("k") == everywhere("theirs")
    assert slow.stats().writes_resent == 0


@pytest.mark.parametrize("zone", ["a", "b", "c"])
@on_zones()
async def test_one_zone_that_holds_a_newer_version_is_enough(zones, zone):
    """The others took the first round; all hold the second."""
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
async def test_a_write_only_zone_counts_for_this_too(zones):
    """It takes every write, and repairs would bring its newer version to the others."""
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
async def test_many_keys_send_again_only_those_that_need_it(zones):
    """The others are sent once."""
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
async def test_many_keys_do_not_wait_for_one_that_hangs(zones):
    """A key whose node hangs is decided at the deadline; the others have been sent again long before."""
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
async def test_a_zone_that_hangs_leaves_time_for_the_second_round(zones):
    """The first zone that reports a newer version starts it: nothing waits for the slowest zone."""
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
async def test_invalidate_with_a_stale_value(zones):
    """What may be served for a while has the newer version too."""
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
async def test_an_item_without_a_version_is_replaced_without_another_round(zones):
    """There is nothing that this client could have seen."""
    slow, _ = await slow_and_right(zones)
    zones.write_as_another_client("k", b"theirs", 0, *"abc")
    assert (await slow.set("k", "ours", consistency="all")).zones == STORED
    assert slow.stats().writes_resent == 0


@on_zones()
async def test_a_write_goes_past_a_newer_version_in_each_zone(zones):
    """Each zone holds the write of another client, the last zone to answer the newest: the write is sent again three times."""
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


# Not sent again.


@on_zones()
async def test_a_late_zone_does_not_send_a_write_again_that_has_been_acknowledged(zones):
    """Another client may have known of it, and written since: sent again, it would undo that."""
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    await right.set("k", "theirs", consistency="all")
    held = zones.held("k", "c")
    zones.evict("k", *"abc")
    zones.put_back("k", held, "c")
    zones.pause("c")
    result = await slow.delete("k", consistency="quorum")
    assert result.zones == {"a": Outcome.STORED, "b": Outcome.STORED, "c": Outcome.PENDING}
    zones.resume("c")
    await pass_time()
    assert slow.stats().writes_resent == 0
    assert zones.values("k") == {"a": TOMBSTONE, "b": TOMBSTONE, "c": "theirs"}
    assert zones.stored_versions("k")["a"] == result.version


@on_zones()
async def test_an_own_newer_write_supersedes(zones):
    """The same client made it later, so the earlier write must not undo it."""
    cache = await zones.ready(circuit=PATIENT)
    zones.pause("a")
    first = asyncio.ensure_future(cache.set("k", "first", consistency="all", timeout=10))
    await pass_time(0.01)
    second = asyncio.ensure_future(cache.delete("k", consistency="all", timeout=10))
    await pass_time(0.01)
    held = zones.held("k", "b")
    zones.resume("a")
    zones.put_back("k", held, "a")  # the delete overtakes the set
    await asyncio.gather(first, second)
    assert cache.stats().writes_resent == 0
    assert zones.values("k") == everywhere(TOMBSTONE)


def with_cas(item, cas):
    """A stored item under another CAS."""
    other = copied(item)
    other.cas = cas
    return other


class Reported(NamedTuple):
    """One zone's part of a round, when its answer is there."""

    command: StoreCommand
    zone: str = "a"
    counts: bool = True


def a_round(sends=True):
    """A round of a store that was refused for an unseen version, and a list of what it has sent again."""
    clock = HybridLogicalClock(1, lambda: 1_800_000_000_000)
    store = StoreCommand(clock, b"k", b"v", 0, ttl=9, version=clock.tick())
    store.unseen = store.version + (5 << 20)
    replicator = Replicator(BackgroundTasks(), HookDispatcher(), SeenVersions())
    write = ReplicatedWrite(replicator, store, 1, asyncio.get_running_loop().create_future())
    again = []

    def send_again():
        again.append(store.unseen)
        return sends

    write.resend_with(send_again)
    return write, store, again


@pytest.mark.parametrize("seed", range(20))
@on_zones()
async def test_writes_of_one_client_take_effect_in_their_order(zones, seed):
    """A write that the client has followed by another one is not sent again: it would go past that one."""
    chosen = random.Random(seed)
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    await right.set("k", "theirs", consistency="all")
    zones.pause(*"abc")
    writes = []
    for number in range(5):
        value = b"x" * chosen.choice([10, 5000]) + b"%d" % number
        writes.append(asyncio.ensure_future(slow.set("k", value, consistency=chosen.choice(["all", "quorum"]))))
        for _ in range(chosen.randrange(2)):
            await asyncio.sleep(0)
    await pass_time(0.001)
    for zone in chosen.sample("abc", 3):
        zones.resume(zone)
        for _ in range(chosen.randrange(6)):
            await asyncio.sleep(0)
    results = await asyncio.gather(*writes)
    await pass_time()
    assert all(results)
    assert {value[-1:] for value in zones.values("k").values()} == {b"4"}
    assert slow.stats().writes_resent >= 1
    assert not slow._writes._sender.latest


@on_zones()
async def test_an_own_newer_write_that_has_ended_is_not_undone(zones):
    """Events: a set waits for zone c; a delete of the same client is acknowledged by a and b; zone c reports a version of
    another client that is newer than the set. The delete is newer than that.
    """
    slow, other = await with_clock(zones, -0.05, circuit=PATIENT), await with_clock(zones, -0.02)
    zones.pause("c")
    first = asyncio.ensure_future(slow.set("k", "first", consistency="all", timeout=10))
    await pass_time(0.01)
    await other.set("k", "theirs", consistency="quorum")
    theirs = zones.held("k", "a")
    zones.evict("k", "a", "b")
    await pass_time(0.1)
    assert await slow.delete("k", consistency="quorum")
    zones.put_back("k", theirs, "c")
    zones.resume("c")
    await first
    await pass_time(5)
    assert slow.stats().writes_resent == 0
    assert zones.values("k") == everywhere(TOMBSTONE)


def test_a_round_that_may_not_send_again_counts_the_zone():
    """As one that has the write, like any other that holds a newer version."""

    async def main():
        write, store, again = a_round(sends=False)
        write.report(Reported(store), Outcome.SUPERSEDED)
        await write.wait_until_decided()
        assert again == [store.unseen]
        assert write.met

    run(main())


def test_what_is_reported_after_the_decision_sends_nothing_again():
    """And what is reported after the second round has begun does not begin a third."""

    async def main():
        write, store, again = a_round()
        write.report(Reported(store), Outcome.STORED)
        write.report(Reported(store, "b"), Outcome.SUPERSEDED)
        assert again == []
        write, store, again = a_round()
        for zone in "abc":
            write.report(Reported(store, zone), Outcome.SUPERSEDED)
        assert again == [store.unseen]

    run(main())


def test_a_second_round_that_can_not_be_sent_does_not_leave_the_caller_waiting():
    """The first round is decided after any error."""

    async def main():
        write, store, _ = a_round()

        def fail():
            raise LookupError("a bug")

        write.resend_with(fail)
        with pytest.raises(LookupError):
            write.report(Reported(store), Outcome.SUPERSEDED)
        await write.wait_until_decided()

    run(main())


@pytest.mark.parametrize(("writer", "noted"), [(1, False), (2, True)])
@on_zones(zones=1)
async def test_a_store_notes_what_other_writers_were_newer_with(zones, writer, noted):
    """The store notes a newer version of another writer, and not one that its own client has made."""
    cache = await zones.ready()
    await cache.set("k", "theirs", ttl=50)
    item = zones.one("a").store.get(full("k"))
    theirs = MAX_CAS - item.cas >> 20 << 20 | writer
    zones.put_back("k", zones.held("k", "a")._replace(raw=with_cas(item, cas_of(theirs))), "a")
    clock = HybridLogicalClock(1, lambda: theirs >> 20)
    clock.tick()
    store = StoreCommand(clock, full("k"), b"v", 0, ttl=50, version=(theirs >> 20) - 7 << 20 | 1)
    node = next(iter(cache._cluster.nodes.values()))
    assert await store.peek_and_apply(node, asyncio.get_running_loop().time() + 1) is Outcome.SUPERSEDED
    assert store.unseen == (theirs if noted else 0)


@on_zones()
async def test_two_writers_that_both_send_again_end(zones):
    """Each does so once, and all zones end with one of their writes."""
    slow, right = await slow_and_right(zones, 1.0)
    slower = await with_clock(zones, -2.0)
    for number in range(20):
        theirs = await right.set(f"k{number}", "theirs", consistency="all")
        results = await asyncio.gather(
            slow.set(f"k{number}", "slow", consistency="all"), slower.set(f"k{number}", "slower", consistency="all")
        )
        assert all(results)
        assert min(result.version for result in results) > theirs.version
        newest = max(results, key=lambda result: result.version)
        assert zones.stored_versions(f"k{number}") == everywhere(newest.version)
        assert len(set(zones.values(f"k{number}").values())) == 1
    assert slow.stats().writes_resent <= 20
    assert slower.stats().writes_resent <= 20


@pytest.mark.parametrize("rounds", [2, 3])
@on_zones()
async def test_the_last_round_that_is_superseded_counts_as_acknowledged(zones, monkeypatch, rounds):
    """Each round goes past the newer version that it met, up to a limit. That version may be older than the call."""
    monkeypatch.setattr("evcache.writes.sender.MAX_ATTEMPTS", rounds)
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    await right.set("k", "theirs", consistency="all")
    zones.pause("b", "c")
    write = asyncio.ensure_future(slow.delete("k", consistency="all", timeout=10))
    await pass_time(0.1)
    assert slow.stats().writes_resent == 1
    ahead = await with_clock(zones, 5)
    later = asyncio.ensure_future(ahead.set("k", "later", consistency="one"))
    await pass_time(0.1)
    held = zones.held("k", "a")
    assert held.value == "later"
    for zone in "bc":
        zones.put_back("k", held, zone)
    zones.resume("b", "c")
    result = await write
    await later
    assert result
    assert slow.stats().writes_resent == rounds - 1
    if rounds == 2:
        assert result.zones == {"a": Outcome.STORED, "b": Outcome.SUPERSEDED, "c": Outcome.SUPERSEDED}
        assert zones.values("k") == everywhere("later")
    else:
        assert result.zones == STORED
        assert zones.values("k") == everywhere(TOMBSTONE)


@pytest.mark.parametrize("write", ["add", "arrival", "touch", "load"])
@on_zones()
async def test_other_writes_are_not_sent_again(zones, write):
    """Conditional writes are decided by one zone, a load is as old as its beginning, and the others have no version."""
    slow, right = await slow_and_right(zones, 30)
    await right.delete("k", consistency="all")
    if write == "add":
        assert await slow.add("k", "ours", consistency="all")
    elif write == "arrival":
        assert await slow.set("k", "ours", ordering="arrival", consistency="all")
    elif write == "touch":
        assert not await slow.touch("k", 100, consistency="all")
    else:
        await slow.get_or_load("k", lambda: asyncio.sleep(0.01, "loaded"), policy=LoadPolicy())
    await pass_time()
    assert slow.stats().writes_resent == 0


@on_zones()
async def test_hints_are_not_sent_again(zones):
    """A zone that has a newer write does not need the older one."""
    listener = Listener()
    slow = await with_clock(zones, -10, hooks=listener)
    right = await zones.ready()
    zones.pause("c")
    ours = await slow.set("k", "ours", consistency="quorum")
    await pass_time(1)
    assert listener.hints == ["c"]
    zones.resume("c")
    theirs = await right.set("k", "theirs", consistency="all")
    await pass_time(15)
    assert listener.ended == [("c", "superseded")]
    assert slow.stats().writes_resent == 0
    assert zones.stored_versions("k") == everywhere(theirs.version)
    assert theirs.version > ours.version


# Times to live.


@on_zones()
async def test_no_time_to_live_grows(zones):
    """What has passed since the first round is taken off; tombstones are remembered for their whole time."""
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
def test_the_time_to_live_of_a_renewed_store(ttl, elapsed, left):
    """Relative ones shrink; unix times and none stay."""
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
async def test_a_value_that_is_refused_after_its_time_is_seen_by_no_reader(zones):
    """All zones hang for longer than the value was to live; then they have another client's newer one."""
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
def test_a_store_whose_time_is_over_is_renewed_as_a_delete(elapsed):
    """What it should have replaced goes, and no value comes that would outlive the caller's time to live."""
    clock = HybridLogicalClock(3, lambda: 1_800_000_000_000)
    store = StoreCommand(clock, b"k", b"v", 7, ttl=2, version=clock.tick())
    store.unseen = store.version + (100 << 20) + 1
    newer = renewed(store, clock, elapsed, 60)
    assert type(newer) is DeleteCommand
    assert (newer.key, newer.ttl) == (b"k", 60)
    assert newer.version > store.unseen


def test_a_delete_is_renewed_with_its_whole_time():
    clock = HybridLogicalClock(3, lambda: 1_800_000_000_000)
    newer = renewed(DeleteCommand(clock, b"k", ttl=60, version=clock.tick()), clock, 5.0, 60)
    assert type(newer) is DeleteCommand
    assert newer.ttl == 60


# What goes with a write.


@on_zones()
async def test_the_change_is_announced_once_with_the_final_version(zones):
    """A reader elsewhere waits for the version that the zones hold."""
    heard = []
    slow, right = await slow_and_right(zones, 10, near_cache=NearCache())
    follow_loop(slow)
    await pass_time(6)
    slow._changes.announce = lambda key, version: heard.append((key, version))
    await right.set("k", "theirs", consistency="all")
    result = await slow.set("k", "ours", consistency="all")
    assert heard == [(b"t:k", result.version)]
    assert await slow.get("k") == "ours"
    assert kept(slow, "k").version == result.version


@on_zones()
async def test_a_client_reads_its_own_write_that_was_sent_again(zones):
    """What it remembers is the second version: a zone that still has the other client's value is behind."""
    slow, right = await slow_and_right(zones)
    await right.set("k", "theirs", consistency="all")
    held = zones.held("k", "a")
    result = await slow.set("k", "ours", consistency="all")
    zones.put_back("k", held, "a")
    item = await slow.get_item("k")
    assert (item.value, item.version) == ("ours", result.version)
    assert item.zone != "a"


@on_zones()
async def test_one_call_is_one_span(zones):
    """And one write in the counts."""
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
async def test_hints_of_both_rounds_leave_the_newer_one(zones):
    """A zone that missed both receives the second version."""
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
async def test_a_hint_of_the_second_round_belongs_to_the_same_call(zones):
    """Its delivery is linked to the span of the call, for any span that is current when the second round is sent."""
    causes = iter(["the call"])
    ends = []

    class Replays(Listener):
        def replayed(self, zone, end, cause):
            ends.append((zone, end, cause))

    slow, right = await slow_and_right(zones, 10, hooks=Replays())
    await right.set("k", "theirs", consistency="all")
    await zones.kill("c")
    await pass_time()
    slow._hooks.cause = lambda: next(causes, "something else")
    await slow.delete("k", consistency="quorum")
    zones.restart("c")
    await pass_time(20)
    assert ends == [("c", "delivered", "the call")]


# Cancelled callers.


@on_zones()
async def test_a_caller_cancelled_during_the_first_round_sends_nothing_again(zones):
    """The caller has no result, and nothing may undo later writes of other clients. The first round goes on."""
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    await right.set("k", "theirs", consistency="all")
    zones.pause(*"abc")
    write = asyncio.ensure_future(slow.delete("k", consistency="all", timeout=5))
    many = asyncio.ensure_future(slow.delete_many(["l", "k"], consistency="all", timeout=5))
    await pass_time(0.1)
    write.cancel()
    many.cancel()
    await asyncio.wait([write, many])
    zones.resume(*"abc")
    await pass_time(6)
    assert slow.stats().writes_resent == 0
    assert slow.stats().background_tasks == 0
    assert zones.values("k") == everywhere("theirs")
    assert zones.values("l") == everywhere(TOMBSTONE)


@on_zones()
async def test_a_caller_cancelled_during_the_second_round_leaves_it_to_end(zones):
    """The write goes on to every zone, because half a write would leave the zones different."""
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    await right.set("k", "theirs", consistency="all")
    zones.pause("c")
    heard = []
    slow._changes.announce = lambda key, version: heard.append(version)
    write = asyncio.ensure_future(slow.delete("k", consistency="all", timeout=5))
    await pass_time(0.1)
    assert slow.stats().writes_resent == 1
    write.cancel()
    await asyncio.wait([write])
    zones.resume("c")
    await pass_time()
    assert zones.values("k") == everywhere(TOMBSTONE)
    assert zones.stored_versions("k") == everywhere(heard[-1])
    assert len(heard) == 1


@pytest.mark.parametrize("turns", range(12))
@on_zones()
async def test_a_caller_may_be_cancelled_at_any_turn(zones, turns):
    """The zones end equal, and nothing is left behind."""
    slow, right = await slow_and_right(zones)
    await right.set("k", "theirs", consistency="all")
    write = asyncio.ensure_future(slow.delete("k", consistency="all"))
    for _ in range(turns):
        await asyncio.sleep(0)
    write.cancel()
    await asyncio.wait([write])
    await pass_time()
    assert len(set(zones.stored_versions("k").values())) == 1
    assert set(zones.values("k").values()) <= {TOMBSTONE, "theirs"}
    assert (zones.values("k") == everywhere(TOMBSTONE)) == (slow.stats().writes_resent == 1)
    assert slow.stats().background_tasks == 0
