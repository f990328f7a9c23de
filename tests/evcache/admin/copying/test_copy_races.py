"""Copies of items that clients change between the look at the source and the store in the target, on fake servers."""

import asyncio

import pytest

from evcache import EVCache
from evcache.admin.copying.copier import Copier, CopyTally
from evcache.admin.copying.decision import Copy, Skip
from evcache.admin.copying.stores import store_on
from evcache.replication.hlc import MILLISECONDS_SHIFT, HybridLogicalClock, cas_of
from evcache.values.flags import FLAG_TOMBSTONE
from tests.support.zones_of_fakes import SETTINGS, fake_zones

KEY = b"ns:k"
VERSION = 1_800_000_000_000 << MILLISECONDS_SHIFT


def client(zones, *names, **options):
    return EVCache("ns", {name: zones.nodes[name] for name in names}, nodes=SETTINGS, **options)


def copy_while(change, *, before=None, source=None, target=None):
    """Copy the key `k` from zone a to zone b, and call `change(zones)` before the copy is stored. Return what a test checks.

    Returns:
        The tally, the item of each zone, and the keys that the copier returned.
    """

    async def main():
        async with fake_zones(a=[source or {}], b=[target or {}]) as zones:
            async with client(zones, "a") as cache:
                await cache.set("k", "original", ttl=1000)
            if before is not None:
                await before(zones)
            tally = CopyTally()
            copier = Copier(tally)
            store = copier._store

            async def late(copies, *pools):
                await change(zones)
                return await store(copies, *pools)

            copier._store = late
            unanswered = await copier.copy([KEY], zones.pool("a"), zones.pool("b"))
            return tally, zones.items("a").get(KEY), zones.items("b").get(KEY), unanswered

    return asyncio.run(main())


async def nothing(_):
    pass


def test_a_touch_that_shortens_the_ttl_during_the_copy_shortens_that_of_the_copy():
    async def change(zones):
        async with client(zones, "a") as cache:
            assert await cache.touch("k", ttl=50)

    tally, original, copy, unanswered = copy_while(change)
    assert (tally.copied, unanswered) == (1, [])
    assert copy.value == original.value
    assert copy.cas == original.cas
    assert not copy.stale
    assert copy.expires_at < original.expires_at


def test_a_touch_to_a_ttl_that_no_copy_can_keep_removes_the_copy():
    async def change(zones):
        async with client(zones, "a") as cache:
            assert await cache.touch("k", ttl=1)

    tally, _, copy, _ = copy_while(change)
    assert copy is None
    assert (tally.copied, tally.skipped[Skip.EXPIRING]) == (0, 1)


def test_the_same_version_with_a_longer_ttl_in_the_target_stays():
    async def change(zones):
        item = zones.items("a")[KEY]
        line = b"ms %b %d T5000 F%d E%d\r\n%b\r\n" % (KEY, len(item.value), item.flags, item.cas, item.value)
        zones.servers["b"][0].session().receive(line)

    tally, original, copy, _ = copy_while(change)
    assert (tally.copied, tally.superseded) == (0, 1)
    assert copy.expires_at > original.expires_at + 3000


@pytest.mark.parametrize("version", ["1.6.38", "1.6.18"])
def test_an_older_value_does_not_return_when_what_replaced_it_has_expired(version):
    async def change(zones):
        for name in "ab":  # as if a value with a short TTL had been written to both zones, and expired
            zones.servers[name][0].session().receive(b"delete %b\r\n" % KEY)

    tally, _, copy, _ = copy_while(change, source={"version": version}, target={"version": version})
    assert copy is None
    assert (tally.copied, tally.skipped[Skip.GONE]) == (0, 1)


@pytest.mark.parametrize(("source", "target"), [("1.6.18", "1.6.18"), ("1.6.38", "1.6.18"), ("1.6.18", "1.6.38")])
def test_a_delete_during_the_copy_stays_although_a_zone_keeps_no_versions(source, target):
    async def change(zones):
        async with client(zones, "a", "b") as cache:
            await cache.delete("k")

    tally, _, copy, _ = copy_while(change, source={"version": source}, target={"version": target})
    assert copy is None or copy.flags == FLAG_TOMBSTONE
    assert tally.copied == 0


@pytest.mark.parametrize(("source", "target"), [("1.6.18", "1.6.18"), ("1.6.38", "1.6.18"), ("1.6.18", "1.6.38")])
def test_a_write_during_the_copy_stays_although_a_zone_keeps_no_versions(source, target):
    async def change(zones):
        async with client(zones, "a", "b") as cache:
            await cache.set("k", "newer", ttl=1000)

    tally, original, copy, _ = copy_while(change, source={"version": source}, target={"version": target})
    assert original.value == copy.value == b"newer"
    assert tally.copied == 0


@pytest.mark.parametrize("version", ["1.6.38", "1.6.18"])
def test_an_unchanged_item_is_copied(version):
    tally, original, copy, _ = copy_while(nothing, source={"version": version}, target={"version": version})
    assert tally.copied == 1
    assert copy.value == original.value
    assert copy.expires_at < original.expires_at


def test_a_tombstone_that_expires_soon_still_replaces_the_value_that_it_deletes():
    async def before(zones):
        async with client(zones, "b") as cache:
            await cache.set("k", "deleted in a", ttl=1000)
        async with client(zones, "a") as cache:
            await cache.delete("k")
        stone = zones.items("a")[KEY]
        zones.servers["a"][0].session().receive(b"touch %b 3\r\n" % KEY)
        assert stone.flags == FLAG_TOMBSTONE

    tally, _, copy, _ = copy_while(nothing, before=before)
    assert copy.flags == FLAG_TOMBSTONE
    assert tally.copied == 1


@pytest.mark.parametrize("value", ["original", "x" * 5_000])
def test_the_stub_of_a_lease_in_the_target_is_replaced(value):
    async def before(zones):
        async with client(zones, "a") as cache:
            await cache.set("k", value, ttl=1000)
        zones.servers["b"][0].session().receive(b"mg %b N30 v\r\n" % KEY)

    tally, original, copy, _ = copy_while(nothing, before=before)
    assert tally.copied == 1
    assert copy.value == original.value
    assert not copy.stale


def test_a_value_over_the_limit_of_the_node_that_is_connected_is_not_sent():
    """A node can restart with a lower limit after the decision. It would delete its item of the key, and then refuse."""

    async def main():
        async with fake_zones(b=[{"item_size_max": 2048}]) as zones:
            async with client(zones, "b") as cache:
                await cache.set("k", "held", ttl=1000)
            held = zones.items("b")[KEY]
            copy = Copy(KEY, bytes(4_000), 0, 100, VERSION, cas_of(VERSION), held.cas)
            outcomes = await store_on(zones.pool("b").nodes[0], [copy], HybridLogicalClock())
            assert outcomes == {KEY: Skip.TOO_LARGE}
            assert zones.items("b")[KEY].value == b"held"

    asyncio.run(main())
