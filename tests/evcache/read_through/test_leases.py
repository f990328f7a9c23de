"""Leases: the process that may load a key, the end of a lease, and what other clients read."""

import asyncio

import pytest

from evcache import EVCache
from evcache.read_through.loads.leases import Lease, Leases, NoLease, beside
from evcache.replication.hlc import MAX_CAS, cas_of
from evcache.replication.reconcile import ZoneHit
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones.protocol.replies import Hit
from tests.support.memory_zones import cut_off, full, on_zones, pass_time
from tests.support.sources import no_stubs, on_releases, stubs
from tests.support.virtual_time import settle

KEY = full("k")
OLD = ZoneHit(Hit(b"old", 0, 7, 100, stale=False, leased=False), "a", None)
"""The item that a lease beside the key replaces, unless a test names another."""


class Process:
    """What a process needs to ask for leases."""

    def __init__(self, cache: EVCache):
        self.cache = cache
        self.leases = Leases(cache._runtime.hlc)

    @property
    def view(self):
        return self.cache._runtime.cluster.view

    async def take(self, key=KEY, seconds=10, timeout=0.5):
        return await self.leases.take(self.view, key, seconds, self.deadline(timeout))

    async def take_beside(self, key=KEY, seconds=10, over=OLD, known=0):
        return await self.leases.take_beside(self.view, key, seconds, self.deadline(), over, known)

    async def give_back(self, lease):
        self.leases.give_back(lease, self.deadline())
        await settle()

    def deadline(self, timeout=0.5):
        return asyncio.get_running_loop().time() + timeout


async def process(zones, **options):
    return Process(await zones.ready(**options))


@pytest.mark.parametrize("where", ["take", "take_beside"])
@on_releases("1.6.38", "1.6.18", zones=2)
async def test_one_of_all_processes_of_a_zone_gets_it(zones, where):
    """Until it is given back: then the next one does. On servers without versions too."""
    first, second = await process(zones), await process(zones)
    lease = await getattr(first, where)()
    assert isinstance(lease, Lease)
    assert lease.pool.name == "a"
    assert await getattr(second, where)() is NoLease.TAKEN
    assert await getattr(first, where)() is NoLease.TAKEN, "not even the same one"
    await first.give_back(lease)
    assert no_stubs(zones)
    assert isinstance(await getattr(second, where)(), Lease)


@on_zones(zones=2)
async def test_each_zone_has_one(zones):
    """Its own: the local zone is asked, and no other."""
    processes = [await process(zones, local_zone=zone) for zone in "ab"]
    leases = [await each.take() for each in processes]
    assert [lease.pool.name for lease in leases] == ["a", "b"]
    assert {zone: list(held) for zone, held in stubs(zones).items()} == {"a": [KEY], "b": [KEY]}


@on_zones(zones=1)
async def test_a_lease_of_a_process_that_died_ends_by_itself(zones):
    first, second = await process(zones), await process(zones)
    await first.take(seconds=10)
    await pass_time(9)
    assert await second.take() is NoLease.TAKEN
    await pass_time(1.1)
    assert isinstance(await second.take(), Lease)


@on_zones(zones=1)
async def test_a_lease_that_has_gone_to_another_cannot_be_given_back(zones):
    """A process that was slow must not end the lease of the one after it."""
    first, second = await process(zones), await process(zones)
    old = await first.take(seconds=2)
    await pass_time(3)
    assert isinstance(await second.take(), Lease)
    await first.give_back(old)
    assert await first.take() is NoLease.TAKEN


@pytest.mark.parametrize("held", ["value", "tombstone", "empty"])
@on_zones(zones=1)
async def test_a_key_that_holds_something_has_no_lease_of_its_own(zones, held):
    """It is returned, whatever it is, and is left as it was; the lease is beside it."""
    one = await process(zones)
    if held == "tombstone":
        await one.cache.delete("k")
    else:
        await one.cache.set("k", b"" if held == "empty" else b"v")
    before = zones.held("k", "a").raw.cas
    found = await one.take()
    assert isinstance(found, ZoneHit)
    assert (found.hit.cas, found.zone) == (before, "a")
    assert found.hit.value == (b"v" if held == "value" else b"")
    assert (found.hit.flags == FLAG_TOMBSTONE) is (held == "tombstone")
    lease = await one.take_beside(over=found)
    assert (lease.name, lease.over) == (beside(KEY, before), before)
    assert zones.held("k", "a").raw.cas == before


@on_zones(zones=2)
async def test_nobody_takes_a_lease_for_a_value(zones):
    """To reads, to a delete and to `add`, a key that is being loaded is absent."""
    one = await process(zones)
    await one.take()
    assert await one.cache.get("k") is None
    assert await one.cache.get_item("k") is None
    assert await one.cache.get_many(["k"]) == {}
    assert not await one.cache.replace("k", 1)
    assert await one.cache.add("k", 2)
    assert await one.cache.get("k") == 2


