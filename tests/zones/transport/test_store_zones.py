"""Zones of a store, on each core: the node of the key in each, its sole connection, and the stores that it does not take."""

import asyncio
import weakref
from types import SimpleNamespace

import pytest

from evcache.zones.routing.ketama import ring_of, ring_position
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.core.selected import COMPILED
from evcache.zones.transport.core.store_zones import Placement
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.cores import CORES

each_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)


class Connection:
    """Connection of another kind than a pipeline."""

    def send_store(self, store, waiter, deadline):
        """Send nothing."""


def node(versioned_bytes=1000):
    return SimpleNamespace(connections=SimpleNamespace(sole=Connection()), versioned_bytes=versioned_bytes)


def placement(name, nodes, *, counts=True):
    if len(nodes) == 1:
        return Placement(name, counts, nodes, None, None)
    return Placement(name, counts, nodes, *ring_of([f"node-{number}" for number in range(len(nodes))]).arrays())


@each_core
def test_each_zone_has_the_connection_to_its_node(core):
    a, b = node(), node()
    zones = core.store_zones([placement("a", [a]), placement("b", [b], counts=False)])
    for _ in range(2):
        assert zones.of(b"k", 10) == [("a", True, a.connections.sole, None), ("b", False, b.connections.sole, None)]
    b.connections.sole = Connection()  # after a reconnect
    assert zones.of(b"k", 10) == [("a", True, a.connections.sole, None), ("b", False, b.connections.sole, None)]


@each_core
def test_a_key_belongs_to_the_node_of_each_ring(core):
    three, six = [node() for _ in range(3)], [node() for _ in range(6)]
    zones = core.store_zones([placement("a", three), placement("b", [node()]), placement("c", six)])
    rings = {"a": (three, ring_of([f"node-{n}" for n in range(3)])), "c": (six, ring_of([f"node-{n}" for n in range(6)]))}
    met = set()
    for number in range(200):
        key = b"key-%d" % number
        found = {name: connection for name, _, connection, _ in zones.of(key, 10)}
        for name, (nodes, ring) in rings.items():
            expected = nodes[ring.owner(ring_position(key))]
            assert found[name] is expected.connections.sole
            met.add((name, nodes.index(expected)))
    assert len(met) == 9


@each_core
@pytest.mark.parametrize("case", ["no sole connection", "too large", "no versions"])
def test_a_node_that_takes_no_ordinary_store_ends_it(core, case):
    a, b = node(), node()
    zones = core.store_zones([placement("a", [a]), placement("b", [b])])
    assert zones.of(b"k", 1000) is not None
    if case == "no sole connection":
        b.connections.sole = None
    elif case == "too large":
        assert zones.of(b"k", 1001) is None
        b.versioned_bytes = 999
    else:
        b.versioned_bytes = -1
    assert zones.of(b"k", 1000) is None


@each_core
def test_a_connection_that_has_ended_is_not_kept(core):
    a = node()
    zones = core.store_zones([placement("a", [a])])
    assert zones.of(b"k", 1) is not None
    gone = weakref.ref(a.connections.sole)
    a.connections.sole = None
    assert zones.of(b"k", 1) is None
    assert gone() is None


@each_core
def test_no_zone_is_no_ordinary_store(core):
    assert not core.store_zones([]).of(b"k", 1)


@pytest.mark.skipif(COMPILED is None, reason="the core is not compiled")
def test_the_compiled_core_takes_the_exchange_of_a_pipeline():
    """Its tally then sends without a call of Python. A connection of the other core stays as it is."""
    loop = asyncio.new_event_loop()
    try:
        for core in CORES:
            exchange = core.new_exchange("n", loop, ConnectionLimits(), None, lambda: None, lambda _: None, ByteCounter())
            pipeline = SimpleNamespace(send_store=exchange.send_store)
            server = SimpleNamespace(connections=SimpleNamespace(sole=pipeline), versioned_bytes=10)
            ((_, _, found, _),) = COMPILED.store_zones([placement("a", [server])]).of(b"k", 1)
            assert found is (exchange if core is COMPILED else pipeline)
    finally:
        loop.close()
