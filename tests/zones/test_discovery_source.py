"""A cluster that follows a source of topologies."""

import asyncio
import logging

import pytest

from evcache.zones.discovery.base import StaticDiscovery
from evcache.zones.errors import InvalidTopology
from tests.support.cluster_bench import Bench, ScriptedDiscovery, zones
from tests.support.virtual_time import in_virtual_time, settle

# Following a source.


@in_virtual_time
async def test_changes_of_the_source_are_applied():
    async with Bench() as bench:
        source = ScriptedDiscovery(zones("a=h1"))
        view = await bench.cluster.start(source)
        assert view is bench.cluster.view
        assert bench.names == ["a h1"]
        source.put(zones("a=h1;b=h2"))
        await settle()
        assert bench.names == ["a h1", "b h2"]
        source.put(zones("b=h2"))
        await settle()
        assert bench.names == ["b h2"]
        await bench.cluster.close(0)
        await settle()
        assert source.closed


@in_virtual_time
async def test_a_source_that_ends_is_no_error(caplog):
    async with Bench() as bench:
        await bench.cluster.start(StaticDiscovery(zones("a=h1")))
        await settle()
        await bench.connect()
        assert bench.names == ["a h1"]
        assert caplog.records == []


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("unreachable"), InvalidTopology("zones", "nonsense")])
@in_virtual_time
async def test_a_source_that_fails_is_logged_and_takes_nothing_with_it(error, caplog):
    async with Bench() as bench:
        source = ScriptedDiscovery(zones("a=h1"))
        await bench.cluster.start(source)
        source.put(zones("a=h1;b=h2"))
        source.put(error)
        await settle()
        (record,) = caplog.records
        assert (record.levelno >= logging.WARNING, record.name) == (True, "evcache.zones.cluster")
        assert str(error) in caplog.text
        assert bench.names == ["a h1", "b h2"]
        await bench.connect()


@in_virtual_time
async def test_a_first_topology_that_can_not_be_used_is_raised_and_nothing_is_followed():
    async with Bench(local="b", strict=True) as bench:
        source = ScriptedDiscovery(zones("a=h1"))
        with pytest.raises(InvalidTopology, match="local_zone"):
            await bench.cluster.start(source)
        assert not source.closed


def many(*counts):
    return zones(
        ";".join(f"{zone}=" + ",".join(f"{zone}{n}" for n in range(count)) for zone, count in zip("ab", counts, strict=True))
    )


@in_virtual_time
async def test_others_run_while_the_rings_of_large_zones_are_made():
    """And none is made again for a zone that has not changed."""
    async with Bench() as bench:
        turns = 0

        async def count():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        source = ScriptedDiscovery(many(1_000, 3))
        view = await bench.cluster.start(source)
        assert turns >= 10
        assert len(bench.names) == 1_003
        turns = 0
        source.put(many(1_000, 4))
        while bench.cluster.view is view:
            await asyncio.sleep(0)
        assert turns < 10
        assert len(bench.names) == 1_004
        counting.cancel()


@in_virtual_time
async def test_a_change_that_is_being_prepared_when_the_cluster_is_closed_does_not_happen():
    async with Bench() as bench:
        source = ScriptedDiscovery(zones("a=h1"))
        view = await bench.cluster.start(source)
        source.put(many(500, 1))
        await settle(3)
        assert bench.cluster.view is view
        await bench.cluster.close(0)
        await settle()
        assert bench.cluster.view is view
        assert bench.names == []


@in_virtual_time
async def test_close_while_rings_are_made_closes_the_source():
    """The task of the client is then outside of the source, whose generator waits at a `yield`."""
    async with Bench() as bench:
        source = ScriptedDiscovery(many(1, 1))
        await bench.cluster.start(source)
        await settle()
        source.put(many(150, 150))
        for _ in range(4):
            await asyncio.sleep(0)
        assert bench.cluster.view.topology == many(1, 1)
        await bench.cluster.close(0)
        assert source.closed


@in_virtual_time
async def test_source_that_raises_is_in_the_state_of_the_topology():
    async with Bench() as bench:
        source = ScriptedDiscovery(zones("a=h1"))
        await bench.cluster.start(source)
        assert bench.cluster.topology_error is None
        source.put(RuntimeError("a bug"))
        await settle()
        assert bench.cluster.topology_error == "a bug"


class PlainIterator:
    """A source whose `watch` is no generator."""

    def __init__(self, topologies):
        self._topologies = iter(topologies)

    async def load(self):
        return next(self._topologies)

    def watch(self):
        return self

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        try:
            return next(self._topologies)
        except StopIteration:
            raise StopAsyncIteration from None


@in_virtual_time
async def test_source_may_return_any_iterator():
    async with Bench() as bench:
        await bench.cluster.start(PlainIterator([zones("a=h1"), zones("a=h1;b=h2")]))
        await settle()
        assert bench.names == ["a h1", "b h2"]