@pytest.mark.parametrize("write", ["set", "delete"])
@on_zones(zones=2)
async def test_a_write_ends_the_lease_of_a_key(zones, write):
    """A store with the token of the ended lease would find another version."""
    one = await process(zones)
    lease = await one.take()
    assert await (one.cache.set("k", 1) if write == "set" else one.cache.delete("k"))
    assert isinstance(await one.take(), ZoneHit)
    assert zones.held("k", "a").raw.cas != lease.token


@on_zones(zones=2)
async def test_a_zone_that_is_down_is_passed_by(zones):
    """In an order that all processes share, or each would get one of its own."""
    processes = [await process(zones), await process(zones)]
    await zones.kill("a")
    for each in processes:
        await each.cache.touch("nothing", 1, errors="miss")
    await pass_time(0.5)
    taken = [await each.take() for each in processes]
    assert [lease.pool.name for lease in taken[:1]] == ["b"]
    assert taken[1] is NoLease.TAKEN


@pytest.mark.parametrize("how", ["killed", "cut off", "hanging"])
@on_zones(zones=2)
async def test_without_a_zone_there_is_no_lease(zones, how):
    """Nothing is raised: one loads without it."""
    one = await process(zones)
    if how == "killed":
        await zones.kill("a", "b")
    elif how == "cut off":
        await cut_off(zones, one.cache, "a", "b")
    else:
        zones.pause("a", "b")
    assert await one.take(timeout=0.2) is NoLease.UNREACHABLE
    assert await one.take_beside() is NoLease.UNREACHABLE


@on_zones(zones=1, cas_enabled=False)
async def test_a_server_without_cas_gives_no_leases(zones):
    """Without a CAS, a stub looks like any other, and the loaded value cannot replace exactly that stub."""
    one = await process(zones)
    assert await one.take() is NoLease.UNREACHABLE
    assert await one.take_beside() is NoLease.UNREACHABLE
    assert no_stubs(zones)
    assert b" N" not in zones.wire("a")


@on_zones(zones=1, classic_only=True)
async def test_the_classic_protocol_knows_no_leases(zones):
    one = await process(zones)
    assert await one.take() is NoLease.UNREACHABLE
    assert no_stubs(zones)


@on_zones(zones=1)
async def test_giving_back_where_nobody_answers_raises_nothing(zones):
    one = await process(zones)
    lease = await one.take(seconds=10)
    zones.pause("a")
    one.leases.give_back(lease, one.deadline(0.1))
    one.leases.extend(lease, 30, one.deadline(0.1))
    await pass_time(1)


@on_zones(zones=1)
async def test_a_lease_can_be_made_to_last(zones):
    one, two = await process(zones), await process(zones)
    lease = await one.take_beside(seconds=2)
    one.leases.extend(lease, 30, one.deadline())
    await settle()
    assert stubs(zones)["a"] == {beside(KEY, OLD.hit.cas): 30}
    await pass_time(29)
    assert await two.take_beside() is NoLease.TAKEN


@on_releases("1.6.38", "1.6.18", zones=1)
async def test_a_lease_beside_an_item_is_for_replacing_that_item(zones):
    """When the key holds another item, the lease for the first item blocks no client."""
    one, two = await process(zones), await process(zones)
    await one.cache.set("k", "first")
    first = await one.take()
    assert isinstance(await one.take_beside(over=first), Lease)
    assert await two.take_beside(over=first) is NoLease.TAKEN
    await pass_time(0.01)
    await one.cache.set("k", "second")
    second = await two.take()
    lease = await two.take_beside(over=second)
    assert (lease.name, lease.over) == (beside(KEY, second.hit.cas), second.hit.cas)
    assert await one.take_beside(over=second) is NoLease.TAKEN


@on_zones(zones=2)
async def test_a_lease_in_a_zone_that_is_behind_is_for_replacing_what_is_known(zones):
    """Clients that know of it and clients that find it later use one lease. The version decides about the loaded value."""
    one, two, three = [await process(zones) for _ in range(3)]
    await one.cache.set("k", "old", consistency="all")
    old = await one.take()
    await one.take_beside(over=old)
    await pass_time(0.01)
    newest = (await one.cache.delete("k", consistency="all")).version
    lease = await two.take_beside(over=old, known=newest)
    assert (lease.name, lease.over) == (beside(KEY, cas_of(newest)), None)
    assert await one.take_beside(over=old, known=newest) is NoLease.TAKEN
    assert await three.take_beside(over=await three.take()) is NoLease.TAKEN


@pytest.mark.parametrize("length", [1, 100, 233, 234, 249, 250])
def test_the_name_beside_a_key_is_no_key_and_fits(length):
    """A control character is in it, which keys can't have; the longest keys keep theirs apart by a digest."""
    keys = [b"k" * length, b"k" * (length - 1) + b"j"]
    names = {beside(key, cas) for key in keys for cas in (0, 1, MAX_CAS - 1, MAX_CAS)}
    assert len(names) == 8
    for name in names:
        assert len(name) <= 250
        assert b"\x7f" in name
        assert not any(byte <= 32 for byte in name)
