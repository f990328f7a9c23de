"""Comparison and repair of two zones, on fake servers."""

import asyncio
import random

import pytest

from evcache import EVCache
from evcache.admin.copying.compare import EXAMPLES, Comparer
from evcache.admin.copying.difference import Kind
from evcache.admin.copying.key_files import reservoir
from tests.support.zones_of_fakes import SETTINGS, fake_zones


async def no_sleep(_):
    pass


async def compare(zones, *, keys=None, repair=False, values=False, sleep=no_sleep):
    run = Comparer(
        (zones.pool("a"), zones.pool("b")),
        keys or zones.listed(),
        keys_per_second=1e9,
        repair=repair,
        values=values,
        sleep=sleep,
    )
    await run.run()
    return run.tally


async def planted(zones):
    """Write to both zones, and plant one difference of each kind that has an order."""
    async with EVCache("ns", {name: zones.nodes[name] for name in "ab"}, nodes=SETTINGS) as both:
        await both.set_many({f"k{place}": place for place in range(100)}, ttl=1000, timeout=10)
    async with EVCache("ns", {"a": zones.nodes["a"]}, nodes=SETTINGS) as cache:
        await cache.set("only-in-a", 1, ttl=1000)
        await cache.set("k1", "newer in a", ttl=1000)
    async with EVCache("ns", {"b": zones.nodes["b"]}, nodes=SETTINGS) as cache:
        await cache.set("only-in-b", 1, ttl=1000)
        await cache.set("k2", "newer in b", ttl=1000)
        await cache.delete("k3")


EXPECTED = {
    (Kind.MISSING, "a"): 1,
    (Kind.MISSING, "b"): 1,
    (Kind.OLDER, "a"): 1,
    (Kind.OLDER, "b"): 1,
    (Kind.NOT_DELETED, "a"): 1,
}


def test_each_difference_is_found_once():
    async def main():
        async with fake_zones(a=[{}, {}], b=[{}]) as zones:
            await planted(zones)
            found = await compare(zones)
            assert found.differences == EXPECTED
            assert (found.compared, found.unanswered, found.remaining) == (102, 0, 5)
            assert found.examples[Kind.NOT_DELETED, "a"] == [b"ns:k3"]

    asyncio.run(main())


def test_a_repair_makes_the_zones_equal_and_keeps_the_newer_values():
    async def main():
        async with fake_zones(a=[{}, {}], b=[{}]) as zones:
            await planted(zones)
            found = await compare(zones, repair=True)
            assert (found.differences, found.repaired, found.remaining) == (EXPECTED, 5, 0)
            assert (await compare(zones)).different == 0
            for name in "ab":
                async with EVCache("ns", {name: zones.nodes[name]}, nodes=SETTINGS) as cache:
                    read = await cache.get_many(["only-in-a", "only-in-b", "k1", "k2", "k3"])
                    assert read == {"only-in-a": 1, "only-in-b": 1, "k1": "newer in a", "k2": "newer in b"}

    asyncio.run(main())


def test_a_difference_that_a_write_in_flight_explains_is_not_counted():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            async with EVCache("ns", {"a": zones.nodes["a"]}, nodes=SETTINGS) as cache:
                await cache.set("k", "v", ttl=1000)
            item = zones.items("a")[b"ns:k"]

            async def the_write_arrives(seconds):
                if seconds:
                    zones.servers["b"][0].session().receive(
                        b"ms ns:k %d T1000 E%d F%d\r\n%b\r\n" % (len(item.value), item.cas, item.flags, item.value)
                    )

            found = await compare(zones, sleep=the_write_arrives)
            assert (found.compared, found.different) == (1, 0)

    asyncio.run(main())


@pytest.mark.parametrize(("values", "different"), [(False, 0), (True, 1)])
def test_values_of_equal_versions_are_compared_on_request(values, different):
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            async with EVCache("ns", {name: zones.nodes[name] for name in "ab"}, nodes=SETTINGS) as cache:
                await cache.set_many({"k1": "x", "k2": "y"}, ttl=1000)
            zones.servers["b"][0].store.get(b"ns:k2").value = b"damaged"
            found = await compare(zones, values=values, repair=True)
            assert found.different == found.remaining == different
            assert zones.items("b")[b"ns:k2"].value == b"damaged", "nothing shows which value is right"

    asyncio.run(main())


def test_items_without_versions_are_compared_by_value():
    async def main():
        async with fake_zones(a=[{"version": "1.6.18"}], b=[{"version": "1.6.18"}]) as zones:
            async with EVCache(
                "ns", {name: zones.nodes[name] for name in "ab"}, ordering="arrival", nodes=SETTINGS
            ) as cache:
                await cache.set_many({"k1": "x", "k2": "y"}, ttl=1000)
            async with EVCache("ns", {"b": zones.nodes["b"]}, ordering="arrival", nodes=SETTINGS) as cache:
                await cache.set("k2", "z", ttl=1000)
            found = await compare(zones, repair=True)
            assert found.differences == {(Kind.VALUE, None): 1}
            assert found.remaining == 1

    asyncio.run(main())


