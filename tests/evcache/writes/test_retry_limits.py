"""Writes that are not sent again, and callers that are cancelled while a write is sent again."""

import asyncio
import random
from copy import copy as copied
from typing import NamedTuple

import pytest

from evcache import LoadPolicy, Outcome
from evcache._helpers.background import BackgroundTasks
from evcache.hooks import HookDispatcher
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.hlc import MAX_CAS, HybridLogicalClock, cas_of
from evcache.replication.replicated_write import ReplicatedWrite
from evcache.replication.replicator import Replicator
from evcache.replication.seen_versions import SeenVersions
from tests.support.memory_zones import PATIENT, TOMBSTONE, Listener, full, on_zones, pass_time
from tests.support.slow_clocks import slow_and_right, with_clock
from tests.support.virtual_time import run
from tests.support.written import STORED, everywhere


@on_zones()
async def test_acknowledged_write_is_not_sent_again_for_a_late_zone(zones):
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
async def test_write_superseded_by_an_own_later_one_is_not_sent_again(zones):
    """The earlier write must not undo the later one."""
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
    """Return a copy of a stored item with another CAS."""
    other = copied(item)
    other.cas = cas
    return other


class Reported(NamedTuple):
    """Zone write whose replies are there."""

    command: StoreCommand
    zone: str = "a"
    counts: bool = True


def superseded(sends=True):
    """Return a write of a store that was refused for an unseen version, and the list of its further attempts."""
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


@pytest.mark.parametrize("writers", [(7, 8), (7, 7)], ids=["two writers", "the same random number"])
@pytest.mark.parametrize("seed", range(20))
@on_zones()
async def test_writes_of_one_client_take_effect_in_their_order(zones, seed, writers):
    """A write that a later one of the client has followed is not sent again, because it would go past that one."""
    chosen = random.Random(seed)
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    slow._runtime.hlc.writer, right._runtime.hlc.writer = writers
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
    assert not slow._runtime.writer._sender.latest


@on_zones()
async def test_own_later_write_that_has_ended_is_not_undone(zones):
    """1. A set waits for zone c.
    2. Zones a and b acknowledge a delete of the same client.
    3. Zone c reports a version of another client that is newer than the set. The delete is newer than that.
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


def test_superseded_zone_counts_if_there_is_no_further_attempt():

    async def main():
        write, store, again = superseded(sends=False)
        write.report(Reported(store), Outcome.SUPERSEDED)
        await write.wait_until_decided()
        assert again == [store.unseen]
        assert write.met

    run(main())


def test_report_after_completion_sends_nothing_again():
    """Nor does a report after the second attempt has begun start a third."""

    async def main():
        write, store, again = superseded()
        write.report(Reported(store), Outcome.STORED)
        write.report(Reported(store, "b"), Outcome.SUPERSEDED)
        assert again == []
        write, store, again = superseded()
        for zone in "abc":
            write.report(Reported(store, zone), Outcome.SUPERSEDED)
        assert again == [store.unseen]

    run(main())


def test_write_completes_if_its_second_attempt_raises():

    async def main():
        write, store, _ = superseded()

        def fail():
            raise LookupError("a bug")

        write.resend_with(fail)
        with pytest.raises(LookupError):
            write.report(Reported(store), Outcome.SUPERSEDED)
        await write.wait_until_decided()

    run(main())


@pytest.mark.parametrize(("writer", "noted"), [(1, False), (2, True)])
@on_zones(zones=1)
async def test_store_notes_a_newer_version_of_another_writer_only(zones, writer, noted):
    cache = await zones.ready()
    await cache.set("k", "theirs", ttl=50)
    item = zones.one("a").store.get(full("k"))
    theirs = MAX_CAS - item.cas >> 20 << 20 | writer
    zones.put_back("k", zones.held("k", "a")._replace(raw=with_cas(item, cas_of(theirs))), "a")
    clock = HybridLogicalClock(1, lambda: theirs >> 20)
    clock.tick()
    store = StoreCommand(clock, full("k"), b"v", 0, ttl=50, version=(theirs >> 20) - 7 << 20 | 1)
    node = next(iter(cache._runtime.cluster.nodes.values()))
    assert await store.peek_and_apply(node, asyncio.get_running_loop().time() + 1) is Outcome.SUPERSEDED
    assert store.unseen == (theirs if noted else 0)


@on_zones()
async def test_two_writers_that_supersede_each_other_end(zones):
    """Each sends again once, and all zones end with one of their writes."""
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
async def test_superseded_last_attempt_counts_as_acknowledged(zones, monkeypatch, rounds):
    """Each attempt goes past the newer version that it met, up to a limit. That version may be older than the call."""
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
    """One zone decides conditional writes, a load is as old as its start, and the others have no version."""
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
async def test_superseded_hint_is_not_sent_again(zones):
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


# Cancelled callers.


@on_zones()
async def test_write_cancelled_during_its_first_attempt_is_not_sent_again(zones):
    """The caller has no result, so the write must not undo later writes of other clients. The first attempt goes on."""
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
async def test_write_cancelled_during_its_second_attempt_goes_on(zones):
    """Half a write would leave the zones different."""
    slow, right = await slow_and_right(zones, circuit=PATIENT)
    await right.set("k", "theirs", consistency="all")
    zones.pause("c")
    heard = []
    slow._runtime.dispatcher._publish = lambda key, version: heard.append(version)
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
async def test_write_cancelled_at_any_turn_leaves_equal_zones(zones, turns):
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
