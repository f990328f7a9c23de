"""Plain values of a bulk read need no item. The result, its order and what listeners hear are as for other values."""

import asyncio

import pytest

from evcache.telemetry.counters import Counters
from tests.support.cores import CORES, running
from tests.support.memory_zones import Listener, MemoryZones
from tests.support.virtual_time import run

VALUES = {"a": "text", "b": b"bytes", "c": 1, "d": b"more", "e": [None], "f": b"", "g": b"x" * 100_000}
PLAIN = {f"k{number}": b"v%d" % number for number in range(40)}

each_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)


class Reads(Listener):
    def __init__(self):
        super().__init__()
        self.reads = []

    def read(self, key, zone, source, *, hit):
        self.reads.append((key, zone, source, hit))


async def filled(core, nodes, values, **options):
    with running(core):
        zones = MemoryZones(3, nodes)
        cache = await zones.ready(telemetry=None, **options)
    await cache.set_many(values, ttl=60, consistency="all")
    return zones, cache


@each_core
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("values", [VALUES, PLAIN], ids=["mixed", "plain"])
@pytest.mark.parametrize("portion", [1_000, 10])
def test_the_result_is_in_the_order_of_the_keys(core, nodes, values, portion, monkeypatch):
    monkeypatch.setattr("evcache.reads.bulk.portions.PORTION_KEYS", portion)
    monkeypatch.setattr("evcache.reads.bulk.portions.PORTION_KEYS_PER_NODE", 1)

    async def scenario():
        zones, cache = await filled(core, nodes, values)
        try:
            keys = ["none", *reversed(values)]
            assert list((await cache.get_many(keys)).items()) == list(reversed(values.items()))
        finally:
            await zones.close_clients()

    run(scenario())


@each_core
def test_portions_may_end_in_any_order(core, monkeypatch):
    """On several connections, a later portion may be served first."""

    async def in_reverse(items, work, limit):
        del limit
        for item in reversed(list(items)):
            await work(item)

    monkeypatch.setattr("evcache.reads.bulk.portions.PORTION_KEYS", 10)
    monkeypatch.setattr("evcache.reads.bulk.portions.run_concurrently", in_reverse)

    async def scenario():
        zones, cache = await filled(core, 1, PLAIN)
        try:
            assert list(await cache.get_many(PLAIN)) == list(PLAIN)
        finally:
            await zones.close_clients()

    run(scenario())


@each_core
def test_a_key_that_is_given_twice_is_in_the_result_twice(core):
    async def scenario():
        zones, cache = await filled(core, 1, PLAIN)
        try:
            assert await cache.get_many(["k1", b"k1", "k2", "k1"]) == {"k1": b"v1", b"k1": b"v1", "k2": b"v2"}
        finally:
            await zones.close_clients()

    run(scenario())


@each_core
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("value", [b"plain", "text"])
def test_a_listener_that_is_added_during_a_read_hears_of_its_hits(core, nodes, value):
    async def scenario():
        zones, cache = await filled(core, nodes, {"k": value, "l": value})
        listener = Reads()
        try:
            reads = [asyncio.ensure_future(read) for read in (cache.get("k"), cache.get_many(["k", "l", "none"]))]
            await asyncio.sleep(0)
            cache._runtime.hooks.add(listener)  # noqa: SLF001
            await asyncio.gather(*reads)
        finally:
            await zones.close_clients()
        heard = {(bytes(key).rpartition(b":")[2], source, hit) for key, _, source, hit in listener.reads}
        assert heard == {(b"k", "local", True), (b"l", "local", True), (b"none", "none", False)}
        assert len(listener.reads) == 4

    run(scenario())


@each_core
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("values", [VALUES, PLAIN], ids=["mixed", "plain"])
def test_listeners_receive_each_key_of_a_bulk_read_once(core, nodes, values):
    """A listener of a service receives each key, and the metrics count as many."""

    async def scenario():
        listener = Reads()
        zones, cache = await filled(core, nodes, values, hooks=listener)
        counters = Counters()
        cache._runtime.hooks.add(counters)  # noqa: SLF001
        try:
            await cache.get_many([*values, "none"])
        finally:
            await zones.close_clients()
        heard = sorted((bytes(key).rpartition(b":")[2].decode(), source, hit) for key, _, source, hit in listener.reads)
        assert heard == sorted([*((key, "local", True) for key in values), ("none", "none", False)])
        assert counters.reads == {("local", True, "a"): len(values), ("none", False, ""): 1}

    run(scenario())


@each_core
def test_a_listener_that_raises_is_not_called_again(core, caplog):
    class Raises(Reads):
        def read(self, key, zone, source, *, hit):
            super().read(key, zone, source, hit=hit)
            raise ValueError("in a listener")

    async def scenario():
        listener = Raises()
        zones, cache = await filled(core, 1, PLAIN, hooks=listener)
        try:
            assert await cache.get_many(PLAIN) == PLAIN
            assert await cache.get_many(PLAIN) == PLAIN
        finally:
            await zones.close_clients()
        assert len(listener.reads) == 1
        assert "hook failed" in caplog.text

    run(scenario())