def test_keys_of_a_dead_node_are_unanswered():
    async def main():
        async with fake_zones(a=[{}], b=[{}, {}]) as zones:
            async with EVCache("ns", {"a": zones.nodes["a"]}, nodes=SETTINGS) as cache:
                await cache.set_many({f"k{place}": place for place in range(100)}, ttl=1000)
            keys = list(zones.items("a"))
            await zones.servers["b"][0].stop()

            class Keys:
                depends_on_zone = False

                async def batches(self, _pool, _size):
                    yield keys

            found = await compare(zones, keys=Keys())
            assert found.unanswered > 0
            assert found.compared + found.unanswered == 100
            assert found.differences == {(Kind.MISSING, "b"): found.compared}
            assert len(found.examples[Kind.MISSING, "b"]) == EXAMPLES

    asyncio.run(main())


def test_a_sample_has_as_many_keys_as_asked_for():
    async def main():
        async with fake_zones(a=[{}, {}], b=[{}]) as zones:
            async with EVCache("ns", {name: zones.nodes[name] for name in "ab"}, nodes=SETTINGS) as cache:
                await cache.set_many({f"k{place}": place for place in range(1_000)}, ttl=1000, timeout=10)
            found = await compare(zones, keys=zones.listed(sample=100))
            assert (found.compared, found.different) == (100, 0)

    asyncio.run(main())


def test_each_key_has_the_same_chance_in_a_sample():
    keys = [b"%d" % place for place in range(20)]
    choose = random.Random(1)
    counts = dict.fromkeys(keys, 0)
    for _ in range(4_000):
        for key in reservoir(iter(keys), 5, choose):
            counts[key] += 1
    assert all(800 < number < 1_200 for number in counts.values())


@pytest.mark.parametrize("version", ["1.6.38", "1.6.18"])
def test_a_key_that_is_written_all_the_time_is_no_difference(version):
    """Each look finds the write in one zone and the write before it in the second zone."""

    async def main():
        async with fake_zones(a=[{"version": version}], b=[{"version": version}]) as zones:
            item = None

            def line(item):
                if version == "1.6.18":
                    return b"ms ns:k %d T1000 F%d\r\n%b\r\n" % (len(item.value), item.flags, item.value)
                return b"ms ns:k %d T1000 E%d F%d\r\n%b\r\n" % (len(item.value), item.cas, item.flags, item.value)

            async def write():
                nonlocal item
                if item is not None:
                    zones.servers["b"][0].session().receive(line(item))
                async with EVCache("ns", {"a": zones.nodes["a"]}, ordering="arrival", nodes=SETTINGS) as cache:
                    await cache.set("k", random.random(), ttl=1000)
                item = zones.items("a")[b"ns:k"]

            async def sleep(seconds):
                if seconds:
                    await write()

            await write()
            await write()
            found = await compare(zones, sleep=sleep)
            assert (found.compared, found.different) == (1, 0)

    asyncio.run(main())


def test_an_item_whose_copy_has_expired_a_few_seconds_before_it_is_no_difference():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            async with EVCache("ns", {"a": zones.nodes["a"]}, nodes=SETTINGS) as cache:
                await cache.set("short", 1, ttl=8)
                await cache.set("long", 1, ttl=100)
            assert (await compare(zones)).examples == {(Kind.MISSING, "b"): [b"ns:long"]}

    asyncio.run(main())


def test_a_key_whose_node_dies_is_neither_different_nor_repaired():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            async with EVCache("ns", {"a": zones.nodes["a"]}, nodes=SETTINGS) as cache:
                await cache.set("k", 1, ttl=1000)

            async def sleep(seconds):
                if seconds:
                    await zones.servers["b"][0].stop()

            found = await compare(zones, sleep=sleep, repair=True)
            assert (found.compared, found.unanswered, found.different, found.repaired) == (0, 1, 0, 0)

    asyncio.run(main())


def test_a_repair_without_an_answer_is_not_counted():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            async with EVCache("ns", {"a": zones.nodes["a"]}, nodes=SETTINGS) as cache:
                await cache.set("k", 1, ttl=1000)
            run = Comparer(
                (zones.pool("a"), zones.pool("b")),
                zones.listed(),
                keys_per_second=1e9,
                repair=True,
                values=False,
                sleep=no_sleep,
            )

            async def copy(*_):
                await zones.servers["b"][0].stop()

            run._copier.copy = copy
            await run.run()
            assert (run.tally.different, run.tally.repaired, run.tally.remaining) == (1, 0, 1)

    asyncio.run(main())
